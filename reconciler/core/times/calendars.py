"""A day or a week of starts with its busiest minutes and its herds, and the words for them; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reconciler.core.names import list_some
from reconciler.core.times.heat import find_busiest, find_days, make_heat, make_load
from reconciler.core.times.herds import find_crowded, find_herds, make_herd_load
from reconciler.core.times.minutes import make_stretch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date

    from reconciler.core.specs import Place
    from reconciler.core.times.heat import Busy, Cell, Heat, Load, Row
    from reconciler.core.times.herds import Capacity, Herd
    from reconciler.core.times.timetable import Scheduled

WEEK: Final = 60
"""The minutes of a column that make a calendar one of a week; fewer make it one of a day."""
_BUSIEST: Final = 5
_NAMES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """What there is to show.

    Attributes:
        target: The target's name.
        heat: The map.
        load: What it was made of.
        jobs: How many jobs, workers and entries start in it.
        paused: How many of them are paused.
        busiest: Minutes.
        herds: Of the days to come, from the first one shown.
        most: How many jobs start in the busiest minute of those days, with those that run all the time.
        capacity: How many jobs the server runs at once.
        places: Where jobs are declared that can be given a spread.
    """

    target: str
    heat: Heat
    load: Load
    jobs: int
    paused: int
    busiest: tuple[Busy, ...]
    herds: tuple[Herd, ...]
    most: int
    capacity: Capacity
    places: Mapping[str, Place] = field(default_factory=dict)


def make_calendar(
    scheduled: Sequence[Scheduled],
    *,
    target: str,
    first: date,
    zone: str,
    capacity: Capacity,
    step: int = WEEK,
    places: Mapping[str, Place] | None = None,
    only: Collection[str] = (),
) -> Calendar:
    """Make a calendar.

    Args:
        scheduled: All that a clock starts on the target.
        target: Its name.
        first: The first day that is shown.
        zone: By whose clocks.
        capacity: How many jobs the server runs at once.
        step: `WEEK`, or how many minutes a column of one day has.
        places: Where jobs are declared that can be given a spread; None advises nothing.
        only: The names that are shown; none for all. Others count for herds all the same.

    Returns:
        The calendar.

    Raises:
        ValueError: There is no such day, or the zone is unknown on this machine.
    """
    begins = find_days(first, 7 if step == WEEK else 1, zone)
    if not begins[:-1]:
        raise ValueError(f"there is no {first} in {zone}")
    shown = [each for each in scheduled if not only or each.name in only]
    load = make_load(shown, make_stretch(begins[0], begins[-1]))
    everything = make_herd_load(scheduled, first, zone)
    starting = {*load.base, *load.list_names(load.stretch.all)}
    return Calendar(
        target=target,
        heat=make_heat(load, begins, zone, step=step, crowded=find_crowded(everything, capacity)),
        load=load,
        jobs=len(starting),
        paused=sum(each.paused and each.name in starting for each in shown),
        busiest=find_busiest(load, _BUSIEST),
        herds=tuple(
            herd
            for herd in find_herds(everything, zone, capacity, places)
            if not only or not set(only).isdisjoint(herd.names)
        ),
        most=everything.tally.find_most(everything.stretch.all)[0] + len(everything.base),
        capacity=capacity,
        places=places or {},
    )


def name_days(heat: Heat) -> str:
    """Name the days that are shown, such as `Mon 2026-11-23 to Sun 2026-11-29`."""
    ends = [heat.days[0], heat.days[-1]] if len(heat.days) > 1 else [heat.days[0]]
    return " to ".join(f"{day:%a %Y-%m-%d}" for day in ends)


def name_columns(heat: Heat) -> list[str]:
    """Name the columns: days, or minutes of the hour."""
    if heat.step == WEEK:
        return [f"{day:%a %d}" for day in heat.days]
    return [f":{minute:02d}" for minute in range(0, 60, heat.step)]


def name_row(row: Row) -> str:
    """Name a row by its hour, the second one of a name `again`."""
    return "again" if row.again else f"{row.hour:02d}:00"


def name_time(heat: Heat, row: Row, column: int) -> str:
    """Name what a cell stands for, such as `Mon 2026-11-23 03:00`."""
    is_week = heat.step == WEEK
    day, minute = heat.days[column if is_week else 0], 0 if is_week else column * heat.step
    return f"{day:%a %Y-%m-%d} {row.hour:02d}:{minute:02d}{' again' if row.again else ''}"


def name_levels(levels: Sequence[int]) -> list[tuple[int, str]]:
    """Name the levels that a map has, each with its numbers in words.

    Args:
        levels: As `find_levels` has them.
    """
    found, low = [], 1
    for number, high in enumerate(levels, 1):
        if high >= low:
            found.append((number, str(high) if high == low else f"{low}-{high}"))
            low = high + 1
    return found


def name_some(names: Sequence[str], room: int = 80) -> str:
    """Name the first of many.

    Args:
        names: All of them, at least one.
        room: How many characters there are; one name is said in any case.

    Returns:
        For instance `a, b and 3 more`; five names at the most.
    """
    for count in range(min(len(names), _NAMES), 0, -1):
        text = list_some(names, count)
        if len(text) <= room:
            break
    return text


def describe_calendar(calendar: Calendar) -> str:
    """Describe what is shown: how many starts of how many jobs, where, when and by whose clocks."""
    heat = calendar.heat
    jobs = f"{calendar.jobs} job{'' if calendar.jobs == 1 else 's'}"
    starts = f"{heat.starts} start{'' if heat.starts == 1 else 's'}"
    return f"{calendar.target}: {starts} of {jobs}, {name_days(heat)}, {heat.zone}"


def describe_cell(calendar: Calendar, row: Row, column: int, cell: Cell) -> str:
    """Describe a cell: when it is, how many start, and who does in its busiest minute."""
    when = name_time(calendar.heat, row, column)
    if not cell.starts:
        return f"{when}: none"
    minute = int(cell.most_at.timestamp()) // 60 - calendar.load.stretch.first
    names = name_some(calendar.load.list_names(1 << minute))
    crowded = ", more than the server runs at once" if cell.crowded else ""
    starts = f"{cell.starts} start{'' if cell.starts == 1 else 's'}"
    return f"{when}: {starts}; at most {cell.most} in one minute{crowded}: {names}"


def describe_limit(capacity: Capacity) -> str:
    """Say how many jobs the server runs at once, and how that is known."""
    if capacity.known:
        return f"the server runs {capacity.limit} at once (cron.max_running_jobs)"
    return f"the server's cron.max_running_jobs cannot be seen and is taken for {capacity.limit}"


def has_crowds(heat: Heat) -> bool:
    """Tell whether too many start at once in a cell of the map."""
    return any(cell.crowded for row in heat.rows for cell in row.cells if cell)


def has_gaps(heat: Heat) -> bool:
    """Tell whether the clocks skip a time of the map."""
    return any(cell is None for row in heat.rows for cell in row.cells if not row.again)
