"""Connections that many calls share for a statement or two each; knows nothing of what they send."""

from __future__ import annotations

import asyncio
import select
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from reconciler.database.connect import describe_dsn
from reconciler.errors import ConnectError

from .links import complete_dsn, explain_refusal, is_outage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from psycopg import BaseConnection


@runtime_checkable
class Connections(Protocol):
    """What gives connections out: an `AsyncConnectionPool` of psycopg_pool, or the one here."""

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[Any]]:
        """Give a connection out for as long as a block takes, and commit at its end."""
        ...


@asynccontextmanager
async def borrow(connections: Connections) -> AsyncIterator[AsyncConnection[Any]]:
    """Take a connection for as long as a block takes.

    Args:
        connections: Where from.

    Yields:
        The connection. Errors of psycopg, in the block as well, come out as ours.

    Raises:
        ConnectError: There is no connection to be had, or it was lost.
        MigrationError: The schema reconciler is missing or too old.
        DatabaseError: Anything else that the server refused.
    """
    conn: AsyncConnection[Any] | None = None
    try:
        async with connections.connection() as conn:
            yield conn
    except psycopg.Error as error:
        if is_outage(error, conn) or not error.sqlstate:
            raise ConnectError(
                f"no connection to the database: {error}",
                remedy="see that it runs, and that it can be reached",
            ) from error
        raise explain_refusal(error, _describe(conn)) from error


def read_dsn(conn: AsyncConnection[Any]) -> str:
    """Read how another connection like this one is made.

    Args:
        conn: Open.

    Returns:
        A connection string, with the password.
    """
    return make_conninfo(conn.info.dsn, password=conn.info.password or None)


def _describe(conn: AsyncConnection[Any] | None) -> str:
    return "the database" if conn is None else f"{conn.info.dbname} on {conn.info.host} as {conn.info.user}"


class SharedConnections:
    """Connections that are opened when they are needed, and kept for the next one who needs them.

    Unlike those of a pool they need no task of their own, which a function that is called and frozen again
    does not have; and after an outage the first call that comes finds the server back.

    Args:
        dsn: A libpq connection string or URL.
        most: How many there are at once; who finds none waits for one.

    Raises:
        ConfigError: The string is no connection string.
    """

    def __init__(self, dsn: str, *, most: int = 5) -> None:
        self._where = describe_dsn(dsn)
        self._dsn = complete_dsn(dsn)
        self._places = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection[Any]] = []
        self._is_closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection in autocommit mode out for as long as a block takes.

        Yields:
            The connection; to it alone.

        Raises:
            ConnectError: There is no server, or it does not let us in.
        """
        async with self._places:
            conn = await self._find_idle() or await self._open()
            try:
                yield conn
            finally:
                is_good = not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE
                if is_good and not self._is_closed:
                    self._idle.append(conn)
                else:
                    await conn.close()

    async def aclose(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _find_idle(self) -> AsyncConnection[Any] | None:
        while self._idle:
            conn = self._idle.pop()
            if not has_news(conn):
                return conn
            await conn.close()
        return None

    async def _open(self) -> AsyncConnection[Any]:
        try:
            # Behind a pooler in transaction mode a prepared statement is not found again.
            return await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise ConnectError(
                f"cannot connect to {self._where}: {str(error).strip()}",
                remedy="check the dsn, and that the server runs",
            ) from error


def has_news(conn: BaseConnection[Any]) -> bool:
    """Tell whether something came in on a connection that nobody used: most often, that it is over.

    Args:
        conn: Idle.
    """
    if conn.closed:
        return True
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))
