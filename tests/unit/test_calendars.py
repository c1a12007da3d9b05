"""Calendars: what is shown, what counts all the same, and the words for it."""

from __future__ import annotations

from datetime import date

import pytest

from reconciler.core.times.calendars import (
    Calendar,
    describe_calendar,
    describe_cell,
    describe_limit,
    has_crowds,
    has_gaps,
    make_calendar,
    name_columns,
    name_levels,
    name_row,
    name_some,
    name_time,
)
from reconciler.core.times.herds import Capacity
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import make_entry_timing
from tests.core_builders import PLACE

MONDAY = date(2026, 11, 23)


def scheduled(name: str, text: str, *, zone: str = "GMT", paused: bool = False) -> Scheduled:
    """Make a job that a clock starts."""
    return Scheduled(
        name=name, kind="job", timing=make_entry_timing(text, zone), schedule=text, paused=paused
    )


def make(*jobs: Scheduled, first: date = MONDAY, zone: str = "GMT", **options: object) -> Calendar:
    """Make a calendar of a server that runs three jobs at once."""
    return make_calendar(
        jobs,
        target="test",
        first=first,
        zone=zone,
        capacity=Capacity(limit=3, known=True),
        **options,  # type: ignore[arg-type]
    )


NIGHT = [scheduled(f"night-{number}", "0 3 * * *", paused=number == 0) for number in range(4)]


def test_a_week_has_its_busiest_minutes_and_herds() -> None:
    """Of those that a spread could part, its smallest is named only where places are given."""
    week = make(*NIGHT, scheduled("fast", "5 seconds"))
    assert (week.jobs, week.paused, week.most) == (5, 1, 5)
    assert describe_calendar(week) == "test: 28 starts of 5 jobs, Mon 2026-11-23 to Sun 2026-11-29, GMT"
    assert [(busy.count, busy.alike) for busy in week.busiest] == [(4, 7)]
    assert [(herd.when, herd.most, herd.advice) for herd in week.herds] == [("each day at 03:00", 5, "")]
    advised = make(*NIGHT, places={each.name: PLACE for each in NIGHT})
    assert advised.herds[0].advice.startswith("spread: ")
    assert advised.places.keys() == {each.name for each in NIGHT}


def test_what_is_not_shown_counts_for_herds() -> None:
    """And a herd without those that are shown is left out."""
    late = [scheduled(f"late-{number}", "0 5 * * *") for number in range(4)]
    some = make(*NIGHT, *late, only=("night-1",))
    assert describe_calendar(some) == "test: 7 starts of 1 job, Mon 2026-11-23 to Sun 2026-11-29, GMT"
    assert [herd.when for herd in some.herds] == ["each day at 03:00"]
    assert has_crowds(some.heat)
    assert not has_crowds(make(NIGHT[0]).heat)


def test_a_day_has_columns_of_minutes() -> None:
    """A week one for each day."""
    day = make(scheduled("a", "7 8 * * *"), step=15)
    assert describe_calendar(day) == "test: 1 start of 1 job, Mon 2026-11-23, GMT"
    assert name_columns(day.heat) == [":00", ":15", ":30", ":45"]
    assert name_columns(make().heat)[:2] == ["Mon 23", "Tue 24"]
    assert name_time(day.heat, day.heat.rows[8], 1) == "Mon 2026-11-23 08:15"
    cell = day.heat.rows[8].cells[0]
    assert cell is not None
    said = "Mon 2026-11-23 08:00: 1 start; at most 1 in one minute: a"
    assert describe_cell(day, day.heat.rows[8], 0, cell) == said


def test_a_cell_says_who_starts_in_its_busiest_minute() -> None:
    """And whether these are too many."""
    week = make(*NIGHT, scheduled("c", "10 3 * * *"))
    cell = week.heat.rows[3].cells[0]
    assert cell is not None
    assert describe_cell(week, week.heat.rows[3], 0, cell) == (
        "Mon 2026-11-23 03:00: 5 starts; at most 4 in one minute, more than the server runs at once: "
        "night-0, night-1, night-2, night-3"
    )
    cell = week.heat.rows[4].cells[6]
    assert cell is not None
    assert describe_cell(week, week.heat.rows[4], 6, cell) == "Sun 2026-11-29 04:00: none"


def test_hours_that_the_clocks_skip_or_repeat_are_named() -> None:
    """The second one of a name is `again`."""
    spring = make(first=date(2026, 3, 27), zone="Europe/Oslo").heat
    assert has_gaps(spring)
    autumn = make(first=date(2026, 10, 24), zone="Europe/Oslo").heat
    assert not has_gaps(autumn)
    assert [name_row(row) for row in autumn.rows[2:4]] == ["02:00", "again"]
    assert name_time(autumn, autumn.rows[3], 1) == "Sun 2026-10-25 02:00 again"


def test_days_after_the_last_one_are_refused() -> None:
    """Rather than shown as empty."""
    with pytest.raises(ValueError, match="there is no 9999-12-31 in GMT"):
        make(first=date(9999, 12, 31), step=5)


def test_names_fit_where_they_are_said() -> None:
    """One in any case, five at the most, and all where they are few."""
    assert name_some(("a", "b", "c"), 16) == "a, b, c"
    assert name_some(("first", "second"), 13) == "first, second"
    assert name_some(("first", "second"), 12) == "first and 1 more"
    assert name_some(("first", "second"), 1) == "first and 1 more"
    assert name_some(tuple("abcdefg")) == "a, b, c, d, e and 2 more"


def test_levels_are_named_by_their_numbers() -> None:
    """Empty ones are left out."""
    assert name_levels((3, 3, 4, 8)) == [(1, "1-3"), (3, "4"), (4, "5-8")]


def test_the_limit_says_how_it_is_known() -> None:
    """Where the role cannot see it, it is taken for the usual one."""
    assert describe_limit(Capacity(limit=5, known=True)) == (
        "the server runs 5 at once (cron.max_running_jobs)"
    )
    assert describe_limit(Capacity(limit=32, known=False)).endswith("is taken for 32")
