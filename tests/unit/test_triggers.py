"""Timings compiled to pg_cron's grammar: nothing wanted is left out, and as little as can be is added."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.schedules import find_problem, next_runs
from reconciler.core.specs import (
    Blackout,
    Daily,
    Every,
    Monthly,
    NthWeekday,
    Once,
    Schedule,
    Trigger,
    Weekly,
)
from reconciler.core.times.clock_pairs import pair_clocks
from reconciler.core.times.clocks import Clock, to_seconds
from reconciler.core.times.dialects import Dialect, dialect_for
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.occurrences import clock_of, find_runs, find_runs_between
from reconciler.core.times.timings import Timing, make_entry_timing, make_timing
from reconciler.core.times.triggers import CompiledSchedule, compile_every, compile_timing
from tests.core_builders import make_job
from tests.schedule_texts import sound_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_OLD = dialect_for((1, 4, 0))
_NEW = dialect_for((1, 6, 5))
_UNHURRIED = settings(deadline=None, database=None)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_ZONES = (
    "GMT", "Europe/Oslo", "Europe/London", "Europe/Dublin", "America/New_York", "America/Chicago",
    "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham",
    "Africa/Casablanca", "Africa/Cairo", "America/Havana", "Asia/Gaza", "Pacific/Kiritimati",
    "Pacific/Pago_Pago", "Antarctica/Troll",
)  # fmt: skip


def _clocks(*zones: str) -> dict[str, Clock]:
    """Give what the clocks do from 2026 on."""
    return {zone: clock_of(zone).since(to_seconds(_START)) for zone in zones}


def _timing(trigger: Trigger, zone: str = "", server: str = "GMT", **changed: Any) -> Timing:
    timing = make_timing(make_job("a", trigger=trigger, timezone=zone, **changed), server)
    assert timing is not None
    return timing


def _compile(timing: Timing, server: str = "GMT", dialect: Dialect = _NEW) -> CompiledSchedule:
    clocks = _clocks(timing.zone, server)
    return compile_timing(timing, server_zone=server, clocks=clocks, dialect=dialect)


# --- what people write ---

_DAILY, _EIGHT = Daily(hour=2, minute=30), Daily(hour=8, minute=0)
_MONTHLY = Monthly(day="last", hour=8, minute=0)


@pytest.mark.parametrize(
    ("trigger", "zone", "server", "text", "exact"),
    [
        (Schedule(text="@hourly"), "", "Europe/Oslo", "@hourly", True),
        (Every(interval=timedelta(seconds=1)), "", "GMT", "1 second", True),
        (Every(interval=timedelta(seconds=59)), "", "GMT", "59 seconds", True),
        (Every(interval=timedelta(minutes=1)), "", "Europe/Oslo", "* * * * *", True),
        (Every(interval=timedelta(minutes=15)), "", "GMT", "*/15 * * * *", True),
        (Every(interval=timedelta(hours=1)), "", "GMT", "0 * * * *", True),
        (Every(interval=timedelta(hours=12)), "", "Europe/Oslo", "0 */12 * * *", True),
        (Every(interval=timedelta(days=1)), "", "GMT", "0 0 * * *", True),
        (Every(interval=timedelta(minutes=90)), "", "GMT",
         "*/30 0,1,3,4,6,7,9,10,12,13,15,16,18,19,21,22 * * *", False),
        (Every(interval=timedelta(hours=5)), "", "GMT", "0 * * * *", False),
        (Every(interval=timedelta(days=2)), "", "GMT", "0 0 * * *", False),
        (Every(interval=timedelta(weeks=1)), "", "GMT", "0 0 * * 4", True),
        (Every(interval=timedelta(weeks=2)), "", "GMT", "0 0 * * 4", False),
        (Every(interval=timedelta(weeks=2)), "", "America/New_York", "0 19,20 * * 3", False),
        (_DAILY, "", "GMT", "30 2 * * *", True),
        (_DAILY, "Etc/UTC", "GMT", "30 2 * * *", True),
        (_DAILY, "Europe/Oslo", "GMT", "*/30 0,1 * * *", False),
        (_EIGHT, "Europe/Oslo", "GMT", "0 6,7 * * *", False),
        (_EIGHT, "Asia/Kolkata", "GMT", "30 2 * * *", True),
        (_EIGHT, "Europe/London", "Europe/Oslo", "0 9 * * *", True),
        (_EIGHT, "America/Chicago", "America/New_York", "0 9 * * *", True),
        (_EIGHT, "Europe/Oslo", "America/New_York", "0 2,3 * * *", False),
        (_EIGHT, "Europe/Oslo", "Europe/Oslo", "0 8 * * *", True),
        (_EIGHT, "", "Europe/Oslo", "0 8 * * *", True),
        (_DAILY, "Europe/Oslo", "Europe/Oslo", "*/30 2,3 * * *", False),
        (_DAILY, "", "Europe/Oslo", "*/30 2,3 * * *", False),
        (Schedule(text="30 2 * * *"), "", "Europe/Oslo", "30 2 * * *", True),
        (Schedule(text="0 * * * *"), "Europe/Oslo", "GMT", "0 * * * *", True),
        (Schedule(text="0 * * * *"), "Asia/Kolkata", "GMT", "30 * * * *", True),
        (Schedule(text="0  8 * JAN 1"), "Etc/GMT", "GMT", "0  8 * JAN 1", True),
        (Schedule(text="0 8 13 * 5"), "Asia/Tokyo", "GMT", "0 23 12 * 4", True),
        (Schedule(text="0 12 13 6 *"), "Asia/Tokyo", "GMT", "0 3 13 6 *", True),
        (Schedule(text="0 2 * 6 *"), "Asia/Tokyo", "GMT", "0 17 * 5,6 *", False),
        (Schedule(text="30 2 1 * 1"), "Europe/Oslo", "Europe/Oslo", "*/30 2,3 1 * 1", False),
        (Schedule(text="0 2 * 6 1"), "Asia/Tokyo", "GMT", "0 17 * 5,6 0", False),
        (Schedule(text="0 2 */2 * 1"), "Asia/Tokyo", "GMT", "0 17 * * 0", False),
        (Schedule(text="0 2 13 * 1-6"), "Europe/Oslo", "GMT", "0 0,1 13 * 1-6", False),
        (Schedule(text="0 1 13 * 1-6"), "Europe/Oslo", "GMT", "0 0,23 * * *", False),
        (Schedule(text="0 1 1-31/2 * 1"), "Europe/Oslo", "GMT", "0 0,23 * * *", False),
        (Schedule(text="0 1 1,15 3 *"), "Asia/Tokyo", "GMT", "0 16 14,28,29 2,3 *", False),
        (Schedule(text="0 1 1 3 *"), "Asia/Tokyo", "GMT", "0 16 $ 2 *", True),
        (Schedule(text="0 22 29 2 *"), "America/Bogota", "GMT", "0 3 1 3 *", False),
        (Weekly(days=(1,), hour=0, minute=30), "Europe/Oslo", "GMT", "30 22,23 * * 0", False),
        (Weekly(days=(1,), hour=0, minute=30), "Asia/Kolkata", "GMT", "0 19 * * 0", True),
        (Weekly(days=(1,), hour=2, minute=30), "Europe/Oslo", "GMT", "30 0,1 * * 1", False),
        (Weekly(days=(1,), hour=2, minute=30), "Europe/Oslo", "Europe/Oslo", "30 2 * * 1", True),
        (Weekly(days=(0,), hour=2, minute=30), "Europe/Oslo", "Europe/Oslo", "*/30 2,3 * * 0", False),
        (Monthly(day=15, hour=4, minute=5), "", "GMT", "5 4 15 * *", True),
        (Monthly(day=1, hour=0, minute=30), "Europe/Oslo", "GMT", "30 22,23 $ * *", False),
        (Monthly(day=1, hour=0, minute=30), "Asia/Kolkata", "GMT", "0 19 $ * *", True),
        (Monthly(day=31, hour=23, minute=0), "America/Bogota", "GMT", "0 4 1 1,2,4,6,8,9,11 *", True),
        (_MONTHLY, "", "GMT", "0 8 $ * *", True),
        (_MONTHLY, "Europe/Oslo", "GMT", "0 6,7 $ * *", False),
        (Monthly(day="last", hour=23, minute=0), "America/Bogota", "GMT", "0 4 1 * *", True),
        (Monthly(day=NthWeekday(weekday=1, nth=1), hour=8, minute=0), "", "GMT", "0 8 * * 1", False),
        (Monthly(day=NthWeekday(weekday=1, nth=1), hour=0, minute=30), "Europe/Oslo", "GMT",
         "30 22,23 * * 0", False),
    ],
)  # fmt: skip
def test_triggers_become_schedules(trigger: Trigger, zone: str, server: str, text: str, exact: bool) -> None:
    """Each has its text in pg_cron's grammar and in the server's zone, as narrow as five fields can be."""
    compiled = _compile(_timing(trigger, zone, server), server)
    assert compiled == CompiledSchedule(text=text, exact=exact)


@pytest.mark.parametrize(
    ("trigger", "zone", "text", "exact"),
    [
        (_MONTHLY, "", "0 8 28-31 * *", False),
        (Monthly(day=1, hour=0, minute=30), "Asia/Kolkata", "0 19 28-31 * *", False),
        (Monthly(day="last", hour=23, minute=0), "America/Bogota", "0 4 1 * *", True),
        (Schedule(text="0 23 30 1 *"), "America/Bogota", "0 4 31 1 *", True),
    ],
)
def test_the_last_day_needs_a_guard_where_pg_cron_has_none(
    trigger: Trigger, zone: str, text: str, exact: bool
) -> None:
    """Before 1.6 the entry comes on each day that may be the last."""
    assert _compile(_timing(trigger, zone), dialect=_OLD) == CompiledSchedule(text=text, exact=exact)


@pytest.mark.parametrize(
    ("changed", "text", "exact"),
    [
        ({"ambiguous": "both"}, "*/30 2,3 * * *", False),
        ({"nonexistent": "skip"}, "30 2 * * *", False),
        ({"ambiguous": "both", "nonexistent": "skip"}, "30 2 * * *", True),
        ({"spread": timedelta(minutes=30)}, "10,40 2,3 * * *", False),
    ],
)
def test_what_clock_changes_do_widens_a_schedule(changed: dict[str, Any], text: str, exact: bool) -> None:
    """What pg_cron does by itself needs nothing more."""
    timing = _timing(_DAILY, "Europe/Oslo", "Europe/Oslo", **changed)
    assert _compile(timing, "Europe/Oslo") == CompiledSchedule(text=text, exact=exact)


@pytest.mark.parametrize(
    "changed",
    [
        {"start_at": _START},
        {"end_at": _START},
        {"blackout": (Blackout(start=0, end=60),)},
    ],
)
@pytest.mark.parametrize(
    "trigger",
    [_DAILY, Schedule(text="@reboot"), Schedule(text="30 2 * * *"), Every(interval=timedelta(seconds=30))],
)
def test_a_window_is_never_exact(trigger: Trigger, changed: dict[str, Any]) -> None:
    """pg_cron knows of none."""
    assert _compile(_timing(trigger)).exact
    assert not _compile(_timing(trigger, **changed)).exact


def test_an_interval_begins_at_the_minute_after_its_start() -> None:
    """pg_cron looks once a minute."""
    start = datetime(2026, 1, 1, 5, 30, 1, tzinfo=UTC)
    assert _compile(_timing(Every(interval=timedelta(hours=6)), start_at=start)).text == "31 5,11,17,23 * * *"


# --- what cannot be done ---


@pytest.mark.parametrize("trigger", [Schedule(text="30 seconds"), Every(interval=timedelta(seconds=30))])
def test_seconds_need_a_newer_pg_cron(trigger: Trigger) -> None:
    """1.4 does not know them."""
    compiled = _compile(_timing(trigger), dialect=_OLD)
    assert compiled.text == ""
    assert "needs pg_cron 1.5 or later" in compiled.problem


def test_a_zone_that_the_server_does_not_know_is_a_problem() -> None:
    """Nothing is guessed; pg_cron's own schedules need no zone to be known."""
    timing = _timing(_DAILY, "Europe/Oslo")
    compiled = compile_timing(timing, server_zone="GMT", clocks={}, dialect=_NEW)
    assert compiled.text == ""
    assert "no time zone 'Europe/Oslo'" in compiled.problem
    compiled = compile_timing(timing, server_zone="Mars/Olympus", clocks=_clocks("Europe/Oslo"), dialect=_NEW)
    assert "no time zone 'Mars/Olympus'" in compiled.problem
    own = _timing(Schedule(text="0 8 * * *"), "", "Mars/Olympus")
    assert compile_timing(own, server_zone="Mars/Olympus", clocks={}, dialect=_NEW).text == "0 8 * * *"


def test_one_instant_has_no_schedule() -> None:
    """One-time jobs have no entry and never reach this function."""
    with pytest.raises(ValueError, match="one instant"):
        _compile(_timing(Once(at=_START)))


@pytest.mark.parametrize(
    "interval",
    [
        timedelta(0),
        timedelta(seconds=90),
        timedelta(minutes=7),
        timedelta(hours=5),
        timedelta(days=2),
        timedelta(milliseconds=1500),
    ],
)
def test_an_uneven_interval_from_nowhere_is_refused(interval: timedelta) -> None:
    """Nobody keeps it who does not know since when it counts; who asks for it has to have looked."""
    with pytest.raises(ValueError, match="uneven"):
        compile_every(interval, _NEW)


def test_an_interval_of_seconds_needs_a_pg_cron_that_knows_seconds() -> None:
    """Before 1.5 there is no schedule for it, and the problem says so."""
    compiled = compile_every(timedelta(seconds=30), _OLD)
    assert compiled.text == ""
    assert "needs pg_cron 1.5 or later" in compiled.problem


_SECONDS = st.sampled_from([1, 59, 60, 120, 1800, 3600, 7200, 43_200, 86_400]) | st.integers(1, 90_000)


@settings(_UNHURRIED)
@given(_SECONDS.map(lambda seconds: timedelta(seconds=seconds)))
def test_an_interval_that_compiles_is_even_and_sound(interval: timedelta) -> None:
    """Whatever text comes out is read by pg_cron as meant, and its runs are as far apart as was declared."""
    try:
        compiled = compile_every(interval, _NEW)
    except ValueError:
        assert interval > timedelta(minutes=1)
        return
    assert find_problem(compiled.text, _NEW) is None
    start = datetime(2026, 3, 3, tzinfo=UTC)
    runs = next_runs(compiled.text, after=start, count=30, zone="UTC", dialect=_NEW)
    assert {later - earlier for earlier, later in pairwise(runs)} == {interval}


@pytest.mark.parametrize(
    ("declared", "server", "same"),
    [
        ("Europe/Oslo", "Europe/Oslo", True),
        ("UTC", "GMT", True),
        ("Etc/UTC", "", True),
        ("Europe/Oslo", "GMT", False),
        ("UTC", "Europe/Oslo", False),
    ],
)
def test_zones_are_the_same_by_name_or_because_both_are_utc(declared: str, server: str, same: bool) -> None:
    """What pg_cron does by itself there goes to it to the letter, and else is worked out from the clocks."""
    timing = replace(make_entry_timing("0 8 $ * *", declared), ambiguous="both", nonexistent="skip")
    compiled = compile_timing(timing, server_zone=server, clocks=_clocks("Europe/Oslo"), dialect=_OLD)
    assert (compiled.text == timing.text) is same


# --- any timing on any server ---


def _draw_trigger(chance: Random) -> Trigger:
    hour, minute = chance.choice((0, 1, 2, 3, chance.randrange(24), 23)), chance.choice((0, 15, 30, 59))
    match chance.randrange(8):
        case 0:
            return Daily(hour=hour, minute=minute)
        case 1:
            days = tuple(sorted(chance.sample(range(7), chance.choice((1, 1, 2, 6)))))
            return Weekly(days=days, hour=hour, minute=minute)
        case 2:
            return Monthly(day=chance.choice((1, 2, 15, 28, 29, 30, 31, "last")), hour=hour, minute=minute)
        case 3:
            day = NthWeekday(weekday=chance.randrange(7), nth=chance.choice((1, 2, 3, 4, 5, -1)))
            return Monthly(day=day, hour=hour, minute=minute)
        case 4:
            return Every(interval=timedelta(minutes=chance.choice((7, 45, 90, 300, 2880, 10_080, 20_160))))
        case 5:
            texts = (
                "0 * * * *",
                "*/20 * * * 0",
                "0 1-3 * * *",
                "*/30 2 29 2 *",
                "15 0,23 1 1,3 *",
                "0 0 31 1 *",
            )
            return Schedule(text=chance.choice(texts))
        case 6:
            texts = (
                "0 0 13 * 5",
                "30 2 */7 * 0",
                "0 23 $ * 1",
                "0 1 1 * */2",
                "0 0 $ 2 *",
                "30 2 25-31 3 */7",
            )
            return Schedule(text=chance.choice(texts))
        case _:
            return Schedule(text=sound_text(chance))


def _draw(seed: int) -> tuple[Timing, str, Dialect]:
    """Draw a timing, the zone of a server and what it reads."""
    chance = Random(seed)
    while True:
        trigger = _draw_trigger(chance)
        dialect = chance.choice((_OLD, _NEW))
        # Nobody compiles what is refused before.
        if not isinstance(trigger, Schedule) or find_problem(trigger.text, dialect) is None:
            break
    server = chance.choice(("GMT", "GMT", *_ZONES))
    spread = timedelta(minutes=chance.choice((0, 0, 0, 17, 60, 200, 1440)))
    timing = _timing(
        trigger,
        chance.choice(("", *_ZONES)),
        server,
        spread=spread,
        ambiguous=chance.choice(("", "", "first", "last", "both")),
        nonexistent=chance.choice(("", "", "next", "skip")),
    )
    return timing, server, dialect


def _list_stretches(timing: Timing, server: str) -> list[tuple[datetime, datetime]]:
    """Give all of four years; of what comes often the days around changes, New Year and a leap day."""
    end = datetime(2030, 1, 3, tzinfo=UTC)
    runs = len(timing.rule.times) if timing.rule else timedelta(days=1) / timing.interval
    if runs <= 4:
        return [(_START, end)]
    changes = {change for clock in _clocks(timing.zone, server).values() for change in clock.changes}
    days = [datetime.fromtimestamp(change, UTC) for change in sorted(changes)[:6]]
    days += [datetime(2027, 12, 31, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC)]
    return [(day - timedelta(days=2), day + timedelta(days=2)) for day in days]


def _has_extra(timing: Timing, entry: Timing, stretches: Iterable[tuple[datetime, datetime]]) -> bool:
    """Tell whether an entry fires when nothing is wanted; fail where it does not when something is."""
    has_extra = False
    for after, until in stretches:
        wanted = set(find_runs_between(timing, after=after, until=until))
        fires = set(find_runs_between(entry, after=after, until=until))
        assert wanted <= fires
        has_extra = has_extra or wanted != fires
    return has_extra


@settings(_UNHURRIED, max_examples=800)
@given(st.integers(0, 2**64 - 1).map(_draw))
def test_the_schedule_of_any_timing_has_all_that_is_wanted(drawn: tuple[Timing, str, Dialect]) -> None:
    """It is sound for its pg_cron; where it is called exact it has nothing else, and where not it has."""
    timing, server, dialect = drawn
    compiled = _compile(timing, server, dialect)
    assert compiled.problem == ""
    assert find_problem(compiled.text, dialect) is None
    entry = make_entry_timing(compiled.text, server)
    has_extra = _has_extra(timing, entry, _list_stretches(timing, server))
    if compiled.exact:
        assert not has_extra
    elif timing.rule is not None and timing.rule.is_each_day:
        assert has_extra


@pytest.mark.parametrize("shift", [0, 60, 200])
def test_pairs_of_clocks_are_few(shift: int) -> None:
    """A century of changes is a handful of spans and turns."""
    oslo, york = (clock_of(zone) for zone in ("Europe/Oslo", "America/New_York"))
    pair = pair_clocks(york, oslo, shift)
    assert len(york.changes) + len(oslo.changes) > 400
    assert len(pair.spans) + len(pair.gaps) + len(pair.overlaps) < 30


# --- ten years of a server ---

_SIMULATED: tuple[tuple[Trigger, str, dict[str, Any]], ...] = (
    (_DAILY, "Europe/Oslo", {}),
    (_DAILY, "Europe/Oslo", {"ambiguous": "last", "nonexistent": "skip"}),
    (Daily(hour=0, minute=30), "Africa/Cairo", {}),
    (Daily(hour=23, minute=45), "America/Havana", {"spread": timedelta(hours=2)}),
    (Daily(hour=2, minute=15), "Australia/Lord_Howe", {}),
    (Weekly(days=(0, 3), hour=2, minute=30), "Africa/Casablanca", {}),
    (Monthly(day="last", hour=1, minute=30), "Europe/London", {}),
    (Monthly(day=NthWeekday(weekday=0, nth=-1), hour=2, minute=30), "Europe/Oslo", {}),
    (Schedule(text="*/30 0-3 * * *"), "Europe/Oslo", {"ambiguous": "first"}),
    (Schedule(text="0 * * * *"), "Australia/Lord_Howe", {}),
    (Every(interval=timedelta(minutes=90)), "", {}),
    (Every(interval=timedelta(weeks=2)), "", {"start_at": datetime(2026, 6, 1, 7, tzinfo=UTC)}),
    (_DAILY, "Europe/Oslo", {"blackout": (Blackout(days=(0, 6)),)}),
)


@pytest.mark.parametrize("server", ["GMT", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("dialect", [_OLD, _NEW])
@pytest.mark.parametrize(("trigger", "zone", "changed"), _SIMULATED)
def test_ten_years_of_a_guarded_entry_are_what_was_wanted(
    trigger: Trigger, zone: str, changed: dict[str, Any], server: str, dialect: Dialect
) -> None:
    """Each fire takes the newest instant that nobody took: all are taken, once, and at once."""
    timing = _timing(trigger, zone, server, **changed)
    until = datetime(2036, 1, 1, tzinfo=UTC)
    wanted = list(find_runs_between(timing, after=_START, until=until))
    entry = make_entry_timing(_compile(timing, server, dialect).text, server)
    taken = [_START]
    delays = set()
    for fire in find_runs_between(entry, after=_START, until=until):
        place = bisect_right(wanted, fire)
        if place and wanted[place - 1] > taken[-1]:
            taken.append(wanted[place - 1])
            delays.add(fire - taken[-1])
    assert taken[1:] == wanted
    assert delays == {timedelta(0)}


@pytest.mark.parametrize("zone", ["Europe/Oslo", "Africa/Cairo", "Australia/Lord_Howe", "America/Havana"])
@pytest.mark.parametrize("minute", range(0, 1440, 30))
def test_a_daily_job_runs_once_on_each_date(zone: str, minute: int) -> None:
    """Ten years long, whatever its time of the day and whatever the clocks do."""
    timing = _timing(Daily(hour=minute // 60, minute=minute % 60), zone)
    runs = find_runs(timing, after=_START, count=3650)
    dates = {run.astimezone(ZoneInfo(zone)).date() for run in runs}
    assert len(dates) == 3650
    assert (max(dates) - min(dates)).days == 3649


def test_a_rule_that_is_made_up_for_later_is_in_the_superset() -> None:
    """A day that was not there: everything of it comes at the next midnight."""
    timing = replace(
        Timing(zone="Pacific/Apia", rule=parse_rule("0 8 * * *")), ambiguous="first", nonexistent="next"
    )
    since = datetime(2011, 1, 1, tzinfo=UTC)
    clocks = {"Pacific/Apia": clock_of("Pacific/Apia").since(to_seconds(since))}
    compiled = compile_timing(timing, server_zone="GMT", clocks=clocks, dialect=_NEW)
    assert compiled.text == "0 10,18,19 * * *"
    entry = make_entry_timing(compiled.text, "GMT")
    assert _has_extra(timing, entry, [(since, since + timedelta(days=800))])
