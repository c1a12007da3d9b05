from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import Timing, make_entry_timing
from reconciler.core.times.upcoming import COUNTED, find_upcoming, is_frequent

if TYPE_CHECKING:
    from reconciler.core.times.upcoming import Upcoming

_NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
_DAY = timedelta(days=1)


def _entry(name: str, schedule: str = "0 * * * *", **fields: Any) -> Scheduled:
    timing = fields.pop("timing", None) or make_entry_timing(schedule, "GMT")
    return Scheduled(**{"name": name, "kind": "job", "timing": timing, "schedule": schedule, **fields})


def _find(*table: Scheduled, until: timedelta = _DAY, count: int = 50, **options: Any) -> Upcoming:
    return find_upcoming(table, now=_NOW, end=_NOW + until, count=count, **options)


def _show(found: Upcoming) -> list[str]:
    return [f"{at:%d %R} {each.name}" for at, each in found.runs]


def test_the_runs_of_all_come_in_the_order_of_time() -> None:
    """At one moment by name, whatever their timings."""
    found = _find(_entry("c"), _entry("b", "0,30 * * * *"), _entry("a"), until=timedelta(hours=1))
    assert _show(found) == ["21 10:30 b", "21 11:00 a", "21 11:00 b", "21 11:00 c"]
    assert (found.more, found.idle, found.frequent) == (0, (), ())


def test_what_is_beyond_the_wanted_number_is_counted() -> None:
    """Unless nobody wants to know."""
    assert (_find(_entry("a"), count=5).more, _find(_entry("a"), count=5, counts_more=False).more) == (19, 0)


def test_counting_ends_somewhere() -> None:
    """A list of centuries is not counted to its end."""
    table = [_entry(f"job-{number}") for number in range(30)]
    assert _find(*table, until=timedelta(days=3660), count=1).more == COUNTED


def test_two_of_one_name_are_both_there() -> None:
    """Entries that nobody declared may share a name with a job."""
    found = _find(_entry("a"), _entry("a", kind="entry"), until=timedelta(hours=1))
    assert _show(found) == ["21 11:00 a", "21 11:00 a"]


@pytest.mark.parametrize(
    ("timing", "frequent"),
    [
        (make_entry_timing("* * * * *", "GMT"), True),
        (make_entry_timing("*/5 * * * *", "GMT"), True),
        (make_entry_timing("*/10 * * * *", "GMT"), False),
        (make_entry_timing("30 seconds", "GMT"), True),
        (make_entry_timing("@reboot", "GMT"), False),
        (Timing(zone="GMT", interval=timedelta(minutes=5)), True),
        (Timing(zone="GMT", interval=timedelta(minutes=7)), False),
        (Timing(zone="GMT", once=_NOW), False),
    ],
)
def test_what_comes_every_five_minutes_is_frequent(timing: Timing, frequent: bool) -> None:
    """It would flood any list."""
    assert is_frequent(timing) is frequent


def test_what_is_frequent_is_summed_up() -> None:
    """It is listed only where somebody asks for it by name."""
    table = (_entry("a", "* * * * *"), _entry("b"))
    found = _find(*table, until=timedelta(hours=1))
    assert _show(found) == ["21 11:00 b"]
    assert [each.name for each in found.frequent] == ["a"]
    assert len(_find(*table, until=timedelta(minutes=30), lists_all=True).runs) == 30


@pytest.mark.parametrize(
    ("each", "why"),
    [
        (_entry("a", active=False), "inactive"),
        (_entry("a", paused=True), "paused"),
        (_entry("a", paused=True, paused_until=_NOW + 2 * _DAY), "paused"),
        (_entry("a", timing=Timing(zone="GMT", rule=parse_rule("0 * * * *"), end_at=_NOW)), "ended"),
        (_entry("a", schedule="", timing=Timing(zone="GMT", once=_NOW)), "ended"),
        (_entry("a", schedule="", timing=make_entry_timing("0 * * * *", "GMT")), "no_entry"),
        (_entry("a", "@reboot"), "start"),
    ],
)
def test_what_does_not_run_is_said_to_be_so(each: Scheduled, why: str) -> None:
    """With the reason, and no run."""
    found = _find(each)
    assert [(idle.scheduled, idle.why, idle.runs_at) for idle in found.idle] == [(each, why, None)]
    assert (found.runs, found.more) == ((), 0)


def test_a_pause_that_ends_leaves_the_runs_after_it() -> None:
    """Also a run at the moment at which it ends; the pause is said all the same."""
    found = _find(_entry("a", paused=True, paused_until=_NOW + timedelta(hours=3)), until=timedelta(hours=4))
    assert _show(found) == ["21 13:00 a", "21 14:00 a"]
    assert [idle.why for idle in found.idle] == ["paused"]


def test_a_pause_that_has_ended_hides_nothing() -> None:
    """The database forgets it at its next run."""
    found = _find(_entry("a", paused=True, paused_until=_NOW - _DAY), until=timedelta(hours=1))
    assert _show(found) == ["21 11:00 a"]


def test_one_time_jobs_are_listed() -> None:
    """They need no entry."""
    found = _find(_entry("a", schedule="", timing=Timing(zone="GMT", once=_NOW + timedelta(hours=1))))
    assert _show(found) == ["21 11:00 a"]


def test_what_is_named_and_does_not_run_in_time_says_when_it_does() -> None:
    """Or that it never does."""
    later = _entry("a", "0 0 1 1 *")
    never = _entry("b", timing=Timing(zone="GMT", interval=_DAY, end_at=_NOW + timedelta(minutes=1)))
    found = _find(later, never, lists_all=True)
    assert [(idle.why, idle.runs_at) for idle in found.idle] == [
        ("later", datetime(2027, 1, 1, tzinfo=UTC)),
        ("ended", None),
    ]
    assert _find(later, never).idle == ()
