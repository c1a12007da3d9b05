"""A scheduler for programs: one-time and recurring jobs that call Python functions, kept in the database.

One-time jobs are rows of `reconciler.jobs` on a queue of the scheduler's own, under their id as unique key.
Recurring ones are declared like those of spec files, so that pg_cron knows their times. Nothing is kept in
the process: another one, or this one after a restart, goes on with what was scheduled.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.names import is_name
from reconciler.core.recurrence import Times, make_trigger
from reconciler.core.scheduler_jobs import (
    STATUSES,
    JobStatus,
    JobType,
    SchedulerConfig,
    SchedulerJob,
    TriggerType,
    find_zone,
    read_instant,
    show_recurring,
    show_row,
)
from reconciler.database import scheduled
from reconciler.database.runs import has_runtime
from reconciler.database.sessions import read_state, require_idle
from reconciler.errors import DatabaseError, InvalidInputError, RefusedError

from . import jobs
from .functions import Functions, find_calling_package, pick_arguments
from .kept_connection import KeptConnection
from .scheduler_declarations import Declarations, is_declared
from .scheduler_rows import cancel_row, end_recurring, find_row, make_new, put_row, retry_row
from .scheduler_worker import SchedulerWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self

    from psycopg import Connection

    from reconciler.core.queued_jobs import NewJob


class Scheduler:
    """Schedules calls of Python functions, and does them, or leaves that to `reconciler worker`."""

    def __init__(
        self,
        dsn: str | Connection[Any],
        config: SchedulerConfig | None = None,
        owner: str = "app",
        *,
        timezone: str = "UTC",
        modules: Iterable[str] | None = None,
        queue: str = "",
        concurrency: int = 10,
    ) -> None:
        """Make a scheduler; nothing is sent.

        Args:
            dsn: A libpq connection string or URL; or a connection, and one-time jobs are scheduled within
                its transaction.
            config: How jobs are treated; None for the usual.
            owner: Whose jobs these are; not that of any spec files. Programs with one owner share them.
            timezone: The zone of hours and days, and of a datetime that names none.
            modules: Modules and packages whose functions are called; None for the top package of the caller.
            queue: Its queue; left out, `scheduler`, or `scheduler-OWNER` for another owner than `app`.
            concurrency: How many jobs this process does at once; 0 leaves them to others.

        Raises:
            InvalidInputError: There is no such zone, or another argument cannot be.
            ConfigError: The string is no connection string.
        """
        if type(concurrency) is not int or concurrency < 0:
            raise InvalidInputError([f"concurrency is {concurrency!r}: give a whole number from 0 on"])
        self.config = config or SchedulerConfig()
        self.owner = owner
        self.queue = queue or ("scheduler" if owner == "app" else f"scheduler-{owner}")
        if not is_name(self.queue):
            raise InvalidInputError([f"{self.queue!r} is no name of a queue: give another one as queue"])
        self.handlers = Functions(
            [find_calling_package()] if modules is None else modules,
            keep_results=self.config.store_job_results,
        )
        self._zone = find_zone(timezone)
        self._kept = KeptConnection(dsn)
        self._is_declared = False
        self._worker = SchedulerWorker(self._kept.dsn, self.handlers, self.queue, concurrency)
        self.job = self.handlers.handler
        """Decorator: register a function for jobs, under its path or under `@scheduler.job("a.name")`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown_async()

    def start(self) -> None:
        """Declare the queue, and begin to do jobs in a thread with an event loop of its own.

        Raises:
            ReconcilerError: The database cannot be reached, or the queue not declared.
        """
        self._declare()
        self._worker.start()

    def shutdown(self) -> None:
        """End: what runs is finished, what has not begun is given back, and our own connection is closed."""
        self._worker.stop()
        self._kept.close()

    async def start_async(self) -> None:
        """Do the same as `start`, but call coroutine functions in the event loop of the caller."""
        await asyncio.to_thread(self._declare)
        await self._worker.start_async()

    async def shutdown_async(self) -> None:
        """Do the same as `shutdown`, awaited."""
        await self._worker.stop_async()
        await asyncio.to_thread(self._kept.close)

    @property
    def is_working(self) -> bool:
        """Whether jobs are done in this process; a worker that cannot go on logs why and ends."""
        return self._worker.is_working

    def schedule_one_time_job(
        self,
        func: Callable[..., Any],
        run_at: datetime,
        job_id: str,
        *,
        job_type: JobType = JobType.CUSTOM,
        **kwargs: Any,
    ) -> SchedulerJob:
        """Schedule one call of a function.

        The id is the job: as long as it has not begun, the same id with something else to do, or at another
        time, replaces it. One that has begun at `run_at` or later stays as it is: scheduling again at each
        start of a program does no job twice, while it is remembered.

        Args:
            func: What is called, by a worker.
            run_at: When; in the past, at once. Without a zone, in that of the scheduler.
            job_id: What it is called, up to 500 characters.
            job_type: What it is, for people.
            **kwargs: What the function is called with, as JSON can hold it.

        Returns:
            The job.

        Raises:
            InvalidInputError: The function has no name, does not take these arguments, or JSON cannot hold
                them; or another argument cannot be.
            RefusedError: The id is that of a recurring job, or of one that runs just now and was due before.
            DatabaseError: It could not be scheduled.
        """
        at = read_instant(run_at, self._zone, "run_at")
        new = self._make_new(func, kwargs, job_id, job_type, run_at=at)
        with self._kept.use() as conn:
            self._declare()
            with conn.transaction():
                row = put_row(conn, self.owner, new, at)
                return show_row(row, self.config)

    def schedule_reminder(
        self,
        event_id: str,
        event_time: datetime,
        notification_func: Callable[..., Any],
        minutes_before: float = 15,
        *,
        job_id: str = "",
        **kwargs: Any,
    ) -> SchedulerJob | None:
        """Schedule a reminder of an event; scheduled again, it moves with the event.

        Args:
            event_id: Of the event.
            event_time: When that is. Without a zone, in that of the scheduler.
            notification_func: What is called, with `event_id` and the rest; and with `event_time` (ISO 8601)
                and `minutes_before` where it has parameters of these names.
            minutes_before: How long before. Where that is over already, but the event is not: at once.
            job_id: What the job is called; left out, `reminder:EVENT:MINUTES`.
            **kwargs: As for `schedule_one_time_job`.

        Returns:
            The job; None where the event is over: then nothing is scheduled any more.

        Raises:
            ReconcilerError: As `schedule_one_time_job` does.
        """
        moment = read_instant(event_time, self._zone, "event_time")
        if type(minutes_before) not in {int, float} or not 0 <= minutes_before <= 5_256_000:
            raise InvalidInputError([f"minutes_before is {minutes_before!r}: give a number from 0 on"])
        job_id = job_id or f"reminder:{event_id}:{minutes_before:g}"
        at = moment - timedelta(minutes=minutes_before)
        told = {"event_time": moment.isoformat(), "minutes_before": minutes_before}
        payload = {"event_id": event_id, **pick_arguments(notification_func, told), **kwargs}
        new = self._make_new(notification_func, payload, job_id, JobType.EVENT_REMINDER, run_at=at)
        with self._kept.use() as conn:
            self._declare()
            with conn.transaction():
                if moment <= scheduled.read_clock(conn):
                    cancel_row(conn, self.queue, job_id)
                    return None
                row = put_row(conn, self.owner, new, at)
                return show_row(row, self.config)

    def schedule_recurring(
        self,
        func: Callable[..., Any],
        trigger_type: TriggerType,
        job_id: str,
        *,
        run_date: datetime | None = None,
        hour: int | None = None,
        minute: int | None = None,
        day_of_week: str | int | Sequence[str | int] | None = None,
        day: int | str | None = None,
        interval: timedelta | float | None = None,
        cron_expression: str | None = None,
        job_type: JobType = JobType.CUSTOM,
        **kwargs: Any,
    ) -> SchedulerJob:
        """Schedule calls of a function that come again and again, or change one that is scheduled.

        Args:
            func: What is called, by a worker.
            trigger_type: Which of the times below count.
            job_id: The name of the job, as in a spec file: `daily_report`.
            run_date: For ONCE, when. Else its time of day, weekday and day of the month stand for what is
                left out; it is no first date.
            hour: For DAILY, WEEKLY and MONTHLY, in the zone of the scheduler.
            minute: The same; 0 if an hour is given.
            day_of_week: For WEEKLY: `"mon"`, `"mon,thu"`, `"mon-fri"`, or numbers from 0 for Monday.
            day: For MONTHLY: 1 to 31, `"last"`, or a weekday such as `"second tue"` and `"last fri"`.
            interval: For INTERVAL: whole minutes, or 1 to 59 seconds from pg_cron 1.5 on.
            cron_expression: For CRON: in pg_cron's grammar, in the zone of the scheduler.
            job_type: What it is, for people.
            **kwargs: What the function is called with, as JSON can hold it.

        Returns:
            The job.

        Raises:
            InvalidInputError: The times do not fit the trigger or this server, or as `schedule_one_time_job`.
            RefusedError: The id is that of a one-time job that is open, or belongs to another owner.
            DatabaseError: It could not be scheduled.
        """
        if not isinstance(trigger_type, TriggerType):
            raise InvalidInputError([f"trigger_type is {trigger_type!r}: give a TriggerType"])
        if run_date is not None:
            run_date = read_instant(run_date, self._zone, "run_date")
        if trigger_type is TriggerType.ONCE:
            if run_date is None:
                raise InvalidInputError(["a job that comes once: run_date is missing"])
            return self.schedule_one_time_job(func, run_date, job_id, job_type=job_type, **kwargs)
        times = Times(
            run_date=run_date,
            hour=hour,
            minute=minute,
            day_of_week=day_of_week,
            day=day,
            interval=interval,
            cron_expression=cron_expression,
        )
        trigger = make_trigger(trigger_type, times, zone=self._zone, now=datetime.now(self._zone))
        new = self._make_new(func, kwargs, job_id, job_type)
        with self._kept.use() as conn:
            self._declare()
            row = find_row(conn, self.queue, job_id)
            if row is not None and row.job_name is None and not row.is_finished:
                raise RefusedError(
                    f"{job_id} is a one-time job that is {row.status}",
                    remedy="cancel it first, or take another job_id",
                )
            labels = {"labels": {"type": job_type.value}} if job_type is not JobType.CUSTOM else {}
            Declarations(conn, self.owner).declare_job(
                job_id, func, new.handler, queue=self.queue, payload=kwargs, trigger=trigger, **labels
            )
            job = self._read(conn, job_id)
        if job is None:
            raise DatabaseError(f"{job_id} is gone: somebody cancelled it just now")
        return job

    def get_job(self, job_id: str) -> SchedulerJob | None:
        """Read a job.

        Args:
            job_id: Of the job.

        Returns:
            The job; None where there is none, or none any more.
        """
        with self._kept.use() as conn:
            return self._read(conn, job_id)

    def get_jobs_by_status(self, status: JobStatus, *, limit: int = 1000) -> list[SchedulerJob]:
        """Read the jobs of a status.

        Args:
            status: SCHEDULED has the jobs to come, recurring ones among them; the others have what runs and
                what ran, each run of a recurring job by itself.
            limit: How many at the most besides recurring jobs: those that were scheduled last.

        Returns:
            What is due first, first; of what is over, the newest first.
        """
        wanted = STATUSES[JobStatus(status)]
        with self._kept.use() as conn:
            if not has_runtime(conn):
                return []
            rows = jobs.get_jobs_by_status(conn, wanted, queue=self.queue, limit=limit)
            rows = [row for row in rows if row.unique_key is not None or row.job_name is not None]
            if wanted != "pending":
                return [show_row(row, self.config) for row in rows]
            # A run of a recurring job that waits for a worker is no job to come besides that.
            found = [show_row(row, self.config) for row in rows if row.job_name is None]
            recurring = scheduled.list_recurring(conn, self.owner, self.queue)
            found += [show_recurring(one, None, self.config) for one in recurring]
            return sorted(found, key=lambda job: (job.next_run is None, job.next_run, job.job_id))

    def cancel_job(self, job_id: str) -> bool:
        """Cancel a job: one that waits, one that runs (its function is told), or a recurring one for good.

        Args:
            job_id: Of the job.

        Returns:
            False where there is none that is still to be done.

        Raises:
            RefusedError: Other jobs wait for the recurring one.
        """
        with self._kept.use() as conn:
            if not has_runtime(conn):
                return False
            known = scheduled.list_recurring(conn, self.owner, self.queue, job_id)
            if not known:
                return cancel_row(conn, self.queue, job_id)
            Declarations(conn, self.owner).cancel_job(job_id)
            end_recurring(conn, self.queue, known[0])
            return True

    def retry_job(self, job_id: str) -> bool:
        """Try a failed or cancelled job again, at once; of a recurring one the last run.

        Args:
            job_id: Of the job.

        Returns:
            False where there is none that failed or was cancelled.
        """
        with self._kept.use() as conn:
            return has_runtime(conn) and retry_row(conn, self.queue, job_id)

    def _declare(self) -> None:
        """Declare the queue, once; within the caller's transaction, see that it is declared."""
        if self._is_declared:
            return
        with self._kept.use() as conn:
            state = read_state(conn)
            if state.transaction != "open" or not is_declared(conn, self.owner, self.queue, self.config):
                require_idle(state, f"the queue {self.queue} cannot be declared, call start() before")
                Declarations(conn, self.owner).declare_queue(self.queue, self.config)
            self._is_declared = True

    def _make_new(
        self,
        func: Callable[..., Any],
        payload: Mapping[str, Any],
        job_id: str,
        job_type: JobType,
        run_at: datetime | None = None,
    ) -> NewJob:
        call = self.handlers.make_call(func, payload)
        return make_new(call, payload, queue=self.queue, job_id=job_id, job_type=job_type, run_at=run_at)

    def _read(self, conn: Connection[Any], job_id: str) -> SchedulerJob | None:
        if not has_runtime(conn):
            return None
        row = find_row(conn, self.queue, job_id)
        for known in scheduled.list_recurring(conn, self.owner, self.queue, job_id):
            return show_recurring(known, row, self.config)
        return None if row is None else show_row(row, self.config)
