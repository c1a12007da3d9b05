"""`history`, `history show` and `blame`: who changed what, when, why, and from what."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.main import main
from reconciler.core.changes import ACTIONS
from reconciler.database.connect import connect
from reconciler.database.history import find_revision, list_revisions, list_touches
from reconciler.errors import DatabaseError
from tests.declared import Site, job, queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.one_server


@pytest.fixture
def lived(site: Site) -> Site:
    """A database with a history: made, renamed and edited, gone; another owner in between."""
    site.apply(job("tidy", "SELECT 1"), queue("mail"), prune="auto")
    site.apply(queue("stove"), owner="kitchen")
    site.apply(replace(job("sweep", "SELECT 1"), renamed_from="tidy"), queue("mail"), prune="auto")
    site.apply(job("sweep", "SELECT 2"), prune="auto", allow_deletes=1)
    return site


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site
) -> Callable[..., str]:
    """Run a command in this process as its users do, and return what it prints."""
    (tmp_path / "reconciler.yaml").write_text(
        f"owner: shop\ntargets:\n  test: {{dsn: {json.dumps(site.dsn)}}}\n"
    )
    monkeypatch.chdir(tmp_path)

    def call(*args: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(args)
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.err if code else printed.out

    return call


def test_nothing_was_applied_yet(site: Site, run: Callable[..., str]) -> None:
    """An empty database has an empty history, and knows no name."""
    assert run("history") == "Nothing was applied yet by shop.\n"
    assert run("history", "--all") == "Nothing was applied yet.\n"
    assert run("history", "--json") == "[]\n"
    assert "there is no revision 1 on this target" in run("history", "show", "1", code=1)
    assert "no revision of this target knows 'tidy'" in run("blame", "tidy", code=1)
    assert site.rows("SELECT to_regnamespace('reconciler')::text") == [(None,)]


@pytest.mark.usefixtures("lived")
def test_revisions_are_listed(run: Callable[..., str]) -> None:
    """The newest first: number, time, person with role, commit, counts, names."""
    lines = run("history").splitlines()
    assert [line.split()[0] for line in lines] == ["revision", "4", "3", "1"]
    assert "anna (role postgres)  c0ffee  ~1 -1    sweep, mail" in lines[1]
    assert [line.split()[:2] for line in run("history", "--all", "--limit", "3").splitlines()[1:]] == [
        ["4", "shop"],
        ["3", "shop"],
        ["2", "kitchen"],
    ]


def test_revisions_are_listed_for_programs(lived: Site, run: Callable[..., str]) -> None:
    """Each with all of its names, and with what makes it special."""
    lived.run(
        'UPDATE reconciler.revisions SET summary = \'{"rollback_to": 1, "emergency": "fire"}\' WHERE id = 4'
    )
    (last,) = json.loads(run("history", "--json", "--limit", "1"))
    assert last.pop("applied_at").endswith("+00:00")
    assert last.pop("release")
    assert last == {
        "revision": 4,
        "owner": "shop",
        "target": "test",
        "applied_by": "postgres",
        "actor": "anna",
        "commit": "c0ffee",
        "rollback_to": 1,
        "emergency": "fire",
        "restored": [],
        "transferred_from": None,
        "transferred_to": None,
        "counts": dict.fromkeys(ACTIONS, 0) | {"update": 1, "delete": 1},
        "names": ["sweep", "mail"],
    }
    assert "~1 -1 (rollback to 1) (emergency)" in run("history")
    shown = run("history", "show", "4")
    assert "  rollback  to revision 1\n  emergency fire\n" in shown


@pytest.mark.usefixtures("lived")
def test_a_revision_is_shown_as_its_plan_was(run: Callable[..., str]) -> None:
    """Each change before and after; of any owner."""
    shown = run("history", "show", "4")
    assert shown.startswith("Revision 4 of shop on test\n")
    assert '  ~ job sweep  (edited, jobs.d/shop.yaml:3)\n      spec.sql: "SELECT 1" → "SELECT 2"\n' in shown
    assert "  - queue mail  (removed, jobs.d/shop.yaml:3)\n" in shown
    assert shown.endswith("Revision 4: ~1 -1.\n")
    assert "+ queue stove" in run("history", "show", "2")
    value = json.loads(run("history", "show", "3", "--format", "json"))
    (change,) = value["changes"]
    assert (change["renamed_from"], change["before"]["entry"]["name"]) == ("tidy", "tidy")
    assert change["after"]["spec"] == json.loads(job("sweep").document)
    assert value["revision"] == 3


@pytest.mark.usefixtures("lived")
def test_blame_names_person_file_and_what_was_before(run: Callable[..., str]) -> None:
    """The last change in full, a line for each one before, through renames."""
    text = run("blame", "sweep")
    assert text.startswith("Revision 4 of shop on test\n  when      2")
    assert "  who       anna (role postgres)\n  commit    c0ffee\n" in text
    assert "  source    jobs.d/shop.yaml:3\n" in text
    assert 'spec.sql: "SELECT 1" → "SELECT 2"' in text
    earlier = text.partition("Before that:\n")[2].splitlines()[1:]
    assert [line.split()[0] for line in earlier] == ["3", "1"]
    assert "~ sweep  renamed" in earlier[0]
    assert "+ tidy   declared" in earlier[1]
    assert [touch["revision"] for touch in json.loads(run("blame", "sweep", "--json"))] == [4, 3, 1]


@pytest.mark.usefixtures("lived")
def test_blame_knows_names_that_are_gone(run: Callable[..., str]) -> None:
    """What was removed, what has another name now, what another owner has; the nearest name otherwise."""
    assert "mail is not there any more." in run("blame", "mail")
    assert "tidy is called sweep now." in run("blame", "tidy")
    assert run("blame", "stove").startswith("Revision 2 of kitchen on test\n")
    assert "did you mean 'sweep'?" in run("blame", "swep", code=1)


def test_a_name_that_is_used_again_is_followed(site: Site) -> None:
    """Deleted and made anew: both lives are told, and those of the resource that took its name with it."""
    site.apply(queue("a"), prune="auto")
    site.apply(prune="auto", allow_deletes=1)
    site.apply(queue("a"), prune="auto")
    site.apply(replace(queue("b"), renamed_from="a"), prune="auto")
    site.apply(queue("a"), queue("b"), prune="auto")
    with connect(site.dsn) as conn:
        assert [touch.id for touch in list_touches(conn, "b")] == [4, 3, 2, 1]
        assert [touch.id for touch in list_touches(conn, "a")] == [5, 4, 3, 2, 1]


def test_a_role_that_may_only_read_sees_it(lived: Site) -> None:
    """The rights of a plan are enough, and nothing is written."""
    lived.run(
        "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA cron, reconciler TO reader;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader"
    )
    before = lived.everything()
    with connect(Site(lived.database, "reader").dsn) as conn:
        assert [head.id for head in list_revisions(conn, owner="shop", limit=20)] == [4, 3, 1]
        assert [change.name for change in find_revision(conn, 4).read_changes()] == ["sweep", "mail"]
        assert len(list_touches(conn, "sweep")) == 3
        with pytest.raises(DatabaseError, match="no revision 9"):
            find_revision(conn, 9)
    assert lived.everything() == before


def test_texts_of_the_database_are_harmless(lived: Site, run: Callable[..., str]) -> None:
    """Who wrote control characters into a revision does not reach the terminal of who reads it."""
    lived.run(
        "UPDATE reconciler.revisions SET actor = E'\\x1b[31mmallory', commit = E'\\x1b]0;x' WHERE id = 4"
    )
    text = run("history") + run("history", "show", "4") + run("blame", "sweep")
    assert "\x1b" not in text
    assert "\\x1b[31mmallory" in text
