"""Databases side by side on one test server, each with pg_cron's tables, for fleets of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers import Database

_TEMPLATE = "fleet-template"
_CREATE = sql.SQL("CREATE DATABASE {} TEMPLATE {}")


def make_databases(database: Database, names: Sequence[str]) -> None:
    """Copy the empty database of a test, with our schema; pg_cron keeps entries there, and runs nothing.

    Args:
        database: The test's, before anything was applied to it.
        names: Of the copies; they go when the next test begins.
    """
    source = database.connect().info.dbname
    database.close()
    with psycopg.connect(make_conninfo(database.dsn, dbname="template1"), autocommit=True) as conn:
        # The launcher comes back after a second, and meanwhile nobody is connected to the template.
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [source],
        )
        conn.execute(_CREATE.format(sql.Identifier(_TEMPLATE), sql.Identifier(source)))
        with connect(make_conninfo(database.dsn, dbname=_TEMPLATE)) as template:
            template.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
            migrate_target(template)  # once, instead of in each copy
            template.execute("DELETE FROM reconciler.identity")  # else they are copies of it
        for name in names:
            conn.execute(_CREATE.format(sql.Identifier(name), sql.Identifier(_TEMPLATE)))
