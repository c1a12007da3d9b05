"""Show a heat map, its busiest minutes and its herds as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from reconciler.cli.render_text import clean
from reconciler.cli.times import render_local
from reconciler.core.times.calendars import (
    describe_calendar,
    describe_limit,
    has_crowds,
    has_gaps,
    name_columns,
    name_levels,
    name_row,
    name_some,
)
from reconciler.core.times.heat import find_level, find_levels
from reconciler.core.times.herd_times import DAYS
from reconciler.core.times.herds import render_spreads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.times.calendars import Calendar
    from reconciler.core.times.heat import Cell, Heat

_BLOCKS: Final = "·░▒▓█"
_LETTERS: Final = ".:+*#"
_COLOURS: Final = (None, "blue", "cyan", "green", "yellow")
_LABEL: Final = 7
_WIDEST: Final = 12
_HERDS: Final = 5
_LINES: Final = 20


def pick_step(width: int) -> int:
    """Pick how many minutes a column of a day has, so that numbers fit beside the shades.

    Args:
        width: Of the terminal, in characters.

    Returns:
        5, 10 or 15.
    """
    return next((step for step in (5, 10) if (width - _LABEL) // (60 // step) >= 6), 15)


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
        describe_calendar(calendar),
        "\n".join(_render_map(calendar.heat, width, plain)),
        "\n".join(_render_notes(calendar, plain)),
        "\n".join(_render_busiest(calendar, width)),
        "\n".join(_render_herds(calendar, width)),
    ]
    return "\n\n".join(part for part in parts if part)


def _render_map(heat: Heat, width: int, plain: bool) -> Iterator[str]:
    heads = name_columns(heat)
    size = max(min((width - _LABEL) // len(heads), _WIDEST), 2)
    line = " " * _LABEL + "".join(f"{head[: size - 1]:<{size}}" for head in heads)
    yield click.style(line.rstrip(), bold=True)
    levels = find_levels(heat, len(_COLOURS) - 1)
    digits = len(str(max((cell.starts for row in heat.rows for cell in row.cells if cell), default=0)))
    for row in heat.rows:
        cells = [_render_cell(cell, levels, size - 1, digits, plain=plain) for cell in row.cells]
        yield f"{name_row(row):<{_LABEL}}{' '.join(cells)}".rstrip()


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
        for level, words in name_levels(levels)
    ]
    marks = [row.again for row in heat.rows]
    line = "  ".join(parts) + f" starts in the {each}" if parts else "Nothing starts."
    if has_crowds(heat):
        line += f"  {_warn('!')} more than {calendar.capacity.limit} in one minute"
    yield line
    if has_gaps(heat):
        yield "-- the clocks skip this time"
    if any(marks):
        yield "again: the clocks show this hour a second time"
    base = calendar.load.base
    if base:
        yield f"Not counted, since they start every few seconds: {clean(name_some(base))}"
    if calendar.paused:
        yield f"Paused, and counted all the same: {calendar.paused}"


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
