"""How close together the runs of a timing come; pure."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from reconciler.core.times.occurrences import iterate_runs

if TYPE_CHECKING:
    from reconciler.core.times.timings import Timing

_HOUR: Final = timedelta(hours=1)
# No job of this tool ran earlier. Not the present, so that a check of files gives the same each day.
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
# Two weeks of a job that runs each minute.
_LOOK: Final = 20_000


def find_crowd(timing: Timing, limit: int) -> int:
    """Find whether there are ever more runs within sixty minutes than a limit.

    Args:
        timing: Any; runs of `after`, retries and runs that people ask for are no part of it.
        limit: The most runs, at least 1.

    Returns:
        How many there are in the first sixty minutes with more; 0 where none have.

    Raises:
        ValueError: There is no such zone.
    """
    if timing.once is not None or timing.word or not _may_exceed(timing, limit):
        return 0
    recent: deque[datetime] = deque()
    for run in islice(iterate_runs(timing, after=_START), _LOOK):
        if len(recent) > limit and run - recent[0] >= _HOUR:
            return len(recent)
        while recent and run - recent[0] >= _HOUR:
            recent.popleft()
        recent.append(run)
    return len(recent) if len(recent) > limit else 0


def _may_exceed(timing: Timing, limit: int) -> bool:
    """Tell quickly for nearly all that they cannot."""
    if timing.seconds:
        return _HOUR.total_seconds() / timing.seconds > limit
    if timing.interval:
        return -(_HOUR // -timing.interval) > limit
    # Any sixty minutes hold each minute of an hour once.
    return timing.rule is not None and len(timing.rule.minutes) > limit
