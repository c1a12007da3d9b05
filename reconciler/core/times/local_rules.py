"""Rules of local time: five fields read once, as sets of times of the day and of days; pure.

Beside what pg_cron reads, a rule can say `1#2` and `5L` as its day of week: the second Monday, the last
Friday. Rules are spelt so in the database and in explanations, never in `cron.job`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from reconciler.core.specs import Daily, Monthly, NthWeekday, Weekly
from reconciler.core.times.cron_fields import WORDS, Field, FieldKind, read_field, split_fields
from reconciler.core.times.cron_grammar import DAY, FIELDS, HOUR, MINUTE, MONTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EPOCH: Final = date(1970, 1, 1).toordinal()
_DAY: Final = 86_400
_PATIENCE: Final = 9 * 12
_LAST_YEAR: Final = 9998
_ANY_DAY: Final = frozenset(range(1, 32))
_ANY_MONTH: Final = frozenset(range(1, 13))
_ANY_WEEKDAY: Final = frozenset(range(7))
_NTH: Final = re.compile(r"([0-6])(?:#([1-5])|L)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRule:
    """When something happens on the clocks and the calendar of a place.

    Attributes:
        minutes: 0 to 59.
        hours: 0 to 23.
        days: Days of the month.
        months: 1 to 12.
        weekdays: 0 is Sunday.
        either: A day is right by its number *or* by its weekday; else it has to be by both.
        last_day: Only the last day of each month, whatever `days` says.
        nth: Only the weekdays that are the first to fifth in their month, or -1 for the last; 0 for all.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] = _ANY_DAY
    months: frozenset[int] = _ANY_MONTH
    weekdays: frozenset[int] = _ANY_WEEKDAY
    either: bool = False
    last_day: bool = False
    nth: int = 0

    @property
    def times(self) -> tuple[int, ...]:
        """The times of the day in seconds, ascending."""
        return _list_times(self.minutes, self.hours)

    @property
    def is_hourly(self) -> bool:
        """Whether it comes in every hour of its days, so that it is a pace more than a time of the day."""
        return len(self.hours) == 24

    @property
    def is_each_day(self) -> bool:
        """Whether no day is left out."""
        return (
            not self.last_day
            and not self.nth
            and self.months == _ANY_MONTH
            and (self.days == _ANY_DAY and self.weekdays == _ANY_WEEKDAY)
        )

    def find_walls(self, low: int, high: int | None) -> Iterator[int]:
        """Yield the wall seconds of the rule in a stretch of time, ascending.

        Args:
            low: The first second that counts.
            high: The first that does not count any more; None for no end.

        Yields:
            Seconds; it ends after nine years with none, and where Python's years do.
        """
        day, second = divmod(low, _DAY)
        start = date.fromordinal(_EPOCH + day)
        year, month, first = start.year, start.month, start.day
        times = self.times
        waited = 0
        while waited <= _PATIENCE and year <= _LAST_YEAR:
            month_start = date(year, month, 1).toordinal() - _EPOCH - 1
            if high is not None and (month_start + 1) * _DAY >= high:
                return
            waited += 1
            mask = self._find_days(year, month) >> first << first
            while mask:
                number = (mask & -mask).bit_length() - 1
                mask &= mask - 1
                midnight = (month_start + number) * _DAY
                skipped = bisect_left(times, second) if midnight <= low else 0
                for time in times[skipped:] if skipped else times:
                    wall = midnight + time
                    if high is not None and wall >= high:
                        return
                    waited = 0
                    yield wall
            first = 1
            month += 1
            if month > 12:
                year, month = year + 1, 1

    def _find_days(self, year: int, month: int) -> int:
        """Give the days of one month as bits."""
        if month not in self.months:
            return 0
        return _list_days(
            self.days, self.weekdays, self.either, self.last_day, self.nth, *_look_up_month(year, month)
        )


@lru_cache(maxsize=4096)
def parse_rule(text: str) -> LocalRule:
    """Read a rule.

    Args:
        text: Five fields, or a word that stands for them, without problems; or one of our own rules.

    Returns:
        The rule. As pg_cron does, it combines the two day fields by *or* where neither begins with `*`.

    Raises:
        ValueError: The text is no rule.
    """
    fields = split_fields(WORDS.get(text, text))
    found = _NTH.fullmatch(fields[-1])
    if found:
        fields = [*fields[:-1], found[1]]
    if len(fields) != 5:
        raise ValueError(f"{text!r} is no rule of five fields")
    read = [_read(kind, field) for kind, field in zip(FIELDS, fields, strict=True)]
    minute, hour, day, month, weekday = read
    nth = 0
    if found:
        nth = int(found[2]) if found[2] else -1
    any_day, any_weekday = day.values == _ANY_DAY, weekday.values == _ANY_WEEKDAY
    either = not nth and not day.starred and not weekday.starred
    if either and ((any_day and not day.last_day) or any_weekday):
        # One of them fits each day, spelt out.
        return LocalRule(minutes=minute.values, hours=hour.values, months=month.values)
    return LocalRule(
        minutes=minute.values,
        hours=hour.values,
        days=_ANY_DAY if day.last_day else day.values,
        months=month.values,
        weekdays=weekday.values,
        either=either,
        last_day=day.last_day,
        nth=nth,
    )


def _read(kind: FieldKind, text: str) -> Field:
    field = read_field(kind, text)
    if field is None:
        raise ValueError(f"{text!r} cannot be read")
    return field


def make_rule(trigger: Daily | Weekly | Monthly) -> LocalRule:
    """Make the rule of a trigger that names times of the day.

    Args:
        trigger: Any of them.

    Returns:
        The rule.
    """
    minutes, hours = frozenset((trigger.minute,)), frozenset((trigger.hour,))
    match trigger:
        case Weekly(days=days):
            return LocalRule(minutes=minutes, hours=hours, weekdays=frozenset(days))
        case Monthly(day=NthWeekday(weekday=weekday, nth=nth)):
            return LocalRule(minutes=minutes, hours=hours, weekdays=frozenset((weekday,)), nth=nth)
        case Monthly(day="last"):
            return LocalRule(minutes=minutes, hours=hours, last_day=True)
        case Monthly(day=int(day)):
            return LocalRule(minutes=minutes, hours=hours, days=frozenset((day,)))
        case _:
            return LocalRule(minutes=minutes, hours=hours)


def render_rule(rule: LocalRule) -> str:
    """Spell a rule.

    Args:
        rule: Any.

    Returns:
        Five fields, which `parse_rule` reads as the same rule.
    """
    day, weekday = render_days(rule)
    return " ".join(
        (
            render_values(rule.minutes, MINUTE.low, MINUTE.high, stepped=True),
            render_values(rule.hours, HOUR.low, HOUR.high, stepped=True),
            day,
            render_values(rule.months, MONTH.low, MONTH.high),
            weekday,
        )
    )


def render_days(rule: LocalRule) -> tuple[str, str]:
    """Spell the fields day of month and day of week of a rule."""
    weekday = render_values(rule.weekdays, 0, 6)
    day = "$" if rule.last_day else render_values(rule.days, DAY.low, DAY.high)
    if rule.nth:
        return day, f"{weekday}L" if rule.nth < 0 else f"{weekday}#{rule.nth}"
    if rule.either or "*" in {day, weekday}:
        return day, weekday
    # Both count only where one of them begins with `*`, and so has the field's lowest value.
    if DAY.low in rule.days and not rule.last_day:
        return _render_starred(rule.days, DAY.low, DAY.high), weekday
    return day, _render_starred(rule.weekdays, 0, 7)


def _render_starred(values: frozenset[int], low: int, high: int) -> str:
    step = _find_step(values, low, high)
    return f"*/{step}" if step else f"*/{high},{render_values(values - {low}, low, high)}"


def render_values(values: frozenset[int], low: int, high: int, *, stepped: bool = False) -> str:
    """Spell the values of one field, as short as possible.

    Args:
        values: At least one.
        low: The field's lowest value.
        high: The field's highest value.
        stepped: Whether `*/5` is wanted where it fits; in the day fields a `*` has a meaning of its own.

    Returns:
        The field.
    """
    if len(values) == high - low + 1:
        return "*"
    step = _find_step(values, low, high) if stepped and len(values) > 1 and low in values else 0
    if step and (len(values) > 2 or (high + 1) % step == 0):
        return f"*/{step}"
    return ",".join(render_ranges(values, "-"))


def render_ranges(values: Iterable[int], between: str) -> list[str]:
    """Spell numbers, of which three and more in a row are one range.

    Args:
        values: In any order, each once.
        between: What stands between the ends of a range.

    Returns:
        The numbers and ranges, ascending.
    """
    parts: list[str] = []
    ordered = sorted(values)
    while ordered:
        end = 1
        while end < len(ordered) and ordered[end] == ordered[0] + end:
            end += 1
        if end > 2:
            parts.append(f"{ordered[0]}{between}{ordered[end - 1]}")
        else:
            parts.extend(map(str, ordered[:end]))
        ordered = ordered[end:]
    return parts


def _find_step(values: frozenset[int], low: int, high: int) -> int:
    """Find the step of `*/step` that gives these values; 0 for none."""
    for step in range(2, high + 1):
        if frozenset(value % 7 if high == 7 else value for value in range(low, high + 1, step)) == values:
            return step
    return 0


@lru_cache(maxsize=4096)
def _list_times(minutes: frozenset[int], hours: frozenset[int]) -> tuple[int, ...]:
    return tuple(hour * 3600 + minute * 60 for hour in sorted(hours) for minute in sorted(minutes))


@lru_cache(maxsize=4096)
def _look_up_month(year: int, month: int) -> tuple[int, int]:
    """Give the weekday of a month's first day, 0 is Sunday, and its length."""
    first, length = monthrange(year, month)
    return (first + 1) % 7, length


@lru_cache(maxsize=16_384)
def _list_days(
    days: frozenset[int],
    weekdays: frozenset[int],
    either: bool,
    last_day: bool,
    nth: int,
    first: int,
    length: int,
) -> int:
    """Give the days of a month that begins on a weekday and has a length, as bits."""
    numbers = range(1, length + 1)
    by_number = {length} if last_day else {number for number in numbers if number in days}
    by_weekday = {number for number in numbers if (first + number - 1) % 7 in weekdays}
    if nth > 0:
        by_weekday = {number for number in by_weekday if (number - 1) // 7 == nth - 1}
    elif nth:
        by_weekday = {number for number in by_weekday if number > length - 7}
    wanted = by_number | by_weekday if either else by_number & by_weekday
    return sum(1 << number for number in wanted)
