"""Read how queues fare: how deep they are, how quick, and what holds them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from reconciler.errors import MigrationError

from .queries import load_queries

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    import psycopg

MOST_COUNTED = 100_000
"""So many of the newest finished jobs of a queue are looked at; see the view `reconciler.queue_health`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHealth:
    """A queue, and how it fares.

    Attributes:
        queue: Its name.
        mode: standard or blocking.
        declared: Whether it is declared; else it has the usual settings, and is here because jobs are.
        waiting: Jobs that are due.
        scheduled: Jobs that are due later.
        running: Jobs that workers do.
        failed: Dead jobs that are kept.
        oldest_age: For how long the oldest job has been due; None where none is.
        completed_last_minute: Jobs, `MOST_COUNTED` at the most.
        completed_last_hour: Likewise.
        rate: Jobs completed a minute, as measured in the last one.
        workers: Processes that were heard of within a minute, and declared entries that call a run endpoint.
        concurrency: How many may run at once; None for any number.
        blocked_by: What keeps jobs that are due from being done; None where nothing is known of.
    """

    queue: str
    mode: str
    declared: bool
    waiting: int
    scheduled: int
    running: int
    failed: int
    oldest_age: timedelta | None
    completed_last_minute: int
    completed_last_hour: int
    rate: int
    workers: int
    concurrency: int | None
    blocked_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holds up an order.

    Attributes:
        ordering_key: Whose order; "" for that of a blocking queue.
        job_id: The job that the others wait for.
        why: running, retry, failed or future.
        since: When that began.
        until: When it is over, where that is known.
        waiting: How many jobs that are due wait behind it.
    """

    ordering_key: str
    job_id: int
    why: str
    since: datetime
    until: datetime | None
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a queue says of its jobs; of their tries, where they say nothing of their own.

    Attributes:
        max_attempts: How often a job is tried.
        timeout: How long one try may take.
        backoff_initial: The wait after the first try.
        backoff_factor: By what it grows with each try.
        backoff_max: How long it is at the most.
        concurrency: How many jobs may run at once; None for any number.
        rate_count: How many may begin in `rate_per`; None for any number.
        rate_per: The time of that rate.
        lease: How long a claim holds without a word of the worker.
        retention: How long finished jobs are kept.
        keep_failed: How long dead ones are.
        held_by: What holds up the jobs behind it in an order, besides one that runs: retry, failed, future.
    """

    max_attempts: int
    timeout: timedelta
    backoff_initial: timedelta
    backoff_factor: float
    backoff_max: timedelta
    concurrency: int | None
    rate_count: int | None
    rate_per: timedelta | None
    lease: timedelta
    retention: timedelta
    keep_failed: timedelta
    held_by: list[Literal["retry", "failed", "future"]]


def require_queues(conn: psycopg.Connection) -> None:
    """Make sure that the target has the tables and views of queues.

    Args:
        conn: To the target.

    Raises:
        MigrationError: Nothing was applied to it yet, or an earlier release did it.
    """
    if conn.execute(load_queries("queue_health")["find_views"]).fetchone() != (True,):
        raise MigrationError(
            "this target has no schema reconciler, or one of an earlier release, without queues",
            remedy="run reconciler migrate",
        )


def read_queues(
    conn: psycopg.Connection, queue: str | None = None, *, after: str | None = None, limit: int | None = None
) -> list[QueueHealth]:
    """Read how queues fare, declared or not.

    Args:
        conn: To the target.
        queue: One alone; None for all.
        after: The last queue of the page before; None for the first page.
        limit: How many at the most; None for all.

    Returns:
        By name.
    """
    queries = load_queries("queue_health")
    values = {"queue": queue, "after": after, "limit": limit}
    with conn.transaction(), conn.cursor(row_factory=class_row(QueueHealth)) as cursor:
        conn.execute(queries["disable_jit"])
        return cursor.execute(queries["read_queues"], values).fetchall()


def read_held(conn: psycopg.Connection, queue: str, *, key: str | None = None, limit: int = 20) -> list[Held]:
    """Read what holds up the order of a queue.

    Args:
        conn: To the target.
        queue: Which.
        key: Of one ordering key alone.
        limit: How many at the most.

    Returns:
        Those first that keep the most jobs waiting; none where nothing that is due waits for another job.
    """
    values = {"queue": queue, "key": key, "limit": limit}
    with conn.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(load_queries("queue_health")["read_held"], values).fetchall()


def read_limits(conn: psycopg.Connection, queue: str) -> Limits:
    """Read what a queue says of its jobs.

    Args:
        conn: To the target.
        queue: Which; one that nobody declared has the usual limits.
    """
    with conn.cursor(row_factory=class_row(Limits)) as cursor:
        row = cursor.execute(load_queries("queue_health")["read_limits"], {"queue": queue}).fetchone()
    assert row is not None  # noqa: S101 - a function's result is one row
    return row
