"""Windows without runs, on the clocks of a place; pure."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.specs import Blackout

_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
_WHOLE: Final = (0, 1440)
# More than the days of a life: who has so many windows in a row has no end of them.
_LONGEST: Final = 10_000
NEVER: Final = datetime.max  # noqa: DTZ901 - a local time
"""When windows end that do not."""


def find_blackout_end(wall: datetime, windows: Sequence[Blackout]) -> datetime | None:
    """Find when runs may start again.

    Args:
        wall: A local time, naive.
        windows: Those of a job.

    Returns:
        The first later local time that is in no window; None where `wall` is in none, and `NEVER` where they
        do not end.
    """
    end = wall
    for _ in range(_LONGEST):
        reached = max((_find_end(end, window) for window in windows), default=end)
        if reached == end:
            return None if end == wall else end
        if reached == NEVER:
            break
        end = reached
    return NEVER


def _find_end(wall: datetime, window: Blackout) -> datetime:
    """Give the end of a window that is open at a time, and that time itself where it is not."""
    if (window.start, window.end) == _WHOLE and len(set(window.days)) in {0, 7}:
        return _find_last_end(wall, window)
    today = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    latest = wall
    for midnight in (today - _DAY, today):
        start, end = midnight + window.start * _MINUTE, midnight + window.end * _MINUTE
        if window.end <= window.start:
            end += _DAY
        if start <= wall < end and _begins_on(midnight, window):
            latest = max(latest, end)
    return latest


def _find_last_end(wall: datetime, window: Blackout) -> datetime:
    """The same for whole days in a row, however many."""
    if not _begins_on(wall, window):
        return wall
    if window.last is None or window.last == date.max:
        return NEVER
    return datetime.combine(window.last, time()) + _DAY


def _begins_on(day: datetime, window: Blackout) -> bool:
    on = day.date()
    return (
        (window.first is None or window.first <= on)
        and (window.last is None or on <= window.last)
        and (not window.days or on.isoweekday() % 7 in window.days)
    )
