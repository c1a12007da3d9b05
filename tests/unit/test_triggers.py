from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.dialects import Dialect, dialect_for
from reconciler.core.schedules import find_problem, next_runs
from reconciler.core.specs import Daily, Every, Monthly, Once, Schedule, Succeeded, Trigger, Weekly
from reconciler.core.triggers import compile_trigger, is_same_zone

_OLD = dialect_for((1, 4, 0))
_NEW = dialect_for((1, 6, 5))


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (Schedule(text="@hourly"), "@hourly"),
        (Every(interval=timedelta(seconds=1)), "1 second"),
        (Every(interval=timedelta(seconds=59)), "59 seconds"),
        (Every(interval=timedelta(minutes=1)), "* * * * *"),
        (Every(interval=timedelta(minutes=15)), "*/15 * * * *"),
        (Every(interval=timedelta(hours=1)), "0 * * * *"),
        (Every(interval=timedelta(hours=12)), "0 */12 * * *"),
        (Every(interval=timedelta(days=1)), "0 0 * * *"),
        (Daily(hour=2, minute=30), "30 2 * * *"),
        (Weekly(days=(0, 3), hour=3, minute=0), "0 3 * * 0,3"),
        (Monthly(day=15, hour=4, minute=5), "5 4 15 * *"),
        (Monthly(day="last", hour=4, minute=5), "5 4 $ * *"),
    ],
)
def test_triggers_become_schedules(trigger: Trigger, text: str) -> None:
    """Each trigger has its text in pg_cron's grammar."""
    compiled = compile_trigger(trigger, _NEW)
    assert (compiled.text, compiled.problem) == (text, "")


@pytest.mark.parametrize(
    ("trigger", "dialect", "why"),
    [
        (Every(interval=timedelta(seconds=30)), _OLD, "needs pg_cron 1.5 or later"),
        (Monthly(day="last", hour=0, minute=0), _OLD, "needs pg_cron 1.6 or later"),
        (Every(interval=timedelta(seconds=90)), _NEW, "every 1m30s does not divide"),
        (Every(interval=timedelta(minutes=7)), _NEW, "every 7m does not divide"),
        (Every(interval=timedelta(hours=5)), _NEW, "every 5h does not divide"),
        (Every(interval=timedelta(days=2)), _NEW, "every 2d does not divide"),
        (Every(interval=timedelta(milliseconds=1500)), _NEW, "every 1s500ms does not divide"),
    ],
)
def test_what_pg_cron_cannot_do_is_said(trigger: Trigger, dialect: Dialect, why: str) -> None:
    """An interval that would be uneven, or a form that this version lacks, is a problem and no schedule."""
    compiled = compile_trigger(trigger, dialect)
    assert compiled.text == ""
    assert why in compiled.problem


@pytest.mark.parametrize("trigger", [Once(at=datetime(2026, 12, 1, tzinfo=UTC)), Succeeded()])
def test_a_trigger_that_does_not_recur_has_no_schedule(trigger: Trigger) -> None:
    """One-time jobs and those that follow others have no entry and never reach this function."""
    with pytest.raises(ValueError, match="recur"):
        compile_trigger(trigger, _NEW)


_SECONDS = st.sampled_from([1, 59, 60, 120, 1800, 3600, 7200, 43_200, 86_400]) | st.integers(1, 90_000)


@given(_SECONDS.map(lambda seconds: timedelta(seconds=seconds)))
def test_an_interval_that_compiles_is_even_and_sound(interval: timedelta) -> None:
    """Whatever text comes out is read by pg_cron as meant, and its runs are as far apart as was declared."""
    compiled = compile_trigger(Every(interval=interval), _NEW)
    assert bool(compiled.text) != bool(compiled.problem)
    if compiled.text:
        assert find_problem(compiled.text, _NEW) is None
    if compiled.text and interval >= timedelta(minutes=1):
        start = datetime(2026, 3, 3, tzinfo=UTC)
        runs = next_runs(compiled.text, after=start, count=30, zone="UTC", dialect=_NEW)
        assert {later - earlier for earlier, later in pairwise(runs)} == {interval}


@pytest.mark.parametrize(
    ("declared", "server", "same"),
    [
        ("", "Europe/Oslo", True),
        ("Europe/Oslo", "Europe/Oslo", True),
        ("UTC", "GMT", True),
        ("Etc/UTC", "", True),
        ("Europe/Oslo", "GMT", False),
        ("UTC", "Europe/Oslo", False),
    ],
)
def test_zones_are_the_same_by_name_or_because_both_are_utc(declared: str, server: str, same: bool) -> None:
    """GMT and UTC are one zone; others are compared by name."""
    assert is_same_zone(declared, server) is same
