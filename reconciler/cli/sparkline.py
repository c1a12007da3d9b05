"""A line of the last runs, one character each: how long they took, how they ended; pure but for colours."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_DIGITS = "12345678"
_SIGNS = {
    "failed": ("✗", "x", "red"),
    "timed_out": ("✗", "x", "red"),
    "lost": ("✗", "x", "red"),
    "cancelled": ("✗", "x", "yellow"),
    "skipped": ("·", ".", None),
    "running": ("»", ">", "cyan"),
}


def render_sparkline(statuses: Sequence[str], seconds: Sequence[float | None], *, plain: bool = False) -> str:
    """Render runs as one line.

    A run that took as long as usual is of half height: the scale goes to twice the median, or to the longest
    run where one took longer, so that a job that always takes the same shows an even line.

    Args:
        statuses: Of each run, the oldest first.
        seconds: How long each took; None where it is not over.
        plain: Without characters beyond ASCII: digits 1 to 8 stand for the heights.

    Returns:
        One character for each run, some with colours.
    """
    lengths = [
        length or 0.0 for status, length in zip(statuses, seconds, strict=True) if status not in _SIGNS
    ]
    top = max(*lengths, 2 * median(lengths)) if lengths else 0.0
    heights = _DIGITS if plain else _BLOCKS
    marks = []
    for status, length in zip(statuses, seconds, strict=True):
        sign = _SIGNS.get(status)
        if sign is None:
            marks.append(_pick_height(heights, length or 0.0, top))
        else:
            mark = sign[1] if plain else sign[0]
            marks.append(click.style(mark, fg=sign[2]) if sign[2] else mark)
    return "".join(marks)


def is_plain(*, encoding: str, is_terminal: bool, term: str) -> bool:
    """Tell whether only ASCII should be printed.

    Args:
        encoding: Of standard output.
        is_terminal: Whether standard output is one.
        term: What the environment calls the terminal.

    Returns:
        True for pipes and files, which programs read, and for terminals that cannot show blocks.
    """
    if not is_terminal or term == "dumb":
        return True
    try:
        (_BLOCKS + "".join(sign for sign, _, _ in _SIGNS.values())).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def _pick_height(heights: str, length: float, top: float) -> str:
    if top <= 0 or length <= 0:
        return heights[0]
    last = len(heights) - 1
    return heights[min(round(length / top * last), last)]
