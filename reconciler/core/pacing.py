"""How many jobs a worker claims ahead of its handlers; pure.

Claiming costs a round trip, whatever the number: a worker whose jobs take microseconds has to take hundreds
at once. A job that was claimed and waits is kept from other workers: one whose jobs take seconds takes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HORIZON: Final = 0.15
"""Seconds of work that are claimed ahead."""
MOST: Final = 1000
"""The most jobs of one claim."""
_MOST_AHEAD: Final = 2000
_MEMORY: Final = 0.5
_GROWTH: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How quickly jobs get done.

    Attributes:
        duration: Mean seconds that a job takes; None before the first has ended.
        rate: Jobs that ended in a second, over the last moments.
    """

    duration: float | None = None
    rate: float = 0.0


def measure_pace(before: Pace, *, ended: int, busy: float, elapsed: float, stuck: float = 0.0) -> Pace:
    """Learn from what ended since the last look.

    Args:
        before: What was known.
        ended: How many jobs ended since then.
        busy: Seconds that they took, each counted for itself.
        elapsed: Seconds since then.
        stuck: Seconds for which every handler has been at its job while others waited.

    Returns:
        What is known now. A burst of long jobs that end together counts as what they are, long.
    """
    duration, rate = before.duration, before.rate
    if ended:
        mean = busy / ended
        duration = mean if duration is None else duration + (mean - duration) * _MEMORY
    elif stuck > max(duration or 0.0, HORIZON):
        duration = stuck
    if elapsed > 0:
        now = ended / elapsed
        rate = now if now > rate else rate + (now - rate) * min(elapsed / _MEMORY, 1.0)
    return Pace(duration=duration, rate=rate)


def count_ahead(pace: Pace, *, concurrency: int) -> int:
    """Decide how many jobs may wait in the worker, besides those that its handlers are at.

    Args:
        pace: How quickly jobs get done.
        concurrency: How many it does at once.

    Returns:
        At most what gets done within the horizon; nothing as long as nothing is known.
    """
    if pace.duration is None:
        return 0
    possible = concurrency / pace.duration if pace.duration > 0 else float("inf")
    # What got done may have been limited by what was there: so more than that is taken, but not all at once.
    seen = max(pace.rate * _GROWTH, concurrency / HORIZON)
    return int(min(possible * HORIZON, seen * HORIZON, _MOST_AHEAD))


def count_claim(*, free: int, waiting: int, ahead: int) -> int:
    """Decide how many jobs to claim now.

    Args:
        free: Handlers that have nothing to do.
        waiting: Jobs that were claimed and have not begun.
        ahead: How many may wait.

    Returns:
        How many; 0 as long as it is not worth a round trip: what waits is more than half of what may.
    """
    lacking = free + ahead - waiting
    if lacking <= 0 or (waiting >= free and 2 * (waiting - free) > ahead):
        return 0
    return min(lacking, MOST)


def count_surplus(*, waiting: int, ahead: int, waited: float) -> int:
    """Decide how many jobs to give back that wait although they were to begin soon.

    Args:
        waiting: Jobs that were claimed and have not begun.
        ahead: How many may wait now.
        waited: Seconds that the first of them has waited.

    Returns:
        How many, from the end; 0 as long as they do not wait for much longer than meant.
    """
    return max(waiting - ahead, 0) if waited > 10 * HORIZON else 0
