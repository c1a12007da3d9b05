"""Connections of a worker that come back by themselves; a loss is told once, whatever is tried meanwhile.

Knows nothing of what is sent over them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.core.retries import next_wait
from reconciler.database.connect import CONNECT_TIMEOUT, describe_dsn, find_refusal
from reconciler.errors import DatabaseError, MigrationError, ReconcilerError, RightsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")

_log: Final = logging.getLogger("reconciler.worker")
_ANSWER_LIMIT: Final = 60.0
"""Seconds without an answer after which a connection counts as lost."""
_FIRST_WAIT: Final = timedelta(seconds=0.2)
_LONGEST_WAIT: Final = timedelta(seconds=10)
# A peer that vanished without a word is noticed within half a lease.
_USUAL: Final[dict[str, str | int]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "connect_timeout": CONNECT_TIMEOUT,
    "client_encoding": "utf8",
    "application_name": "reconciler worker",
}
_AWAY: Final = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleSessionTimeout,
    errors.TooManyConnections,
    # The server became a standby: connecting again finds the new primary.
    errors.ReadOnlySqlTransaction,
)
_AGAIN: Final = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.QueryCanceled,
)
_UNPREPARED: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
_TOO_OLD: Final = (
    errors.InvalidSchemaName,
    errors.UndefinedFunction,
    errors.UndefinedTable,
    errors.UndefinedColumn,
)


def complete_dsn(dsn: str, **others: str | int) -> str:
    """Add what a worker's connections need to a connection string, unless it says otherwise.

    Args:
        dsn: A libpq connection string or URL.
        **others: What is to be in the place of a worker's usual settings.

    Returns:
        The same with limits on how long a silent network is believed in.

    Raises:
        ConfigError: It is no connection string.
    """
    describe_dsn(dsn)
    given = conninfo_to_dict(dsn)
    usual = {**_USUAL, **others}
    return make_conninfo(dsn, **{key: value for key, value in usual.items() if key not in given})


class Outages:
    """Tells of a lost connection once, and once when it is back; for threads as well.

    Args:
        where: Where the connections lead, for people.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._lock = threading.Lock()
        self._began: float | None = None

    def begin(self, error: BaseException) -> None:
        """Note that a connection was lost, or cannot be made.

        Args:
            error: Why.
        """
        with self._lock:
            if self._began is not None:
                return
            self._began = time.monotonic()
        text = str(error).strip() or type(error).__name__
        _log.warning(
            "no connection to %s (%s); jobs that run go on, and it is tried again and again", self.where, text
        )

    def end(self) -> None:
        """Note that the server answers."""
        if self._began is None:
            return
        with self._lock:
            began, self._began = self._began, None
        if began is not None:
            _log.warning("connected to %s again after %.1f s", self.where, time.monotonic() - began)


class Link:
    """One connection of the event loop, made when it is needed and again when it was lost.

    Args:
        dsn: From `complete_dsn`.
        outages: Who tells of losses.
    """

    def __init__(self, dsn: str, outages: Outages) -> None:
        self._dsn = dsn
        self._outages = outages
        self._conn: AsyncConnection[Any] | None = None
        self._losses = 0
        self.is_pooled = False

    async def connect(self) -> AsyncConnection[Any]:
        """Return the connection, a new one where there is none.

        Raises:
            psycopg.Error: It cannot be made.
        """
        if self._conn is None or self._conn.closed:
            conn = await AsyncConnection.connect(self._dsn, autocommit=True)
            # What is prepared on a server stays behind with it when a pooler goes on to another one.
            conn.prepare_threshold = None if self.is_pooled else 0
            self._conn = conn
        return self._conn

    async def use(self, action: Callable[[AsyncConnection[Any]], Awaitable[_Result]]) -> _Result:
        """Do something over the connection, as often as it takes until the server answers.

        Args:
            action: What; it may happen twice when the answer to the first time is lost.

        Returns:
            What it returned.

        Raises:
            psycopg.Error: The server refused it.
        """
        while True:
            try:
                async with asyncio.timeout(_ANSWER_LIMIT):
                    result = await action(await self.connect())
            except (psycopg.Error, OSError, TimeoutError) as error:
                if isinstance(error, _UNPREPARED) and not self.is_pooled:
                    _log.warning("a pooler in transaction mode stands between: no more prepared statements")
                    self.is_pooled = True
                    await self.drop()
                    continue
                if not is_momentary(error) and not self.is_away(error):
                    raise
                await self.lose(error)
            else:
                self._losses = 0
                self._outages.end()
                return result

    def is_away(self, error: BaseException) -> bool:
        """Tell whether an error means that the connection, or the server, is gone.

        Args:
            error: From psycopg or the network.
        """
        if not isinstance(error, psycopg.Error):
            return True
        return is_outage(error, self._conn)

    async def lose(self, error: BaseException) -> None:
        """Give up the connection, and wait for a while before the next one.

        Args:
            error: Why.
        """
        if not is_momentary(error):
            await self.drop()
            self._outages.begin(error)
        self._losses += 1
        await asyncio.sleep(find_wait(self._losses))

    async def drop(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()


def is_momentary(error: BaseException) -> bool:
    """Tell whether the same statement may do the next time.

    Args:
        error: From psycopg or the network.
    """
    return isinstance(error, _AGAIN)


def is_outage(error: psycopg.Error, conn: AsyncConnection[Any] | Connection[Any] | None) -> bool:
    """Tell whether an error means that the connection, or the server, is gone.

    Args:
        error: From psycopg.
        conn: On which it happened; None where none could be made.
    """
    return conn is None or conn.closed or isinstance(error, _AWAY)


def find_wait(losses: int) -> float:
    """Return how many seconds to wait before another try to connect.

    Args:
        losses: How many in a row have failed.
    """
    wait = next_wait(
        losses,
        initial=_FIRST_WAIT,
        factor=2,
        maximum=_LONGEST_WAIT,
        chance=random.random(),  # noqa: S311 - jitter
    )
    return wait.total_seconds()


def explain_refusal(error: psycopg.Error, where: str) -> ReconcilerError:
    """Turn what the server refused a worker into an error for people.

    Args:
        error: From psycopg.
        where: The target, as described to people.

    Returns:
        The error to raise in its place.
    """
    refusal = find_refusal(error)
    if refusal is not None:
        return refusal
    text = error.diag.message_primary or str(error).strip()
    if isinstance(error, errors.InsufficientPrivilege):
        return RightsError(
            f"the role may not work on the queues of {where}: {text}",
            remedy="let the owner of the schema execute SELECT reconciler.allow_work('ROLE')",
        )
    if isinstance(error, _TOO_OLD):
        return MigrationError(
            f"{where} lacks the schema reconciler, or has one of an earlier release: {text}",
            remedy="run reconciler migrate",
        )
    return DatabaseError(f"{where}: {text}", remedy=error.diag.message_hint or "")
