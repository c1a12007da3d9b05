"""A PostgreSQL server of the tests and its database, emptied before each test."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.runtime.local import find_local_server, start_local_server
from tests.kept_schema import SchemaKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

    from tests.container import Container

SESSION_SETTINGS: LiteralString = """
    SELECT array(SELECT (s.*)::text FROM pg_db_role_setting s ORDER BY 1),
           (SELECT (a.*)::text FROM pg_authid a WHERE rolname = session_user)
"""
"""What a new session begins with, but for the server's own settings, which every session reads again."""

CLEAN = (Path(__file__).parent / "postgres" / "clean.sql").read_bytes()


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
    schema: SchemaKeeper = field(default_factory=SchemaKeeper)
    _admin: Connection | None = None
    _cron_table: int = 0

    @cached_property
    def places(self) -> frozenset[tuple[str, int, str]]:
        """Return host, port and database of the connection strings."""
        parts = [conninfo_to_dict(dsn) for dsn in (self.dsn, self.tcp_dsn)]
        return frozenset(
            (str(one.get("host", "")), int(one.get("port") or 5432), str(one.get("dbname", "")))
            for one in parts
        )

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
        if immediate:  # what tests before wrote would else be done again at the start
            with contextlib.suppress(psycopg.OperationalError), self.connect() as conn:
                conn.execute("CHECKPOINT")
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

        wait_until(is_loaded, seconds=30, what="the server loads its settings")

    def set_server_settings(self, **settings: str) -> None:
        """Change settings that count from a restart, and restart; back to normal before the next test."""
        self.needs_restart = True
        with self.connect() as conn:
            self._alter_system(conn, settings)
        self.restart()

    def read_log(self, lines: int = 40) -> str:
        """Return the end of the server's log, empty for a server that is not ours."""
        local = None if self.folder is None else find_local_server(self.folder)
        if local is None:
            return ""
        path = local.account.outside(local.log_file)
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def clean(self) -> None:
        """Make the server as good as new: no jobs, roles, schemas, databases or settings of a test."""
        conn = self._administer()
        self._drop_databases_and_settings(conn)
        if self.needs_restart:
            self.restart()
            self.needs_restart = False
            conn = self._administer()
        self._clean_database(conn)

    def close(self) -> None:
        """Close what the server's own work goes over."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _administer(self) -> Connection:
        """Return the session that cleans after each test: a new one would have to read all catalogs first."""
        if self._admin is not None:
            with contextlib.suppress(psycopg.OperationalError):
                self._admin.execute("SELECT 1")
                return self._admin
            self.close()
        if self.folder is not None:
            start_local_server(self.folder)  # a test may have stopped it
        self._admin = psycopg.connect(
            self.dsn,
            autocommit=True,
            connect_timeout=10,
            application_name="reconciler tests",
            options="-c client_min_messages=error",
        )
        return self._admin

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

    def _clean_database(self, conn: Connection) -> None:
        names = ("roles", "schemas", "extensions")
        conn.execute(
            "SELECT set_config('clean.' || name, value, false)"
            " FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
            [[*names, "kept"], [*(",".join(self.kept[name]) for name in names), str(self.schema.oid)]],
        )
        conn.execute(CLEAN)
        self.schema.clean(conn)
        self._wake_launcher(conn)
        wait_until(lambda: has_launcher(conn), seconds=60, what="pg_cron's launcher comes back")

    def _wake_launcher(self, conn: Connection) -> None:
        """Let pg_cron's launcher look for its table anew where a test has dropped it with the extension.

        Up to 1.6.7 the launcher may miss that it is another table, as it may miss any change among thousands
        within its second. It then waits for changes of the old one, for ever: none of the new one's reminds
        it, only new settings do, at which it fails and starts again.
        """
        row = conn.execute("SELECT 'cron.job'::regclass::oid::bigint").fetchone()
        assert row is not None
        table, self._cron_table = self._cron_table, row[0]
        if table in (0, self._cron_table):
            return
        query: LiteralString = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
        before = conn.execute(query).fetchall()
        # One that is ended starts again since 1.6.1; an earlier one does so if it fails, and it may not.
        is_ended = self.pg_cron >= (1, 6, 1)
        if is_ended:
            conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::integer[]) AS pid",
                [[pid for (pid,) in before]],
            )
        else:
            conn.execute("SELECT pg_reload_conf()")
        give_up_at = time.monotonic() + (10 if is_ended else 3)
        while conn.execute(query).fetchall() in ([], before) and time.monotonic() < give_up_at:
            time.sleep(0.02)

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
    _idle: list[tuple[Connection, object]] = field(default_factory=list)

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

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """Lend a superuser's session, kept from one statement to the next: to start one takes much longer.

        Yields:
            The connection, autocommit. What it set, locked or made for itself is gone afterwards.
        """
        conn, settings = self._take_idle() or self._start_session()
        try:
            yield conn
            conn.commit()
            conn.execute("DISCARD ALL")
        except BaseException:
            conn.close()
            raise
        self._idle.append((conn, settings))

    def _start_session(self) -> tuple[Connection, object]:
        conn = psycopg.connect(self.dsn, autocommit=True, connect_timeout=10, prepare_threshold=None)
        return conn, conn.execute(SESSION_SETTINGS).fetchone()

    def _take_idle(self) -> tuple[Connection, object] | None:
        """Take a session that lives, and that would begin with the same settings now."""
        while self._idle:
            conn, settings = self._idle.pop()
            with contextlib.suppress(psycopg.Error):
                if conn.execute(SESSION_SETTINGS).fetchone() == settings:
                    return conn, settings
            conn.close()
        return None

    def close(self) -> None:
        """Close every connection that the test opened."""
        for conn in [*self.connections, *(conn for conn, _ in self._idle)]:
            conn.close()
        self.connections.clear()
        self._idle.clear()


def wait_until(
    condition: Callable[[], bool], *, seconds: float, what: str, tell: Callable[[], str] | None = None
) -> None:
    """Look again and again until a condition holds; fail the test when the time is over.

    Where each look takes long, the machine is busy with something else, and the time is longer too.

    Args:
        condition: What is to hold.
        seconds: How long to wait on a machine that is not busy.
        what: The condition in words.
        tell: What there is to see where it does not hold in time.
    """
    give_up_at = time.monotonic() + seconds
    looks = 0
    while not condition():
        looks += 1
        if time.monotonic() > give_up_at and looks > seconds * 40:
            seen = "" if tell is None else f":\n{tell()}"
            pytest.fail(f"after {seconds} s still waiting until {what}{seen}")
        time.sleep(0.02)


def has_launcher(conn: Connection) -> bool:
    """Tell whether pg_cron's launcher is up."""
    query: LiteralString = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    return conn.execute(query).rowcount == 1
