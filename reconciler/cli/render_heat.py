"""Show a heat map, its busiest minutes and its herds as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from reconciler.cli.render_text import clean
from reconciler.cli.times import render_local
from reconciler.core.names import list_some
from reconciler.core.times.heat import find_level, find_levels
from reconciler.core.times.herd_times import DAYS
from reconciler.core.times.herds import render_spreads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reconciler.core.specs import Place
    from reconciler.core.times.heat import Busy, Cell, Heat, Load
    from reconciler.core.times.herds import Capacity, Herd

_BLOCKS: Final = "·░▒▓█"
_LETTERS: Final = ".:+*#"
_COLOURS: Final = (None, "blue", "cyan", "green", "yellow")
_LABEL: Final = 7
_WIDEST: Final = 12
_NAMES: Final = 5
_HERDS: Final = 5
_LINES: Final = 20


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
    places: Mapping[str, Place]


def pick_step(width: int) -> int:
    """Pick how many minutes a column of a day has, so that numbers fit beside the shades.

    Args:
        width: Of the terminal, in characters.

    Returns:
        5, 10 or 15.
    """
    return next((step for step in (5, 10) if (width - _LABEL) // (60 // step) >= 6), 15)


def render_title(calendar: Calendar) -> str:
    """Render what is shown: how many starts of how many jobs, where, when and by whose clocks."""
    heat = calendar.heat
    days = f"{heat.days[0]:%a %Y-%m-%d}" + (f" to {heat.days[-1]:%a %Y-%m-%d}" if len(heat.days) > 1 else "")
    jobs = f"{calendar.jobs} job{'' if calendar.jobs == 1 else 's'}"
    starts = f"{heat.starts} start{'' if heat.starts == 1 else 's'}"
    return f"{calendar.target}: {starts} of {jobs}, {days}, {heat.zone}"


def render_columns(heat: Heat) -> list[str]:
    """Render the heads of the columns: days, or minutes of the hour."""
    if heat.step == 60:
        return [f"{day:%a %d}" for day in heat.days]
    return [f":{minute:02d}" for minute in range(0, 60, heat.step)]


def render_calendar(calendar: Calendar, *, width: int = 80, plain: bool = False) -> str:
    """Render everything.

    Args:
        calendar: What there is.
        width: Of the terminal, in characters.
        plain: Without characters beyond ASCII.

    Returns:
        Lines, some with colours.
    """
    parts = [
        render_title(calendar),
        "\n".join(_render_map(calendar.heat, width, plain)),
        "\n".join(_render_notes(calendar, plain)),
        "\n".join(_render_busiest(calendar, width)),
        "\n".join(_render_herds(calendar, width)),
    ]
    return "\n\n".join(part for part in parts if part)


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


def _render_map(heat: Heat, width: int, plain: bool) -> Iterator[str]:
    heads = render_columns(heat)
    size = max(min((width - _LABEL) // len(heads), _WIDEST), 2)
    line = " " * _LABEL + "".join(f"{head[: size - 1]:<{size}}" for head in heads)
    yield click.style(line.rstrip(), bold=True)
    levels = find_levels(heat, len(_COLOURS) - 1)
    digits = len(str(max((cell.starts for row in heat.rows for cell in row.cells if cell), default=0)))
    for row in heat.rows:
        label = "again" if row.again else f"{row.hour:02d}:00"
        cells = [_render_cell(cell, levels, size - 1, digits, plain=plain) for cell in row.cells]
        yield f"{label:<{_LABEL}}{' '.join(cells)}".rstrip()


def _render_cell(cell: Cell | None, levels: tuple[int, ...], room: int, digits: int, *, plain: bool) -> str:
    """Render one cell: a shade, its number where there is room, and a mark where too many start at once."""
    if cell is None:
        return "-" * min(room, 2) + " " * (room - 2)
    level = find_level(cell.starts, levels)
    sign = (_LETTERS if plain else _BLOCKS)[level]
    mark = "!" if cell.crowded else " "
    if room < digits + 2:
        # The mark takes a place of the shade where there is no other.
        shade = sign * (room - cell.crowded) if level else sign.ljust(room - cell.crowded)
        return click.style(shade, fg=_COLOURS[level]) + _warn(mark.strip())
    wide = room - digits - 1
    shade = sign * (wide - (wide > 2)) if level else sign
    number = f"{cell.starts:>{digits}}" if cell.starts else " " * digits
    return click.style(shade.ljust(wide), fg=_COLOURS[level]) + number + _warn(mark)


def _warn(mark: str) -> str:
    return click.style(mark, fg="red", bold=True) if mark.strip() else mark


def _render_notes(calendar: Calendar, plain: bool) -> Iterator[str]:
    heat = calendar.heat
    each = "hour" if heat.step == 60 else f"{heat.step} minutes"
    levels = find_levels(heat, len(_COLOURS) - 1)
    parts = [
        f"{click.style((_LETTERS if plain else _BLOCKS)[level], fg=_COLOURS[level])} {words}"
        for level, words in list_level_words(levels)
    ]
    marks = [row.again for row in heat.rows]
    line = "  ".join(parts) + f" starts in the {each}" if parts else "Nothing starts."
    if any(cell.crowded for row in heat.rows for cell in row.cells if cell):
        line += f"  {_warn('!')} more than {calendar.capacity.limit} in one minute"
    yield line
    if any(cell is None for row in heat.rows for cell in row.cells if not row.again):
        yield "-- the clocks skip this time"
    if any(marks):
        yield "again: the clocks show this hour a second time"
    base = calendar.load.base
    if base:
        yield f"Not counted, since they start every few seconds: {clean(name_some(base))}"
    if calendar.paused:
        yield f"Paused, and counted all the same: {calendar.paused}"


def list_level_words(levels: tuple[int, ...]) -> list[tuple[int, str]]:
    """List the levels that a map has, each with its numbers in words."""
    found, low = [], 1
    for number, high in enumerate(levels, 1):
        if high >= low:
            found.append((number, str(high) if high == low else f"{low}-{high}"))
            low = high + 1
    return found


def _render_busiest(calendar: Calendar, width: int) -> Iterator[str]:
    if calendar.busiest:
        yield click.style("Busiest minutes", bold=True)
    for busy in calendar.busiest:
        alike = f" ({busy.alike} times)" if busy.alike > 1 else ""
        head = f"  {render_local(busy.at, calendar.heat.zone)}  {busy.count:>3}  "
        yield f"{head}{clean(name_some(busy.names, width - len(head) - len(alike)))}{alike}"


def _render_herds(calendar: Calendar, width: int) -> Iterator[str]:
    limit = describe_limit(calendar.capacity)
    if not calendar.herds:
        yield f"No herds: at most {calendar.most} start in one minute of {DAYS} days; {limit}"
        return
    yield click.style("Herds", bold=True) + f" within {DAYS} days; {limit}"
    for herd in calendar.herds[:_HERDS]:
        head = f"{herd.when}: {herd.most} start, "
        yield f"  {_warn('!')} {head}{clean(name_some(herd.names, width - 4 - len(head)))}"
        if herd.advice:
            yield f"    {herd.advice}"
        if herd.spread:
            lines = render_spreads(herd, calendar.places).splitlines()
            yield from (f"      {line}" for line in lines[:_LINES])
            if len(lines) > _LINES:
                yield f"      # and {len(lines) - _LINES} more: --json has them all"
    if len(calendar.herds) > _HERDS:
        yield f"  and {len(calendar.herds) - _HERDS} more herds: --json has them all"


def describe_limit(capacity: Capacity) -> str:
    """Say how many jobs the server runs at once, and how that is known."""
    if capacity.known:
        return f"the server runs {capacity.limit} at once (cron.max_running_jobs)"
    return f"the server's cron.max_running_jobs cannot be seen and is taken for {capacity.limit}"
