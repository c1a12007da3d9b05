"""Watch the tick from outside: when pg_cron itself stands still, nothing in the database can tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .health import find_tick_troubles
from .observe import observe_facts
from .queries import load_queries

if TYPE_CHECKING:
    import psycopg

_SILENT = frozenset({"tick_silent", "tick_inactive"})


def tell_of_tick(conn: psycopg.Connection, *, owner: str) -> bool:
    """Open an alert when the tick that this owner declared stands still, and close it when it goes on.

    It is told to every channel of the owner that a process serves: a database whose clock stands still
    sends nothing.

    Args:
        conn: To a target with the outbox, in autocommit mode.
        owner: Whose tick and whose channels.

    Returns:
        Whether the tick stands still.
    """
    queries = load_queries("watchdog")
    if conn.execute(queries["find_tick"], {"owner": owner}).fetchone() is None:
        return False
    troubles = [one for one in find_tick_troubles(conn, observe_facts(conn)) if one.code in _SILENT]
    if troubles:
        conn.execute(queries["open_tick_alert"], {"owner": owner, "message": troubles[0].message})
    else:
        conn.execute(queries["resolve_tick_alert"], {"owner": owner})
    return bool(troubles)
