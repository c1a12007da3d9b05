"""The test servers of one pytest process: made lazily, removed at its end.

Order: the server of RECONCILER_TEST_DSN alone, where that is set (it must be disposable); else private
clusters from this machine's PostgreSQL 15 and from the PostgreSQL 17 of a Debian 13 root directory
(`script/bootstrap --tests` makes it); else, for PostgreSQL 17, a container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psycopg

from reconciler.errors import LocalServerError
from reconciler.runtime.local import start_local_server, stop_local_server
from tests.installations import find_test_installation, observe_pg_cron, read_pg_cron_package
from tests.servers import GIVEN, MissingServerError, Server, ServerKind

if TYPE_CHECKING:
    from psycopg import Connection

    from reconciler.runtime.installations import Installation

FOLDER_PREFIX = "reconciler-tests-"


class ServerPool:
    """The servers of one pytest process; each starts when a test first wants it."""

    def __init__(self) -> None:
        self._servers: dict[ServerKind, Server | MissingServerError] = {}
        self._folder: Path | None = None
        self._lock: IO[bytes] | None = None

    def get(self, kind: ServerKind) -> Server:
        """Return the server of a kind, starting it the first time.

        Raises:
            MissingServerError: It cannot be had here.
        """
        if kind not in self._servers:
            try:
                self._servers[kind] = self._make(kind)
            except MissingServerError as error:
                self._servers[kind] = error
        server = self._servers[kind]
        if isinstance(server, MissingServerError):
            raise server
        return server

    def find(self, conn: Connection[Any]) -> Server | None:
        """Find the server that a connection leads to, to the database with pg_cron; None for any other."""
        place = (conn.info.host, conn.info.port, conn.info.dbname)
        for server in self._servers.values():
            if isinstance(server, Server) and place in server.places:
                return server
        return None

    def close(self) -> None:
        """Stop and remove every server, also one whose start was interrupted."""
        for server in self._servers.values():
            if isinstance(server, Server):
                server.close()
                if server.container is not None:
                    server.container.stop()
        self._servers.clear()
        if self._folder is not None:
            remove_servers(self._folder)
        if self._lock is not None:
            self._lock.close()

    def _make(self, kind: ServerKind) -> Server:
        if kind == GIVEN:
            server = _given_server(os.environ["RECONCILER_TEST_DSN"])
        else:
            installation = find_test_installation(kind.major)
            if installation is not None:
                server = self._private_server(kind, installation)
            elif kind.major == 17:
                server = _container_server(kind)
            else:
                raise MissingServerError(
                    f"no PostgreSQL {kind.major} with pg_cron here: run script/bootstrap"
                )
        server.remember()
        return server

    def _private_server(self, kind: ServerKind, installation: Installation) -> Server:
        if self._folder is None:
            remove_leftovers()
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
            self._folder.chmod(0o711)  # as root, the server's own user has to get in
            self._lock = (self._folder / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # as long as this process lives
        folder = self._folder / kind.name
        try:
            local = start_local_server(
                folder, installation=installation, background_workers=kind.background_workers
            )
        except LocalServerError as error:
            raise MissingServerError(str(error)) from error
        return Server(
            kind=kind,
            dsn=local.dsn,
            tcp_dsn=local.tcp_dsn,
            pg_cron=read_pg_cron_package(installation) or observe_pg_cron(local.dsn),
            background_workers=kind.background_workers,
            folder=folder,
        )


def remove_leftovers() -> None:
    """Stop and remove the servers of test runs that were killed: their folders are no longer locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_servers(folder)


def remove_servers(folder: Path) -> None:
    """Stop and remove the servers of one test run."""
    for state in folder.glob("*/state.json"):
        with contextlib.suppress(LocalServerError):
            stop_local_server(state.parent, purge=True)
    shutil.rmtree(folder, ignore_errors=True)


def _given_server(dsn: str) -> Server:
    try:
        with psycopg.connect(dsn) as conn:
            row = conn.execute(
                "SELECT setting FROM pg_settings WHERE name = 'cron.use_background_workers'"
            ).fetchone()
            conn.execute("CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog")
    except psycopg.Error as error:
        raise MissingServerError(f"the server of RECONCILER_TEST_DSN cannot be used: {error}") from error
    return Server(
        kind=GIVEN,
        dsn=dsn,
        tcp_dsn=dsn,
        pg_cron=observe_pg_cron(dsn),
        background_workers=row == ("on",),
    )


def _container_server(kind: ServerKind) -> Server:
    from tests.container import start_container

    container = start_container(background_workers=kind.background_workers)
    return Server(
        kind=kind,
        dsn=container.dsn,
        tcp_dsn=container.dsn,
        pg_cron=observe_pg_cron(container.dsn),
        background_workers=kind.background_workers,
        container=container,
    )
