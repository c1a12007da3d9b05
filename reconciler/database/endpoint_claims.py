"""The calls of a worker's SQL functions, one at a time, over connections that are awaited.

Knows neither handlers nor when to call. Errors come out as psycopg's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import AsyncCursor
from psycopg.rows import tuple_row

from .claims import ClaimedJob
from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from psycopg import AsyncConnection


async def check_rights(conn: AsyncConnection[Any]) -> None:
    """Call the most harmless of the functions: who may not do that may do nothing here.

    Args:
        conn: Of the role that is to work.
    """
    await _fetch(conn, "find_queue_settings")


async def rescue_jobs(conn: AsyncConnection[Any]) -> None:
    """Take jobs from workers that are gone.

    Args:
        conn: Of a worker.
    """
    await _fetch(conn, "rescue_jobs")


async def claim_jobs(
    conn: AsyncConnection[Any], queue: str, worker: str, most: int, *, status: str
) -> list[ClaimedJob]:
    """Claim jobs.

    Args:
        conn: Of a worker.
        queue: Whose jobs.
        worker: Who claims.
        most: How many at the most.
        status: pending, or failed for one more try of dead ones.

    Returns:
        The jobs in their order.
    """
    values = {"queue": queue, "worker": worker, "max": most, "status": status}
    return [ClaimedJob(*row) for row in await _fetch(conn, "claim_jobs", **values)]


async def complete_job(
    conn: AsyncConnection[Any], job_id: int, token: int, result: str | None, note: str | None
) -> bool:
    """End a job that is done.

    Args:
        conn: Of a worker.
        job_id: Of the job.
        token: Of the claim.
        result: A JSON text.
        note: Why there is no result.

    Returns:
        Whether the job was the worker's still.
    """
    values = {"id": job_id, "token": token, "result": result, "note": note}
    return bool(await _fetch(conn, "complete_job", **values))


async def fail_job(
    conn: AsyncConnection[Any],
    job_id: int,
    token: int,
    error: str,
    *,
    retry_in: timedelta | None,
    final: bool,
) -> str | None:
    """End a try that failed.

    Args:
        conn: Of a worker.
        job_id: Of the job.
        token: Of the claim.
        error: Why.
        retry_in: When to try again, in place of the queue's backoff.
        final: Whether there are to be no more tries.

    Returns:
        What the job is now; None where it was not the worker's any more.
    """
    values = {"id": job_id, "token": token, "error": error, "retry_in": retry_in, "final": final}
    [(status,)] = await _fetch(conn, "fail_job", **values)
    return None if status is None else str(status)


async def snooze_job(conn: AsyncConnection[Any], job_id: int, token: int, delay: timedelta) -> bool:
    """Put a job off.

    Args:
        conn: Of a worker.
        job_id: Of the job.
        token: Of the claim.
        delay: Until then.

    Returns:
        Whether the job was the worker's still.
    """
    return await _fetch(conn, "snooze_job", id=job_id, token=token, delay=delay) == [(True,)]


async def end_cancelled_job(conn: AsyncConnection[Any], job_id: int, token: int, reason: str) -> bool:
    """End a job that somebody cancelled.

    Args:
        conn: Of a worker.
        job_id: Of the job.
        token: Of the claim.
        reason: For people.

    Returns:
        Whether the job was the worker's still.
    """
    return await _fetch(conn, "end_cancelled_job", id=job_id, token=token, reason=reason) == [(True,)]


async def return_jobs(conn: AsyncConnection[Any], keys: Sequence[tuple[int, int]]) -> list[int]:
    """Give jobs back that were not done.

    Args:
        conn: Of a worker.
        keys: Id and token of each.

    Returns:
        The ids of those that were the worker's still.
    """
    return [row[0] for row in await _fetch(conn, "return_jobs", **_split(keys))]


async def renew_leases(
    conn: AsyncConnection[Any], worker: str, keys: Sequence[tuple[int, int]]
) -> dict[int, str | None]:
    """Keep jobs for another lease.

    Args:
        conn: Of a worker.
        worker: Who claimed them.
        keys: Id and token of each.

    Returns:
        The ids of those that are the worker's still, each with who wants it to end.
    """
    return dict(await _fetch(conn, "renew_leases", worker=worker, **_split(keys)))


def _split(keys: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"ids": [key[0] for key in keys], "tokens": [key[1] for key in keys]}


async def _fetch(conn: AsyncConnection[Any], query: str, **values: Any) -> list[tuple[Any, ...]]:
    async with AsyncCursor(conn, row_factory=tuple_row) as cursor:
        await cursor.execute(load_queries("endpoint_claims")[query], values)
        return await cursor.fetchall()
