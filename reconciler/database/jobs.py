"""Put queued jobs, read them, take them back: every decision, once for both kinds of connection.

The functions are generators of statements (see `reconciler.database.executions`): who carries them out sends
each one and throws its error into them. All of it belongs to the caller's transaction: nothing here begins or
ends one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import psycopg
from psycopg import errors

from reconciler.core.queued_jobs import (
    ASKED_STATUSES,
    Enqueued,
    NewJob,
    QueuedJob,
    check_instant,
    encode_jobs,
)
from reconciler.errors import ConnectError, DatabaseError, InvalidInputError, MigrationError, RightsError

from .sessions import read_state

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from datetime import datetime

    from psycopg import BaseConnection

    from reconciler.errors import ReconcilerError


LONGEST_LISTED: Final = 8192
"""Characters of a payload or a result that a page of a list has still."""
_ROLLED_BACK: Final = "40"
"""The class of SQLSTATEs that say something about the caller's transaction: callers try such a one again."""
_STOPPED: Final = (errors.QueryCanceled, errors.LockNotAvailable)
_TOO_OLD: Final = (
    errors.InvalidSchemaName,
    errors.UndefinedFunction,
    errors.UndefinedTable,
    errors.UndefinedColumn,
)
_WRONG: Final = (errors.DataError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A query of `sql/queries/jobs.sql` to send; the answer is all its rows, each by column."""

    query: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a statement was sent that failed.

    Attributes:
        is_lost: Whether the connection is gone.
        where: The target, for people.
        role: Who connected.
    """

    is_lost: bool
    where: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A job as a page of a list has it.

    Attributes:
        job: The job; its payload and its result are None where they are left out.
        payload_omitted: Whether the payload is left out, because it is long.
        result_omitted: Whether the result is.
    """

    job: QueuedJob
    payload_omitted: bool
    result_omitted: bool


Step: TypeAlias = Ask | Literal["look"]


def read_end(conn: BaseConnection[Any]) -> End:
    """Read where a connection leads, and whether it still does.

    Args:
        conn: Of either kind.
    """
    state = read_state(conn)
    is_lost = state.transaction == "closed"
    return End(is_lost=is_lost, where=state.where, role="" if is_lost else conn.info.user)


def put_jobs(jobs: Sequence[NewJob]) -> Generator[Step, Any, list[Enqueued]]:
    """Put jobs on their queues: all of them, or none.

    Args:
        jobs: To put.

    Returns:
        What became of each, in their order.

    Raises:
        ReconcilerError: They cannot be put; what cannot be sent at all was not sent.
    """
    text = encode_jobs(jobs, None)
    if not jobs:
        return []
    what = "nothing was queued"
    if any(isinstance(job.run_at, timedelta) for job in jobs):
        [row] = yield from _ask(what, "read_clock")
        text = encode_jobs(jobs, row["now"])
    is_simple = len(jobs) == 1 and jobs[0].unique_key is None
    rows = yield from _ask(what, "enqueue" if is_simple else "enqueue_many", jobs=text)
    return [Enqueued(id=row["id"], created=row["created"]) for row in rows]


def read_job(job_id: int) -> Generator[Step, Any, QueuedJob | None]:
    """Read one job.

    Args:
        job_id: Of the job.

    Returns:
        The job; None where there is none, or none any more.

    Raises:
        ReconcilerError: It could not be read.
    """
    rows = yield from _ask(f"job {job_id} was not read", "get_job", id=job_id)
    return _make_job(rows[0]) if rows else None


def read_jobs(
    *,
    status: str | None = None,
    queue: str | None = None,
    handler: str | None = None,
    job_name: str | None = None,
    limit: int = 100,
) -> Generator[Step, Any, list[QueuedJob]]:
    """Read jobs, the newest first.

    Args:
        status: Of all of them; `scheduled` for those that are pending and not due yet. None for any.
        queue: Of all of them.
        handler: Of all of them.
        job_name: The declared job that they come from.
        limit: How many at the most.

    Returns:
        The jobs.

    Raises:
        ReconcilerError: They could not be read.
    """
    _check_status(status)
    values = {"status": status, "queue": queue, "handler": handler, "job_name": job_name, "limit": limit}
    rows = yield from _ask("no jobs were read", "list_jobs", **values)
    return [_make_job(row) for row in rows]


def read_page(
    *,
    status: str | None,
    queue: str | None,
    handler: str | None,
    job_name: str | None,
    before: int | None,
    limit: int,
) -> Generator[Step, Any, list[ListedJob]]:
    """Read a page of the list of jobs, the newest first; that needs the right to read the tables.

    Args:
        status: As for `read_jobs`.
        queue: As there.
        handler: As there.
        job_name: As there.
        before: The last job of the page before; None for the first page.
        limit: How many at the most.

    Returns:
        The jobs. What is longer than `LONGEST_LISTED` characters is left out of each.

    Raises:
        ReconcilerError: They could not be read.
    """
    _check_status(status)
    values = {"status": status, "queue": queue, "handler": handler, "job_name": job_name, "limit": limit}
    rows = yield from _ask("no jobs were read", "list_page", before=before, longest=LONGEST_LISTED, **values)
    omitted = ("payload_omitted", "result_omitted")
    return [ListedJob(**{name: row.pop(name) for name in omitted}, job=_make_job(row)) for row in rows]


def cancel_job(job_id: int) -> Generator[Step, Any, str | None]:
    """Cancel a job that waits, or tell the worker of one that runs.

    Args:
        job_id: Of the job.

    Returns:
        `cancelled`; `cancelling` for one that runs; the status of one that is finished; None where there is
        none.

    Raises:
        ReconcilerError: It could not be cancelled.
    """
    [row] = yield from _ask(f"job {job_id} was not cancelled", "cancel_job", id=job_id)
    return _read_text(row["status"])


def retry_job(job_id: int, run_at: datetime | None = None) -> Generator[Step, Any, str | None]:
    """Let a dead or cancelled job begin anew.

    Args:
        job_id: Of the job.
        run_at: When it is due; None for now.

    Returns:
        `pending`; the status of a job that is neither dead nor cancelled; None where there is none.

    Raises:
        ReconcilerError: It could not; another open job may have its unique key.
    """
    check_instant(run_at, "run_at")
    [row] = yield from _ask(f"job {job_id} was not put back", "retry_job", id=job_id, run_at=run_at)
    return _read_text(row["status"])


def retry_jobs(
    queue: str, *, limit: int | None, every: timedelta | None, to_queue: str | None
) -> Generator[Step, Any, int]:
    """Let the dead jobs of a queue begin anew, those first that have been dead for longest.

    Args:
        queue: Where they died.
        limit: How many at the most; None for all.
        every: The time from one to the next; None for all at once.
        to_queue: Where they go; None for their own queue.

    Returns:
        How many. Those whose unique key an open job has stay dead.

    Raises:
        ReconcilerError: They could not.
    """
    values = {"queue": queue, "limit": limit, "every": every, "to_queue": to_queue}
    [row] = yield from _ask(f"the dead jobs of {queue} were not put back", "retry_jobs", **values)
    return int(row["count"])


def _ask(what: str, query: str, **values: Any) -> Generator[Step, Any, Any]:
    """Send a query; turn its error into ours, unless it says something about the caller's transaction.

    Args:
        what: What does not come about where it fails.
        query: Which.
        **values: Its parameters.

    Returns:
        Its rows.
    """
    try:
        rows = yield Ask(query=query, values=values)
    except psycopg.Error as error:
        if isinstance(error, _STOPPED) or (error.sqlstate or "").startswith(_ROLLED_BACK):
            raise
        end: End = yield "look"
        raise _explain(error, what, end) from error
    return rows


def _explain(error: psycopg.Error, what: str, end: End) -> ReconcilerError:
    """Turn an error of a statement into ours.

    Args:
        error: From psycopg.
        what: What did not come about.
        end: Where that was sent.

    Returns:
        The error to raise in its place.
    """
    diag = error.diag
    text = (diag.message_primary or str(error)).strip()
    detail = f" ({diag.message_detail})" if diag.message_detail else ""
    hint = diag.message_hint or ""
    if end.is_lost or isinstance(error, errors.AdminShutdown | errors.CrashShutdown):
        return ConnectError(
            f"{what}: the connection to {end.where or 'the database'} is closed or lost ({text})",
            remedy="open a new one; the transaction that it had is rolled back",
        )
    if isinstance(error, _WRONG):
        return InvalidInputError([f"{what}: {text}{detail}" + (f"\n  {hint}" if hint else "")])
    if isinstance(error, errors.InsufficientPrivilege):
        role = end.role.replace('"', '""').replace("'", "''")
        return RightsError(
            f"{what}: the role {end.role} may not do this in {end.where} ({text})",
            remedy=f"""as the owner of the schema: SELECT reconciler.allow_enqueue('{role}')""",
        )
    if isinstance(error, _TOO_OLD):
        return MigrationError(
            f"{what}: {end.where} lacks the schema reconciler, or has one of an earlier release ({text})",
            remedy="run reconciler migrate",
        )
    if isinstance(error, errors.InFailedSqlTransaction):
        return DatabaseError(
            f"{what}: an earlier statement of this transaction failed",
            remedy="roll back first, or put conn.transaction() around what may fail",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseError(
            f"{what}: {end.where} takes no writes ({text})", remedy="connect to the primary, read-write"
        )
    return DatabaseError(f"{what}: {text}{detail}", remedy=hint)


def _make_job(row: Mapping[str, Any]) -> QueuedJob:
    texts = {name: None if row[name] is None else json.loads(row[name]) for name in ("payload", "result")}
    return QueuedJob(**{**row, **texts})


def _check_status(status: str | None) -> None:
    if status is not None and status not in ASKED_STATUSES:
        raise InvalidInputError([f"{status!r} is no status of a job: ask for {', '.join(ASKED_STATUSES)}"])


def _read_text(value: Any) -> str | None:
    return None if value is None else str(value)
