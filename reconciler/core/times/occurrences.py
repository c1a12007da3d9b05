"""When a timing comes: next runs, previous runs, all runs of a stretch of time; pure.

A wanted instant is one at which the zone's clocks show a time of the rule. Where the clocks are set, a job's
own choices decide: of a time that comes twice the first run, the last or both are wanted, and a time that is
skipped is made up for at the first moment after it, or not. All is counted in whole seconds until handed out.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import count as count_up
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from reconciler.core.times.blackouts import NEVER, find_blackout_end
from reconciler.core.times.clocks import UTC_CLOCK, read_clock, to_instant, to_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.local_rules import LocalRule
    from reconciler.core.times.timings import Timing

_EPOCH: Final = to_instant(0)
_SECOND: Final = timedelta(seconds=1)
_YEARS: Final = 9 * 366 * 86_400
_FIRST_LOOK: Final = 2 * 3600
_DAY: Final = 86_400
UTC_NAMES: Final = frozenset(
    ("", "GMT", "UTC", "Etc/UTC", "Etc/GMT", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT", "Universal", "Greenwich")
)
"""The names of the zone whose clocks are UTC."""


def find_runs(
    timing: Timing, *, after: datetime, count: int, clock: Clock | None = None
) -> tuple[datetime, ...]:
    """Find the next runs.

    Args:
        timing: Of a job.
        after: An aware instant; runs are later than it.
        count: How many are wanted.
        clock: The clocks of the timing's zone; None reads them from this machine's time zone data.

    Returns:
        The next instants in UTC, fewer where it ends; what comes less often than once in nine years counts as
        never. An interval of seconds counts from `after`, since pg_cron counts it from the last start.

    Raises:
        ValueError: `after` is naive, or there is no such zone.
    """
    return tuple(islice(iterate_runs(timing, after=after, clock=clock), max(count, 0)))


def find_runs_between(
    timing: Timing, *, after: datetime, until: datetime, clock: Clock | None = None
) -> Iterator[datetime]:
    """Find the runs of a stretch of time.

    Args:
        timing: Of a job.
        after: An aware instant; runs are later than it.
        until: The last instant that counts.
        clock: As in `find_runs`.

    Returns:
        The instants in UTC, ascending.

    Raises:
        ValueError: `after` is naive, or there is no such zone.
    """
    return takewhile(lambda run: run <= until, iterate_runs(timing, after=after, clock=clock))


def find_previous_runs(
    timing: Timing, *, before: datetime, count: int, clock: Clock | None = None
) -> tuple[datetime, ...]:
    """Find the runs before an instant, the latest first.

    Args:
        timing: Of a job; an interval of seconds has none, since pg_cron counts it from each start.
        before: An aware instant; runs are at it or earlier.
        count: How many are wanted.
        clock: As in `find_runs`.

    Returns:
        The instants in UTC; fewer where nine years were without any.

    Raises:
        ValueError: `before` is naive, or there is no such zone.
    """
    found: list[datetime] = []
    look = _FIRST_LOOK
    until = before
    while len(found) < count and not timing.seconds:
        after = until - look * _SECOND
        runs = list(find_runs_between(timing, after=after, until=until, clock=clock))
        if look == _YEARS and not runs:
            break
        found += reversed(runs)
        look = min(look * 8, _YEARS)
        until = after
    return tuple(found[: max(count, 0)])


def iterate_runs(timing: Timing, *, after: datetime, clock: Clock | None = None) -> Iterator[datetime]:
    """Yield the runs after an instant.

    Args:
        timing: Of a job.
        after: An aware instant; runs are later than it.
        clock: As in `find_runs`.

    Returns:
        The instants in UTC, ascending, without end where the timing has none.

    Raises:
        ValueError: `after` is naive, or there is no such zone.
    """
    if after.tzinfo is None:
        raise ValueError("`after` needs a time zone")
    clock = clock or clock_of(timing.zone)
    if timing.once is not None:
        return iter((timing.once,) if timing.once > after else ())
    low = to_seconds(after)
    if timing.start_at is not None:
        # Intervals of seconds count from their start, as if pg_cron had begun then.
        low = max(low, _round_up(timing.start_at) - (timing.seconds or 1))
    runs = _limit(timing, clock, low) if timing.has_limits else _list_wanted(timing, clock, low)
    return map(to_instant, runs)


def clock_of(zone: str) -> Clock:
    """Give the clocks of a zone by its name, quickly for UTC.

    Args:
        zone: An IANA name.

    Returns:
        Its clocks.

    Raises:
        ValueError: There is no such zone.
    """
    return UTC_CLOCK if zone in UTC_NAMES else read_clock(zone)


def _round_up(at: datetime) -> int:
    return -((_EPOCH - at) // _SECOND)


def _list_wanted(timing: Timing, clock: Clock, low: int) -> Iterator[int]:
    """Yield the instants after `low` that rule or interval want."""
    shift = timing.shift // _SECOND
    if timing.seconds:
        return count_up(low + timing.seconds, timing.seconds)
    if timing.interval:
        every = timing.interval // _SECOND
        anchor = _round_up(timing.anchor) + shift
        return count_up(low + every - (low - anchor) % every, every)
    if timing.rule is None:
        return iter(())
    runs = _follow(timing, timing.rule, clock, low - shift)
    return (run + shift for run in runs) if shift else runs


def _limit(timing: Timing, clock: Clock, low: int) -> Iterator[int]:
    """Leave out what window and blackouts leave out."""
    end = timing.end_at
    place = clock_of(timing.blackout_zone) if timing.blackout_zone else clock
    patience = low + _YEARS
    while True:
        for run in _list_wanted(timing, clock, low):
            if run > patience or (end is not None and to_instant(run) >= end):
                return
            ahead = place.offset_at(run)
            open_at = find_blackout_end(to_instant(run + ahead).replace(tzinfo=None), timing.blackout)
            if open_at is None:
                patience = run + _YEARS
                yield run
                continue
            if open_at == NEVER:
                return
            low = to_seconds(open_at.replace(tzinfo=UTC)) - ahead - 1
            if not place.offset_at(low - _DAY) == ahead == place.offset_at(low):
                low -= _DAY  # the clocks are set meanwhile
            if timing.seconds:
                low -= (low - run) % timing.seconds
            if low > run:
                break
        else:
            return


def _follow(timing: Timing, rule: LocalRule, clock: Clock, low: int) -> Iterator[int]:
    """Yield the instants after `low` at which the clocks show the rule, from change to change."""
    number = bisect_right(clock.changes, low)
    begin = low + 1
    if number:
        begin = max(begin, clock.changes[number - 1] + _find_second_pass(timing, clock, number))
    patience = low + _YEARS
    while True:
        ahead = clock.offsets[number]
        if number == len(clock.changes):
            yield from (wall - ahead for wall in rule.find_walls(begin + ahead, None))
            return
        change, then = clock.changes[number], clock.offsets[number + 1]
        stop = change - (ahead - then) if then < ahead and timing.ambiguous == "last" else change
        for wall in rule.find_walls(begin + ahead, stop + ahead):
            yield wall - ahead
            patience = wall - ahead + _YEARS
        number += 1
        begin = change + _find_second_pass(timing, clock, number)
        if then > ahead and timing.nonexistent == "next":
            for _skipped in rule.find_walls(change + ahead, change + then):
                yield change
                begin = change + 1
                break
        if change > patience:
            return


def _find_second_pass(timing: Timing, clock: Clock, number: int) -> int:
    """Give how long after a change there are local times that have come already and are not wanted again."""
    if timing.ambiguous != "first":
        return 0
    return max(clock.offsets[number - 1] - clock.offsets[number], 0)
