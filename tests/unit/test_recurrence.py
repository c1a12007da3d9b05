"""Times as they are given to the Scheduler become triggers of spec files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from reconciler.core.recurrence import Times, make_trigger
from reconciler.core.scheduler_jobs import SchedulerConfig, TriggerType, find_zone, read_instant
from reconciler.errors import InvalidInputError

DAILY, WEEKLY, MONTHLY = TriggerType.DAILY, TriggerType.WEEKLY, TriggerType.MONTHLY
INTERVAL, CRON = TriggerType.INTERVAL, TriggerType.CRON
NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
"""A Wednesday."""
OSLO = ZoneInfo("Europe/Oslo")


def _make(kind: TriggerType, **times: Any) -> dict[str, Any]:
    return make_trigger(kind, Times(**times), zone=OSLO, now=NOW)


@pytest.mark.parametrize(
    ("kind", "times", "trigger"),
    [
        (DAILY, {"hour": 8, "minute": 5, "run_date": NOW}, {"daily": "08:05"}),
        (DAILY, {"hour": 8}, {"daily": "08:00"}),
        (DAILY, {"hour": 8, "run_date": NOW}, {"daily": "08:00"}),
        (DAILY, {"run_date": NOW}, {"daily": "16:30"}),
        (DAILY, {"run_date": NOW, "minute": 0}, {"daily": "16:00"}),
        (WEEKLY, {"hour": 0, "day_of_week": "mon"}, {"weekly": {"on": ["mon"], "at": "00:00"}}),
        (WEEKLY, {"hour": 8, "day_of_week": "thu, MON"}, {"weekly": {"on": ["mon", "thu"], "at": "08:00"}}),
        (WEEKLY, {"hour": 8, "day_of_week": "Friday"}, {"weekly": {"on": ["fri"], "at": "08:00"}}),
        (WEEKLY, {"hour": 8, "day_of_week": "sun-mon"}, {"weekly": {"on": ["mon", "sun"], "at": "08:00"}}),
        (WEEKLY, {"hour": 8, "day_of_week": 0}, {"weekly": {"on": ["mon"], "at": "08:00"}}),
        (WEEKLY, {"hour": 8, "day_of_week": [6, "Fri"]}, {"weekly": {"on": ["fri", "sun"], "at": "08:00"}}),
        (WEEKLY, {"run_date": NOW}, {"weekly": {"on": ["wed"], "at": "16:30"}}),
        (MONTHLY, {"hour": 8, "day": 31}, {"monthly": {"day": 31, "at": "08:00"}}),
        (MONTHLY, {"hour": 8, "day": "last"}, {"monthly": {"day": "last", "at": "08:00"}}),
        (MONTHLY, {"hour": 8, "day": "Second Tuesday"}, {"monthly": {"day": "second tue", "at": "08:00"}}),
        (MONTHLY, {"run_date": NOW, "hour": 1}, {"monthly": {"day": 4, "at": "01:00"}}),
        (CRON, {"cron_expression": "*/5 * * * *"}, {"schedule": "*/5 * * * *"}),
    ],
)  # fmt: skip
def test_times_become_a_trigger(kind: TriggerType, times: dict[str, Any], trigger: dict[str, Any]) -> None:
    """In the zone of the scheduler; what is left out is that of run_date."""
    assert _make(kind, **times) == {**trigger, "timezone": "Europe/Oslo"}


@pytest.mark.parametrize(
    ("interval", "every"),
    [
        (timedelta(minutes=5), "5m"), (300, "5m"), (300.0, "5m"), (1, "1s"), (420, "7m"),
        (timedelta(days=2), "2d"), (timedelta(days=366), "52w2d"),
    ],
)  # fmt: skip
def test_an_interval_has_no_zone(interval: Any, every: str) -> None:
    """It is a timedelta, or seconds, and need not divide anything."""
    assert _make(INTERVAL, interval=interval) == {"every": every}


@pytest.mark.parametrize(
    ("kind", "times", "message"),
    [
        (DAILY, {}, "a job that comes daily: hour is missing"),
        (DAILY, {"minute": 5}, "hour is missing"),
        (DAILY, {"hour": 24}, "hour is 24: give a whole number from 0 to 23"),
        (DAILY, {"hour": "8"}, "hour is '8'"),
        (DAILY, {"hour": True}, "hour is True"),
        (DAILY, {"hour": 8, "minute": 60}, "minute is 60"),
        (DAILY, {"hour": 8, "day": 1}, "day does not go with it"),
        (DAILY, {"hour": 8, "interval": 5, "cron_expression": "* * * * *"}, "2 problems"),
        (DAILY, {"hour": 8, "run_date": NOW + timedelta(days=2)}, "it begins at the next of its times"),
        (WEEKLY, {"hour": 8}, "day_of_week is missing"),
        (WEEKLY, {"hour": 8, "day_of_week": 7}, "day_of_week has 7"),
        (WEEKLY, {"hour": 8, "day_of_week": "someday"}, "day_of_week has 'someday'"),
        (WEEKLY, {"hour": 8, "day_of_week": "mon-"}, "day_of_week has ''"),
        (WEEKLY, {"hour": 8, "day_of_week": []}, "no day"),
        (WEEKLY, {"hour": 8, "day_of_week": [None]}, "day_of_week has None"),
        (MONTHLY, {"hour": 8}, "day is missing"),
        (MONTHLY, {"hour": 8, "day": 0}, "day is 0"),
        (MONTHLY, {"hour": 8, "day": "first"}, "day is 'first'"),
        (INTERVAL, {}, "interval is missing"),
        (INTERVAL, {"interval": "5m"}, "interval is missing"),
        (INTERVAL, {"interval": float("nan")}, "interval is missing"),
        (MONTHLY, {"hour": 8, "day": "first"}, 'or a weekday such as "second tue"'),
        (MONTHLY, {"hour": 8, "day": 4.0}, "day is 4.0"),
        (MONTHLY, {"hour": 8, "day": True}, "day is True"),
        (INTERVAL, {"interval": 0.5}, "interval is 0.5: a second is the shortest"),
        (INTERVAL, {"interval": -5}, "interval is -5: a second is the shortest"),
        (INTERVAL, {"interval": 1.5}, "below a minute an interval is whole seconds"),
        (INTERVAL, {"interval": 90}, "interval is 90: above a minute an interval is whole minutes"),
        (INTERVAL, {"interval": timedelta(days=367)}, "366 days are the longest"),
        (INTERVAL, {"interval": 1e300}, "366 days are the longest"),
        (CRON, {}, "cron_expression is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(kind: TriggerType, times: dict[str, Any], message: str) -> None:
    """All of it, with what to give."""
    with pytest.raises(InvalidInputError) as caught:
        _make(kind, **times)
    assert message in str(caught.value)


def test_a_run_date_of_today_is_no_first_date() -> None:
    """A naive one can be hours ahead of UTC, and says nothing but a time of day."""
    assert _make(DAILY, run_date=NOW + timedelta(hours=14))["daily"] == "06:30"


def test_an_instant_without_a_zone_is_in_that_of_the_scheduler() -> None:
    """One that has a zone keeps it."""
    assert read_instant(datetime(2026, 7, 1, 14), OSLO, "run_at") == datetime(2026, 7, 1, 12, tzinfo=UTC)  # noqa: DTZ001 - it is the subject
    assert read_instant(NOW, OSLO, "run_at") is NOW
    with pytest.raises(InvalidInputError, match="run_at is of the class str: give a datetime"):
        read_instant("now", OSLO, "run_at")  # type: ignore[arg-type]


def test_a_zone_has_a_name() -> None:
    """An unknown one is refused."""
    assert find_zone("Europe/Oslo") == OSLO
    for name in ("Mars", "", "/etc", None):
        with pytest.raises(InvalidInputError, match="there is no time zone"):
            find_zone(name)  # type: ignore[arg-type]


def test_settings_become_those_of_a_queue() -> None:
    """A retry is a try more; without retries there is one try."""
    assert SchedulerConfig(max_retries=5, cleanup_after_days=10).declare_queue() == {
        "max_attempts": 6, "retention": "1w3d", "keep_failed": "1w3d",
    }  # fmt: skip
    assert SchedulerConfig(retry_failed_jobs=False).max_attempts == 1
    for wrong in (
        {"max_retries": -1},
        {"max_retries": True},
        {"cleanup_after_days": 0},
        {"cleanup_after_days": "7"},
    ):
        with pytest.raises(InvalidInputError, match="SchedulerConfig: "):
            SchedulerConfig(**wrong)
