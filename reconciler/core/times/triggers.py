"""Compile timings to pg_cron's grammar, or say why this cannot be done; pure.

pg_cron knows five fields and one zone. What becomes of a timing is one entry that fires at each wanted
instant, and otherwise as seldom as five fields allow. The database passes over what is not wanted.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, Final

from reconciler.core.times.clock_pairs import DAY, pair_clocks
from reconciler.core.times.clocks import UTC_CLOCK, to_seconds
from reconciler.core.times.dialects import describe_lack
from reconciler.core.times.local_rules import LocalRule, render_rule
from reconciler.core.times.occurrences import UTC_NAMES
from reconciler.core.times.timings import Timing, divides_evenly, make_even_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.dialects import Dialect

_MINUTE: Final = timedelta(minutes=1)
_WEEK: Final = 7 * DAY
_LONG_DAYS: Final = frozenset((28, 29, 30, 31))
_ALL: Final = LocalRule(minutes=frozenset((0,)), hours=frozenset((0,)))
# Whether a year has a 29 February is all that its dates depend on.
_YEARS: Final = (2000, 2001)
_LENGTHS: Final = {(year, month): monthrange(year, month)[1] for year in _YEARS for month in range(1, 13)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSchedule:
    """What became of a timing.

    Attributes:
        text: The schedule in pg_cron's grammar; "" when there is none.
        problem: Why there is none, and what to write; "" when there is one.
        exact: Whether it fires at the wanted instants only, always.
    """

    text: str = ""
    problem: str = ""
    exact: bool = True


def compile_timing(
    timing: Timing, *, server_zone: str, clocks: Mapping[str, Clock], dialect: Dialect
) -> CompiledSchedule:
    """Compile a timing for one server.

    Args:
        timing: One that recurs by the clock.
        server_zone: In which the server's pg_cron reads schedules.
        clocks: Of both zones, as the server knows them for the years to come, by name. UTC need not be there.
        dialect: What the server's pg_cron reads.

    Returns:
        The schedule, or the problem.

    Raises:
        ValueError: The timing has one instant only.
    """
    if timing.once is not None:
        raise ValueError("a timing of one instant has no schedule")
    if timing.seconds:
        return replace(_compile_seconds(timing, dialect), exact=not timing.has_limits)
    if timing.word or _is_plain(timing, server_zone):
        return CompiledSchedule(text=timing.text, exact=not timing.has_limits)
    found: list[Clock] = []
    for zone in (server_zone, timing.zone):
        clock = UTC_CLOCK if zone in UTC_NAMES else clocks.get(zone)
        if clock is None:
            problem = (
                f"the server knows no time zone {zone!r}: write one that stands in its pg_timezone_names"
            )
            return CompiledSchedule(problem=problem)
        found.append(clock)
    server, place = found
    rule, exact = _find_superset(timing, server, place, dialect)
    is_same = exact and rule == timing.rule and timing.text
    return CompiledSchedule(
        text=timing.text if is_same else render_rule(rule), exact=exact and not timing.has_limits
    )


def compile_every(interval: timedelta, dialect: Dialect) -> CompiledSchedule:
    """Compile an interval that counts from nowhere in particular.

    Args:
        interval: Seconds up to 59, or one that fits evenly into an hour or a day.
        dialect: What the server's pg_cron reads.

    Returns:
        The schedule; the problem where the server's pg_cron knows no seconds.

    Raises:
        ValueError: It is another interval.
    """
    if divides_evenly(interval):
        return CompiledSchedule(text=render_rule(make_even_rule(interval)))
    seconds, odd = divmod(interval, timedelta(seconds=1))
    if odd or not 0 < seconds < 60:
        raise ValueError("an uneven interval from nowhere in particular has no schedule")
    return _compile_seconds(Timing(zone="", seconds=seconds), dialect)


def _is_plain(timing: Timing, server_zone: str) -> bool:
    """Tell whether pg_cron does by itself what the schedule says."""
    return (
        bool(timing.text)
        and (timing.ambiguous, timing.nonexistent) == ("both", "skip")
        and not timing.shift
        and (timing.zone == server_zone or {timing.zone, server_zone} <= UTC_NAMES)
    )


def _compile_seconds(timing: Timing, dialect: Dialect) -> CompiledSchedule:
    if not dialect.seconds:
        return CompiledSchedule(problem=describe_lack("an interval below one minute", "1.5", dialect))
    text = f"{timing.seconds} second{'' if timing.seconds == 1 else 's'}"
    return CompiledSchedule(text=timing.text or text)


def _find_superset(timing: Timing, server: Clock, place: Clock, dialect: Dialect) -> tuple[LocalRule, bool]:
    """Find the rule in the server's zone that holds all wanted instants, and whether it holds no other."""
    if timing.rule is None:
        return _spread_interval(timing, server)
    rule = timing.rule
    times = [second // 60 for second in rule.times]
    pair = pair_clocks(server, place, timing.shift // _MINUTE)
    fires = {
        divmod((span.start + moment) % DAY + span.ahead, DAY)
        for span in pair.spans
        for moment in span.find_moments(times)
    }
    if timing.nonexistent == "next":
        for gap in pair.gaps:
            fires |= {divmod(gap.fire - day * DAY, DAY) for day in gap.find_days(times, rule)}
    days, exact = _shift_days(rule, {day for day, _ in fires}, dialect)
    minutes, hours = _cover(time for _, time in fires)
    covered = [hour * 60 + minute for hour in hours for minute in minutes]
    exact = exact and all(
        span.find_moments(times) == span.find_moments(covered, span.ahead) for span in pair.spans
    )
    if exact and timing.ambiguous != "both":
        exact = not any(True for overlap in pair.overlaps for _ in overlap.find_days(times, rule))
    return replace(days, minutes=minutes, hours=hours), exact


def _spread_interval(timing: Timing, server: Clock) -> tuple[LocalRule, bool]:
    every = timing.interval // _MINUTE
    # What counts from within a minute is noticed at the next one.
    anchor = -(-to_seconds(timing.anchor) // 60) + timing.shift // _MINUTE
    step = gcd(every, DAY)
    ahead = {offset // 60 for offset in server.offsets}
    fires = {(anchor + number * step + minutes) % DAY for number in range(DAY // step) for minutes in ahead}
    minutes, hours = _cover(fires)
    rule = replace(_ALL, minutes=minutes, hours=hours)
    if every % _WEEK == 0:
        # The epoch was a Thursday.
        rule = replace(rule, weekdays=frozenset(((anchor + each) // DAY + 4) % 7 for each in ahead))
    is_even = every in {step, _WEEK}
    return rule, is_even and len(ahead) == 1 and len(minutes) * len(hours) == len(fires)


def _cover(times: Iterable[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Give the minutes and hours of times in minutes of the day."""
    pairs = {divmod(time, 60) for time in times}
    return frozenset(minute for _, minute in pairs), frozenset(hour for hour, _ in pairs)


def _shift_days(rule: LocalRule, shifts: set[int], dialect: Dialect) -> tuple[LocalRule, bool]:
    """Give the days on which a rule fires on a server whose dates are other ones.

    Args:
        rule: Whose days are meant.
        shifts: By how many days the server's date is later.
        dialect: What the server's pg_cron reads.

    Returns:
        A rule with those days, and whether it has no other days.
    """
    if rule.is_each_day:
        return _ALL, True
    if shifts == {0} and not rule.nth and (dialect.last_day or not rule.last_day):
        return rule, True
    by_number = rule.last_day or rule.days != _ALL.days
    by_weekday = bool(rule.nth) or rule.weekdays != _ALL.weekdays
    exact = len(shifts) == 1
    if by_number and not by_weekday:
        found, is_right = _move_dates(rule, shifts, dialect)
        return found, exact and is_right
    months = rule.months
    if len(months) < 12:
        ends = [(month, day) for month in months for day in (1, 31)]
        months = frozenset(_move(_YEARS[0], *end, shift)[0] for end in ends for shift in (0, *shifts))
    weekdays = frozenset((day + shift) % 7 for day in rule.weekdays for shift in shifts)
    found = replace(_ALL, weekdays=weekdays, months=months)
    if len(found.weekdays) == 7:
        return found, False
    exact = exact and len(rule.months) == 12 and not rule.nth and by_number == rule.either
    if rule.either:
        moved, is_right = _move_dates(rule, shifts, dialect)
        months = moved.months | found.months
        if not moved.last_day and moved.days == _ALL.days:
            return replace(_ALL, months=months), False
        found = replace(moved, weekdays=found.weekdays, months=months, either=True)
        exact = exact and is_right
    return found, exact


@lru_cache(maxsize=8192)
def _move(year: int, month: int, day: int, shift: int) -> tuple[int, int]:
    moved = date(year, month, min(day, _LENGTHS[year, month])) + timedelta(days=shift)
    return moved.month, moved.day


def _move_dates(rule: LocalRule, shifts: set[int], dialect: Dialect) -> tuple[LocalRule, bool]:
    """Give the dates that lie some days after those of a rule, and whether there are no others."""
    wanted: set[tuple[int, int, int]] = set()
    for year in _YEARS:
        for month in rule.months:
            length = _LENGTHS[year, month]
            dates = (length,) if rule.last_day else [day for day in rule.days if day <= length]
            wanted |= {(year, *_move(year, month, day, shift)) for day in dates for shift in shifts}
    months = frozenset(month for _, month, _ in wanted)
    days = frozenset(day for _, _, day in wanted)
    found = replace(_ALL, days=days, months=months)
    lengths = {month: length for month, length in _LENGTHS.items() if month[1] in months}
    if wanted == {(*month, day) for month, length in lengths.items() for day in days if day <= length}:
        return found, True
    if wanted == {(*month, length) for month, length in lengths.items()}:
        last = replace(found, days=_ALL.days, last_day=True)
        return (last, True) if dialect.last_day else (replace(found, days=_LONG_DAYS), False)
    return found, False
