"""What goes wrong when jobs are queued from Python: an error of ours, and a transaction in a known state."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from reconciler.database.connect import connect
from reconciler.database.migrate import load_migrations, migrate_target
from reconciler.errors import (
    ConfigError,
    ConnectError,
    DatabaseError,
    InvalidInputError,
    MigrationError,
    ReconcilerError,
    RightsError,
)
from reconciler.runtime import (
    NewJob,
    cancel_job,
    enqueue,
    enqueue_async,
    enqueue_many,
    get_job,
    get_job_async,
    get_jobs_by_status,
    retry_jobs,
)
from tests.declared import Site
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server

MEBIBYTE = 1024 * 1024


@pytest.fixture
def empty(database: Database) -> Site:
    """A database without the schema."""
    return Site(database)


@pytest.fixture
def site(empty: Site) -> Site:
    """A database with the schema of this release, and the role alice."""
    with connect(empty.dsn) as conn:
        migrate_target(conn)
    empty.run("CREATE ROLE alice LOGIN")
    return empty


def open_transaction(site: Site, user: str | None = None) -> Connection:
    """Connect, and begin a transaction with a statement."""
    conn = site.database.connect(user, autocommit=False)
    conn.execute("SELECT 1")
    return conn


def fails(kind: type[ReconcilerError], work: Callable[[], object]) -> ReconcilerError:
    """Do what fails, and return its error."""
    with pytest.raises(kind) as caught:
        work()
    return caught.value


def test_what_cannot_be_sent_leaves_the_transaction_as_it_was(site: Site) -> None:
    """The caller may go on with it."""
    conn = open_transaction(site)
    naive = datetime(2026, 12, 1)  # noqa: DTZ001 - that is the point
    for work in (
        lambda: enqueue(conn, "a", {"at": datetime(2026, 1, 1, tzinfo=UTC)}),
        lambda: enqueue(conn, "a", run_at=naive),
        lambda: enqueue_many(conn, [NewJob("a"), NewJob("")]),
        lambda: get_jobs_by_status(conn, "lost"),
    ):
        fails(InvalidInputError, work)
        assert conn.info.transaction_status == TransactionStatus.INTRANS
    enqueue(conn, "a")
    conn.commit()
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(1,)]


def test_what_the_server_refuses_fails_the_transaction_as_any_statement_does(site: Site) -> None:
    """A block of its own around it keeps what was done before; else the next call says why it fails."""
    conn = open_transaction(site)
    enqueue(conn, "first")
    with pytest.raises(InvalidInputError), conn.transaction():
        enqueue(conn, "a" * 201)
    enqueue(conn, "second")
    conn.commit()
    fails(InvalidInputError, lambda: enqueue(conn, "a" * 201))
    assert conn.info.transaction_status == TransactionStatus.INERROR
    error = fails(DatabaseError, lambda: enqueue(conn, "third"))
    assert error.message == "nothing was queued: an earlier statement of this transaction failed"
    assert error.remedy.startswith("roll back first")
    conn.rollback()
    assert site.rows("SELECT handler FROM reconciler.jobs ORDER BY id") == [("first",), ("second",)]


def test_a_payload_of_a_megabyte_goes_and_one_too_large_is_refused(site: Site) -> None:
    """With the advice to keep what is large elsewhere; of many jobs the place is told."""
    conn = site.database.connect()
    text = "x" * MEBIBYTE
    put = enqueue(conn, "a", {"text": text})
    found = get_job(conn, put.id)
    assert found is not None
    assert found.payload["text"] == text
    error = fails(InvalidInputError, lambda: enqueue(conn, "a", {"text": text * 4}))
    assert "nothing was queued: the payload takes 4096 kB, more than the 4 MB" in str(error)
    assert "Keep what is large in a table or in a file store, and put its id" in str(error)
    many = [NewJob("a"), NewJob("a", {"text": text * 5})]
    assert "job 2: the payload takes 5120 kB" in str(
        fails(InvalidInputError, lambda: enqueue_many(conn, many))
    )
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(1,)]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (NewJob("a" * 201), "a queued job needs a handler: its name, of 1 to 200 characters"),
        (NewJob("a", queue="q" * 201), "the name of a queue has 1 to 200 characters"),
        (NewJob("a", unique_key="k" * 501), "a key has at most 500 characters"),
        (NewJob("a", ordering_key="k" * 501), "Use a hash of what is longer"),
        (NewJob("a", unique_key=""), "a unique_key must not be empty"),
        (NewJob("a", type="t" * 201), "a type has 1 to 200 characters"),
        (
            NewJob("a", run_at=datetime(9999, 12, 31, tzinfo=UTC)),
            "run_at has to be a moment before the year 9999",
        ),
        (NewJob("a", 1e400 and 10**4000), ""),
    ],
)
def test_what_the_server_finds_wrong_is_wrong_input(site: Site, job: NewJob, words: str) -> None:
    """With its advice; a number of 4,000 digits is none of that."""
    conn = site.database.connect()
    if not words:
        assert enqueue_many(conn, [job])[0].created
        return
    assert words in str(fails(InvalidInputError, lambda: enqueue_many(conn, [job])))
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


def test_what_is_no_id_of_a_job_is_wrong_input(site: Site) -> None:
    """Too large a number, or none at all."""
    conn = site.database.connect()
    assert "job 9223372036854775808 was not read: " in str(
        fails(InvalidInputError, lambda: get_job(conn, 2**63))
    )
    assert "invalid input syntax for type bigint" in str(
        fails(InvalidInputError, lambda: cancel_job(conn, cast("int", "seven")))
    )


def test_a_role_without_the_right_is_told_how_to_get_it(site: Site) -> None:
    """And has it then, for all that programs do with jobs."""
    conn = site.database.connect("alice")
    for work in (
        lambda: enqueue(conn, "a"),
        lambda: get_job(conn, 1),
        lambda: cancel_job(conn, 1),
        lambda: retry_jobs(conn, "default"),
        lambda: get_jobs_by_status(conn, "failed"),
    ):
        error = fails(RightsError, work)
        assert "the role alice may not do this in app on" in error.message
        assert error.remedy == "as the owner of the schema: SELECT reconciler.allow_enqueue('alice')"
    site.run("SELECT reconciler.allow_enqueue('alice')")
    put = enqueue(conn, "a")
    assert [job.id for job in get_jobs_by_status(conn, "pending")] == [put.id]
    assert cancel_job(conn, put.id) == "cancelled"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM reconciler.jobs")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT reconciler.claim_jobs('default', 'w', 1)")


def test_a_target_without_the_schema_is_told_apart(empty: Site) -> None:
    """So is one of an earlier release."""
    conn = empty.database.connect()
    error = fails(MigrationError, lambda: enqueue(conn, "a"))
    assert "lacks the schema reconciler, or has one of an earlier release" in error.message
    assert error.remedy == "run reconciler migrate"
    for migration in load_migrations()[:11]:
        empty.run(migration.text)
    for work in (lambda: enqueue(conn, "a"), lambda: get_jobs_by_status(conn, "failed")):
        assert fails(MigrationError, work).remedy == "run reconciler migrate"


def test_a_connection_that_is_closed_or_was_lost_is_told(site: Site) -> None:
    """Of both kinds."""
    conn = site.database.connect()
    site.run("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
    error = fails(ConnectError, lambda: enqueue(conn, "a"))
    assert error.message.startswith("nothing was queued: the connection to ")
    assert error.remedy == "open a new one; the transaction that it had is rolled back"
    assert fails(ConnectError, lambda: enqueue(conn, "a")).remedy == error.remedy

    async def work() -> None:
        awaited = await psycopg.AsyncConnection.connect(site.dsn)
        await awaited.close()
        with pytest.raises(ConnectError, match="is closed or lost"):
            await enqueue_async(awaited, "a")

    asyncio.run(work())


def test_a_connection_that_takes_no_writes_is_told(site: Site) -> None:
    """A replica, or a session that is set so."""
    conn = site.database.connect()
    conn.execute("SET default_transaction_read_only = on")
    error = fails(DatabaseError, lambda: enqueue(conn, "a"))
    assert "takes no writes" in error.message
    assert error.remedy == "connect to the primary, read-write"
    assert get_job(conn, 1) is None


def test_the_wrong_kind_of_connection_is_told(site: Site) -> None:
    """What is awaited goes to the functions that are, and nothing else is a connection at all."""

    async def work() -> None:
        awaited = await psycopg.AsyncConnection.connect(site.dsn)
        error = fails(ConfigError, lambda: enqueue(cast("Any", awaited), "a"))
        assert error.message == "this connection, a psycopg.AsyncConnection, is awaited"
        assert error.remedy == "call the function whose name ends in _async, and await it"
        await awaited.close()
        conn = site.database.connect()
        with pytest.raises(ConfigError, match=r"a psycopg\.Connection, is not awaited") as caught:
            await get_job_async(cast("Any", conn), 1)
        assert caught.value.remedy == "call the function without _async"

    asyncio.run(work())
    error = fails(ConfigError, lambda: enqueue(cast("Any", site.dsn), "a"))
    assert error.message == "jobs are queued over a connection of psycopg 3, and this is a builtins.str"
    assert "postgresql+psycopg://" in error.remedy


def test_what_concerns_the_callers_transaction_comes_out_as_it_is(site: Site) -> None:
    """Callers try a serialization failure again: for them it has to be one; so has a cancelled statement."""
    blocker = open_transaction(site)
    enqueue(blocker, "a", unique_key="k")
    conn = site.database.connect(autocommit=False)
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    conn.execute("SELECT count(*) FROM reconciler.jobs")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            enqueue(conn, "a", unique_key="k")
        except psycopg.Error as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(
        lambda: site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)],
        seconds=10,
        what="it waits",
    )
    blocker.commit()
    thread.join(10)
    assert [type(error) for error in caught] == [psycopg.errors.SerializationFailure]
    conn.rollback()
    enqueue(blocker, "a", unique_key="other")
    conn.execute("SET LOCAL statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        enqueue(conn, "a", unique_key="other")
    conn.rollback()
    conn.execute("SET LOCAL lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        enqueue(conn, "a", unique_key="other")


def test_a_call_whose_task_is_cancelled_is_cancelled(site: Site) -> None:
    """The connection can be used on."""
    blocker = open_transaction(site)
    enqueue(blocker, "a", unique_key="k")

    async def work() -> None:
        conn = await psycopg.AsyncConnection.connect(site.dsn, autocommit=True)
        task = asyncio.create_task(enqueue_async(conn, "a", unique_key="k"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await enqueue_async(conn, "a", unique_key="other")).created
        await conn.close()

    asyncio.run(work())
