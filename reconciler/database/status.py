"""Read how every job fares, in two queries whatever the number of jobs; one is made of the parts of pages."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.errors import UndefinedColumn, UndefinedTable
from psycopg.rows import class_row

from reconciler.errors import MigrationError

from .queries import join_queries, load_queries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    import psycopg

State = Literal[
    "running", "queued", "missing", "paused", "retired", "inactive", "failing", "missed", "no_entry", "ok"
]

TickState = Literal["seen", "late", "not_yet", "none", "unknown"]

STATUS_PARTS = ("list_all", "follow_direct", "judge_jobs", "take_all", "describe_page", "show_status")
"""The query of `read_status`, among those of pages of jobs."""

_SILENT = 5 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job or worker: what is declared, how its last runs went, what is to come.

    Attributes:
        name: Of the resource.
        kind: job or worker.
        owner: Whose it is.
        scheduled: Whether it has an entry.
        schedule: The entry's schedule; None where there is none, or where it cannot be seen.
        active: Whether the entry fires; None where there is none.
        is_hidden: Whether row-level security may hide the entry from the connected role.
        last_status: Of the last run; None where it never ran.
        last_run_at: When the last run began, aware.
        last_error: What the last run failed with.
        last_duration: How long the last run took.
        next_run_at: When it is due next; None where no clock decides that.
        timezone: The zone that the job declares; "" for none.
        after: Names of jobs that must have succeeded first.
        once_at: When a one-time job is due, or was.
        consecutive_failures: Failures since the last success.
        running_since: When the run that goes on began.
        is_queued: Whether that run waits for a worker.
        paused: Whether somebody paused it.
        paused_until: When the pause ends by itself; None for never.
        pause_reason: Why; "" for no reason given.
        paused_by: The role that paused it; "" for nobody.
        retired_until: When it may be deleted, since nobody declares it any more; None for what is declared.
        open_alerts: How many alerts are open.
        has_missed: Whether one of them is of runs that did not start.
        recent_statuses: Of the last 20 runs, the newest first.
        recent_seconds: How long each of them took; None while it runs.
    """

    name: str
    kind: str
    owner: str
    scheduled: bool
    schedule: str | None
    active: bool | None
    is_hidden: bool
    last_status: str | None
    last_run_at: datetime | None
    last_error: str | None
    last_duration: timedelta | None
    next_run_at: datetime | None
    timezone: str
    after: list[str]
    once_at: datetime | None
    consecutive_failures: int
    running_since: datetime | None
    is_queued: bool
    paused: bool
    paused_until: datetime | None
    pause_reason: str
    paused_by: str
    retired_until: datetime | None
    open_alerts: int
    has_missed: bool
    recent_statuses: list[str]
    recent_seconds: list[float | None]

    @property
    def is_triggered(self) -> bool:
        """Whether something starts it: an entry, its one time, or jobs that it waits for."""
        return self.scheduled or bool(self.after) or self.once_at is not None

    @property
    def is_failing(self) -> bool:
        """Whether somebody has to look: it failed last, was not started, or lost its entry."""
        return self.retired_until is None and (
            self.consecutive_failures > 0 or self.has_missed or self.is_entry_missing
        )

    @property
    def is_entry_missing(self) -> bool:
        """Whether an entry was made that is no longer there."""
        return self.scheduled and self.schedule is None and not self.is_hidden

    @property
    def state(self) -> State:
        """What matters most about it now, in one word."""
        if self.running_since is not None:
            return "queued" if self.is_queued else "running"
        if self.retired_until is not None:
            return "retired"
        if self.is_entry_missing:
            return "missing"
        if self.paused:
            return "paused"
        if self.active is False:
            return "inactive"
        if self.consecutive_failures:
            return "failing"
        if self.has_missed:
            return "missed"
        return "ok" if self.is_triggered else "no_entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What holds for all jobs together.

    Attributes:
        ticks: How many entries call the tick; those that cannot be seen do not count.
        tick_age: Seconds since the tick last began; None where nothing is known of it.
        deliveries_waiting: Messages that no channel got yet.
        now: The server's clock.
    """

    ticks: int
    tick_age: float | None
    deliveries_waiting: int
    now: datetime

    def judge_tick(self, *, sees_all: bool) -> TickState:
        """Say how the tick fares.

        Args:
            sees_all: Whether row-level security hides no entries from the connected role.
        """
        if not self.ticks:
            return "none" if sees_all else "unknown"
        if self.tick_age is None:
            return "not_yet" if sees_all else "unknown"
        return "late" if self.tick_age > _SILENT else "seen"


def read_status(conn: psycopg.Connection, zone: str) -> list[JobStatus]:
    """Read every job and worker with its last runs.

    Args:
        conn: To a target with the schema of this release.
        zone: In which pg_cron reads schedules there.

    Returns:
        Sorted by owner and name; the tool's own entries are among them.

    Raises:
        MigrationError: The schema is of an earlier release.
    """
    query = join_queries("job_pages", *STATUS_PARTS)
    with (
        refuse_older_schema(),
        conn.transaction(),
        conn.cursor(row_factory=class_row(JobStatus), binary=True) as cursor,
    ):
        conn.execute(load_queries("job_pages")["disable_jit"])
        return cursor.execute(query, {"zone": zone, "query": None, "own": True}).fetchall()


@contextmanager
def refuse_older_schema() -> Iterator[None]:
    """Say of a query that asks for what is not there that the schema has to be migrated.

    Raises:
        MigrationError: The schema is of an earlier release, or there is none.
    """
    try:
        yield
    except (UndefinedColumn, UndefinedTable) as error:
        raise MigrationError(
            "the schema reconciler on this target is of an earlier release", remedy="run reconciler migrate"
        ) from error


def read_summary(conn: psycopg.Connection) -> Summary:
    """Read what holds for all jobs together.

    Args:
        conn: To a target with the schema of this release.
    """
    with conn.cursor(row_factory=class_row(Summary)) as cursor:
        row = cursor.execute(load_queries("status")["read_summary"]).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row
