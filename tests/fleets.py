"""Databases side by side on one test server, each with pg_cron's tables, for fleets of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers import Database

_TEMPLATE = "fleet-template"
_CREATE = sql.SQL("CREATE DATABASE {} TEMPLATE {}")


def make_databases(database: Database, names: Sequence[str]) -> None:
    """Copy the empty database of a test; pg_cron runs nothing in the copies, but keeps their entries.

    Args:
        database: The test's, before anything was applied to it.
        names: Of the copies; they go when the next test begins.
    """
    source = database.connect().info.dbname
    database.close()
    with psycopg.connect(make_conninfo(database.dsn, dbname="template1"), autocommit=True) as conn:
        # The launcher comes back after a second, and meanwhile nobody is connected to the template.
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'pg_cron launcher' AND datname = %s",
            [source],
        )
        conn.execute(_CREATE.format(sql.Identifier(_TEMPLATE), sql.Identifier(source)))
        for name in names:
            conn.execute(_CREATE.format(sql.Identifier(name), sql.Identifier(_TEMPLATE)))
