"""Remind pg_cron's launcher to look at its jobs again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from reconciler.core.facts import Rights

PAUSE_SECONDS: Final = 1.5
"""The launcher looks once in a second; what comes within the same one is lost with the rest."""


def remind_launcher(conn: psycopg.Connection, rights: Rights, *, sleep: Callable[[float], object]) -> bool:
    """Touch one entry, a moment after a transaction that made or changed a great deal of the catalog.

    A migration sends more messages about changed catalogs than the server keeps for slow readers (4,096).
    When they overflow before the launcher has read them, it is told that everything may have changed, and
    pg_cron up to 1.6.7 ignores that: what the same apply scheduled would not fire until the next change of
    `cron.job`.

    Args:
        conn: To the target, in autocommit mode, after the commit.
        rights: Of the connected role.
        sleep: Waits for so many seconds.

    Returns:
        Whether an entry was touched; it stays as it is. Without the right to alter entries none is.
    """
    if not rights.alter_job:
        return False
    sleep(PAUSE_SECONDS)
    return conn.execute(load_queries("apply")["remind_launcher"]).rowcount > 0
