"""The PostgreSQL servers of the tests: made lazily, emptied before each test, removed at the end.

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
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.errors import LocalServerError
from reconciler.runtime.local import find_local_server, start_local_server, stop_local_server
from tests.installations import find_test_installation, observe_pg_cron, read_pg_cron_package

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from reconciler.runtime.installations import Installation
    from tests.container import Container

CLEAN_FILE = Path(__file__).parent / "postgres" / "clean.sql"
FOLDER_PREFIX = "reconciler-tests-"


class MissingServerError(Exception):
    """A server that the tests want cannot be had here; the message says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """Which server a test wants.

    Attributes:
        name: The id that pytest shows.
        major: The major version of PostgreSQL; 0 for whatever RECONCILER_TEST_DSN has.
        background_workers: How pg_cron runs jobs there.
    """

    name: str
    major: int
    background_workers: bool = False


GIVEN = ServerKind(name="given", major=0)
LIBPQ_KINDS = (ServerKind(name="pg15-cron1.4", major=15), ServerKind(name="pg17-cron1.6", major=17))
ALL_KINDS = (
    *LIBPQ_KINDS,
    ServerKind(name="pg15-cron1.4-workers", major=15, background_workers=True),
    ServerKind(name="pg17-cron1.6-workers", major=17, background_workers=True),
)


@dataclass(kw_only=True)
class Server:
    """A running server with pg_cron.

    Attributes:
        kind: What the tests asked for.
        dsn: The superuser's connection string, to the database with pg_cron.
        tcp_dsn: The same with a password, over TCP.
        pg_cron: The version of pg_cron's program, which its extension version does not tell.
        background_workers: How pg_cron runs jobs.
    """

    kind: ServerKind
    dsn: str
    tcp_dsn: str
    pg_cron: tuple[int, int, int]
    background_workers: bool
    folder: Path | None = None
    container: Container | None = None
    needs_restart: bool = False
    kept: dict[str, list[str]] = field(default_factory=dict)

    @property
    def major(self) -> int:
        """Return the major version of PostgreSQL."""
        with self.connect() as conn:
            return conn.info.server_version // 10000

    def connect(self) -> Connection:
        """Connect as superuser, autocommit; the caller closes it."""
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=10)

    def dsn_for(self, user: str, password: str | None = None, database: str | None = None) -> str:
        """Return a connection string: over TCP with a password, over the private socket without one."""
        base = self.dsn if password is None else self.tcp_dsn
        changes: dict[str, str] = {"user": user}
        if password is not None:
            changes["password"] = password
        if database is not None:
            changes["dbname"] = database
        return make_conninfo(base, **changes)

    def start(self) -> None:
        """Start the server after `stop`; the connection strings stay."""
        start_local_server(self._private_folder())

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, with `immediate` as a crash would."""
        from reconciler.runtime.cluster import stop_cluster

        server = find_local_server(self._private_folder())
        assert server is not None
        stop_cluster(server, immediate=immediate)

    def restart(self) -> None:
        """Stop the server in an orderly way and start it."""
        self.stop()
        self.start()

    def reload(self, **settings: str) -> None:
        """Change settings that count at once; back to normal before the next test.

        Args:
            **settings: Name (`__` for the dot in `cron.timezone`) and value.
        """
        with self.connect() as conn:
            self._alter_system(conn, settings)
            before = conn.execute("SELECT pg_conf_load_time(), pg_reload_conf()").fetchone()
        assert before is not None

        def is_loaded() -> bool:
            with self.connect() as fresh:
                row = fresh.execute("SELECT pg_conf_load_time() > %s", [before[0]]).fetchone()
            return row == (True,)

        wait_until(is_loaded, seconds=5, what="the server loads its settings")

    def set_server_settings(self, **settings: str) -> None:
        """Change settings that count from a restart, and restart; back to normal before the next test."""
        self.needs_restart = True
        with self.connect() as conn:
            self._alter_system(conn, settings)
        self.restart()

    def clean(self) -> None:
        """Make the server as good as new: no jobs, roles, schemas, databases or settings of a test."""
        if self.folder is not None:
            start_local_server(self.folder)  # a test may have stopped it
        with self.connect() as conn:
            self._drop_databases_and_settings(conn)
        if self.needs_restart:
            self.restart()
            self.needs_restart = False
        with self.connect() as conn:
            names = (self.kept["roles"], self.kept["schemas"], self.kept["extensions"])
            for setting, value in zip(("roles", "schemas", "extensions"), names, strict=True):
                conn.execute("SELECT set_config(%s, %s, false)", [f"clean.{setting}", ",".join(value)])
            conn.execute(CLEAN_FILE.read_bytes())
            wait_until(lambda: has_launcher(conn), seconds=15, what="pg_cron's launcher comes back")

    def remember(self) -> None:
        """Note what is there before the first test, and so is not a test's to lose."""
        queries: dict[str, LiteralString] = {
            "roles": "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'",
            "databases": "SELECT datname FROM pg_database",
            "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'reconciler'",
            "extensions": "SELECT extname FROM pg_extension",
        }
        with self.connect() as conn:
            for name, query in queries.items():
                self.kept[name] = [row[0] for row in conn.execute(query)]

    def _drop_databases_and_settings(self, conn: Connection) -> None:
        row = conn.execute(
            "SELECT array(SELECT datname::text FROM pg_database WHERE datname <> ALL (%s)),"
            " (SELECT count(*) FROM pg_file_settings WHERE sourcefile ~ 'postgresql.auto.conf$')",
            [self.kept["databases"]],
        ).fetchone()
        assert row is not None
        databases, changed = row
        for name in databases:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        if changed:
            conn.execute("ALTER SYSTEM RESET ALL")
            self.reload()

    @staticmethod
    def _alter_system(conn: Connection, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            setting = sql.SQL(".").join(sql.Identifier(part) for part in name.split("__"))
            conn.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, sql.Literal(value)))

    def _private_folder(self) -> Path:
        if self.folder is None:
            pytest.skip("only a private server can be stopped and started")
        return self.folder


@dataclass
class Database:
    """One test's database: emptied, with the extension pg_cron in it."""

    server: Server
    connections: list[Connection] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        """Return the superuser's connection string."""
        return self.server.dsn

    def dsn_for(self, user: str, password: str | None = None, database: str | None = None) -> str:
        """Return the connection string of another role, with a password over TCP."""
        return self.server.dsn_for(user, password, database)

    def connect(
        self, user: str | None = None, *, database: str | None = None, autocommit: bool = True
    ) -> Connection:
        """Connect as superuser or as another role; closed when the test is over."""
        dsn = make_conninfo(
            self.dsn, **{key: value for key, value in {"user": user, "dbname": database}.items() if value}
        )
        conn = psycopg.connect(dsn, autocommit=autocommit, connect_timeout=10)
        self.connections.append(conn)
        return conn

    def close(self) -> None:
        """Close every connection that the test opened."""
        for conn in self.connections:
            conn.close()
        self.connections.clear()


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

    def close(self) -> None:
        """Stop and remove every server, also one whose start was interrupted."""
        for server in self._servers.values():
            if isinstance(server, Server) and server.container is not None:
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


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Look again and again until a condition holds; fail the test when the time is over."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            pytest.fail(f"after {seconds} s still waiting until {what}")
        time.sleep(0.02)


def has_launcher(conn: Connection) -> bool:
    """Tell whether pg_cron's launcher is up."""
    query: LiteralString = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    return conn.execute(query).rowcount == 1


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
