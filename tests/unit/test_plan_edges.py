"""What forbids a plan as a whole while the target is closed."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.changes import Obstacle
from reconciler.core.config import Policy
from reconciler.core.plan import find_refusal, make_plan
from tests.core_builders import make_desired_state, make_observed, make_scheduled


def test_a_closed_target_refuses_all_that_would_change_it() -> None:
    """Changes, and migrations of our own schema; a plan without either may be applied at any time."""
    closed = Obstacle(kind="refused", why="it is Friday", remedy="wait for Monday")
    desired = make_desired_state(make_scheduled("a"))
    plan = replace(
        make_plan(desired, make_observed(), target="test", policy=Policy()), closed=closed, migrations=()
    )
    assert find_refusal(plan, Policy(), allow_deletes=None) == closed
    nothing = replace(plan, changes=())
    assert find_refusal(nothing, Policy(), allow_deletes=None) is None
    assert find_refusal(replace(nothing, migrations=("0001",)), Policy(), allow_deletes=None) == closed
