"""Connect to a target, and turn psycopg's errors into ours: the one place where this is done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from reconciler.errors import (
    ConfigError,
    ConnectError,
    DatabaseError,
    ReconcilerError,
    RefusedError,
    RightsError,
    StalePlanError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

COPY_STATE = "RC001"
"""The SQLSTATE with which a copy of a database, which nobody has claimed, refuses to do anything."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a server, unless the connection string says otherwise."""


def describe_dsn(dsn: str) -> str:
    """Describe where a connection string leads, without its password.

    Args:
        dsn: A libpq connection string or URL.

    Returns:
        For instance `app on db.example.com:5432 as deploy`.

    Raises:
        ConfigError: It is no connection string; its text is not repeated, since it may hold a password.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError(
            "the target's dsn is no connection string",
            remedy="write postgresql://user@host:5432/database, or host=… dbname=… user=…",
        ) from None
    host = str(parts.get("host") or parts.get("hostaddr") or "the default socket")
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f" as {parts['user']}" if parts.get("user") else ""
    return f"{parts.get('dbname') or 'the default database'} on {host}{port}{user}"


@contextmanager
def connect(dsn: str) -> Iterator[psycopg.Connection]:
    """Open a connection in autocommit mode, and close it.

    Args:
        dsn: A libpq connection string or URL.

    Yields:
        The connection. Errors of psycopg inside the block come out as ours.

    Raises:
        ConfigError: The string is no connection string.
        ConnectError: No server, no such database, wrong password, or the connection was lost.
        DatabaseError: Anything else that the server refused.
    """
    where = describe_dsn(dsn)
    options = {} if "connect_timeout" in dsn else {"connect_timeout": CONNECT_TIMEOUT}
    try:
        conn = psycopg.connect(dsn, autocommit=True, application_name="reconciler", **options)  # type: ignore[arg-type] # connect_timeout is an int
    except psycopg.Error as error:
        raise translate_connect(error, where) from error
    try:
        yield conn
    except psycopg.Error as error:
        raise translate(error, where, lost=conn.broken or conn.closed) from error
    finally:
        conn.close()


def translate(error: psycopg.Error, where: str, *, lost: bool) -> ReconcilerError:
    """Turn an error of a statement into ours.

    Args:
        error: From psycopg.
        where: The target, as described to people.
        lost: Whether the connection is gone.

    Returns:
        The error to raise in its place.
    """
    refusal = find_refusal(error)
    if refusal is not None:
        return refusal
    diag = error.diag
    message = (diag.message_primary or str(error)).strip()
    details = "; ".join(part for part in (diag.message_detail, diag.message_hint) if part)
    text = f"{message} ({details})" if details else message
    if lost or isinstance(error, errors.AdminShutdown | errors.CrashShutdown):
        return ConnectError(
            f"the connection to {where} was lost: {text}",
            remedy="an open transaction was rolled back; unless it was just committing, nothing changed: "
            "run plan to see, then apply again",
        )
    if isinstance(error, errors.SerializationFailure | errors.DeadlockDetected | errors.UniqueViolation):
        return StalePlanError(
            f"{where} changed while this was applied: {text}",
            remedy="nothing was changed; run plan again",
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return RightsError(
            f"the role lacks a right on {where}: {text}",
            remedy="run reconciler doctor: it lists what is missing and the GRANT for it",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseError(f"{where} takes no writes: {text}", remedy="connect to the primary, read-write")
    return DatabaseError(f"{where}: {text}", remedy="nothing was changed")


def find_refusal(error: psycopg.Error) -> RefusedError | None:
    """Turn the error with which a copy refuses something into ours.

    Args:
        error: From psycopg.

    Returns:
        Ours; None for any other error.
    """
    if error.sqlstate != COPY_STATE:
        return None
    diag = error.diag
    return RefusedError(diag.message_primary or str(error), remedy=diag.message_hint or "")


def translate_connect(error: psycopg.Error, where: str) -> ConnectError:
    """Turn an error of connecting into ours.

    Args:
        error: From psycopg.
        where: The target, as described to people.

    Returns:
        The error to raise in its place.
    """
    text = str(error).strip()
    lowered = text.lower()
    if "password" in lowered or "authentication" in lowered or "pg_hba" in lowered:
        remedy = "check user and password of the target's dsn"
    elif "does not exist" in lowered:
        remedy = "check the database and the user of the target's dsn"
    elif "timeout" in lowered or "refused" in lowered or "no such file" in lowered or "resolve" in lowered:
        remedy = "check host and port of the target's dsn, and that the server runs"
    else:
        remedy = "check the target's dsn"
    return ConnectError(f"cannot connect to {where}: {text}", remedy=remedy)
