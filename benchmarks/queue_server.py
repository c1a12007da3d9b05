"""One disposable server for all contestants of the queue benchmarks, a fresh database for each round of each.

The server does not wait for its disk (fsync is off), so that only work is counted, and has room in memory. It
is the PostgreSQL 17 of `script/bootstrap --tests` where that was made, else the newest one of this machine.
Everybody connects over TCP.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg

from reconciler.core.config import Policy, Runtime, Target
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.launcher import remind_launcher
from reconciler.database.statements import Request
from reconciler.runtime.local import start_local_server, stop_local_server
from tests.installations import find_test_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec
    from reconciler.runtime.cluster import LocalServer

DIRECTORY = Path(".reconciler/bench-queues")
PEER_DATABASE = "peer"
SETTINGS: dict[str, LiteralString] = {
    "shared_buffers": "ALTER SYSTEM SET shared_buffers = '1GB'",
    "max_wal_size": "ALTER SYSTEM SET max_wal_size = '8GB'",
    "max_connections": "ALTER SYSTEM SET max_connections = 200",
}


@contextmanager
def queue_server(directory: Path = DIRECTORY) -> Iterator[LocalServer]:
    """Run the server as long as it is needed, and remove it afterwards."""
    stop_local_server(directory, purge=True)
    try:
        installation = find_test_installation(17)
        server = start_local_server(directory, installation=installation)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            for statement in SETTINGS.values():
                conn.execute(statement)
        stop_local_server(directory)
        yield start_local_server(directory)
    finally:
        stop_local_server(directory, purge=True)


def renew_schema(server: LocalServer, *specs: Spec) -> str:
    """Make our schema anew, with its runner's entries as everybody has them, as `reconciler apply` does.

    Args:
        server: Where.
        *specs: What to declare.

    Returns:
        The connection string.
    """
    with psycopg.connect(server.tcp_dsn, autocommit=True) as conn:
        conn.execute("DELETE FROM cron.job")
        conn.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
    target = Target(name="bench", policy=Policy(prune="never"), runtime=Runtime())
    with connect(server.tcp_dsn) as conn:
        request = Request(specs=specs, owner="bench", target=target)
        planned = plan_target(conn, request)
        apply_target(conn, request, expected=planned.fingerprints(), shown=planned)
        remind_launcher(conn, planned.observed.facts.rights, sleep=time.sleep)
    return server.tcp_dsn


def renew_database(server: LocalServer) -> str:
    """Make the database of a peer anew.

    Args:
        server: Where.

    Returns:
        The connection string.
    """
    with psycopg.connect(server.tcp_dsn, autocommit=True) as conn:
        # Ours must not work meanwhile, nor take room in memory.
        conn.execute("DELETE FROM cron.job")
        conn.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
        conn.execute(f"DROP DATABASE IF EXISTS {PEER_DATABASE} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {PEER_DATABASE}".encode())
    return server.tcp_dsn.rsplit("/", 1)[0] + f"/{PEER_DATABASE}"


def copy_schema(server: LocalServer) -> str:
    """Make a second database like the first: pg_cron runs nothing there, workers' functions are the same.

    Args:
        server: Where.

    Returns:
        The connection string.
    """
    with psycopg.connect(server.tcp_dsn.rsplit("/", 1)[0] + "/template1", autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {PEER_DATABASE} WITH (FORCE)".encode())
        # pg_cron's launcher keeps a connection, which a template must not have.
        conn.execute(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS false".encode())
        try:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [server.database]
            )
            conn.execute(f"CREATE DATABASE {PEER_DATABASE} TEMPLATE {server.database}".encode())
        finally:
            conn.execute(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS true".encode())
    return server.tcp_dsn.rsplit("/", 1)[0] + f"/{PEER_DATABASE}"
