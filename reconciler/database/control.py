"""What people ask of jobs and runs: run now, pause, resume, cancel. The server checks who may."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from reconciler.core.names import find_nearest
from reconciler.errors import ConfigError, RightsError

from .queries import load_queries
from .runs import list_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedJob:
    """A job or worker as last applied.

    Attributes:
        name: Of the resource.
        kind: job or worker.
        mode: managed or direct.
        role: The role that runs it.
        document: Canonical JSON of what was declared.
        source: Where it was declared.
    """

    name: str
    kind: str
    mode: str
    role: str
    document: str
    source: str

    def read(self) -> dict[str, Any]:
        """Read the declaration."""
        declared: dict[str, Any] = json.loads(self.document)
        return declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """An entry that takes requests.

    Attributes:
        name: Of the entry; "" for none.
        schedule: When it looks.
    """

    name: str
    schedule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartState:
    """Where a request stands.

    Attributes:
        due_at: From when on it is taken; None once it was.
        run_id: The run that came of it; None before.
    """

    due_at: datetime | None
    run_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HereOutcome:
    """What became of a run in our own connection.

    Attributes:
        run_id: Of the run; None where none was written.
        interrupted: Whether the person stopped it.
    """

    run_id: int | None
    interrupted: bool


def find_jobs(conn: psycopg.Connection, names: Sequence[str]) -> list[AppliedJob]:
    """Find jobs and workers by name.

    Args:
        conn: To the target.
        names: Of all of them.

    Returns:
        In the order of the names, each once.

    Raises:
        ConfigError: One or more are not there; all are named, with the nearest right names.
    """
    wanted = list(dict.fromkeys(names))
    with conn.cursor(row_factory=class_row(AppliedJob)) as cursor:
        found = cursor.execute(load_queries("control")["find_jobs"], {"names": wanted}).fetchall()
    by_name = {job.name: job for job in found}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise make_unknown_error(unknown, list_names(conn))
    return [by_name[name] for name in wanted]


def find_managed_jobs(conn: psycopg.Connection, names: Sequence[str]) -> list[AppliedJob]:
    """Find jobs and workers that run under our lock and log, which alone can be asked for and paused.

    Args:
        conn: To the target.
        names: Of all of them.

    Returns:
        In the order of the names, each once.

    Raises:
        ConfigError: One or more are not there, or are handed to pg_cron as they are.
    """
    jobs = find_jobs(conn, names)
    others = [f"{job.name} is handed to pg_cron as it is" for job in jobs if job.mode == "direct"]
    if others:
        raise ConfigError(
            "; ".join(others),
            remedy="only managed jobs can be run now, paused and resumed; active: false stops any job",
        )
    return jobs


def make_unknown_error(unknown: Sequence[str], names: Sequence[str]) -> ConfigError:
    """Make the error for names that nobody declared.

    Args:
        unknown: The names.
        names: All that there are.

    Returns:
        The error; nothing was done.
    """
    nearest = {name: find_nearest(name, names) for name in unknown}
    guesses = [
        f"{guess} for {name}" if len(unknown) > 1 else guess for name, guess in nearest.items() if guess
    ]
    return ConfigError(
        f"no job {', '.join(unknown)} on the target",
        remedy=f"did you mean {', '.join(guesses)}?"
        if guesses
        else "reconciler status --all lists the names",
    )


def find_runners(conn: psycopg.Connection, role: str, *, sees_entries: bool) -> list[Runner]:
    """Find the entries that take the requests of a role's jobs.

    Args:
        conn: To the target.
        role: That runs the jobs.
        sees_entries: Whether all entries are visible; otherwise what was last applied counts.

    Returns:
        The active ones, sorted by name.
    """
    query = load_queries("control")["find_runners" if sees_entries else "find_applied_runners"]
    return [Runner(name=name, schedule=schedule) for name, schedule in conn.execute(query, {"role": role})]


def request_run(conn: psycopg.Connection, name: str) -> int:
    """Ask for a run as soon as a runner takes it; asking again before is asking once.

    Args:
        conn: In autocommit mode.
        name: Of a managed job.

    Returns:
        The request's id: the run will have it as `start_id`.
    """
    with _refusals():
        row = conn.execute(load_queries("control")["request_run"], {"name": name}).fetchone()
    assert row is not None  # noqa: S101 - a function's result is one row
    return int(row[0])


def find_start(conn: psycopg.Connection, start_id: int) -> StartState:
    """Find out where a request stands.

    Args:
        conn: In autocommit mode.
        start_id: Of the request.
    """
    with conn.cursor(row_factory=class_row(StartState)) as cursor:
        row = cursor.execute(load_queries("control")["find_start"], {"start_id": start_id}).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row


def run_here(conn: psycopg.Connection, job: AppliedJob) -> HereOutcome:
    """Execute a job now, in this very connection. An interrupt cancels the run and goes on.

    Args:
        conn: In autocommit mode.
        job: A managed one.

    Returns:
        The run.

    Raises:
        RightsError: The connected role is not the job's: the body would have other rights.
    """
    row = conn.execute(load_queries("control")["read_clock"]).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    since, role = row
    if role != job.role:
        raise RightsError(
            f"{job.name} runs as the role {job.role}, and this connection is of {role}: its body would have "
            "other rights here",
            remedy=f"connect as {job.role} with --dsn, or leave --here out",
        )
    queries = load_queries("control")
    values = {"name": job.name, "since": since}
    failure: psycopg.Error | None = None
    interrupted = False
    try:
        conn.execute(queries["run_here"], values)
    except psycopg.Error as error:
        failure = error
    except KeyboardInterrupt:
        interrupted = True
    if conn.closed or conn.broken:
        raise failure or KeyboardInterrupt
    found = conn.execute(queries["find_run_here"], values).fetchone()
    run_id = found[0] if found else None
    # A run says better than the error what happened.
    if run_id is None and failure is not None:
        raise failure
    return HereOutcome(run_id=run_id, interrupted=interrupted)


def pause_jobs(
    conn: psycopg.Connection,
    names: Sequence[str],
    *,
    until: datetime | None = None,
    duration: timedelta | None = None,
    reason: str = "",
) -> dict[str, datetime | None]:
    """Pause jobs, all or none.

    Args:
        conn: In autocommit mode.
        names: Of managed jobs.
        until: When the pause ends by itself.
        duration: Instead of `until`: how long it lasts by the server's clock.
        reason: Why.

    Returns:
        When each pause ends, None for when somebody resumes the job.
    """
    queries = load_queries("control")
    with _refusals(), conn.transaction():
        for name in sorted(names):
            conn.execute(
                queries["pause_job"], {"name": name, "until": until, "for": duration, "reason": reason}
            )
        return dict(conn.execute(queries["read_pauses"], {"names": list(names)}).fetchall())


def resume_jobs(conn: psycopg.Connection, names: Sequence[str]) -> dict[str, bool]:
    """Resume jobs, all or none.

    Args:
        conn: In autocommit mode.
        names: Of managed jobs.

    Returns:
        For each whether it was paused.
    """
    query = load_queries("control")["resume_job"]
    with _refusals(), conn.transaction():
        return {name: conn.execute(query, {"name": name}).fetchone() == (True,) for name in sorted(names)}


def find_runs(conn: psycopg.Connection, run_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Find runs of the log.

    Args:
        conn: To the target.
        run_ids: Of all of them.

    Returns:
        For each its job and its status.

    Raises:
        ConfigError: One or more are not there.
    """
    rows = conn.execute(load_queries("control")["find_runs"], {"ids": list(run_ids)}).fetchall()
    found = {run_id: (name, status) for run_id, name, status in rows}
    unknown = [str(run_id) for run_id in run_ids if run_id not in found]
    if unknown:
        raise ConfigError(
            f"there is no run {', '.join(unknown)} on the target", remedy="reconciler runs lists them"
        )
    return found


def cancel_run(conn: psycopg.Connection, run_id: int) -> str:
    """Tell a run to end.

    Args:
        conn: In autocommit mode.
        run_id: Of the log.

    Returns:
        `cancelling`, or the run's status where it is over.
    """
    with _refusals():
        row = conn.execute(load_queries("control")["cancel_run"], {"id": run_id}).fetchone()
    assert row is not None  # noqa: S101 - a function's result is one row
    return str(row[0])


@contextmanager
def _refusals() -> Iterator[None]:
    """Let a refusal of our own functions speak for itself: its hint is what to do."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        if not error.diag.message_hint:
            raise
        raise RightsError(error.diag.message_primary or str(error), remedy=error.diag.message_hint) from error
