"""Heat maps: every start is in the right hour of the right day, also where clocks are set."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from time import process_time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.heat import (
    Load,
    find_busiest,
    find_days,
    find_level,
    find_levels,
    make_heat,
    make_load,
)
from reconciler.core.times.minutes import make_stretch
from reconciler.core.times.occurrences import find_runs_between
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import Timing, find_shift, make_entry_timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.times.heat import Heat

WEEKS = (date(2026, 3, 23), date(2026, 10, 20), date(2026, 4, 1), date(2026, 9, 4), date(2026, 11, 21))
ZONES = ("GMT", "Europe/Oslo", "Australia/Lord_Howe", "America/Santiago")
SCHEDULES = ("* * * * *", "*/5 * * * *", "30 2 * * *", "0 0 * * *", "15 */6 * * 1-5", "0 0 1 * *")


def scheduled(name: str, schedule: str = "0 0 * * *", zone: str = "GMT", **changed: object) -> Scheduled:
    """Make a job that a clock starts."""
    timing = changed.pop("timing", None) or make_entry_timing(schedule, zone)
    assert isinstance(timing, Timing)
    return Scheduled(name=name, kind="job", timing=timing, schedule=schedule, **changed)  # type: ignore[arg-type]


def load_days(jobs: Sequence[Scheduled], begins: tuple[datetime, ...]) -> Load:
    """Add up what starts in some days."""
    return make_load(jobs, make_stretch(begins[0], begins[-1]))


def week(jobs: Sequence[Scheduled], first: date, zone: str = "GMT") -> Heat:
    """Map a week."""
    begins = find_days(first, 7, zone)
    return make_heat(load_days(jobs, begins), begins, zone)


def day(jobs: Sequence[Scheduled], first: date, zone: str = "GMT", step: int = 5) -> Heat:
    """Map a day."""
    begins = find_days(first, 1, zone)
    return make_heat(load_days(jobs, begins), begins, zone, step=step)


@st.composite
def jobs(draw: st.DrawFn) -> list[Scheduled]:
    """Draw jobs, some of them alike, put off, limited or paused."""
    made = []
    for number in range(draw(st.integers(0, 6))):
        timing = Timing(
            zone=draw(st.sampled_from(ZONES)),
            rule=make_entry_timing(draw(st.sampled_from(SCHEDULES)), "GMT").rule,
            ambiguous=draw(st.sampled_from(["first", "last", "both"])),
            nonexistent=draw(st.sampled_from(["next", "skip"])),
            shift=timedelta(minutes=draw(st.sampled_from([0, 7, 90]))),
            blackout=draw(st.sampled_from([(), (Blackout(start=60, end=150),)])),
        )
        made.append(scheduled(f"job-{number}", timing=timing, paused=draw(st.booleans())))
    return made


@settings(max_examples=40, deadline=None)
@given(jobs(), st.sampled_from(WEEKS), st.sampled_from(ZONES), st.sampled_from([60, 15, 10, 5]))
def test_a_map_holds_all_runs(made: list[Scheduled], first: date, zone: str, step: int) -> None:
    """The sum of all cells is the number of runs that the engine finds, in their hours and days."""
    begins = find_days(first, 7 if step == 60 else 1, zone)
    heat = make_heat(load_days(made, begins), begins, zone, step=step)
    late = begins[-1] - timedelta(microseconds=1)
    local = find_zone("UTC" if zone == "GMT" else zone)
    runs: Counter[tuple[int, bool, int]] = Counter()
    for job in made:
        for run in find_runs_between(job.timing, after=begins[0] - timedelta(seconds=1), until=late):
            wall = run.astimezone(local)
            column = heat.days.index(wall.date()) if step == 60 else wall.minute // step
            runs[wall.hour, bool(wall.fold), column] += 1
    cells = {
        (row.hour, row.again, number): cell.starts
        for row in heat.rows
        for number, cell in enumerate(row.cells)
        if cell and cell.starts
    }
    assert cells == runs
    assert heat.starts == runs.total()


def test_a_cell_knows_its_busiest_minute() -> None:
    """Sums are of the cell, the most is of one minute, and the first of several is named."""
    made = [scheduled("a", "*/10 * * * *"), scheduled("b", "20,40 3 * * *"), scheduled("c", "59 3 * * *")]
    cell = week(made, date(2026, 11, 23)).rows[3].cells[2]
    assert cell is not None
    assert (cell.starts, cell.most) == (9, 2)
    assert cell.most_at == datetime(2026, 11, 25, 3, 20, tzinfo=UTC)


def test_a_job_of_each_minute_counts_1440_a_day() -> None:
    """As often as it starts."""
    heat = day([scheduled("a", "* * * * *")], date(2026, 11, 23))
    assert heat.starts == 1440
    assert [cell.starts for cell in heat.rows[0].cells if cell] == [5] * 12


def test_intervals_of_seconds_are_a_base_and_no_starts() -> None:
    """They are named, and counted nowhere; with a blackout they count once in each minute that is open."""
    begins = find_days(date(2026, 11, 23), 1, "GMT")
    limited = Timing(zone="GMT", seconds=5, blackout=(Blackout(start=0, end=1380),))
    load = load_days([scheduled("b", "10 seconds"), scheduled("a", "1 second")], begins)
    assert load.base == ("a", "b")
    assert load.tally.add_up(load.stretch.all) == 0
    load = load_days([scheduled("c", timing=limited)], begins)
    assert load.base == ()
    assert load.tally.add_up(load.stretch.all) == 60


def test_what_is_not_started_does_not_count() -> None:
    """Inactive jobs and those without an entry are left out; a one-time job has none and counts."""
    once = Timing(zone="GMT", once=datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    made = [
        scheduled("a", active=False),
        scheduled("b", schedule="", timing=make_entry_timing("0 0 * * *", "GMT")),
        scheduled("c", schedule="", timing=once),
    ]
    assert week(made, date(2026, 11, 23)).starts == 1


def test_a_day_of_23_hours_has_no_third_one() -> None:
    """The hour that the clocks skip is no cell, on that day alone."""
    heat = week([scheduled("a", "0 * * * *")], date(2026, 3, 27), "Europe/Oslo")
    assert [row.hour for row in heat.rows] == list(range(24))
    assert [cell is None for cell in heat.rows[2].cells] == [False, False, True, False, False, False, False]
    assert heat.starts == 7 * 24 - 1


def test_a_day_of_25_hours_has_one_hour_twice() -> None:
    """The second one has a row of its own, with a cell on that day alone."""
    heat = week([scheduled("a", "0 * * * *")], date(2026, 10, 24), "Europe/Oslo")
    assert [(row.hour, row.again) for row in heat.rows][1:5] == [
        (1, False),
        (2, False),
        (2, True),
        (3, False),
    ]
    assert [cell is None for cell in heat.rows[3].cells] == [True, False, True, True, True, True, True]
    assert heat.starts == 7 * 24 + 1


def test_clocks_that_are_set_by_half_an_hour() -> None:
    """On Lord Howe Island half an hour is skipped, and half an hour comes again."""
    spring = day([scheduled("a", "* * * * *")], date(2026, 10, 4), "Australia/Lord_Howe", step=15)
    assert [cell.starts if cell else None for cell in spring.rows[2].cells] == [None, None, 15, 15]
    autumn = day([scheduled("a", "* * * * *")], date(2026, 4, 5), "Australia/Lord_Howe", step=15)
    assert [(row.hour, row.again) for row in autumn.rows][:4] == [
        *((0, False), (1, False), (1, True), (2, False)),
    ]
    assert [cell.starts if cell else None for cell in autumn.rows[2].cells] == [None, None, 15, 15]


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("GMT", date(2026, 3, 29), [24, 24]),
        ("Europe/Oslo", date(2026, 3, 28), [24, 23]),
        ("Europe/Oslo", date(2026, 10, 25), [25, 24]),
        # Midnight itself is skipped, or comes twice.
        ("America/Santiago", date(2026, 9, 6), [23, 24]),
        ("America/Havana", date(2026, 11, 1), [25, 24]),
        # The day after which clocks are set back to it has 25 hours.
        ("America/Santiago", date(2026, 4, 4), [25, 24]),
        # There was no 30 December.
        ("Pacific/Apia", date(2011, 12, 29), [24, 24]),
    ],
)
def test_days_begin_when_clocks_say_so(zone: str, first: date, hours: list[int]) -> None:
    """Days have 23 to 25 hours, and each begins with its first moment."""
    begins = find_days(first, 2, zone)
    lengths = [end - begin for begin, end in pairwise(begins)]
    assert [length // timedelta(hours=1) for length in lengths] == hours
    assert begins[0].astimezone(find_zone(zone if zone != "GMT" else "UTC")).date() == first


def test_busiest_minutes_are_named_once() -> None:
    """Minutes in which the same jobs start are one line; equal ones come in the order of time."""
    made = [
        *(scheduled(name, "0 * * * *") for name in "ab"),
        scheduled("c", "0 12 * * *"),
        scheduled("d", "30 8 * * *"),
    ]
    begins = find_days(date(2026, 11, 23), 7, "GMT")
    busiest = find_busiest(load_days(made, begins), 5)
    assert [(busy.at.hour, busy.count, "".join(busy.names), busy.alike) for busy in busiest] == [
        (12, 3, "abc", 7),
        (0, 2, "ab", 7 * 23),
        (8, 1, "d", 7),
    ]
    assert [busy.count for busy in find_busiest(load_days(made, begins), 1)] == [3]
    assert find_busiest(load_days([], begins), 5) == ()


def test_ten_thousand_jobs_take_less_than_a_second() -> None:
    """Jobs with one timing are added up once, also in the week in which clocks are set, and spread ones."""
    made = []
    for number in range(10_000):
        kind = number % 300
        if kind < 15:
            text = f"*/{kind % 5 + 1} * * * *"
        elif kind < 100:
            text = f"{kind % 60} * * * *"
        else:
            text = f"{kind % 60} {kind % 24} * * {kind % 7}"
        timing = make_entry_timing(text, ("GMT", "Europe/Oslo")[number % 2])
        if number % 2:
            shift = find_shift(f"job-{number}", timedelta(minutes=10))
            timing = Timing(zone=timing.zone, rule=timing.rule, shift=shift)
        made.append(scheduled(f"job-{number}", text, timing=timing))
    begins = find_days(date(2026, 10, 20), 7, "Europe/Oslo")
    start = process_time()
    load = load_days(made, begins)
    heat = make_heat(load, begins, "Europe/Oslo")
    find_busiest(load, 5)
    assert process_time() - start < 1
    assert heat.starts > 1_000_000


@pytest.mark.parametrize(
    ("schedules", "levels"),
    [
        ((), (0, 0, 0)),
        (("0 0 * * *",), (1, 1, 1)),
        (("0 0 * * *", "* 1 * * *"), (3, 15, 60)),
    ],
)
def test_levels_tell_few_starts_from_many(schedules: tuple[str, ...], levels: tuple[int, ...]) -> None:
    """Each level reaches as many times further as the one before; all that is equal is of one level."""
    heat = week([scheduled(f"job-{number}", text) for number, text in enumerate(schedules)], WEEKS[-1])
    assert find_levels(heat, 3) == levels


@pytest.mark.parametrize(("starts", "level"), [(0, 0), (1, 1), (3, 1), (4, 2), (15, 2), (60, 3)])
def test_a_cell_is_of_the_first_level_that_reaches_so_far(starts: int, level: int) -> None:
    """Without a start it is of none."""
    assert find_level(starts, (3, 15, 60)) == level
