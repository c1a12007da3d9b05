"""How many runs a timing has on a usual day, and whether two timings have the same ones; pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from reconciler.core.times.local_rules import LocalRule
from reconciler.core.times.occurrences import clock_of, find_runs_between

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.core.times.timings import Timing

# In 28 years each day of the year falls on each day of the week four times, and there are seven leap years.
_CYCLE: Final = 28 * 365 + 7
_DAY: Final = timedelta(days=1)
_MOST: Final = 20_000
_ONE: Final = frozenset((0,))
_EACH_MINUTE: Final = LocalRule(minutes=frozenset(range(60)), hours=frozenset(range(24)))


def count_per_day(timing: Timing, *, now: datetime) -> float:
    """Say how many runs there are on a day.

    Args:
        timing: Any.
        now: The present, aware: what window and blackouts leave of the next week counts, or of the next year
            where a run is rarer than daily.

    Returns:
        The mean; nothing for what comes once or at no time, and for what is over.

    Raises:
        ValueError: There is no such zone.
    """
    rate = _count_usual(timing)
    if not rate or not timing.has_limits:
        return rate
    begin = now if timing.start_at is None else max(now, timing.start_at)
    end = begin + (7 if rate >= 1 else 366) * _DAY
    if timing.end_at is not None:
        end = min(end, timing.end_at)
    if end <= begin:
        return 0.0
    if not timing.blackout:
        return rate
    counted = replace(timing, seconds=0, rule=_EACH_MINUTE) if timing.seconds else timing
    runs = sum(1 for _ in islice(find_runs_between(counted, after=begin, until=end), _MOST))
    share = runs / ((end - begin) / _DAY)
    return share * rate / _count_usual(counted)


def means_same(one: Timing, other: Timing) -> bool:
    """Tell whether two timings have the same runs, however they are said.

    Args:
        one: Any.
        other: Any.

    Returns:
        True only where that is certain.

    Raises:
        ValueError: There is no such zone.
    """
    if one == other:
        return True
    if (one.once, one.seconds, one.word) != (other.once, other.seconds, other.word):
        return False
    if (one.start_at, one.end_at) != (other.start_at, other.end_at) or one.blackout != other.blackout:
        return False
    if one.interval != other.interval or (one.interval and not _has_same_beat(one, other)):
        return False
    if one.blackout and not _is_same_zone(one.blackout_zone or one.zone, other.blackout_zone or other.zone):
        return False
    if one.rule is None or other.rule is None:
        return one.rule is other.rule
    turns, other_turns = (one.ambiguous, one.nonexistent), (other.ambiguous, other.nonexistent)
    return (
        one.shift == other.shift
        and _is_same_rule(one.rule, other.rule)
        and _is_same_zone(one.zone, other.zone)
        and (turns == other_turns or not clock_of(one.zone).changes)
    )


def _count_usual(timing: Timing) -> float:
    if timing.seconds:
        return 86_400 / timing.seconds
    if timing.interval:
        return _DAY / timing.interval
    if timing.rule is None:
        return 0.0
    return len(timing.rule.times) * len(_list_days(_strip_times(timing.rule))) / _CYCLE


def _is_same_rule(one: LocalRule, other: LocalRule) -> bool:
    return one.times == other.times and _list_days(_strip_times(one)) == _list_days(_strip_times(other))


def _has_same_beat(one: Timing, other: Timing) -> bool:
    return not (one.anchor + one.shift - other.anchor - other.shift) % one.interval


def _is_same_zone(one: str, other: str) -> bool:
    return one == other or clock_of(one) == clock_of(other)


def _strip_times(rule: LocalRule) -> LocalRule:
    return replace(rule, minutes=_ONE, hours=_ONE)


@lru_cache(maxsize=1024)
def _list_days(rule: LocalRule) -> tuple[int, ...]:
    """List the days of one whole cycle of the calendar, as the seconds of their midnights."""
    return tuple(rule.find_walls(0, _CYCLE * 86_400))
