"""What can be done on a connection as data, and how a connection stands; sends nothing itself.

Generators yield these steps and are sent what came of each, so that one logic serves connections that block
and connections that are awaited.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from psycopg import errors
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus

from reconciler.errors import ConnectError, DatabaseError, ReconcilerError

from .connect import find_refusal, translate

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import psycopg
    from psycopg import BaseConnection

Act = Literal["begin", "commit", "rollback", "close", "look"]
"""What is done with the connection itself; `look` answers with its `State`."""

_STATES: Final = {
    TransactionStatus.IDLE: "idle",
    TransactionStatus.ACTIVE: "busy",
    TransactionStatus.INTRANS: "open",
    TransactionStatus.INERROR: "failed",
}
_AT_WORK: Final = {"pipeline": "is in pipeline mode", "busy": "is still at work with a statement"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A query of `sql/queries/executions.sql` to send; the answer is its first row by column, or None."""

    query: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A time to wait, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a connection stands.

    Attributes:
        transaction: idle, open, failed, busy (a statement goes on), pipeline or closed.
        where: Where it leads, for people; "" when it is closed.
    """

    transaction: str
    where: str


Step: TypeAlias = Call | Pause | Act


def read_state(conn: BaseConnection[Any]) -> State:
    """Read how a connection stands.

    Args:
        conn: Of either kind.

    Returns:
        Its state as the client knows it: a connection that was cut is open until it is used.
    """
    if conn.closed or conn.pgconn.status != ConnStatus.OK:
        return State(transaction="closed", where="")
    info = conn.info
    where = f"{info.dbname} on {info.host}:{info.port} as {info.user}"
    if conn.pgconn.pipeline_status != PipelineStatus.OFF:
        return State(transaction="pipeline", where=where)
    return State(transaction=_STATES.get(info.transaction_status, "closed"), where=where)


def require_idle(state: State, what: str = "") -> None:
    """Refuse a connection on which our own transactions would be a part of the caller's.

    Args:
        state: Of the connection.
        what: What does not come about because of it.

    Raises:
        ConnectError: It is closed.
        DatabaseError: It is at work.
    """
    head = f"{what}: " if what else ""
    if state.transaction == "closed":
        raise ConnectError(f"{head}the connection is closed", remedy="open a new one")
    if state.transaction != "idle":
        problem = _AT_WORK.get(state.transaction, "has an open transaction")
        raise DatabaseError(
            f"{head}the connection to {state.where} {problem}, but what is noted of a run must not be "
            "undone with the work",
            remedy="commit or roll back first, or use a connection of its own",
        )


def transact(call: Call) -> Generator[Step, Any, Any]:
    """Send one query in a transaction of its own, whatever the session's defaults are.

    Args:
        call: What to send.

    Returns:
        Its first row.

    Raises:
        psycopg.Error: It failed; no transaction is left open.
    """
    try:
        yield "begin"
        row = yield call
        yield "commit"
    except BaseException:
        yield from roll_back()
        raise
    return row


def roll_back() -> Generator[Step, Any, None]:
    """Roll back where a transaction is open; should that fail, whoever uses the connection next hears it."""
    state: State = yield "look"
    if state.transaction in {"open", "failed"}:
        with suppress(Exception):
            yield "rollback"


def settle(*, keep: bool) -> Generator[Step, Any, None]:
    """Settle what a block of the caller's left open.

    Args:
        keep: Whether the block ended well: then it is committed, else rolled back.

    Raises:
        ReconcilerError: It ended well, but its work is lost.
        psycopg.Error: The commit failed.
    """
    state: State = yield "look"
    if state.transaction == "idle":
        return
    if not keep:
        yield from roll_back()
    elif state.transaction == "closed":
        raise ConnectError("the connection was lost or closed within the run", remedy="connect again")
    elif state.transaction == "failed":
        yield from roll_back()
        raise DatabaseError(
            "a statement of the run failed and its transaction was not rolled back, so that the work is lost",
            remedy="let the error out of the block, or put conn.transaction() around what may fail",
        )
    elif state.transaction == "open":
        yield "commit"
    else:
        require_idle(state)


def explain(error: psycopg.Error, what: str, where: str, *, lost: bool) -> ReconcilerError:
    """Turn an error of one of our own statements into ours.

    Args:
        error: From psycopg.
        what: What did not come about.
        where: The target, as described to people.
        lost: Whether the connection is gone.

    Returns:
        The error to raise in its place.
    """
    if lost or isinstance(error, errors.AdminShutdown | errors.CrashShutdown):
        return ConnectError(
            f"{what}: the connection to {where or 'the database'} was lost ({str(error).strip()})",
            remedy="connect again; a run that was going on is found lost by the tick or by the next start",
        )
    if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
        return translate(error, where, lost=False)
    refusal = find_refusal(error)
    if refusal is not None:
        return refusal
    diag = error.diag
    message = (diag.message_primary or str(error)).strip()
    detail = f" ({diag.message_detail})" if diag.message_detail else ""
    return DatabaseError(f"{what}: {message}{detail}", remedy=diag.message_hint or "")


def make_pooling_error(where: str) -> DatabaseError:
    """Make the error for a connection whose statements reach several backends.

    Args:
        where: The target, as described to people.

    Returns:
        The error; a lock of a session would stay with a backend that others use too.
    """
    return DatabaseError(
        f"two transactions on the connection to {where} came to two backends: a pooler in transaction mode "
        "stands between, and with it the lock of a run cannot be kept",
        remedy="connect to PostgreSQL itself (port 5432 as a rule), or to the pooler's port for session mode",
    )
