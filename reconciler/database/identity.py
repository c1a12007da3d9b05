"""Read and claim the identity of a target: where its jobs run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import class_row

from reconciler.errors import MigrationError, RightsError

from .connect import find_refusal
from .migrate import take_apply_lock
from .observe import make_identity
from .queries import load_queries

if TYPE_CHECKING:
    from reconciler.core.identity import Identity

MOST_COUNTED = 1000
"""So many of a kind are counted; there may be more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a claim lets loose; each number up to `MOST_COUNTED` + 1.

    Attributes:
        entries: Active entries of managed jobs and push workers.
        direct: Entries of mode direct that are off although they were applied as active.
        jobs: Queued jobs that wait, one-time jobs among them.
        begun: Queued jobs that were being done when the copy was made.
        starts: Retries, catch-ups, and runs that somebody asked for.
        alerts: Messages that were not sent.
        owners: Whose these are.
    """

    entries: int
    direct: int
    jobs: int
    begun: int
    starts: int
    alerts: int
    owners: list[str]


def read_identity(conn: psycopg.Connection) -> Identity | None:
    """Read where a target was recorded, and whether it is there.

    Args:
        conn: To the target.

    Returns:
        The identity; None where somebody deleted the row, so that any place is home.

    Raises:
        MigrationError: Nothing was applied to it yet, or an earlier release did it.
        RightsError: The role may not read it.
    """
    _require_table(conn)
    row = conn.execute(load_queries("observe")["observe_identity"]).fetchone()
    return None if row is None else make_identity(row)


def count_waiting(conn: psycopg.Connection) -> Waiting:
    """Count what a claim lets loose.

    Args:
        conn: To the target.
    """
    with conn.cursor(row_factory=class_row(Waiting)) as cursor:
        row = cursor.execute(load_queries("identity")["count_waiting"]).fetchone()
    assert row is not None  # noqa: S101 - it is one row
    return row


def record_identity(conn: psycopg.Connection, *, owner: str, target: str) -> None:
    """Record that a database is at home where it is.

    Args:
        conn: In a transaction that holds the lock of applies.
        owner: Who says so.
        target: The target's name in the owner's configuration.
    """
    conn.execute(load_queries("identity")["record"], {"owner": owner, "target": target})


def claim(conn: psycopg.Connection, *, owner: str, target: str, drop_alerts: bool) -> int:
    """Claim a database: from now on it is at home where it is, and has this name.

    Args:
        conn: In autocommit mode.
        owner: Who claims.
        target: The target's name in the owner's configuration.
        drop_alerts: Give up the messages that wait to be sent.

    Returns:
        How many messages were given up.

    Raises:
        ApplyLockError: An apply is at work.
        RightsError: The role may not.
    """
    with conn.transaction():
        _require_table(conn, writing=True)
        take_apply_lock(conn)
        record_identity(conn, owner=owner, target=target)
        return conn.execute(load_queries("identity")["drop_alerts"]).rowcount if drop_alerts else 0


def require_home(conn: psycopg.Connection) -> None:
    """Refuse to go on in a copy that nobody has claimed.

    Args:
        conn: To a database, with the schema reconciler or without it.

    Raises:
        RefusedError: It is one.
    """
    row = conn.execute(load_queries("identity")["find_identity"]).fetchone()
    if row is None or not row[1]:
        return  # an earlier release records nothing
    try:
        conn.execute(load_queries("identity")["require_home"])
    except psycopg.Error as error:
        refusal = find_refusal(error)
        if refusal is None:
            raise
        raise refusal from error


def _require_table(conn: psycopg.Connection, *, writing: bool = False) -> None:
    row = conn.execute(load_queries("identity")["find_identity"]).fetchone()
    assert row is not None  # noqa: S101 - it is one row
    has_schema, has_table, may_read, may_write = row
    if not has_table:
        what, command = (
            ("is of an earlier release", "migrate") if has_schema else ("is not there yet", "apply")
        )
        raise MigrationError(
            f"the schema reconciler {what} on this target, so nothing is recorded of where it is",
            remedy=f"run reconciler {command}",
        )
    if not may_read or (writing and not may_write):
        verb, grant = ("write", "ALL") if writing else ("read", "SELECT")
        raise RightsError(
            f"the role may not {verb} the table reconciler.identity",
            remedy=f"as the owner of the schema: GRANT {grant} ON reconciler.identity TO the role",
        )
