"""Draw a heat map as SVG: one file alone, for light and dark pages, the same bytes each time."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from reconciler.core.times.calendars import (
    describe_calendar,
    describe_cell,
    describe_limit,
    has_crowds,
    name_columns,
    name_levels,
    name_row,
    name_some,
    name_time,
)
from reconciler.core.times.heat import find_level, find_levels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.times.calendars import Calendar
    from reconciler.core.times.heat import Cell, Row

_LEVELS: Final = 4
_LEFT: Final = 64
_TOP: Final = 76
_TALL: Final = 20
_WIDE: Final = {60: 96, 15: 168, 10: 112, 5: 56}
_HERDS: Final = 5
# The width of a letter, generously.
_LETTER: Final = 6.8
_LIGHT: Final = ("#eef1f4", "#b9d8f2", "#6fb0e6", "#2f7fc4", "#0f4c86")
_DARK: Final = ("#1d242c", "#16406b", "#1f69ad", "#4b9fe0", "#a9d4fa")
# What XML has no way to say, and what would be read as the end of something.
_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render_svg(calendar: Calendar) -> str:
    """Draw a calendar.

    Args:
        calendar: What there is.

    Returns:
        A whole SVG document. Each field tells its numbers and names where one points at it.
    """
    heat = calendar.heat
    width = _LEFT + len(name_columns(heat)) * _WIDE[heat.step] + 16
    below = _TOP + len(heat.rows) * _TALL + 12
    notes = [line for note in _list_notes(calendar) for line in wrap(note, int((width - 32) / _LETTER))]
    height = below + 26 + 18 * len(notes) + 8
    title = _spell(describe_calendar(calendar))
    size = f'width="{width}" height="{height}"'
    box = f'viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img" aria-labelledby="title desc">',
        f'<title id="title">{title}</title>',
        f'<desc id="desc">{_spell(_describe(calendar))}</desc>',
        f"<style>{_render_style()}</style>",
        f'<rect class="page" {size}/>',
        f'<text class="head" x="16" y="28">{title}</text>',
        *_render_grid(calendar),
        *_render_legend(calendar, below),
    ]
    for number, note in enumerate(notes):
        lines.append(f'<text x="16" y="{below + 44 + 18 * number}">{_spell(note)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _spell(text: str) -> str:
    """Spell a text so that XML reads it as text, whatever it holds."""
    return escape(_UNSPEAKABLE.sub("\ufffd", text), {'"': "&quot;"})


def _describe(calendar: Calendar) -> str:
    """Say for those who do not see it what the picture shows."""
    parts = ["How many jobs start, by hours and days; each field says its number."]
    if calendar.busiest:
        busy = calendar.busiest[0]
        parts.append(f"In the busiest minute {busy.count} start: {name_some(busy.names)}.")
    parts += [f"{note}." for note in _list_notes(calendar)]
    return " ".join(parts)


def _render_style() -> str:
    rules = [
        "text{font:12px system-ui,sans-serif}",
        ".head{font-size:15px;font-weight:600}",
        ".number{font-size:11px;text-anchor:end}",
        ".over{stroke-width:2}",
        *_render_colours(_LIGHT, page="#ffffff", text="#1b2126", over="#c62828", faint="#8a949e"),
        "@media (prefers-color-scheme:dark){",
        *_render_colours(_DARK, page="#0f1419", text="#dfe6ec", over="#ff7a70", faint="#7d8894"),
        "}",
    ]
    return "".join(rules)


def _render_colours(shades: tuple[str, ...], *, page: str, text: str, over: str, faint: str) -> Iterator[str]:
    yield f".page{{fill:{page}}}text{{fill:{text}}}.over{{stroke:{over}}}.gap{{fill:{faint}}}"
    for level, shade in enumerate(shades):
        # Numbers are read on the two darkest of light shades, and on the two lightest of dark ones.
        yield f".l{level}{{fill:{shade}}}"
        if level > 2:
            yield f".n{level}{{fill:{page}}}"


def _render_grid(calendar: Calendar) -> Iterator[str]:
    heat = calendar.heat
    wide = _WIDE[heat.step]
    for number, head in enumerate(name_columns(heat)):
        yield f'<text x="{_LEFT + number * wide + 2}" y="{_TOP - 10}">{head}</text>'
    levels = find_levels(heat, _LEVELS)
    for number, row in enumerate(heat.rows):
        y = _TOP + number * _TALL
        yield f'<text x="16" y="{y + 14}">{name_row(row)}</text>'
        for column, cell in enumerate(row.cells):
            x = _LEFT + column * wide
            if cell is not None:
                level = find_level(cell.starts, levels)
                yield _render_cell(calendar, row, column, cell, level=level, x=x, y=y)
            elif not row.again:
                yield (
                    f"<g><title>{name_time(heat, row, column)}: the clocks skip this time</title>"
                    f'<text class="gap" x="{x + 2}" y="{y + 14}">--</text></g>'
                )


def _render_cell(calendar: Calendar, row: Row, column: int, cell: Cell, *, level: int, x: int, y: int) -> str:
    wide = _WIDE[calendar.heat.step]
    over = " over" if cell.crowded else ""
    number = ""
    if cell.starts:
        number = f'<text class="number n{level}" x="{x + wide - 8}" y="{y + 13}">{cell.starts}</text>'
    size = f'width="{wide - 3}" height="{_TALL - 3}"'
    return (
        f"<g><title>{_spell(describe_cell(calendar, row, column, cell))}</title>"
        f'<rect class="l{level}{over}" x="{x + 1}" y="{y + 1}" {size} rx="3"/>'
        f"{number}</g>"
    )


def _render_legend(calendar: Calendar, y: int) -> Iterator[str]:
    x = 16
    for level, words in name_levels(find_levels(calendar.heat, _LEVELS)):
        yield f'<rect class="l{level}" x="{x}" y="{y}" width="18" height="14" rx="3"/>'
        yield f'<text x="{x + 24}" y="{y + 12}">{words}</text>'
        x += 24 + 8 * len(words) + 20
    if has_crowds(calendar.heat):
        yield f'<rect class="l0 over" x="{x}" y="{y}" width="18" height="14" rx="3"/>'
        yield f'<text x="{x + 24}" y="{y + 12}">more than {calendar.capacity.limit} in one minute</text>'


def _list_notes(calendar: Calendar) -> Iterator[str]:
    for herd in calendar.herds[:_HERDS]:
        advice = f"; {herd.advice}" if herd.advice else ""
        yield f"Herd {herd.when}: {herd.most} start in one minute{advice}"
    if len(calendar.herds) > _HERDS:
        yield f"and {len(calendar.herds) - _HERDS} more herds"
    if calendar.load.base:
        yield f"Not counted, since they start every few seconds: {name_some(calendar.load.base)}"
    if calendar.herds:
        yield describe_limit(calendar.capacity).capitalize()
