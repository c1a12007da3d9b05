"""Locked execution when something goes wrong: with transactions, connections, rights, the log or the lock."""

# ruff: noqa: PT012 - what happens within the block is what is tested

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import ClientCursor, IsolationLevel, RawCursor
from psycopg.rows import dict_row

from reconciler.errors import ConnectError, DatabaseError, MigrationError, RightsError
from reconciler.runtime import (
    acquire_execution_lock,
    handle_cron_trigger,
    locked_execution,
    log_execution,
    notify_on_failure,
    release_execution_lock,
)
from tests.declared import Site, channel, job
from tests.pooler import run_pooler
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server

LOG: LiteralString = "SELECT status, error_message FROM reconciler.cron_execution_log ORDER BY id"
LOCKS: LiteralString = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
DONE: LiteralString = "SELECT n FROM done"
BREAK_LOG: LiteralString = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the log is full' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER refuse BEFORE {} ON reconciler.cron_execution_log
    FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    """A database with the job `declared` and a table; no lock is left in it after the test."""
    site = Site(database)
    site.apply(job("declared"))
    site.run("CREATE TABLE public.done (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    yield site
    # A backend whose connection was closed takes a moment to go.
    wait_until(lambda: site.rows(LOCKS) == [], seconds=5, what="no lock is left")


@pytest.fixture(params=[True, False], ids=["autocommit", "transactions"])
def conn(request: pytest.FixtureRequest, site: Site) -> Connection[Any]:
    """A connection in either mode."""
    return site.database.connect(autocommit=request.param)


def break_log(site: Site, event: str) -> None:
    """Let every INSERT or UPDATE of the log fail."""
    with site.database.server.connect() as conn:
        conn.execute(BREAK_LOG.format(event).encode())


def mend_log(site: Site) -> None:
    """Undo `break_log`."""
    site.run("DROP FUNCTION public.refuse() CASCADE")


def test_work_that_was_left_open_is_committed_with_success(site: Site, conn: Connection[Any]) -> None:
    """As `with conn` does, and before the run is ended."""
    with locked_execution(conn, "declared"):
        conn.execute("BEGIN" if conn.autocommit else "SELECT 1")
        conn.execute("INSERT INTO done VALUES (1)")
        assert site.rows(DONE) == []
    assert site.rows(DONE) == [(1,)]
    assert site.rows(LOG) == [("succeeded", None)]


def test_work_that_was_left_open_is_rolled_back_with_an_error(site: Site, conn: Connection[Any]) -> None:
    """A failed run has done nothing of what was still open; what was committed before stays."""
    with pytest.raises(ValueError, match="bad"), locked_execution(conn, "declared"):
        conn.execute("INSERT INTO done VALUES (1)")
        conn.commit()
        conn.execute("BEGIN" if conn.autocommit else "SELECT 1")
        conn.execute("INSERT INTO done VALUES (2)")
        raise ValueError("bad")
    assert site.rows(DONE) == [(1,)]
    assert site.rows(LOG) == [("failed", "ValueError: bad")]


def test_a_block_that_hides_a_failed_statement_has_failed(site: Site, conn: Connection[Any]) -> None:
    """Its transaction cannot be committed, so the run is no success, and the caller hears of it."""
    with pytest.raises(DatabaseError, match="the work is lost"), locked_execution(conn, "declared") as run:
        conn.execute("BEGIN" if conn.autocommit else "SELECT 1")
        conn.execute("INSERT INTO done VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1/0")
    assert run.status == "failed"
    assert site.rows(DONE) == []


def test_work_that_cannot_be_committed_has_failed(site: Site, conn: Connection[Any]) -> None:
    """What was deferred fails at the end, and the run with it."""
    with pytest.raises(psycopg.errors.UniqueViolation), locked_execution(conn, "declared") as run:
        conn.execute("BEGIN" if conn.autocommit else "SELECT 1")
        conn.execute("INSERT INTO done VALUES (1), (1)")
    assert run.status == "failed"
    assert site.rows(DONE) == []


def test_the_log_does_not_care_for_the_defaults_of_the_session(site: Site) -> None:
    """Read-only and serializable connections run; the block has the transactions that it asked for."""
    conn = site.database.connect(autocommit=False)
    conn.read_only = True
    conn.isolation_level = IsolationLevel.SERIALIZABLE
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), locked_execution(conn, "declared"):
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
        conn.execute("INSERT INTO done VALUES (1)")
    auto = site.database.connect()
    auto.execute("SET default_transaction_read_only = on")
    with locked_execution(auto, "declared"):
        pass
    assert [status for status, _ in site.rows(LOG)] == ["failed", "succeeded"]


@pytest.mark.parametrize("kind", ["statement", "transaction", "failed", "pipeline"])
def test_an_open_transaction_is_refused(site: Site, conn: Connection[Any], kind: str) -> None:
    """Nothing is started where the caller could roll the log back."""
    with conn.cursor() as cursor:
        if kind == "pipeline":
            with conn.pipeline(), pytest.raises(DatabaseError, match="is in pipeline mode"):
                acquire_execution_lock(conn, "declared")
            return
        cursor.execute("BEGIN" if conn.autocommit else "SELECT 1")
        if kind == "failed":
            with pytest.raises(psycopg.errors.DivisionByZero):
                cursor.execute("SELECT 1/0")
        if kind == "transaction":
            conn.rollback()
            with conn.transaction(), pytest.raises(DatabaseError) as caught:
                acquire_execution_lock(conn, "declared")
        else:
            with pytest.raises(DatabaseError) as caught:
                acquire_execution_lock(conn, "declared")
        assert "has an open transaction" in caught.value.message
        assert "commit or roll back first" in caught.value.remedy
    conn.rollback()
    assert site.rows(LOG) == []


def test_a_closed_connection_is_refused(conn: Connection[Any]) -> None:
    """With an error of ours."""
    conn.close()
    with pytest.raises(ConnectError, match="the connection is closed"):
        acquire_execution_lock(conn, "declared")


@pytest.mark.parametrize("name", ["declared", "my.own"])
def test_a_run_whose_backend_was_killed_is_lost(site: Site, conn: Connection[Any], name: str) -> None:
    """The caller gets the error of its own statement; the next start finds the run lost."""
    pid = conn.info.backend_pid
    with pytest.raises(psycopg.errors.AdminShutdown) as caught, locked_execution(conn, name) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", pid)
        conn.execute("SELECT 1")
    assert (
        f"the end of run {run.run_id} of {name} was not logged: the connection is closed"
        in caught.value.__notes__[0]
    )
    assert run.status == "running"
    assert site.rows(LOG) == [("running", None)]
    with locked_execution(site.database.connect(), name) as again:
        assert again
    assert site.rows(LOG)[1:] == [("succeeded", None)]
    assert site.rows(LOG)[0] == ("lost", f"backend {pid} went away without ending the run")


def test_who_hides_the_loss_of_the_connection_hears_of_it(site: Site, conn: Connection[Any]) -> None:
    """A clean end needs a row that says so."""
    with (
        pytest.raises(ConnectError, match="was lost"),
        locked_execution(conn, "declared"),
        socket.socket(fileno=os.dup(conn.fileno())) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)
    other = site.database.connect()
    # The server may not have noticed yet that the first one is gone, and with it its lock.
    with pytest.raises(ConnectError, match="lost or closed"), locked_execution(other, "declared", wait=True):
        other.close()


def test_a_connection_that_is_still_at_work_is_closed(site: Site, conn: Connection[Any]) -> None:
    """Neither the end nor the unlock can be sent, so the lock goes with the session."""
    with pytest.raises(DatabaseError, match="still at work"), locked_execution(conn, "declared"):
        conn.pgconn.send_query(b"SELECT pg_sleep(0.3)")
    assert conn.closed
    with locked_execution(site.database.connect(), "declared", wait=True) as run:
        assert run
    assert [status for status, _ in site.rows(LOG)] == ["lost", "succeeded"]


@pytest.mark.parametrize("name", ["declared", "my.own"])
@pytest.mark.parametrize("wait", [True, False])
def test_a_start_that_cannot_be_logged_leaves_no_lock(
    site: Site, conn: Connection[Any], name: str, *, wait: bool
) -> None:
    """The lock of a session outlives a rollback, so it has to be dropped."""
    break_log(site, "INSERT")
    with pytest.raises(DatabaseError) as caught:
        acquire_execution_lock(conn, name, wait=wait)
    assert caught.value.message == f"the run of {name} was not started: the log is full"
    assert site.rows(LOCKS) == []
    mend_log(site)
    with locked_execution(conn, name) as run:
        assert run


def test_a_start_that_fails_within_a_run_leaves_the_lock_of_that(site: Site, conn: Connection[Any]) -> None:
    """The session has the lock for the run around it."""
    with locked_execution(conn, "declared"):
        break_log(site, "INSERT")
        with pytest.raises(DatabaseError):
            acquire_execution_lock(conn, "declared")
        mend_log(site)
        assert site.rows(LOCKS) == [(conn.info.backend_pid,)]


def test_an_end_that_cannot_be_logged_releases_the_lock(site: Site, conn: Connection[Any]) -> None:
    """The caller hears of it, after a clean end as an error of its own."""
    message = "the end of run 1 of declared was not logged: the log is full"
    with pytest.raises(DatabaseError, match=message), locked_execution(conn, "declared"):
        break_log(site, "UPDATE")
    assert site.rows(LOCKS) == []
    mend_log(site)
    with locked_execution(site.database.connect(), "declared"):
        pass
    assert [status for status, _ in site.rows(LOG)] == ["lost", "succeeded"]


def test_an_end_that_cannot_be_logged_does_not_hide_the_error(site: Site, conn: Connection[Any]) -> None:
    """The error that left the block comes out, with a note."""
    with pytest.raises(ValueError, match="bad") as caught, locked_execution(conn, "declared") as run:
        break_log(site, "UPDATE")
        raise ValueError("bad")
    assert caught.value.__notes__ == [
        f"Besides: the end of run {run.run_id} of declared was not logged: the log is full"
    ]
    assert site.rows(LOCKS) == []


def test_a_run_that_somebody_ended_is_not_ended_again(site: Site, conn: Connection[Any]) -> None:
    """A block that did not hear that its run was over is told so."""
    with pytest.raises(DatabaseError, match="is not running"), locked_execution(conn, "declared"):
        site.run("UPDATE reconciler.cron_execution_log SET status = 'timed_out', completed_at = now()")
    assert [status for status, _ in site.rows(LOG)] == ["timed_out"]


@pytest.mark.parametrize("stay", [0, 2], ids=["at once", "with the start"])
def test_a_pooler_in_transaction_mode_is_refused(site: Site, stay: int) -> None:
    """Two transactions come to two backends; no lock is left in either, and nothing in the log."""
    if not site.dsn.startswith("host=/"):
        pytest.skip("the pooler of this test needs a server without passwords")
    for wait in (False, True):
        with run_pooler(site.dsn, stay=stay) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
            with pytest.raises(DatabaseError) as caught:
                acquire_execution_lock(conn, "declared", wait=wait)
            assert "a pooler in transaction mode" in caught.value.message
            assert "port 5432" in caught.value.remedy
            assert site.rows(LOCKS) == []
    assert site.rows(LOG) == []


def test_a_lock_that_another_backend_has_is_reported(site: Site) -> None:
    """Where a pooler changes the backend later, the run is logged and the caller hears of the lock."""
    if not site.dsn.startswith("host=/"):
        pytest.skip("the pooler of this test needs a server without passwords")
    with run_pooler(site.dsn, stay=4) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        with pytest.raises(DatabaseError, match="transaction mode"), locked_execution(conn, "declared"):
            pass
        assert site.rows(LOCKS) == [(conn.info.backend_pid,)]
    assert site.rows(LOG) == [("succeeded", None)]


def test_names_that_nobody_declared_take_a_right(site: Site) -> None:
    """The error names the role and the GRANT, which helps, with and without the right to read definitions."""
    site.run("CREATE ROLE bob LOGIN")
    conn = site.database.connect("bob")
    for grant in ("SELECT 1", "GRANT SELECT ON reconciler.definitions TO bob"):
        site.run(grant)
        with pytest.raises(RightsError) as caught:
            acquire_execution_lock(conn, "my.own")
        assert "no job my.own is declared" in caught.value.message
        assert "the role bob may not run what nobody declared" in caught.value.message
    site.run("".join(caught.value.remedy.partition("GRANT")[1:]))
    for revoke in ("SELECT 1", "REVOKE SELECT ON reconciler.definitions FROM bob"):
        site.run(revoke)
        with locked_execution(conn, "my.own", wait=True) as run:
            assert run
    assert site.rows("SELECT status, role FROM reconciler.cron_execution_log") == [("succeeded", "bob")] * 2


def test_a_job_is_run_by_its_role_alone(site: Site) -> None:
    """The role needs no other right; another role gets an error with the reason."""
    site.run("CREATE ROLE bob LOGIN; CREATE ROLE eve LOGIN; GRANT USAGE ON SCHEMA cron TO bob, eve")
    site.apply(job("declared"), job("of-bob", role="bob"))
    with locked_execution(site.database.connect("bob"), "of-bob") as run:
        assert run
    with pytest.raises(RightsError, match="the role eve may not run the job of-bob"):
        acquire_execution_lock(site.database.connect("eve"), "of-bob")


def test_a_direct_job_is_refused(site: Site, conn: Connection[Any]) -> None:
    """pg_cron runs it as it is: it has no lock and no log."""
    site.apply(job("direct", mode="direct"))
    with pytest.raises(DatabaseError, match="handed to pg_cron as it is"):
        acquire_execution_lock(conn, "direct")


def test_a_target_without_the_schema_is_refused(database: Database) -> None:
    """With what to do."""
    with pytest.raises(MigrationError, match="is not there yet") as caught:
        acquire_execution_lock(database.connect(), "declared")
    assert caught.value.remedy == "run reconciler apply"
    database.connect().execute("CREATE SCHEMA reconciler")
    with pytest.raises(MigrationError, match="is of an earlier release"):
        acquire_execution_lock(database.connect(autocommit=False), "declared")


@pytest.mark.parametrize("factory", [ClientCursor, RawCursor])
def test_the_connection_may_have_its_own_factories(site: Site, conn: Connection[Any], factory: Any) -> None:
    """Rows as dicts and other kinds of cursor are the block's own affair."""
    conn.row_factory = dict_row
    conn.cursor_factory = factory
    with locked_execution(conn, "declared", wait=True):
        assert conn.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    assert site.rows(LOG) == [("succeeded", None)]


def test_the_steps_can_be_taken_one_by_one(site: Site, conn: Connection[Any]) -> None:
    """Acquire, log, release; what was skipped is logged and released without effect."""
    run = acquire_execution_lock(conn, "declared")
    skipped = acquire_execution_lock(site.database.connect(), "declared")
    assert not skipped
    assert log_execution(conn, skipped, "failed") == "skipped"
    release_execution_lock(conn, skipped)
    assert site.rows(LOCKS) == [(conn.info.backend_pid,)]
    assert log_execution(conn, run, "failed", "the feed was empty") == "failed"
    with pytest.raises(DatabaseError, match="is not running"):
        log_execution(conn, run, "succeeded")
    assert site.rows(LOCKS) == [(conn.info.backend_pid,)]
    release_execution_lock(conn, run)
    release_execution_lock(conn, run)
    assert site.rows(LOCKS) == []
    assert site.rows(LOG)[0] == ("failed", "the feed was empty")


def test_a_failure_without_a_reason_says_so(site: Site, conn: Connection[Any]) -> None:
    """A failed row is never without a message, and the caller's word on the outcome counts."""
    for outcome, error in (("failed", None), ("cancelled", ValueError("late"))):
        run = acquire_execution_lock(conn, "declared")
        log_execution(conn, run, outcome, error)  # type: ignore[arg-type] # the table is written as texts
        release_execution_lock(conn, run)
    assert site.rows(LOG) == [("failed", "no reason was given"), ("cancelled", "ValueError: late")]


def test_a_failure_outside_of_a_run_alerts(site: Site, conn: Connection[Any]) -> None:
    """The job's channels are told once; a name that nobody declared is listed, and closed."""
    site.apply(channel("ops"), job("loud", alert={"channels": ["ops"]}))
    for _ in range(2):
        notify_on_failure(conn, "loud", ValueError("no feed"))
    notify_on_failure(conn, "my.own", "gone")
    assert site.rows(
        "SELECT job_name, kind, message, occurrences, resolved_at IS NULL, channels"
        " FROM reconciler.alerts ORDER BY id"
    ) == [
        ("loud", "failed", "loud failed: ValueError: no feed", 2, True, ["ops"]),
        ("my.own", "failed", "my.own failed: gone", 1, False, []),
    ]
    assert site.rows("SELECT channel FROM reconciler.alert_deliveries") == [("ops",)]
    site.run("CREATE ROLE bob LOGIN")
    with pytest.raises(RightsError):
        notify_on_failure(site.database.connect("bob"), "loud", "gone")


def test_a_handler_is_a_run(site: Site, conn: Connection[Any]) -> None:
    """Its result comes back; None when it was skipped, as a pause wants for what a cron fires."""
    assert handle_cron_trigger(conn, "declared", lambda: 42) == 42
    assert site.rows("SELECT trigger FROM reconciler.cron_execution_log") == [("schedule",)]
    site.run("SELECT reconciler.pause_job('declared')")
    assert handle_cron_trigger(conn, "declared", lambda: 42) is None
    assert handle_cron_trigger(conn, "declared", lambda: 42, trigger="manual") == 42
