"""How commands spell durations and instants: as the pages do."""

from __future__ import annotations

from reconciler.core.times.spelling import render_age, render_instant, render_length, render_local

__all__ = ["render_age", "render_instant", "render_length", "render_local"]
