"""Leases of a pull worker: kept whatever handlers do, and what becomes of a job whose lease was lost."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from reconciler.database.claims import claim_jobs, renew_leases
from tests.declared import Site, queue
from tests.queued import cancel, enqueue, fill, look, statuses, wait_for_statuses
from tests.servers import wait_until
from tests.worked import drain, handle, working

if TYPE_CHECKING:
    from reconciler.database.claims import ClaimedJob
    from reconciler.runtime.handlers import Job
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema and a queue with the shortest lease."""
    site = Site(database)
    site.apply(queue("short", lease="1s"))
    return site


def lose(conn: psycopg.Connection, job: int) -> None:
    """Let the lease of a job be over, and another worker take the job away."""
    with conn.transaction():
        conn.execute(
            "UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 s' WHERE id = %s", [job]
        )
        assert conn.execute("SELECT reconciler.rescue_jobs()").fetchone() == (1,)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_that_blocks_keeps_its_job(site: Site, conn: psycopg.Connection, is_async: bool) -> None:
    """Also one that blocks the event loop for longer than a lease: another worker does not get the job."""
    calls: list[int] = []

    async def block(job: Job) -> None:
        calls.append(job.attempt)
        time.sleep(2.5)  # noqa: ASYNC251 - what a handler must not do

    def wait(job: Job) -> None:
        calls.append(job.attempt)
        time.sleep(2.5)

    enqueue(conn, "short")
    handlers = handle(do=block if is_async else wait)
    with working(site, handlers, "short", poll=0.1), working(site, handlers, "short", poll=0.1):
        wait_for_statuses(site, "short", completed=1)
    assert calls == [1]


def test_what_waits_in_a_worker_keeps_its_lease(site: Site, conn: psycopg.Connection) -> None:
    """Jobs that were claimed ahead and have not begun are renewed with the others."""
    begun = threading.Event()

    def block(job: Job) -> None:
        begun.set()
        time.sleep(1.5 if job.payload["n"] else 0)

    for number in (0, 0, 0, 1, 1):
        enqueue(conn, "short", payload={"n": number})
    drain(site, handle(do=block), "short", concurrency=1)
    assert site.rows("SELECT DISTINCT attempts, losses FROM reconciler.jobs WHERE queue = 'short'") == [
        (1, 0)
    ]


def test_a_coroutine_whose_lease_was_lost_is_cancelled(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It learns so at the next renewal, and changes nothing of what another worker does now."""
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    job = enqueue(conn, "short")
    with working(site, handle(do=wait), "short", poll=60) as worker:
        assert begun.wait(10)
        lose(conn, job)
        assert ended.wait(5)
        wait_until(lambda: worker.tally.stale == 1, seconds=5, what="the late end is counted")
    row = look(conn, job)
    assert (row["status"], row["losses"]) == ("pending", 1)
    assert "is ours no more: its lease was over" in caplog.text


def test_a_function_whose_lease_was_lost_is_told(site: Site, conn: psycopg.Connection) -> None:
    """It asks, and may end early."""
    begun, told = threading.Event(), threading.Event()

    def wait(job: Job) -> None:
        begun.set()
        while not job.is_cancelled():
            time.sleep(0.01)
        told.set()

    job = enqueue(conn, "short")
    with working(site, handle(do=wait), "short", poll=60):
        assert begun.wait(10)
        lose(conn, job)
        assert told.wait(5)


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_late_end_is_counted_and_changes_nothing(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture, outcome: str
) -> None:
    """The job went to another worker meanwhile, and is done there."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go_on.wait(10)
        if outcome == "failed":
            raise ValueError
        return "late"

    job = enqueue(conn)
    with working(site, handle(do=work), poll=60, concurrency=1) as worker:
        assert begun.wait(10)
        lose(conn, job)
        conn.execute("UPDATE reconciler.jobs_open SET run_at = now()")
        other = drain(site, handle(do=lambda: "in time"))
        go_on.set()
        wait_until(lambda: worker.tally.stale == 1, seconds=5, what="the late end is counted")
        assert (worker.tally.completed, worker.tally.failed, other.tally.completed) == (0, 0, 1)
    row = look(conn, job)
    assert (row["status"], row["result"], row["attempts"]) == ("completed", "in time", 2)
    assert "ended too late" in caplog.text


def test_a_cancellation_that_nobody_heard_is_found_at_the_renewal(
    site: Site, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message may be lost; what is written in the row is not."""
    monkeypatch.setattr("reconciler.runtime.listening._CHANNELS", ())
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    job = enqueue(conn, "short")
    with working(site, handle(do=wait), "short", poll=0.1):
        assert begun.wait(10)
        cancel(conn, job)
        wait_for_statuses(site, "short", cancelled=1, seconds=5)
    assert look(conn, job)["last_error"] == "cancelled by postgres"
    assert statuses(site, "short") == {"cancelled": 1}


def test_leases_are_renewed_in_the_order_in_which_jobs_are_ended(
    site: Site, conn: psycopg.Connection
) -> None:
    """By id, whatever the order of the jobs: the renewal and an end of several never wait for each other."""

    async def claim() -> list[ClaimedJob]:
        async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as mine:
            return await claim_jobs(mine, queue="default", worker="w", limit=300)

    fill(conn, 300)
    jobs = asyncio.run(claim())
    last, first = jobs[0].id, jobs[-1].id
    assert first < last
    lock: LiteralString = "SELECT FROM reconciler.jobs_open WHERE id = %s FOR UPDATE NOWAIT"
    with conn.transaction():
        conn.execute(lock, [last])
        renewing = threading.Thread(
            target=renew_leases, args=(site.database.connect(),), kwargs={"worker": "w", "jobs": jobs}
        )
        renewing.start()
        waits: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: site.rows(waits) == [(1,)], seconds=5, what="the renewal waits")
        with pytest.raises(psycopg.errors.LockNotAvailable), conn.transaction():
            conn.execute(lock, [first])
    renewing.join(5)
    assert not renewing.is_alive()
