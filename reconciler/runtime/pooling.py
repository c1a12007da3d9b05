"""Find out whether a pooler in transaction mode stands between a worker and its server."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from psycopg import AsyncConnection, sql

if TYPE_CHECKING:
    from psycopg.abc import Query

_HEARING_LIMIT: Final = 2.0
"""Seconds to wait for one's own message."""


async def is_pooled(conn: AsyncConnection[Any], dsn: str) -> bool:
    """Find out whether transactions of one connection come to several backends.

    Two transactions of a connection that meet different backends prove it, and so do two connections that
    meet the same one. Where the server process is not the one that the connection was told of at its start,
    some pooler stands between: then it depends on whether a message to oneself is heard.

    Args:
        conn: In autocommit mode.
        dsn: For a second connection.

    Returns:
        Whether LISTEN and prepared statements have to be done without.

    Raises:
        psycopg.Error: A connection cannot be made, or is lost.
    """
    pids = {await _read_pid(conn) for _ in range(3)}
    if len(pids) > 1:
        return True
    async with await AsyncConnection.connect(dsn, autocommit=True) as other:
        other.prepare_threshold = None
        # Held open, so that this backend is nobody else's for now.
        async with other.transaction():
            if await _read_pid(other) in pids or await _read_pid(conn) not in pids:
                return True
        return conn.info.backend_pid not in pids and not await _hears(other, conn)


async def _read_pid(conn: AsyncConnection[Any]) -> int:
    cursor = await conn.execute("SELECT pg_backend_pid()", prepare=False)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _hears(listener: AsyncConnection[Any], speaker: AsyncConnection[Any]) -> bool:
    channel = f"reconciler_{uuid.uuid4().hex}"
    listen: Query = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
    await listener.execute(listen, prepare=False)
    await asyncio.sleep(0)
    await speaker.execute("SELECT pg_notify(%s, '')", [channel], prepare=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARING_LIMIT):
            async for notify in listener.notifies(timeout=_HEARING_LIMIT):
                if notify.channel == channel:
                    return True
    return False
