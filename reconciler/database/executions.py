"""Start and end runs of people's own code: every decision, once for both kinds of connection.

The functions are generators of steps (see `reconciler.database.sessions`): an error of a step is thrown into
them. Whatever happens, they leave no lock without a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from psycopg import errors

from reconciler.errors import DatabaseError, MigrationError, RightsError

from .endings import Ending, make_ending, make_plain
from .sessions import Call, Pause, explain, make_pooling_error, require_idle, roll_back, settle, transact

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from .sessions import State, Step

Trigger = Literal["manual", "schedule"]

_ASK_AGAIN: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a run is ended with.

    Attributes:
        token: The proof that we started it.
        lock_key: Of its lock.
        shared: Whether others may hold the lock too.
        pid: The backend that holds it.
        where: Where the connection leads, for people.
    """

    token: bytes = field(repr=False)
    lock_key: int
    shared: bool
    pid: int
    where: str


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of people's own code; false when it may not go on.

    Attributes:
        name: Of the job.
        run_id: In `reconciler.cron_execution_log`; None when it was skipped.
        acquired: Whether it got the lock; if not, there is nothing to do.
        reason: Why it was skipped.
        status: running, skipped, or how it ended.
        rows_affected: How many rows it changed, where the code wants that in the log.
        hold: What it is ended with; None when it has no lock, or none any more.
    """

    name: str
    run_id: int | None = None
    acquired: bool = False
    reason: str = ""
    status: str = "skipped"
    rows_affected: int | None = None
    hold: Hold | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.acquired


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A run that is to be started, and what the first look at the target found."""

    name: str
    trigger: Trigger
    where: str
    look: Mapping[str, Any]
    query: Literal["start_run", "start_execution"] = "start_run"
    lock_key: int | None = None
    shared: bool = False
    nested: bool = False


def start(name: str, *, trigger: Trigger, wait: bool, nested: bool) -> Generator[Step, Any, Run]:
    """Start a run.

    Args:
        name: Of a declared job, or one of the caller's own.
        trigger: Why it starts.
        wait: Wait for the lock also where the job's policy is to skip.
        nested: Whether this connection has a run of the name already, whose lock is not to be touched.

    Returns:
        The run, which has the lock and is in the log; or one that is false.

    Raises:
        ReconcilerError: It could not be started.
    """
    state: State = yield "look"
    require_idle(state)
    try:
        wish = replace((yield from _look(name, trigger, state.where)), nested=nested)
        try:
            waits = wait and not wish.shared
            if waits:
                yield from _wait_for_lock(wish)
            row = yield from _ask(wish, waited=waits)
        except BaseException:
            if not nested:  # else it is the lock of the run around it
                yield from _drop_locks(wish)
            raise
    except psycopg.Error as error:
        after: State = yield "look"
        what = f"the run of {name} was not started"
        raise explain(error, what, state.where, lost=after.transaction == "closed") from error
    if row["verdict"] != "run":
        return Run(name=name, reason=row["reason"] or "")
    hold = Hold(
        token=row["token"],
        lock_key=row["lock_key"],
        shared=row["shared"],
        pid=row["pid"],
        where=state.where,
    )
    return Run(name=name, run_id=row["run_id"], acquired=True, status="running", hold=hold)


def log(run: Run, ending: Ending) -> Generator[Step, Any, str]:
    """Write how a run ended; its lock stays.

    Args:
        run: That goes on; nothing is written of one that has no lock.
        ending: How it ended.

    Returns:
        Its status: what was to be cancelled for its time limit is timed_out.

    Raises:
        ReconcilerError: It could not be written.
    """
    hold = run.hold
    if hold is None:
        return run.status
    what = f"the end of run {run.run_id} of {run.name} was not logged"
    require_idle((yield "look"), what)
    values = {"run_id": run.run_id, "token": hold.token, "rows_affected": run.rows_affected}
    try:
        row = yield from transact(_call_finish(values, ending))
    except BaseException as error:
        row = yield from _finish_again(values, ending, error)
        if row is not None:
            run.status = row["status"]
        if isinstance(error, psycopg.Error) and row is None:
            after: State = yield "look"
            raise explain(error, what, hold.where, lost=after.transaction == "closed") from error
        if row is None or not isinstance(error, Exception):
            raise
    run.status = row["status"]
    return run.status


def release(run: Run) -> Generator[Step, Any, None]:
    """Release the lock of a run, by closing the connection where nothing else helps.

    Args:
        run: In whatever state; nothing is done where it has no lock any more.

    Raises:
        DatabaseError: The connection had to be closed, or another backend has the lock.
    """
    hold, run.hold = run.hold, None
    state: State = yield "look"
    if hold is None or state.transaction == "closed":
        return  # a session's locks go with it
    values = {"lock_key": hold.lock_key, "shared": hold.shared, "pid": hold.pid}
    try:
        row = yield Call(query="release_run", values=values)
        if state.transaction == "idle":
            yield "commit"
    except BaseException as error:
        yield "close"
        if isinstance(error, psycopg.Error):
            raise DatabaseError(
                f"the lock of {run.name} could not be released, so the connection was closed: "
                f"{str(error).strip()}",
                remedy="open a new one",
            ) from error
        raise
    if row is None:
        raise make_pooling_error(hold.where)


def end(run: Run, error: BaseException | None) -> Generator[Step, Any, None]:
    """End a run with its block of code: settle what the block left open, log, release.

    Args:
        run: That goes on.
        error: What came out of the block, which the caller raises again; None for a clean end.

    Raises:
        ReconcilerError: After a clean end: the work could not be kept, or its end could not be logged.
        psycopg.Error: After a clean end: the transaction that the block left open could not be committed.
    """
    faults: list[BaseException] = []
    ending = Ending() if error is None else make_ending(error)
    try:
        yield from settle(keep=error is None)
    except BaseException as fault:  # noqa: BLE001 - raised below, when all is done
        faults.append(fault)
        if error is None:
            ending = make_ending(fault)
    for steps in (log(run, ending), release(run)):
        try:
            yield from steps
        except BaseException as fault:  # noqa: BLE001 - the same
            faults.append(fault)
    for found in faults:
        if error is None or not isinstance(found, Exception):
            raise found
        error.add_note(f"Besides: {found}")


def alert(name: str, error: BaseException | str) -> Generator[Step, Any, None]:
    """Open an alert of the kind failed, for what went wrong outside of a run.

    Args:
        name: Of a declared job, whose channels are told; any other name is only listed.
        error: What went wrong.

    Raises:
        ReconcilerError: The role may not, or the connection is at work.
    """
    state: State = yield "look"
    require_idle(state)
    ending = Ending(outcome="failed", message=error) if isinstance(error, str) else make_ending(error)
    plain = make_plain(ending)
    values = {
        "name": name,
        "message": f"{name} failed: {plain.message}",
        "details": json.dumps({"sqlstate": plain.sqlstate, "context": plain.context}),
    }
    try:
        row = yield from transact(Call(query="open_failed_alert", values=values))
        if row is None:
            yield from transact(Call(query="insert_alert", values=values))
    except psycopg.Error as fault:
        after: State = yield "look"
        what = f"no alert was opened for {name}"
        raise explain(fault, what, state.where, lost=after.transaction == "closed") from fault


def _read(call: Call) -> Generator[Step, Any, Any]:
    """Send a query that writes nothing; where psycopg began a transaction for it, end that."""
    try:
        row = yield call
        yield "commit"
    except BaseException:
        yield from roll_back()
        raise
    return row


def _look(name: str, trigger: Trigger, where: str) -> Generator[Step, Any, _Wish]:
    """Look at the target: what is there, what the role may, and whether the name is declared."""
    look = yield from _read(Call(query="look", values={}))
    if not look["has_runtime"]:
        what = "is of an earlier release" if look["has_schema"] else "is not there yet"
        command = "migrate" if look["has_schema"] else "apply"
        raise MigrationError(f"the schema reconciler {what} in {where}", remedy=f"run reconciler {command}")
    wish = _Wish(name=name, trigger=trigger, where=where, look=look)
    if not look["may_read"]:
        return wish
    lock = yield from _read(Call(query="find_lock", values={"name": name}))
    _require_backend(lock, wish)
    if lock["is_declared"]:
        return replace(wish, lock_key=lock["lock_key"], shared=lock["shared"])
    _require_execute(wish)
    return replace(wish, query="start_execution")


def _require_backend(row: Mapping[str, Any], wish: _Wish) -> None:
    if row["pid"] != wish.look["pid"]:
        raise make_pooling_error(wish.where)


def _require_execute(wish: _Wish) -> None:
    role = wish.look["role"]
    if not wish.look["may_execute"]:
        raise RightsError(
            f"no job {wish.name} is declared in {wish.where}, and the role {role} may not run what nobody "
            "declared",
            remedy="declare the job; or as the owner of the schema: GRANT EXECUTE ON FUNCTION "
            f'reconciler.start_execution TO "{role}"',
        )


def _wait_for_lock(wish: _Wish) -> Generator[Step, Any, None]:
    """Take the lock by asking again and again: a statement that waits would stop vacuum meanwhile."""
    values = {"name": wish.name, "lock_key": wish.lock_key}
    while True:
        row = yield from _take(wish, Call(query="try_lock", values=values))
        if row["verdict"] == "run":
            return
        yield Pause(seconds=_ASK_AGAIN)


def _ask(wish: _Wish, *, waited: bool) -> Generator[Step, Any, Mapping[str, Any]]:
    """Ask for the start until the answer is not that the job waits for its lock."""
    # A session that waited for a run of its own would wait for ever.
    since = None if wish.nested else wish.look["since"]
    values = {"name": wish.name, "trigger": wish.trigger, "since": since, "lock_key": wish.lock_key}
    while True:
        try:
            row = yield from _take(wish, Call(query=wish.query, values=values))
        except errors.UndefinedObject:
            # Who may not read the definitions finds out in this way that nobody declared the name.
            if wish.look["may_read"] or wish.query == "start_execution":
                raise
            _require_execute(wish)
            wish = replace(wish, query="start_execution")
            continue
        if waited:
            # The lock of a session is counted: start_run took it a second time.
            yield from _read(Call(query="unlock", values=values))
            waited = False
        if row["verdict"] != "busy":
            return row
        yield Pause(seconds=_ASK_AGAIN)


def _take(wish: _Wish, call: Call) -> Generator[Step, Any, Mapping[str, Any]]:
    """Take the lock with a query; where another backend answers, give it back."""
    try:
        yield "begin"
        row: Mapping[str, Any] = yield call
        if row["pid"] != wish.look["pid"] and row["verdict"] == "run":
            # Until the transaction ends, the backend stays the same.
            yield Call(query="release_run", values=row)
        _require_backend(row, wish)
        yield "commit"
    except BaseException:
        yield from roll_back()
        raise
    return row


def _drop_locks(wish: _Wish) -> Generator[Step, Any, None]:
    """Drop the lock of a start that failed, where it was taken; a session that cannot is closed."""
    state: State = yield "look"
    if state.transaction == "closed":
        return
    call = Call(query="drop_lock", values={"name": wish.name, "lock_key": wish.lock_key})
    try:
        while (yield call) is not None:
            pass
        yield "commit"
    except Exception:  # noqa: BLE001 - the error of the start is on its way
        yield "close"


def _call_finish(values: Mapping[str, Any], ending: Ending) -> Call:
    texts = {
        "outcome": ending.outcome,
        "message": ending.message,
        "sqlstate": ending.sqlstate,
        "detail": ending.detail,
        "context": ending.context,
    }
    return Call(query="finish_run", values={**values, **texts})


def _finish_again(
    values: Mapping[str, Any], ending: Ending, error: BaseException
) -> Generator[Step, Any, Any]:
    """Try once more after a cancelling at the last moment, or a text that the log cannot keep.

    Returns:
        The answer; None where that did not help, so that the tick will find the run lost.
    """
    state: State = yield "look"
    if state.transaction != "idle" or isinstance(error, errors.ObjectNotInPrerequisiteState):
        return None
    rows = values["rows_affected"]
    kept = {**values, "rows_affected": rows if isinstance(rows, int) else None}
    try:
        return (yield from transact(_call_finish(kept, make_plain(ending))))
    except Exception:  # noqa: BLE001 - the first error is on its way
        return None
