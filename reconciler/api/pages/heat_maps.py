"""When how many jobs start, as a picture in SVG that fits any width, and as a table; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from reconciler.core.markdown import reveal
from reconciler.core.times.calendars import (
    WEEK,
    describe_cell,
    has_crowds,
    name_columns,
    name_days,
    name_levels,
    name_row,
    name_time,
)
from reconciler.core.times.heat import find_level, find_levels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.times.calendars import Calendar
    from reconciler.core.times.heat import Cell, Row

_LEVELS: Final = 4
_TALL: Final = 19
_MANY: Final = 10_000
_SKIPPED: Final = "the clocks skip this time"


def draw_heat(calendar: Calendar) -> Markup:
    """Draw a calendar: shades and numbers, hours below one another, days or minutes side by side.

    Args:
        calendar: What there is.

    Returns:
        Names of the rows, and an SVG picture; each of its fields tells more where somebody points at it.
    """
    heat = calendar.heat
    wide = 100 / len(name_columns(heat))
    heads = Markup().join(
        Markup('<text class="head" x="{:.3f}%" y="12">{}</text>').format((number + 0.5) * wide, name)
        for number, name in enumerate(name_columns(heat))
    )
    levels = find_levels(heat, _LEVELS)
    # What is crowded comes last, so that no neighbour lies upon its border.
    fields = sorted(_draw_fields(calendar, wide, levels), key=lambda field: field[0])
    labels = Markup().join(Markup("<span>{}</span>").format(name_row(row)) for row in heat.rows)
    return Markup(
        '<div class="heat"><div class="hours" aria-hidden="true">{}</div>'
        '<svg height="{}" role="img" aria-label="{}">{}{}</svg></div>'
    ).format(
        labels,
        (len(heat.rows) + 1) * _TALL,
        describe_heat(calendar),
        heads,
        Markup().join(markup for _, markup in fields),
    )


def draw_scale(calendar: Calendar) -> Markup:
    """Draw what the shades mean.

    Args:
        calendar: What there is.

    Returns:
        One item for each level that the map has, and for what is crowded.
    """
    each = "an hour" if calendar.heat.step == WEEK else f"{calendar.heat.step} minutes"
    item = Markup(
        '<span class="state"><svg class="swatch" aria-hidden="true"><rect class="l{}"/></svg>{}</span>'
    )
    items = [item.format(level, words) for level, words in name_levels(find_levels(calendar.heat, _LEVELS))]
    if not calendar.heat.starts:
        return Markup("<span>Nothing starts.</span>")
    items.append(Markup("<span>starts in {}</span>").format(each))
    if has_crowds(calendar.heat):
        items.append(
            Markup('<span class="state text-bad"><b>!</b> more than {} in one minute</span>').format(
                calendar.capacity.limit
            )
        )
    return Markup(" ").join(items)


def describe_heat(calendar: Calendar) -> str:
    """Describe a calendar in words.

    Args:
        calendar: What there is.

    Returns:
        For instance `Mon 2026-11-23: 120 starts of 7 jobs, the most of them at 03:00 with 40; below it stands
        a table of all numbers`.
    """
    heat = calendar.heat
    said = f"{name_days(heat)}: {heat.starts:,} starts of {calendar.jobs:,} jobs"
    cells = [
        (cell.starts, -number, -column, name_time(heat, row, column))
        for number, row in enumerate(heat.rows)
        for column, cell in enumerate(row.cells)
        if cell and cell.starts
    ]
    if cells:
        most, _, _, when = max(cells)
        said += f", the most of them from {when} on with {most:,}"
    return f"{said}; a table below has all numbers"


def draw_table(calendar: Calendar) -> Markup:
    """Draw a calendar as a table, for those who do not see the picture, or want its numbers.

    Args:
        calendar: What there is.
    """
    heads = Markup().join(
        Markup('<th scope="col">{}</th>').format(name) for name in name_columns(calendar.heat)
    )
    rows = Markup().join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            name_row(row), Markup().join(_draw_number(row, cell) for cell in row.cells)
        )
        for row in calendar.heat.rows
    )
    return Markup(
        '<table class="numbers"><caption>Starts, {}. ! stands where more start in one minute than the server '
        'runs at once.</caption><thead><tr><th scope="col">From</th>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(name_days(calendar.heat), heads, rows)


def _draw_fields(calendar: Calendar, wide: float, levels: tuple[int, ...]) -> Iterator[tuple[bool, Markup]]:
    heat = calendar.heat
    for number, row in enumerate(heat.rows):
        y = (number + 1) * _TALL
        for column, cell in enumerate(row.cells):
            x = column * wide
            if cell is not None:
                said = reveal(describe_cell(calendar, row, column, cell))
                yield cell.crowded, _draw_field(cell, said, find_level(cell.starts, levels), (x, y), wide)
            elif not row.again:
                yield (
                    False,
                    Markup(
                        '<g><title>{}: {}</title><text class="head" x="{:.3f}%" y="{}">--</text></g>'
                    ).format(name_time(heat, row, column), _SKIPPED, x + wide / 2, y + 13),
                )


def _draw_field(cell: Cell, said: str, level: int, place: tuple[float, int], wide: float) -> Markup:
    x, y = place
    texts = Markup()
    if cell.starts:
        texts += Markup('<text class="n{}" x="{:.3f}%" dx="-5" y="{}">{}</text>').format(
            level, x + wide, y + 13, _shorten(cell.starts)
        )
    if cell.crowded:
        texts += Markup('<text class="sign n{}" x="{:.3f}%" dx="5" y="{}">!</text>').format(level, x, y + 13)
    shade = f"l{level} over" if cell.crowded else f"l{level}"
    return Markup(
        '<g><title>{}</title><rect class="{}" x="{:.3f}%" y="{}" width="{:.3f}%" height="{}" rx="4"/>{}</g>'
    ).format(said, shade, x, y, wide, _TALL, texts)


def _draw_number(row: Row, cell: Cell | None) -> Markup:
    if cell is None:
        return Markup("<td></td>") if row.again else Markup("<td>skipped</td>")
    return Markup("<td>{}{}</td>").format(f"{cell.starts:,}", Markup(" <b>!</b>") if cell.crowded else "")


def _shorten(number: int) -> str:
    return str(number) if number < _MANY else f"{number // 1000}k"
