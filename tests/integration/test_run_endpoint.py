"""The run endpoint over HTTP: what a call runs, and what it is answered."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from reconciler.core.endpoint_requests import RunRules
from reconciler.runtime.handlers import Handlers
from tests.calling import Client, Work, put, put_named, serve_endpoint, wait_for
from tests.declared import Site
from tests.queued import look, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema, and no job."""
    site = Site(database)
    site.apply()
    return site


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


def test_one_job_is_done_and_told(conn: Connection, client: Client) -> None:
    """Without parameters one pending job of the default queue is done; the answer says what became of it."""
    first, second = put(conn, "do", n=1), put(conn, "do", n=2)
    reply = client.run()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    [told] = reply.document["jobs"]
    assert told.pop("duration_seconds") >= 0
    assert told == {
        "id": first,
        "handler": "work.do",
        "status": "completed",
        "attempt": 1,
        "max_attempts": 5,
        "result": {"n": 1},
        "error": None,
    }
    document = reply.document
    assert (document["queue"], document["status"], document["limit"]) == ("default", "pending", 1)
    assert document["claimed"] == 1
    assert document["counts"] == {
        "completed": 1,
        "failed": 0,
        "pending": 0,
        "cancelled": 0,
        "running": 0,
        "lost": 0,
    }
    assert look(conn, first)["result"] == {"n": 1}
    assert look(conn, second)["status"] == "pending"


def test_nothing_to_do_is_a_normal_answer(client: Client) -> None:
    """An empty queue, or one that nobody knows, gives 200 and no jobs."""
    assert client.run("queue=nowhere&limit=5").document["claimed"] == 0


def test_up_to_limit_jobs_are_done_in_their_order(conn: Connection, client: Client, work: Work) -> None:
    """Higher priorities go first, then older jobs; other queues and later jobs stay."""
    for n in range(4):
        put(conn, "do", n=n, priority=n // 2)
    put(conn, "do", "other", n=9)
    put(conn, "do", n=8, after=60)
    reply = client.run("limit=3")
    assert reply.document["counts"]["completed"] == 3
    assert [payload["n"] for payload in work.done] == [2, 3, 0]
    assert client.run("limit=10").document["claimed"] == 1


def test_functions_run_in_threads(conn: Connection, client: Client) -> None:
    """A handler that is no coroutine function is called in a thread, and may be given its job."""
    put(conn, "do_sync", n=21)
    assert client.run().document["jobs"][0]["result"] == 42
    job = put(conn, "show")
    assert client.run().document["jobs"][0]["result"] == {"id": job, "attempt": 1, "queue": "default"}


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("boom", "pending", "ValueError: no such user"),
        ("give_up", "failed", "never"),
        ("later", "pending", None),
        ("again", "pending", "not yet"),
        ("odd", "completed", "the result was not kept"),
        ("nothing", "pending", "no handler is named work.nothing"),
    ],
)
def test_each_end_is_told(
    conn: Connection, client: Client, name: str, status: str, error: str | None
) -> None:
    """A job that did not go well is no failure of the call: 200, with what the job is now and why."""
    job = put(conn, name)
    reply = client.run()
    [told] = reply.document["jobs"]
    assert (reply.status, told["status"], told["result"]) == (200, status, None)
    assert (error or "") in (told["error"] or "")
    assert look(conn, job)["status"] == status
    assert reply.document["counts"][status] == 1


def test_dead_jobs_get_one_more_try(conn: Connection, client: Client) -> None:
    """`queue=failed` is the dead jobs of the default queue; each is tried once, however high the limit."""
    dead = put(conn, "boom", max_attempts=1)
    assert client.run().statuses == ["failed"]
    assert client.run().document["claimed"] == 0
    reply = client.run("queue=failed&limit=10")
    assert (reply.document["queue"], reply.document["status"]) == ("default", "failed")
    assert reply.statuses == ["failed"]
    conn.execute("UPDATE reconciler.jobs SET handler = 'work.do' WHERE id = %s", [dead])
    assert client.run("status=failed").statuses == ["completed"]
    assert client.run("queue=failed").document["claimed"] == 0


def test_two_calls_at_once_do_each_job_once(conn: Connection, client: Client, work: Work, site: Site) -> None:
    """However many calls come at the same moment, every job is done by one of them."""
    for n in range(200):
        put(conn, "do", n=n)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: client.run("limit=50"), range(8)))
    assert sum(reply.document["claimed"] for reply in replies) == 200
    assert sorted(payload["n"] for payload in work.done) == list(range(200))
    assert statuses(site) == {"completed": 200}


def test_a_blocking_queue_goes_one_at_a_time(conn: Connection, site: Site) -> None:
    """Through twelve calls at once, over two servers, its jobs run in order and never two together."""
    inside: list[int] = []
    order: list[int] = []
    most = 0

    async def step(n: int) -> None:
        nonlocal most
        inside.append(n)
        most = max(most, len(inside))
        order.append(n)
        await asyncio.sleep(0.005)
        inside.remove(n)

    handlers = Handlers()
    handlers.register(step, "work.step")
    for n in range(60):
        put_named(conn, "work.step", "blocking", {"n": n}, {})
    with serve_endpoint(site.dsn, handlers) as one, serve_endpoint(site.dsn, handlers) as other:

        def call(number: int) -> int:
            done = 0
            for _ in range(100):
                reply = (one, other)[number % 2].run("queue=blocking&limit=5")
                done += int(reply.document["counts"]["completed"])
                if statuses(site, "blocking") == {"completed": 60}:
                    break
            return done

        with ThreadPoolExecutor(12) as pool:
            done = sum(pool.map(call, range(12)))
    assert (done, most, order) == (60, 1, list(range(60)))


def test_one_call_goes_on_with_a_blocking_queue(conn: Connection, client: Client, work: Work) -> None:
    """The next job is claimed when the one before is finished, up to the limit."""
    for n in range(5):
        put(conn, "do", "blocking", n=n)
    assert client.run("queue=blocking&limit=4").document["claimed"] == 4
    assert [payload["n"] for payload in work.done] == [0, 1, 2, 3]


def test_no_more_jobs_run_at_once_than_there_are_places(conn: Connection, site: Site, work: Work) -> None:
    """What has no place is not claimed: another process may do it."""
    for n in range(6):
        put(conn, "wait", n=n)
    with serve_endpoint(site.dsn, work.handlers, concurrency=2) as client, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(client.run, "limit=3") for _ in range(2)]
        wait_for(lambda: len(work.done) == 2)
        time.sleep(0.2)
        assert statuses(site) == {"running": 2, "pending": 4}
        work.gate.set()
        assert [call.result(20).document["counts"]["completed"] for call in calls] == [3, 3]


def test_who_does_not_wait_gets_202(conn: Connection, client: Client, work: Work, site: Site) -> None:
    """The answer comes at once, and the jobs are done behind it."""
    for n in range(3):
        put(conn, "wait", n=n)
    reply = client.run("limit=2", Prefer="respond-async")
    assert (reply.status, reply.headers["preference-applied"]) == (202, "respond-async")
    assert reply.document == {"queue": "default", "status": "pending", "limit": 2, "accepted": 2}
    wait_for(lambda: len(work.done) == 2)
    again = client.run("limit=1&wait=false")
    assert (again.status, "preference-applied" in again.headers) == (202, False)
    wait_for(lambda: len(work.done) == 3)
    work.gate.set()
    wait_for(lambda: statuses(site) == {"completed": 3})


def test_what_is_put_off_is_bounded(conn: Connection, site: Site, work: Work) -> None:
    """However often it is called, no more jobs wait for places than one call may ask for."""
    for n in range(9):
        put(conn, "wait", n=n)
    rules = RunRules(max_limit=4)
    with serve_endpoint(site.dsn, work.handlers, concurrency=1, rules=rules) as client:
        accepted = [client.run("limit=3&wait=false").document["accepted"] for _ in range(3)]
        wait_for(lambda: len(work.done) == 1)
        # Four wait; while they come, the one place may take the first of them.
        assert accepted[0] == 3
        assert sum(accepted) in {4, 5}
        work.gate.set()
        wait_for(lambda: statuses(site) == {"completed": sum(accepted), "pending": 9 - sum(accepted)})
