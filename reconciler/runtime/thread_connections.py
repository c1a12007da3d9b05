"""Connections that threads share for one request each; knows nothing of what they send."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from reconciler.database.connect import describe_dsn, translate, translate_connect
from reconciler.database.queries import load_queries
from reconciler.errors import BusyError, ConnectError, ReconcilerError

from .endpoint_answers import render_cause
from .links import complete_dsn, is_outage
from .shared_connections import has_news

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECT_TIMEOUT: Final = 3
"""Seconds: who asks over HTTP wants to hear soon that there is no server."""
_ASKED_FOR: Final = 2**31
"""After so many executions a statement is kept on the server: at once where it is asked for, else never."""
_TRUST: Final = 5.0
"""Seconds for which a connection that nobody used is taken for a good one; later it is asked."""
_SLOW: Final = 1.0
"""Seconds after which one that does not answer means that there is no server, and not that it was cut."""


_QUIET: Final = 10.0
"""Seconds for which the same kind of trouble is not told again."""

_log: Final = logging.getLogger("reconciler.service")


class ThreadConnections:
    """Connections that are opened when they are needed, and kept for the next thread that needs one.

    They need no thread of their own; after an outage the first one that asks finds the server back. While it
    is away one thread at a time tries to connect, and all who came before that failed hear of it at once.

    Args:
        dsn: A libpq connection string or URL.
        most: How many there are at once; who finds none waits for one.
        patience: Seconds to wait for one.
        statement_limit: Seconds that a statement may take, unless the role, the database or the string says
            otherwise; behind a pooler that is the pooler's to say.

    Raises:
        ConfigError: The string is no connection string.
    """

    def __init__(
        self, dsn: str, *, most: int = 10, patience: float = 5.0, statement_limit: float = 15.0
    ) -> None:
        self._where = describe_dsn(dsn)
        self._dsn = complete_dsn(
            dsn,
            application_name="reconciler service",
            connect_timeout=_CONNECT_TIMEOUT,
            tcp_user_timeout=_CONNECT_TIMEOUT * 1000,
        )
        self._most = most
        self._places = threading.BoundedSemaphore(most)
        self._patience = patience
        self._limit = statement_limit
        self._idle: list[tuple[psycopg.Connection[Any], float]] = []
        self._keeps_statements = True
        self._is_closed = False
        self._door = threading.Lock()
        self._failure: ConnectError | None = None
        self._failed_at = 0.0
        self._told: dict[type[ConnectError], float] = {}

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Give a connection in autocommit mode out for as long as a block takes.

        Yields:
            The connection; to it alone. Errors of psycopg in the block come out as ours.

        Raises:
            ConnectError: There is no server, it does not let us in, or it went away.
            BusyError: All connections are in use, or a statement took too long.
            DatabaseError: Anything else that the server refused.
        """
        came = time.monotonic()
        if not self._places.acquire(timeout=self._patience):
            raise self._tell(
                BusyError(
                    f"all {self._most} connections to {self._where} are in use",
                    remedy="call again, or allow more of them",
                )
            )
        try:
            conn = self._find_idle() or self._open(came)
            try:
                yield conn
            except psycopg.Error as error:
                raise self._explain(error, conn) from error
            finally:
                self._give_back(conn)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        self._is_closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        # Taking from a list and putting on it are single steps, so that threads need no lock for them.
        with suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    def _find_idle(self) -> psycopg.Connection[Any] | None:
        while True:
            try:
                conn, since = self._idle.pop()
            except IndexError:
                return None
            if has_news(conn):
                conn.close()
            elif time.monotonic() - since < _TRUST or self._is_answering(conn):
                return conn

    def _is_answering(self, conn: psycopg.Connection[Any]) -> bool:
        """Ask one that waited for long: what lies between may have forgotten it without a word."""
        began = time.monotonic()
        try:
            conn.execute("")
        except psycopg.Error as error:
            conn.close()
            self._drop_idle()
            if time.monotonic() - began > _SLOW:
                raise translate(error, self._where, lost=True) from error
            return False
        return True

    def _open(self, came: float) -> psycopg.Connection[Any]:
        before = self._failure
        if before is None:
            return self._connect()
        with self._door:
            failure = self._failure
            if failure is not None and self._failed_at >= came:
                raise ConnectError(failure.message, remedy=failure.remedy) from failure
            return self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            # Behind a pooler in transaction mode a prepared statement is not found again, see below.
            conn = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            failure = translate_connect(error, self._where)
            self._failure, self._failed_at = failure, time.monotonic()
            raise self._tell(failure) from error
        try:
            row = conn.execute(
                load_queries("connections")["prepare_session"],
                {"limit": str(round(self._limit * 1000)), "pid": conn.info.backend_pid},
            ).fetchone()
            if row is not None and row[0] and self._keeps_statements:
                conn.prepare_threshold = _ASKED_FOR
        except psycopg.Error as error:
            conn.close()
            raise translate(error, self._where, lost=True) from error
        if self._failure is not None:
            self._failure = None
            _log.warning("connected to %s again", self._where)
        return conn

    def _explain(self, error: psycopg.Error, conn: psycopg.Connection[Any]) -> ReconcilerError:
        is_lost = is_outage(error, conn)
        if is_lost:
            # The others are of before: a server that is back does not know them, or is another one.
            conn.close()
            self._drop_idle()
        elif isinstance(error, errors.InvalidSqlStatementName | errors.DuplicatePreparedStatement):
            # A pooler that tells the number of one session and takes another: from now on nothing is kept.
            self._keeps_statements = False
            conn.close()
            self._drop_idle()
            return self._tell(
                BusyError(
                    f"a pooler stands before {self._where}, and did not tell so", remedy="call again, once"
                )
            )
        elif isinstance(error, errors.QueryCanceled | errors.LockNotAvailable):
            return self._tell(
                BusyError(
                    f"{self._where} did not get through with a statement in time, or somebody cancelled it",
                    remedy="see what holds it up: pg_stat_activity, pg_locks",
                )
            )
        explained = translate(error, self._where, lost=is_lost)
        return self._tell(explained) if isinstance(explained, ConnectError) else explained

    def _tell(self, error: ConnectError) -> ConnectError:
        """Tell the log what people are not told, now and then, however many requests fail of it."""
        now = time.monotonic()
        if now - self._told.get(type(error), -_QUIET) >= _QUIET:
            self._told[type(error)] = now
            _log.warning("%s", render_cause(error))
        return error

    def _give_back(self, conn: psycopg.Connection[Any]) -> None:
        if conn.closed or conn.info.transaction_status != TransactionStatus.IDLE:
            conn.close()
            return
        self._idle.append((conn, time.monotonic()))
        if self._is_closed:
            self._drop_idle()
