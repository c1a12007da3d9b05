"""Stages of a target: what add-only leaves out, and what authoritative deletes besides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.config import Policy
from reconciler.core.history import Revision, replay
from reconciler.core.plan import Plan, find_refusal, make_fingerprints, make_plan
from reconciler.core.selection import narrow
from tests.core_builders import (
    SUPERUSER,
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
    from reconciler.core.config import Stage
    from reconciler.core.state import DesiredResource, DesiredState, ObservedState

ADD_ONLY = Policy(prune="auto", stage="add-only")
WHOLE = Policy(prune="auto", stage="authoritative")
FACTS = make_facts(SUPERUSER)


def plan(desired: DesiredState, observed: ObservedState, policy: Policy) -> Plan:
    """Plan for a target."""
    return make_plan(desired, observed, target="test", policy=policy)


def _take_name(name: str, of: str) -> DesiredResource:
    """Declare a resource whose entry has another one's name."""
    return make_resource(name, entry=make_entry(of, username=""))


def list_changes(made: Plan) -> list[tuple[str, str, str]]:
    """List what is planned."""
    return [(change.action, change.name, change.reason) for change in made.changes]


@pytest.mark.parametrize("grace", [timedelta(), timedelta(days=7)])
def test_add_only_makes_and_takes_over_equals_alone(grace: timedelta) -> None:
    """What is edited, renamed or gone is held, and named with its counts."""
    desired = make_desired_state(
        make_resource("edited", document=make_document(schedule="0 * * * *", sql="SELECT 2")),
        make_resource("after", renamed_from="before"),
        make_scheduled("equal"),
        make_resource("new"),
    )
    observed = make_observed(
        make_definition("edited"),
        make_definition("before"),
        make_definition("gone"),
        entries=(make_entry("equal", 1),),
    )
    made = plan(desired, observed, replace(ADD_ONLY, grace=grace))
    assert list_changes(made) == [("adopt", "equal", "adopted"), ("create", "new", "declared")]
    last = "retire" if grace else "delete"
    assert [(one.action, one.name) for one in made.held] == [
        ("update", "after"),
        ("update", "edited"),
        (last, "gone"),
    ]
    notice = made.notices[0]
    assert (notice.code, notice.names) == ("held_back", ("after", "edited", "gone"))
    assert f"2 to update, 1 to {last};" in notice.message
    assert made.consent == ""


def test_other_stages_hold_nothing() -> None:
    """An update is planned, and no notice is about stages."""
    desired = make_desired_state(make_resource("a", document=make_document(schedule="0 1 * * *", sql="x")))
    stages: tuple[Stage, ...] = ("declared-only", "authoritative")
    for stage in stages:
        made = plan(desired, make_observed(make_definition("a")), Policy(stage=stage))
        assert (made.held, made.notices, len(made.changes)) == ((), (), 1)


def test_add_only_says_nothing_where_nothing_is_held() -> None:
    """A target that is as declared needs no note."""
    assert plan(make_desired_state(), make_observed(), ADD_ONLY).notices == ()


def test_a_name_that_a_held_rename_does_not_free_is_refused() -> None:
    """The change that would have made room is not made."""
    desired = make_desired_state(
        replace(make_scheduled("new"), renamed_from="old"), _take_name("more", "old")
    )
    definition = make_definition("old", entry=make_entry("old", 1))
    made = plan(desired, make_observed(definition, entries=(make_entry("old", 1),)), ADD_ONLY)
    assert [change.name for change in made.refused] == ["more"]


def test_what_refers_to_what_is_held_and_missing_is_refused() -> None:
    """An entry that is not taken over is no job of ours yet; one that is ours is referred to as it is."""
    desired = make_desired_state(
        make_scheduled("a"),
        make_resource("b", document=make_document(after=["a"], sql="x")),
    )
    other = make_entry("a", 1, schedule="1 1 * * *")
    made = plan(desired, make_observed(entries=(other,)), ADD_ONLY)
    assert [(one.name, one.obstacle.why) for one in made.refused if one.obstacle] == [
        ("b", "job b refers to a, which the target does not have")
    ]
    ours = make_observed(make_definition("a", entry=make_entry("a", 1)), entries=(other,))
    assert plan(desired, ours, ADD_ONLY).refused == ()


def test_authoritative_deletes_what_no_owner_has() -> None:
    """Definitions of all owners claim their entries, and what is just taken over is claimed too."""
    desired = make_desired_state(make_scheduled("adopted"), make_scheduled("mine"))
    observed = make_observed(
        make_definition("mine", entry=make_entry("mine", 1)),
        make_definition("theirs", owner="billing", entry=make_entry("theirs", 2)),
        entries=(
            make_entry("mine", 1),
            make_entry("theirs", 2),
            make_entry("adopted", 3),
            make_entry("stray", 4),
            make_entry("", 5),
            make_entry("mine", 6, username="other"),
            make_entry("twice", 7),
            make_entry("twice", 8, username="other"),
        ),
        facts=FACTS,
    )
    made = plan(desired, observed, WHOLE)
    assert list_changes(made) == [
        ("adopt", "adopted", "adopted"),
        *(
            ("delete", name, "unmanaged")
            for name in ("stray", "#5", "mine@other", "twice@deploy", "twice@other")
        ),
    ]
    assert [change.name for change in made.unmanaged] == [change.name for change in made.deletions]
    assert all(one.obstacle is None and one.kind == "job" for one in made.unmanaged)


def test_authoritative_under_a_selection_deletes_nothing() -> None:
    """A selection is about what was chosen."""
    desired = narrow(make_desired_state(make_resource("a"), make_resource("b")), {"a"})
    made = plan(desired, make_observed(entries=(make_entry("stray", 1),)), WHOLE)
    assert list_changes(made) == [("create", "a", "declared")]


def test_no_budget_covers_what_nobody_declared() -> None:
    """Only consent to the very list does, or to its length."""
    observed = make_observed(entries=(make_entry("stray", 1),))
    made = plan(make_desired_state(make_resource("a")), observed, WHOLE)
    policy = Policy(prune="auto", stage="authoritative", max_deletes=100, max_delete_share=1.0)
    refusal = find_refusal(made, policy, allow_deletes=None)
    assert refusal is not None
    assert refusal.why == "the plan deletes 1, 1 of which nobody declared (stage: authoritative)"
    assert refusal.remedy.startswith("take them over: reconciler import; or look at them")
    assert find_refusal(made, policy, allow_deletes=made.consent) is None
    assert find_refusal(made, policy, allow_deletes=1) is None
    assert find_refusal(made, policy, allow_deletes=2) is not None


def test_the_fingerprint_holds_for_what_would_be_deleted() -> None:
    """Other entries of others may come and go; these may not."""
    desired = make_desired_state(make_resource("a"))
    one, other = (make_observed(entries=(make_entry(name, 1),)) for name in ("one", "other"))
    assert make_fingerprints(desired, one) == make_fingerprints(desired, other)
    prints = {
        make_fingerprints(desired, observed, unmanaged=plan(desired, observed, WHOLE).unmanaged).observed
        for observed in (one, other)
    }
    assert len(prints) == 2


def test_history_knows_that_it_was_nobody_s() -> None:
    """The deletion of an entry that was named like a resource of ours does not end that resource."""
    observed = make_observed(entries=(make_entry("a", 1),))
    made = plan(make_desired_state(make_resource("b")), observed, WHOLE)
    stray = made.unmanaged
    create = list(plan(make_desired_state(make_resource("a")), make_observed(), WHOLE).changes)
    revisions = [
        Revision(id=1, owner="shop", changes=tuple(create)),
        Revision(id=2, owner="shop", changes=stray),
    ]
    assert [change.name for change in stray] == ["a"]
    assert set(replay(revisions)) == {"a"}
