"""Connections that threads share for one request each; knows nothing of what they send."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from reconciler.database.connect import describe_dsn, translate, translate_connect
from reconciler.errors import ConnectError

from .links import complete_dsn
from .shared_connections import has_news

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECT_TIMEOUT: Final = 3
"""Seconds: who asks over HTTP wants to hear soon that there is no server."""


class ThreadConnections:
    """Connections that are opened when they are needed, and kept for the next thread that needs one.

    They need no thread of their own; after an outage the first one that asks finds the server back.

    Args:
        dsn: A libpq connection string or URL.
        most: How many there are at once; who finds none waits for one.
        patience: Seconds to wait for one.

    Raises:
        ConfigError: The string is no connection string.
    """

    def __init__(self, dsn: str, *, most: int = 10, patience: float = 5.0) -> None:
        self._where = describe_dsn(dsn)
        self._dsn = complete_dsn(dsn, application_name="reconciler service", connect_timeout=_CONNECT_TIMEOUT)
        self._places = threading.BoundedSemaphore(most)
        self._patience = patience
        self._idle: list[psycopg.Connection[Any]] = []
        self._is_closed = False

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Give a connection in autocommit mode out for as long as a block takes.

        Yields:
            The connection; to it alone. Errors of psycopg in the block come out as ours.

        Raises:
            ConnectError: There is no server, it does not let us in, or all connections are in use.
            DatabaseError: Anything else that the server refused.
        """
        if not self._places.acquire(timeout=self._patience):
            raise ConnectError(
                f"all connections to {self._where} are in use", remedy="call again, or allow more of them"
            )
        try:
            conn = self._find_idle() or self._open()
            try:
                yield conn
            except psycopg.Error as error:
                raise translate(error, self._where, lost=conn.broken or conn.closed) from error
            finally:
                self._give_back(conn)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _find_idle(self) -> psycopg.Connection[Any] | None:
        # Taking from a list and putting on it are single steps, so that threads need no lock for them.
        with suppress(IndexError):
            while True:
                conn = self._idle.pop()
                if not has_news(conn):
                    return conn
                conn.close()
        return None

    def _open(self) -> psycopg.Connection[Any]:
        try:
            # Behind a pooler in transaction mode a prepared statement is not found again.
            return psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise translate_connect(error, self._where) from error

    def _give_back(self, conn: psycopg.Connection[Any]) -> None:
        is_good = not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE
        if is_good and not self._is_closed:
            self._idle.append(conn)
        else:
            conn.close()
