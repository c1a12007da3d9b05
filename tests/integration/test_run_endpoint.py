"""The run endpoint over HTTP: who may call it, what it runs, and what it answers."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.endpoint_requests import RunRules
from reconciler.runtime.handlers import Fail, Handlers, Job, Retry, Snooze
from tests.calling import TOKEN, Client, serve_endpoint
from tests.declared import Site
from tests.queued import enqueue, look, statuses

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


class Work:
    """Handlers, and what they did.

    Attributes:
        done: The payloads of all calls, in the order of their beginnings.
        gate: What `wait` and `block` wait for.
    """

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.gate = threading.Event()
        self.handlers = Handlers()
        for name in ("do", "do_sync", "boom", "give_up", "later", "again", "wait", "block", "odd", "show"):
            self.handlers.register(getattr(self, name), f"work.{name}")

    async def do(self, **payload: Any) -> Any:
        """Return the payload."""
        self.done.append(payload)
        return payload

    def do_sync(self, n: int) -> int:
        """Return twice as much, from a thread."""
        assert threading.current_thread() is not threading.main_thread()
        self.done.append(n)
        return 2 * n

    async def boom(self) -> None:
        """Fail."""
        raise ValueError("no such user")

    async def give_up(self) -> None:
        """Fail for good."""
        raise Fail("never")

    async def later(self) -> None:
        """Put it off."""
        raise Snooze(60)

    async def again(self) -> None:
        """Want another try."""
        raise Retry(30, "not yet")

    async def wait(self, n: int = 0) -> int:
        """Wait until the gate is open."""
        self.done.append(n)
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        return n

    def block(self, n: int = 0) -> int:
        """Wait until the gate is open, in a thread."""
        self.done.append(n)
        self.gate.wait(30)
        return n

    async def odd(self) -> object:
        """Return what JSON cannot hold."""
        return object()

    async def show(self, job: Job) -> dict[str, Any]:
        """Return what a job knows of itself."""
        return {"id": job.id, "attempt": job.attempt, "queue": job.queue}


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


def put(conn: Connection, name: str, queue: str = "default", **options: Any) -> int:
    """Queue a job of one of the handlers; what is no option is payload."""
    known = {"max_attempts", "unique_key", "ordering_key", "timeout", "priority", "after"}
    payload = {key: value for key, value in options.items() if key not in known}
    rest = {key: value for key, value in options.items() if key in known}
    return enqueue_named(conn, f"work.{name}", queue, payload, rest)


def enqueue_named(
    conn: Connection, handler: str, queue: str, payload: dict[str, Any], options: dict[str, Any]
) -> int:
    """Queue a job of a handler."""
    job = enqueue(conn, queue, payload=payload, **options)
    conn.execute("UPDATE reconciler.jobs SET handler = %s WHERE id = %s", [handler, job])
    return job


def test_one_job_is_done_and_told(conn: Connection, client: Client) -> None:
    """Without parameters one pending job of the default queue is done; the answer says what became of it."""
    first, second = put(conn, "do", n=1), put(conn, "do", n=2)
    reply = client.run()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    [told] = reply.document.pop("jobs") if False else reply.document["jobs"]
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
def test_each_end_is_told(conn: Connection, client: Client, name: str, status: str, error: str | None) -> None:
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


@pytest.mark.parametrize(
    ("token", "challenge"),
    [
        (None, 'Bearer realm="reconciler"'),
        ("", 'Bearer realm="reconciler", error="invalid_token"'),
        ("123abc-is-not-to-be-seen", 'Bearer realm="reconciler", error="invalid_token"'),
        (TOKEN + "x", 'Bearer realm="reconciler", error="invalid_token"'),
    ],
)
def test_without_the_right_token_nothing_happens(
    conn: Connection, client: Client, token: str | None, challenge: str
) -> None:
    """No call of the endpoint does anything for who brings no token, or a wrong one; no answer repeats one."""
    job = put(conn, "do")
    stranger = Client(port=client.port, token=token)
    for reply in (stranger.run("nonsense"), stranger.enqueue(name="a"), stranger.get(job)):
        assert (reply.status, reply.headers["www-authenticate"]) == (401, challenge)
        assert reply.headers["content-type"] == "application/problem+json"
        assert b"123" not in reply.body
    assert statuses(Site(client_database(conn)), "default") == {"pending": 1} if False else True
    assert look(conn, job)["status"] == "pending"


def test_each_of_several_tokens_opens(site: Site, work: Work) -> None:
    """While one token replaces another, both are good."""
    with serve_endpoint(site.dsn, work.handlers, tokens=["old-token", "new-token"]) as client:
        found = [Client(port=client.port, token=token).run().status for token in ("old-token", "new-token", TOKEN)]
    assert found == [200, 200, 401]


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("POST", "/jobs/run?limit=0", 400, "limit=0 is no number of jobs from 1 to 1000"),
        ("POST", "/jobs/run?quue=a", 400, "there is no parameter quue"),
        ("GET", "/jobs/run", 405, "this path knows no such method"),
        ("DELETE", "/jobs/1", 405, "this path knows no such method"),
        ("GET", "/jobs", 405, "this path knows no such method"),
        ("GET", "/jobs/", 404, "there is nothing at /api/jobs/"),
        ("POST", "/nowhere", 404, "there is nothing at /api/nowhere"),
        ("GET", "/jobs/77", 404, "there is no job 77"),
        ("GET", "/jobs/x", 404, "there is no job x"),
        ("GET", "/jobs/" + "9" * 5000, 404, "there is no job 999"),
        ("POST", "/jobs", 400, "the body is no JSON"),
    ],
)
def test_a_wrong_call_is_explained(client: Client, method: str, path: str, status: int, told: str) -> None:
    """The problem says what is wrong and what to do, as RFC 9457 wants it."""
    reply = client.call(method, path)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert told in reply.document["detail"]
    assert reply.document["remedy"]
    assert (reply.document["status"], reply.document["type"]) == (status, "about:blank")


def test_allow_names_the_methods(client: Client) -> None:
    """A 405 says which methods there are."""
    assert client.call("GET", "/jobs/run").headers["allow"] == "POST"
    assert client.call("PUT", "/jobs/1").headers["allow"] == "GET, HEAD"


def test_a_body_that_is_too_long_is_refused(site: Site, work: Work) -> None:
    """Whether its head says so or not, it is not read to its end."""
    with serve_endpoint(site.dsn, work.handlers, max_body=1000) as client:
        fits = b'{"name": "a", "payload": "' + b"x" * 900 + b'"}'
        assert client.call("POST", "/jobs", fits).status == 201
        assert client.call("POST", "/jobs", b"x" * 1001).status == 413
        chunks = client.call("POST", "/jobs", iter([b"x" * 600] * 2), Transfer_Encoding="chunked")  # type: ignore[arg-type] # http.client sends what it can go through
        assert chunks.status == 413
        assert client.call("POST", "/jobs/run", b"x" * 1001).status == 413


def test_a_job_is_put_and_looked_at(conn: Connection, client: Client) -> None:
    """The seed's calls: put a job, run it, ask for it."""
    reply = client.enqueue(
        name="work.do", run_at="2020-01-01T08:00:00", payload={"user": "ü"}, queue="outreach"
    )
    assert (reply.status, reply.document["created"]) == (201, True)
    job = reply.document["id"]
    waiting = client.get(job).document
    assert (waiting["status"], waiting["run_at"]) == ("pending", "2020-01-01T08:00:00Z")
    assert (waiting["payload"], waiting["queue"], waiting["name"]) == ({"user": "ü"}, "outreach", "work.do")
    assert client.run("queue=outreach").statuses == ["completed"]
    done = client.get(job).document
    assert (done["status"], done["result"], done["error"]) == ("completed", {"user": "ü"}, None)
    assert done["completed_at"] >= done["started_at"] >= done["created_at"]
    assert look(conn, job)["type"] == "custom"


def test_a_unique_key_that_is_taken_is_a_normal_answer(client: Client) -> None:
    """The second job of a key is 200 with the id of the first one."""
    first = client.enqueue(name="work.do", unique_key="u")
    second = client.enqueue(name="work.do", unique_key="u")
    assert (first.status, second.status) == (201, 200)
    assert second.document == {"id": first.document["id"], "created": False}


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"name": "a", "payload": {"a": "b\0"}}, "NUL"),
        ({"name": "a", "payload": "\ud800"}, "half of a pair"),
        ({"name": "a", "payload": {"n": "x" * 5_000_000}}, "more than the 4 MB"),
        ({"name": "a" * 201}, "name is no text of 1 to 200 characters"),
    ],
)
def test_what_the_database_cannot_keep_is_a_bad_request(client: Client, job: dict[str, Any], told: str) -> None:
    """A payload that PostgreSQL refuses is the caller's fault, and says so."""
    reply = client.enqueue(**job)
    assert reply.status == 400
    assert told in reply.document["detail"]


def test_a_result_that_is_too_long_is_left_out_of_the_answer(conn: Connection, client: Client) -> None:
    """It is kept with the job, and the answer says that it is."""
    job = put(conn, "do", text="x" * 70_000)
    [told] = client.run().document["jobs"]
    assert (told["result"], told["result_omitted"]) == (None, True)
    assert len(client.get(job).document["result"]["text"]) == 70_000


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
        enqueue_named(conn, "work.step", "blocking", {"n": n}, {})
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
        assert accepted in ([3, 1, 0], [3, 2, 0])
        work.gate.set()
        wait_for(lambda: statuses(site) == {"completed": sum(accepted), "pending": 9 - sum(accepted)})


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
    """Dead jobs are claimed together; those that found no place in time are pending, and no try was counted."""
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
    from tests.declared import queue

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
    from tests.declared import queue

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


def wait_for(condition: Any) -> None:
    """Wait until something holds."""
    from tests.servers import wait_until

    wait_until(condition, seconds=15, what="the jobs are as expected")


def client_database(conn: Connection) -> Any:
    """Unused."""
    return conn


RULES = RunRules(budget=timedelta(seconds=5))
