"""How many jobs a queue finished, minute by minute or hour by hour, as a chart in SVG; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from markupsafe import Markup

from reconciler.core.times.spelling import render_instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.database.throughput import Span

_HEIGHT: Final = 96
_TOP: Final = 4


def draw_flow(spans: Sequence[Span], unit: Literal["minute", "hour"]) -> Markup:
    """Draw what was finished in each span, the oldest on the left; what failed stands on top, with a gap.

    Args:
        spans: Of one length, the oldest first; at least one.
        unit: How long each is.

    Returns:
        A scale and an SVG picture; its label says the same in words.
    """
    top = max((_count(span) for span in spans), default=0)
    scale = _find_round(top)
    width = 100 / len(spans)
    bars = Markup().join(_draw_span(span, place * width, width, scale) for place, span in enumerate(spans))
    grid = Markup().join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{0:g}" y2="{0:g}"/>').format(y)
        for y in (_TOP, (_HEIGHT + _TOP) / 2, _HEIGHT)
    )
    labels = Markup("<span>{:,}</span><span></span><span>0</span>").format(scale)
    return Markup(
        '<div class="plot flow"><div class="ticks" aria-hidden="true">{}</div>'
        '<svg class="chart" height="{}" role="img" aria-label="{}">{}{}</svg></div>'
    ).format(labels, _HEIGHT + 1, describe_flow(spans, unit), grid, bars)


def describe_flow(spans: Sequence[Span], unit: Literal["minute", "hour"]) -> str:
    """Describe the spans in words.

    Args:
        spans: As `draw_flow` takes them.
        unit: Likewise.

    Returns:
        For instance `Jobs by minute, the last 60: 1,200 finished, 3 failed; at most 40 in a minute`.
    """
    known = [span for span in spans if span.finished is not None]
    finished = sum(span.finished or 0 for span in known)
    failed = sum(span.failed or 0 for span in known)
    most = max((_count(span) for span in known), default=0)
    unknown = len(spans) - len(known)
    rest = f"; {unknown} of them not counted" if unknown else ""
    return (
        f"Jobs by {unit}, the last {len(spans)}: {finished:,} finished, {failed:,} failed; "
        f"at most {most:,} in one{rest}"
    )


def _count(span: Span) -> int:
    return (span.finished or 0) + (span.failed or 0)


def _find_round(top: int) -> int:
    """Find the next number of the series 1, 2, 5, 10 that is no less."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if top <= step * size:
                return step * size
        size *= 10


def _draw_span(span: Span, left: float, width: float, scale: int) -> Markup:
    if span.finished is None:
        return Markup()
    said = f"{render_instant(span.at)} · {span.finished:,} finished · {span.failed or 0:,} failed"
    room = _HEIGHT - _TOP
    good = span.finished / scale * room
    bad = (span.failed or 0) / scale * room
    shapes = Markup()
    if good:
        shapes += Markup(
            '<rect class="good" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"/>'
        ).format(left, _HEIGHT - max(good, 1.5), width * 0.78, max(good, 1.5))
    if bad:
        height = max(bad - 2, 3)
        shapes += Markup('<rect class="bad" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"/>').format(
            left, _HEIGHT - good - 2 - height if good else _HEIGHT - height, width * 0.78, height
        )
    return Markup("<g><title>{}</title>{}</g>").format(said, shapes) if shapes else shapes
