"""How long to wait before another try: exponential, bounded, with jitter. Knows neither clock nor dice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

_EXPONENT_LIMIT = 1000


def next_wait(
    attempt: int, *, initial: timedelta, factor: float, maximum: timedelta, chance: float
) -> timedelta:
    """Compute the wait after a failed attempt: half of it is fixed, half is left to chance.

    `reconciler.next_wait` in the database has the same rule.

    Args:
        attempt: The one that failed, from 1.
        initial: The whole wait after the first attempt.
        factor: By which it grows each time, at least 1.
        maximum: The longest whole wait.
        chance: At least 0 and below 1, evenly distributed; 1 gives the whole wait, without jitter.

    Returns:
        Between half of the whole wait and the whole wait.
    """
    try:
        growth = float(factor) ** min(attempt - 1, _EXPONENT_LIMIT)
    except OverflowError:
        growth = float("inf")
    # A share, since the product of a duration and a huge number does not exist.
    share = min(growth * (initial / maximum), 1.0)
    return maximum * share * (0.5 + chance / 2)
