"""A plan is made with the clocks that the server knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from reconciler.core.config import Target
from reconciler.core.specs import Daily
from reconciler.database.apply import _plan
from reconciler.database.observe import Observation
from reconciler.database.statements import Request
from tests.core_builders import make_job, make_observed


def test_the_clocks_of_the_server_decide() -> None:
    """Where the server knows other clocks of a zone than this machine does, its own make the schedule."""
    job = make_job("a", trigger=Daily(hour=8, minute=0), timezone="Europe/Oslo")
    since = datetime(2026, 1, 1, tzinfo=UTC)
    state = replace(
        make_observed(), now=since, clocks={"Europe/Oslo": ((since, 5 * 3600),), "GMT": ((since, 0),)}
    )
    request = Request(specs=[job], owner="team", target=Target(name="t"))
    planned = _plan(Observation(state=state, dangers=()), request)
    entry = planned.desired.resources["a"].entry
    assert entry is not None
    assert entry.schedule == "0 3 * * *"
    assert [notice.code for notice in planned.plan.notices if notice.code == "zone_data"] == ["zone_data"]
