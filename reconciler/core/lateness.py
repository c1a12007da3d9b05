"""How late a run began; pure."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from .times.occurrences import find_runs_between
from .times.timings import make_entry_timing

if TYPE_CHECKING:
    from datetime import datetime

_LONGEST: Final = timedelta(hours=1)


def find_lateness(
    run_at: datetime,
    *,
    trigger: str,
    due_at: datetime | None,
    schedule: str | None,
    zone: str,
    fired_at: datetime | None = None,
    has_rule: bool = False,
) -> timedelta | None:
    """Find out how late the first try of a run began.

    Args:
        run_at: When it began, aware.
        trigger: Why.
        due_at: The time that it makes up for or was put off from, as the log knows it.
        schedule: Of the job's entry, in pg_cron's grammar.
        zone: In which pg_cron reads it.
        fired_at: The newest time of the job's own rule that was taken.
        has_rule: Whether that rule decides, and not the entry.

    Returns:
        The lateness, never less than nothing; None where no time is known at which it was due: it was started
        by hand or by another job, or pg_cron counts its seconds from the last start. A run that an entry
        fired stands for the newest time of the hour before it, since the log has only the time itself.
    """
    if due_at is None and trigger == "schedule":
        due_at = fired_at if has_rule else _find_fire(schedule or "", zone, run_at)
        if due_at is not None and not timedelta(0) <= run_at - due_at <= _LONGEST:
            due_at = None
    return None if due_at is None else max(run_at - due_at, timedelta(0))


def _find_fire(schedule: str, zone: str, at: datetime) -> datetime | None:
    return _find_fire_of_minute(schedule, zone, at.replace(second=0, microsecond=0))


@lru_cache(maxsize=4096)
def _find_fire_of_minute(schedule: str, zone: str, minute: datetime) -> datetime | None:
    """Find the newest fire of the hour up to a minute; entries fire as minutes begin."""
    try:
        timing = make_entry_timing(schedule, zone)
        if timing.rule is None:
            return None
        return max(find_runs_between(timing, after=minute - _LONGEST, until=minute), default=None)
    except ValueError:
        return None
