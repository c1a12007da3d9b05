"""Whether git is at work in the checkout that holds some files; runs no git."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_POINTER = "gitdir:"


def find_checkout_lock(folder: Path) -> Path | None:
    """Find the lock that git holds while it changes the files of a checkout.

    While it is there, files may be missing that are neither in the old commit nor in the new one: git takes
    away all that goes before it writes what comes.

    Args:
        folder: Any folder of the checkout.

    Returns:
        The lock; None where git is not at work, or the folder is in no checkout.
    """
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_file():  # a worktree or a submodule
            text = git.read_text(encoding="utf-8", errors="replace").strip()
            if not text.startswith(_POINTER):
                return None
            git = place / text.removeprefix(_POINTER).strip()
        if git.is_dir():
            lock = git / "index.lock"
            return lock if lock.exists() else None
    return None
