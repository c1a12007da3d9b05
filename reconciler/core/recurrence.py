"""When a recurring job of the Scheduler comes: times as given to it, as the trigger of a spec file; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.durations import find_interval_fault, render_duration
from reconciler.core.scheduler_jobs import TriggerType
from reconciler.core.times.cron_fields import INTERVAL, START_WORDS
from reconciler.core.times.month_days import read_month_day, render_month_day
from reconciler.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from zoneinfo import ZoneInfo

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_NAMES: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST_DATE: Final = timedelta(days=1)
_TOO_LONG: Final = 1e9
"""Seconds that are more than any interval, and that a timedelta holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What was said of the times of a recurring job; None for what was left out.

    Attributes:
        run_date: A moment whose time of day, weekday and day of the month stand for what was left out, aware.
        hour: 0 to 23.
        minute: 0 to 59.
        day_of_week: Names of days, or numbers from 0 for Monday, one or several.
        day: Of the month: 1 to 31, `last`, or a weekday such as `second tue`.
        interval: The time between two runs; a number is of seconds.
        cron_expression: In pg_cron's grammar.
    """

    run_date: datetime | None = None
    hour: int | None = None
    minute: int | None = None
    day_of_week: str | int | Sequence[str | int] | None = None
    day: int | str | None = None
    interval: timedelta | float | None = None
    cron_expression: str | None = None


_WANTED: Final = {
    TriggerType.DAILY: {"run_date", "hour", "minute"},
    TriggerType.WEEKLY: {"run_date", "hour", "minute", "day_of_week"},
    TriggerType.MONTHLY: {"run_date", "hour", "minute", "day"},
    TriggerType.INTERVAL: {"run_date", "interval"},
    TriggerType.CRON: {"run_date", "cron_expression"},
}
_NEEDED: Final = {
    TriggerType.DAILY: ("hour",),
    TriggerType.WEEKLY: ("hour", "day_of_week"),
    TriggerType.MONTHLY: ("hour", "day"),
}


def make_trigger(kind: TriggerType, times: Times, *, zone: ZoneInfo, now: datetime) -> dict[str, Any]:
    """Make the trigger of a recurring job, as it stands in a spec file.

    Args:
        kind: Which; not once.
        times: What was said of it.
        zone: In which hours and days are meant.
        now: The present, aware.

    Returns:
        One trigger, and the zone where it has one.

    Raises:
        InvalidInputError: Something is missing, superfluous or wrong.
    """
    problems = list(_find_problems(kind, times, now))
    if problems:
        raise InvalidInputError([f"a job that comes {kind.value}: {problem}" for problem in problems])
    if kind is TriggerType.INTERVAL:
        return {"every": render_duration(_read_interval(times.interval))}
    if kind is TriggerType.CRON:
        text = times.cron_expression or ""
        has_zone = not (text in START_WORDS or INTERVAL.fullmatch(text))
        return {"schedule": text, **({"timezone": zone.key} if has_zone else {})}
    start = times.run_date.astimezone(zone) if times.run_date else None
    if times.hour is None and start is not None:
        hour, minute = start.hour, start.minute if times.minute is None else times.minute
    else:
        hour, minute = times.hour or 0, times.minute or 0
    at = f"{hour:02}:{minute:02}"
    if kind is TriggerType.DAILY:
        return {"daily": at, "timezone": zone.key}
    if kind is TriggerType.WEEKLY:
        days = [start.weekday()] if times.day_of_week is None and start else _read_days(times.day_of_week)
        return {"weekly": {"on": [_DAYS[day] for day in days], "at": at}, "timezone": zone.key}
    day = start.day if times.day is None and start else read_month_day(times.day or 1)
    return {"monthly": {"day": render_month_day(day), "at": at}, "timezone": zone.key}


def _find_problems(kind: TriggerType, times: Times, now: datetime) -> Iterator[str]:
    given = {name for name in Times.__slots__ if getattr(times, name) is not None}
    for name in sorted(given - _WANTED[kind]):
        yield f"{name} does not go with it: leave it out"
    if times.run_date is not None and times.run_date > now + _FIRST_DATE:
        yield (
            f"run_date is {times.run_date.isoformat()}, but it begins at the next of its times: leave "
            "run_date out, or schedule a one-time job for then that calls schedule_recurring"
        )
    if kind is TriggerType.INTERVAL:
        yield from _find_interval_problems(times.interval)
    elif kind is TriggerType.CRON:
        if not isinstance(times.cron_expression, str):
            yield 'cron_expression is missing: give a text such as "*/5 * * * *"'
    else:
        yield from _find_clock_problems(times)
        if times.run_date is None:
            yield from (f"{name} is missing" for name in _NEEDED[kind] if name not in given)


def _find_clock_problems(times: Times) -> Iterator[str]:
    for name, value, most in (("hour", times.hour, 23), ("minute", times.minute, 59)):
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            yield f"{name} is {value!r}: give a whole number from 0 to {most}"
    try:
        _read_days(times.day_of_week)
    except ValueError as error:
        yield str(error)
    day = times.day
    if day is not None and not _is_month_day(day):
        yield f'day is {day!r}: give a whole number from 1 to 31, "last", or a weekday such as "second tue"'


def _is_month_day(day: int | str) -> bool:
    if type(day) is not int and not isinstance(day, str):
        return False
    try:
        read_month_day(day)
    except ValueError:
        return False
    return True


def _find_interval_problems(interval: object) -> Iterator[str]:
    try:
        fault = find_interval_fault(_read_interval(interval))
    except ValueError as error:
        yield str(error)
    else:
        if fault:
            yield f"interval is {interval!r}: {fault}"


def _read_interval(interval: object) -> timedelta:
    """Read the time between two runs.

    Raises:
        ValueError: It is none.
    """
    if isinstance(interval, timedelta):
        return interval
    if isinstance(interval, int | float) and not isinstance(interval, bool) and math.isfinite(interval):
        return timedelta(seconds=max(min(interval, _TOO_LONG), 0))
    raise ValueError("interval is missing: give a timedelta, such as timedelta(minutes=5), or seconds")


def _read_days(given: str | int | Sequence[str | int] | None) -> list[int]:
    """Read days of the week, 0 for Monday as in `datetime.weekday`.

    Raises:
        ValueError: One of them is none.
    """
    words: list[str | int] = []
    for item in [given] if isinstance(given, str | int) else given or ():
        words += item.split(",") if isinstance(item, str) else [item]
    days: set[int] = set()
    if given is not None and not words:
        raise ValueError("day_of_week has no day")
    for word in words:
        if isinstance(word, str):
            start, dash, end = word.partition("-")
            first, last = _read_day(start), _read_day(end if dash else start)
        else:
            first = last = _read_day(word)
        days.update(day % 7 for day in range(first, last + 1 + (7 if last < first else 0)))
    return sorted(days)


def _read_day(word: str | int) -> int:
    if isinstance(word, str):
        text = word.strip().lower()
        names = _DAYS if len(text) == 3 else _DAY_NAMES
        if text in names:
            return names.index(text)
    if type(word) is int and 0 <= word <= 6:
        return word
    raise ValueError(
        f'day_of_week has {word!r}: give names such as "mon,thu", or numbers from 0 for Monday to 6'
    )
