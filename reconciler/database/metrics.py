"""Read what metrics tell of a target: a fixed number of queries, in one short snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import UndefinedColumn, UndefinedFunction, UndefinedTable
from psycopg.rows import class_row

from reconciler.core.log_positions import LogPosition
from reconciler.errors import MigrationError

from .queries import load_queries
from .queue_health import QueueHealth, read_queues
from .status import Summary, read_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg

MOST_RUNS: Final = 50_000
"""New runs that one reading looks at; the next one goes on where it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server tells of itself.

    Attributes:
        schema_version: The number of the last migration.
        newest_run: The highest number in the log; 0 for an empty one.
        xmin: The oldest transaction that goes on.
        xmax: The transaction that begins next.
        use_cron: Whether the role sees all of pg_cron's tables.
        has_launcher: Whether pg_cron's launcher lives; None where that cannot be seen.
        xmin_age: Transactions since the oldest snapshot that anybody holds; None where that cannot be seen.
        transaction_age: Seconds since the oldest open transaction in the database began; None likewise.
        dead_open: Dead rows of the open jobs.
        dead_finished: Dead rows of the finished ones.
        now: The server's clock.
    """

    schema_version: int
    newest_run: int
    xmin: int
    xmax: int
    use_cron: bool
    has_launcher: bool | None
    xmin_age: int | None
    transaction_age: float | None
    dead_open: int
    dead_finished: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerCounts:
    """What an owner has.

    Attributes:
        owner: Whose.
        jobs: Definitions of that kind.
        workers: Likewise.
        queues: Likewise.
        channels: Likewise.
        paused: Jobs and workers that somebody paused.
        failing: Those whose last run that ended failed.
        overdue: Those that have been due for more than two minutes.
        missed_runs: Of all of them.
        revision: The number of the last one; None for none.
        applied_at: When that was.
    """

    owner: str
    jobs: int
    workers: int
    queues: int
    channels: int
    paused: int
    failing: int
    overdue: int
    missed_runs: int
    revision: int | None
    applied_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """How one job or worker fares.

    Attributes:
        owner: Whose.
        name: Of the job.
        is_paused: Whether somebody paused it.
        total_runs: Since it was made; None for one that pg_cron runs by itself.
        failed_runs: Likewise.
        missed_runs: Likewise.
        failures: Since the last success; None where nothing is known of it.
        last_run_at: When its last run that ended began.
        last_succeeded_at: When the last good one ended.
        last_duration: Of the last run that ended, in seconds.
        overdue: For how many seconds a run has been due that is not in the log; None for what is not due.
    """

    owner: str
    name: str
    is_paused: bool
    total_runs: int | None
    failed_runs: int | None
    missed_runs: int | None
    failures: int | None
    last_run_at: datetime | None
    last_succeeded_at: datetime | None
    last_duration: float | None
    overdue: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRun:
    """A run that goes on.

    Attributes:
        id: In the log.
        owner: Of its job; "" for one that nobody declared.
        name: Of its job.
        is_overdue: Whether its time is over.
    """

    id: int
    owner: str
    name: str
    is_overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """A row of the log.

    Attributes:
        id: Of the run.
        owner: Of its job; "" for one that nobody declared.
        status: How it ended, or running.
        run_at: When it began.
        completed_at: When it ended.
        trigger: Why it began.
        attempt: Which try it was.
        due_at: The time that it makes up for or was put off from.
        is_put_off: Whether a runner started it, in place of the entry.
        schedule: Of the job's entry.
        zone: In which pg_cron reads it.
        has_rule: Whether a rule of the job's own decides when it is due.
        fired_at: The newest time of that rule that was taken.
    """

    id: int
    owner: str
    status: str
    run_at: datetime
    completed_at: datetime | None
    trigger: str
    attempt: int
    due_at: datetime | None
    is_put_off: bool
    schedule: str | None
    zone: str
    has_rule: bool
    fired_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What waits, and who works.

    Attributes:
        alerts: How many are open, by kind.
        deliveries_waiting: Messages that are due.
        deliveries_age: Seconds since the oldest was; 0 for none.
        starts_waiting: Starts that are due and that no runner took yet.
        starts_age: Seconds since the oldest was; 0 for none.
        workers_alive: Worker processes that were heard of within a minute.
        worker_slots: Jobs that these can do at once.
        claims_held: Queued jobs that somebody does.
        claims_expired: Those of them whose lease is over.
    """

    alerts: Mapping[str, int]
    deliveries_waiting: int
    deliveries_age: float
    starts_waiting: int
    starts_age: float
    workers_alive: int
    worker_slots: int
    claims_held: int
    claims_expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that one look found.

    Attributes:
        server: What the server tells of itself.
        summary: Of the tick; None where pg_cron's tables cannot be seen whole.
        owners: By owner.
        jobs: By owner and name; None where there are more than were asked for.
        running: The runs that go on.
        ended: What is new in the log, over or not; nothing at the first look.
        position: How far the log is read now.
        queues: By name.
        rest: What waits, and who works.
    """

    server: Server
    summary: Summary | None
    owners: Sequence[OwnerCounts]
    jobs: Sequence[JobCounts] | None
    running: Sequence[RunningRun]
    ended: Sequence[LogRow]
    position: LogPosition
    queues: Sequence[QueueHealth]
    rest: Rest


def read_metrics(conn: psycopg.Connection[Any], *, per_job: int, position: LogPosition | None) -> Reading:
    """Read what metrics tell.

    Args:
        conn: To a target with the schema of this release, in autocommit mode.
        per_job: How many jobs and workers are told of one by one; with more of them none is.
        position: How far the log was read; None at the first look, which only notes where the log ends.

    Returns:
        All of one snapshot.

    Raises:
        MigrationError: There is no schema, or one of an earlier release.
    """
    queries = load_queries("metrics")
    try:
        with conn.transaction():
            conn.execute(queries["begin"])
            return _read(conn, queries, per_job, position)
    except (UndefinedTable, UndefinedColumn, UndefinedFunction) as error:
        raise MigrationError(
            "there is no schema reconciler on this target, or one of an earlier release",
            remedy="run reconciler migrate",
        ) from error


def _read(
    conn: psycopg.Connection[Any], queries: Mapping[str, Any], per_job: int, position: LogPosition | None
) -> Reading:
    with conn.cursor(row_factory=class_row(Server)) as servers:
        server = servers.execute(queries["read_server"]).fetchone()
    assert server is not None  # noqa: S101 - it selects one row
    with conn.cursor(row_factory=class_row(OwnerCounts)) as owners:
        counts = owners.execute(queries["read_owners"]).fetchall()
    jobs = None
    if sum(one.jobs + one.workers for one in counts) <= per_job:
        with conn.cursor(row_factory=class_row(JobCounts), binary=True) as cursor:
            jobs = cursor.execute(queries["read_jobs"]).fetchall()
    with conn.cursor(row_factory=class_row(RunningRun)) as runs:
        running = runs.execute(queries["read_running"]).fetchall()
    ended, moved = _follow_log(conn, queries, server, [run.id for run in running], position)
    with conn.cursor(row_factory=class_row(Rest)) as rests:
        rest = rests.execute(queries["read_rest"]).fetchone()
    assert rest is not None  # noqa: S101 - it selects one row
    return Reading(
        server=server,
        summary=read_summary(conn) if server.use_cron else None,
        owners=counts,
        jobs=jobs,
        running=running,
        ended=ended,
        position=moved,
        queues=read_queues(conn),
        rest=rest,
    )


def _follow_log(
    conn: psycopg.Connection[Any],
    queries: Mapping[str, Any],
    server: Server,
    running: list[int],
    position: LogPosition | None,
) -> tuple[list[LogRow], LogPosition]:
    """Read on in the log from where the last look ended."""
    if position is None or position.mark > server.newest_run:
        # The first look, or another database behind the same name.
        return [], LogPosition(mark=server.newest_run, running=frozenset(running))
    values = {"after": position.mark, "ids": position.list_wanted(running), "limit": MOST_RUNS}
    with conn.cursor(row_factory=class_row(LogRow)) as cursor:
        rows = cursor.execute(queries["read_log"], values).fetchall()
    new = [row.id for row in rows if row.id > position.mark]
    mark = new[-1] if len(new) == MOST_RUNS else server.newest_run
    moved = position.move_on(
        (row.id for row in rows), running, mark=mark, snapshot=(server.xmin, server.xmax)
    )
    return rows, moved
