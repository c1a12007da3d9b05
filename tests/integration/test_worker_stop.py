"""How a pull worker ends: what has not begun goes back, what runs may finish, for a while."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.declared import Site
from tests.queued import enqueue, fill, look, statuses
from tests.servers import wait_until
from tests.worked import handle, working

if TYPE_CHECKING:
    import psycopg

    from reconciler.runtime.handlers import Job
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema."""
    site = Site(database)
    site.apply()
    return site


def attempts(site: Site) -> dict[tuple[str, int], int]:
    """Count the jobs by status and counted tries."""
    rows = site.rows("SELECT status, attempts, count(*) FROM reconciler.jobs GROUP BY 1, 2")
    return {(status, tries): count for status, tries, count in rows}


@pytest.mark.parametrize("is_async", [True, False])
def test_what_runs_finishes_and_the_rest_goes_back(
    site: Site, conn: psycopg.Connection, is_async: bool
) -> None:
    """Nothing more begins after a stop; what was claimed ahead has not counted a try."""
    fill(conn, 3000)
    numbers = itertools.count()
    began: list[int] = []

    # The handlers themselves become slow: a worker does thousands of jobs before anybody outside looks again.
    async def work(job: Job) -> None:
        if next(numbers) >= 100:
            began.append(job.id)
            await asyncio.sleep(0.5)

    def block(job: Job) -> None:
        if next(numbers) >= 100:
            began.append(job.id)
            time.sleep(0.5)

    with working(site, handle(do=work if is_async else block), concurrency=4) as worker:
        wait_until(lambda: len(began) >= 4, seconds=10, what="slow ones have begun")
        begun = len(began)
        worker.stop()
        wait_until(lambda: worker.running == 0, seconds=10, what="it has ended")
        assert len(began) <= begun + 4
        wait_until(
            lambda: set(attempts(site)) <= {("completed", 1), ("pending", 0)},
            seconds=5,
            what="all is settled",
        )
        assert worker.tally.completed == statuses(site)["completed"]


def test_what_does_not_finish_in_time_goes_back(site: Site, conn: psycopg.Connection) -> None:
    """A coroutine is cancelled, a function left behind; neither has counted a try."""
    over = threading.Event()
    cleaned = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    jobs = [enqueue(conn, handler=f"work.{name}") for name in ("wait", "block")]
    with working(site, handle(wait=wait, block=lambda: over.wait(30)), grace=0.3) as worker:
        wait_until(lambda: worker.running == 2, seconds=10, what="both run")
        began = time.monotonic()
        worker.stop()
        wait_until(lambda: statuses(site) == {"pending": 2}, seconds=10, what="both are given back")
        assert 0.2 < time.monotonic() - began < 4
    over.set()
    assert cleaned
    assert [look(conn, job)["attempts"] for job in jobs] == [0, 0]
    assert site.rows("SELECT count(*) FROM reconciler.pull_workers") == [(0,)]


def test_a_second_stop_does_not_wait(site: Site, conn: psycopg.Connection) -> None:
    """The grace is over with it."""
    enqueue(conn)

    async def wait() -> None:
        await asyncio.sleep(60)

    with working(site, handle(do=wait), grace=60) as worker:
        wait_until(lambda: worker.running == 1, seconds=10, what="it runs")
        worker.stop()
        time.sleep(0.3)
        assert statuses(site) == {"running": 1}
        worker.stop()
        wait_until(lambda: statuses(site) == {"pending": 1}, seconds=4, what="it is given back")


def test_a_worker_that_was_stopped_before_it_began_does_nothing(site: Site, conn: psycopg.Connection) -> None:
    """A stop is never too early."""
    enqueue(conn)
    with working(site, handle(do=lambda: None)) as worker:
        worker.stop()
        time.sleep(0.5)
    assert worker.tally.completed <= 1
    assert set(statuses(site)) <= {"pending", "completed"}
