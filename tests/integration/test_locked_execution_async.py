"""Locked execution over connections that are awaited: the same rules, and tasks that are cancelled."""

# ruff: noqa: PT012 - what happens within the block is what is tested

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from reconciler.errors import ConnectError, DatabaseError, RightsError
from reconciler.runtime import handle_cron_trigger_async, locked_execution_async
from tests.declared import Site, job
from tests.pooler import run_pooler
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.servers import Database

pytestmark = pytest.mark.one_server

LOG: LiteralString = "SELECT status, error_message FROM reconciler.cron_execution_log ORDER BY id"
LOCKS: LiteralString = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
NAMES = ("declared", "my.own")


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    """A database with the job `declared` and a table; no lock is left in it after the test."""
    site = Site(database)
    site.apply(job("declared"))
    site.run("CREATE TABLE public.done (n int)")
    yield site
    # A backend whose connection was closed takes a moment to go.
    wait_until(lambda: site.rows(LOCKS) == [], seconds=5, what="no lock is left")


@pytest.fixture(params=[True, False], ids=["autocommit", "transactions"])
def autocommit(request: pytest.FixtureRequest) -> bool:
    """Both modes of a connection."""
    return bool(request.param)


async def connect(site: Site, *, autocommit: bool = True, user: str | None = None) -> AsyncConnection[Any]:
    """Connect; whoever does so closes it."""
    dsn = site.dsn if user is None else site.database.dsn_for(user)
    return await AsyncConnection.connect(dsn, autocommit=autocommit)


def with_connection(
    site: Site, work: Callable[[AsyncConnection[Any]], Awaitable[None]], *, autocommit: bool = True
) -> None:
    """Do something with a connection, in a loop of its own."""

    async def do() -> None:
        conn = await connect(site, autocommit=autocommit)
        try:
            await work(conn)
        finally:
            await conn.close()

    asyncio.run(do())


@pytest.mark.parametrize("name", NAMES)
def test_a_block_is_a_run(site: Site, name: str, *, autocommit: bool) -> None:
    """It has the lock and a row while it goes on; what it left open is committed."""

    async def work(conn: AsyncConnection[Any]) -> None:
        async with locked_execution_async(conn, name) as run:
            assert run
            assert site.rows(LOG) == [("running", None)]
            assert site.rows(LOCKS) == [(conn.info.backend_pid,)]
            await conn.execute("INSERT INTO done VALUES (1)")
            run.rows_affected = 1
        assert run.status == "succeeded"

    with_connection(site, work, autocommit=autocommit)
    assert site.rows("SELECT status, rows_affected FROM reconciler.cron_execution_log") == [("succeeded", 1)]
    assert site.rows("SELECT n FROM done") == [(1,)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wait", [True, False])
def test_of_several_tasks_one_runs_at_a_time(site: Site, name: str, *, wait: bool) -> None:
    """Those that do not wait are skipped."""
    events: list[str] = []

    async def work(gate: asyncio.Event) -> None:
        conn = await connect(site)
        try:
            await gate.wait()
            async with locked_execution_async(conn, name, wait=wait) as run:
                events.append("in" if run else "skipped")
                if run:
                    await conn.execute("SELECT pg_sleep(0.2)")
                    events.append("out")
        finally:
            await conn.close()

    async def all_at_once() -> None:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(work(gate)) for _ in range(4)]
        await asyncio.sleep(0.2)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_at_once())
    if wait:
        assert events == ["in", "out"] * 4
    else:
        assert sorted(events) == ["in", "out", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_logged_and_comes_out(site: Site, name: str, *, autocommit: bool) -> None:
    """The work that was left open is rolled back."""

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(LookupError):
            async with locked_execution_async(conn, name):
                await conn.execute("BEGIN" if autocommit else "SELECT 1")
                await conn.execute("INSERT INTO done VALUES (1)")
                raise LookupError("no such order")

    with_connection(site, work, autocommit=autocommit)
    assert site.rows(LOG) == [("failed", "LookupError: no such order")]
    assert site.rows("SELECT n FROM done") == []


def test_a_hidden_failure_is_one(site: Site, *, autocommit: bool) -> None:
    """A transaction that failed cannot be committed."""

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(DatabaseError, match="the work is lost"):
            async with locked_execution_async(conn, "declared"):
                await conn.execute("BEGIN" if autocommit else "SELECT 1")
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await conn.execute("SELECT 1/0")

    with_connection(site, work, autocommit=autocommit)
    assert [status for status, _ in site.rows(LOG)] == ["failed"]


def test_an_open_transaction_is_refused(site: Site) -> None:
    """As for connections that block."""

    async def work(conn: AsyncConnection[Any]) -> None:
        async with conn.transaction():
            with pytest.raises(DatabaseError, match="has an open transaction"):
                async with locked_execution_async(conn, "declared"):
                    pytest.fail("the block was entered")

    with_connection(site, work)
    assert site.rows(LOG) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_whose_backend_was_killed_is_lost(site: Site, name: str, *, autocommit: bool) -> None:
    """The block's own error comes out; a block that hides it hears of the loss; the next start logs it."""

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.errors.AdminShutdown):
            async with locked_execution_async(conn, name):
                site.run("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
                await conn.execute("SELECT 1")
        other = await connect(site)
        with pytest.raises(ConnectError, match="was lost"):
            async with locked_execution_async(other, name):
                site.run("SELECT pg_terminate_backend(%s, 5000)", other.info.backend_pid)
        await other.close()
        third = await connect(site)
        async with locked_execution_async(third, name) as run:
            assert run
        await third.close()

    with_connection(site, work, autocommit=autocommit)
    assert [status for status, _ in site.rows(LOG)] == ["lost", "lost", "succeeded"]


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(30)", ""])
def test_a_cancelled_task_is_a_cancelled_run(
    site: Site, statement: LiteralString, *, autocommit: bool
) -> None:
    """Whether it waits for the server or for something else, and the next run can start."""

    async def work(conn: AsyncConnection[Any]) -> None:
        inside = asyncio.Event()

        async def run_job() -> None:
            async with locked_execution_async(conn, "declared"):
                await conn.execute("INSERT INTO done VALUES (1)")
                inside.set()
                await (conn.execute(statement) if statement else asyncio.sleep(30))

        task = asyncio.create_task(run_job())
        await inside.wait()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert site.rows(LOCKS) == []
        async with locked_execution_async(conn, "declared") as run:
            assert run

    with_connection(site, work, autocommit=autocommit)
    assert site.rows(LOG) == [("cancelled", "CancelledError"), ("succeeded", None)]
    assert site.rows("SELECT n FROM done") == ([(1,)] if autocommit else [])


def test_a_task_that_is_cancelled_while_it_ends_its_run_ends_it(site: Site, *, autocommit: bool) -> None:
    """The work is done: its end is logged and the lock released, and then the task is cancelled."""
    site.run(
        "CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$;"
        "CREATE TRIGGER take_time BEFORE UPDATE ON reconciler.cron_execution_log"
        " FOR EACH ROW EXECUTE FUNCTION public.take_time()"
    )

    async def work(conn: AsyncConnection[Any]) -> None:
        done = asyncio.Event()

        async def run_job() -> None:
            async with locked_execution_async(conn, "declared"):
                done.set()

        task = asyncio.create_task(run_job())
        await done.wait()
        for _ in range(2):
            await asyncio.sleep(0.1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with_connection(site, work, autocommit=autocommit)
    assert site.rows(LOG) == [("succeeded", None)]


def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing(site: Site, *, autocommit: bool) -> None:
    """Neither a lock nor a row, and the connection is as good as before."""

    async def work(conn: AsyncConnection[Any]) -> None:
        async def run_job() -> None:
            async with locked_execution_async(conn, "declared", wait=True):
                pytest.fail("the block was entered")

        other = await connect(site)
        async with locked_execution_async(other, "declared"):
            task = asyncio.create_task(run_job())
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await other.close()
        async with locked_execution_async(conn, "declared") as run:
            assert run

    with_connection(site, work, autocommit=autocommit)
    assert site.rows(LOG) == [("succeeded", None)] * 2


def test_a_task_that_is_cancelled_while_it_starts_leaves_no_lock(site: Site, *, autocommit: bool) -> None:
    """The lock is taken before the row is written, and outlives a rollback."""
    site.run(
        "CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;"
        "CREATE TRIGGER take_time BEFORE INSERT ON reconciler.cron_execution_log"
        " FOR EACH ROW EXECUTE FUNCTION public.take_time()"
    )

    async def work(conn: AsyncConnection[Any]) -> None:
        async def run_job() -> None:
            async with locked_execution_async(conn, "declared"):
                pytest.fail("the block was entered")

        task = asyncio.create_task(run_job())
        while site.rows(LOCKS) == []:  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert site.rows(LOCKS) == []
        assert not conn.closed

    with_connection(site, work, autocommit=autocommit)
    assert site.rows(LOG) == []


def test_a_time_limit_of_the_callers_cancels(site: Site) -> None:
    """asyncio.timeout around the block ends the run as cancelled, and comes out as a TimeoutError."""

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), locked_execution_async(conn, "declared"):
                await conn.execute("SELECT pg_sleep(30)")

    with_connection(site, work)
    assert site.rows(LOG) == [("cancelled", "CancelledError")]


def test_a_pooler_in_transaction_mode_is_refused(site: Site) -> None:
    """As for connections that block."""
    if not site.dsn.startswith("host=/"):
        pytest.skip("the pooler of this test needs a server without passwords")

    async def work(dsn: str) -> None:
        conn = await AsyncConnection.connect(dsn)
        with pytest.raises(DatabaseError, match="a pooler in transaction mode"):
            async with locked_execution_async(conn, "declared"):
                pytest.fail("the block was entered")
        await conn.close()

    with run_pooler(site.dsn) as dsn:
        asyncio.run(work(dsn))
    assert site.rows(LOG) == []


def test_names_that_nobody_declared_take_a_right(site: Site) -> None:
    """As for connections that block."""
    site.run("CREATE ROLE bob LOGIN")

    async def work() -> None:
        conn = await connect(site, user="bob")
        with pytest.raises(RightsError, match="the role bob may not run what nobody declared"):
            async with locked_execution_async(conn, "my.own"):
                pytest.fail("the block was entered")
        await conn.close()

    asyncio.run(work())


def test_a_handler_is_a_run(site: Site) -> None:
    """Its result comes back; None when it was skipped."""

    async def answer() -> int:
        return 42

    async def work(conn: AsyncConnection[Any]) -> None:
        assert await handle_cron_trigger_async(conn, "declared", answer) == 42
        site.run("SELECT reconciler.pause_job('declared')")
        assert await handle_cron_trigger_async(conn, "declared", answer) is None

    with_connection(site, work)
    assert [status for status, _ in site.rows(LOG)] == ["succeeded", "skipped"]
