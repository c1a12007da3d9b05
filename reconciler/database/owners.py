"""Read whose jobs a target holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .queries import load_queries

if TYPE_CHECKING:
    import psycopg


def list_owners(conn: psycopg.Connection) -> dict[str, int]:
    """List who has jobs or workers on a target.

    Args:
        conn: To a target with the schema of this release.

    Returns:
        For each owner how many, sorted by name; the tool's own entries do not count.
    """
    return dict(conn.execute(load_queries("owners")["list_owners"]).fetchall())
