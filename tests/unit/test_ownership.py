"""Release and transfer: what is refused, and what becomes of entries and owners."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.config import Policy
from reconciler.core.history import Revision, replay
from reconciler.core.ownership import (
    Handover,
    find_unkept,
    make_handover_plan,
    require_owned,
    take_over,
)
from reconciler.core.state import Pause
from reconciler.errors import ReconcilerError, RefusedError
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_observed,
    make_resource,
)

if TYPE_CHECKING:
    from reconciler.core.plan import Plan
    from reconciler.core.state import Definition, DesiredState, ObservedState


def define(name: str = "a", **fields: Any) -> Definition:
    """Make a definition of a managed job with its entry."""
    document = make_document(**{"schedule": "0 * * * *", "sql": "SELECT 1", **fields})
    return make_definition(name, document=document, entry=make_entry(name, 1))


def observe(definition: Definition, **changed: Any) -> ObservedState:
    """Observe a definition with its entry as it was applied."""
    entries = () if definition.entry is None else (definition.entry,)
    return replace(make_observed(definition, entries=entries), **changed)


def plan(
    observed: ObservedState,
    *names: str,
    to: str = "",
    desired: DesiredState | None = None,
    policy: Policy | None = None,
) -> Plan:
    """Plan to give up resources."""
    return make_handover_plan(
        Handover(names=names, to=to),
        desired or make_desired_state(),
        observed,
        target="test",
        policy=policy or Policy(),
    )


def why_not(made: Plan) -> tuple[str, str]:
    """Say why the one change of a plan is refused."""
    (change,) = made.changes
    assert change.obstacle is not None
    assert change.obstacle.kind == "refused"
    return change.obstacle.why, change.obstacle.remedy


def test_a_direct_job_is_released_as_it_is() -> None:
    """Also what was edited by hand stays: the entry is not touched."""
    definition = define(mode="direct")
    entry = make_entry("a", 1, schedule="5 5 * * *")
    made = plan(make_observed(definition, entries=(entry,)), "a")
    (change,) = made.changes
    assert (change.action, change.reason, change.fields, change.obstacle) == ("release", "released", (), None)
    assert change.after is not None
    assert (change.after.entry, change.after.document) == (entry, "")
    assert made.notices == ()
    assert made.owned == 1


def test_a_managed_job_gets_its_sql() -> None:
    """The command is all that changes, and what ends is said."""
    made = plan(observe(define()), "a", "a")
    (change,) = made.changes
    assert [(field.path, field.after) for field in change.fields] == [("entry.command", "SELECT 1")]
    assert [(notice.code, notice.names) for notice in made.notices] == [("released", ("a",))]


def test_an_authoritative_target_would_delete_what_is_released() -> None:
    """That is said; for a transfer there is nothing of the kind to say."""
    policy = Policy(prune="confirm", stage="authoritative")
    observed = observe(define(mode="direct"))
    assert [notice.code for notice in plan(observed, "a", policy=policy).notices] == ["unmanaged"]
    moved = plan(observed, "a", to="billing", policy=policy)
    assert [notice.code for notice in moved.notices] == ["transferred"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"once": "2099-01-01T00:00:00Z"}, "runs once, by its definition and without an entry"),
        ({"http": {"url": "https://a.test"}}, "its request is sent by its definition"),
        ({"handler": "work.do"}, "its runs are put on a queue by its definition"),
        ({"after": ["b"]}, "waits for other jobs, which pg_cron cannot"),
        ({"timezone": "Europe/Oslo"}, "more than the schedule of its entry decides"),
        ({"start_at": "2099-01-01T00:00:00Z"}, "more than the schedule of its entry decides"),
        (
            {"blackout": [{"from": "22:00", "to": "23:00"}]},
            "more than the schedule of its entry decides",
        ),
    ],
)
def test_what_its_entry_alone_cannot_do_is_refused(fields: dict[str, Any], why: str) -> None:
    """The definition does a part of the work, so that it cannot go."""
    assert why in why_not(plan(observe(define(**fields)), "a"))[0]


def test_other_reasons_to_refuse_a_release() -> None:
    """Kind, protection, pause, grace, a missing or unreadable entry, our own, and what is still declared."""
    pause = {"a": Pause(until=None, reason="", paused_by="anna")}
    until = datetime(2026, 12, 1, tzinfo=UTC)
    odd = replace(define(), entry=make_entry("a", 1, schedule="every day"))
    own = make_definition("reconciler-tick")
    for made, why in (
        (plan(observe(make_definition("a", kind="worker")), "a"), "its entry works by its definition alone"),
        (plan(observe(make_definition("a", kind="queue")), "a"), "it has no entry that could stay"),
        (plan(observe(replace(define(), protect=True)), "a"), "job a is protected"),
        (plan(observe(define(), pauses=pause), "a"), "job a is paused"),
        (plan(observe(replace(define(), retired_until=until)), "a"), "job a is retired, and stands still"),
        (plan(observe(replace(define(), entry=None)), "a"), "it has no entry that could stay"),
        (plan(observe(odd), "a"), "more than the schedule of its entry decides"),
        (plan(observe(own), "reconciler-tick"), "job reconciler-tick is the tool's own"),
        (
            plan(observe(define()), "a", desired=make_desired_state(make_resource("a"))),
            "job a is still declared",
        ),
    ):
        assert why in why_not(made)[0]
        assert made.notices == ()


def test_the_place_of_what_is_still_declared_is_said() -> None:
    """Also of what goes on under another name."""
    renamed = make_desired_state(make_resource("b", renamed_from="a"))
    for to in ("", "billing"):
        made = plan(observe(define()), "a", to=to, desired=renamed)
        assert why_not(made) == ("job a is still declared", "remove it from jobs.d/a.yaml:3 first")


def test_a_transfer_leaves_all_as_it_is() -> None:
    """Whatever kind it is; the one who gets it adopts it."""
    definition = make_definition("a", kind="queue", document="{}", protect=True)
    made = plan(observe(definition), "a", to="billing")
    (change,) = made.changes
    assert (change.action, change.reason, change.obstacle) == ("release", "transferred", None)
    assert change.before == change.after
    assert [(one.path, one.before, one.after) for one in change.fields] == [("owner", "shop", "billing")]
    (taken,) = take_over(made.changes)
    assert (taken.action, taken.reason, taken.after) == ("adopt", "transferred", change.after)
    assert take_over(plan(observe(define()), "a").changes) == ()


def test_history_ends_with_a_release_and_begins_with_a_transfer() -> None:
    """So both owners' histories follow from their revisions."""
    change = plan(observe(define()), "a", to="billing").changes
    taken = take_over(change)
    theirs = replay([Revision(id=2, owner="billing", changes=taken)])
    assert theirs["a"].document == define().document
    assert replay([Revision(id=3, owner="shop", changes=change)], state=theirs) == {}


def test_what_is_not_ours_is_no_part_of_the_plan() -> None:
    """After it was done there is nothing left to do."""
    observed = observe(replace(define(), owner="billing"))
    assert plan(observed, "a", "b").changes == ()


def test_only_ours_can_be_given_up() -> None:
    """The nearest of our own names is proposed; another owner's is not."""
    definitions = {"report": make_definition("report"), "mail": make_definition("mail", owner="billing")}
    require_owned(Handover(names=("report",)), "shop", definitions)
    with pytest.raises(
        ReconcilerError, match="has nothing called 'rport' on this target\n  did you mean 'report'"
    ):
        require_owned(Handover(names=("report", "rport")), "shop", definitions)
    with pytest.raises(ReconcilerError, match="reconciler status lists"):
        require_owned(Handover(names=("zzz",)), "shop", definitions)
    with pytest.raises(RefusedError, match="queue mail belongs to the owner billing"):
        require_owned(
            Handover(names=("mail",)),
            "shop",
            {"mail": make_definition("mail", kind="queue", owner="billing")},
        )


def test_an_entry_that_is_not_as_planned_is_found() -> None:
    """One that is gone and one that has another command; what has no entry has nothing to lose."""
    changes = plan(observe(define()), "a").changes
    done = make_observed(entries=(make_entry("a", 1, command="SELECT 1"),))
    assert find_unkept(changes, done) == ()
    assert find_unkept(changes, make_observed()) == changes
    assert find_unkept(changes, make_observed(entries=(make_entry("a", 1),))) == changes
    queues = plan(observe(make_definition("a", kind="queue", document="{}")), "a", to="x").changes
    assert find_unkept(queues, make_observed()) == ()
