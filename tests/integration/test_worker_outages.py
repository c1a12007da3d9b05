"""A pull worker whose connections are cut, or that stands behind a pooler."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.declared import Site, queue
from tests.pooler import run_shared_pooler
from tests.queued import cancel, enqueue, fill, look, statuses, wait_for_statuses
from tests.servers import wait_until
from tests.worked import drain, handle, working

if TYPE_CHECKING:
    import psycopg

    from reconciler.runtime.handlers import Job
    from tests.servers import Database

pytestmark = pytest.mark.one_server

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reconciler worker'"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema."""
    site = Site(database)
    site.apply(queue("short", lease="1s"))
    return site


def test_connections_that_are_cut_come_back(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again in the middle of work: no job is lost, and it is told now and then."""
    fill(conn, 6000, "short")

    async def work(job: Job) -> None:  # noqa: ARG001 - it takes no keys
        await asyncio.sleep(0.002)

    with working(site, handle(do=work), "short", concurrency=20) as worker:
        for _ in range(4):
            wait_until(lambda: worker.tally.completed > 0, seconds=10, what="it works")
            conn.execute(CUT)
            time.sleep(0.3)
        # What was claimed when the answer was lost comes back when its lease is over.
        site.run("UPDATE reconciler.queues SET backoff_initial = '1 ms', backoff_max = '1 ms'")
        wait_for_statuses(site, "short", completed=6000, seconds=30)
    assert "no connection to" in caplog.text
    assert "connected to" in caplog.text


def test_ends_are_kept_while_the_server_is_away(site: Site, conn: psycopg.Connection) -> None:
    """A job that ends meanwhile is completed when the server is back, and was done once."""
    begun, go_on = threading.Event(), threading.Event()
    calls = []

    def work() -> str:
        calls.append(1)
        begun.set()
        go_on.wait(30)
        return "kept"

    job = enqueue(conn)
    with working(site, handle(do=work)) as worker:
        assert begun.wait(10)
        site.database.server.stop(immediate=True)
        go_on.set()
        wait_until(lambda: worker.running == 0, seconds=10, what="the handler has ended")
        site.database.server.start()
        wait_for_statuses(site, "default", completed=1)
    assert calls == [1]
    with site.database.server.connect() as fresh:
        assert look(fresh, job)["result"] == "kept"


def test_an_outage_is_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, and by how many connections."""
    with caplog.at_level(logging.INFO), working(site, handle(do=lambda: None), "short", poll=0.1):
        time.sleep(0.7)
        site.database.server.stop(immediate=True)
        time.sleep(3)
        site.database.server.start()
        wait_until(lambda: "connected to" in caplog.text, seconds=10, what="it is back")
        time.sleep(0.5)
    told = [one.message for one in caplog.records if one.name == "reconciler.worker"]
    assert len(told) == 2, told
    assert told[0].startswith("no connection to app on")
    assert told[1].startswith("connected to app on")


def test_work_after_an_outage_is_heard_of_again(site: Site) -> None:
    """Listening begins anew, and what was queued meanwhile is found at once."""
    with working(site, handle(do=lambda: None), poll=60) as worker:
        with site.database.server.connect() as conn:
            enqueue(conn)
            wait_until(lambda: worker.tally.completed == 1, seconds=5, what="it works")
            conn.execute(CUT)
            enqueue(conn)
            wait_until(lambda: worker.tally.completed == 2, seconds=5, what="the first after it is done")
            time.sleep(1)
            began = time.monotonic()
            enqueue(conn)
            wait_until(lambda: worker.tally.completed == 3, seconds=5, what="it listens again")
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_pooler_in_transaction_mode_is_found_and_worked_with(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """It is told in one line; the queues are looked at now and then, and all jobs are done."""
    fill(conn, 2000)
    with (
        run_shared_pooler(site.dsn, size=size) as dsn,
        working(site, handle(do=lambda job: job.id), dsn=dsn, poll=0.05, concurrency=5) as worker,
    ):
        wait_for_statuses(site, "default", completed=2000)
        assert worker.is_pooled
        enqueue(conn)
        wait_for_statuses(site, "default", completed=2001, seconds=5)
    told = [one.message for one in caplog.records if one.name == "reconciler.worker"]
    assert told == [
        "a pooler in transaction mode stands between: no LISTEN, the queues are looked at every 0.05 s"
    ]


def test_a_job_is_cancelled_behind_a_pooler(site: Site, conn: psycopg.Connection) -> None:
    """At the next renewal of its lease."""
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    job = enqueue(conn, "short")
    with (
        run_shared_pooler(site.dsn, size=3) as dsn,
        working(site, handle(do=wait), "short", dsn=dsn, poll=0.05),
    ):
        assert begun.wait(10)
        cancel(conn, job)
        wait_for_statuses(site, "short", cancelled=1, seconds=5)


def test_a_direct_connection_is_not_taken_for_a_pooler(site: Site, conn: psycopg.Connection) -> None:
    """Without one the worker listens."""
    enqueue(conn)
    assert not drain(site, handle(do=lambda: None)).is_pooled
    assert statuses(site) == {"completed": 1}
