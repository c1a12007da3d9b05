"""The run endpoint when something goes wrong: jobs that hang, leases, callers and servers that go away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.calling import Client, Work, put, serve_endpoint, wait_for
from tests.declared import Site, queue
from tests.queued import look, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.servers import Database


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema, and no job."""
    site = Site(database)
    site.apply()
    return site


@pytest.fixture
def conn(site: Site) -> Connection:
    """A connection of who queues."""
    return site.database.connect()


@pytest.fixture
def work() -> Iterator[Work]:
    """Handlers; the gate opens at the end."""
    work = Work()
    yield work
    work.gate.set()


@pytest.fixture
def client(site: Site, work: Work) -> Iterator[Client]:
    """A served endpoint."""
    with serve_endpoint(site.dsn, work.handlers) as client:
        yield client
        work.gate.set()


def test_the_answer_comes_in_time(conn: Connection, client: Client, work: Work, site: Site) -> None:
    """When the time is over the answer tells what is done and what still runs; that goes on to its end."""
    put(conn, "do", n=1)
    slow = put(conn, "wait")
    begun = time.monotonic()
    reply = client.run("limit=2&timeout=500ms")
    assert 0.4 < time.monotonic() - begun < 5
    assert sorted(reply.statuses) == ["completed", "running"]
    assert look(conn, slow)["status"] == "running"
    work.gate.set()
    wait_for(lambda: statuses(site) == {"completed": 2})


def test_what_cannot_begin_in_time_is_given_back(conn: Connection, site: Site, work: Work) -> None:
    """Dead jobs are claimed together; those without a place in time are pending, and no try was counted."""
    jobs = [put(conn, "wait", n=n, max_attempts=1) for n in range(3)]
    conn.execute("UPDATE reconciler.jobs SET status = 'failed', attempts = 1, completed_at = now()")
    with serve_endpoint(site.dsn, work.handlers, concurrency=1) as client:
        reply = client.run("status=failed&limit=3&timeout=300ms")
        assert reply.statuses == ["running"]
        wait_for(lambda: statuses(site) == {"running": 1, "pending": 2})
        assert sorted(look(conn, job)["attempts"] for job in jobs) == [1, 1, 2]
        work.gate.set()
        wait_for(lambda: statuses(site) == {"completed": 1, "pending": 2})


@pytest.mark.parametrize("name", ["wait", "block"])
def test_a_handler_that_hangs_is_timed_out(conn: Connection, client: Client, name: str) -> None:
    """A job that takes longer than its own limit has failed, whether it is a coroutine or in a thread."""
    job = put(conn, name, timeout=0.3)
    [told] = client.run().document["jobs"]
    assert told["status"] == "pending"
    assert "timed out: it took longer than 0.3 s" in told["error"]
    assert look(conn, job)["attempts"] == 1


def test_leases_are_kept_while_jobs_run(site: Site, conn: Connection, work: Work) -> None:
    """A job may run for longer than its lease; nobody else gets it, and its end counts."""
    site.apply(queue("short", lease="1s"))
    job = put(conn, "wait", "short")
    with serve_endpoint(site.dsn, work.handlers) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run, "queue=short")
        wait_for(lambda: len(work.done) == 1)
        time.sleep(2.5)
        conn.execute("SELECT reconciler.rescue_jobs()")
        assert look(conn, job)["status"] == "running"
        work.gate.set()
        assert call.result(20).statuses == ["completed"]


def test_a_cancelled_job_ends(site: Site, conn: Connection, work: Work) -> None:
    """Who cancels a job that runs is heard when its lease is renewed."""
    site.apply(queue("short", lease="1s"))
    job = put(conn, "wait", "short")
    with serve_endpoint(site.dsn, work.handlers) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run, "queue=short")
        wait_for(lambda: len(work.done) == 1)
        conn.execute("SELECT reconciler.cancel_job(%s)", [job])
        assert call.result(20).statuses == ["cancelled"]
    assert look(conn, job)["status"] == "cancelled"


def test_a_late_end_changes_nothing(site: Site, conn: Connection, work: Work) -> None:
    """A job that somebody else has by now is told as lost, and stays as it is."""
    job = put(conn, "wait")
    with serve_endpoint(site.dsn, work.handlers) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run)
        wait_for(lambda: len(work.done) == 1)
        conn.execute("UPDATE reconciler.jobs SET token = token + 1, worker = 'other' WHERE id = %s", [job])
        work.gate.set()
        assert call.result(20).statuses == ["lost"]
    assert look(conn, job)["status"] == "running"
