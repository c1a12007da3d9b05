"""Let a server parse and plan SQL bodies as the roles that run them, without executing any of it.

One transaction for each role, read only and always rolled back. What EXPLAIN takes is planned, all else only
parsed, by the protocol that takes one statement at a time: no text can end the transaction from inside.
"""

from __future__ import annotations

import json
import selectors
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, ExecStatus

from reconciler.core.body_checks import (
    Refusal,
    Remark,
    find_denied,
    find_parameter,
    is_planned,
    judge_plan,
    judge_refusal,
    list_called,
    list_called_by_plan,
    quote_name,
)

from .queries import load_queries
from .rehearsal import name_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from reconciler.core.body_checks import Statement

_EXPLAIN = "EXPLAIN (FORMAT JSON, VERBOSE, COSTS OFF) "
_BACK = b"ROLLBACK TO SAVEPOINT reconciler_check"
_BATCH = 100
_SILENCE = 30.0

PATIENCE = timedelta(seconds=2)
"""How long a statement may be planned, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the server said of a statement: a plan, a refusal, or neither where it was only parsed."""

    statement: Statement
    plan: dict[str, Any] | None
    refusal: Refusal | None

    def list_called(self) -> frozenset[str]:
        """List what the statement and its plan, in which views are unfolded, call."""
        return list_called(self.statement.text) | list_called_by_plan(self.plan)


def check_bodies(
    conn: psycopg.Connection,
    statements: Mapping[str, Sequence[Statement]],
    *,
    is_complete: bool,
    patience: timedelta = PATIENCE,
) -> tuple[Remark, ...]:
    """Check the bodies of jobs; executes nothing.

    Args:
        conn: In autocommit mode, outside of a transaction.
        statements: Those of all bodies, by the role that runs them; "" for the connected role.
        is_complete: Whether no migration is pending.
        patience: How long each statement may be planned.

    Returns:
        What is to be said of them, by role, then in the order of the statements.
    """
    remarks: list[Remark] = []
    for role, chosen in sorted(statements.items()):
        if chosen:
            remarks += _check_as(conn, role, chosen, is_complete=is_complete, patience=patience)
    return tuple(remarks)


def _check_as(
    conn: psycopg.Connection,
    role: str,
    statements: Sequence[Statement],
    *,
    is_complete: bool,
    patience: timedelta,
) -> Iterator[Remark]:
    queries = load_queries("body_checks")
    with conn.transaction(force_rollback=True):
        conn.execute("SET TRANSACTION READ ONLY")
        milliseconds = str(max(round(patience.total_seconds() * 1000), 1))
        conn.execute(queries["limit_planning"], {"milliseconds": milliseconds})
        if role:
            denied = _take_role(conn, role)
            if denied:
                message = f"this connection may not act as the role {role} ({denied})"
                for name in dict.fromkeys(statement.name for statement in statements):
                    yield Remark(name=name, severity="unchecked", message=message)
                return
        conn.execute("SAVEPOINT reconciler_check")
        answers = list(_ask(conn, statements))
        conn.execute(_BACK)
        volatile = _find(conn, "find_volatile", {name for one in answers for name in _list_doubtful(one)})
        calls = {name for one in answers for name in _find_call(one)}
        callable_names = _find(conn, "find_callable", calls)
        relations = _find(
            conn, "find_relations", {find_denied(one.refusal) for one in answers if one.refusal} - {""}
        )
    user = role or conn.info.user
    for one in answers:
        parameter = find_parameter(one.statement)
        if parameter:
            yield parameter
        elif one.refusal:
            relation = relations.get(find_denied(one.refusal), "")
            refusal = replace(one.refusal, relation=relation)
            yield judge_refusal(one.statement, refusal, role=user, is_complete=is_complete)
        elif one.plan is None:
            yield _judge_parsed(one, callable_names, user)
        else:
            warning = judge_plan(
                one.statement, one.plan, calls=not volatile.keys().isdisjoint(one.list_called())
            )
            if warning:
                yield Remark(
                    name=one.statement.name,
                    severity="warning",
                    message=warning,
                    offset=one.statement.offset,
                )


def _take_role(conn: psycopg.Connection, role: str) -> str:
    """Act as a role; say why not where that is impossible."""
    try:
        with conn.transaction():
            conn.execute(load_queries("body_checks")["set_role"], {"role": role})
            conn.execute(load_queries("rehearsal")["take_search_path"], {"role": role})
    except (errors.InsufficientPrivilege, errors.InvalidParameterValue) as error:
        return error.diag.message_primary or str(error)
    return ""


def _find(conn: psycopg.Connection, query: str, names: set[str]) -> dict[str, Any]:
    if not names:
        return {}
    rows = conn.execute(load_queries("body_checks")[query], {"names": sorted(names)})
    return {row[0]: row[-1] for row in rows}


def _list_doubtful(one: _Answer) -> frozenset[str]:
    return frozenset() if one.plan is None else one.list_called()


def _find_call(one: _Answer) -> frozenset[str]:
    """Name the procedure that a CALL calls; its arguments may name more, which does no harm."""
    is_call = one.plan is None and name_command(one.statement.text) == "CALL"
    return list_called(one.statement.plain) if is_call else frozenset()


def _judge_parsed(one: _Answer, callable_names: Mapping[str, bool], user: str) -> Remark:
    statement, command = one.statement, name_command(one.statement.text)
    denied = sorted(name for name in _find_call(one) if callable_names.get(name) is False)
    if denied:
        grant = f"GRANT EXECUTE ON PROCEDURE {quote_name(denied[0])} TO {quote_name(user)}"
        return Remark(
            name=statement.name,
            severity="error",
            message=f"permission denied for procedure {denied[0]}; {grant}",
            offset=statement.offset,
        )
    what = "what the procedure does" if command == "CALL" else "anything but the grammar"
    return Remark(
        name=statement.name, severity="unchecked", message=f"{what} of {command}", offset=statement.offset
    )


def _ask(conn: psycopg.Connection, statements: Sequence[Statement]) -> Iterator[_Answer]:
    """Send statements in batches, so that the way to the server is gone once for many of them.

    Each goes back to the savepoint first, which ends what the one before broke and lets go of its locks.
    """
    pgconn, encoding = conn.pgconn, conn.info.encoding
    pgconn.enter_pipeline_mode()
    try:
        for begin in range(0, len(statements), _BATCH):
            batch = statements[begin : begin + _BATCH]
            for statement in batch:
                pgconn.send_query_params(_BACK, None)
                if is_planned(statement.text):
                    pgconn.send_query_params((_EXPLAIN + statement.text).encode(encoding), None)
                else:
                    pgconn.send_prepare(b"", statement.text.encode(encoding))
                pgconn.pipeline_sync()
            _send(pgconn)
            yield from (_read_answer(pgconn, statement, encoding) for statement in batch)
        pgconn.exit_pipeline_mode()
    except BaseException:
        # Answers are still under way, and nobody could tell them from those to come.
        conn.close()
        raise


def _read_answer(pgconn: PGconn, statement: Statement, encoding: str) -> _Answer:
    plan: dict[str, Any] | None = None
    refusal: Refusal | None = None
    while (result := _read(pgconn)) is None or result.status != ExecStatus.PIPELINE_SYNC:
        if result is None:
            continue
        if result.status == ExecStatus.FATAL_ERROR:
            refusal = _make_refusal(statement, result, encoding)
        elif result.status == ExecStatus.TUPLES_OK:
            plan = json.loads(result.get_value(0, 0) or b"[{}]")[0].get("Plan", {"Node Type": "Utility"})
    return _Answer(statement=statement, plan=plan, refusal=refusal)


def _make_refusal(statement: Statement, result: PGresult, encoding: str) -> Refusal:
    diag = errors.error_from_result(result, encoding).diag
    before = len(_EXPLAIN) if is_planned(statement.text) else 0
    return Refusal(
        sqlstate=diag.sqlstate or "",
        message=diag.message_primary or "",
        hint=diag.message_hint or "",
        position=int(diag.statement_position) - 1 - before if diag.statement_position else None,
    )


def _send(pgconn: PGconn) -> None:
    """Send what is under way; answers are taken meanwhile, or both sides would wait for each other."""
    while pgconn.flush():
        ready = _wait(pgconn, selectors.EVENT_READ | selectors.EVENT_WRITE)
        if ready & selectors.EVENT_READ:
            pgconn.consume_input()


def _read(pgconn: PGconn) -> PGresult | None:
    while pgconn.is_busy():
        _wait(pgconn, selectors.EVENT_READ)
        pgconn.consume_input()
    if pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError(pgconn.error_message.decode(errors="replace"))
    return pgconn.get_result()


def _wait(pgconn: PGconn, events: int) -> int:
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, events)
        for _, ready in selector.select(_SILENCE):
            return ready
    raise psycopg.OperationalError(f"the server has not answered for {_SILENCE:g} s")
