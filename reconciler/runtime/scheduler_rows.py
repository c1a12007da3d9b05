"""The rows of a Scheduler in the jobs table, each under its id; within the caller's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.queued_jobs import NewJob, encode_jobs
from reconciler.core.scheduler_jobs import JobType, is_same
from reconciler.database import scheduled
from reconciler.errors import DatabaseError, InvalidInputError, RefusedError

from . import jobs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

    from reconciler.core.queued_jobs import QueuedJob
    from reconciler.core.scheduler_jobs import RecurringJob

_TRIES: Final = 5


def make_new(
    handler: str,
    payload: Mapping[str, Any],
    *,
    queue: str,
    job_id: str,
    job_type: JobType,
    run_at: datetime | None = None,
) -> NewJob:
    """Make a job, checked as far as this can be done without the server.

    Args:
        handler: The name of the function.
        payload: What that is called with.
        queue: Of the scheduler.
        job_id: Of the job.
        job_type: What it is.
        run_at: When it is to run, aware.

    Raises:
        InvalidInputError: JSON cannot hold the payload, or another argument cannot be.
    """
    if type(job_id) is not str or not job_id:
        raise InvalidInputError([f"job_id is {job_id!r}: give a text"])
    if type(job_type) is not JobType:
        raise InvalidInputError([f"job_type is {job_type!r}: give a JobType"])
    new = NewJob(handler, dict(payload), queue=queue, unique_key=job_id, run_at=run_at, type=job_type.value)
    encode_jobs([new], None)
    return new


def find_row(conn: Connection[Any], queue: str, job_id: str) -> QueuedJob | None:
    """Find the row that an id means: the open one, else the one that was finished last.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        job_id: Of the job.
    """
    found = scheduled.find_latest(conn, queue, job_id)
    return None if found is None else jobs.get_job(conn, found)


def put_row(conn: Connection[Any], owner: str, new: NewJob, at: datetime) -> QueuedJob:
    """Put a one-time job, in the place of one that waits under the same id.

    Args:
        conn: Within a transaction.
        owner: Of the scheduler.
        new: The job, with its id as unique key.
        at: When it is to run.

    Returns:
        Its row, or the one that is there already and does the same.

    Raises:
        RefusedError: One that was due before runs just now, or a recurring job has the id.
        DatabaseError: It could not be put.
    """
    job_id = str(new.unique_key)
    if scheduled.list_recurring(conn, owner, new.queue, job_id):
        raise RefusedError(f"{job_id} is a recurring job", remedy="cancel it first, or take another job_id")
    for _ in range(_TRIES):
        row = find_row(conn, new.queue, job_id)
        if row is not None and is_same(row, new, at):
            return row
        if row is not None and row.status == "running":
            raise RefusedError(
                f"{job_id} runs just now, so it cannot be scheduled anew",
                remedy="take another job_id; or raise Snooze(delay) in the function to be called again",
            )
        if row is not None and row.status == "pending":
            jobs.cancel_job(conn, row.id)
        [made] = jobs.enqueue_many(conn, [new])
        put = jobs.get_job(conn, made.id) if made.created else None
        if put is not None:
            return put
        # Somebody else put one in this very moment: look at that.
    raise DatabaseError(f"{job_id} is scheduled by others all the time", remedy="try again")


def cancel_row(conn: Connection[Any], queue: str, job_id: str) -> bool:
    """Cancel a one-time job that waits or runs.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        job_id: Of the job.

    Returns:
        False where there is none.
    """
    row = find_row(conn, queue, job_id)
    return (
        row is not None
        and not row.is_finished
        and jobs.cancel_job(conn, row.id) in {"cancelled", "cancelling"}
    )


def retry_row(conn: Connection[Any], queue: str, job_id: str) -> bool:
    """Put a failed or cancelled job back.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        job_id: Of the job.

    Returns:
        False where the last row of the id is neither.
    """
    row = find_row(conn, queue, job_id)
    return row is not None and row.is_finished and jobs.retry_job(conn, row.id) == "pending"


def end_recurring(conn: Connection[Any], queue: str, known: RecurringJob) -> None:
    """End what is left of a recurring job that is declared no more, and remember that it was cancelled.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        known: The job, as it was declared.
    """
    for run in scheduled.list_open_runs(conn, queue, known.name):
        jobs.cancel_job(conn, run)
    new = NewJob(
        known.handler,
        json.loads(known.payload),
        queue=queue,
        unique_key=known.name,
        run_at=known.next_run_at,
        type=known.type,
    )
    # A row for as long as those of other jobs that are over; whoever claims meanwhile does not see it.
    with conn.transaction():
        [made] = jobs.enqueue_many(conn, [new])
        if made.created:
            jobs.cancel_job(conn, made.id)
