"""What a declaration means in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.core.specs import (
    Blackout,
    Daily,
    Every,
    Monthly,
    Once,
    Schedule,
    Succeeded,
    Trigger,
    Weekly,
    WorkerSpec,
)
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.timings import (
    Timing,
    divides_evenly,
    find_shift,
    make_entry_timing,
    make_even_rule,
    make_timing,
)
from tests.core_builders import PLACE, make_job

_AT = datetime(2026, 12, 1, 7, 30, tzinfo=UTC)
_NIGHT = Blackout(start=22 * 60, end=6 * 60)


def _make(trigger: Trigger, **changed: Any) -> Timing:
    timing = make_timing(make_job("a", trigger=trigger, **changed), "Europe/London")
    assert timing is not None
    return timing


def _choices(timing: Timing) -> tuple[str, str]:
    return timing.ambiguous, timing.nonexistent


@pytest.mark.parametrize(
    ("trigger", "text", "choices"),
    [
        (Daily(hour=2, minute=30), "30 2 * * *", ("first", "next")),
        (Weekly(days=(1,), hour=2, minute=30), "30 2 * * 1", ("first", "next")),
        (Monthly(day="last", hour=2, minute=30), "30 2 $ * *", ("first", "next")),
        (Every(interval=timedelta(minutes=15)), "*/15 * * * *", ("both", "skip")),
        (Every(interval=timedelta(hours=6)), "0 */6 * * *", ("both", "skip")),
        (Every(interval=timedelta(days=1)), "0 0 * * *", ("both", "skip")),
        (Schedule(text="30 2 * * *"), "30 2 * * *", ("both", "skip")),
    ],
)
def test_without_a_zone_the_servers_counts(trigger: Trigger, text: str, choices: tuple[str, str]) -> None:
    """Times of the day come once each day; intervals and pg_cron's own schedules do as pg_cron does."""
    timing = _make(trigger)
    assert timing.rule == parse_rule(text)
    assert timing.zone == "Europe/London"
    assert _choices(timing) == choices


@pytest.mark.parametrize(
    ("changed", "choices"),
    [
        ({"timezone": "Europe/Oslo"}, ("first", "next")),
        ({"timezone": "Europe/Oslo", "ambiguous": "last"}, ("last", "next")),
        ({"nonexistent": "skip"}, ("first", "skip")),
        ({"ambiguous": "both"}, ("both", "next")),
    ],
)
def test_a_schedule_with_a_zone_or_a_choice_is_a_local_time(
    changed: dict[str, Any], choices: tuple[str, str]
) -> None:
    """What is not chosen is as usual for times of the day."""
    assert _choices(_make(Schedule(text="30 2 * * *"), **changed)) == choices


@pytest.mark.parametrize("text", ["0 * * * *", "*/7 * * * 1", "@hourly"])
def test_what_comes_each_hour_keeps_its_pace(text: str) -> None:
    """Twice in an hour that is there twice, and not in one that is not there; unless chosen."""
    assert _choices(_make(Schedule(text=text), timezone="Europe/Oslo")) == ("both", "skip")
    assert _choices(_make(Schedule(text=text), nonexistent="next")) == ("both", "next")


@pytest.mark.parametrize("minutes", [7, 45, 90, 300, 2880, 20_160])
def test_an_odd_interval_counts_from_the_epoch(minutes: int) -> None:
    """Or from its start, whatever the interval."""
    timing = _make(Every(interval=timedelta(minutes=minutes)))
    assert timing.rule is None
    assert (timing.interval, timing.anchor) == (timedelta(minutes=minutes), datetime(1970, 1, 1, tzinfo=UTC))
    assert _make(Every(interval=timedelta(minutes=minutes)), start_at=_AT).anchor == _AT


def test_an_even_interval_counts_from_its_start_where_it_has_one() -> None:
    """Else from the hour or the midnight of the server."""
    timing = _make(Every(interval=timedelta(hours=1)), start_at=_AT)
    assert (timing.rule, timing.interval, timing.anchor) == (None, timedelta(hours=1), _AT)


@pytest.mark.parametrize("trigger", [Every(interval=timedelta(seconds=30)), Schedule(text="30 SECONDS")])
def test_seconds_are_pg_crons(trigger: Trigger) -> None:
    """They have no rule and no interval, whenever they start."""
    timing = _make(trigger, start_at=_AT)
    assert (timing.seconds, timing.rule, timing.interval) == (30, None, timedelta(0))


def test_starts_of_the_launcher_are_no_times() -> None:
    """The word alone is kept."""
    timing = _make(Schedule(text="@reboot"))
    assert (timing.word, timing.rule, timing.text) == ("@reboot", None, "@reboot")


def test_a_blackout_is_meant_in_the_zone_of_the_job() -> None:
    """Also where an interval counts in the server's."""
    zoned = {"timezone": "Europe/Oslo", "blackout": (_NIGHT,)}
    even = _make(Every(interval=timedelta(hours=1)), **zoned)
    assert (even.zone, even.blackout_zone) == ("Europe/London", "Europe/Oslo")
    for trigger in (Every(interval=timedelta(hours=5)), Daily(hour=1, minute=0)):
        odd = _make(trigger, **zoned)
        assert (odd.zone, odd.blackout_zone) == ("Europe/Oslo", "")
    assert _make(Daily(hour=1, minute=0), blackout=(_NIGHT,)).blackout_zone == ""


@pytest.mark.parametrize(
    ("changed", "has"),
    [({}, False), ({"start_at": _AT}, True), ({"end_at": _AT}, True), ({"blackout": (_NIGHT,)}, True)],
)
def test_windows_are_kept_and_limit(changed: dict[str, Any], has: bool) -> None:
    """A start, an end or a blackout leaves runs out."""
    timing = _make(Daily(hour=1, minute=0), **changed)
    assert timing.has_limits is has
    assert (timing.start_at, timing.end_at, timing.blackout) == (
        changed.get("start_at"),
        changed.get("end_at"),
        changed.get("blackout", ()),
    )


def test_one_time_jobs_have_their_instant_and_followers_nothing() -> None:
    """Who only follows others has no timing at all."""
    assert _make(Once(at=_AT)) == Timing(zone="Europe/London", once=_AT)
    assert make_timing(make_job("a", trigger=Succeeded()), "GMT") is None


def test_entries_and_workers_are_as_pg_cron_reads_them() -> None:
    """In the server's zone, with every occurrence and none made up for."""
    worker = WorkerSpec(name="w", place=PLACE, document="{}", schedule="*/5 * * * *", queue="q")
    timing = make_timing(worker, "Europe/Oslo")
    assert timing == make_entry_timing("*/5 * * * *", "Europe/Oslo")
    assert timing == Timing(zone="Europe/Oslo", rule=parse_rule("*/5 * * * *"), text="*/5 * * * *")
    assert make_entry_timing("05 seconds", "GMT") == Timing(zone="GMT", seconds=5, text="05 seconds")
    with pytest.raises(ValueError, match="cannot be read"):
        make_entry_timing("61 * * * *", "GMT")


@pytest.mark.parametrize(
    ("name", "spread", "minutes"),
    [
        ("a", timedelta(0), 0),
        ("a", timedelta(minutes=2), 0),
        ("billing.reports", timedelta(minutes=30), 13),
        ("a", timedelta(hours=24), 970),
        ("b", timedelta(hours=24), 106),
        ("größe", timedelta(hours=24), 639),
    ],
)
def test_a_spread_puts_a_job_off_by_its_name(name: str, spread: timedelta, minutes: int) -> None:
    """The first eight bytes of the name's SHA-256, modulo the minutes: the database computes the same."""
    assert find_shift(name, spread) == timedelta(minutes=minutes)
    job = make_job(name if name.isascii() else "a", trigger=Daily(hour=1, minute=0), spread=spread)
    timing = make_timing(job, "GMT")
    assert timing is not None
    assert timing.shift == find_shift(job.name, spread)


@pytest.mark.parametrize(
    ("interval", "evenly"),
    [
        (timedelta(minutes=1), True), (timedelta(minutes=30), True), (timedelta(hours=1), True),
        (timedelta(hours=8), True), (timedelta(days=1), True), (timedelta(0), False),
        (timedelta(seconds=30), False), (timedelta(seconds=90), False), (timedelta(minutes=7), False),
        (timedelta(minutes=90), False), (timedelta(hours=5), False), (timedelta(days=2), False),
        (timedelta(minutes=1, milliseconds=1), False),
    ],
)  # fmt: skip
def test_an_interval_fits_evenly_or_not(interval: timedelta, evenly: bool) -> None:
    """Into an hour, or in whole hours into a day."""
    assert divides_evenly(interval) is evenly
    if evenly:
        rule = make_even_rule(interval)
        assert len(rule.times) == timedelta(days=1) / interval
        assert rule.is_each_day
