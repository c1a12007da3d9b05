from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.changes import ACTIONS, Obstacle, Snapshot
from reconciler.core.config import Policy
from reconciler.core.plan import Plan, find_refusal, make_fingerprints, make_plan
from reconciler.core.preflight import Finding
from reconciler.core.specs import Place
from reconciler.core.state import DesiredState, Notice, Pause, RowDrift, Running
from tests.core_builders import (
    SETTINGS,
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_facts,
    make_observed,
    make_resource,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.state import ObservedState

_AUTO = Policy(prune="auto")


def _plan(
    desired: DesiredState, observed: ObservedState, policy: Policy | None = None, **options: Any
) -> Plan:
    return make_plan(desired, observed, target="staging", policy=policy or Policy(), **options)


def _owned(names: str, **changed: Any) -> ObservedState:
    entries = tuple(make_entry(name, jobid) for jobid, name in enumerate(names, 1))
    definitions = [make_definition(entry.name, entry=entry, **changed) for entry in entries]
    return make_observed(*definitions, entries=entries)


def test_adopting_what_is_as_declared_is_no_pending_change() -> None:
    """After an import the plan is empty, though our mark is still to be set."""
    plan = _plan(make_desired_state(make_scheduled("a")), make_observed(entries=(make_entry("a", 1),)))
    assert plan.is_empty is True
    assert [change.action for change in plan.changes] == ["adopt"]
    assert plan.count() == dict.fromkeys(ACTIONS, 0) | {"adopt": 1}


def test_a_plan_counts_what_it_would_do() -> None:
    """Every action is counted, and what is pending is what alters the target."""
    plan = _plan(make_desired_state(make_scheduled("a"), make_scheduled("x")), _owned("ab"), _AUTO)
    assert plan.count() == dict.fromkeys(ACTIONS, 0) | {"create": 1, "delete": 1}
    assert not plan.is_empty
    assert [change.name for change in plan.deletions] == ["b"]
    assert (plan.resources, plan.owned, plan.owner, plan.target) == (2, 2, "shop", "staging")


def test_what_is_kept_under_prune_never_is_named() -> None:
    """What the files no longer have and what goes on firing is told, sorted."""
    plan = _plan(make_desired_state(), _owned("ba"))
    assert (plan.kept, plan.changes) == (("a", "b"), ())
    assert _plan(make_desired_state(), _owned("ba"), _AUTO).kept == ()


def test_what_is_renamed_is_not_kept() -> None:
    """Its definition goes on under the new name."""
    renamed = replace(make_scheduled("b"), renamed_from="a")
    assert _plan(make_desired_state(renamed), _owned("a")).kept == ()


def test_obstacles_are_told_apart() -> None:
    """A refusal stops all; a lack of rights stops one change."""
    desired = make_desired_state(make_scheduled("a"), make_scheduled("b", username="bob"))
    plan = _plan(desired, make_observed(make_definition("a", owner="crm")))
    assert [change.name for change in plan.refused] == ["a"]
    assert [change.name for change in plan.beyond_rights] == ["b"]


def test_what_was_found_before_is_passed_on() -> None:
    """Notices, findings and migrations are part of the plan."""
    notice = Notice(code="http", message="x")
    finding = Finding(code="standby", severity="error", message="x", remedy="y")
    plan = _plan(
        make_desired_state(notices=(notice,)), make_observed(), findings=[finding], migrations=["0001_a"]
    )
    assert (plan.notices, plan.findings, plan.migrations) == ((notice,), (finding,), ("0001_a",))


def test_a_name_under_several_roles_is_noticed() -> None:
    """pg_cron takes one name once for each role, and all of them fire."""
    entries = tuple(make_entry("a", jobid, username=role) for jobid, role in ((1, "bob"), (2, "al")))
    others = tuple(make_entry("z", jobid, username=role) for jobid, role in ((3, "bob"), (4, "al")))
    plan = _plan(make_desired_state(make_scheduled("a")), make_observed(entries=entries + others))
    assert [(notice.code, notice.names) for notice in plan.notices] == [("double_name", ("a",))]
    assert "under the roles al, bob" in plan.notices[0].message


def test_a_one_time_job_that_ran_and_was_edited_is_noticed() -> None:
    """Its new declaration does nothing, and nobody should wait for it."""
    once = replace(make_resource("a", document=make_document(once="2027")), once=True)
    ran = frozenset({"a", "z"})
    for definitions, noticed in (
        ([], True),
        ([make_definition("a")], True),
        ([make_definition("a", document=once.document)], False),
    ):
        plan = _plan(make_desired_state(once), make_observed(*definitions, settled=ran))
        assert plan.is_empty
        assert [(notice.code, notice.names) for notice in plan.notices] == [("settled", ("a",))] * noticed
    recurring = _plan(make_desired_state(make_scheduled("a")), make_observed(settled=ran))
    assert recurring.notices == ()


@pytest.mark.parametrize(
    ("pause", "message"),
    [
        (Pause(until=None, reason="", paused_by="anna"), "paused by anna"),
        (
            Pause(until=datetime(2030, 1, 2, 3, tzinfo=UTC), reason="no vendor", paused_by="anna"),
            "paused until 2030-01-02 03:00:00Z by anna: no vendor",
        ),
    ],
)
def test_a_pause_is_said_and_changes_nothing(pause: Pause, message: str) -> None:
    """Who paused what until when and why; pauses of what others declared are none of ours."""
    desired = make_desired_state(make_scheduled("a"))
    observed = replace(make_observed(), pauses={"a": pause, "theirs": pause})
    plan = _plan(desired, observed)
    assert plan.changes == _plan(desired, make_observed()).changes
    assert [(notice.code, notice.names, notice.message) for notice in plan.notices] == [
        ("paused", ("a",), message)
    ]


_NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
_PAST = make_document(once="2026-11-20T09:00:00Z")


def test_a_plan_knows_its_changes_in_time_by_the_servers_clock() -> None:
    """Where it was not asked, there are none; a change is in the plan whatever is known of its times."""
    desired = make_desired_state(make_scheduled("a"), make_resource("b", document=_PAST))
    going = {"a": (Running(run_id=7, run_at=_NOW),)}
    observed = replace(_owned("a", document=make_document(sql="SELECT 2")), now=_NOW, running=going)
    assert _plan(desired, replace(observed, now=None)).times == {}
    plan = _plan(make_desired_state(make_scheduled("a"), make_scheduled("b")), observed)
    assert [change.name for change in plan.changes] == ["a", "b"]
    assert list(plan.times) == ["a", "b"]
    assert (plan.times["a"].running, plan.times["a"].fate[:8]) == (going["a"], "apply do")
    after = plan.times["b"].after
    assert after is not None
    assert after.next_runs[0] == _NOW + timedelta(hours=1)


def test_a_plan_reads_schedules_in_the_zone_of_the_server() -> None:
    """As pg_cron does there."""
    facts = make_facts(settings={**SETTINGS, "timezone": "Asia/Kolkata"})
    plan = _plan(make_desired_state(make_scheduled("a")), replace(make_observed(facts=facts), now=_NOW))
    after = plan.times["a"].after
    assert after is not None
    assert after.next_runs[0] == _NOW + timedelta(minutes=30)


def test_a_one_time_job_of_the_past_refuses_the_plan() -> None:
    """By a reason and a remedy, before anybody asks what the role may do."""
    once = replace(make_resource("a", document=_PAST), once=True)
    plan = _plan(make_desired_state(once), replace(make_observed(), now=_NOW))
    refusal = find_refusal(plan, Policy(), allow_deletes=None)
    assert refusal is not None
    assert refusal.why == "job a is to run once at 2026-11-20 09:00:00Z, which is past"
    assert _plan(make_desired_state(once), make_observed()).refused == ()


def test_what_is_odd_about_times_is_noticed() -> None:
    """A job that is over stands in each plan until it is removed."""
    over = make_scheduled("a", document=make_document(daily="08:00", end_at="2026-11-20T09:00:00Z"))
    plan = _plan(make_desired_state(over), replace(make_observed(), now=_NOW))
    assert [(notice.code, notice.names) for notice in plan.notices] == [("ended", ("a",))]


_CONSENT = "the plan deletes 1, and this target asks for consent (prune: confirm)"


def _refusal(deletes: int, owned: int, policy: Policy, allow: int | str | None = None) -> str:
    names = "abcdefghij"[:owned]
    desired = make_desired_state(*(make_scheduled(name) for name in names[deletes:]))
    plan = _plan(desired, _owned(names), policy)
    assert len(plan.deletions) == deletes
    refusal = find_refusal(plan, policy, allow_deletes=allow)
    if refusal is None:
        return ""
    assert refusal.kind == "refused"
    assert refusal.remedy == f"look at them, then apply with --allow-deletes {plan.consent}"
    return refusal.why


@pytest.mark.parametrize(
    ("deletes", "owned", "policy", "allow", "why"),
    [
        (0, 4, _AUTO, None, ""),
        (0, 4, _AUTO, 3, ""),
        (2, 4, _AUTO, None, ""),
        (
            3,
            4,
            _AUTO,
            None,
            "the plan deletes 3 of the 4 resources of shop, more than limits.delete_share (0.5)",
        ),
        (3, 4, _AUTO, 3, ""),
        (3, 4, _AUTO, 4, "the plan deletes 3, the consent is for 4"),
        (1, 4, _AUTO, 0, "the plan deletes 1, the consent is for 0"),
        (5, 10, _AUTO, None, ""),
        (6, 10, _AUTO, None, "the plan deletes 6, more than limits.deletes (5)"),
        (6, 10, _AUTO, 6, ""),
        (1, 10, Policy(prune="confirm"), None, _CONSENT),
        (1, 10, Policy(prune="confirm"), 1, ""),
        (1, 1, Policy(prune="auto", max_delete_share=1), None, ""),
        (
            1,
            10,
            Policy(prune="auto", max_deletes=0),
            None,
            "the plan deletes 1, more than limits.deletes (0)",
        ),
    ],
)
def test_deletions_need_consent_beyond_the_limits(
    deletes: int, owned: int, policy: Policy, allow: int | None, why: str
) -> None:
    """The person names exactly the number of deletions that was shown."""
    assert _refusal(deletes, owned, policy, allow) == why


def test_consent_by_code_is_for_one_list() -> None:
    """The code counts the deletions and is of their names, kinds, target and owner alone."""
    plan = _plan(make_desired_state(), _owned("ab"), _AUTO)
    assert re.fullmatch("2-[0-9a-f]{6}", plan.consent)
    assert find_refusal(plan, Policy(prune="confirm"), allow_deletes=plan.consent) is None
    same = replace(plan, changes=plan.changes[::-1], notices=(Notice(code="x", message="y"),))
    assert same.consent == plan.consent
    others = [
        _plan(make_desired_state(), _owned("ac"), _AUTO),
        replace(plan, target="production"),
        replace(plan, owner="kitchen"),
    ]
    for other in others:
        refusal = find_refusal(other, _AUTO, allow_deletes=plan.consent)
        assert refusal is not None
        assert refusal.why == (
            f"the plan deletes 2, and the consent {plan.consent} is for another list of deletions"
        )
    assert replace(plan, changes=()).consent == ""
    assert find_refusal(replace(plan, changes=()), _AUTO, allow_deletes=plan.consent) is None


def test_a_refused_change_refuses_the_plan_whatever_the_consent() -> None:
    """Protection is not a matter of numbers; how many more there are is told."""
    plan = _plan(make_desired_state(), _owned("ab", protect=True), _AUTO)
    refusal = find_refusal(plan, _AUTO, allow_deletes=2)
    assert refusal is not None
    assert refusal.why == "job a is protected (and 1 more refused)"
    one = find_refusal(replace(plan, changes=plan.changes[:1]), _AUTO, allow_deletes=2)
    assert one is not None
    assert one.why == "job a is protected"


def test_a_lack_of_rights_does_not_refuse_the_plan() -> None:
    """The rest is applied."""
    plan = _plan(make_desired_state(make_scheduled("b", username="bob")), make_observed())
    assert plan.beyond_rights
    assert find_refusal(plan, Policy(), allow_deletes=None) is None


_DESIRED = make_desired_state(make_scheduled("a"))
_OBSERVED = _owned("a")


@pytest.mark.parametrize(
    "resource",
    [
        make_scheduled("b"),
        make_scheduled("a", document=make_document(sql="x")),
        make_scheduled("a", schedule="1 * * * *"),
        make_scheduled("a", active=False),
        replace(make_scheduled("a"), protect=True),
        replace(make_scheduled("a"), once=True),
        replace(make_scheduled("a"), kind="worker"),
        replace(make_scheduled("a"), renamed_from="b"),
        make_resource("a"),
    ],
)
def test_whatever_is_declared_otherwise_moves_the_desired_fingerprint(resource: Any) -> None:
    """A saved plan does not hold for other files."""
    one, other = (
        make_fingerprints(_DESIRED, _OBSERVED),
        make_fingerprints(make_desired_state(resource), _OBSERVED),
    )
    assert one.desired != other.desired


_DEFINITION = _OBSERVED.definitions["a"]
_ENTRY = _OBSERVED.entries[1]


@pytest.mark.parametrize(
    "observed",
    [
        make_observed(_DEFINITION),
        make_observed(entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, intact=False), entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, protect=True), entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, kind="queue"), entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, owner="crm"), entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, document="{}"), entries=(_ENTRY,)),
        make_observed(replace(_DEFINITION, entry=replace(_ENTRY, jobid=2)), entries=(_ENTRY,)),
        make_observed(_DEFINITION, entries=(replace(_ENTRY, active=False),)),
        make_observed(_DEFINITION, entries=(replace(_ENTRY, name="z"),)),
        make_observed(_DEFINITION, entries=(_ENTRY, replace(_ENTRY, jobid=9, username="bob"))),
        make_observed(_DEFINITION, entries=(_ENTRY,), rows=(RowDrift(name="a", observed=None, applied={}),)),
        make_observed(_DEFINITION, entries=(_ENTRY,), settled=frozenset({"a"})),
        make_observed(_DEFINITION, make_definition("c"), entries=(_ENTRY,)),
    ],
)
def test_whatever_the_plan_looked_at_moves_the_observed_fingerprint(observed: ObservedState) -> None:
    """A saved plan does not hold for a target that moved."""
    assert make_fingerprints(_DESIRED, observed).observed != make_fingerprints(_DESIRED, _OBSERVED).observed


def test_what_is_none_of_ours_moves_no_fingerprint() -> None:
    """Entries and definitions of others, their drift and their one-time jobs come and go."""
    theirs = make_definition("x", owner="crm", entry=make_entry("x", 5))
    drift = RowDrift(name="x", observed=None, applied={})
    observed = make_observed(
        theirs,
        _DEFINITION,
        entries=(make_entry("x", 5), make_entry("y", 6), _ENTRY),
        rows=(drift,),
        settled=frozenset({"x"}),
    )
    assert make_fingerprints(_DESIRED, observed) == make_fingerprints(_DESIRED, _OBSERVED)


def test_where_something_is_declared_moves_no_fingerprint() -> None:
    """A line added above a job is no change of the job."""
    moved = replace(make_scheduled("a"), place=Place(path="b.yaml", line=9, column=1))
    assert make_fingerprints(make_desired_state(moved), _OBSERVED) == make_fingerprints(_DESIRED, _OBSERVED)


def test_a_snapshot_shows_spec_and_entry_without_the_jobid() -> None:
    """The number of an entry is no part of what was declared."""
    entry = make_entry("a", 7)
    assert Snapshot(document='{"a":1}', entry=entry).to_json() == {"spec": {"a": 1}, "entry": entry.fields()}
    assert Snapshot(document="", entry=None).to_json() == {"spec": None, "entry": None}
    assert "jobid" not in entry.fields()
    assert Obstacle(kind="rights", why="a", remedy="b") != Obstacle(kind="refused", why="a", remedy="b")
