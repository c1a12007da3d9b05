"""Read what ran: our log of managed jobs, and pg_cron's own words on those that are handed to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from math import inf
from typing import TYPE_CHECKING, Literal, get_args

from psycopg.rows import class_row

from reconciler.errors import MigrationError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import psycopg

RunStatus = Literal["running", "succeeded", "failed", "timed_out", "skipped", "cancelled", "lost"]
STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)
"""Every status of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution.

    Attributes:
        source: log, or pg_cron where it is from `cron.job_run_details`; ids of the two are not one series.
        id: Of the run.
        name: Of the job.
        run_at: When it began, aware; None where pg_cron has not written that yet.
        completed_at: When it ended; None while it runs.
        status: One of `STATUSES`.
        trigger: schedule, manual, retry, dependency or catch_up.
        attempt: Which try it is, from 1.
        chain_id: The first run of the tries that it belongs to; None for a first try.
        rows_affected: By the last statement; None where none is known.
        error_message: Why it failed, or why it was skipped.
        error_sqlstate: The error's code.
        role: The role that ran it.
        backend_pid: The server process that ran it or queued its work; 0 for what none of ours began.
        note: While it goes on with a worker: where its queued job stands.
    """

    source: str
    id: int
    name: str
    run_at: datetime | None
    completed_at: datetime | None
    status: str
    trigger: str
    attempt: int
    chain_id: int | None
    rows_affected: int | None
    error_message: str | None
    error_sqlstate: str | None
    role: str | None
    backend_pid: int | None
    note: str | None = None

    @property
    def duration(self) -> timedelta | None:
        """How long it took; None while it runs."""
        if self.run_at is None or self.completed_at is None:
            return None
        return self.completed_at - self.run_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails(Run):
    """One execution, with everything that is known of it.

    Attributes:
        error_detail: What the server added to the error; of a request, how the answer began.
        error_context: Where in the body it happened.
        due_at: The time that it made up for, or was put off from.
        deadline_at: When it runs out of time.
        stop_reason: timed_out or cancelled, where somebody wanted it to end.
        stop_at: When that was.
        stop_by: Who wanted it; `tick` for its time limit.
        response_status: What the endpoint answered.
        queued_job_id: The queued job that it did, or that it was handed over to.
        revision: What was applied when it ran.
        start_id: The request or start that it came of.
    """

    error_detail: str | None
    error_context: str | None
    due_at: datetime | None
    deadline_at: datetime | None
    stop_reason: str | None
    stop_at: datetime | None
    stop_by: str | None
    response_status: int | None
    queued_job_id: int | None
    revision: int | None
    start_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStart:
    """A start that is still to come.

    Attributes:
        trigger: Why it is to be started.
        due_at: When.
        attempt: Which try it will be.
    """

    trigger: str
    due_at: datetime
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPosition:
    """How far a list of runs was read, the newest first.

    Attributes:
        log_at: When the run of the log began before which the next part goes on.
        log_id: Its id; None where nothing was read yet.
        cron_id: The same for those that are from `cron.job_run_details`.
    """

    log_at: datetime | None
    log_id: int | None
    cron_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A part of a list of runs.

    Attributes:
        runs: The newest first.
        next: What to give as `after` for the next part; None on the last one.
    """

    runs: tuple[Run, ...]
    next: RunPosition | None


def has_runtime(conn: psycopg.Connection) -> bool:
    """Tell whether anything was applied to a target.

    Args:
        conn: To the target.

    Returns:
        False where there is no schema reconciler yet.

    Raises:
        MigrationError: The schema is of an earlier release, which kept no such records.
    """
    row = conn.execute(load_queries("runs")["find_runtime"]).fetchone()
    if row == (True, False):
        raise MigrationError(
            "the schema reconciler on this target is of an earlier release", remedy="run reconciler migrate"
        )
    return row == (True, True)


def require_runtime(conn: psycopg.Connection) -> None:
    """Make sure that the target has the tables of the runtime.

    Args:
        conn: To the target.

    Raises:
        MigrationError: Nothing was applied to it yet, or an earlier release did it.
    """
    if not has_runtime(conn):
        raise MigrationError("nothing was applied to this target yet", remedy="run reconciler apply")


def is_known(conn: psycopg.Connection, name: str) -> bool:
    """Tell whether a name is declared, or ran once.

    Args:
        conn: To the target.
        name: Of a job.
    """
    row = conn.execute(load_queries("runs")["is_known"], {"name": name}).fetchone()
    return row == (True,)


def list_names(conn: psycopg.Connection) -> list[str]:
    """List the names of all jobs and workers.

    Args:
        conn: To the target.
    """
    return [name for (name,) in conn.execute(load_queries("runs")["list_names"])]


def list_runs(
    conn: psycopg.Connection,
    *,
    name: str | None = None,
    statuses: Sequence[str] = (),
    since: timedelta | None = None,
    limit: int = 20,
    use_cron: bool = True,
) -> list[Run]:
    """List runs, the newest first.

    Args:
        conn: To the target.
        name: Of one job; None for all but the tool's own.
        statuses: Only these; all where there are none.
        since: How long ago they began at the most.
        limit: How many at the most.
        use_cron: Whether the role may read pg_cron's tables, where the runs of direct jobs are.

    Returns:
        The runs.
    """
    page = read_run_page(
        conn, name=name, statuses=statuses, since=since, limit=limit, use_cron=use_cron, after=None
    )
    return list(page.runs)


def may_read_cron(conn: psycopg.Connection) -> bool:
    """Tell whether pg_cron is there and its records, where the runs of direct jobs are, may be read.

    Args:
        conn: To the target.
    """
    return conn.execute(load_queries("runs")["may_read_cron"]).fetchone() == (True,)


def read_run_page(
    conn: psycopg.Connection,
    *,
    name: str | None,
    statuses: Sequence[str],
    since: timedelta | datetime | None,
    limit: int,
    use_cron: bool,
    after: RunPosition | None,
) -> RunPage:
    """Read a part of the list of runs, the newest first.

    Runs of the log and runs of direct jobs have numbers of their own, so each of the two is read on from its
    place: whatever begins or ends meanwhile, no run comes twice, and none that was there is left out.

    Args:
        conn: To the target.
        name: Of one job; None for all but the tool's own.
        statuses: Only these; all where there are none.
        since: How long ago they began at the most, or when at the earliest.
        limit: How many at the most.
        use_cron: Whether the role may read pg_cron's tables, where the runs of direct jobs are.
        after: `RunPage.next` of the part before, with the same name; None for the first one.

    Returns:
        The part.
    """
    place = after or RunPosition(log_at=None, log_id=None, cron_id=None)
    values = {
        "name": name,
        "statuses": list(statuses) or None,
        "since": None if isinstance(since, datetime) else since,
        "since_at": since if isinstance(since, datetime) else None,
        "log_at": place.log_at,
        "log_id": place.log_id,
        "cron_id": place.cron_id,
        "limit": limit + 1,
    }
    queries = load_queries("runs")
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        logged = cursor.execute(queries["list_runs" if name is None else "list_runs_of"], values).fetchall()
        direct = cursor.execute(queries["list_direct_runs"], values).fetchall() if use_cron else []
    found = list(merge(_date(logged), _date(direct), key=lambda dated: dated[0], reverse=True))
    runs = [run for _, run in found[:limit]]
    # Within a page they stand by their own times, however they were numbered.
    return RunPage(
        runs=tuple(sorted(runs, key=_find_time, reverse=True)),
        next=_move_on(place, runs, logged, direct) if len(found) > limit else None,
    )


def _find_time(run: Run) -> tuple[float, int]:
    # A run that pg_cron has not written the time of is only just beginning.
    return (inf if run.run_at is None else run.run_at.timestamp(), run.id)


def _date(runs: Sequence[Run]) -> list[tuple[float, Run]]:
    """Give each run a time by which the list keeps its order: where its own is earlier, that of the next one.

    A run may be written long after it began, as one that was lost is.
    """
    dated: list[tuple[float, Run]] = []
    latest = -inf
    for run in reversed(runs):
        latest = max(latest, _find_time(run)[0])
        dated.append((latest, run))
    return dated[::-1]


def _move_on(
    place: RunPosition, runs: Sequence[Run], logged: Sequence[Run], direct: Sequence[Run]
) -> RunPosition:
    """Find where the next part begins.

    Args:
        place: Where this one began.
        runs: What it has.
        logged: Runs of the log that were read for it.
        direct: Runs of direct jobs that were.

    Returns:
        The place. Of what nothing was taken yet it is before the newest one of now, so that those which come
        meanwhile stay out.
    """
    log = next((run for run in reversed(runs) if run.source == "log"), None)
    cron = next((run for run in reversed(runs) if run.source != "log"), None)
    log_at, log_id, cron_id = place.log_at, place.log_id, place.cron_id
    if log is not None:
        log_at, log_id = log.run_at, log.id
    elif log_id is None:
        log_at, log_id = (logged[0].run_at, logged[0].id + 1) if logged else (None, 0)
    if cron is not None:
        cron_id = cron.id
    elif cron_id is None:
        cron_id = direct[0].id + 1 if direct else 0
    return RunPosition(log_at=log_at, log_id=log_id, cron_id=cron_id)


def read_run(conn: psycopg.Connection, run_id: int) -> RunDetails | None:
    """Read everything of one run of the log.

    Args:
        conn: To the target.
        run_id: Of the run.

    Returns:
        The run, or None when there is none of this id.
    """
    with conn.cursor(row_factory=class_row(RunDetails)) as cursor:
        return cursor.execute(load_queries("runs")["read_run"], {"id": run_id}).fetchone()


def read_direct_run(conn: psycopg.Connection, run_id: int) -> RunDetails | None:
    """Read what pg_cron has of one of its runs.

    Args:
        conn: To the target.
        run_id: pg_cron's runid.

    Returns:
        The run, or None when there is none of this id, or the role may not see it.
    """
    with conn.cursor(row_factory=class_row(RunDetails)) as cursor:
        return cursor.execute(load_queries("runs")["read_direct_run"], {"id": run_id}).fetchone()


def list_attempts(conn: psycopg.Connection, run: Run) -> list[Run]:
    """List the tries that a run belongs to.

    Args:
        conn: To the target.
        run: Of the log.

    Returns:
        The tries, itself among them, the first one first.
    """
    values = {"name": run.name, "chain_id": run.chain_id or run.id}
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(load_queries("runs")["list_attempts"], values).fetchall()


def list_starts(conn: psycopg.Connection, run: Run) -> list[WaitingStart]:
    """List the tries that are still to come after a run.

    Args:
        conn: To the target.
        run: Of the log.
    """
    values = {"name": run.name, "chain_id": run.chain_id or run.id}
    with conn.cursor(row_factory=class_row(WaitingStart)) as cursor:
        return cursor.execute(load_queries("runs")["list_starts"], values).fetchall()
