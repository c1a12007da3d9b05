"""How many jobs start when: a day or a week as a map of hours, and its busiest minutes; pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from reconciler.core.times.clocks import find_zone
from reconciler.core.times.local_rules import LocalRule
from reconciler.core.times.minutes import MinuteFinder, Stretch, Tally, list_bits, list_segments, make_stretch
from reconciler.core.times.occurrences import UTC_NAMES, clock_of, find_runs
from reconciler.core.times.timings import Timing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.core.times.timetable import Scheduled

_HOUR: Final = 60
_DAY: Final = 1440
_LEAST_FACTOR: Final = 1.25
_MIDNIGHT: Final = LocalRule(minutes=frozenset((0,)), hours=frozenset((0,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs that start in the same minutes.

    Attributes:
        timing: Of all of them.
        names: Theirs.
        minutes: Of the stretch, as bits.
    """

    timing: Timing
    names: tuple[str, ...]
    minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """All starts of a stretch of time.

    Attributes:
        stretch: Of time.
        groups: The jobs by their timings, those left out that do not start in it.
        base: The names of those that pg_cron starts each few seconds all the time: they are counted nowhere
            else.
        tally: How many of the others start in each minute. One that starts each few seconds, but not always,
            counts once in a minute.
        finder: Of minutes.
    """

    stretch: Stretch
    groups: tuple[Group, ...]
    base: tuple[str, ...]
    tally: Tally
    finder: MinuteFinder

    def list_names(self, minutes: int) -> tuple[str, ...]:
        """List the names of the jobs that start in at least one of some minutes, sorted."""
        return tuple(
            sorted({name for group in self.groups if group.minutes & minutes for name in group.names})
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One field of a heat map.

    Attributes:
        starts: How many jobs start in it, each as often as it starts.
        most: How many start in its busiest minute.
        most_at: When the first such minute is, in UTC.
        crowded: Whether more start in one of its minutes than the server runs at once.
    """

    starts: int
    most: int
    most_at: datetime
    crowded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One hour of the clocks, on each of the days or in its parts.

    Attributes:
        hour: 0 to 23.
        again: Whether it is the second one of that name, after clocks were set back.
        cells: One for each column; None where the clocks skip it, or do not show it again.
    """

    hour: int
    again: bool
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A heat map.

    Attributes:
        zone: By whose clocks hours and days are meant.
        days: The days that are shown.
        step: How many minutes a column has; 60 where each column is a day.
        rows: Hours, ascending.
        starts: How many starts there are in all.
    """

    zone: str
    days: tuple[date, ...]
    step: int
    rows: tuple[Row, ...]
    starts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """A minute in which many jobs start.

    Attributes:
        at: The first one, in UTC.
        count: How many jobs start.
        names: Theirs, sorted.
        alike: In how many minutes of the stretch just these jobs start.
    """

    at: datetime
    count: int
    names: tuple[str, ...]
    alike: int


def find_days(first: date, count: int, zone: str) -> tuple[datetime, ...]:
    """Find when days begin.

    Args:
        first: The first day.
        count: How many days.
        zone: By whose clocks.

    Returns:
        The first instant of each day, and of the one after the last, in UTC. A day that a zone left out, when
        it changed sides of the date line, is none.

    Raises:
        ValueError: There is no such zone.
    """
    local = find_zone("UTC" if zone in UTC_NAMES else zone)
    midnights = Timing(zone=zone, rule=_MIDNIGHT, ambiguous="first", nonexistent="next")
    early = datetime.combine(first, time(), UTC) - timedelta(days=2)
    begins = find_runs(midnights, after=early, count=count + 6)
    return tuple(at for at in begins if at.astimezone(local).date() >= first)[: count + 1]


def make_load(scheduled: Iterable[Scheduled], stretch: Stretch) -> Load:
    """Add up what starts in a stretch of time.

    Args:
        scheduled: What a clock starts. What is inactive or has no entry does not count; a pause changes
            nothing, since the entries of paused jobs fire all the same.
        stretch: Of time.

    Returns:
        The load.

    Raises:
        ValueError: A zone is unknown on this machine.
    """
    shared: defaultdict[Timing, list[str]] = defaultdict(list)
    for each in scheduled:
        if each.active and (each.schedule or each.timing.once is not None):
            shared[each.timing].append(each.name)
    finder = MinuteFinder(stretch)
    tally = Tally()
    groups: list[Group] = []
    base: list[str] = []
    for timing, names in shared.items():
        if timing.seconds and not timing.has_limits:
            base += names
            continue
        minutes = finder.find(timing)
        if minutes:
            tally.add(minutes, len(names))
            groups.append(Group(timing=timing, names=tuple(names), minutes=minutes))
    return Load(stretch=stretch, groups=tuple(groups), base=tuple(sorted(base)), tally=tally, finder=finder)


def make_heat(
    load: Load, begins: tuple[datetime, ...], zone: str, *, step: int = _HOUR, crowded: int = 0
) -> Heat:
    """Make a heat map.

    Args:
        load: Of the days that are shown.
        begins: When each day begins, and the one after the last, as `find_days` has them.
        zone: By whose clocks.
        step: How many minutes a column has, a divisor of 60 less than it, for one day; 60 for a column a day.
        crowded: The minutes in which more jobs start than the server runs at once, as bits.

    Returns:
        The map, which holds all starts of those days.

    Raises:
        ValueError: There is no such zone.
    """
    local = find_zone("UTC" if zone in UTC_NAMES else zone)
    days = tuple(begin.astimezone(local).date() for begin in begins[:-1])
    columns = range(len(days)) if step == _HOUR else range(_HOUR // step)
    places: defaultdict[tuple[int, bool, int], int] = defaultdict(int)
    clock = clock_of(zone)
    for number, (begin, end) in enumerate(pairwise(begins)):
        day = make_stretch(begin, end)
        for segment in list_segments(clock, day.first, day.stop):
            low = segment.first
            while low < segment.stop:
                wall = low + segment.ahead
                high = min(low + step - wall % step, segment.stop)
                column = number if step == _HOUR else wall % _HOUR // step
                bits = (1 << high - load.stretch.first) - (1 << low - load.stretch.first)
                places[wall % _DAY // _HOUR, segment.again, column] |= bits
                low = high
    shown = {place: _make_cell(load, minutes, crowded) for place, minutes in places.items()}
    hours = sorted({(hour, again) for hour, again, _ in shown} | {(hour, False) for hour in range(24)})
    rows = tuple(
        Row(hour=hour, again=again, cells=tuple(shown.get((hour, again, column)) for column in columns))
        for hour, again in hours
    )
    return Heat(
        zone=zone, days=days, step=step, rows=rows, starts=sum(cell.starts for cell in shown.values())
    )


def find_busiest(load: Load, count: int) -> tuple[Busy, ...]:
    """Find the busiest minutes.

    Args:
        load: Of the stretch.
        count: How many are wanted; those in which the same jobs start are one.

    Returns:
        The busiest first, the earlier one first of two that are equal.
    """
    found: list[Busy] = []
    left = load.stretch.all
    while len(found) < count:
        most, minutes = load.tally.find_most(left)
        if not most:
            break
        first = minutes & -minutes
        # Where all of these start, no other one does: busier minutes were taken before.
        alike = left
        for group in load.groups:
            if group.minutes & first:
                alike &= group.minutes
        found.append(
            Busy(
                at=load.stretch.instant(list_bits(first)[0]),
                count=most,
                names=load.list_names(first),
                alike=alike.bit_count(),
            )
        )
        left &= ~alike
    return tuple(found)


def find_levels(heat: Heat, count: int) -> tuple[int, ...]:
    """Find up to how many starts a cell is of each level, so that few and many are both told apart.

    Args:
        heat: The map.
        count: How many levels; cells without starts are of none.

    Returns:
        The highest number of each level, ascending; each begins after the one before, and may be empty. Each
        level's numbers are higher by the same factor, and by a quarter at least: a load that hardly changes
        is of one level.
    """
    numbers = [cell.starts for row in heat.rows for cell in row.cells if cell and cell.starts]
    if not numbers:
        return (0,) * count
    low, high = min(numbers), max(numbers)
    factor = max((high / low) ** (1 / count), _LEAST_FACTOR)
    return (*(min(int(low * factor**number), high) for number in range(1, count)), high)


def find_level(starts: int, levels: tuple[int, ...]) -> int:
    """Find the level of a cell, from 1; 0 for one without starts."""
    return bisect_left(levels, starts) + 1 if starts else 0


def _make_cell(load: Load, minutes: int, crowded: int) -> Cell:
    most, where = load.tally.find_most(minutes)
    return Cell(
        starts=load.tally.add_up(minutes),
        most=most,
        most_at=load.stretch.instant((where & -where).bit_length() - 1),
        crowded=bool(minutes & crowded),
    )
