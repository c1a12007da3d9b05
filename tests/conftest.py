"""Fixtures for all tests: databases with pg_cron, and the command line as a subprocess."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from reconciler.database.migrate import apply_migrations
from tests.declared import Site
from tests.fork_server import ForkServer, run_plain
from tests.server_pool import ServerPool
from tests.servers import ALL_KINDS, GIVEN, LIBPQ_KINDS, Database, MissingServerError, ServerKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    import psycopg

    from reconciler.core.facts import Facts
    from reconciler.database.migrate import Migration
    from tests.served import Served

IS_GIVEN = bool(os.environ.get("RECONCILER_TEST_DSN"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known that this file gives a meaning; let no busy machine fail a property."""
    hypothesis.settings.register_profile("project", deadline=None)
    hypothesis.settings.load_profile("project")
    config.addinivalue_line(
        "markers", "migrates: about what the migrations do, so that all of them really run"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Try on the newest server alone what no version of pg_cron or PostgreSQL decides."""
    config.hook.pytest_deselected(items=[item for item in items if _is_tried_elsewhere(item)])
    items[:] = [item for item in items if not _is_tried_elsewhere(item)]


def _is_tried_elsewhere(item: pytest.Item) -> bool:
    if os.environ.get("RECONCILER_ALL_SERVERS") == "1":
        return False
    if item.get_closest_marker("one_server") is None or not isinstance(item, pytest.Function):
        return False
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("database") in LIBPQ_KINDS[:-1]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a registry not wait for pg_cron's launcher, each time that a test begins with an empty database."""
    monkeypatch.setattr("reconciler.runtime.registry._sleep", lambda _: None)


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerPool]:
    """The servers of this pytest process, removed at its end."""
    pool = ServerPool()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _kept_schema(
    request: pytest.FixtureRequest, servers: ServerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the first apply in this process bring back what the migrations made for an earlier test."""
    if request.node.get_closest_marker("migrates") is not None:
        return

    def bring_back(conn: psycopg.Connection[Any], facts: Facts) -> tuple[Migration, ...]:
        server = servers.find(conn)
        return (
            apply_migrations(conn, facts) if server is None else server.schema.apply_migrations(conn, facts)
        )

    monkeypatch.setattr("reconciler.database.apply.apply_migrations", bring_back)


def _clean_database(servers: ServerPool, kind: ServerKind) -> Iterator[Database]:
    try:
        server = servers.get(kind)
    except MissingServerError as error:
        if os.environ.get("RECONCILER_REQUIRE_DB") == "1":
            pytest.fail(f"RECONCILER_REQUIRE_DB=1, but {error}")
        pytest.skip(str(error))
    server.clean()
    database = Database(server)
    yield database
    database.close()


@pytest.fixture(params=[GIVEN] if IS_GIVEN else LIBPQ_KINDS, ids=lambda kind: str(kind.name))
def database(request: pytest.FixtureRequest, servers: ServerPool) -> Iterator[Database]:
    """An empty database with pg_cron, which runs jobs over connections; on both servers."""
    yield from _clean_database(servers, request.param)


@pytest.fixture(params=[GIVEN] if IS_GIVEN else ALL_KINDS, ids=lambda kind: str(kind.name))
def any_mode_database(request: pytest.FixtureRequest, servers: ServerPool) -> Iterator[Database]:
    """An empty database with pg_cron, on both servers in both ways of running jobs."""
    yield from _clean_database(servers, request.param)


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database, seen by its superuser."""
    return Site(database)


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A superuser's connection to the database of `site`, autocommit."""
    return site.database.connect()


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of the database of `site`."""
    from tests.served import serve

    with serve(site) as made:
        yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class CliResult:
    """What a finished command left."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs `python -m reconciler` in a folder of its own.

    Attributes:
        directory: Where it runs.
        start: How, as `run_plain` does it; in the acceptance tests by itself.
    """

    directory: Path
    start: Callable[..., CompletedProcess[str]]

    def __call__(
        self, *args: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 180
    ) -> CliResult:
        """Run one command to its end.

        Args:
            *args: The arguments.
            env: More environment; nothing of RECONCILER_* and PG* comes from outside.
            stdin: What it reads.
            timeout: Seconds that it may take.

        Returns:
            Its exit code and what it printed.
        """
        outside = {
            key: value for key, value in os.environ.items() if not key.startswith(("RECONCILER_", "PG"))
        }
        result = self.start(
            args, cwd=self.directory, env={**outside, **(env or {})}, stdin=stdin, timeout=timeout
        )
        return CliResult(exit_code=result.returncode, stdout=result.stdout, stderr=result.stderr)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What runs the command line of this pytest process without importing it anew for each call."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def cli(tmp_path: Path, request: pytest.FixtureRequest, fork_server: ForkServer) -> Cli:
    """The command line, run as its users run it."""
    is_accepted = request.path.parent.name == "acceptance"
    return Cli(tmp_path, run_plain if is_accepted else fork_server.run)


@pytest.fixture
def shell(cli: Cli, site: Site) -> Cli:
    """The command line in a folder whose default target is the database of `site`."""
    (cli.directory / "reconciler.yaml").write_text(f'owner: shop\ntargets:\n  test: {{dsn: "{site.dsn}"}}\n')
    return cli
