"""Queue jobs from Python and look after them, inside the caller's own transaction.

Never commits and never rolls back. What is sent when stands in `reconciler.database.jobs`; here it is carried
out, on connections that block and on connections that are awaited.

Errors are ours, but for those that say something about the caller's transaction and nothing about the call: a
serialization failure, a deadlock, a cancelled statement and a lock timeout come out as psycopg's. After an
error of the server the transaction has failed, as after any statement; what was wrong before anything was
sent leaves it as it was.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from psycopg import AsyncCursor, Cursor
from psycopg.rows import dict_row

from reconciler.core.queued_jobs import NewJob
from reconciler.database import jobs as steps
from reconciler.database.queries import load_queries
from reconciler.runtime.carrying import carry_out, carry_out_async

from .callers import find_connection, find_connection_async

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from datetime import datetime, timedelta

    from psycopg import AsyncConnection, Connection

    from reconciler.core.queued_jobs import Enqueued, QueuedJob
    from reconciler.database.jobs import ListedJob, Step

    from .callers import AnyAsyncConnection, AnyConnection

_Result = TypeVar("_Result")


class JobOptions(TypedDict, total=False):
    """What can be said of a job besides its handler and payload: see `NewJob`."""

    queue: str
    run_at: datetime | timedelta | None
    priority: int
    unique_key: str | None
    ordering_key: str | None
    max_attempts: int | None
    timeout: timedelta | None
    type: str


def enqueue(
    conn: AnyConnection, handler: str, payload: Any = None, **options: Unpack[JobOptions]
) -> Enqueued:
    """Put a job on a queue, as a part of the caller's transaction: it is there once that is committed.

    Args:
        conn: Of psycopg, or of SQLAlchemy over psycopg: a connection, a session, or a raw one.
        handler: The name of the function that does it.
        payload: JSON that it is called with; None for nothing.
        **options: `queue`; `run_at` (aware, or how long from now by the server's clock); `priority` (higher
            ones first); `unique_key` (at most one open job of the queue has it); `ordering_key` (open jobs of
            the queue with the same one are done one at a time, in order); `max_attempts` and `timeout` (of a
            try; left out, the queue's); `type` (a word of your own).

    Returns:
        Its id; where the unique key was taken, that of the open job that has it, and `created` is false.

    Raises:
        InvalidInputError: JSON cannot hold the payload, it is too large, `run_at` has no time zone, or
            another argument cannot be.
        RightsError: The role may not; the remedy is the call that allows it.
        MigrationError: The schema is not there, or is of an earlier release.
        DatabaseError: Anything else that the server refused.
    """
    return _carry_out(conn, steps.put_jobs([NewJob(handler, payload, **options)]))[0]


async def enqueue_async(
    conn: AnyAsyncConnection, handler: str, payload: Any = None, **options: Unpack[JobOptions]
) -> Enqueued:
    """Do the same as `enqueue` over a connection that is awaited.

    Args:
        conn: As there, but awaited.
        handler: As there.
        payload: As there.
        **options: As there.

    Returns:
        As there.
    """
    return (await _carry_out_async(conn, steps.put_jobs([NewJob(handler, payload, **options)])))[0]


def enqueue_many(conn: AnyConnection, jobs: Iterable[NewJob]) -> list[Enqueued]:
    """Put jobs on their queues by one statement: all of them, or none.

    Args:
        conn: As for `enqueue`.
        jobs: To put.

    Returns:
        What became of each, in their order; of two with one unique key the first is made.

    Raises:
        InvalidInputError: Some cannot be; all that is wrong with any of them is named.
        DatabaseError: As for `enqueue`.
    """
    return _carry_out(conn, steps.put_jobs(list(jobs)))


async def enqueue_many_async(conn: AnyAsyncConnection, jobs: Iterable[NewJob]) -> list[Enqueued]:
    """Do the same as `enqueue_many` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        jobs: To put.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.put_jobs(list(jobs)))


def get_job(conn: AnyConnection, job_id: int) -> QueuedJob | None:
    """Read a job, also one that is finished.

    Args:
        conn: As for `enqueue`.
        job_id: Of the job.

    Returns:
        The job; None where there is none, or where its time was over and it was cleared away.
    """
    return _carry_out(conn, steps.read_job(job_id))


async def get_job_async(conn: AnyAsyncConnection, job_id: int) -> QueuedJob | None:
    """Do the same as `get_job` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        job_id: Of the job.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.read_job(job_id))


def get_jobs_by_status(
    conn: AnyConnection, status: str, *, queue: str | None = None, limit: int = 100
) -> list[QueuedJob]:
    """Read the jobs of a status, the newest first.

    Args:
        conn: As for `enqueue`.
        status: `pending`, `running`, `completed`, `failed` or `cancelled`; `scheduled` for those of the
            pending ones that are not due yet.
        queue: Of this queue alone; None for all.
        limit: How many at the most.

    Returns:
        The jobs.

    Raises:
        InvalidInputError: There is no such status.
    """
    return _carry_out(conn, steps.read_jobs(status=status, queue=queue, limit=limit))


async def get_jobs_by_status_async(
    conn: AnyAsyncConnection, status: str, *, queue: str | None = None, limit: int = 100
) -> list[QueuedJob]:
    """Do the same as `get_jobs_by_status` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        status: As there.
        queue: As there.
        limit: As there.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.read_jobs(status=status, queue=queue, limit=limit))


def list_jobs(
    conn: AnyConnection,
    *,
    status: str | None = None,
    queue: str | None = None,
    handler: str | None = None,
    job_name: str | None = None,
    limit: int = 100,
) -> list[QueuedJob]:
    """Read jobs by anything, the newest first.

    Args:
        conn: As for `enqueue`.
        status: As for `get_jobs_by_status`; None for any.
        queue: Of all of them.
        handler: Of all of them.
        job_name: The declared job that they come from.
        limit: How many at the most.

    Returns:
        The jobs.
    """
    work = steps.read_jobs(status=status, queue=queue, handler=handler, job_name=job_name, limit=limit)
    return _carry_out(conn, work)


def list_job_page(
    conn: AnyConnection,
    *,
    status: str | None = None,
    queue: str | None = None,
    handler: str | None = None,
    job_name: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[ListedJob]:
    """Read a page of the list of jobs, the newest first; the role has to have the right to read the tables.

    Args:
        conn: As for `enqueue`.
        status: As for `get_jobs_by_status`; None for any.
        queue: Of all of them.
        handler: Of all of them.
        job_name: The declared job that they come from.
        before: The last job of the page before; None for the first page.
        limit: How many at the most.

    Returns:
        The jobs, without what is long.
    """
    return _carry_out(
        conn,
        steps.read_page(
            status=status, queue=queue, handler=handler, job_name=job_name, before=before, limit=limit
        ),
    )


def cancel_job(conn: AnyConnection, job_id: int) -> str | None:
    """Cancel a job.

    Args:
        conn: As for `enqueue`.
        job_id: Of the job.

    Returns:
        `cancelled`; `cancelling` where it runs and its worker is told; its status where it was finished
        already, and stays so; None where there is none.
    """
    return _carry_out(conn, steps.cancel_job(job_id))


async def cancel_job_async(conn: AnyAsyncConnection, job_id: int) -> str | None:
    """Do the same as `cancel_job` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        job_id: Of the job.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.cancel_job(job_id))


def retry_job(conn: AnyConnection, job_id: int, *, run_at: datetime | None = None) -> str | None:
    """Let a dead or cancelled job begin anew, with all its attempts.

    Args:
        conn: As for `enqueue`.
        job_id: Of the job.
        run_at: When it is due, aware; None for now.

    Returns:
        `pending`; its status where it is neither dead nor cancelled, and stays so; None where there is none.

    Raises:
        DatabaseError: An open job has its unique key.
    """
    return _carry_out(conn, steps.retry_job(job_id, run_at))


async def retry_job_async(
    conn: AnyAsyncConnection, job_id: int, *, run_at: datetime | None = None
) -> str | None:
    """Do the same as `retry_job` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        job_id: Of the job.
        run_at: As there.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.retry_job(job_id, run_at))


def retry_jobs(
    conn: AnyConnection,
    queue: str,
    *,
    limit: int | None = None,
    every: timedelta | None = None,
    to_queue: str | None = None,
) -> int:
    """Let the dead jobs of a queue begin anew, those first that have been dead for longest.

    Args:
        conn: As for `enqueue`.
        queue: Where they died.
        limit: How many at the most; None for all.
        every: The time from one to the next, so that they come bit by bit; None for all at once.
        to_queue: Another queue that they go to; None for their own.

    Returns:
        How many. Those whose unique key an open job has stay dead.
    """
    return _carry_out(conn, steps.retry_jobs(queue, limit=limit, every=every, to_queue=to_queue))


async def retry_jobs_async(
    conn: AnyAsyncConnection,
    queue: str,
    *,
    limit: int | None = None,
    every: timedelta | None = None,
    to_queue: str | None = None,
) -> int:
    """Do the same as `retry_jobs` over a connection that is awaited.

    Args:
        conn: As for `enqueue_async`.
        queue: As there.
        limit: As there.
        every: As there.
        to_queue: As there.

    Returns:
        As there.
    """
    return await _carry_out_async(conn, steps.retry_jobs(queue, limit=limit, every=every, to_queue=to_queue))


def _carry_out(conn: AnyConnection, work: Generator[Step, Any, _Result]) -> _Result:
    # What is wrong with the arguments is told before the first step, so before the connection is touched.
    found = cache(lambda: find_connection(conn))
    return carry_out(work, lambda step: _do(found(), step))


def _do(conn: Connection[Any], step: Step) -> Any:
    if not isinstance(step, steps.Ask):
        return steps.read_end(conn)
    with Cursor(conn, row_factory=dict_row) as cursor:
        return cursor.execute(load_queries("jobs")[step.query], step.values).fetchall()


async def _carry_out_async(conn: AnyAsyncConnection, work: Generator[Step, Any, _Result]) -> _Result:
    found: AsyncConnection[Any] | None = None

    async def do(step: Step) -> Any:
        nonlocal found
        found = found or await find_connection_async(conn)
        return await _do_async(found, step)

    return await carry_out_async(work, do)


async def _do_async(conn: AsyncConnection[Any], step: Step) -> Any:
    if not isinstance(step, steps.Ask):
        return steps.read_end(conn)
    async with AsyncCursor(conn, row_factory=dict_row) as cursor:
        return await (await cursor.execute(load_queries("jobs")[step.query], step.values)).fetchall()
