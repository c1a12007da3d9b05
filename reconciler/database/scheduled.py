"""What the Scheduler reads besides single queued jobs: its recurring jobs, and which row an id means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, scalar_row

from reconciler.core.scheduler_jobs import RecurringJob

from .queries import load_queries

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg


def find_latest(conn: psycopg.Connection[Any], queue: str, job_id: str) -> int | None:
    """Find the queued job that an id means: the open one, else the one that was finished last.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        job_id: A unique key of the queue, or the name of a recurring job.

    Returns:
        Its row's id; None where there is none, or none any more.
    """
    values = {"queue": queue, "job_id": job_id}
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(load_queries("scheduled")["find_latest"], values).fetchone()


def list_open_runs(conn: psycopg.Connection[Any], queue: str, job_id: str) -> list[int]:
    """List the queued jobs of a recurring job that are not finished.

    Args:
        conn: To a target with the schema reconciler.
        queue: Of the scheduler.
        job_id: The recurring job's name.

    Returns:
        Their ids, the oldest first.
    """
    values = {"queue": queue, "job_id": job_id}
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(load_queries("scheduled")["list_open_runs"], values).fetchall()


def list_recurring(
    conn: psycopg.Connection[Any], owner: str, queue: str, job_id: str | None = None
) -> list[RecurringJob]:
    """List declared jobs that are done through a queue.

    Args:
        conn: To a target with the schema reconciler.
        owner: Whose.
        queue: Of the scheduler.
        job_id: The name of the only one wanted; None for all.

    Returns:
        Those that fire next first.
    """
    values = {"owner": owner, "queue": queue, "job_id": job_id}
    with conn.cursor(row_factory=class_row(RecurringJob)) as cursor:
        return cursor.execute(load_queries("scheduled")["list_recurring"], values).fetchall()


def read_queue(conn: psycopg.Connection[Any], owner: str, queue: str) -> str | None:
    """Read how a queue is declared.

    Args:
        conn: To a target with the schema reconciler.
        owner: Who declared it.
        queue: Its name.

    Returns:
        The canonical document; None where this owner has no such queue.
    """
    values = {"owner": owner, "queue": queue}
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(load_queries("scheduled")["read_queue"], values).fetchone()


def read_clock(conn: psycopg.Connection[Any]) -> datetime:
    """Read the server's clock."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        now: datetime | None = cursor.execute(load_queries("scheduled")["read_clock"]).fetchone()
    assert now is not None  # noqa: S101 - SELECT of one value
    return now
