"""Run people's own Python under the lock of a job and with a row in its log, over a psycopg connection.

What is done when stands in `reconciler.database.executions`; here it is carried out, on connections that
block and on connections that are awaited. Knows nothing of how jobs are declared.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from psycopg import AsyncCursor, Cursor
from psycopg.rows import dict_row

from reconciler.database import executions
from reconciler.database.endings import Ending, make_ending
from reconciler.database.queries import load_queries
from reconciler.database.sessions import Call, Pause, read_state
from reconciler.runtime.carrying import carry_out, carry_out_async
from reconciler.runtime.tracing import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator

    from psycopg import AsyncConnection, BaseConnection, Connection

    from reconciler.database.endings import Outcome
    from reconciler.database.executions import Run, Trigger
    from reconciler.database.sessions import Step

_Result = TypeVar("_Result")

_runs: WeakKeyDictionary[BaseConnection[Any], list[Run]] = WeakKeyDictionary()
"""The runs that go on, by connection: a start that fails must not drop the lock of a run around it."""


@contextmanager
def locked_execution(
    conn: Connection[Any], name: str, *, trigger: Trigger = "manual", wait: bool = False
) -> Iterator[Run]:
    """Run a block of code as a run of a job: under its lock, and in its log.

    A declared job's policies hold: retries, alerts, pauses, dependents. A name that nobody declared is logged
    under a lock of its own; this takes the right to execute `reconciler.start_execution`.

    The connection must have no open transaction, in autocommit mode or not. A transaction that the block
    leaves open is committed at its end, and rolled back when an error leaves the block, before the run is
    ended.

    Args:
        conn: To the target, to the same backend all the time; the block may use it.
        name: Of a declared managed job, or one of your own.
        trigger: `schedule` for what something like a cron fires: then pauses and `after` hold, too.
        wait: Wait for the lock; otherwise a run is skipped while another goes on, unless the job's own
            concurrency is to wait.

    Yields:
        The run. It is false when it was skipped: leave the block then. Its end is logged as succeeded, as
        cancelled (an interrupt, a cancelled statement), or as failed with the error that left the block.

    Raises:
        DatabaseError: It could not be started or ended, or the work that was left open is lost.
    """
    with span(
        f"run {name}", attributes={"reconciler.job.name": name, "reconciler.run.trigger": trigger}
    ) as seen:
        run = acquire_execution_lock(conn, name, trigger=trigger, wait=wait)
        try:
            if not run:
                yield run
                return
            try:
                yield run
            except BaseException as error:
                _forget(conn, run)
                _carry_out(conn, executions.end(run, error))
                raise
            _forget(conn, run)
            _carry_out(conn, executions.end(run, None))
        finally:
            seen.note(run__id=run.run_id, run__status=run.status)


@asynccontextmanager
async def locked_execution_async(
    conn: AsyncConnection[Any], name: str, *, trigger: Trigger = "manual", wait: bool = False
) -> AsyncIterator[Run]:
    """Do the same as `locked_execution` over a connection that is awaited.

    A task that is cancelled within the block still ends its run and releases the lock.

    Args:
        conn: As there.
        name: As there.
        trigger: As there.
        wait: As there.

    Yields:
        The run.

    Raises:
        DatabaseError: As there.
    """
    with span(
        f"run {name}", attributes={"reconciler.job.name": name, "reconciler.run.trigger": trigger}
    ) as seen:
        steps = executions.start(name, trigger=trigger, wait=wait, nested=_is_nested(conn, name))
        run = await _carry_out_async(conn, steps)
        try:
            if not run:
                yield run
                return
            _remember(conn, run)
            try:
                yield run
            except BaseException as error:
                _forget(conn, run)
                await _finish(_carry_out_async(conn, executions.end(run, error)))
                raise
            _forget(conn, run)
            await _finish(_carry_out_async(conn, executions.end(run, None)))
        finally:
            seen.note(run__id=run.run_id, run__status=run.status)


def handle_cron_trigger(
    conn: Connection[Any], name: str, handler: Callable[[], _Result], *, trigger: Trigger = "schedule"
) -> _Result | None:
    """Run a handler as a run of a job.

    Args:
        conn: As for `locked_execution`.
        name: Of the job.
        handler: What to do.
        trigger: Why.

    Returns:
        What the handler returned; None when the run was skipped.

    Raises:
        DatabaseError: As `locked_execution` does; what the handler raises comes out as it is.
    """
    with locked_execution(conn, name, trigger=trigger) as run:
        return handler() if run else None


async def handle_cron_trigger_async(
    conn: AsyncConnection[Any],
    name: str,
    handler: Callable[[], Awaitable[_Result]],
    *,
    trigger: Trigger = "schedule",
) -> _Result | None:
    """Do the same as `handle_cron_trigger` over a connection that is awaited, with a handler that is.

    Args:
        conn: As for `locked_execution_async`.
        name: Of the job.
        handler: What to do.
        trigger: Why.

    Returns:
        What the handler returned; None when the run was skipped.
    """
    async with locked_execution_async(conn, name, trigger=trigger) as run:
        return await handler() if run else None


def acquire_execution_lock(
    conn: Connection[Any], name: str, *, trigger: Trigger = "manual", wait: bool = False
) -> Run:
    """Start a run whose end is the caller's to log and whose lock is the caller's to release.

    Args:
        conn: As for `locked_execution`, which does all of this and is to be preferred.
        name: As there.
        trigger: As there.
        wait: As there.

    Returns:
        The run; false when it was skipped.

    Raises:
        DatabaseError: It could not be started.
    """
    run = _carry_out(conn, executions.start(name, trigger=trigger, wait=wait, nested=_is_nested(conn, name)))
    if run:
        _remember(conn, run)
    return run


def log_execution(
    conn: Connection[Any], run: Run, outcome: Outcome, error: BaseException | str | None = None
) -> str:
    """Log how a run ended; its lock stays until it is released.

    A failed run of a declared job is followed by what its policies say: another try, an alert.

    Args:
        conn: That started it, without an open transaction.
        run: The run; nothing is logged of one that was skipped.
        outcome: How it ended.
        error: Why, where it did not succeed.

    Returns:
        Its status.

    Raises:
        DatabaseError: It could not be logged, or was logged already.
    """
    if isinstance(error, BaseException):
        ending = make_ending(error, outcome)
    else:
        message = None if outcome == "succeeded" else error or "no reason was given"
        ending = Ending(outcome=outcome, message=message)
    return _carry_out(conn, executions.log(run, ending))


def release_execution_lock(conn: Connection[Any], run: Run) -> None:
    """Release the lock of a run; a run whose end was not logged is found lost.

    Args:
        conn: That started it.
        run: The run; nothing is done for one that has no lock.

    Raises:
        DatabaseError: The lock could not be released, so the connection was closed.
    """
    _forget(conn, run)
    _carry_out(conn, executions.release(run))


def notify_on_failure(conn: Connection[Any], name: str, error: BaseException | str) -> None:
    """Open an alert for something that failed outside of a run; runs that fail alert by their policy.

    Args:
        conn: Of the owner of the schema reconciler, without an open transaction.
        name: Of a declared job: its channels are told, once, until it succeeds again. An alert of any other
            name is only listed, and closed from the beginning.
        error: What went wrong.

    Raises:
        RightsError: The role may not.
    """
    _carry_out(conn, executions.alert(name, error))


def _is_nested(conn: BaseConnection[Any], name: str) -> bool:
    return any(run.name == name for run in _runs.get(conn, ()))


def _remember(conn: BaseConnection[Any], run: Run) -> None:
    _runs.setdefault(conn, []).append(run)


def _forget(conn: BaseConnection[Any], run: Run) -> None:
    _runs[conn] = [other for other in _runs.get(conn, ()) if other is not run]


def _carry_out(conn: Connection[Any], steps: Generator[Step, Any, _Result]) -> _Result:
    return carry_out(steps, lambda step: _do(conn, step))


def _do(conn: Connection[Any], step: Step) -> Any:
    match step:
        case Call():
            with Cursor(conn, row_factory=dict_row) as cursor:
                cursor.execute(load_queries("executions")[step.query], step.values)
                return cursor.fetchone() if cursor.description else None
        case Pause():
            time.sleep(step.seconds)
        case "begin":
            conn.execute(_find_begin(conn))
        case "commit":
            conn.commit()
        case "rollback":
            conn.rollback()
        case "close":
            conn.close()
        case "look":
            return read_state(conn)
    return None


async def _carry_out_async(conn: AsyncConnection[Any], steps: Generator[Step, Any, _Result]) -> _Result:
    return await carry_out_async(steps, lambda step: _do_async(conn, step))


async def _do_async(conn: AsyncConnection[Any], step: Step) -> Any:
    match step:
        case Call():
            async with AsyncCursor(conn, row_factory=dict_row) as cursor:
                await cursor.execute(load_queries("executions")[step.query], step.values)
                return await cursor.fetchone() if cursor.description else None
        case Pause():
            await asyncio.sleep(step.seconds)
        case "begin":
            await conn.execute(_find_begin(conn))
        case "commit":
            await conn.commit()
        case "rollback":
            await conn.rollback()
        case "close":
            await conn.close()
        case "look":
            return read_state(conn)
    return None


def _find_begin(conn: BaseConnection[Any]) -> Any:
    return load_queries("executions")["begin" if conn.autocommit else "set_transaction"]


async def _finish(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Bring work to its end although the task is cancelled meanwhile, and let it be cancelled then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()
