"""Retiring: what stands still, for how long, what is kept, and what is deleted in the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.change_policies import judge_changes
from reconciler.core.config import Policy
from reconciler.core.diff import diff
from reconciler.core.plan import find_refusal, make_fingerprints, make_plan
from reconciler.core.policies import ChangePolicy, Governance, Match
from reconciler.core.runtime_jobs import TICK
from reconciler.core.state import QueueLoad, RowDrift
from tests.core_builders import (
    PLACE,
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_observed,
    make_resource,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.changes import Change
    from reconciler.core.config import Prune
    from reconciler.core.plan import Plan
    from reconciler.core.state import Definition, DesiredState, Entry, ObservedState

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
WEEK = timedelta(days=7)
NOTHING = make_desired_state()


def observe(*definitions: Definition, entries: tuple[Entry, ...] = (), **changed: Any) -> ObservedState:
    """Make an observed state with its clock."""
    return replace(make_observed(*definitions, entries=entries), now=NOW, **changed)


def retired(name: str = "a", until: datetime = LATER, **changed: Any) -> Definition:
    """Make the definition of a job that stands still."""
    entry = changed.pop("entry", make_entry(name, 1, active=False))
    return make_definition(name, entry=entry, retired_until=until, **changed)


def take(
    observed: ObservedState,
    desired: DesiredState = NOTHING,
    *,
    prune: Prune = "auto",
    grace: timedelta = WEEK,
) -> tuple[Change, ...]:
    """Compare under a policy with a grace."""
    return diff(desired, observed, prune=prune, grace=grace)


def plan(observed: ObservedState, desired: DesiredState = NOTHING, **policy: Any) -> Plan:
    """Plan under a policy with a grace."""
    return make_plan(
        desired, observed, target="test", policy=Policy(**{"prune": "auto", "grace": WEEK, **policy})
    )


def test_what_is_no_longer_declared_is_retired_with_its_entry_inactive() -> None:
    """The document stays, the entry is as it stands but inactive, and the grace is said."""
    applied = make_entry("a", 1)
    drifted = replace(applied, schedule="9 * * * *")
    (change,) = take(observe(make_definition(entry=applied), entries=(drifted,)))
    assert (change.action, change.reason, change.retired_until) == ("retire", "removed", None)
    assert change.before is not None
    assert change.after is not None
    assert (change.before.entry, change.after.entry) == (drifted, replace(drifted, active=False))
    assert change.before.document == change.after.document
    assert [(field.path, field.before, field.after) for field in change.fields] == [
        ("entry.active", True, False),
        ("grace", None, "1w"),
    ]
    assert change.needs_consent is True


def test_what_has_no_entry_is_retired_too() -> None:
    """A one-time job, a queue, and a job whose entry was unscheduled by hand."""
    definitions = (
        make_definition("o", document=make_document(once="2027-01-01T00:00:00Z", sql="SELECT 1")),
        make_definition("q", kind="queue", document="{}"),
        make_definition("u", entry=make_entry("u", 9)),
    )
    changes = take(observe(*definitions))
    assert [(one.action, one.name, one.once) for one in changes] == [
        ("retire", "o", True),
        ("retire", "u", False),
        ("retire", "q", False),
    ]
    assert all(one.after is not None and one.after.entry is None for one in changes)


def test_without_a_grace_and_for_the_tools_own_entries_it_is_deleted_at_once() -> None:
    """As before; what the configuration decides needs no grace."""
    (change,) = take(observe(make_definition(entry=make_entry("a", 1))), grace=timedelta())
    assert (change.action, change.after) == ("delete", None)
    (change,) = take(observe(make_definition(TICK, entry=make_entry(TICK, 1))))
    assert (change.action, change.name) == ("delete", TICK)


def test_what_is_protected_is_not_retired() -> None:
    """Retiring is refused as deleting is, with the two steps to take."""
    (change,) = take(observe(make_definition(protect=True)))
    assert change.obstacle is not None
    assert change.obstacle.why == "job a is protected"
    (change,) = take(observe(retired(until=NOW, protect=True)))
    assert change.obstacle is not None


def test_in_its_grace_nothing_is_to_do_and_a_notice_says_until_when() -> None:
    """The same under prune: never, which keeps it for good; nothing is said of others' graces."""
    observed = observe(
        retired("a"), retired("b"), retired("x", owner="other"), entries=(make_entry("a", 1, active=False),)
    )
    made = plan(observed)
    assert made.changes == ()
    (notice,) = made.notices
    assert (notice.code, notice.names) == ("in_grace", ("a", "b"))
    assert "in grace until 2026-11-28 12:00:00Z: reconciler restore NAME brings them back" in notice.message
    assert "the first apply after that deletes them" in notice.message
    made = plan(observe(retired(until=NOW)), prune="never")
    assert made.changes == ()
    assert made.kept == ("a",)
    assert "prune: never keeps them after that" in made.notices[0].message


def test_without_a_clock_no_grace_ends() -> None:
    """Who does not know the time deletes nothing."""
    assert take(replace(observe(retired(until=NOW)), now=None)) == ()


def test_what_stirs_in_its_grace_is_retired_again() -> None:
    """Its entry was switched on: switched off, with the same date and without new consent."""
    (change,) = take(observe(retired(), entries=(make_entry("a", 1, active=True),)))
    assert (change.action, change.reason, change.retired_until) == ("retire", "drifted", LATER)
    assert change.after is not None
    assert change.after.entry == make_entry("a", 1, active=False)
    assert "grace" not in [field.path for field in change.fields]
    assert change.needs_consent is False


def test_what_is_edited_in_its_grace_and_stands_still_is_let_alone() -> None:
    """It is about to go, and does nothing until then."""
    edited = make_entry("a", 1, command="SELECT 2", active=False)
    assert take(observe(retired(), entries=(edited,))) == ()


def test_a_held_row_that_was_switched_on_is_held_again() -> None:
    """A one-time job has a row instead of an entry, and what differs of it is shown."""
    row = RowDrift(name="a", observed={"active": True}, applied={"active": False})
    observed = observe(retired(entry=None), drifted_rows={"a": row})
    (change,) = take(observed)
    assert [(field.path, field.before, field.after) for field in change.fields] == [
        ("row.active", True, False)
    ]
    gone = RowDrift(name="a", observed=None, applied={"active": False})
    (change,) = take(observe(retired(entry=None), drifted_rows={"a": gone}))
    assert [(field.path, field.before) for field in change.fields] == [("row.active", None)]


def test_after_its_grace_it_is_deleted_without_consent() -> None:
    """Consent was given as the grace began; it counts against no limit."""
    made = plan(observe(retired(until=NOW), entries=(make_entry("a", 1, active=False),)), prune="confirm")
    (change,) = made.changes
    assert (change.action, change.reason, change.retired_until) == ("delete", "removed", NOW)
    assert made.deletions == ()
    assert made.consent == ""
    assert made.notices == ()
    assert find_refusal(made, Policy(prune="confirm"), allow_deletes=None) is None


def test_retiring_counts_as_deleting() -> None:
    """It needs consent, stays within limits, and the words say which of both it is."""
    definitions = (make_definition("a"), make_definition("b"), make_definition(TICK))
    made = plan(observe(*definitions))
    assert [one.name for one in made.deletions] == ["a", "b", TICK]
    refusal = find_refusal(made, Policy(prune="confirm"), allow_deletes=None)
    assert refusal is not None
    assert refusal.why.startswith("the plan retires 2 and deletes 1, and this target asks for consent")
    refusal = find_refusal(made, Policy(prune="auto", max_deletes=1), allow_deletes=None)
    assert refusal is not None
    assert refusal.why.startswith("the plan retires 2 and deletes 1, more than limits.deletes")


def test_policies_on_deletions_are_about_retiring_too() -> None:
    """What may not be deleted may not be stopped either."""
    policy = ChangePolicy(
        name="no-deletes", because="Sums are due", place=PLACE, match=Match(), verbs=("delete",)
    )
    (change,) = take(observe(make_definition()))
    verdict = judge_changes([change], Governance(changes=(policy,)), now=NOW)
    assert verdict.changes[0].obstacle is not None
    assert verdict.changes[0].obstacle.why.startswith("retire of job a is forbidden")


def test_what_is_declared_again_is_restored() -> None:
    """Also as something else; a rename of it stays a rename, and both end the grace."""
    observed = observe(retired(), entries=(make_entry("a", 1, active=False),))
    (change,) = take(observed, make_desired_state(make_scheduled("a")))
    assert (change.action, change.reason, change.retired_until) == ("update", "restored", LATER)
    assert [(field.path, field.before, field.after) for field in change.fields] == [
        ("entry.active", False, True),
        ("retired_until", "2026-11-28 12:00:00Z", None),
    ]
    assert change.needs_consent is False
    (change,) = take(observed, make_desired_state(replace(make_scheduled("b"), renamed_from="a")))
    assert (change.action, change.reason, change.retired_until) == ("update", "renamed", LATER)
    (change,) = take(observed, make_desired_state(make_resource("a", kind="queue", document="{}")))
    assert (change.kind, change.reason) == ("queue", "restored")


def test_a_one_time_job_that_stood_still_over_its_moment_does_not_run_late() -> None:
    """Declared again after that it is refused, where one that was never retired is left alone."""
    document = make_document(once="2026-11-21T11:00:00Z", sql="SELECT 1")
    desired = make_desired_state(make_resource("a", document=document, once=True))
    (change,) = plan(observe(retired(entry=None, document=document)), desired).changes
    assert change.obstacle is not None
    assert "which is past" in change.obstacle.why
    assert plan(observe(make_definition(document=document)), desired).changes == ()
    (change,) = plan(observe(make_definition(document=document))).changes
    assert (change.action, change.obstacle) == ("retire", None)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (QueueLoad(waiting=12, running=3), "12 waiting, 3 running"),
        (QueueLoad(waiting=2000), "1,000 or more waiting"),
        (QueueLoad(running=1, failed=2), "1 running, 2 failed that can be tried again"),
        (QueueLoad(waiting=1, failed=1000), "1 waiting, 1,000 or more failed that can be tried again"),
    ],
)
@pytest.mark.parametrize("until", [None, NOW])
def test_a_queue_with_jobs_is_kept(load: QueueLoad, words: str, until: datetime | None) -> None:
    """Whether its grace has begun or is over; the notice counts."""
    queue = make_definition("q", kind="queue", document="{}", retired_until=until)
    made = plan(observe(queue, queues={"q": load}))
    assert made.changes == ()
    (notice,) = made.notices
    assert (notice.code, notice.names) == ("queue_in_use", ("q",))
    assert notice.message == f"no longer declared, and kept: {words}; it goes once it is idle and unused"
    assert plan(observe(queue, queues={"q": load}), grace=timedelta()).changes == ()


def test_dead_jobs_alone_do_not_keep_a_queue() -> None:
    """They can be tried again, and yet nobody has to wait for that."""
    queue = make_definition("q", kind="queue", document="{}")
    (change,) = plan(observe(queue, queues={"q": QueueLoad(failed=5)})).changes
    assert change.action == "retire"


def test_a_queue_that_others_refer_to_is_kept() -> None:
    """Jobs and workers of other owners are named; our own are taken away with it."""
    queue = make_definition("q", kind="queue", document="{}")
    users = [
        make_definition(f"u{number}", owner="other", document='{"handler":"h","queue":"q"}')
        for number in range(5)
    ]
    elsewhere = make_definition("z", owner="other", document='{"handler":"h","queue":"other"}')
    made = plan(observe(queue, *users, elsewhere))
    assert made.changes == ()
    assert made.notices[0].message == (
        "no longer declared, and kept: other owners refer to it (job u0 of other, job u1 of other, "
        "job u2 of other and 2 more); it goes once it is idle and unused"
    )
    ours = make_definition("u", document='{"handler":"h","queue":"q"}')
    assert [one.name for one in plan(observe(queue, ours)).changes] == ["u", "q"]


def test_a_declared_queue_is_no_matter() -> None:
    """Under prune: never nothing is said of queues either, since they stay anyway."""
    queue = make_definition("q", kind="queue", document="{}")
    busy = {"q": QueueLoad(waiting=1)}
    desired = make_desired_state(make_resource("q", kind="queue", document="{}"))
    assert plan(observe(queue, queues=busy), desired).notices == ()
    assert plan(observe(queue, queues=busy), prune="never").notices == ()


def test_the_date_is_part_of_what_a_plan_holds_for() -> None:
    """Who retires or restores between plan and apply moves the target."""
    one, other = observe(retired()), observe(retired(until=LATER + WEEK))
    none = observe(replace(retired(), retired_until=None))
    prints = {make_fingerprints(NOTHING, each).observed for each in (one, other, none)}
    assert len(prints) == 3
