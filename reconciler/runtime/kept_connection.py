"""One connection that a long-lived object keeps: the caller's, or its own that it opens again when lost."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from reconciler.database.connect import CONNECT_TIMEOUT, describe_dsn, translate
from reconciler.database.sessions import read_state
from reconciler.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection


class KeptConnection:
    """Gives one connection out, to one thread at a time."""

    def __init__(self, source: str | Connection[Any]) -> None:
        """Keep the caller's connection, or open none yet.

        Args:
            source: A libpq connection string or URL; or a connection, which stays the caller's to close.

        Raises:
            ConfigError: The string is no connection string.
        """
        self.is_own = isinstance(source, str)
        self._lock = threading.RLock()
        self._process = os.getpid()
        if isinstance(source, str):
            describe_dsn(source)
            self.dsn = source
            self._conn: Connection[Any] | None = None
        else:
            # What info.dsn tells lacks the password.
            self.dsn = make_conninfo(source.info.dsn, password=source.info.password or None)
            self._conn = source

    def __del__(self) -> None:
        # Who only schedules has nothing to shut down. A string that was refused leaves no lock behind.
        if hasattr(self, "_conn"):
            self.close()

    @contextmanager
    def use(self) -> Iterator[Connection[Any]]:
        """Give the connection out for as long as a block takes; within it, to the same thread again.

        Yields:
            The connection; our own is in autocommit mode. Errors of psycopg inside come out as ours.

        Raises:
            ConnectError: There is no server, or it does not let us in.
            DatabaseError: Anything that the server refused.
        """
        with self._lock:
            conn = self._open() if self.is_own else self._conn
            assert conn is not None  # noqa: S101 - the caller's is given at the start
            where = read_state(conn).where
            try:
                yield conn
            except psycopg.Error as error:
                raise translate(error, where, lost=read_state(conn).transaction == "closed") from error

    def close(self) -> None:
        """Close our own connection; the next use opens one again."""
        with self._lock:
            if self.is_own and self._conn is not None and self._process == os.getpid():
                self._conn.close()
                self._conn = None

    def _open(self) -> Connection[Any]:
        if self._process != os.getpid():
            # The parent's: after a fork both would talk on one line.
            self._conn, self._process = None, os.getpid()
        if self._conn is not None and _is_alive(self._conn):
            return self._conn
        options: dict[str, Any] = (
            {} if "connect_timeout" in self.dsn else {"connect_timeout": CONNECT_TIMEOUT}
        )
        try:
            # Behind a pooler in transaction mode a prepared statement is not found again.
            self._conn = psycopg.connect(
                self.dsn, autocommit=True, prepare_threshold=None, application_name="reconciler", **options
            )
        except psycopg.Error as error:
            raise ConnectError(
                f"cannot connect to {describe_dsn(self.dsn)}: {str(error).strip()}",
                remedy="check the dsn, and that the server runs",
            ) from error
        return self._conn


def _is_alive(conn: Connection[Any]) -> bool:
    """Tell whether a connection can be used: one that waited may have been cut."""
    state = read_state(conn).transaction
    if state != "idle":  # in use by this thread already, or closed
        return state != "closed"
    with suppress(psycopg.Error):
        conn.execute("")
        return True
    conn.close()
    return False
