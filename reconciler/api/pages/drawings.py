"""Pictures of runs in SVG, made on the server: each says in words what it shows; pure."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from reconciler.core.times.spelling import render_length

from .marks import find_tone

if TYPE_CHECKING:
    from collections.abc import Sequence

_STEP: Final = 6
_WIDTH: Final = 4
_HEIGHT: Final = 22
_RUNS: Final = 20


def draw_sparkline(statuses: Sequence[str], seconds: Sequence[float | None]) -> Markup:
    """Draw the last runs as bars: how long they took, how they ended.

    A run that took as long as usual is of half height. One that failed is of full height, with a gap in it;
    one that was skipped is a line at the bottom.

    Args:
        statuses: Of at most twenty runs, the newest first.
        seconds: How long each took; None where it is not over.

    Returns:
        An SVG picture; nothing where there are no runs.
    """
    if not statuses:
        return Markup()
    top = _find_top(
        [length or 0.0 for status, length in zip(statuses, seconds, strict=True) if status == "succeeded"]
    )
    paths: dict[str, list[str]] = {}
    for place, (status, length) in enumerate(zip(statuses, seconds, strict=True)):
        left = (_RUNS - 1 - place) * _STEP
        paths.setdefault(find_tone(status), []).append(_draw_bar(left, status, length or 0.0, top))
    shapes = Markup().join(
        Markup('<path class="{}" d="{}"/>').format(tone, "".join(parts))
        for tone, parts in sorted(paths.items())
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} {1}" role="img" aria-label="{2}"><title>{2}</title>'
        '<path class="base" d="M0 {3}h{0}"/>{4}</svg>'
    ).format(_RUNS * _STEP, _HEIGHT, describe_runs(statuses, seconds), _HEIGHT - 0.5, shapes)


def describe_runs(statuses: Sequence[str], seconds: Sequence[float | None]) -> str:
    """Describe runs in words.

    Args:
        statuses: Of the runs, the newest first; at least one.
        seconds: How long each took.

    Returns:
        For instance `last 20 runs: 18 succeeded, 2 failed; the newest succeeded in 1.2 s`.
    """
    counts = Counter(statuses).most_common()
    told = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts)
    runs = "last run" if len(statuses) == 1 else f"last {len(statuses)} runs"
    length = "" if seconds[0] is None else f" in {render_length(timedelta(seconds=seconds[0]))}"
    return f"{runs}: {told}; the newest {statuses[0].replace('_', ' ')}{length}"


def _find_top(lengths: Sequence[float]) -> float:
    return max(*lengths, 2 * median(lengths)) if lengths else 0.0


def _draw_bar(left: int, status: str, length: float, top: float) -> str:
    if status == "skipped":
        return f"M{left} {_HEIGHT - 4}h{_WIDTH}v4h-{_WIDTH}z"
    if status == "succeeded":
        height = max(round(length / top * _HEIGHT, 1), 2) if top > 0 else 2
        return f"M{left} {_HEIGHT - height:g}h{_WIDTH}v{height:g}h-{_WIDTH}z"
    if status == "running":
        return f"M{left} 6l{_WIDTH + 1} 5l-{_WIDTH + 1} 5z"
    # A gap, so that it does not look like a long run without colours.
    return f"M{left} 0h{_WIDTH}v13h-{_WIDTH}zM{left} 17h{_WIDTH}v5h-{_WIDTH}z"
