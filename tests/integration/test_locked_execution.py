"""People's own Python as runs of a job: under its lock, in its log, whatever happens in the block."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.runtime import acquire_execution_lock, locked_execution, release_execution_lock
from tests.declared import Site, channel, job
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server

LOG: LiteralString = (
    "SELECT status, error_sqlstate, error_message FROM reconciler.cron_execution_log ORDER BY id"
)
LOCKS: LiteralString = (
    "SELECT pid, mode FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
NAMES = ("declared", "my.own")


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


def pid_of(conn: Connection[Any]) -> int:
    """Return the backend of a connection."""
    return conn.info.backend_pid


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do something in another thread meanwhile, which has to end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", NAMES)
def test_a_block_is_a_run(site: Site, conn: Connection[Any], name: str) -> None:
    """Its row says running for all to see while it goes on, under one lock, and then how it ended."""
    with locked_execution(conn, name) as run:
        assert run
        assert site.rows(LOG) == [("running", None, None)]
        assert site.rows(LOCKS) == [(pid_of(conn), "ExclusiveLock")]
        conn.execute("INSERT INTO done VALUES (1)")
        run.rows_affected = 7
    assert run.status == "succeeded"
    assert site.rows(
        "SELECT id, job_name, trigger, rows_affected, backend_pid, status FROM reconciler.cron_execution_log"
    ) == [(run.run_id, name, "manual", 7, pid_of(conn), "succeeded")]
    assert site.rows(LOCKS) == []
    assert site.rows("SELECT n FROM done") == [(1,)]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_skipped_while_another_goes_on(site: Site, conn: Connection[Any], name: str) -> None:
    """The second run is false, and its row names the backend of the first."""
    other = site.database.connect()
    with locked_execution(other, name) as first:
        with locked_execution(conn, name) as run:
            assert not run
            assert run.reason == f"already running in backend {pid_of(other)}"
            conn.execute("INSERT INTO done VALUES (1)")
            conn.commit()
        assert (run.status, run.run_id) == ("skipped", None)
        assert site.rows(LOCKS) == [(pid_of(other), "ExclusiveLock")]
    assert first.status == "succeeded"
    assert site.rows(LOG) == [
        ("succeeded", None, None),
        ("skipped", None, f"already running in backend {pid_of(other)}"),
    ]


def test_python_and_sql_share_the_lock(site: Site, conn: Connection[Any]) -> None:
    """While Python runs a declared job, run_job skips it."""
    with locked_execution(conn, "declared"):
        site.run("CALL reconciler.run_job('declared')")
    assert [status for status, *_ in site.rows(LOG)] == ["succeeded", "skipped"]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_logged_and_comes_out(site: Site, conn: Connection[Any], name: str) -> None:
    """The row has class, message and traceback; the caller gets the very error; the next run can start."""
    error = LookupError("no such order")
    with pytest.raises(LookupError) as caught, locked_execution(conn, name) as run:
        raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert run.status == "failed"
    assert site.rows(LOG) == [("failed", None, "LookupError: no such order")]
    ((context,),) = site.rows("SELECT error_context FROM reconciler.cron_execution_log")
    assert "test_locked_execution.py" in context
    assert "raise error" in context
    with locked_execution(conn, name) as again:
        assert again


def test_an_error_of_the_server_is_logged_in_its_words(site: Site, conn: Connection[Any]) -> None:
    """SQLSTATE, message, detail and context are those that the server gave."""
    site.run("ALTER TABLE done ADD CHECK (n > 0)")
    with pytest.raises(psycopg.errors.CheckViolation), locked_execution(conn, "my.own"):
        conn.execute("DO $$ BEGIN INSERT INTO done VALUES (-1); END $$")
    message = 'new row for relation "done" violates check constraint "done_n_check"'
    assert site.rows(LOG) == [("failed", "23514", message)]
    ((detail, context),) = site.rows("SELECT error_detail, error_context FROM reconciler.cron_execution_log")
    assert detail == "Failing row contains (-1)."
    assert "INSERT INTO done" in context


class _UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), "ValueError"),
        (ValueError("a\0b \udc80"), "ValueError: a\\0b \\udc80"),
        (ValueError("snow ☃"), "ValueError: snow \\u2603"),
        (_UnprintableError(), "_UnprintableError"),
        (ValueError("x" * 20_000), "ValueError: " + "x" * 9_988),
    ],
    ids=["empty", "nul", "encoding", "unprintable", "long"],
)
def test_every_error_can_be_logged(site: Site, conn: Connection[Any], error: Exception, message: str) -> None:
    """What the log or the client's encoding cannot hold is spelt with escapes; all ends in the log."""
    conn.execute("SET client_encoding = LATIN1")
    conn.commit()
    with pytest.raises(type(error)), locked_execution(conn, "my.own"):
        raise error
    assert site.rows(LOG) == [("failed", None, message)]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_cancels(site: Site, conn: Connection[Any], interrupt: type[BaseException]) -> None:
    """Who is interrupted has not failed."""
    with pytest.raises(interrupt), locked_execution(conn, "declared"):
        raise interrupt
    assert site.rows(LOG) == [("cancelled", None, interrupt.__name__)]


def test_a_cancelled_statement_cancels(site: Site, conn: Connection[Any]) -> None:
    """cancel_run reaches a block that waits for the server; its row says who wanted it."""
    with beside(lambda: cancel_when_running(site)):  # noqa: SIM117 - the thread outlives the block
        with pytest.raises(psycopg.errors.QueryCanceled), locked_execution(conn, "declared"):
            conn.execute("SELECT pg_sleep(30)")
    assert site.rows("SELECT status, error_sqlstate, stop_by FROM reconciler.cron_execution_log") == [
        ("cancelled", "57014", "postgres")
    ]


def cancel_when_running(site: Site) -> None:
    """Cancel the only run as soon as its backend is at work."""
    wait_until(
        lambda: site.rows("SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'") != [],
        seconds=10,
        what="the block waits for the server",
    )
    site.rows("SELECT reconciler.cancel_run(id) FROM reconciler.cron_execution_log")


def test_a_statement_that_took_too_long_timed_out(site: Site, conn: Connection[Any]) -> None:
    """A limit of the session's own counts as one."""
    conn.execute("SET statement_timeout = '50ms'")
    conn.commit()
    with pytest.raises(psycopg.errors.QueryCanceled), locked_execution(conn, "declared"):
        conn.execute("SELECT pg_sleep(30)")
    assert [status for status, *_ in site.rows(LOG)] == ["timed_out"]


def test_the_policies_of_a_declared_job_hold(site: Site, conn: Connection[Any]) -> None:
    """A failed run is tried again and alerts its channels; a good one closes the alert."""
    site.apply(channel("ops"), job("declared", on_failure={"retries": 2}, alert={"channels": ["ops"]}))
    with pytest.raises(ValueError, match="bad"), locked_execution(conn, "declared"):
        raise ValueError("bad")
    assert site.rows("SELECT job_name, trigger, attempt FROM reconciler.starts") == [("declared", "retry", 2)]
    assert site.rows(
        "SELECT kind, message, channel FROM reconciler.alerts a"
        " JOIN reconciler.alert_deliveries d ON d.alert_id = a.id"
    ) == [("failed", "declared failed: ValueError: bad", "ops")]
    with locked_execution(conn, "declared", trigger="schedule"):
        pass
    assert site.rows("SELECT FROM reconciler.alerts WHERE resolved_at IS NULL") == []


def test_a_paused_job_runs_by_hand_alone(site: Site, conn: Connection[Any]) -> None:
    """A pause holds for what a cron fires."""
    site.run("SELECT reconciler.pause_job('declared', NULL, 'moving')")
    with locked_execution(conn, "declared", trigger="schedule") as run:
        assert not run
        assert run.reason == "paused by postgres: moving"
    with locked_execution(conn, "declared") as run:
        assert run


def take_turns(site: Site, name: str, *, wait: bool, count: int = 4) -> list[str]:
    """Run a job in several sessions at once; return what happened, in order."""
    events: list[str] = []
    together = threading.Barrier(count)

    def work(conn: Connection[Any]) -> None:
        together.wait(10)
        with locked_execution(conn, name, wait=wait) as run:
            events.append("in" if run else "skipped")
            if run:
                conn.execute("SELECT pg_sleep(0.1)")
                events.append("out")

    threads = [
        threading.Thread(target=work, args=(site.database.connect(),), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return events


@pytest.mark.parametrize("name", NAMES)
def test_whoever_waits_gets_a_turn(site: Site, name: str) -> None:
    """With wait=True nothing is skipped, and never do two run at once."""
    assert take_turns(site, name, wait=True) == ["in", "out"] * 4
    assert site.rows(LOG) == [("succeeded", None, None)] * 4


@pytest.mark.parametrize("name", NAMES)
def test_of_several_at_once_one_runs(site: Site, name: str) -> None:
    """Without waiting, the others are skipped."""
    events = take_turns(site, name, wait=False)
    assert sorted(events) == ["in", "out", "skipped", "skipped", "skipped"]


def test_a_job_that_is_to_wait_waits_by_itself(site: Site) -> None:
    """concurrency: wait needs no argument."""
    site.apply(job("patient", concurrency="wait"))
    assert take_turns(site, "patient", wait=False, count=3) == ["in", "out"] * 3


@pytest.mark.parametrize("wait", [True, False])
def test_a_job_that_allows_it_runs_beside_itself(site: Site, *, wait: bool) -> None:
    """concurrency: allow; then waiting does not make it wait, nor does a run of its own session."""
    site.apply(job("many", concurrency="allow"))
    events = take_turns(site, "many", wait=wait)
    assert sorted(events) == ["in"] * 4 + ["out"] * 4
    assert events[:2] == ["in", "in"]
    conn = site.database.connect()
    with locked_execution(conn, "many", wait=wait) as one, locked_execution(conn, "many", wait=wait) as two:
        assert one
        assert two
        assert [mode for _, mode in site.rows(LOCKS)] == ["ShareLock"]


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_session_does_not_run_beside_itself(
    site: Site, conn: Connection[Any], name: str, *, wait: bool
) -> None:
    """Within its own run a session is skipped, also when it would wait, and the run keeps its lock."""
    with locked_execution(conn, name) as outer:
        with locked_execution(conn, name, wait=wait) as inner:
            assert not inner
            assert inner.reason == f"already running in this session, as run {outer.run_id}"
        assert site.rows(LOCKS) == [(pid_of(conn), "ExclusiveLock")]
    assert outer.status == "succeeded"


def test_a_session_does_not_wait_for_itself(site: Site, conn: Connection[Any]) -> None:
    """Not even where the job's concurrency is to wait."""
    site.apply(job("patient", concurrency="wait", timeout="5s"))  # as long as a wait may take, too
    began = time.monotonic()
    with locked_execution(conn, "patient") as outer, locked_execution(conn, "patient") as inner:
        assert outer
        assert not inner
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_not_ended_is_lost(site: Site, conn: Connection[Any], name: str) -> None:
    """Its own session waits for the tick to say so, any other finds out by itself; all runs have the lock."""
    release_execution_lock(conn, acquire_execution_lock(conn, name))
    with locked_execution(conn, name) as again:
        assert not again
        assert again.reason.startswith("already running in this session")
    site.run("CALL reconciler.tick()")
    with locked_execution(conn, name) as again:
        assert again
        assert site.rows(LOCKS) == [(pid_of(conn), "ExclusiveLock")]
    release_execution_lock(conn, acquire_execution_lock(conn, name))
    with locked_execution(site.database.connect(), name) as other:
        assert other
    statuses = [status for status, *_ in site.rows(LOG)]
    assert statuses == ["lost", "skipped", "succeeded", "lost", "succeeded"]


def test_another_job_runs_within_a_run(site: Site) -> None:
    """In autocommit mode runs of different names nest."""
    conn = site.database.connect()
    with locked_execution(conn, "declared") as outer, locked_execution(conn, "my.own") as inner:
        assert outer
        assert inner
    assert site.rows(LOG) == [("succeeded", None, None)] * 2
