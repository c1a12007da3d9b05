"""Calls of the SQL functions by which workers claim queued jobs, end them, and keep their leases.

Knows neither handlers nor when to call. The connections are in autocommit mode. Who gives several jobs gives
them sorted by id: rows are locked in that order. Long arrays of numbers travel as texts, the quickest way to
spell them.
"""

from __future__ import annotations

from datetime import datetime, timedelta  # noqa: TC003 - the rows' types are looked at
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import AsyncCursor, Cursor
from psycopg.rows import tuple_row

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from psycopg import AsyncConnection, Connection

_MOST_RESCUED: Final = 2000


class ClaimedJob(NamedTuple):
    """A job as a claim hands it out.

    Attributes:
        id: Of the job.
        token: The proof of this claim; who has an older one is told that he is late.
        handler: The name of what does it.
        payload: As JSON text.
        attempt: Which try this is, from 1.
        max_attempts: How many tries it gets.
        priority: Higher ones are done first.
        run_at: When it was due, aware.
        timeout: Seconds that the try may take.
        lease: Seconds after which it is anybody's again, unless it is renewed.
        type: As it was queued.
        job_name: The declared job that it comes from.
        ordering_key: Jobs with the same one are done one at a time.
        unique_key: No other open job of the queue has it.
        queue: The queue.
        created_at: When it was queued, aware.
    """

    id: int
    token: int
    handler: str
    payload: str
    attempt: int
    max_attempts: int
    priority: int
    run_at: datetime
    timeout: float
    lease: float
    type: str
    job_name: str | None
    ordering_key: str | None
    unique_key: str | None
    queue: str
    created_at: datetime


class QueueSettings(NamedTuple):
    """What a worker needs to know of a queue.

    Attributes:
        name: Of the queue.
        lease: Seconds.
        is_limited: Whether jobs that are due may have to wait for others of the queue.
        read_at: When this was read, by the server's clock.
    """

    name: str
    lease: float
    is_limited: bool
    read_at: datetime


_read_claimed: Final = ClaimedJob._make
_read_id: Final = itemgetter(0)
_read_token: Final = itemgetter(1)


def _claimed_row(_cursor: object) -> Callable[[Sequence[Any]], ClaimedJob]:
    return _read_claimed


def _settings_row(_cursor: object) -> Callable[[Sequence[Any]], QueueSettings]:
    return QueueSettings._make


async def claim_jobs(
    conn: AsyncConnection[Any],
    *,
    queue: str,
    worker: str,
    limit: int,
    since: Mapping[int, tuple[datetime, int]] | None = None,
    status: str = "pending",
) -> list[ClaimedJob]:
    """Claim jobs that are due.

    Args:
        conn: In autocommit mode.
        queue: From which.
        worker: Who claims.
        limit: The most, from 1 to 10,000.
        since: By priority, from which due time on to look, and from which id on of what is due right then:
            what comes before is known to be done.
        status: pending, or failed for one more try of dead jobs.

    Returns:
        The jobs in the order in which they are to be begun.
    """
    since = since or {}
    values = {
        "queue": queue,
        "worker": worker,
        "max": limit,
        "priorities": _spell(since),
        "sinces": [time for time, _ in since.values()],
        "since_ids": _spell(one for _, one in since.values()),
        "status": status,
    }
    async with AsyncCursor(conn, row_factory=_claimed_row) as cursor:
        await cursor.execute(load_queries("claims")["claim"], values, binary=True)
        return await cursor.fetchall()


async def complete_jobs(
    conn: AsyncConnection[Any],
    jobs: Sequence[ClaimedJob],
    results: Sequence[str | None] | None = None,
    notes: Sequence[str | None] | None = None,
) -> set[int]:
    """End jobs that are done.

    Args:
        conn: In autocommit mode.
        jobs: As claimed.
        results: For each a JSON text, or None.
        notes: For each what is to be said of its result, or None.

    Returns:
        The ids of those that were ours still.
    """
    values: dict[str, Any] = {"ids": _spell_ids(jobs), "tokens": _spell_tokens(jobs)}
    if results is None and notes is None:
        return await _ask_ids(conn, "complete", values)
    values["results"] = f"[{','.join(one or 'null' for one in results)}]" if results else None
    values["notes"] = list(notes) if notes else None
    return await _ask_ids(conn, "complete_with_results", values)


async def fail_jobs(
    conn: AsyncConnection[Any],
    jobs: Sequence[ClaimedJob],
    errors: Sequence[str],
    waits: Sequence[timedelta | None],
    finals: Sequence[bool],
) -> dict[int, str | None]:
    """End tries that failed.

    Args:
        conn: In autocommit mode.
        jobs: As claimed.
        errors: For each what went wrong.
        waits: For each when to try again, or None for the queue's backoff.
        finals: For each whether there are to be no more tries.

    Returns:
        By id: pending where it is tried again, failed, or cancelled; None where it was not ours any more.
    """
    values = {
        "ids": _spell_ids(jobs),
        "tokens": _spell_tokens(jobs),
        "errors": list(errors),
        "waits": [None if wait is None else wait.total_seconds() for wait in waits],
        "finals": list(finals),
    }
    async with AsyncCursor(conn, row_factory=tuple_row) as cursor:
        await cursor.execute(load_queries("claims")["fail"], values)
        return dict(await cursor.fetchall())


async def snooze_jobs(
    conn: AsyncConnection[Any], jobs: Sequence[ClaimedJob], delays: Sequence[timedelta]
) -> set[int]:
    """Put jobs off; this counts no try.

    Args:
        conn: In autocommit mode.
        jobs: As claimed.
        delays: For each how long.

    Returns:
        The ids of those that were ours still.
    """
    waits = [delay.total_seconds() for delay in delays]
    values = {"ids": _spell_ids(jobs), "tokens": _spell_tokens(jobs), "waits": waits}
    return await _ask_ids(conn, "snooze", values)


async def return_jobs(conn: AsyncConnection[Any], jobs: Sequence[ClaimedJob]) -> set[int]:
    """Give jobs back that were not done; this counts no try.

    Args:
        conn: In autocommit mode.
        jobs: As claimed.

    Returns:
        The ids of those that were ours still.
    """
    return await _ask_ids(conn, "give_back", {"ids": _spell_ids(jobs), "tokens": _spell_tokens(jobs)})


async def end_cancelled_jobs(
    conn: AsyncConnection[Any], jobs: Sequence[ClaimedJob], reasons: Sequence[str]
) -> set[int]:
    """End jobs that somebody cancelled while they ran.

    Args:
        conn: In autocommit mode.
        jobs: As claimed.
        reasons: For each, for people; "" to name who cancelled it.

    Returns:
        The ids of those that were ours still.
    """
    values = {
        "ids": _spell_ids(jobs),
        "tokens": _spell_tokens(jobs),
        "reasons": [one or None for one in reasons],
    }
    return await _ask_ids(conn, "end_cancelled", values)


async def read_settings(conn: AsyncConnection[Any], queues: Sequence[str]) -> list[QueueSettings]:
    """Read what a worker needs to know of queues, declared or not.

    Args:
        conn: In autocommit mode.
        queues: Their names.

    Returns:
        The settings of each, in that order.
    """
    async with AsyncCursor(conn, row_factory=_settings_row) as cursor:
        await cursor.execute(load_queries("claims")["read_settings"], {"queues": list(queues)})
        return await cursor.fetchall()


def reread_settings(conn: Connection[Any], queues: Sequence[str]) -> list[QueueSettings]:
    """Do the same as `read_settings` over a connection that blocks.

    Args:
        conn: In autocommit mode.
        queues: Their names.

    Returns:
        The settings of each, in that order.
    """
    with Cursor(conn, row_factory=_settings_row) as cursor:
        cursor.execute(load_queries("claims")["read_settings"], {"queues": list(queues)})
        return cursor.fetchall()


def renew_leases(conn: Connection[Any], *, worker: str, jobs: Sequence[ClaimedJob]) -> dict[int, str | None]:
    """Keep jobs for another lease.

    Args:
        conn: In autocommit mode.
        worker: Who has them.
        jobs: As claimed.

    Returns:
        By id those that are ours still, with who wants it to end, or None. The others are lost.
    """
    # By id, as everybody locks them: others end some of them meanwhile.
    jobs = sorted(jobs, key=_read_id)
    values = {"worker": worker, "ids": _spell_ids(jobs), "tokens": _spell_tokens(jobs)}
    with Cursor(conn, row_factory=tuple_row) as cursor:
        return dict(cursor.execute(load_queries("claims")["renew"], values).fetchall())


def rescue_jobs(conn: Connection[Any]) -> int:
    """Take jobs from workers whose leases are over, so that they can be claimed again.

    Args:
        conn: In autocommit mode.

    Returns:
        How many; not more at once than a worker holds.
    """
    with Cursor(conn, row_factory=tuple_row) as cursor:
        row = cursor.execute(load_queries("claims")["rescue"], {"max": _MOST_RESCUED}).fetchone()
    return int(row[0]) if row else 0


async def rescue_jobs_async(conn: AsyncConnection[Any]) -> None:
    """Do the same as `rescue_jobs` over a connection that is awaited.

    Args:
        conn: In autocommit mode.
    """
    await conn.execute(load_queries("claims")["rescue"], {"max": _MOST_RESCUED})


def report_worker(
    conn: Connection[Any],
    *,
    worker: str,
    host: str,
    pid: int,
    queues: Sequence[str],
    concurrency: int,
    is_leaving: bool = False,
) -> None:
    """Say that a worker lives, or that it goes.

    Args:
        conn: In autocommit mode.
        worker: Its id.
        host: Where it runs.
        pid: Its process there.
        queues: That it serves.
        concurrency: How many jobs it does at once.
        is_leaving: Whether it goes.
    """
    values = {
        "id": worker,
        "host": host,
        "pid": pid,
        "queues": list(queues),
        "concurrency": concurrency,
        "is_leaving": is_leaving,
    }
    with Cursor(conn) as cursor:
        cursor.execute(load_queries("claims")["report"], values)


async def _ask_ids(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> set[int]:
    async with AsyncCursor(conn, row_factory=tuple_row) as cursor:
        await cursor.execute(load_queries("claims")[query], values, binary=True)
        return {row[0] for row in await cursor.fetchall()}


def _spell_ids(jobs: Iterable[ClaimedJob]) -> str:
    return _spell(map(_read_id, jobs))


def _spell_tokens(jobs: Iterable[ClaimedJob]) -> str:
    return _spell(map(_read_token, jobs))


def _spell(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
