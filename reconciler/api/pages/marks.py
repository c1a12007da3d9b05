"""The marks of states: each has a shape of its own, so that colour never tells them apart alone; pure."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

_SHAPES: Final = {
    "circle": "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9z",
    "ring": "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9zm0 1.7a2.8 2.8 0 1 1 0 5.6a2.8 2.8 0 0 1 0-5.6z",
    "cross": "M2.6 1.2L6 4.6L9.4 1.2L10.8 2.6L7.4 6L10.8 9.4L9.4 10.8L6 7.4L2.6 10.8L1.2 9.4L4.6 6L1.2 2.6z",
    "play": "M2.5 1.2L10.6 6L2.5 10.8z",
    "bars": "M2.2 1.5h2.9v9H2.2zM6.9 1.5h2.9v9H6.9z",
    "triangle": "M6 1L11.4 10.6H.6z",
    "diamond": "M6 .6L11.4 6L6 11.4L.6 6zM6 3.4L3.4 6L6 8.6L8.6 6z",
    "square": "M1.8 1.8h8.4v8.4H1.8z",
    "frame": "M1.6 1.6h8.8v8.8H1.6zM3.4 3.4v5.2h5.2V3.4z",
    "dash": "M1.5 4.9h9v2.2h-9z",
    "dots": "M.8 4.9h2.4v2.2H.8zM4.8 4.9h2.4v2.2H4.8zM8.8 4.9h2.4v2.2H8.8z",
}
_MARKS: Final = {
    "ok": ("good", "circle"),
    "succeeded": ("good", "circle"),
    "completed": ("good", "circle"),
    "resolved": ("good", "circle"),
    "failing": ("bad", "cross"),
    "failed": ("bad", "cross"),
    "timed_out": ("bad", "square"),
    "lost": ("bad", "diamond"),
    "missing": ("bad", "diamond"),
    "missed": ("bad", "triangle"),
    "open": ("bad", "triangle"),
    "slow": ("warn", "triangle"),
    "drifted": ("warn", "triangle"),
    "paused": ("warn", "bars"),
    "cancelled": ("warn", "frame"),
    "retired": ("warn", "frame"),
    "running": ("busy", "play"),
    "queued": ("busy", "dots"),
    "pending": ("busy", "dots"),
    "scheduled": ("busy", "dots"),
    "waiting": ("busy", "dots"),
    "skipped": ("quiet", "dash"),
    "inactive": ("quiet", "ring"),
    "no_entry": ("quiet", "dash"),
}


def draw_mark(state: str) -> Markup:
    """Draw the mark of a state; the word beside it says the same to those who do not see it.

    Args:
        state: Of a job, a run, a queued job or an alert.

    Returns:
        An SVG picture; a ring for a state that is not known.
    """
    tone, shape = _MARKS.get(state, ("quiet", "ring"))
    return Markup('<svg class="mark {}" viewBox="0 0 12 12" aria-hidden="true"><path d="{}"/></svg>').format(
        tone, _SHAPES[shape]
    )


def find_tone(state: str) -> str:
    """Find the tone of a state.

    Args:
        state: As `draw_mark` takes it.

    Returns:
        good, bad, warn, busy or quiet: a class of the stylesheet.
    """
    return _MARKS.get(state, ("quiet", ""))[0]
