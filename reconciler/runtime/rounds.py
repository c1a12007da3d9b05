"""Rounds: do the same again and again, with waits between, until somebody wants it to stop.

What a round does, the time, chance and the wish to stop come in by argument. Prints nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from reconciler.core.retries import next_wait
from reconciler.errors import ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTEST: Final = timedelta(seconds=5)
"""The shortest interval: each round is a connection, and reads all files."""
_FIRST_WAIT: Final = timedelta(seconds=5)
# A failing round of a short interval is tried less and less often, up to this.
_LONGEST_WAIT: Final = timedelta(minutes=1)
_BEAT: Final = timedelta(hours=1)
# A round that takes longer than the interval is not followed by the next one without a breath.
_BREATH: Final = timedelta(seconds=1)
# How long it may take until a wish to stop is seen where the wait itself is not interrupted.
_LOOK: Final = 1.0


def run_rounds(
    turn: Callable[[], object],
    *,
    interval: timedelta,
    complain: Callable[[ReconcilerError, timedelta], None],
    beat: Callable[[int], None],
    monotonic: Callable[[], float],
    pause: Callable[[float], None],
    chance: Callable[[], float],
    is_stopping: Callable[[], bool],
) -> None:
    """Do rounds until somebody wants it to stop.

    Args:
        turn: One round. An error of ours ends the round, and the next one comes sooner or later by how many
            have failed; any other error ends it all.
        interval: From the begin of a good round to the begin of the next one.
        complain: Gets why a round failed, and how long it takes until the next one.
        beat: Gets the number of rounds so far, each hour at the most.
        monotonic: The time in seconds, from any beginning.
        pause: Waits for so many seconds, a second at the most.
        chance: Gives a number from 0 to 1, evenly distributed, for the waits after a failure.
        is_stopping: Whether to begin no further round.
    """
    rounds = failures = 0
    beat_at = monotonic() + _BEAT.total_seconds()
    while not is_stopping():
        began = monotonic()
        rounds += 1
        try:
            turn()
        except ReconcilerError as error:
            failures += 1
            wait = next_wait(
                failures,
                initial=_FIRST_WAIT,
                factor=2,
                maximum=max(interval, _LONGEST_WAIT),
                chance=chance(),
            )
            complain(error, wait)
        else:
            failures = 0
            wait = max(interval - timedelta(seconds=monotonic() - began), _BREATH)
        if monotonic() >= beat_at:
            beat(rounds)
            beat_at = monotonic() + _BEAT.total_seconds()
        over_at = monotonic() + wait.total_seconds()
        while (left := over_at - monotonic()) > 0 and not is_stopping():
            pause(min(left, _LOOK))
