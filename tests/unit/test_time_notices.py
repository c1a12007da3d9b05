from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.core.time_notices import find_time_notices, refuse_past
from reconciler.core.times.clocks import read_clock, to_instant
from tests.core_builders import make_desired_state, make_document, make_entry, make_observed, make_resource

if TYPE_CHECKING:
    from reconciler.core.state import DesiredResource, ObservedState

_NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
_NIGHT = {"from": "02:00", "to": "03:00"}


def _observed(**changed: Any) -> ObservedState:
    return replace(make_observed(), now=_NOW, **changed)


def _job(name: str = "a", *, active: bool = True, **fields: Any) -> DesiredResource:
    entry = make_entry(name, active=active)
    return make_resource(name, entry=entry, document=make_document(**{"daily": "02:30", **fields}))


def _notices(*resources: DesiredResource, **changed: Any) -> list[tuple[str, tuple[str, ...]]]:
    notices = find_time_notices(make_desired_state(*resources), _observed(**changed))
    return [(notice.code, notice.names) for notice in notices]


def test_jobs_that_are_over_are_named() -> None:
    """From the very instant at which they end; until then they are not over."""
    over = _job("b", end_at="2026-11-21T09:00:00Z")
    assert _notices(
        over, _job("a", end_at="2026-11-01T00:00:00Z"), _job("c", end_at="2026-11-22T09:00:00Z")
    ) == [("ended", ("a", "b"))]
    assert _notices(_job(payload={"end_at": "2026-11-01T00:00:00Z"})) == []


@pytest.mark.parametrize(
    ("job", "is_named"),
    [
        (_job(blackout=[_NIGHT]), True),
        (_job(blackout=[{"first": "2026-11-01"}]), True),
        (_job(end_at="2026-11-21T20:00:00Z"), True),
        (_job(start_at="2026-11-22T03:00:00Z", end_at="2026-11-23T02:00:00Z"), True),
        (_job(blackout=[{**_NIGHT, "on": ["mon"]}]), False),
        (_job(blackout=[{**_NIGHT, "last": "2029-01-01"}]), False),
        (_job(start_at="2030-11-22T03:00:00Z"), False),
        (_job(blackout=[_NIGHT], active=False), False),
        (_job(blackout=[_NIGHT], timezone="Mars/Olympus"), False),
        (
            make_resource(document=make_document(schedule="@reboot", blackout=[_NIGHT]), entry=make_entry()),
            False,
        ),
        (make_resource(document=make_document(daily="02:30", blackout=[_NIGHT])), False),
        (replace(_job(blackout=[_NIGHT]), kind="queue"), False),
        (_job(), False),
    ],
)
def test_a_job_that_will_never_run_is_named(job: DesiredResource, is_named: bool) -> None:
    """It is active, and window and blackouts leave no run; what cannot be known is not said."""
    assert _notices(job) == [("never", ("a",))] * is_named


def _clocks(
    zone: str, *, since: int = 2025, shift: int = 0, until: int = 2037
) -> tuple[tuple[datetime, int], ...]:
    """Tell of a zone as a server would: its offset at a moment, and each later change."""
    clock = read_clock(zone)
    low = datetime(since, 1, 1, tzinfo=UTC)
    first = int((low - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    changes = [
        (to_instant(second), after + shift)
        for second, _, after in clock.steps()
        if low < to_instant(second) < datetime(until, 1, 1, tzinfo=UTC)
    ]
    return ((low, clock.offset_at(first)), *changes)


def test_a_server_with_other_time_zone_data_is_named() -> None:
    """With the jobs that go by those zones; zones that both know alike are not told."""
    oslo = _clocks("Europe/Oslo")
    jobs = (
        _job("b", timezone="Europe/Oslo"),
        _job("a", timezone="Europe/Oslo"),
        _job("c", timezone="Asia/Tokyo"),
    )
    agreed = {"Europe/Oslo": oslo, "Asia/Tokyo": _clocks("Asia/Tokyo"), "GMT": _clocks("UTC")}
    assert _notices(*jobs, clocks=agreed) == []
    extra = oslo[2][0] + timedelta(days=9)
    for other in (
        oslo[:-3],
        oslo[:3],
        (*oslo[:3], (extra, 0), (extra + timedelta(days=9), oslo[2][1]), *oslo[3:]),
        (*oslo[:-4], *((at + timedelta(hours=1), ahead) for at, ahead in oslo[-4:])),
        _clocks("Europe/Oslo", shift=60),
    ):
        assert _notices(*jobs, clocks={**agreed, "Europe/Oslo": other}) == [("zone_data", ("a", "b"))]
    message = find_time_notices(
        make_desired_state(*jobs), _observed(clocks={"Europe/Oslo": oslo[:3], "Mars/Olympus": oslo})
    )[0].message
    assert "clocks of Europe/Oslo, Mars/Olympus:" in message


def test_what_a_server_does_not_tell_of_is_no_difference() -> None:
    """It tells of twelve years, and what comes after is not compared."""
    assert _notices(clocks={"Europe/Oslo": _clocks("Europe/Oslo", until=2037)}) == []
    assert _notices(clocks={"Europe/Oslo": _clocks("Europe/Oslo", until=2030)}) == [("zone_data", ())]


def test_nothing_is_said_without_a_clock() -> None:
    """Whether something is over, only the server's clock can tell."""
    observed = replace(make_observed(), clocks={"Mars/Olympus": _clocks("Asia/Tokyo")})
    assert find_time_notices(make_desired_state(_job(end_at="2026-11-01T00:00:00Z")), observed) == ()


def _once(at: str, before: str | None = None, **changed: Any) -> Change:
    change = Change(
        action="create" if before is None else "update",
        kind="job",
        name="a",
        reason="declared",
        before=None if before is None else Snapshot(document=before, entry=None),
        after=Snapshot(document=make_document(once=at), entry=None),
        source="jobs.d/a.yaml:3",
        once=True,
    )
    return replace(change, **changed)


_PAST, _FUTURE = "2026-11-21T09:00:00Z", "2026-11-21T09:00:00.000001Z"
_RIGHTS = Obstacle(kind="rights", why="x", remedy="y")


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        (_once(_PAST), True),
        (_once(_FUTURE), False),
        (_once(_PAST, make_document(once=_FUTURE)), True),
        (_once(_PAST, make_document(daily="08:00")), True),
        (_once(_PAST, ""), True),
        (_once(_PAST, "[]"), True),
        (_once(_PAST, make_document(once=_PAST, timeout="5m")), False),
        (_once(_PAST, make_document(once="2026-11-21T10:00:00+01:00")), False),
        (_once(_FUTURE, make_document(once=_PAST)), False),
        (_once(_PAST, make_document(once=_PAST), after=None, action="delete"), False),
        (_once(_PAST, once=False), False),
        (_once("soon"), False),
    ],
)
def test_a_one_time_job_of_the_past_is_refused(change: Change, is_refused: bool) -> None:
    """Unless it was applied with that instant: then it runs, or has run."""
    (found,) = refuse_past([change], _observed())
    if not is_refused:
        assert found == change
        return
    assert found.obstacle is not None
    assert found.obstacle.kind == "refused"
    assert found.obstacle.why == "job a is to run once at 2026-11-21 09:00:00Z, which is past"
    assert "jobs.d/a.yaml:3" in found.obstacle.remedy


def test_what_has_run_or_is_hindered_already_is_not_refused() -> None:
    """Nor is anything where the server's clock was not asked."""
    change = _once(_PAST)
    assert refuse_past([change], _observed(settled=frozenset({"a"}))) == (change,)
    assert refuse_past([change], make_observed()) == (change,)
    hindered = replace(change, obstacle=_RIGHTS)
    assert refuse_past([hindered], _observed()) == (hindered,)
