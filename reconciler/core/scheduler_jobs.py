"""What the Scheduler works with as values: its words, its settings and its jobs; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from reconciler.core.durations import render_duration
from reconciler.errors import InvalidInputError

if TYPE_CHECKING:
    from reconciler.core.queued_jobs import NewJob, QueuedJob


class JobType(Enum):
    """What a job is, for people and for filters; it changes nothing in how it runs."""

    EVENT_REMINDER = "event_reminder"
    NOTIFICATION = "notification"
    EMAIL = "email"
    SMS = "sms"
    CUSTOM = "custom"


class TriggerType(Enum):
    """When a job runs."""

    ONCE = "once"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    INTERVAL = "interval"
    CRON = "cron"


class JobStatus(Enum):
    """How a job stands."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES: Final = {
    JobStatus.SCHEDULED: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
"""The statuses of rows, by those of jobs."""

_ROWS: Final = {row: status for status, row in STATUSES.items()}
_TYPES: Final = {kind.value: kind for kind in JobType}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How the jobs of a scheduler are treated; kept in the database as the settings of its queue.

    Attributes:
        retry_failed_jobs: Whether a job that failed is tried again.
        max_retries: How often, after the first try; the wait grows from 30 seconds to an hour.
        store_job_results: Whether what a function returns is kept.
        cleanup_after_days: How long jobs that are over are kept.
    """

    retry_failed_jobs: bool = True
    max_retries: int = 3
    store_job_results: bool = True
    cleanup_after_days: float = 7

    def __post_init__(self) -> None:
        problems = []
        if type(self.max_retries) is not int or not 0 <= self.max_retries < 1000:
            problems.append(f"max_retries is {self.max_retries!r}: give a whole number from 0 to 999")
        days = self.cleanup_after_days
        if type(days) not in {int, float} or not 0.001 <= days <= 3650:
            problems.append(f"cleanup_after_days is {days!r}: give a number of days, up to 3650")
        if problems:
            raise InvalidInputError([f"SchedulerConfig: {problem}" for problem in problems])

    @property
    def max_attempts(self) -> int:
        """How often a job is tried in all."""
        return self.max_retries + 1 if self.retry_failed_jobs else 1

    def declare_queue(self) -> dict[str, Any]:
        """Declare the queue that treats jobs so, as it stands in a spec file."""
        kept = render_duration(timedelta(days=self.cleanup_after_days))
        return {"max_attempts": self.max_attempts, "retention": kept, "keep_failed": kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerJob:
    """A job of a scheduler; all instants are aware.

    Attributes:
        job_id: The name that it was scheduled under.
        job_type: What it is.
        status: How it stands. A recurring job is scheduled as long as it is not cancelled, unless it runs.
        is_recurring: Whether it comes again.
        func: The name of its function.
        metadata: What that is called with.
        run_date: When it is, or was, due; of a recurring job the next time.
        next_run: When it runs next; None where it does not.
        last_run: When its last try began.
        retry_count: How often it was, or is about to be, tried again.
        max_retries: How often it may be.
        result: What its function returned, where that is kept.
        last_error: Why the last try failed.
        id: Of its row in `reconciler.jobs`; None for a recurring job that never ran.
        created_at: When it was scheduled.
        updated_at: When anything last happened to it.
    """

    job_id: str
    job_type: JobType
    status: JobStatus
    is_recurring: bool
    func: str
    metadata: dict[str, Any]
    run_date: datetime | None
    next_run: datetime | None
    last_run: datetime | None
    retry_count: int
    max_retries: int
    result: Any
    last_error: str | None
    id: int | None
    created_at: datetime
    updated_at: datetime


def find_zone(name: str) -> ZoneInfo:
    """Find a time zone.

    Args:
        name: In the IANA data base.

    Raises:
        InvalidInputError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise InvalidInputError([f"there is no time zone {name!r}: write one such as Europe/Oslo"]) from error


def read_instant(value: datetime, zone: tzinfo, place: str) -> datetime:
    """Read an instant; one that says no zone is in that of the scheduler.

    Args:
        value: Aware, or naive.
        zone: Of the scheduler.
        place: What it is called, for people.

    Returns:
        Aware.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, datetime):
        raise InvalidInputError([f"{place} is of the class {type(value).__name__}: give a datetime"])
    return value if value.utcoffset() is not None else value.replace(tzinfo=zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringJob:
    """A declared job whose function a worker calls.

    Attributes:
        name: Of the job.
        handler: The name of the function.
        payload: JSON text that it is called with.
        type: What the scheduler's user calls its kind.
        next_run_at: When it fires next, aware.
        last_run_at: When it fired last.
        last_error: Why its last run failed that did.
        created_at: When it was declared first.
        updated_at: When its declaration changed last.
    """

    name: str
    handler: str
    payload: str
    type: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime


def is_same(row: QueuedJob, new: NewJob, at: datetime) -> bool:
    """Tell whether a one-time job that is to be scheduled is there already, or was.

    The time in a row moves while the job is tried again, so what has begun counts by when it did.

    Args:
        row: The row that its id means.
        new: The job.
        at: When it is to run.
    """
    if row.status == "cancelled" or row.job_name is not None:
        return False
    is_alike = (row.handler, row.payload, row.type) == (new.handler, new.payload, new.type)
    if row.started_at is None:
        return is_alike and at == row.run_at
    return at <= row.started_at and (is_alike or row.status != "pending")


def show_row(row: QueuedJob, config: SchedulerConfig) -> SchedulerJob:
    """Show a row of the jobs table as a job of the scheduler.

    Args:
        row: A one-time job, or one run of a recurring job.
        config: The scheduler's.
    """
    status = _ROWS[row.status]
    is_waiting = status is JobStatus.SCHEDULED
    return SchedulerJob(
        job_id=row.job_name or row.unique_key or str(row.id),
        job_type=_TYPES.get(row.type, JobType.CUSTOM),
        status=status,
        is_recurring=row.job_name is not None,
        func=row.handler or "",
        metadata=row.payload if isinstance(row.payload, dict) else {},
        run_date=row.run_at,
        next_run=row.run_at if is_waiting else None,
        last_run=row.started_at,
        retry_count=max(row.attempts - (0 if is_waiting else 1), 0),
        max_retries=(row.max_attempts or config.max_attempts) - 1,
        result=row.result,
        last_error=row.last_error,
        id=row.id,
        created_at=row.created_at,
        updated_at=max(one for one in (row.created_at, row.started_at, row.completed_at) if one is not None),
    )


def show_recurring(known: RecurringJob, row: QueuedJob | None, config: SchedulerConfig) -> SchedulerJob:
    """Show a recurring job.

    Args:
        known: As it is declared.
        row: Its run that goes on, else its last one; None for none.
        config: The scheduler's.
    """
    last = None if row is None else show_row(row, config)
    last_run = last.last_run if last is not None and last.last_run is not None else known.last_run_at
    is_running = last is not None and last.status is JobStatus.RUNNING
    return SchedulerJob(
        job_id=known.name,
        job_type=_TYPES.get(known.type, JobType.CUSTOM),
        status=JobStatus.RUNNING if is_running else JobStatus.SCHEDULED,
        is_recurring=True,
        func=known.handler,
        metadata=json.loads(known.payload),
        run_date=known.next_run_at,
        next_run=known.next_run_at,
        last_run=last_run,
        retry_count=0 if last is None else last.retry_count,
        max_retries=config.max_attempts - 1,
        result=None if last is None else last.result,
        last_error=known.last_error if last is None else last.last_error,
        id=None if last is None else last.id,
        created_at=known.created_at,
        updated_at=max(one for one in (known.updated_at, last_run) if one is not None),
    )
