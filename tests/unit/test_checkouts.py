"""Whether git is changing the files, seen by the lock that it holds meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.loader.checkouts import find_checkout_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_is_found_from_any_folder_of_the_checkout(tmp_path: Path) -> None:
    """While it is there, and no longer."""
    folder = tmp_path / "ops" / "cron"
    folder.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    assert find_checkout_lock(folder) is None
    lock = tmp_path / ".git" / "index.lock"
    lock.touch()
    assert find_checkout_lock(folder) == lock


def test_a_worktree_has_its_lock_elsewhere(tmp_path: Path) -> None:
    """Its .git is a file that says where."""
    home, tree = tmp_path / "home" / ".git" / "worktrees" / "tree", tmp_path / "tree"
    home.mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text("gitdir: ../home/.git/worktrees/tree\n")
    (home / "index.lock").touch()
    found = find_checkout_lock(tree)
    assert found is not None
    assert found.resolve() == home / "index.lock"


@pytest.mark.parametrize("text", ["", "gitdir: nowhere", "what is this"])
def test_what_is_no_checkout_has_no_lock(tmp_path: Path, text: str) -> None:
    """A file .git that leads nowhere is no reason to wait."""
    (tmp_path / ".git").write_text(text)
    assert find_checkout_lock(tmp_path) is None
