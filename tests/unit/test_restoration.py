"""Bringing single resources back: as they were last, whole, and only what can come back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.changes import Change, Snapshot
from reconciler.core.history import Present, Revision, list_live, replay, restore
from reconciler.core.restoration import RestoreError, bring_back, find_lost
from tests.core_builders import make_entry

if TYPE_CHECKING:
    from reconciler.core.changes import Action, Reason
    from reconciler.core.history import Restored
    from reconciler.core.specs import Kind
    from reconciler.core.state import Entry

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def change(
    action: Action,
    name: str,
    document: str = "{}",
    *,
    reason: Reason = "declared",
    kind: Kind = "job",
    entry: Entry | None = None,
    renamed_from: str = "",
) -> Change:
    """Make a change whose document is the same on both sides."""
    side = Snapshot(document=document, entry=entry)
    return Change(
        action=action,
        kind=kind,
        name=name,
        reason=reason,
        before=None if action == "create" else side,
        after=None if action in {"delete", "release"} else side,
        source="jobs.d/a.yaml:3",
        renamed_from=renamed_from,
    )


def revisions(*changes: Change | tuple[Change, ...]) -> tuple[Revision, ...]:
    """Make a revision of each change."""
    return tuple(
        Revision(id=number, owner="shop", changes=each if isinstance(each, tuple) else (each,))
        for number, each in enumerate(changes, 1)
    )


def present(kind: Kind = "job", **documents: str) -> dict[str, Present]:
    """Make intact definitions of now."""
    return {
        name: Present(kind=kind, name=name, document=text, digest=digest(text), entry=None, source="a:1")
        for name, text in documents.items()
    }


def bring(names: str, history: tuple[Revision, ...], **options: Any) -> Restored:
    """Bring back names that stand in a row."""
    return bring_back(
        names.split(), history, options.get("present", {}), options.get("elsewhere", {}), now=NOW
    )


def test_what_was_taken_away_is_found_as_it_was_last() -> None:
    """Retired, deleted or released; that it was retired once more, or deleted after that, changes nothing."""
    history = revisions(
        (change("create", "a"), change("create", "b"), change("create", "c")),
        change("update", "a", '{"n":1}'),
        change("retire", "a", '{"n":1}', reason="removed"),
        change("retire", "a", '{"n":2}', reason="drifted"),
        (change("delete", "a", reason="removed"), change("delete", "b", reason="removed")),
        (change("release", "c", reason="released"), change("retire", "gone")),
    )
    lost = find_lost(history)
    assert {name: (one.held.document, one.revision) for name, one in lost.items()} == {
        "a": ('{"n":1}', 3),
        "b": ("{}", 5),
        "c": ("{}", 6),
    }


def test_several_come_back_at_once() -> None:
    """Their entries to the letter; the files are to be put back, and nothing else is touched."""
    entry = make_entry("a")
    history = revisions(
        (change("create", "a", entry=entry), change("create", "q", kind="queue")),
        (change("retire", "a"), change("retire", "q", kind="queue")),
    )
    restored = bring("q a", history, present=present(other="{}"))
    assert list(restored.resources) == ["a", "q"]
    assert restored.renamed_from == {}
    assert restored.past.entries == {"a": entry, "q": None}
    assert (restored.past.names, restored.past.label, restored.past.revision) == (("a", "q"), "a, q", None)
    (notice,) = restored.past.notices
    assert (notice.code, notice.names) == ("restore", ("a", "q"))


@pytest.mark.parametrize(
    ("name", "why", "remedy"),
    [
        ("theirs", "theirs belongs to the owner kitchen", "the configuration of that owner"),
        ("there", "job there is there, and not retired", "there is nothing to restore"),
        ("seep", "nothing called 'seep' was taken away from this target", "did you mean 'sweep'?"),
        ("quite-else", "nothing called 'quite-else'", "reconciler history lists"),
        ("past", "the moment of the one-time job past is past", "with a moment to come"),
        ("follower", "job follower refers to ops, sweep", "reconciler restore follower ops sweep"),
    ],
)
def test_what_cannot_come_back_is_said(name: str, why: str, remedy: str) -> None:
    """Each with what to do instead."""
    follower = render_canonical(
        {"after": ["sweep", "there"], "alert": {"channels": ["ops"]}, "handler": "h", "queue": "default"}
    )
    once = '{"once":"2026-11-20T00:00:00Z"}'
    made = (
        change("create", "sweep"),
        change("create", "past", once),
        change("create", "follower", follower),
        change("create", "ops", kind="channel"),
    )
    history = revisions(made, tuple(change("delete", one.name, kind=one.kind) for one in made))
    with pytest.raises(RestoreError) as refused:
        bring(name, history, present=present(there="{}"), elsewhere={"theirs": "kitchen"})
    assert why in str(refused.value)
    assert remedy in refused.value.remedy


def test_what_refers_to_others_comes_back_with_them() -> None:
    """Or without, where they are there, are always there, or never were anybody's."""
    history = revisions(
        (
            change("create", "a", '{"after":["b"],"handler":"h","queue":"default"}'),
            change("create", "b", '{"handler":"h","queue":"q"}'),
            change("create", "q", kind="queue"),
        ),
        (change("retire", "a"), change("retire", "b"), change("retire", "q", kind="queue")),
    )
    assert list(bring("a b q", history).resources) == ["a", "b", "q"]
    assert list(bring("b", history, present=present("queue", q="{}")).resources) == ["b"]


def test_a_deleted_entry_of_nobody_comes_back_as_a_direct_job() -> None:
    """It had no document; where its name can be no resource's it is not known."""
    entry = make_entry("wild", command="SELECT 1", active=False)
    unnamed = make_entry("Not A Name")
    history = revisions(
        change("create", "a"),
        (
            change("delete", "wild", "", reason="unmanaged", entry=entry),
            change("delete", "Not A Name", "", reason="unmanaged", entry=unnamed),
            change("delete", "a", reason="unmanaged"),
        ),
    )
    held = bring("wild", history).resources["wild"]
    assert held.document == render_canonical(
        {
            "active": False,
            "database": "app",
            "mode": "direct",
            "role": "deploy",
            "schedule": "0 * * * *",
            "sql": "SELECT 1",
        }
    )
    assert held.entry == entry
    assert list(find_lost(history)) == ["wild"]


def test_a_grace_does_not_break_the_line_of_names() -> None:
    """Retired it is the same resource still: declared again, or under another name, and rolled back."""
    history = revisions(
        change("create", "a"),
        change("retire", "a", reason="removed"),
        change("update", "b", reason="renamed", renamed_from="a"),
        change("retire", "b", reason="removed"),
        change("update", "b", reason="restored"),
    )
    assert [sorted(list_live(replay(history[:end]))) for end in range(1, 6)] == [["a"], [], ["b"], [], ["b"]]
    assert sorted(replay(history[:4])) == ["b"]
    restored = restore(history, 1, present(b="{}"), now=NOW)
    assert restored.renamed_from == {"a": "b"}
    assert sorted(restore(history, 2, present(b="{}"), now=NOW).resources) == []
    assert restore(history[:4], 1, {}, now=NOW).renamed_from == {"a": "b"}
    assert restore(history[:2], 1, {}, now=NOW).renamed_from == {}
