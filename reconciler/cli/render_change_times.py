"""Render what a change does in time as lines with labels, for text and Markdown; pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from reconciler.cli.times import render_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.core.change_times import ChangeTimes, TimesView

_UNITS: Final = (("day", 1.0), ("week", 7.0), ("month", 30.436875), ("year", 365.2425))


def list_lines(times: ChangeTimes) -> Iterator[tuple[str, str]]:
    """List what a change does in time, but for what to be warned of.

    Args:
        times: Of the change.

    Yields:
        A label (runs, next, rate) and what it is, before and after with an arrow between.
    """
    before, after = times.before, times.after
    if before is None and after is None:
        return
    words = [_render_words(view) for view in (before, after) if view is not None]
    if times.same_times:
        yield "runs", f"{words[-1]} (the same times as before)"
        return
    if after is None:
        words.append("no more")
    yield "runs", _join(words)
    if before is None or after is None:
        if after is not None and after.per_day and after.by_clock:
            yield "next", _render_runs(after)
        return
    yield "next", _join([_render_runs(before), _render_runs(after)])
    if before.per_day or after.per_day:
        yield "rate", _join([_render_often(before), _render_often(after)])


def list_warnings(times: ChangeTimes) -> Iterator[str]:
    """List what to be warned of: runs that are left out or come twice, and those that go on.

    Args:
        times: Of the change.

    Yields:
        One sentence each, without a full stop.
    """
    view = times.after or times.before
    zone = "UTC" if view is None else view.zone
    if times.last_run is not None and times.before is not None:
        last = render_local(times.last_run, times.before.zone)
        for run in times.doubled:
            yield f"was due at {last}, and would run again at {render_local(run, zone)}"
        if times.skipped:
            runs = ", ".join(render_local(run, times.before.zone) for run in times.skipped)
            many = len(times.skipped) > 1
            yield f"the run{'s' if many else ''} at {runs} would be left out; last due at {last}"
    fate = f"; {times.fate}" if times.fate else ""
    for going in times.running:
        since = render_local(going.run_at, zone)
        yield f"running now: run {going.run_id}, since {since}{fate}"


def render_rate(per_day: float) -> str:
    """Render how often something runs.

    Args:
        per_day: Runs on a usual day.

    Returns:
        For instance `24/day`, `5/week` or `1/month`: by the shortest unit that has a run.
    """
    if not per_day:
        return "none"
    for unit, days in _UNITS:
        if round(per_day * days, 1) >= 1:
            return f"{round(per_day * days, 1):g}/{unit}"
    return f"{per_day * _UNITS[-1][1]:.2g}/year"


def _join(sides: Sequence[str]) -> str:
    """Put an arrow between two sides; one is enough where they are alike."""
    return sides[0] if len(set(sides)) == 1 else " → ".join(sides)


def _render_words(view: TimesView) -> str:
    return view.words if view.active else f"{view.words} (inactive)"


@lru_cache(maxsize=4096)  # many changes share a few
def _render_runs(view: TimesView) -> str:
    if not view.active:
        return "none, inactive"
    if not view.next_runs:
        return "none to come" if view.by_clock else "none by the clock"
    return ", ".join(render_local(run, view.zone) for run in view.next_runs)


def _render_often(view: TimesView) -> str:
    rate = render_rate(view.per_day)
    return rate if view.woken_per_day is None else f"{rate} (woken {render_rate(view.woken_per_day)})"
