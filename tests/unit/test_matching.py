from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.changes import Change, FieldChange
from reconciler.core.diff import diff
from tests.core_builders import (
    ALL_RIGHTS,
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_facts,
    make_observed,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.state import DesiredResource, ObservedState

_ENTRY = make_entry("a", 1)
_OURS = make_definition("a", entry=_ENTRY)


_EDITED = replace(_ENTRY, schedule="5 * * * *")


def _diff(*resources: DesiredResource, observed: ObservedState, **options: Any) -> tuple[Change, ...]:
    return diff(make_desired_state(*resources), observed, **options)


def _only(*resources: DesiredResource, observed: ObservedState, **options: Any) -> Change:
    (change,) = _diff(*resources, observed=observed, **options)
    return change


def _why(change: Change) -> str:
    assert change.obstacle is not None
    assert change.obstacle.kind == "refused"
    assert change.obstacle.remedy
    return change.obstacle.why


def _of(role: str, jobid: int) -> Any:
    return make_entry("a", jobid, username=role)


@pytest.mark.parametrize(
    ("role", "roles", "taken"),
    [
        ("", ["deploy"], 1),
        ("", ["bob"], 1),
        ("", ["alice", "bob"], None),
        ("", ["alice", "deploy"], 2),
        ("bob", ["alice", "bob"], 2),
        ("bob", ["alice"], None),
    ],
)
def test_of_several_roles_that_hold_the_name_the_right_one_is_adopted(
    role: str, roles: list[str], taken: int | None
) -> None:
    """The declared role; else our own; else the only other one; else a new entry is made."""
    entries = tuple(_of(holder, jobid) for jobid, holder in enumerate(roles, 1))
    change = _only(make_scheduled("a", username=role), observed=make_observed(entries=entries))
    assert change.after is not None
    assert change.after.entry is not None
    if taken is None:
        assert (change.action, change.after.entry.username) == ("create", role or "deploy")
        return
    assert change.action == "adopt"
    assert change.before is not None
    assert change.before.entry == entries[taken - 1]
    assert change.after.entry.username == roles[taken - 1]


def test_an_entry_that_another_definition_claims_is_not_adopted() -> None:
    """An entry of another owner that was renamed by hand to a name of ours is still theirs."""
    theirs = make_definition("x", owner="crm", entry=make_entry("x", 1))
    renamed = make_entry("a", 1, command="CALL reconciler.run_job('x')")
    for adopt in ([], ["a"]):
        change = _only(make_scheduled("a"), observed=make_observed(theirs, entries=(renamed,)), adopt=adopt)
        assert _why(change).endswith("an entry a (jobid 1, role deploy) that belongs to x")


def test_a_role_altered_by_hand_is_put_back() -> None:
    """Where no role is declared, the one that was applied is meant, not the one that stands there now."""
    change = _only(
        make_scheduled("a"), observed=make_observed(_OURS, entries=(replace(_ENTRY, username="bob"),))
    )
    assert change.reason == "drifted"
    assert change.fields == (FieldChange(path="entry.username", before="bob", after="deploy"),)


def test_an_entry_that_vanished_is_made_again_as_the_role_that_had_it() -> None:
    """A definition remembers the role, so that another role that applies makes no second entry."""
    old = replace(_OURS, entry=replace(_ENTRY, username="bob"))
    change = _only(make_scheduled("a"), observed=make_observed(old))
    assert (change.reason, change.action) == ("drifted", "update")
    assert change.after is not None
    assert change.after.entry == make_entry("a", username="bob")
    assert len(change.fields) == 6


def test_an_entry_made_again_by_hand_is_known_by_name_and_role() -> None:
    """After unschedule and schedule only the jobid moved, and that is told."""
    change = _only(make_scheduled("a"), observed=make_observed(_OURS, entries=(replace(_ENTRY, jobid=9),)))
    assert change.reason == "drifted"
    assert change.fields == (FieldChange(path="jobid", before=1, after=9),)


def test_an_owned_job_without_entry_does_not_write_over_one_of_nobody() -> None:
    """`schedule` would upsert: so it is refused, or taken over when it is identical or named."""
    stored = replace(_OURS, entry=None)
    refused = _only(make_scheduled("a"), observed=make_observed(stored, entries=(_EDITED,)))
    assert "that nobody declared" in _why(refused)
    for entry, adopt in ((_ENTRY, []), (_EDITED, ["a"])):
        taken = _only(make_scheduled("a"), observed=make_observed(stored, entries=(entry,)), adopt=adopt)
        assert taken.obstacle is None
        assert taken.before is not None
        assert taken.before.entry == entry


def test_a_change_of_role_does_not_collide_with_an_entry_of_nobody() -> None:
    """`alter_job` to a name and role that are taken would fail in the middle of the apply."""
    taken = _of("bob", 7)
    change = _only(
        make_scheduled("a", username="bob"), observed=make_observed(_OURS, entries=(_ENTRY, taken))
    )
    assert _why(change).endswith("an entry a (jobid 7, role bob) that nobody declared")


def test_a_rename_does_not_write_over_an_entry_of_nobody() -> None:
    """The new name may be taken in cron.job although no definition has it."""
    resource = replace(make_scheduled("b"), renamed_from="a")
    change = _only(resource, observed=make_observed(_OURS, entries=(_ENTRY, make_entry("b", 7))))
    assert change.reason == "renamed"
    assert "an entry b (jobid 7, role deploy)" in _why(change)


def test_a_rename_may_go_where_another_change_makes_room() -> None:
    """An entry that goes or moves in the same plan is not in the way."""
    moved = make_definition("x", entry=make_entry("x", 7))
    observed = make_observed(_OURS, moved, entries=(_ENTRY, replace(make_entry("x", 7), name="b")))
    resource = replace(make_scheduled("b"), renamed_from="a")
    for resources, prune in (((resource, make_scheduled("x")), "never"), ((resource,), "auto")):
        changes = _diff(*resources, observed=observed, prune=prune)
        assert [change.obstacle for change in changes] == [None, None]
    kept = _diff(resource, observed=observed, prune="never")
    assert "belongs to x" in _why(kept[0])


def test_a_reused_jobid_is_not_ours() -> None:
    """Jobids begin at 1 again when the extension is made anew: name or command must have stayed as well."""
    stranger = make_entry("z", 1)
    (change,) = _diff(make_scheduled("a"), observed=make_observed(_OURS, entries=(stranger,)), prune="auto")
    assert change.before is not None
    assert change.before.entry is None
    gone = _only(observed=make_observed(_OURS, entries=(stranger,)), prune="auto")
    assert gone.before is not None
    assert gone.before.entry is None


def test_a_hand_made_rename_is_put_back() -> None:
    """The jobid with the command tells that it is still our entry."""
    change = _only(make_scheduled("a"), observed=make_observed(_OURS, entries=(replace(_ENTRY, name="q"),)))
    assert change.reason == "drifted"
    assert change.fields == (FieldChange(path="entry.name", before="q", after="a"),)


def test_one_entry_never_belongs_to_two_definitions() -> None:
    """Two definitions that name one jobid: the one whose name it has keeps it, the other one's is gone."""
    other = make_definition("b", entry=make_entry("b", 1))
    observed = make_observed(_OURS, other, entries=(_ENTRY,))
    change = _only(make_scheduled("a"), make_scheduled("b"), observed=observed)
    assert change.name == "b"
    assert change.before is not None
    assert change.before.entry is None


def test_a_name_match_does_not_take_what_a_jobid_claims() -> None:
    """Where the entry of b is gone and that of a was renamed to b by hand, a gets its own back."""
    same = "VACUUM"
    definitions = [
        make_definition(name, entry=make_entry(name, jobid, command=same))
        for name, jobid in (("a", 1), ("b", 2))
    ]
    observed = make_observed(*definitions, entries=(make_entry("b", 1, command=same),))
    changes = _diff(*(make_scheduled(name, command=same) for name in "ab"), observed=observed)
    befores = [change.before.entry if change.before else None for change in changes]
    assert befores == [make_entry("b", 1, command=same), None]
    assert [change.obstacle for change in changes] == [None, None]


def test_an_entry_that_is_hidden_is_taken_to_be_as_applied() -> None:
    """Row-level security shows a role its own entries only: what it cannot see has not vanished."""
    hidden = replace(_OURS, entry=replace(_ENTRY, username="bob"))
    facts = make_facts(replace(ALL_RIGHTS, sees_all=False))
    assert _diff(make_scheduled("a"), observed=make_observed(hidden, facts=facts)) == ()
    gone = _only(observed=make_observed(hidden, facts=facts), prune="auto")
    assert gone.before is not None
    assert gone.before.entry == hidden.entry
    assert len(_diff(make_scheduled("a"), observed=make_observed(_OURS, facts=facts))) == 1
    blind = make_facts(replace(ALL_RIGHTS, use_cron=False))
    assert _diff(make_scheduled("a"), observed=make_observed(_OURS, facts=blind)) == ()


def test_a_rename_happens_once() -> None:
    """Once the new name has a definition, `renamed_from` is history and the old name is free again."""
    resource = replace(make_scheduled("b"), renamed_from="a")
    renamed = make_definition("b", entry=make_entry("b", 1))
    observed = make_observed(renamed, _OURS, entries=(make_entry("b", 1), make_entry("a", 2)))
    assert _diff(resource, observed=observed) == ()
    assert [change.action for change in _diff(resource, observed=observed, prune="auto")] == ["delete"]


@pytest.mark.parametrize(
    "old",
    [
        replace(_OURS, owner="crm"),
        replace(_OURS, kind="worker"),
        make_definition("other"),
    ],
)
def test_a_rename_needs_a_definition_of_ours_of_the_same_kind(old: Any) -> None:
    """Otherwise the resource is new, and what has the old name is judged by itself."""
    resource = replace(make_scheduled("b"), renamed_from="a")
    changes = _diff(resource, observed=make_observed(old), prune="auto")
    deleted = ["delete"] if old.owner == "shop" else []
    assert [change.action for change in changes] == ["create", *deleted]


def test_of_two_resources_with_the_same_old_name_the_first_has_it() -> None:
    """One definition becomes one resource; the other one is new."""
    resources = [replace(make_scheduled(name), renamed_from="a") for name in ("c", "b")]
    changes = _diff(*resources, observed=make_observed(_OURS, entries=(_ENTRY,)), prune="auto")
    assert [(change.name, change.reason) for change in changes] == [("b", "renamed"), ("c", "declared")]


def test_names_that_are_both_declared_are_changed_in_place() -> None:
    """Here a is renamed from b while b is renamed from a: both are there, so each keeps its entry."""
    documents = {"a": make_document(sql="a"), "b": make_document(sql="b")}
    entries = {"a": make_entry("a", 1), "b": make_entry("b", 2)}
    observed = make_observed(
        *(make_definition(name, entry=entries[name], document=documents[name]) for name in "ab"),
        entries=tuple(entries.values()),
    )
    swapped = [
        replace(make_scheduled(name, document=documents[other]), renamed_from=other)
        for name, other in (("a", "b"), ("b", "a"))
    ]
    changes = _diff(*swapped, observed=observed, prune="auto")
    assert [(change.name, change.reason, [field.path for field in change.fields]) for change in changes] == [
        ("a", "edited", ["spec.sql"]),
        ("b", "edited", ["spec.sql"]),
    ]
