"""Calls of the service that write, in the database: begun, ended, answered again, listed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - psycopg's class_row looks at the types
from typing import TYPE_CHECKING, Any, Literal

from psycopg import errors
from psycopg.rows import class_row, dict_row

from reconciler.errors import MigrationError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCall:
    """A call that begins. All texts are such as PostgreSQL takes.

    Attributes:
        token_id: Of the caller.
        caller: What the caller's token was made for.
        action: What is to be done, such as `job.create`.
        subject: To what, such as the name of a job.
        method: Of HTTP.
        path: Without its query.
        key: Under which the caller may ask again; None for none.
        digest: Of the request, where there is a key.
        is_atomic: Whether what is done and the end of the call are one transaction.
    """

    token_id: str
    caller: str
    action: str
    subject: str
    method: str
    path: str
    key: str | None = None
    digest: bytes | None = None
    is_atomic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswer:
    """What a call was answered.

    Attributes:
        status: Of HTTP.
        document: JSON; None for nothing.
        headers: What the answer's head says besides.
    """

    status: int
    document: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunCall:
    """A call that began, or the earlier one that had its key.

    Attributes:
        id: Of the call.
        state: begun; of the earlier one: done, running (or cut off), other (it asked for something else).
        answer: Of the earlier one that is done; else None.
    """

    id: int
    state: Literal["begun", "done", "running", "other"]
    answer: CallAnswer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """A call that was written down.

    Attributes:
        id: Grows with time.
        at: When it began.
        ended_at: When it ended; None while it goes on, and where it was cut off.
        token_id: Of the caller.
        caller: What the caller's token was made for.
        action: What was asked.
        subject: Of what.
        method: Of HTTP.
        path: Without its query.
        idempotency_key: None without one, and where it no longer counts.
        status: What was answered; None without an end.
    """

    id: int
    at: datetime
    ended_at: datetime | None
    token_id: str
    caller: str
    action: str
    subject: str
    method: str
    path: str
    idempotency_key: str | None
    status: int | None


def begin_call(conn: psycopg.Connection[Any], call: NewCall) -> BegunCall:
    """Write down that a call begins, unless one with its key was there before.

    Args:
        conn: In autocommit mode: the row has to stay, whatever comes after.
        call: What begins.

    Returns:
        The call, or the earlier one.

    Raises:
        MigrationError: The schema on the target is older than the service.
    """
    values = {name: getattr(call, name) for name in NewCall.__slots__}
    try:
        with conn.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(load_queries("api_calls")["begin_call"], values).fetchone()
    except (errors.UndefinedFunction, errors.InvalidSchemaName) as error:
        raise MigrationError(
            "the schema reconciler on the target is not there, or older than the service",
            remedy="run reconciler migrate",
        ) from error
    assert row is not None  # noqa: S101 - a function's result is one row
    answer = None
    if row["state"] == "done":
        headers = json.loads(row["headers"] or "{}")
        answer = CallAnswer(status=row["status"], document=row["answer"], headers=headers)
    return BegunCall(id=row["id"], state=row["state"], answer=answer)


def hold_call(conn: psycopg.Connection[Any], call_id: int, key: str | None) -> bool:
    """Hold a call for the rest of the transaction: nobody else with its key begins meanwhile.

    Args:
        conn: In the transaction in which the call is carried out.
        call_id: Of the call.
        key: With which it began.

    Returns:
        False where another one with the same key took it over.
    """
    row = conn.execute(load_queries("api_calls")["hold_call"], {"id": call_id, "key": key}).fetchone()
    return row is not None and bool(row[0])


def end_call(conn: psycopg.Connection[Any], call_id: int, answer: CallAnswer, *, keeps: bool) -> None:
    """Write down how a call ended; nothing where it has ended before.

    Args:
        conn: In the transaction in which it was carried out; autocommit where that was rolled back.
        call_id: Of the call.
        answer: What is answered.
        keeps: Whether that is answered again to who asks with the same key.
    """
    values = {
        "id": call_id,
        "status": answer.status,
        "answer": answer.document,
        "headers": json.dumps(dict(answer.headers)) if answer.headers else None,
        "keeps": keeps,
    }
    conn.execute(load_queries("api_calls")["end_call"], values)


def list_calls(conn: psycopg.Connection[Any], *, before: int | None, limit: int) -> list[ApiCall]:
    """List calls.

    Args:
        conn: To the target.
        before: Only those that are older than the one with this id; None for all.
        limit: How many at the most.

    Returns:
        The newest first.
    """
    with conn.cursor(row_factory=class_row(ApiCall)) as cursor:
        values = {"before": before, "limit": limit}
        return cursor.execute(load_queries("api_calls")["list_calls"], values).fetchall()
