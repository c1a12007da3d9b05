from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.changes import Change, FieldChange, Obstacle
from reconciler.core.diff import diff
from reconciler.core.names import SQL_OWNER
from reconciler.core.state import RowDrift
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_observed,
    make_resource,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.state import DesiredResource, ObservedState

_NEW = make_document(sql="SELECT 2")
_ENTRY = make_entry("a", 1)
_OURS = make_definition("a", entry=_ENTRY)


def _diff(*resources: DesiredResource, observed: ObservedState, **options: Any) -> tuple[Change, ...]:
    return diff(make_desired_state(*resources), observed, **options)


def _only(*resources: DesiredResource, observed: ObservedState, **options: Any) -> Change:
    (change,) = _diff(*resources, observed=observed, **options)
    return change


def _paths(change: Change) -> list[str]:
    return [field.path for field in change.fields]


def _why(change: Change) -> str:
    assert change.obstacle is not None
    assert change.obstacle.kind == "refused"
    assert change.obstacle.remedy
    return change.obstacle.why


def test_nothing_differs_when_all_three_states_are_one() -> None:
    """Declared, applied and observed alike: no change."""
    assert _diff(make_scheduled("a"), observed=make_observed(_OURS, entries=(_ENTRY,))) == ()


_EDITED = replace(_ENTRY, schedule="5 * * * *")
_SPEC = ["spec.schedule", "spec.sql"]
_ACTIVITY = ["entry.active", "entry.schedule"]
_FORGED = replace(_OURS, intact=False, document=_NEW)


@pytest.mark.parametrize(
    ("resource", "definition", "entry", "action", "reason", "paths"),
    [
        (make_scheduled("a"), None, None, "create", "declared", []),
        (make_scheduled("a", document=_NEW), _OURS, _ENTRY, "update", "edited", _SPEC),
        (make_scheduled("a", schedule="5 * * * *"), _OURS, _ENTRY, "update", "drifted", ["entry.schedule"]),
        (make_scheduled("a", active=False), _OURS, _ENTRY, "update", "edited", ["entry.active"]),
        (replace(make_scheduled("a"), protect=True), _OURS, _ENTRY, "update", "edited", ["protect"]),
        (make_scheduled("a"), _OURS, _EDITED, "update", "drifted", ["entry.schedule"]),
        (make_scheduled("a"), replace(_OURS, intact=False), _ENTRY, "update", "drifted", []),
        (make_scheduled("a"), _FORGED, _ENTRY, "update", "drifted", _SPEC),
        (make_scheduled("a", schedule="9 * * * *"), _OURS, _EDITED, "update", "drifted", ["entry.schedule"]),
        (make_scheduled("a", active=False), _OURS, _EDITED, "update", "both", _ACTIVITY),
        (make_scheduled("a", schedule="5 * * * *", document=_NEW), _OURS, _EDITED, "update", "both", _SPEC),
        (make_scheduled("a"), None, _ENTRY, "adopt", "adopted", []),
        (make_scheduled("b"), _OURS, _ENTRY, "update", "declared", []),
    ],
)  # fmt: skip
def test_each_change_has_its_reason(
    resource: DesiredResource, definition: Any, entry: Any, action: str, reason: str, paths: list[str]
) -> None:
    """The files moved: edited; the database moved: drifted; both moved; new; there already; renamed."""
    observed = make_observed(*([definition] if definition else []), entries=(entry,) if entry else ())
    if resource.name == "b":
        resource = replace(resource, renamed_from="a")
        reason, paths = "renamed", ["entry.command", "entry.name", "name"]
    change = _only(resource, observed=observed)
    assert (change.action, change.reason, _paths(change)) == (action, reason, paths)
    assert change.obstacle is None
    assert change.source == "jobs.d/a.yaml:3"


@pytest.mark.parametrize(
    ("changed", "document", "reason"),
    [
        ({}, "", "drifted"),
        ({"active": False}, "", "edited"),
        ({"command": "SELECT 1"}, "", "edited"),
        ({"username": "bob"}, "", "edited"),
        ({}, _NEW, "edited"),
    ],
)
def test_another_schedule_for_the_same_declaration_is_drift(
    changed: dict[str, Any], document: str, reason: str
) -> None:
    """The server has other time zone data now, another zone or another pg_cron; nobody edited anything."""
    change = _only(
        make_scheduled("a", schedule="0 6,7 * * *", document=document, **changed),
        observed=make_observed(_OURS, entries=(_ENTRY,)),
    )
    assert change.reason == reason


def test_another_schedule_of_what_was_tampered_with_is_drift_alone() -> None:
    """The definition that somebody altered is the one that is declared; what was applied is another."""
    observed = make_observed(replace(_OURS, intact=False), entries=(_EDITED,))
    change = _only(make_scheduled("a", schedule="0 6,7 * * *"), observed=observed)
    assert (change.reason, _paths(change)) == ("drifted", ["entry.schedule"])


def test_a_removed_definition_is_deleted_with_its_entry() -> None:
    """What is no longer declared goes, and the change shows what goes."""
    change = _only(observed=make_observed(_OURS, entries=(_ENTRY,)), prune="auto")
    assert (change.action, change.reason, change.after, change.obstacle) == ("delete", "removed", None, None)
    assert change.before is not None
    assert change.before.entry == _ENTRY


def test_nothing_is_deleted_under_prune_never() -> None:
    """What is no longer declared stays."""
    assert _diff(observed=make_observed(_OURS, entries=(_ENTRY,)), prune="never") == ()


def test_what_is_protected_is_refused_to_go() -> None:
    """The refusal says where it was declared and how to get rid of it."""
    protected = replace(_OURS, protect=True)
    change = _only(observed=make_observed(protected, entries=(_ENTRY,)), prune="auto")
    assert _why(change) == "job a is protected"
    assert "jobs.d/a.yaml:3" in (change.obstacle or Obstacle(kind="rights", why="", remedy="")).remedy


def test_dependants_are_deleted_first() -> None:
    """Workers and jobs go before the queues and channels that they refer to."""
    gone = [
        make_definition(name, kind=kind)
        for name, kind in (("c", "channel"), ("q", "queue"), ("j2", "job"), ("j1", "job"), ("w", "worker"))
    ]
    changes = _diff(observed=make_observed(*gone), prune="auto")
    assert [change.name for change in changes] == ["w", "j1", "j2", "q", "c"]


def test_a_foreign_owner_is_refused() -> None:
    """A name that another owner has stays theirs, and their entry is not even looked at."""
    foreign = replace(_OURS, owner="crm", source="")
    change = _only(make_scheduled("a"), observed=make_observed(foreign, entries=(_ENTRY,)), prune="auto")
    assert _why(change) == "job a belongs to the owner crm (source unknown)"


def test_foreign_definitions_are_never_deleted() -> None:
    """What another owner declared is no business of ours."""
    assert _diff(observed=make_observed(replace(_OURS, owner="crm"), entries=(_ENTRY,)), prune="auto") == ()


_CALLED = make_entry("w", 7, username="maker")
_TAKEN = make_definition(
    "w",
    entry=_CALLED,
    kind="worker",
    owner=SQL_OWNER,
    document=make_document(schedule="0 * * * *", url="https://a.test"),
)


def _worker(**fields: Any) -> DesiredResource:
    """Make a desired worker w, which calls each hour."""
    declared = {"schedule": "0 * * * *", "url": "https://a.test", **fields}
    entry = make_entry("w", username="", schedule=declared["schedule"], active=declared.get("active", True))
    return make_resource("w", kind="worker", document=make_document(**declared), entry=entry)


@pytest.mark.parametrize(
    ("found", "declared"),
    [
        ({}, {}),
        ({"active": False}, {"active": False}),
        ({"schedule": "5 * * * *"}, {"schedule": "5 * * * *"}),
    ],
)
def test_a_worker_made_in_sql_is_adopted_as_it_stands(
    found: dict[str, Any], declared: dict[str, Any]
) -> None:
    """What its entry says counts, not what it said when it was made; the jobid and the role stay."""
    entry = replace(_CALLED, **found)
    change = _only(_worker(**declared), observed=make_observed(_TAKEN, entries=(entry,)))
    assert (change.action, change.reason, change.obstacle) == ("adopt", "adopted", None)
    assert change.before is not None
    assert change.after is not None
    assert change.before.entry == entry
    assert change.after.entry is not None
    assert change.after.entry.same(entry)


@pytest.mark.parametrize(
    ("declared", "paths"),
    [
        ({"limit": 3}, ["spec.limit"]),
        ({"active": False}, ["entry.active"]),
        ({"schedule": "5 * * * *", "url": "https://b.test"}, ["entry.schedule", "spec.url"]),
    ],
)
def test_a_worker_made_in_sql_that_differs_is_adopted_by_name(
    declared: dict[str, Any], paths: list[str]
) -> None:
    """Each difference is told once, and refused until a person names the worker."""
    observed = make_observed(_TAKEN, entries=(_CALLED,))
    change = _only(_worker(**declared), observed=observed)
    assert (change.action, change.reason, _paths(change)) == ("update", "adopted", paths)
    assert "create_queue_worker made a worker w" in _why(change)
    assert _only(_worker(**declared), observed=observed, adopt=["w"]).obstacle is None


def test_what_is_no_worker_takes_no_worker() -> None:
    """A job of that name, or a job of the same odd owner, is another owner's as ever."""
    observed = make_observed(_TAKEN, entries=(_CALLED,))
    job = make_scheduled("w", command=_CALLED.command)
    assert "belongs to the owner sql" in _why(_only(job, observed=observed, adopt=["w"]))
    forged = make_observed(replace(_TAKEN, kind="job"), entries=(_CALLED,))
    assert "belongs to the owner sql" in _why(_only(_worker(), observed=forged, adopt=["w"]))


def test_a_different_entry_of_nobody_is_refused_unless_it_is_named() -> None:
    """Taking over what somebody made by hand needs a word from the person who applies."""
    observed = make_observed(entries=(_EDITED,))
    refused = _only(make_scheduled("a"), observed=observed)
    assert _why(refused) == "cron.job already holds an entry a (jobid 1, role deploy) that nobody declared"
    taken = _only(make_scheduled("a"), observed=observed, adopt=["a"])
    assert (taken.action, taken.reason, taken.obstacle) == ("update", "adopted", None)
    assert taken.fields == (FieldChange(path="entry.schedule", before="5 * * * *", after="0 * * * *"),)


@pytest.mark.parametrize("kind", ["queue", "channel", "worker", "job"])
def test_a_resource_without_an_entry_takes_none(kind: Any) -> None:
    """A queue that is called like an entry of nobody's does not unschedule it, whatever may be adopted."""
    resource = replace(make_resource("a"), kind=kind)
    change = _only(resource, observed=make_observed(entries=(_ENTRY,)), adopt=["a"])
    assert (change.action, change.before, change.obstacle) == ("create", None, None)


def test_a_job_that_gets_no_entry_any_more_loses_the_one_it_has() -> None:
    """A job that became one this release does not execute must not go on firing."""
    change = _only(make_resource("a"), observed=make_observed(_OURS, entries=(_ENTRY,)))
    assert change.action == "update"
    assert change.after is not None
    assert change.after.entry is None
    assert _diff(make_resource("a"), observed=make_observed(replace(_OURS, entry=None))) == ()


def test_a_job_that_gets_an_entry_makes_one() -> None:
    """The other way round: what was stored only is now scheduled."""
    change = _only(make_scheduled("a"), observed=make_observed(replace(_OURS, entry=None)))
    assert (change.action, change.reason) == ("update", "edited")
    assert change.after is not None
    assert change.after.entry == make_entry("a")


def test_a_change_of_kind_is_a_change() -> None:
    """A queue that becomes a channel of the same name is not the same resource."""
    queue = make_definition("a", kind="queue")
    change = _only(replace(make_resource("a"), kind="channel"), observed=make_observed(queue))
    assert change.fields == (FieldChange(path="kind", before="queue", after="channel"),)


def test_rows_that_were_edited_by_hand_are_drift() -> None:
    """A queue's row that was changed, or is gone, is shown column by column."""
    queue = make_definition("q", kind="queue")
    resource = replace(make_resource("q"), kind="queue")
    edited = RowDrift(name="q", observed={"limit": 1, "mode": "a"}, applied={"limit": 2, "mode": "a"})
    change = _only(resource, observed=make_observed(queue, rows=(edited,)))
    assert (change.reason, change.fields) == ("drifted", (FieldChange(path="row.limit", before=1, after=2),))
    gone = _only(resource, observed=make_observed(queue, rows=(replace(edited, observed=None),)))
    assert _paths(gone) == ["row.limit", "row.mode"]


_ONCE = replace(make_resource("a", document=_NEW), once=True)


def test_a_one_time_job_that_ran_does_not_come_back() -> None:
    """Neither an edit nor a lost row nor a lost definition makes it run a second time."""
    ran = frozenset({"a"})
    row = RowDrift(name="a", observed=None, applied={"run_at": "x"})
    stored = make_definition("a")
    assert _diff(_ONCE, observed=make_observed(stored, settled=ran)) == ()
    assert _diff(_ONCE, observed=make_observed(stored, settled=ran, rows=(row,))) == ()
    assert _diff(_ONCE, observed=make_observed(settled=ran)) == ()
    assert len(_diff(_ONCE, observed=make_observed(stored))) == 1
    assert len(_diff(_ONCE, observed=make_observed())) == 1


def test_a_one_time_job_that_ran_can_still_lose_its_protection() -> None:
    """Else it could never be removed; its document stays as it ran."""
    stored = make_definition("a", protect=True)
    change = _only(_ONCE, observed=make_observed(stored, settled=frozenset({"a"})))
    assert _paths(change) == ["protect"]
    assert change.after is not None
    assert change.after.document == stored.document


def test_a_tampered_definition_of_a_one_time_job_that_ran_is_mended() -> None:
    """The document is put back; it does not run again."""
    stored = make_definition("a", intact=False)
    change = _only(_ONCE, observed=make_observed(stored, settled=frozenset({"a"})))
    assert (change.reason, change.once) == ("drifted", True)


def test_a_recurring_job_is_not_held_up_by_a_one_time_job_that_ran() -> None:
    """A name that was a one-time job may become a recurring one."""
    change = _only(make_scheduled("a"), observed=make_observed(settled=frozenset({"a"})))
    assert change.action == "create"


def test_the_order_of_input_does_not_show() -> None:
    """The same states in any order give the same changes in the same order."""
    resources = [make_scheduled("b"), make_scheduled("a"), replace(make_resource("q"), kind="queue")]
    definitions = [make_definition("z", entry=make_entry("z", 4)), _OURS, make_definition("y", kind="queue")]
    entries = [make_entry("z", 4), replace(_EDITED, jobid=1), make_entry("b", 2)]
    results = {
        _diff(*some, observed=make_observed(*others, entries=tuple(rows)), prune="auto")
        for some in permutations(resources)
        for others in permutations(definitions)
        for rows in permutations(entries)
    }
    assert [[change.name for change in result] for result in results] == [["q", "a", "b", "z", "y"]]
