"""Find psycopg's connection in what the caller has: its own, or one of SQLAlchemy's that runs on it.

Knows SQLAlchemy's objects by what they have, and imports nothing of it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import AsyncConnection, Connection

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Protocol

    class _Wrapped(Protocol):
        """A connection of SQLAlchemy or a session, where `connection` is a method that returns one."""

        @property
        def connection(self) -> Any: ...

    class _Raw(Protocol):
        """A raw connection of SQLAlchemy."""

        @property
        def driver_connection(self) -> Any: ...

    class _WrappedAsync(Protocol):
        """An awaited connection of SQLAlchemy."""

        def get_raw_connection(self) -> Awaitable[Any]: ...


AnyConnection: TypeAlias = "Connection[Any] | _Wrapped | _Raw"
"""What `find_connection` takes."""
AnyAsyncConnection: TypeAlias = "AsyncConnection[Any] | _Wrapped | _WrappedAsync | _Raw"
"""What `find_connection_async` takes."""


def find_connection(conn: AnyConnection) -> Connection[Any]:
    """Find psycopg's connection, in the caller's transaction.

    Args:
        conn: Of psycopg; or of SQLAlchemy a connection, a session, or a raw connection.

    Returns:
        The connection. SQLAlchemy knows that a transaction has begun: else it would not commit it.

    Raises:
        ConfigError: There is none in it.
    """
    if isinstance(conn, Connection):
        return conn
    found: Any = conn
    if _is_awaited(found):
        raise _make_error(conn, None, is_awaited=False)
    if callable(_find_attribute(found)):  # a session
        found = found.connection()
    if hasattr(found, "in_transaction"):
        if not found.in_transaction():
            found.begin()
        found = found.connection
    driver = getattr(found, "driver_connection", None)
    if isinstance(driver, Connection):
        return driver
    raise _make_error(conn, driver, is_awaited=False)


async def find_connection_async(conn: AnyAsyncConnection) -> AsyncConnection[Any]:
    """Do the same as `find_connection` for connections that are awaited.

    Args:
        conn: Of psycopg; or of SQLAlchemy an awaited connection, an awaited session, or a raw connection.

    Returns:
        The connection.

    Raises:
        ConfigError: There is none in it.
    """
    if isinstance(conn, AsyncConnection):
        return conn
    found: Any = conn
    if inspect.iscoroutinefunction(_find_attribute(found)):  # a session
        found = await found.connection()
    if hasattr(found, "get_raw_connection"):
        if not found.in_transaction():
            await found.begin()
        found = await found.get_raw_connection()
    driver = getattr(found, "driver_connection", None)
    if isinstance(driver, AsyncConnection):
        return driver
    raise _make_error(conn, driver, is_awaited=True)


def _make_error(conn: object, driver: object, *, is_awaited: bool) -> ConfigError:
    found = conn if driver is None else driver
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    if not is_awaited and _is_awaited(found):
        return ConfigError(
            f"this connection, a {kind}, is awaited",
            remedy="call the function whose name ends in _async, and await it",
        )
    if is_awaited and (isinstance(found, Connection) or hasattr(found, "in_transaction")):
        return ConfigError(
            f"this connection, a {kind}, is not awaited", remedy="call the function without _async"
        )
    return ConfigError(
        f"jobs are queued over a connection of psycopg 3, and this is a {kind}",
        remedy="use psycopg.connect(...), or SQLAlchemy with an address that begins with postgresql+psycopg://",
    )


def _is_awaited(found: object) -> bool:
    return (
        isinstance(found, AsyncConnection)
        or hasattr(found, "get_raw_connection")
        or inspect.iscoroutinefunction(_find_attribute(found))
    )


def _find_attribute(found: object) -> Any:
    """Find what `connection` is without asking for it: of an awaited connection it is an error."""
    return getattr(type(found), "connection", None)
