"""At which times crowded minutes come again, and how to say it: one herd for all that are alike; pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.core.times.clocks import to_instant
from reconciler.core.times.local_rules import LocalRule
from reconciler.core.times.minutes import list_bits, list_segments
from reconciler.core.times.month_days import DAY_NAMES
from reconciler.core.times.occurrences import clock_of
from reconciler.core.times.rule_times import count, describe_times, join_words, render_clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date

    from reconciler.core.times.heat import Group, Load

DAYS: Final = 35
"""How many days are looked at for herds: each weekday five times, and each day of nearly any month."""

_DAY: Final = 1440
_FEW_TIMES: Final = 4
_FEW_DATES: Final = 3
_WORKDAYS: Final = frozenset(range(1, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """Crowded minutes that are alike.

    Attributes:
        when: In words, such as `each day at 00:00`.
        minutes: As bits.
        groups: The jobs that start in one of them.
    """

    when: str
    minutes: int
    groups: tuple[Group, ...]


def part_herds(load: Load, crowded: int, zone: str) -> Iterator[Gathering]:
    """Part crowded minutes into herds.

    Args:
        load: Of the days that are looked at.
        crowded: Some of their minutes, as bits.
        zone: By whose clocks herds are called.

    Yields:
        Each herd: what is crowded in every hour, and else the times of the day at which the same jobs come on
        the same days.
    """
    at: defaultdict[int, int] = defaultdict(int)
    on: defaultdict[int, set[date]] = defaultdict(set)
    days: set[date] = set()
    for segment in list_segments(clock_of(zone), load.stretch.first, load.stretch.stop):
        first = segment.first - load.stretch.first
        within = crowded >> first & ((1 << segment.stop - segment.first) - 1)
        wall = segment.first + segment.ahead
        for day in range(wall // _DAY, -(-(segment.stop + segment.ahead) // _DAY)):
            days.add(to_instant(day * _DAY * 60).date())
        for bit in list_bits(within):
            day, time = divmod(wall + bit, _DAY)
            at[time] |= 1 << (first + bit)
            on[time].add(to_instant(day * _DAY * 60).date())
    groups = [group for group in load.groups if group.minutes & crowded]
    parts: defaultdict[tuple[frozenset[date], frozenset[int]], list[int]] = defaultdict(list)
    for minute, hours in _find_hourly(on, days).items():
        members = _find_members(groups, sum(at[time] for time in hours))  # no two of them share a bit
        parts[frozenset(days), members].append(minute)
        for time in hours:
            del on[time]
    for (dates, members), minutes in sorted(parts.items(), key=lambda part: part[1]):
        times = [hour * 60 + minute for minute in minutes for hour in range(24)]
        yield _make_herd(groups, members, times, at, dates, days)
    parts.clear()
    for time, some in on.items():
        parts[frozenset(some), _find_members(groups, at[time])].append(time)
    for (dates, members), times in parts.items():
        yield _make_herd(groups, members, times, at, dates, days)


def _find_hourly(on: Mapping[int, set[date]], days: set[date]) -> dict[int, list[int]]:
    """Find the minutes of the hour that are crowded in each hour of each day, with their times of the day."""
    found = {}
    for minute in range(60):
        times = [hour * 60 + minute for hour in range(24)]
        # The clocks may leave one of them out.
        if sum(len(on.get(time, ())) for time in times) >= 24 * len(days) - 2:
            found[minute] = [time for time in times if time in on]
    return found


def _find_members(groups: Sequence[Group], minutes: int) -> frozenset[int]:
    return frozenset(number for number, group in enumerate(groups) if group.minutes & minutes)


def _make_herd(
    groups: Sequence[Group],
    members: frozenset[int],
    times: Sequence[int],
    at: Mapping[int, int],
    dates: frozenset[date],
    days: set[date],
) -> Gathering:
    minutes = 0
    for time in times:
        minutes |= at.get(time, 0)
    return Gathering(
        when=_describe(times, dates, days),
        minutes=minutes,
        groups=tuple(groups[number] for number in sorted(members)),
    )


def _describe(times: Sequence[int], dates: frozenset[date], days: set[date]) -> str:
    """Say when a herd comes."""
    minutes, hours = frozenset(time % 60 for time in times), frozenset(time // 60 for time in times)
    if len(minutes) * len(hours) == len(times):
        clock, is_single = describe_times(LocalRule(minutes=minutes, hours=hours))
    else:
        shown = [render_clock(time) for time in sorted(times)[:_FEW_TIMES]]
        more = len(times) - len(shown)
        clock, is_single = f"at {join_words([*shown, count(more, 'other time')] if more else shown)}", True
    day = _describe_days(dates, days)
    if not day:
        return f"each day {clock}" if is_single else clock
    return f"{day} {clock}" if is_single else f"{clock} {day}"


def _describe_days(dates: frozenset[date], days: set[date]) -> str:
    """Say on which of the days that were looked at it comes; "" for each of them, where they are many."""
    weekdays = frozenset(day.isoweekday() % 7 for day in dates)
    if len(days) >= DAYS:
        if dates == days:
            return ""
        if dates == {day for day in days if day.isoweekday() % 7 in weekdays}:
            if weekdays == _WORKDAYS:
                return "on workdays"
            return f"on {join_words([f'{DAY_NAMES[day].capitalize()}s' for day in sorted(weekdays)])}"
    ordered = sorted(dates)
    first, last = ordered[0], ordered[-1]
    if len(ordered) > _FEW_DATES and (last - first).days == len(ordered) - 1:
        return f"each day from {first} to {last}"
    shown = [day.isoformat() for day in ordered[:_FEW_DATES]]
    more = len(ordered) - len(shown)
    return f"on {join_words([*shown, count(more, 'other day')] if more else shown)}"
