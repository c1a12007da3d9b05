"""Take jobs from workers that are gone, over a connection that is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .queries import load_queries

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_MOST: Final = 100


async def rescue_jobs_async(conn: AsyncConnection[Any]) -> None:
    """Take jobs whose leases are over, so that they can be claimed again.

    Args:
        conn: Of a role that may work.
    """
    await conn.execute(load_queries("claims")["rescue"], {"max": _MOST})
