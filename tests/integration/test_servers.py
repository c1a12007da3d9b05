"""The test servers themselves: a test that fails here makes every other result doubtful."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from reconciler.runtime.installations import find_installations
from tests.installations import EXPECTED_PG_CRON, observe_pg_cron
from tests.servers import GIVEN, has_launcher, wait_until

if TYPE_CHECKING:
    from tests.servers import Database


def test_each_server_is_the_one_its_name_says(database: Database) -> None:
    """Each server has the versions of PostgreSQL and pg_cron that the tests rely on."""
    if database.server.kind == GIVEN:
        pytest.skip("the given server may have any version")
    assert database.server.major == database.server.kind.major
    assert database.server.pg_cron == EXPECTED_PG_CRON[database.server.major]
    assert observe_pg_cron(database.dsn) == database.server.pg_cron
    if database.server.major == 17:
        database.connect().execute("CREATE EXTENSION http")


def test_the_mode_is_the_one_its_name_says(any_mode_database: Database) -> None:
    """pg_cron runs jobs in background workers exactly where the fixture says so."""
    conn = any_mode_database.connect()
    assert has_launcher(conn)
    row = conn.execute("SHOW cron.use_background_workers").fetchone()
    assert row == ("on" if any_mode_database.server.background_workers else "off",)


def test_nothing_of_a_test_survives(database: Database) -> None:
    """Jobs, roles, schemas, databases and settings of one test are gone before the next."""
    conn = database.connect()
    conn.execute("SELECT cron.schedule('left', '0 0 1 1 *', 'SELECT 1')")
    conn.execute("CREATE SCHEMA reconciler CREATE TABLE t (a int)")
    conn.execute("CREATE TABLE public.t (a int)")
    conn.execute("CREATE ROLE alice LOGIN PASSWORD 'x' SUPERUSER")
    conn.execute("GRANT USAGE ON SCHEMA cron TO alice")
    conn.execute("CREATE DATABASE other OWNER alice")
    conn.execute("ALTER ROLE postgres SET work_mem = '1MB'")
    conn.execute("ALTER DATABASE app SET work_mem = '1MB'")
    database.server.reload(work_mem="2MB", cron__log_min_messages="info")
    database.connect("alice", autocommit=False).execute("LOCK TABLE cron.job_run_details")
    database.server.clean()
    fresh = database.connect()
    row = fresh.execute(
        "SELECT (SELECT count(*) FROM cron.job), to_regnamespace('reconciler'), to_regclass('public.t'),"
        " to_regrole('alice'), (SELECT count(*) FROM pg_database WHERE datname = 'other'),"
        " current_setting('work_mem'), current_setting('cron.log_min_messages')"
    ).fetchone()
    assert row == (0, None, None, None, 0, "4MB", "warning")


def test_another_role_connects_with_its_password(database: Database) -> None:
    """A role gets in over TCP with its password, and not with another."""
    database.connect().execute("CREATE ROLE bob LOGIN PASSWORD 'right'")
    with psycopg.connect(database.dsn_for("bob", "right")) as conn:
        assert conn.info.user == "bob"
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(database.dsn_for("bob", "wrong"))


def test_a_crash_is_survived(database: Database) -> None:
    """A server that was stopped at once starts again under the same connection string."""
    database.server.stop(immediate=True)
    with pytest.raises(psycopg.OperationalError):
        database.connect()
    database.server.start()
    assert database.connect().execute("SELECT 1").fetchone() == (1,)


def test_a_setting_of_the_server_counts_until_the_next_test(database: Database) -> None:
    """A setting that needs a restart is in force after it, and gone after the cleaning."""
    database.server.set_server_settings(cron__max_running_jobs="3")
    assert database.connect().execute("SHOW cron.max_running_jobs").fetchone() == ("3",)
    database.server.clean()
    assert database.connect().execute("SHOW cron.max_running_jobs").fetchone() != ("3",)


def test_pg_cron_runs_a_job(any_mode_database: Database) -> None:
    """pg_cron really runs jobs in each mode, also of a role that needs no password on the socket."""
    conn = any_mode_database.connect()
    conn.execute("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    alice = any_mode_database.connect("alice")
    alice.execute("SELECT cron.schedule('now', '@reboot', 'SELECT 1')")
    any_mode_database.server.restart()  # a job `@reboot` runs when the launcher starts
    conn = any_mode_database.connect()

    def has_run() -> bool:
        row = conn.execute("SELECT min(status) FROM cron.job_run_details").fetchone()
        return row == ("succeeded",)

    wait_until(has_run, seconds=10, what="the job has run")


def run_pytest(*args: str, **env: str) -> str:
    """Run tests in a pytest of its own and return what it prints."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *args]
    outside = {
        key: value for key, value in os.environ.items() if not key.startswith(("RECONCILER_", "PYTEST_"))
    }
    result = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**outside, **env},
    )
    return result.stdout


WITHOUT_SERVER = {"RECONCILER_CACHE": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent"}
ONE_TEST = "tests/integration/test_servers.py::test_another_role_connects_with_its_password"


@pytest.mark.skipif(
    any(one.major == 17 for one in find_installations()), reason="this machine has a PostgreSQL 17 of its own"
)
def test_a_missing_server_skips_or_fails() -> None:
    """Without a server its tests skip with the reason; where servers are required they fail."""
    pg17 = f"{ONE_TEST}[pg17-cron1.6]"
    skipped = run_pytest(pg17, **WITHOUT_SERVER)
    assert "1 skipped" in skipped
    assert "no container engine answers: run script/bootstrap --tests" in skipped
    assert "1 error" in run_pytest(pg17, **WITHOUT_SERVER, RECONCILER_REQUIRE_DB="1")


def test_a_given_server_is_the_only_one(database: Database) -> None:
    """With RECONCILER_TEST_DSN every test runs on that server alone, and its own roles stay."""
    database.connect().execute("CREATE ROLE theirs")
    output = run_pytest(ONE_TEST, RECONCILER_TEST_DSN=database.server.tcp_dsn)
    assert "1 passed" in output
    assert database.connect().execute("SELECT to_regrole('theirs')::text").fetchone() == ("theirs",)
