"""The minutes in which jobs start: as the engine of runs finds them one by one, and quickly for many jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout
from reconciler.core.times.clocks import read_clock, to_seconds
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.minutes import MinuteFinder, Stretch, Tally, list_bits, list_segments, make_stretch
from reconciler.core.times.occurrences import find_runs_between
from reconciler.core.times.timings import Timing

ZONES = ("GMT", "Europe/Oslo", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca", "Asia/Gaza")
RULES = (
    *("* * * * *", "*/5 * * * *", "0 * * * *", "7,37 8-17 * * 1-5", "30 2 * * *", "0 0 1 * *"),
    *("0 0 * * *", "30 1 * * 0", "15 23 $ * *", "0 8 * * 1#2", "45 1-3 * * 5L", "0 0 1 * 1", "59 23 29 2 *"),
)
# Clocks are set in each of these weeks, somewhere.
STARTS = (
    datetime(2026, 3, 26, 11, 7, tzinfo=UTC),
    datetime(2026, 10, 24, 22, 30, tzinfo=UTC),
    datetime(2026, 4, 3, 15, 1, tzinfo=UTC),
    datetime(2026, 9, 5, 3, 59, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 31, tzinfo=UTC),
    datetime(2028, 2, 27, 0, 0, tzinfo=UTC),
    datetime(2027, 2, 6, 20, 0, tzinfo=UTC),
)

blackouts = st.builds(
    Blackout,
    first=st.sampled_from([None, date(2026, 3, 27), date(2026, 10, 25)]),
    last=st.sampled_from([None, date(2026, 3, 29), date(2026, 10, 26)]),
    days=st.sampled_from([(), (0,), (1, 2, 3, 4, 5), (6,)]),
    start=st.sampled_from([0, 61, 120, 1320]),
    end=st.sampled_from([1440, 150, 360, 1380]),
)


@st.composite
def timings(draw: st.DrawFn) -> tuple[Timing, datetime]:
    """Draw a timing, and an instant near which something happens to its clocks."""
    near = draw(st.sampled_from(STARTS))
    within = timedelta(seconds=draw(st.sampled_from([0, 30, 3600 * 7 + 59])))
    start_at = draw(st.sampled_from([None, near + within, near + timedelta(days=3)]))
    end_at = draw(st.sampled_from([None, near + timedelta(days=4, microseconds=1), near + within]))
    every = draw(st.sampled_from([0, 0, 0, 1, 7, 1500]))
    timing = Timing(
        zone=draw(st.sampled_from(ZONES)),
        rule=None if every else parse_rule(draw(st.sampled_from(RULES))),
        interval=timedelta(minutes=every),
        anchor=start_at or datetime(2026, 1, 1, 0, 0, draw(st.sampled_from([0, 17])), tzinfo=UTC),
        ambiguous=draw(st.sampled_from(["first", "last", "both"])),
        nonexistent=draw(st.sampled_from(["next", "skip"])),
        shift=timedelta(minutes=draw(st.sampled_from([0, 0, 1, 59, 1439]))),
        start_at=start_at,
        end_at=end_at,
        blackout=tuple(draw(st.lists(blackouts, max_size=2))),
    )
    return timing, near + timedelta(minutes=draw(st.integers(-3000, 3000)))


@settings(max_examples=200, deadline=None)
@given(timings(), st.integers(1, 5 * 1440))
def test_minutes_are_those_in_which_runs_start(drawn: tuple[Timing, datetime], length: int) -> None:
    """Whatever clocks, windows, blackouts and spreads do, the bits are the runs that the engine finds."""
    timing, start = drawn
    stretch = make_stretch(start, start + timedelta(minutes=length))
    runs = find_runs_between(
        timing,
        after=stretch.instant(0) - timedelta(seconds=1),
        until=stretch.instant(length) - timedelta(microseconds=1),
    )
    expected = [to_seconds(run) // 60 - stretch.first for run in runs]
    assert list_bits(MinuteFinder(stretch).find(timing)) == expected


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Oslo", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        ("Europe/Oslo", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 0, tzinfo=UTC)),
        ("America/Santiago", datetime(2026, 9, 6, 4, 0, tzinfo=UTC)),
        ("America/Santiago", datetime(2026, 4, 5, 3, 0, tzinfo=UTC)),
        ("Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),
        # Its offsets were no whole minutes.
        ("Africa/Monrovia", datetime(1972, 1, 7, 0, 44, 30, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("ambiguous", ["first", "last", "both"])
@pytest.mark.parametrize("nonexistent", ["next", "skip"])
def test_changes_of_clocks(
    zone: str,
    change: datetime,
    ambiguous: Literal["first", "last", "both"],
    nonexistent: Literal["next", "skip"],
) -> None:
    """In the middle of a stretch, shortly before it and shortly after it, what a job chose is kept."""
    for text in ("*/30 * * * *", "15 1,2,23,0 * * *", "0 0 * * *", "* 2 * * 0"):
        timing = Timing(zone=zone, rule=parse_rule(text), ambiguous=ambiguous, nonexistent=nonexistent)
        for before, after in ((2880, 2880), (-15, 300), (-70, 300), (300, 15), (300, -10), (1500, 1500)):
            stretch = make_stretch(change - timedelta(minutes=before), change + timedelta(minutes=after))
            runs = find_runs_between(
                timing,
                after=stretch.instant(0) - timedelta(seconds=1),
                until=stretch.instant(stretch.length) - timedelta(seconds=1),
            )
            assert list_bits(MinuteFinder(stretch).find(timing)) == [
                to_seconds(run) // 60 - stretch.first for run in runs
            ]


def test_a_window_ends_before_its_end() -> None:
    """A run at the very end is none any more, and one a moment before it is."""
    start = datetime(2026, 11, 23, tzinfo=UTC)
    stretch = make_stretch(start, start + timedelta(hours=1))
    timing = Timing(zone="GMT", rule=parse_rule("* * * * *"), end_at=start + timedelta(minutes=10))
    assert MinuteFinder(stretch).find(timing).bit_count() == 10
    later = replace(timing, end_at=start + timedelta(minutes=10, microseconds=1))
    assert MinuteFinder(stretch).find(later).bit_count() == 11


def test_one_time_jobs_have_one_minute() -> None:
    """That of their instant, seconds left out; nothing outside of the stretch."""
    stretch = make_stretch(STARTS[0], STARTS[0] + timedelta(days=1))
    finder = MinuteFinder(stretch)
    at = STARTS[0] + timedelta(minutes=90, seconds=30)
    assert list_bits(finder.find(Timing(zone="GMT", once=at))) == [90]
    assert finder.find(Timing(zone="GMT", once=at + timedelta(days=1))) == 0


def test_words_have_no_minutes() -> None:
    """When a server starts no clock tells."""
    stretch = make_stretch(STARTS[0], STARTS[0] + timedelta(days=1))
    assert MinuteFinder(stretch).find(Timing(zone="GMT", word="@reboot")) == 0


def test_an_interval_of_seconds_counts_once_in_each_minute_that_lets_it_start() -> None:
    """All minutes, but for those of its blackout."""
    stretch = make_stretch(datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))
    timing = Timing(zone="GMT", seconds=10, blackout=(Blackout(start=60, end=120),))
    assert MinuteFinder(stretch).find(timing).bit_count() == 1440 - 60


@given(
    st.lists(st.tuples(st.integers(0, 2**40 - 1), st.integers(1, 40)), max_size=12),
    st.integers(0, 100),
    st.integers(0, 2**40 - 1),
)
def test_a_tally_counts(added: list[tuple[int, int]], limit: int, among: int) -> None:
    """Counts, sums, the highest and all above a limit are as if counted one by one."""
    tally = Tally()
    counts = [0] * 40
    for minutes, times in added:
        tally.add(minutes, times)
        for minute in list_bits(minutes):
            counts[minute] += times
    inside = list_bits(among)
    assert [tally.count(minute) for minute in range(40)] == counts
    assert tally.add_up(among) == sum(counts[minute] for minute in inside)
    most, where = tally.find_most(among)
    assert most == max((counts[minute] for minute in inside), default=0)
    assert list_bits(where) == [minute for minute in inside if counts[minute] == most]
    assert list_bits(tally.find_above(limit, among)) == [
        minute for minute in inside if counts[minute] > limit
    ]


def test_segments_say_what_comes_again() -> None:
    """The hour before a change back comes twice, and a change forward repeats nothing."""
    clock = read_clock("Europe/Oslo")
    autumn = Stretch(first=to_seconds(datetime(2026, 10, 24, 22, tzinfo=UTC)) // 60, length=1500)
    parts = [
        (part.stop - part.first, part.ahead, part.again)
        for part in list_segments(clock, autumn.first, autumn.stop)
    ]
    assert parts == [(180, 120, False), (60, 60, True), (1260, 60, False)]
    spring = Stretch(first=to_seconds(datetime(2026, 3, 28, 23, tzinfo=UTC)) // 60, length=1380)
    parts = [
        (part.stop - part.first, part.ahead, part.again)
        for part in list_segments(clock, spring.first, spring.stop)
    ]
    assert parts == [(120, 60, False), (1260, 120, False)]


def test_each_timing_of_a_zone_keeps_to_its_own_blackout() -> None:
    """What timings share of a zone is found once, and their windows are not shared."""
    stretch = make_stretch(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC))
    finder = MinuteFinder(stretch)
    hourly = Timing(zone="Europe/Oslo", rule=parse_rule("0 * * * *"))
    nights = replace(hourly, blackout=(Blackout(start=0, end=6 * 60),))
    noons = replace(hourly, blackout=(Blackout(start=12 * 60, end=13 * 60),))
    assert [finder.find(timing).bit_count() for timing in (nights, noons, hourly)] == [18, 23, 24]
    assert not finder.find(noons) >> 10 * 60 & 1


def test_a_spread_does_not_bring_back_what_the_clocks_show_twice() -> None:
    """The second 02:30 of the night is not wanted, nor what would be put off from it into the next day."""
    start = datetime(2026, 10, 26, 1, 15, tzinfo=UTC)
    finder = MinuteFinder(make_stretch(start, start + timedelta(hours=2)))
    daily = Timing(zone="Europe/Oslo", rule=parse_rule("30 2 * * *"), ambiguous="first")
    assert finder.find(replace(daily, shift=timedelta(hours=23, minutes=59))) == 0
    assert list_bits(
        finder.find(replace(daily, ambiguous="both", shift=timedelta(hours=23, minutes=59)))
    ) == [14]
