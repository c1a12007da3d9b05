"""Read what ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from .queries import load_queries

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job or worker and its last run.

    Attributes:
        name: Of the resource.
        kind: job or worker.
        owner: Whose it is.
        scheduled: Whether it has an entry.
        schedule: The entry's schedule; None where there is none, or where it cannot be seen.
        active: Whether the entry fires; None where there is none.
        last_status: Of the last run; None where it never ran.
        last_run_at: When the last run began, aware.
        last_error: What the last run failed with.
        last_duration: How long the last run took.
    """

    name: str
    kind: str
    owner: str
    scheduled: bool
    schedule: str | None
    active: bool | None
    last_status: str | None
    last_run_at: datetime | None
    last_error: str | None
    last_duration: timedelta | None


def read_status(conn: psycopg.Connection) -> list[JobStatus]:
    """Read every job and worker with its last run.

    Args:
        conn: To a target with the schema reconciler.

    Returns:
        Sorted by owner and name.
    """
    with conn.cursor(row_factory=class_row(JobStatus)) as cursor:
        return cursor.execute(load_queries("status")["read_status"]).fetchall()
