"""Limits of a queue: how many run at once and how many start in a time, over all connections together."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.declared import Site, queue
from tests.queued import (
    Gauge,
    claim,
    complete,
    connect,
    end_cancelled,
    enqueue,
    fail,
    fill,
    give_back,
    pass_time,
    rescue,
    snooze,
    statuses,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import LiteralString

    from tests.queued import Claimed
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with limited queues."""
    site = Site(database)
    site.apply(
        queue("few", concurrency=5, lease="10s"),
        queue("slow", rate="10/1m"),
        queue("brisk", rate="20/1s"),
        queue("both", concurrency=2, rate="5/1m"),
    )
    return site


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    return connect(site)


MOST_RUNNING: LiteralString = """
WITH steps AS (
    SELECT started_at AS at, 1 AS step FROM reconciler.jobs WHERE queue = %s
     UNION ALL
    SELECT completed_at, -1 FROM reconciler.jobs WHERE queue = %s
)
SELECT max(running) FROM (SELECT sum(step) OVER (ORDER BY at, step) AS running FROM steps) AS s
"""
"""How many ran at once at most, by their times; an end in the same moment comes before a beginning."""

MOST_STARTS: LiteralString = """
SELECT max(n) FROM (
    SELECT count(*) OVER (ORDER BY started_at RANGE BETWEEN CURRENT ROW AND %s::interval FOLLOWING) AS n
      FROM reconciler.jobs WHERE queue = %s AND started_at IS NOT NULL) AS s
"""
"""How many started in a window that begins with a start, and so in any window."""

ENDS: dict[str, Callable[[psycopg.Connection, Claimed], object]] = {
    "completed": lambda conn, job: complete(conn, [job]),
    "to be retried": lambda conn, job: fail(conn, job, retry_in=900),
    "dead": lambda conn, job: fail(conn, job, final=True),
    "snoozed": lambda conn, job: snooze(conn, job, 900),
    "given back": give_back,
    "cancelled": end_cancelled,
}


def test_no_more_run_than_may(conn: psycopg.Connection) -> None:
    """A claim takes as many as there is room for, and nothing where there is none."""
    fill(conn, 20, "few")
    assert len(claim(conn, "few", 3)) == 3
    assert len(claim(conn, "few", 10)) == 2
    assert claim(conn, "few", 10) == []


def test_however_a_job_ends_it_makes_room(conn: psycopg.Connection) -> None:
    """One that is not running any more leaves its place to another one."""
    fill(conn, 20, "few")
    jobs = claim(conn, "few", 10)
    for name, end in ENDS.items():
        end(conn, jobs.pop(0))
        more = claim(conn, "few", 10)
        assert len(more) == 1, name
        jobs += more


def test_a_vanished_worker_leaves_its_places(conn: psycopg.Connection) -> None:
    """When the leases are over, there is room again."""
    fill(conn, 20, "few")
    claim(conn, "few", 5)
    pass_time(conn, 11)
    assert claim(conn, "few", 10) == []
    assert rescue(conn) == 5
    assert len(claim(conn, "few", 10)) == 5


def test_a_limit_counts_jobs_with_and_without_keys(conn: psycopg.Connection) -> None:
    """Ordered jobs and others share the places."""
    for key in ("a", "b", "c", "d"):
        enqueue(conn, "few", ordering_key=key)
    fill(conn, 4, "few")
    assert len(claim(conn, "few", 10)) == 5
    assert claim(conn, "few", 10) == []


def test_dead_jobs_that_are_tried_again_need_a_place(conn: psycopg.Connection) -> None:
    """Claims of dead jobs keep the limit, too."""
    fill(conn, 10, "few")
    for _ in range(2):
        for one in claim(conn, "few", 5):
            fail(conn, one, final=True)
    assert len(claim(conn, "few", 10, status="failed")) == 5
    assert claim(conn, "few", 10, status="failed") == []


def test_jobs_of_the_runner_take_no_place(conn: psycopg.Connection) -> None:
    """One-time work in SQL that runs on a queue's name is none of its workers'."""
    fill(conn, 10, "few")
    conn.execute(
        "UPDATE reconciler.jobs SET handler = NULL, status = 'running', started_at = now(),"
        " lease_until = now() + interval '1 h' WHERE id <= (SELECT min(id) + 2 FROM reconciler.jobs)"
    )
    assert len(claim(conn, "few", 10)) == 5


def test_twelve_connections_on_a_queue_of_five(site: Site, conn: psycopg.Connection) -> None:
    """A thousand jobs over twelve connections: never more than five run, in their times and as counted."""
    fill(conn, 1000, "few")
    gauge = Gauge()

    def work(own: psycopg.Connection, number: int) -> None:
        give_up_at = time.monotonic() + 40
        while time.monotonic() < give_up_at:
            batch = claim(own, "few", 1 + number % 4, worker=f"w{number}")
            gauge.enter("few", *(one.id for one in batch))
            if number % 3 == 0:
                time.sleep(0.002)
            gauge.leave("few", len(batch))
            if batch:
                assert len(complete(own, batch)) == len(batch)
            elif statuses(site, "few") == {"completed": 1000}:
                return
        pytest.fail("not done in time")

    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        with site.database.server.connect() as own:
            while not is_over.wait(0.01):
                row = own.execute(
                    "SELECT count(*) FROM reconciler.jobs_open WHERE status = 'running'"
                ).fetchone()
                assert row is not None
                seen.append(row[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        together(site, 12, work)
    finally:
        is_over.set()
        watcher.join()
    assert gauge.most == {"few": 5}
    assert max(seen) <= 5
    assert len(set(gauge.order["few"])) == len(gauge.order["few"]) == 1000
    assert site.rows(MOST_RUNNING, "few", "few")[0][0] <= 5


def test_no_more_start_than_may_in_a_window(conn: psycopg.Connection) -> None:
    """In a minute as many as the rate says; the next ones when the first ones are a minute ago, or 63 s."""
    fill(conn, 40, "slow")
    assert len(complete(conn, claim(conn, "slow", 6))) == 6
    pass_time(conn, 30)
    assert len(complete(conn, claim(conn, "slow", 40))) == 4
    assert claim(conn, "slow", 40) == []
    pass_time(conn, 29)
    assert claim(conn, "slow", 40) == []
    pass_time(conn, 5)
    assert len(complete(conn, claim(conn, "slow", 40))) == 6
    pass_time(conn, 64)
    assert len(claim(conn, "slow", 40)) == 10


def test_a_rate_lets_through_what_it_says(site: Site, conn: psycopg.Connection) -> None:
    """A rate is not only never exceeded: over ten windows most of what it allows has started."""
    fill(conn, 200, "slow")
    done = 0
    for _ in range(100):
        done += len(complete(conn, claim(conn, "slow", 40)))
        pass_time(conn, 6.1)
    assert site.rows(MOST_STARTS, "1 minute", "slow")[0][0] <= 10
    assert done >= 80


def test_both_limits_hold(conn: psycopg.Connection) -> None:
    """Of two limits, the one with less room decides."""
    fill(conn, 20, "both")
    assert len(complete(conn, claim(conn, "both", 9))) == 2
    assert len(complete(conn, claim(conn, "both", 9))) == 2
    assert len(claim(conn, "both", 9)) == 1
    pass_time(conn, 64)
    assert len(claim(conn, "both", 9)) == 1


def test_twelve_connections_on_a_rate(site: Site, conn: psycopg.Connection) -> None:
    """Never more starts in any second than the rate says, over all connections, in real time."""
    fill(conn, 60, "brisk")

    def work(own: psycopg.Connection, number: int) -> None:
        give_up_at = time.monotonic() + 20
        while time.monotonic() < give_up_at:
            batch = claim(own, "brisk", 1 + number % 3)
            complete(own, batch)
            if not batch:
                if statuses(site, "brisk") == {"completed": 60}:
                    return
                time.sleep(0.02)
        pytest.fail("not done in time")

    together(site, 12, work)
    assert site.rows(MOST_STARTS, "999 milliseconds", "brisk")[0][0] <= 20


def test_what_is_given_back_has_started(conn: psycopg.Connection) -> None:
    """A rate counts starts: also of jobs that were given back, were snoozed or failed."""
    fill(conn, 30, "slow")
    for one in claim(conn, "slow", 10):
        give_back(conn, one)
    assert claim(conn, "slow", 40) == []


def test_a_limit_that_is_changed_counts_at_once(site: Site, conn: psycopg.Connection) -> None:
    """The next claim keeps what was applied last, whatever runs."""
    fill(conn, 20, "few")
    jobs = claim(conn, "few", 10)
    site.apply(queue("few", concurrency=2))
    complete(conn, jobs[:3])
    assert claim(conn, "few", 10) == []
    complete(conn, jobs[3:4])
    assert len(claim(conn, "few", 10)) == 1
    site.apply(queue("few"))
    assert len(claim(conn, "few", 100)) == 14


def test_a_claim_that_is_open_keeps_its_places(site: Site, conn: psycopg.Connection) -> None:
    """What another worker is just claiming counts: the next claim waits for that decision."""
    fill(conn, 20, "few")
    other = site.database.connect(autocommit=False)
    claim(other, "few", 3)
    conn.execute("SET lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        claim(conn, "few", 10)
    other.commit()
    assert len(claim(conn, "few", 10)) == 2


def test_a_limit_is_not_claimed_with_an_old_snapshot(site: Site) -> None:
    """In a repeatable read transaction a claim with a limit is refused."""
    old = site.database.connect(autocommit=False)
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    for name in ("few", "slow"):
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="read committed"):
            claim(old, name, 10)
        old.rollback()
