"""Compile triggers to pg_cron's grammar, or say why this cannot be done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.durations import render_duration
from reconciler.core.specs import Daily, Every, Monthly, Once, Schedule, Succeeded, Trigger, Weekly

if TYPE_CHECKING:
    from reconciler.core.schedules import Dialect

_UTC_NAMES = frozenset({"", "GMT", "UTC", "Etc/UTC", "Etc/GMT", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSchedule:
    """What became of a trigger.

    Attributes:
        text: The schedule in pg_cron's grammar; "" when there is none.
        problem: Why there is none, and what to write; "" when there is one.
    """

    text: str = ""
    problem: str = ""


def is_same_zone(declared: str, server: str) -> bool:
    """Tell whether a job's zone is the one that pg_cron reads schedules in.

    Args:
        declared: A job's zone; "" stands for the server's.
        server: The server's zone.

    Returns:
        True when both are one zone, by name or because both are UTC.
    """
    if not declared or declared == server:
        return True
    return declared in _UTC_NAMES and server in _UTC_NAMES


def compile_trigger(trigger: Trigger, dialect: Dialect) -> CompiledSchedule:
    """Compile a recurring trigger for one pg_cron version, in the server's own zone.

    Args:
        trigger: One that recurs by the clock.
        dialect: What the server's pg_cron reads.

    Returns:
        The schedule, or the problem.

    Raises:
        ValueError: The trigger has no schedule: it comes once, or when other jobs have succeeded.
    """
    match trigger:
        case Schedule(text=text):
            return CompiledSchedule(text=text)
        case Every(interval=interval):
            return _compile_interval(interval, dialect)
        case Daily(hour=hour, minute=minute):
            return CompiledSchedule(text=f"{minute} {hour} * * *")
        case Weekly(days=days, hour=hour, minute=minute):
            return CompiledSchedule(text=f"{minute} {hour} * * {','.join(map(str, days))}")
        case Monthly(day="last", hour=hour, minute=minute):
            if dialect.last_day:
                return CompiledSchedule(text=f"{minute} {hour} $ * *")
            return CompiledSchedule(problem="the last day of the month needs pg_cron 1.6 or later")
        case Once() | Succeeded():
            raise ValueError("a trigger that does not recur by the clock has no schedule")
        case _:
            return CompiledSchedule(text=f"{trigger.minute} {trigger.hour} {trigger.day} * *")


def _compile_interval(interval: timedelta, dialect: Dialect) -> CompiledSchedule:
    seconds, odd = divmod(interval, timedelta(seconds=1))
    if not odd:
        if seconds < 60:
            if dialect.seconds:
                return CompiledSchedule(text=f"{seconds} second{'' if seconds == 1 else 's'}")
            return CompiledSchedule(problem="an interval below one minute needs pg_cron 1.5 or later")
        if seconds == 60:
            return CompiledSchedule(text="* * * * *")
        if seconds < 3600 and 3600 % seconds == 0 and seconds % 60 == 0:
            return CompiledSchedule(text=f"*/{seconds // 60} * * * *")
        if seconds == 3600:
            return CompiledSchedule(text="0 * * * *")
        if seconds < 86_400 and 86_400 % seconds == 0 and seconds % 3600 == 0:
            return CompiledSchedule(text=f"0 */{seconds // 3600} * * *")
        if seconds == 86_400:
            return CompiledSchedule(text="0 0 * * *")
    return CompiledSchedule(
        problem=f"every {render_duration(interval)} does not divide a minute's, an hour's or a day's round: "
        "use 1s to 59s, a divisor of 60 minutes, a divisor of 24 hours, or a schedule"
    )
