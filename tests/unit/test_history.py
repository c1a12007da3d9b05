"""What revisions say: replayed, followed through renames, restored, refused where they do not tell all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.changes import Change, Snapshot
from reconciler.core.config import Config, Secret, Target
from reconciler.core.history import (
    Held,
    HistoryError,
    Past,
    Present,
    Restored,
    Revision,
    put_back_entries,
    read_change,
    replay,
    restore,
)
from reconciler.errors import RefusedError
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.past_specs import build_past_specs
from reconciler.loader.specs import load_specs
from tests.core_builders import make_desired_state, make_entry, make_scheduled

if TYPE_CHECKING:
    from reconciler.core.changes import Action, Reason
    from reconciler.core.state import Entry

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def change(
    name: str,
    document: str | None,
    *,
    action: Action = "create",
    reason: Reason = "declared",
    before: str | None = None,
    entry: Entry | None = None,
    renamed_from: str = "",
) -> Change:
    """Make a change of a queue; without a document it deletes."""
    return Change(
        action="delete" if document is None else action,
        kind="queue",
        name=name,
        reason=reason,
        before=None if before is None else Snapshot(document=before, entry=None),
        after=None if document is None else Snapshot(document=document, entry=entry),
        source="jobs.d/a.yaml:3",
        renamed_from=renamed_from,
    )


def revision(number: int, *changes: Change) -> Revision:
    """Make a revision."""
    return Revision(id=number, owner="shop", changes=changes)


def present(**documents: str) -> dict[str, Present]:
    """Make intact definitions of now."""
    return {
        name: Present(
            kind="queue", name=name, document=document, digest=digest(document), entry=None, source="a:1"
        )
        for name, document in documents.items()
    }


HISTORY = (
    revision(1, change("a", "{}"), change("b", "{}")),
    revision(4, change("a", '{"rate":"1/1s"}', action="update", before="{}")),
    revision(5, change("c", "{}", action="update", reason="renamed", before="{}", renamed_from="b")),
    revision(9, change("a", None, before='{"rate":"1/1s"}')),
)


def documents(held: dict[str, Held]) -> dict[str, str]:
    """Return names and documents."""
    return {name: one.document for name, one in held.items()}


def test_revisions_are_replayed() -> None:
    """Creations, updates, renames and deletions lead to the state after each revision."""
    assert documents(replay(HISTORY[:1])) == {"a": "{}", "b": "{}"}
    assert documents(replay(HISTORY[:3])) == {"a": '{"rate":"1/1s"}', "c": "{}"}
    assert documents(replay(HISTORY)) == {"c": "{}"}


def test_a_rename_is_the_same_resource() -> None:
    """What has another name now is renamed back, and what is gone is made anew."""
    restored = restore(HISTORY, 1, present(c="{}"), now=NOW)
    assert sorted(restored.resources) == ["a", "b"]
    assert restored.renamed_from == {"b": "c"}


def test_a_rename_is_no_rename_where_both_names_are_wanted() -> None:
    """A new resource under the old name stays what it is."""
    again = (*HISTORY[:3], revision(6, change("b", "{}")))
    assert restore(again, 1, present(a='{"rate":"1/1s"}', b="{}", c="{}"), now=NOW).renamed_from == {}
    assert restore(again, 5, present(a='{"rate":"1/1s"}', b="{}", c="{}"), now=NOW).renamed_from == {}


def test_a_rename_without_its_old_name_is_found_by_its_document() -> None:
    """So revisions are read that do not keep the name; where two fit, nothing is guessed."""
    old = change("c", "{}", action="update", reason="renamed", before="{}")
    first = change("a", '{"rate":"1/1s"}'), change("b", "{}")
    assert sorted(replay((revision(1, *first), revision(2, old)))) == ["a", "c"]
    with pytest.raises(HistoryError, match="revision 2 does not say which name c had before"):
        replay((revision(1, change("a", "{}"), change("b", "{}")), revision(2, old)))


def test_what_no_revision_wrote_is_refused() -> None:
    """An intact definition that differs from its last revision was written by something else."""
    with pytest.raises(HistoryError, match="the definitions of c, d are not as the revisions left them"):
        restore(HISTORY, 1, present(c='{"x":1}', d="{}"), now=NOW)


def test_what_was_edited_by_hand_is_no_hindrance() -> None:
    """Drift is put right by the plan: what was applied is known."""
    edited = {"c": replace(present(c="{}")["c"], document='{"x":1}')}
    assert sorted(restore(HISTORY, 1, edited, now=NOW).resources) == ["a", "b"]
    assert sorted(restore(HISTORY, 1, {}, now=NOW).resources) == ["a", "b"]


def test_a_change_without_its_document_is_refused() -> None:
    """Nothing is restored from half a record."""
    with pytest.raises(HistoryError, match="revision 1 does not say what became of a"):
        replay((revision(1, change("a", "")),))


@pytest.mark.parametrize(("is_there", "wanted"), [(False, ["later"]), (True, ["later", "over"])])
def test_what_was_to_happen_once_is_over(is_there: bool, wanted: list[str]) -> None:
    """A one-time job whose moment is past is left as it is now, and does not come back."""
    texts = {
        name: f'{{"handler":"x.y","once":"{at}"}}'
        for name, at in (("later", "2027-01-01T00:00:00Z"), ("over", "2026-11-20T00:00:00Z"))
    }
    jobs = [replace(change(name, text), kind="job") for name, text in texts.items()]
    moved = '{"handler":"x.y","once":"2026-11-21T01:00:00Z"}'
    last = replace(change("over", moved if is_there else None, action="update"), kind="job")
    there = present(later=texts["later"], **({"over": moved} if is_there else {}))
    restored = restore((revision(1, *jobs), revision(2, last)), 1, there, now=NOW)
    assert sorted(restored.resources) == wanted
    if is_there:
        assert restored.resources["over"].document == moved
    assert [(notice.code, notice.names) for notice in restored.past.notices] == [
        ("rollback", ()),
        ("over", ("over",)),
    ]


def test_the_tools_own_entries_are_made_anew() -> None:
    """They are this release's and this configuration's to decide, and no part of what people declared."""
    one = revision(1, change("reconciler-tick", "{}"), change("a", "{}"))
    assert list(restore((one,), 1, present(a="{}"), now=NOW).resources) == ["a"]


def test_entries_come_back_to_the_letter() -> None:
    """Schedule, command and role are those of then; a note names what would be otherwise today."""
    then = make_entry("a", schedule="7 7 * * *", username="alice")
    same = make_entry("b", username="bob")
    desired = put_back_entries(
        make_desired_state(make_scheduled("a"), make_scheduled("b"), make_scheduled("c")),
        Past(revision=3, entries={"a": then, "b": same, "c": None}),
    )
    assert [desired.resources[name].entry for name in "abc"] == [then, same, None]
    assert [(notice.code, notice.names) for notice in desired.notices] == [("other_entries", ("a", "c"))]


def test_a_stored_change_is_read_whole() -> None:
    """Sides, differences, the old name and what the document says of protection."""
    value: dict[str, Any] = {
        "action": "update",
        "kind": "job",
        "name": "b",
        "reason": "renamed",
        "source": "jobs.d/a.yaml:3",
        "renamed_from": "a",
        "before": {"spec": {"sql": "SELECT 1"}, "entry": make_entry("a").fields()},
        "after": {"spec": {"protect": True, "sql": "SELECT 2"}, "entry": make_entry("b").fields()},
    }
    read = read_change(value)
    assert (read.renamed_from, read.protect, read.once) == ("a", True, False)
    assert [field.path for field in read.fields] == [
        *("entry.command", "entry.name", "name", "spec.protect", "spec.sql")
    ]
    del value["renamed_from"]
    assert read_change(value) == read


def hold(kind: Any, name: str, document: str) -> Held:
    """Make a resource of then."""
    return Held(
        kind=kind, name=name, document=document, entry=None, source="jobs.d/a.yaml:7", identity=(1, name)
    )


def remember(*resources: Held, **renamed_from: str) -> Restored:
    """Make a state of then."""
    return Restored(
        resources={one.name: one for one in resources}, renamed_from=renamed_from, past=Past(revision=3)
    )


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("reconciler.yaml", "local"),
        ("tests/data/specs/reconciler.yaml", "production"),
        ("tests/data/specs/reconciler.yaml", "staging"),
    ],
)
def test_specs_are_built_of_their_own_documents(path: str, target: str) -> None:
    """What was applied can be declared again: the same specs, but for the names that they had before."""
    config = load_config(ROOT / path)
    chosen = resolve_target(config, target, environment={"DATABASE_URL": "x"})
    specs = load_specs(config, chosen)
    assert specs
    rebuilt = build_past_specs(
        remember(
            *(
                replace(
                    hold(spec.kind, spec.name, spec.document), source=f"{spec.place.path}:{spec.place.line}"
                )
                for spec in specs
            )
        ),
        config,
        chosen,
    )
    place = {spec.name: spec.place for spec in rebuilt}
    assert {spec.name: spec for spec in rebuilt} == {
        spec.name: replace(spec, renamed_from="", place=place[spec.name]) for spec in specs
    }
    assert all(place[spec.name].line == spec.place.line for spec in specs)


CONFIG = Config(
    path="reconciler.yaml",
    owner="shop",
    jobs=("jobs.d",),
    targets={"test": Target(name="test")},
    default_target="test",
    secrets={"hook": Secret(name="hook", store="env", key="HOOK")},
)


def test_a_spec_of_then_gets_the_name_of_now() -> None:
    """So a plan renames it back."""
    (spec,) = build_past_specs(remember(hold("queue", "a", "{}"), a="b"), CONFIG, CONFIG.targets["test"])
    assert (spec.name, spec.renamed_from, str(spec.place)) == ("a", "b", "jobs.d/a.yaml:7:1")


@pytest.mark.parametrize(
    ("kind", "document", "message"),
    [
        ("queue", {"unheard": 1}, "unheard"),
        ("job", {"schedule": "61 * * * *", "sql": "SELECT 1"}, "job a: the schedule '61 \\* \\* \\* \\*'"),
        ("channel", {"url": {"secret": "gone"}}, "channel a: unknown secret 'gone'"),
        (
            "queue",
            {"retention": "24h"},
            "queue a: this release reads what was applied then as something else",
        ),
    ],
)
def test_what_this_release_would_not_take_is_refused(
    kind: str, document: dict[str, Any], message: str
) -> None:
    """A document of then has to fit the schema, the rules and the configuration of now, to the letter."""
    with pytest.raises(RefusedError, match=message) as refused:
        build_past_specs(
            remember(hold(kind, "a", render_canonical(document))), CONFIG, CONFIG.targets["test"]
        )
    assert "revision 3 cannot be restored" in refused.value.message


def test_a_stored_creation_has_one_side() -> None:
    """Nothing differs where there was nothing before; the name differs only where it was another."""
    side = {"spec": {"sql": "SELECT 1"}, "entry": None}
    value = {
        "action": "create", "kind": "queue", "name": "a", "reason": "declared", "source": "jobs.d/a.yaml:3",
        "before": None, "after": side,
    }  # fmt: skip
    created = read_change(value)
    assert (created.before, created.fields) == (None, ())
    assert created.after == Snapshot(document=render_canonical(side["spec"]), entry=None)
    edited = {"action": "update", "reason": "edited", "before": {**side, "spec": {"sql": "SELECT 2"}}}
    assert [field.path for field in read_change({**value, **edited}).fields] == ["spec.sql"]


def test_entries_that_are_as_they_were_need_no_word() -> None:
    """Where this release makes the same of them, no note says otherwise."""
    then = make_entry("a", username="bob")
    desired = put_back_entries(make_desired_state(make_scheduled("a")), Past(revision=3, entries={"a": then}))
    assert (desired.resources["a"].entry, desired.notices) == (then, ())
