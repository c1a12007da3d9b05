"""The run endpoint when something goes wrong: jobs that hang, leases, callers and servers that go away."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from reconciler.runtime import performers
from reconciler.runtime.handlers import Handlers
from reconciler.runtime.http_messages import Call
from reconciler.runtime.run_endpoint import RunEndpoint
from tests.calling import TOKEN, Client, Work, put, serve_endpoint, wait_for
from tests.declared import Site, queue
from tests.queued import look, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from reconciler.runtime.http_messages import Answer
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


def test_a_job_whose_lease_was_lost_is_told_to_end(site: Site, conn: Connection, work: Work) -> None:
    """Somebody else has it by now: the handler is interrupted, and what it does changes nothing."""
    site.apply(queue("short", lease="1s"))
    job = put(conn, "wait", "short")
    with serve_endpoint(site.dsn, work.handlers) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run, "queue=short")
        wait_for(lambda: len(work.done) == 1)
        conn.execute("UPDATE reconciler.jobs SET token = token + 1, worker = 'other' WHERE id = %s", [job])
        assert call.result(20).statuses == ["lost"]
        assert work.interrupted == [0]
    assert look(conn, job)["worker"] == "other"


def test_a_caller_that_goes_away_loses_no_job(
    conn: Connection, client: Client, work: Work, site: Site
) -> None:
    """The connection is cut in the middle: what runs comes to its end, and is written down."""
    put(conn, "wait")
    with socket.create_connection(("127.0.0.1", client.port)) as caller:
        head = f"POST /api/jobs/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        caller.sendall(head.encode())
        wait_for(lambda: len(work.done) == 1)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.2)
    assert statuses(site) == {"running": 1}
    work.gate.set()
    wait_for(lambda: statuses(site) == {"completed": 1})


def test_a_call_that_is_cancelled_claims_no_more(conn: Connection, site: Site, work: Work) -> None:
    """Some servers cancel the task of a caller that is gone: what runs ends, the rest is left to others."""
    for n in range(3):
        put(conn, "wait", n=n)

    async def cancel() -> None:
        endpoint = RunEndpoint(site.dsn, work.handlers, tokens=TOKEN, concurrency=1)
        call = Call(query="limit=3", headers={"Authorization": f"Bearer {TOKEN}"})
        task = asyncio.create_task(endpoint.answer_run(call))
        while not work.done:  # noqa: ASYNC110 - the handlers fill it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        work.gate.set()
        while statuses(site).get("completed") != 1:  # noqa: ASYNC110 - it is told nowhere else
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert statuses(site) == {"completed": 1, "pending": 2}
        await endpoint.aclose()

    asyncio.run(cancel())


def test_a_database_that_is_away_is_503(site: Site, conn: Connection, client: Client) -> None:
    """The answer says when to call again; the first call after it is back is answered."""
    job = put(conn, "do")
    assert client.get(job).status == 200
    conn.close()
    site.database.server.stop(immediate=True)
    replies = [client.run(), client.run(), client.enqueue(name="work.do"), client.get(job)]
    assert [reply.status for reply in replies] == [503] * 4
    assert {reply.headers["retry-after"] for reply in replies} == {"30"}
    assert {reply.document["detail"] for reply in replies} == {"the database cannot be reached"}
    site.database.server.start()
    assert client.run().statuses == ["completed"]
    assert client.get(job).status == 200


def test_a_connection_that_was_cut_while_idle_is_not_used(conn: Connection, client: Client) -> None:
    """The next call does not pay for what happened since the last one."""
    put(conn, "do")
    assert client.run().status == 200
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
    assert conn.execute(cut, ["reconciler worker"]).fetchone() != (0,)
    time.sleep(0.2)
    assert client.run().status == 200


def test_a_restart_of_the_server_loses_no_end(
    site: Site, conn: Connection, client: Client, work: Work
) -> None:
    """A job that ends while the server is away is written down when it is back."""
    put(conn, "wait")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run)
        wait_for(lambda: len(work.done) == 1)
        conn.close()
        site.database.server.stop(immediate=True)
        work.gate.set()
        time.sleep(0.5)
        site.database.server.start()
        assert call.result(30).statuses == ["completed"]
    assert statuses(site) == {"completed": 1}


def test_a_database_without_the_schema_is_told(database: Database, work: Work) -> None:
    """What is missing, and what to do about it."""
    with serve_endpoint(database.dsn, work.handlers) as client:
        replies = [client.run(), client.enqueue(name="a"), client.get(1)]
    assert [reply.status for reply in replies] == [500] * 3
    assert {reply.document["remedy"] for reply in replies} == {"run reconciler migrate"}


def test_a_role_without_rights_is_told(site: Site, work: Work) -> None:
    """Each half of the endpoint needs its grant, and no more than that."""
    site.run("CREATE ROLE runner LOGIN")
    with serve_endpoint(site.database.dsn_for("runner"), work.handlers) as client:
        refused = client.run()
        assert (refused.status, refused.document["detail"]) == (
            500,
            "the role of this endpoint lacks a right",
        )
        assert "allow_work" in refused.document["remedy"]
        assert b"runner" not in refused.body
        assert client.enqueue(name="a").status == 500
        site.run("GRANT USAGE ON SCHEMA reconciler TO runner")
        site.run("SELECT reconciler.allow_work('runner')")
        assert client.run().status == 200
        assert client.enqueue(name="a").status == 500
        site.run("SELECT reconciler.allow_enqueue('runner')")
        assert client.enqueue(name="work.do").status == 201
        assert client.run().statuses == ["completed"]


def test_jobs_that_run_get_their_time_at_the_end(site: Site, conn: Connection, work: Work) -> None:
    """An end within the grace counts: the process waits for it."""
    put(conn, "wait")
    with serve_endpoint(site.dsn, work.handlers, grace=10) as client:
        assert client.run("wait=false").status == 202
        wait_for(lambda: len(work.done) == 1)
        threading.Timer(0.5, work.gate.set).start()
    assert statuses(site) == {"completed": 1}


@pytest.mark.parametrize("name", ["wait", "block"])
def test_jobs_that_take_longer_are_given_back(
    site: Site, conn: Connection, work: Work, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the grace is over, what runs is interrupted and pending again; that was no try."""
    job = put(conn, name)
    with serve_endpoint(site.dsn, work.handlers, grace=0.3) as client:
        assert client.run("wait=false").status == 202
        wait_for(lambda: len(work.done) == 1)
    found = look(conn, job)
    assert (found["status"], found["attempts"]) == ("pending", 0)
    assert work.interrupted == ([0] if name == "wait" else [])
    assert "left behind" not in caplog.text


def test_a_process_that_ends_takes_no_more_calls(conn: Connection, site: Site, work: Work) -> None:
    """A call that comes while it ends is sent elsewhere, and nothing is claimed."""
    put(conn, "do")

    async def call() -> Answer:
        endpoint = RunEndpoint(site.dsn, work.handlers, tokens=TOKEN)
        endpoint.stop()
        answer = await endpoint.answer_run(Call(headers={"authorization": f"Bearer {TOKEN}"}))
        await endpoint.aclose()
        return answer

    answer = asyncio.run(call())
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert statuses(site) == {"pending": 1}


def test_who_waits_for_a_place_is_answered_when_the_process_ends(
    conn: Connection, site: Site, work: Work
) -> None:
    """A call that has claimed nothing yet does not wait for jobs of others."""
    for n in range(2):
        put(conn, "wait", n=n)

    async def call() -> int:
        endpoint = RunEndpoint(site.dsn, work.handlers, tokens=TOKEN, concurrency=1)
        calls = [Call(headers={"authorization": f"Bearer {TOKEN}"})] * 2
        first, second = [asyncio.create_task(endpoint.answer_run(call)) for call in calls]
        while not work.done:  # noqa: ASYNC110 - the handlers fill it
            await asyncio.sleep(0.01)
        endpoint.stop()
        done, _ = await asyncio.wait([first, second], timeout=5, return_when=asyncio.FIRST_COMPLETED)
        work.gate.set()
        await endpoint.aclose()
        await first
        assert done == {second}
        return int(second.result().document["claimed"])

    assert asyncio.run(call()) == 0


def test_jobs_of_a_worker_that_is_gone_are_taken(conn: Connection, client: Client) -> None:
    """A call rescues what others lost, so that no other process is needed for it."""
    job = put(conn, "do")
    conn.execute("SELECT reconciler.claim_jobs('default', 'gone', 1)")
    conn.execute("UPDATE reconciler.jobs SET lease_until = now() - interval '1 s'")
    client.run()
    found = look(conn, job)
    assert (found["status"], found["losses"]) == ("pending", 1)


def test_a_handler_that_holds_up_the_event_loop_keeps_its_lease(site: Site, conn: Connection) -> None:
    """A coroutine that blocks where it should wait stops all else, but nobody takes its job."""
    handlers = Handlers()

    async def hold() -> str:
        time.sleep(2.5)  # noqa: ASYNC251 - that is the fault
        return "held"

    handlers.register(hold, "work.hold")
    site.apply(queue("short", lease="1s"))
    job = put(conn, "hold", "short")
    with serve_endpoint(site.dsn, handlers) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.run, "queue=short")
        wait_for(lambda: look(conn, job)["status"] == "running")
        time.sleep(2)
        conn.execute("SELECT reconciler.rescue_jobs()")
        assert look(conn, job)["status"] == "running"
        assert call.result(20).statuses == ["completed"]


def test_a_coroutine_that_cannot_be_ended_is_left_behind(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed in time all the same; where too many of them hang, no more jobs are claimed."""
    monkeypatch.setattr(performers, "_LEAVE_AFTER", 0.2)
    gate = threading.Event()
    handlers = Handlers()

    async def cling() -> None:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    handlers.register(cling, "work.cling")
    for _ in range(3):
        put(conn, "cling", timeout=0.2)
    with serve_endpoint(site.dsn, handlers, concurrency=2) as client:
        [told] = client.run().document["jobs"]
        assert (told["status"], "timed out" in told["error"]) == ("pending", True)
        assert client.run().document["claimed"] == 1
        reply = client.run()
        assert (reply.status, reply.document["detail"]) == (
            503,
            "2 handlers hang beyond their time, and only the end of the process ends them",
        )
        gate.set()
        wait_for(lambda: client.run().status == 200)
