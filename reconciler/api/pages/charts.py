"""How long runs took, as a chart in SVG that fits any width: places are hundredths of it; pure."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from reconciler.core.times.spelling import render_instant, render_length

from .marks import find_tone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.database.runs import Run

_HEIGHT: Final = 150
_TOP: Final = 16
_SLOTS: Final = 25
"""Fewer runs than so many stand on the right."""
_STEPS: Final = (1.0, 2.0, 5.0)
_SIXTIES: Final = (10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)


def draw_durations(runs: Sequence[Run], limit: timedelta | None = None) -> Markup:
    """Draw how long runs took, the oldest on the left.

    Args:
        runs: The newest first.
        limit: The time that a run has.

    Returns:
        A scale and an SVG picture, in which runs that failed bear a cross; nothing where no run is over.
    """
    over = [run for run in runs if run.duration is not None]
    if not over:
        return Markup()
    longest = max(run.duration.total_seconds() for run in over if run.duration is not None)
    top = find_top(longest)
    slots = max(len(over), _SLOTS)
    bars = Markup().join(_draw_run(run, slots - 1 - place, slots, top) for place, run in enumerate(over))
    lines = [top, top / 2, 0.0]
    grid = Markup().join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{0:g}" y2="{0:g}"/>').format(_find_y(value, top))
        for value in lines
    )
    labels = Markup().join(Markup("<span>{}</span>").format(_spell(value)) for value in lines)
    return Markup(
        '<div class="plot"><div class="ticks" aria-hidden="true">{}</div>'
        '<svg class="chart" height="{}" role="img" aria-label="{}">{}{}{}</svg></div>'
    ).format(labels, _HEIGHT + 1, describe_durations(over), grid, bars, _draw_limit(limit, top))


def describe_durations(runs: Sequence[Run]) -> str:
    """Describe in words how long runs took.

    Args:
        runs: That are over; at least one, the newest first.

    Returns:
        For instance `How long 50 runs took: half of them at most 1.2 s, the longest 8.9 s; 2 failed`.
    """
    lengths = sorted(run.duration for run in runs if run.duration is not None and run.status != "skipped")
    counts = Counter(run.status.replace("_", " ") for run in runs if run.status != "succeeded")
    others = "".join(f"; {count} {status}" for status, count in counts.most_common())
    if not lengths:
        return f"{len(runs)} run{'' if len(runs) == 1 else 's'}{others}"
    half = timedelta(seconds=median(length.total_seconds() for length in lengths))
    return (
        f"How long {'a run' if len(runs) == 1 else f'{len(runs)} runs'} took: half of them at most "
        f"{render_length(half)}, the longest {render_length(lengths[-1])}{others}"
    )


def find_top(longest: float) -> float:
    """Find where a scale ends that begins at nothing.

    Args:
        longest: Seconds.

    Returns:
        The next round number of seconds, minutes or hours.
    """
    if longest > _SIXTIES[-1]:
        hours = 3600.0
        while longest > hours:
            hours *= 2
        return hours
    if longest > _SIXTIES[0] / 2:
        return next(round_one for round_one in _SIXTIES if round_one >= longest)
    size = 1e-3
    while True:
        for step in _STEPS:
            if longest <= step * size:
                return step * size
        size *= 10


def _find_y(value: float, top: float) -> float:
    return _HEIGHT - value / top * (_HEIGHT - _TOP)


def _spell(value: float) -> str:
    return render_length(timedelta(seconds=value)).replace(".0 ", " ") if value else "0"


def _draw_run(run: Run, slot: int, slots: int, top: float) -> Markup:
    length = run.duration.total_seconds() if run.duration is not None else 0.0
    height = 4.0 if run.status == "skipped" else max(length / top * (_HEIGHT - _TOP), 2.0)
    left, width = slot / slots * 100, 72 / slots
    y = _HEIGHT - height
    bar = Markup(
        '<rect class="{}" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"><title>{}</title></rect>'
    ).format(find_tone(run.status), left, y, width, height, " · ".join(_tell(run)))
    if find_tone(run.status) != "bad":
        return bar
    return bar + Markup(
        '<svg x="{:.2f}%" y="{:.1f}" overflow="visible"><path class="signs" d="M-3-3L3 3M3-3L-3 3"/></svg>'
    ).format(left + width / 2, max(y - 7, 4))


def _tell(run: Run) -> Iterator[str]:
    yield f"run {run.id}"
    if run.run_at is not None:
        yield render_instant(run.run_at)
    yield run.status.replace("_", " ")
    if run.duration is not None and run.status != "skipped":
        yield render_length(run.duration)


def _draw_limit(limit: timedelta | None, top: float) -> Markup:
    if limit is None or limit.total_seconds() > top:
        return Markup()
    y = _find_y(limit.total_seconds(), top)
    return Markup(
        '<line class="limit" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>'
        '<text class="limit" x="100%" y="{1:.1f}" text-anchor="end">time limit {2}</text>'
    ).format(y, y - 3, render_length(limit))
