"""Faults of worker processes, their server and what lies between: no job is lost, and few are done twice."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.declared import Site, queue
from tests.network import network_to
from tests.pooler import run_shared_pooler
from tests.queued import enqueue, pass_time, rescue, statuses, wait_for_statuses
from tests.servers import wait_until
from tests.worker_processes import Crew, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from tests.network import Network
    from tests.servers import Database

pytestmark = pytest.mark.one_server

RUNNING: LiteralString = "SELECT id FROM reconciler.jobs_open WHERE status = 'running' AND queue = 'mail'"
ENDS: LiteralString = "SELECT handler, status, last_error, result FROM reconciler.jobs_finished ORDER BY id"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with queues."""
    site = Site(database)
    site.apply(
        queue("mail", lease="10s", backoff={"initial": "10ms", "factor": 1, "max": "10ms"}),
        queue("brief", lease="1s", backoff={"initial": "10ms", "factor": 1, "max": "10ms"}),
        queue("deadly", lease="10s", max_attempts=20),
        queue("once", max_attempts=1),
        queue("few", concurrency=5),
    )
    return site


@pytest.fixture
def crew(site: Site, tmp_path: Path) -> Iterator[Crew]:
    """Workers, all of which are ended with the test."""
    crew = Crew(tmp_path, site.dsn)
    yield crew
    crew.close()


def check_once(crew: Crew, count: int, *, again: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """See that all jobs were begun, and none twice but those that may be."""
    begun = crew.noted("begin")
    assert len(begun) == count
    assert {job for job, times in begun.items() if times > 1} <= again
    assert crew.noted("end").keys() == begun.keys()


def test_a_worker_that_is_killed(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Of 1,000 jobs none is lost; those that the worker had not are done once, its own at least once."""
    put(conn, 1000, "mail", seconds=0.002)
    first = crew.start(queue="mail", concurrency=10)
    crew.wait_for("end", 300)
    first.kill()
    first.wait(5)
    held = {job for (job,) in conn.execute(RUNNING)}
    assert held
    assert statuses(site, "mail").get("completed", 0) < 1000
    crew.start(queue="mail", concurrency=10)

    def are_others_done() -> bool:
        return "pending" not in statuses(site, "mail") and {job for (job,) in conn.execute(RUNNING)} <= held

    wait_until(are_others_done, seconds=20, what="the others are done")
    pass_time(conn, 11)
    rescue(conn, 1000)
    wait_for_statuses(site, "mail", completed=1000)
    check_once(crew, 1000, again=held)


def test_a_server_that_crashes_under_load(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """The worker goes on by itself when the server is back, and writes what it did: nothing twice."""
    put(conn, 400, "mail", seconds=0.02)
    worker = crew.start(queue="mail", concurrency=10)
    crew.wait_for("end", 50)
    site.database.server.stop(immediate=True)
    time.sleep(0.3)
    site.database.server.start()
    finish(site, crew, 400)
    check_once(crew, 400)
    assert worker.poll() is None
    assert "again after" in crew.stderr()


def test_a_server_that_restarts_under_load(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """So it is when the server stops in order and starts, with a worker on a blocking queue."""
    put(conn, 60, "blocking", seconds=0.01)
    crew.start(queue="blocking")
    crew.wait_for("end", 10)
    site.database.server.restart()
    finish(site, crew, 60, "blocking")
    check_once(crew, 60)


def test_connections_that_are_terminated(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Again and again, all connections of a worker: it connects again, and nothing is done twice."""
    put(conn, 500, "mail", seconds=0.02)
    crew.start(queue="mail", concurrency=10)
    crew.wait_for("end", 20)
    for _ in range(4):
        ended = conn.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'reconciler worker'"
        ).fetchone()
        assert ended is not None
        time.sleep(0.25)
    finish(site, crew, 500)
    check_once(crew, 500)


def finish(site: Site, crew: Crew, count: int, name: str = "mail") -> None:
    """Wait until all is done: also jobs of a claim whose answer never came, once their leases are over."""
    conn = site.database.connect()

    def is_done() -> bool:
        return statuses(site, name) == {"completed": count}

    def is_idle() -> bool:
        ended = crew.noted("end")
        running = {
            job for (job,) in conn.execute("SELECT id FROM reconciler.jobs_open WHERE status = 'running'")
        }
        return (
            "pending" not in statuses(site, name) and not running & crew.noted("begin").keys() and bool(ended)
        )

    if name == "blocking":
        wait_until(lambda: is_done() or stuck(conn, crew), seconds=20, what=crew.said())
    else:
        wait_until(lambda: is_done() or is_idle(), seconds=20, what=crew.said())
    if not is_done():
        pass_time(conn, 31)
        rescue(conn, 1000)
    wait_for_statuses(site, name, completed=count)


def stuck(conn: psycopg.Connection, crew: Crew) -> bool:
    """Tell whether a job runs that no worker knows of: its claim's answer was lost."""
    rows = conn.execute(
        "SELECT id FROM reconciler.jobs_open WHERE status = 'running' AND started_at < now() - interval '1 s'"
    ).fetchall()
    return bool(rows) and rows[0][0] not in crew.noted("begin")


@pytest.mark.parametrize(("name", "most"), [("few", 5), ("blocking", 1)])
def test_three_workers_on_one_limit(
    site: Site, conn: psycopg.Connection, crew: Crew, name: str, most: int
) -> None:
    """However many each could do: together they do no more at once than the queue allows, each job once."""
    put(conn, 100, name, seconds=0.003)
    for _ in range(3):
        crew.start(queue=name, concurrency=10)
    wait_for_statuses(site, name, completed=100)
    assert crew.most_at_once() <= most
    check_once(crew, 100)


def test_a_worker_that_stops_in_order(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """SIGTERM: what has begun is finished, the rest given back as if it had never been claimed."""
    put(conn, 300, "mail", seconds=0.05)
    first = crew.start(queue="mail", concurrency=10)
    crew.wait_for("end", 60)
    first.terminate()
    assert first.wait(10) == 0
    assert crew.noted("begin") == crew.noted("end")
    done = len(crew.noted("end"))
    assert statuses(site, "mail") == {"completed": done, "pending": 300 - done}
    assert site.rows("SELECT count(*) FROM reconciler.jobs_open WHERE attempts > 0") == [(0,)]
    assert site.rows("SELECT count(*) FROM reconciler.pull_workers") == [(0,)]
    crew.start("--drain", queue="mail", concurrency=50)
    wait_for_statuses(site, "mail", completed=300)
    check_once(crew, 300)


def test_a_worker_that_stops_with_jobs_that_hang(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """After its grace it gives back what does not end, coroutines and threads, and goes."""
    for handler in ("work.hang", "work.hang_sync"):
        put(conn, 1, "mail", handler)
    first = crew.start("--grace", "300ms", queue="mail")
    crew.wait_for("begin", 2)
    first.terminate()
    began = time.monotonic()
    assert first.wait(15) in {0, 1}
    assert time.monotonic() - began < 8
    assert statuses(site, "mail") == {"pending": 2}
    assert site.rows("SELECT DISTINCT attempts FROM reconciler.jobs") == [(0,)]


def test_handlers_that_do_not_behave(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Raising, hanging, returning what JSON cannot hold: each is noted, and hinders no other job."""
    text = "ø" * 500_000
    enqueue_all(conn, [("work.raise", {}), ("work.hang", {}), ("work.hang_sync", {}), ("work.odd", {})])
    enqueue_all(conn, [("work.unknown", {}), ("work.size", {"text": text}), ("work.do", {"odd": [None, {}]})])
    worker = crew.start(queue="once", concurrency=4)
    wait_for_statuses(site, "once", completed=3, failed=4)
    ends = {handler: (status, error, result) for handler, status, error, result in site.rows(ENDS)}
    assert ends["work.raise"][0] == "failed"
    assert "LookupError" in ends["work.raise"][1]
    assert "no such order" in ends["work.raise"][1]
    for handler in ("work.hang", "work.hang_sync"):
        assert ends[handler][0] == "failed"
        assert "1" in ends[handler][1], "the limit"
    assert ends["work.odd"][0] == "completed"
    assert "object" in ends["work.odd"][1]
    assert ends["work.unknown"][0] == "failed"
    assert "work.unknown" in ends["work.unknown"][1]
    assert ends["work.size"] == ("completed", None, {"size": 500_000, "text": text})
    assert ends["work.do"][0] == "completed"
    assert worker.poll() is None


def enqueue_all(conn: psycopg.Connection, jobs: list[tuple[str, dict[str, Any]]]) -> None:
    """Put jobs on the queue `once`, with a second for each."""
    for handler, payload in jobs:
        job = enqueue(conn, "once", payload=payload, timeout=1)
        conn.execute("UPDATE reconciler.jobs SET handler = %s WHERE id = %s", [handler, job])


def test_a_handler_that_blocks_longer_than_its_lease(
    site: Site, conn: psycopg.Connection, crew: Crew
) -> None:
    """Whether it blocks the event loop or a thread, its lease is kept, and nobody else gets the job."""
    put(conn, 1, "brief", "work.block", seconds=2.5)
    put(conn, 1, "brief", "work.sync", seconds=2.5)
    for _ in range(2):
        crew.start(queue="brief", concurrency=1)
    wait_for_statuses(site, "brief", completed=2)
    assert site.rows("SELECT DISTINCT attempts, losses FROM reconciler.jobs") == [(1, 0)]
    check_once(crew, 2)


def test_a_worker_that_was_away_comes_too_late(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Paused beyond its leases, it ends jobs that another one is at by now: its ends are stale."""
    put(conn, 5, "mail", "work.sync", seconds=1)
    first = crew.start(queue="mail")
    crew.wait_for("begin", 5)
    os.kill(first.pid, signal.SIGSTOP)
    lost = 0
    while lost < 5:  # a renewal may have been under way
        pass_time(conn, 11)
        lost += rescue(conn)
    conn.execute("UPDATE reconciler.jobs SET handler = 'work.gate', payload = '{}'")
    second = crew.start(queue="mail")
    wait_until(lambda: crew.noted("begin").total() == 10, seconds=20, what="the other one is at them")
    os.kill(first.pid, signal.SIGCONT)
    crew.wait_for("end", 5)
    first.terminate()
    assert first.wait(10) == 0
    assert "5 too late" in crew.stderr()
    assert statuses(site, "mail") == {"running": 5}
    (crew.folder / "open").touch()
    wait_for_statuses(site, "mail", completed=5)
    assert site.rows("SELECT DISTINCT (result ->> 'pid')::int, attempts FROM reconciler.jobs") == [
        (second.pid, 2)
    ]


def test_a_job_that_kills_its_worker(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """It is dead after three workers; what those had claimed with it comes at other times, and is done."""
    put(conn, 20, "deadly", seconds=0.01)
    put(conn, 1, "deadly", "work.die")
    put(conn, 20, "deadly", seconds=0.01)
    due: LiteralString = "UPDATE reconciler.jobs_open SET run_at = now() WHERE (handler = 'work.die') = %s"
    for losses in (1, 2, 3):
        worker = crew.start(queue="deadly")
        if losses > 1:
            waits = [wait for (wait,) in conn.execute("SELECT run_at FROM reconciler.jobs_open")]
            assert len(set(waits)) == len(waits)
            conn.execute(due, [False])
            wait_for_statuses(site, "deadly", completed=40, pending=1)
            conn.execute(due, [True])
        assert worker.wait(20) == 9
        pass_time(conn, 11)
        assert rescue(conn) >= 1
    wait_for_statuses(site, "deadly", completed=40, failed=1)
    assert site.rows("SELECT handler, losses FROM reconciler.jobs WHERE status = 'failed'") == [
        ("work.die", 3)
    ]


def test_the_clock_of_the_server_decides(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Workers whose clocks are nine hours wrong do what is due, keep their leases and leave the rest."""
    for queue_name, skew in (("mail", 9 * 3600.0), ("brief", -9 * 3600.0)):
        enqueue(conn, queue_name, after=3600, payload={"late": True})
        put(conn, 20, queue_name, seconds=0.01)
        put(conn, 1, queue_name, "work.sync", seconds=1.3)
        crew.start(queue=queue_name, skew=skew)
    for queue_name in ("mail", "brief"):
        wait_for_statuses(site, queue_name, completed=21, pending=1)
    assert site.rows("SELECT DISTINCT attempts, losses FROM reconciler.jobs_finished") == [(1, 0)]
    assert site.rows(
        "SELECT count(*) FROM reconciler.jobs_finished"
        " WHERE completed_at NOT BETWEEN created_at AND clock_timestamp()"
    ) == [(0,)]
    pass_time(conn, 3601)
    for queue_name in ("mail", "brief"):
        wait_for_statuses(site, queue_name, completed=22)


def test_a_network_that_is_cut(site: Site, conn: psycopg.Connection, crew: Crew) -> None:
    """Jobs go on meanwhile; what they did is written when the network is back: nothing is done twice."""
    put(conn, 200, "mail", seconds=0.05)
    with lay_network(site) as (network, dsn):
        crew.start(queue="mail", dsn=dsn, prefix=network.prefix)
        crew.wait_for("end", 30)
        network.cut()
        before = len(crew.noted("end"))
        time.sleep(1.5)
        assert len(crew.noted("end")) > before
        network.mend()
        finish(site, crew, 200)
    check_once(crew, 200)


def test_a_network_that_is_cut_for_longer_than_a_lease(
    site: Site, conn: psycopg.Connection, crew: Crew
) -> None:
    """Another worker does the jobs meanwhile; what the first one says of them later changes nothing."""
    put(conn, 5, "mail", "work.sync", seconds=0.5)
    with lay_network(site) as (network, dsn):
        first = crew.start(queue="mail", dsn=dsn, prefix=network.prefix)
        crew.wait_for("begin", 5)
        network.cut()
        lost = 0
        while lost < 5:  # a renewal may have been under way
            pass_time(conn, 11)
            lost += rescue(conn)
        conn.execute("UPDATE reconciler.jobs SET handler = 'work.do', payload = '{}'")
        second = crew.start(queue="mail")
        wait_for_statuses(site, "mail", completed=5)
        crew.wait_for("end", 5)
        network.mend()
        first.terminate()
        assert first.wait(20) == 0
    assert "5 too late" in crew.stderr()
    assert site.rows("SELECT DISTINCT (result ->> 'pid')::int, attempts FROM reconciler.jobs") == [
        (second.pid, 2)
    ]


@contextmanager
def lay_network(site: Site) -> Iterator[tuple[Network, str]]:
    """Lay a network to the test's server; yield it and how a worker connects through it."""
    parts = conninfo_to_dict(site.database.server.tcp_dsn)
    with network_to(str(parts["host"]), int(parts["port"] or 5432)) as network:
        host, port = network.address
        # What is not answered in a second counts as lost: in earnest it is fifteen.
        yield network, make_conninfo("", **{**parts, "host": host, "port": port, "tcp_user_timeout": 1000})


@pytest.mark.parametrize("size", [1, 3])
def test_a_worker_behind_a_pooler(site: Site, conn: psycopg.Connection, crew: Crew, size: int) -> None:
    """In transaction mode, down to one backend for all connections: it works, and says what it lacks."""
    put(conn, 200, "mail")
    put(conn, 10, "blocking")
    with run_shared_pooler(site.dsn, size=size) as dsn:
        worker = crew.start(queue="mail,blocking", dsn=dsn)
        wait_for_statuses(site, "mail", completed=200)
        wait_for_statuses(site, "blocking", completed=10)
        put(conn, 1, "mail")
        wait_for_statuses(site, "mail", completed=201)
        worker.terminate()
        assert worker.wait(10) == 0
    if size > 1:
        assert "pooler" in crew.stderr()
    check_once(crew, 211)
