"""When timings come, held against a walk through time minute by minute, and against croniter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, product
from random import Random
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout
from reconciler.core.times.clocks import UTC_CLOCK, Clock, read_clock, to_instant, to_seconds
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.occurrences import (
    clock_of,
    find_previous_runs,
    find_runs,
    find_runs_between,
    iterate_runs,
)
from reconciler.core.times.timings import Timing, make_entry_timing

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNHURRIED = settings(deadline=None, database=None)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what clocks show
_CHOICES = tuple(product(("first", "last", "both"), ("next", "skip")))
_FIRST = to_seconds(datetime(1970, 1, 2, tzinfo=UTC))
_LAST = to_seconds(datetime(2040, 12, 30, tzinfo=UTC))


def _utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc,arg-type]


def _timing(text: str, zone: str, **changed: Any) -> Timing:
    return replace(Timing(zone=zone, rule=parse_rule(text)), **changed)


def _show(timing: Timing, after: datetime, count: int = 3) -> list[str]:
    """Give the next runs as the clocks of the zone show them."""
    runs = find_runs(timing, after=after, count=count)
    return [run.astimezone(ZoneInfo(timing.zone)).strftime("%m-%d %H:%M %z") for run in runs]


# --- a walk through time: what clocks show each minute, and nothing of our own ---


@dataclass(frozen=True)
class _Times:
    """Times of the day, each day or on one day of the month."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day: int

    @property
    def text(self) -> str:
        minutes, hours = (",".join(map(str, values)) for values in (self.minutes, self.hours))
        return f"{minutes} {hours} {self.day or '*'} * *"

    def fits(self, wall: int) -> bool:
        if wall % _HOUR // 60 not in self.minutes or wall % _DAY // _HOUR not in self.hours or wall % 60:
            return False
        return not self.day or (_EPOCH + timedelta(seconds=wall)).day == self.day


class _Walk:
    """What the clocks of a zone show in a stretch of time."""

    def __init__(self, zone: ZoneInfo, begin: int, end: int, step: int) -> None:
        aheads = [datetime.fromtimestamp(second, zone).utcoffset() for second in range(begin, end, step)]
        seconds = {ahead: (ahead or timedelta(0)) // timedelta(seconds=1) for ahead in set(aheads)}
        self.shown = [
            (second, second + seconds[ahead])
            for second, ahead in zip(range(begin, end, step), aheads, strict=True)
        ]
        self.step = step

    def find_wanted(self, times: _Times, ambiguous: str, nonexistent: str) -> set[int]:
        """Find the wanted instants by the definition."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        made_up = set()
        for second, wall in self.shown:
            if times.fits(wall):
                found[wall].append(second)
        for (_, before), (second, wall) in pairwise(self.shown):
            if wall - before > self.step and any(map(times.fits, range(before + self.step, wall, self.step))):
                made_up.add(second)
        kept = {"first": slice(1), "last": slice(-1, None), "both": slice(None)}[ambiguous]
        wanted = {second for seconds in found.values() for second in seconds[kept]}
        return wanted | made_up if nonexistent == "next" else wanted


def _draw_times(chance: Random, shown: list[int], wall: int) -> _Times:
    """Draw times some of which are around a moment."""
    kind = chance.randrange(5)
    near = [chance.choice(shown) + chance.choice((-60, 0, 60)) for _ in range(chance.choice((1, 1, 3)))]
    if kind == 0:
        return _Times((wall // 60 % 60,), (wall // 3600 % 24,), 0)
    if kind == 1:
        return _Times((near[0] // 60 % 60,), tuple(range(24)), 0)
    minutes, hours = (sorted({one // size % most for one in near}) for size, most in ((60, 60), (3600, 24)))
    day = (_EPOCH + timedelta(seconds=near[0])).day if kind == 2 else 0
    return _Times(tuple(minutes), tuple(hours), day)


def _compare(zone: str, clock: Clock, change: int, chance: Random) -> list[str]:
    """Compare both around one moment; give what differs."""
    before, after = clock.offset_at(change - 1), clock.offset_at(change)
    gap = abs(after - before)
    step = 30 if before % 60 or after % 60 else 60
    around = gap + 70 * _MINUTE
    walk = _Walk(ZoneInfo(zone), change - change % 60 - around, change + around, step)
    wrong = []
    low, high = sorted((change + before, change + after))
    shown = list(range(low - low % 60, high + 1, 60))
    for ambiguous, nonexistent in chance.sample(_CHOICES, 2):
        times = _draw_times(chance, shown, low)
        after_second = change + chance.choice((-around + 60, -gap, -60, -1, 0, 1, gap // 2, gap))
        until = change + gap + _HOUR
        wanted = walk.find_wanted(times, ambiguous, nonexistent)
        timing = _timing(times.text, zone, ambiguous=ambiguous, nonexistent=nonexistent)
        runs = find_runs_between(timing, after=to_instant(after_second), until=to_instant(until))
        found = [to_seconds(run) for run in runs]
        if found != sorted(second for second in wanted if after_second < second <= until):
            wrong.append(f"{zone} {times.text} {ambiguous} {nonexistent} after {after_second}")
    return wrong


def _list_different_zones() -> Iterator[tuple[str, Clock]]:
    """Give one zone of each kind of clocks; what the clocks are is tested elsewhere."""
    seen = set()
    for name in sorted(available_timezones()):
        clock = read_clock(name)
        if clock not in seen:
            seen.add(clock)
            yield name, clock


def test_runs_are_those_of_a_walk_around_every_change_of_every_zone() -> None:
    """At each change from 1970 to 2040 the wanted instants are those of the definition."""
    wrong: list[str] = []
    changes = 0
    for zone, clock in _list_different_zones():
        chance = Random(zone)
        for change in clock.changes:
            if _FIRST < change < _LAST:
                changes += 1
                wrong += _compare(zone, clock, change, chance)
    assert wrong == []
    assert changes > 18_000


def test_runs_are_those_of_a_walk_on_plain_days() -> None:
    """Every zone has its local times on days when nobody sets a clock, too."""
    wrong: list[str] = []
    for zone, clock in _list_different_zones():
        chance = Random(zone)
        wrong += _compare(zone, clock, chance.randrange(_FIRST, _LAST, 60), chance)
    assert wrong == []


# --- changes that people know ---

_SPRING, _AUTUMN = _utc(2027, 3, 27, 12), _utc(2026, 10, 24, 12)


@pytest.mark.parametrize(
    ("choice", "runs"),
    [
        ("next", ["03-28 03:00 +0200", "03-29 02:30 +0200", "03-30 02:30 +0200"]),
        ("skip", ["03-29 02:30 +0200", "03-30 02:30 +0200", "03-31 02:30 +0200"]),
    ],
)
def test_a_skipped_time_is_made_up_for_or_not(choice: str, runs: list[str]) -> None:
    """At the first moment after it."""
    assert _show(_timing("30 2 * * *", "Europe/Oslo", nonexistent=choice), _SPRING) == runs


def test_several_skipped_times_are_one_run() -> None:
    """And the moment after may be a time of its own."""
    timing = _timing("0,20,40 2,3 * * *", "Europe/Oslo", nonexistent="next")
    assert _show(timing, _utc(2027, 3, 28), 2) == ["03-28 03:00 +0200", "03-28 03:20 +0200"]


@pytest.mark.parametrize(
    ("choice", "runs"),
    [
        ("first", ["10-25 02:30 +0200", "10-26 02:30 +0100", "10-27 02:30 +0100"]),
        ("last", ["10-25 02:30 +0100", "10-26 02:30 +0100", "10-27 02:30 +0100"]),
        ("both", ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-26 02:30 +0100"]),
    ],
)
def test_a_time_that_comes_twice_is_taken_as_chosen(choice: str, runs: list[str]) -> None:
    """The first, the last, or both."""
    assert _show(_timing("30 2 * * *", "Europe/Oslo", ambiguous=choice), _AUTUMN) == runs


@pytest.mark.parametrize(
    ("text", "zone", "after", "runs"),
    [
        # A day that was not there.
        ("0 8 * * *", "Pacific/Apia", _utc(2011, 12, 29), ["12-29 08:00 -1000", "12-31 00:00 +1400"]),
        ("0 8 20-21 8 *", "Pacific/Kwajalein", _utc(1993, 8, 19), ["08-20 08:00 -1200", "08-22 00:00 +1200"]),
        # Half an hour.
        ("15 2 * * *", "Australia/Lord_Howe", _utc(2026, 10, 3), ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", _utc(2027, 4, 3), ["04-04 01:45 +1100", "04-05 01:45 +1030"]),
        # At midnight, forward and back.
        ("30 0 * * *", "Africa/Cairo", _utc(2026, 4, 23), ["04-24 01:00 +0300", "04-25 00:30 +0300"]),
        ("30 23 * * *", "Africa/Cairo", _utc(2026, 10, 29), ["10-29 23:30 +0300", "10-30 23:30 +0200"]),
        # Summer time in winter.
        ("30 1 * * *", "Europe/Dublin", _utc(2027, 3, 27, 12), ["03-28 02:00 +0100", "03-29 01:30 +0100"]),
        # Back for Ramadan.
        ("30 2 * * *", "Africa/Casablanca", _utc(2026, 2, 15), ["02-15 02:30 +0100", "02-16 02:30 +0000"]),
        ("30 2 * * *", "Africa/Casablanca", _utc(2026, 3, 22), ["03-22 03:00 +0100", "03-23 02:30 +0100"]),
    ],
)  # fmt: skip
def test_odd_changes_are_like_any_other(text: str, zone: str, after: datetime, runs: list[str]) -> None:
    """Once a day, whatever was done to the clocks."""
    timing = _timing(text, zone, ambiguous="first", nonexistent="next")
    assert _show(timing, after, 2) == runs


# --- intervals, seconds, one instant ---


@settings(_UNHURRIED, max_examples=200)
@given(
    st.integers(1, 366 * 1440),
    st.datetimes(datetime(1970, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made aware below
    st.integers(0, 1439),
    st.integers(0, 10**9),
)
def test_intervals_count_from_their_anchor(minutes: int, anchor: datetime, shift: int, later: int) -> None:
    """Runs are whole intervals away from it, put off by the shift, and none is left out."""
    anchor = anchor.replace(microsecond=0, tzinfo=UTC)
    every, put_off = timedelta(minutes=minutes), timedelta(minutes=shift)
    timing = Timing(zone="GMT", interval=every, anchor=anchor, shift=put_off)
    after = _utc(2000, 1, 1) + timedelta(seconds=later)
    runs = find_runs(timing, after=after, count=3)
    assert all(not (run - anchor - put_off) % every for run in runs)
    assert after < runs[0] <= after + every
    assert [later - earlier for earlier, later in pairwise(runs)] == [every, every]


def test_seconds_count_from_the_question_or_the_start() -> None:
    """pg_cron counts from its own start; nobody can say what was before."""
    timing = Timing(zone="GMT", seconds=40)
    start = _utc(2027, 1, 1)
    assert [run.second for run in find_runs(timing, after=start, count=3)] == [40, 20, 0]
    late = replace(timing, start_at=start + timedelta(hours=1))
    assert find_runs(late, after=start, count=1) == (start + timedelta(hours=1),)
    assert find_previous_runs(timing, before=start, count=3) == ()


def test_seconds_keep_their_pace_through_a_blackout() -> None:
    """pg_cron goes on counting."""
    timing = Timing(zone="GMT", seconds=7, blackout=(Blackout(start=1, end=600),))
    runs = find_runs(timing, after=_utc(2027, 1, 1, 0, 0, 30), count=60)
    expected = [second for second in range(37, 40_000, 7) if not 60 <= second < 36_000]
    assert [(run - _utc(2027, 1, 1)).total_seconds() for run in runs] == expected[:60]


def test_one_instant_comes_once() -> None:
    """Later than the question, and never again."""
    timing = Timing(zone="GMT", once=_utc(2027, 1, 1))
    assert find_runs(timing, after=_utc(2026, 1, 1), count=5) == (_utc(2027, 1, 1),)
    assert find_runs(timing, after=_utc(2027, 1, 1), count=5) == ()
    assert find_previous_runs(timing, before=_utc(2027, 1, 1), count=5) == (_utc(2027, 1, 1),)


def test_starts_of_the_launcher_have_no_times() -> None:
    """No clock decides on them."""
    assert find_runs(make_entry_timing("@reboot", "GMT"), after=_utc(2026, 1, 1), count=5) == ()


@pytest.mark.parametrize(
    "timing",
    [
        _timing("30 2 * * *", "Europe/Oslo", ambiguous="first", nonexistent="next"),
        _timing("*/20 1-3 * * *", "Europe/Oslo", ambiguous="last", nonexistent="next"),
        _timing("0 0 $ * *", "America/New_York"),
    ],
)
@pytest.mark.parametrize("minutes", [1, 30, 61, 1440])
def test_a_shift_puts_every_run_off(timing: Timing, minutes: int) -> None:
    """By that much time, whatever the clocks do meanwhile."""
    shift = timedelta(minutes=minutes)
    for after in (_SPRING, _AUTUMN):
        shifted = find_runs(replace(timing, shift=shift), after=after + shift, count=20)
        assert [run - shift for run in shifted] == list(find_runs(timing, after=after, count=20))


# --- windows and blackouts ---


def test_a_start_is_inside_and_an_end_is_not() -> None:
    """Also to the fraction of a second."""
    start, end, moment = _utc(2027, 1, 1, 5), _utc(2027, 1, 1, 8), timedelta(microseconds=1)
    for start_at, end_at, hours in (
        (start, end, [5, 6, 7]),
        (start + moment, end, [6, 7]),
        (start, end + moment, [5, 6, 7, 8]),
    ):
        timing = _timing("0 * * * *", "GMT", start_at=start_at, end_at=end_at)
        runs = find_runs(timing, after=_utc(2027, 1, 1), count=9)
        assert [run.hour for run in runs] == hours
        assert find_previous_runs(timing, before=_utc(2027, 2, 1), count=9) == tuple(reversed(runs))


def test_an_interval_begins_with_its_start() -> None:
    """And not before, where the start is within a second."""
    start = _utc(2027, 1, 1, 5, 30)
    timing = Timing(zone="GMT", interval=timedelta(minutes=90), anchor=start, start_at=start)
    assert find_runs(timing, after=_utc(2026, 1, 1), count=2) == (start, start + timedelta(minutes=90))
    within = start + timedelta(milliseconds=1)
    (run,) = find_runs(replace(timing, anchor=within, start_at=within), after=_utc(2026, 1, 1), count=1)
    assert run == start + timedelta(seconds=1)


@st.composite
def _blackouts(draw: st.DrawFn) -> Blackout:
    start = draw(st.sampled_from((0, 60, 90, 120, 150, 180, 1320, 1410)))
    end = draw(st.sampled_from((60, 90, 120, 150, 180, 360, 1410, 1440)))
    days = tuple(sorted(draw(st.sets(st.integers(0, 6), max_size=6))))
    first, last = (draw(st.none() | st.dates(date(2026, 3, 20), date(2026, 4, 10))) for _ in range(2))
    return Blackout(first=first, last=last, days=days, start=start, end=end)


def _is_barred(wall: datetime, windows: list[Blackout]) -> bool:
    for window, ago in product(windows, range(3)):
        day = wall.replace(hour=0, minute=0) - timedelta(days=ago)
        begin = day + timedelta(minutes=window.start)
        length = timedelta(minutes=(window.end - window.start - 1) % 1440 + 1)
        if (
            begin <= wall < begin + length
            and not (window.first and day.date() < window.first)
            and not (window.last and day.date() > window.last)
            and (not window.days or day.isoweekday() % 7 in window.days)
        ):
            return True
    return False


_ZONES = ("Europe/Oslo", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "Asia/Gaza", "GMT")


@settings(_UNHURRIED, max_examples=80)
@given(
    st.lists(_blackouts(), min_size=1, max_size=3),
    st.sampled_from(_ZONES),
    st.sampled_from(_ZONES),
    st.sampled_from(("*/10 * * * *", "30 2 * * *", "0 0 * * *", "15 1,3 * * 0,5", "interval", "shifted")),
    st.sampled_from(_CHOICES),
)
def test_no_run_is_in_a_blackout_and_no_other_is_left_out(
    windows: list[Blackout], zone: str, other: str, text: str, choices: tuple[str, str]
) -> None:
    """A run stays exactly where the clocks of the place show a time in no window, around changes too."""
    if text == "interval":
        timing = Timing(zone=zone, interval=timedelta(minutes=50))
    else:
        timing = _timing("*/30 * * * *" if text == "shifted" else text, zone)
        timing = replace(timing, ambiguous=choices[0], nonexistent=choices[1])  # type: ignore[arg-type]
    if text == "shifted":
        timing = replace(timing, shift=timedelta(minutes=7))
    place = other if text in {"interval", "0 0 * * *"} else zone
    limited = replace(timing, blackout=tuple(windows), blackout_zone="" if place == zone else place)
    for after, until in (
        (_utc(2026, 3, 18), _utc(2026, 4, 13)),
        (_utc(2026, 10, 20), _utc(2026, 11, 4)),
    ):
        expected = [
            run
            for run in find_runs_between(timing, after=after, until=until)
            if not _is_barred(run.astimezone(ZoneInfo(place)).replace(tzinfo=None), windows)
        ]
        assert list(find_runs_between(limited, after=after, until=until)) == expected


def test_a_blackout_that_ends_while_clocks_go_back_lets_both_passes_through() -> None:
    """The run before was in winter as well, so that its offset is no sign of nothing having changed."""
    window = Blackout(first=date(2026, 2, 1), last=date(2026, 10, 24))
    more = Blackout(first=date(2026, 10, 25), last=date(2026, 10, 25), start=0, end=150)
    timing = _timing("40 2 * * *", "Europe/Oslo", blackout=(window, more))
    assert _show(timing, _utc(2026, 1, 31, 12), 2) == ["10-25 02:40 +0200", "10-25 02:40 +0100"]


@pytest.mark.parametrize(
    "blackout",
    [
        Blackout(start=480, end=720),
        Blackout(first=date(2026, 1, 1)),
        Blackout(days=(0, 1, 2, 3, 4, 5, 6), start=1, end=1440),
        Blackout(first=date(2026, 1, 1), last=date(2045, 1, 1)),
    ],
)
@pytest.mark.parametrize("text", ["0 10 * * *", "* 10 * * *", "0 10 * * 1"])
def test_what_blackouts_leave_no_run_of_ends(blackout: Blackout, text: str) -> None:
    """After nine years with none it is over; nobody waits for it."""
    assert (
        find_runs(_timing(text, "Europe/Oslo", blackout=(blackout,)), after=_utc(2026, 2, 1), count=1) == ()
    )


def test_nine_years_count_from_the_last_run() -> None:
    """Somebody who asks for twenty years of a job with a blackout sees twenty years."""
    timing = _timing("0 0 1 1 *", "GMT", blackout=(Blackout(first=date(2030, 1, 1), last=date(2036, 1, 1)),))
    runs = find_runs_between(timing, after=_utc(2026, 2, 1), until=_utc(2046, 2, 1))
    assert [run.year for run in runs] == [2027, 2028, 2029, *range(2037, 2047)]


# --- backwards ---


@settings(_UNHURRIED, max_examples=120)
@given(
    st.sampled_from(
        ("30 2 * * *", "*/15 1-3 * * *", "0 0 $ * *", "0 3 * * 0L", "0 12 29 2 *", "* * * * *", "")
    ),
    st.sampled_from(_ZONES),
    st.sampled_from(_CHOICES),
    st.integers(0, 20 * 365 * 86_400),
    st.booleans(),
    st.integers(1, 30),
)  # fmt: skip
def test_previous_runs_are_the_next_ones_of_an_earlier_question(
    text: str, zone: str, choices: tuple[str, str], second: int, limited: bool, count: int
) -> None:
    """Looking back from an instant and forth from before it shows the same runs."""
    timing = _timing(text, zone) if text else Timing(zone=zone, interval=timedelta(minutes=777))
    timing = replace(timing, ambiguous=choices[0], nonexistent=choices[1])  # type: ignore[arg-type]
    if limited:
        windows = Blackout(days=(0, 6)), Blackout(start=120, end=140)
        timing = replace(timing, start_at=_utc(2011, 1, 1), end_at=_utc(2031, 1, 1), blackout=windows)
    before = _utc(2012, 1, 1) + timedelta(seconds=second)
    found = find_previous_runs(timing, before=before, count=count)
    assert list(found) == sorted(found, reverse=True)
    if found:
        assert found[0] <= before
        earliest = found[-1] - timedelta(seconds=1)
        assert list(find_runs_between(timing, after=earliest, until=before)) == list(reversed(found))
    if len(found) < count:
        earliest = min((before, *found))
        nine_years_before = earliest - timedelta(days=9 * 366)
        assert set(find_runs_between(timing, after=nine_years_before, until=before)) == set(found)


def test_a_run_at_the_very_instant_has_been() -> None:
    """It is a previous one and no next one."""
    timing = _timing("0 0 * * *", "GMT")
    assert find_previous_runs(timing, before=_utc(2027, 1, 2), count=1) == (_utc(2027, 1, 2),)
    assert find_runs(timing, after=_utc(2027, 1, 2), count=1) == (_utc(2027, 1, 3),)
    assert find_previous_runs(timing, before=_utc(2027, 1, 2), count=0) == ()
    assert find_runs(timing, after=_utc(2027, 1, 2), count=-1) == ()


# --- croniter, where both read alike ---


@st.composite
def _plain_texts(draw: st.DrawFn) -> str:
    fields = []
    for low, high in ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6)):
        values = draw(st.none() | st.sets(st.integers(low, high), min_size=1, max_size=4))
        fields.append(",".join(map(str, sorted(values))) if values else "*")
    return " ".join(fields)


@settings(_UNHURRIED, max_examples=300)
@given(_plain_texts(), st.datetimes(datetime(1990, 1, 1), datetime(2080, 1, 1)))  # noqa: DTZ001 - made aware below
def test_runs_are_those_of_croniter(text: str, start: datetime) -> None:
    """Lists of numbers in UTC: the next ten runs and the ten before."""
    start = start.replace(microsecond=0, second=start.second or 1, tzinfo=UTC)
    timing = _timing(text, "UTC")
    other = croniter(text, start, max_years_between_matches=50)
    assert list(find_runs(timing, after=start, count=10)) == [other.get_next(datetime) for _ in range(10)]
    other = croniter(text, start, max_years_between_matches=50)
    expected = [other.get_prev(datetime) for _ in range(10)]
    assert list(find_previous_runs(timing, before=start, count=10)) == expected


# --- questions without an answer ---


def test_a_naive_instant_is_refused() -> None:
    """Nobody knows where it is meant."""
    with pytest.raises(ValueError, match="needs a time zone"):
        iterate_runs(_timing("* * * * *", "GMT"), after=datetime(2027, 1, 1))  # noqa: DTZ001 - on purpose


def test_a_zone_that_is_none_is_refused() -> None:
    """Unless its clocks are given."""
    timing = _timing("0 0 * * *", "Mars/Olympus")
    with pytest.raises(ValueError, match="no time zone"):
        iterate_runs(timing, after=_utc(2027, 1, 1))
    clock = Clock(offsets=(3600,))
    assert find_runs(timing, after=_utc(2027, 1, 1), count=1, clock=clock) == (_utc(2027, 1, 1, 23),)


@pytest.mark.parametrize("name", ["", "GMT", "UTC", "Etc/UTC", "Greenwich"])
def test_utc_has_many_names(name: str) -> None:
    """None of them is looked up."""
    assert clock_of(name) is UTC_CLOCK


@pytest.mark.parametrize(
    "timing",
    [
        _timing("30 2 25-31 3 */7", "Europe/Oslo"),
        _timing("0 0 31 2 *", "GMT"),
        _timing("0 0 31 2 *", "Europe/Oslo", nonexistent="next"),
    ],
)
def test_what_never_comes_is_found_out(timing: Timing) -> None:
    """A time that the clocks always skip, a date that does not exist."""
    assert find_runs(timing, after=_utc(2027, 1, 1), count=1) == ()
    assert find_previous_runs(timing, before=_utc(2027, 1, 1), count=1) == ()


def test_what_comes_each_eight_years_is_found() -> None:
    """2096 and 2104 are leap years, 2100 is not."""
    for zone in ("GMT", "Europe/Oslo"):
        runs = find_runs(_timing("0 12 29 2 *", zone), after=_utc(2095, 1, 1), count=2)
        assert [run.year for run in runs] == [2096, 2104]


def test_years_end() -> None:
    """Far off there are no runs, and nothing breaks."""
    for text in ("0 0 * * *", "* * * * *"):
        timing = _timing(text, "Pacific/Kiritimati", start_at=_utc(9999, 12, 31))
        assert list(islice(iterate_runs(timing, after=_utc(2027, 1, 1)), 3)) == []
