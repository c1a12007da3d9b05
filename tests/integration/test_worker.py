"""The pull worker on a real database: what becomes of jobs, how many go on at once, and when they begin."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.errors import ConnectError, MigrationError, ReconcilerError, RightsError
from reconciler.runtime.handlers import Fail, Handlers, Job, Retry, Snooze
from reconciler.runtime.worker import Worker
from tests.declared import Site, queue
from tests.queued import Gauge, cancel, enqueue, fill, look, statuses, wait_for_statuses
from tests.servers import wait_until
from tests.worked import drain, handle, working

if TYPE_CHECKING:
    import psycopg

    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema and some queues."""
    site = Site(database)
    site.apply(
        queue("five", concurrency=5),
        queue("invoices", mode="blocking"),
        queue("short", lease="1s", timeout="1s"),
        queue("once", max_attempts=1),
    )
    return site


def raise_(error: Exception) -> Any:
    """Raise an error, as an expression."""
    raise error


def skip(job: Job) -> None:
    """Do nothing, whatever the payload."""


def test_jobs_are_done_with_their_payload_and_their_results_kept(
    site: Site, conn: psycopg.Connection
) -> None:
    """Coroutines and functions alike; the worker counts them."""

    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    def tell(job: Job, **payload: Any) -> dict[str, Any]:
        return {"id": job.id, "attempt": job.attempt, **payload}

    one = enqueue(conn, payload={"a": 1, "b": 2}, handler="work.add")
    other = enqueue(conn, payload={"é": [None]}, handler="work.tell")
    worker = drain(site, handle(add=add, tell=tell))
    assert look(conn, one)["result"] == 3
    assert look(conn, other)["result"] == {"id": other, "attempt": 1, "é": [None]}
    assert {look(conn, job)["status"] for job in (one, other)} == {"completed"}
    assert (worker.tally.claimed, worker.tally.completed, worker.tally.stale) == (2, 2, 0)


def test_a_try_that_fails_is_told_and_tried_again(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The job waits for its next try with class, message and place of the error."""
    job = enqueue(conn, handler="work.fail")
    worker = drain(site, handle(fail=lambda: raise_(ValueError("no such order"))))
    row = look(conn, job)
    assert (row["status"], row["attempts"]) == ("pending", 1)
    assert row["last_error"].startswith("ValueError: no such order\nTraceback (most recent call last):\n")
    assert "test_worker.py" in row["last_error"]
    assert worker.tally.failed == 1
    assert (
        f"<Job {job} work.fail on default, try 1> of 5 failed, it is tried again: ValueError" in caplog.text
    )


def test_what_a_handler_raises_decides_how_it_goes_on(site: Site, conn: psycopg.Connection) -> None:
    """Snooze counts no try, Retry sets the time, Fail is the end."""
    snoozed, retried, failed = (enqueue(conn, handler=f"work.{name}") for name in ("snooze", "retry", "fail"))
    functions = {
        "snooze": lambda: raise_(Snooze(600)),
        "retry": lambda: raise_(Retry(3600, "busy")),
        "fail": lambda: raise_(Fail("no such address")),
    }
    drain(site, handle(**functions))
    rows = [look(conn, job) for job in (snoozed, retried, failed)]
    assert [(row["status"], row["attempts"], row["last_error"]) for row in rows] == [
        ("pending", 0, None),
        ("pending", 1, "busy"),
        ("failed", 1, "no such address"),
    ]
    waits = site.rows(
        "SELECT round(extract(epoch FROM run_at - started_at) / 60)::integer FROM reconciler.jobs"
        " WHERE id = ANY (%s) ORDER BY id",
        [snoozed, retried],
    )
    assert waits == [(10,), (60,)]


def test_a_result_that_cannot_be_kept_is_noted(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is completed all the same, and so are those beside it."""
    odd = enqueue(conn, handler="work.odd")
    even = enqueue(conn, handler="work.even")
    drain(site, handle(odd=lambda: {"a": b""}, even=lambda: 2))
    row = look(conn, odd)
    assert (row["status"], row["result"]) == ("completed", None)
    assert "the result.a is of the class bytes, which JSON cannot hold" in row["last_error"]
    assert "the result was not kept" in caplog.text
    assert look(conn, even)["result"] == 2


def test_what_the_server_refuses_of_one_job_spoils_no_other(site: Site, conn: psycopg.Connection) -> None:
    """A result that a constraint forbids is left out, and noted; the rest of the batch is kept."""
    odd = enqueue(conn, handler="work.odd")
    even = enqueue(conn, handler="work.even")

    handlers = handle(odd=lambda: "x" * 5000, even=lambda: 2)
    site.run("ALTER TABLE reconciler.jobs_finished ADD CONSTRAINT small CHECK (length(result::text) < 4000)")
    drain(site, handlers)
    row = look(conn, odd)
    assert (row["status"], row["result"]) == ("completed", None)
    assert row["last_error"].startswith("the result was not kept: ")
    assert look(conn, even)["result"] == 2


def test_an_unknown_handler_fails_the_try(site: Site, conn: psycopg.Connection) -> None:
    """The error says what is missing, and the job waits for a worker that has it."""
    job = enqueue(conn, handler="work.dp")
    drain(site, handle(do=lambda: None))
    assert (
        "no handler is named work.dp in this worker; did you mean work.do?" in look(conn, job)["last_error"]
    )


@pytest.mark.parametrize("is_async", [True, False])
def test_no_more_jobs_than_wanted_go_on_at_once(site: Site, conn: psycopg.Connection, is_async: bool) -> None:
    """Coroutines and threads alike, and as many as wanted do."""
    gauge = Gauge()

    async def wait(job: Job) -> None:
        gauge.enter("a", job.id)
        await asyncio.sleep(0.02)
        gauge.leave("a")

    def block(job: Job) -> None:
        gauge.enter("a", job.id)
        time.sleep(0.02)
        gauge.leave("a")

    fill(conn, 40)
    drain(site, handle(do=wait if is_async else block), concurrency=4)
    assert gauge.most == {"a": 4}
    assert statuses(site) == {"completed": 40}


def test_jobs_begin_by_priority_and_time(site: Site, conn: psycopg.Connection) -> None:
    """The highest priority first, within it the one that was due first."""
    order: list[int] = []
    fill(conn, 30, priorities=3)
    expected = [row[0] for row in site.rows("SELECT id FROM reconciler.jobs ORDER BY -priority, run_at, id")]
    drain(site, handle(do=lambda job: order.append(job.id)), concurrency=1)
    assert order == expected


def test_a_job_begins_as_soon_as_it_is_queued(site: Site, conn: psycopg.Connection) -> None:
    """A worker that sleeps for a minute is woken."""
    with working(site, handle(do=lambda: None), poll=60) as worker:
        wait_until(lambda: bool(worker.tally.completed or _is_listening(site)), seconds=10, what="it listens")
        for number in range(1, 4):
            time.sleep(0.05)
            began = time.monotonic()
            enqueue(conn)
            wait_until(lambda n=number: worker.tally.completed == n, seconds=10, what="it is done")  # type: ignore[misc]
            assert time.monotonic() - began < 2


def _is_listening(site: Site) -> bool:
    return site.rows("SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN reconciler_cancel'") == [
        (1,)
    ]


def test_a_job_of_the_future_begins_when_it_is_due(site: Site, conn: psycopg.Connection) -> None:
    """Nobody says so: the worker looks now and then."""
    job = enqueue(conn, after=1)
    with working(site, handle(do=lambda: None), poll=0.1):
        wait_for_statuses(site, "default", completed=1)
    late = site.rows(
        "SELECT started_at - run_at BETWEEN '0' AND '1 s' FROM reconciler.jobs WHERE id = %s", job
    )
    assert late == [(True,)]


def test_several_queues_are_served_in_turn(site: Site, conn: psycopg.Connection) -> None:
    """A long one does not keep a short one waiting."""
    order: list[str] = []
    fill(conn, 2000, "long")
    fill(conn, 5, "brief")
    drain(site, handle(do=lambda job: order.append(job.queue)), "long", "brief", concurrency=2)
    assert statuses(site, "long") == {"completed": 2000}
    assert order.count("brief") == 5
    assert max(place for place, name in enumerate(order) if name == "brief") < 1000


def test_other_queues_are_left_alone(site: Site, conn: psycopg.Connection) -> None:
    """A worker takes nothing from a queue that it does not serve."""
    fill(conn, 1, "other")
    drain(site, handle(do=skip))
    assert statuses(site, "other") == {"pending": 1}


def test_a_blocking_queue_goes_on_without_a_pause(site: Site, conn: psycopg.Connection) -> None:
    """One at a time and in order, and the next begins when one has ended, not at the next look."""
    order: list[int] = []
    ids = [enqueue(conn, "invoices") for _ in range(30)]
    with working(site, handle(do=lambda job: order.append(job.id)), "invoices", poll=60, concurrency=8):
        wait_for_statuses(site, "invoices", completed=30)
    assert order == ids


def test_a_queue_with_a_limit_goes_on_without_a_pause(site: Site, conn: psycopg.Connection) -> None:
    """When there is room again, the worker that made it takes the next."""
    fill(conn, 40, "five")

    async def work(job: Job) -> None:  # noqa: ARG001 - it takes no keys
        await asyncio.sleep(0.005)

    with working(site, handle(do=work), "five", poll=60, concurrency=20):
        wait_for_statuses(site, "five", completed=40)


def test_slow_jobs_are_left_for_other_workers(site: Site, conn: psycopg.Connection) -> None:
    """A worker that is at work on as many as it may has claimed no more."""
    fill(conn, 50)

    async def work(job: Job) -> None:  # noqa: ARG001 - it takes no keys
        await asyncio.sleep(0.5)

    with working(site, handle(do=work), concurrency=3, poll=0.1) as worker:
        for _ in range(12):
            time.sleep(0.1)
            assert worker.running + worker.waiting <= 3
            # Besides those whose ends are just being written down.
            assert statuses(site).get("running", 0) <= 6


def test_jobs_that_become_slow_are_given_back(site: Site, conn: psycopg.Connection) -> None:
    """Hundreds were claimed while they were quick; those that wait go back to the others."""
    fill(conn, 6000)
    slow = threading.Event()

    async def work(n: int) -> None:
        if n == 3000:
            slow.set()
        if slow.is_set():
            await asyncio.sleep(30)

    with working(site, handle(do=work), concurrency=2, poll=60) as worker:
        wait_until(lambda: worker.tally.returned > 10, seconds=20, what="they are given back")
        wait_until(lambda: statuses(site)["running"] <= 4, seconds=10, what="few are kept")


def test_a_running_coroutine_is_cancelled(site: Site, conn: psycopg.Connection) -> None:
    """At once, by a message; by a renewal, where it did not listen yet."""
    began = threading.Event()

    async def wait() -> None:
        began.set()
        await asyncio.sleep(60)

    job = enqueue(conn)
    with working(site, handle(do=wait), poll=60) as worker:
        assert began.wait(10)
        assert cancel(conn, job) == "cancelling"
        wait_for_statuses(site, "default", cancelled=1, seconds=15)
        wait_until(lambda: worker.tally.cancelled == 1, seconds=15, what="the worker counts it")
    assert look(conn, job)["last_error"] == "cancelled by postgres"


def test_a_running_function_is_told_that_it_is_cancelled(site: Site, conn: psycopg.Connection) -> None:
    """It asks, and ends as it likes."""
    began = threading.Event()

    def wait(job: Job) -> None:
        began.set()
        while not job.is_cancelled():
            time.sleep(0.01)
        raise Fail("half of it is done")

    job = enqueue(conn)
    with working(site, handle(do=wait), poll=60):
        assert began.wait(10)
        cancel(conn, job)
        wait_for_statuses(site, "default", cancelled=1, seconds=15)
    assert look(conn, job)["last_error"] == "cancelled by postgres; half of it is done"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_try_that_takes_too_long_fails_in_time(
    site: Site, conn: psycopg.Connection, is_async: bool
) -> None:
    """By the queue's limit, or by the job's own; other jobs go on."""
    over = threading.Event()

    async def wait() -> None:
        await asyncio.sleep(60)

    jobs = [enqueue(conn, "short"), enqueue(conn, "short", timeout=0.3)]
    quick = enqueue(conn, "short", handler="work.quick")
    with working(
        site, handle(do=wait if is_async else over.wait, quick=lambda: 7), "short", concurrency=3
    ) as worker:
        wait_until(lambda: worker.tally.failed == 2, seconds=8, what="both have failed")
        wait_until(
            lambda: look(conn, quick)["status"] == "completed", seconds=5, what="the quick one is done"
        )
        over.set()
    errors = [look(conn, job)["last_error"] for job in jobs]
    assert errors == [
        "timed out: it took longer than 1 s",
        "timed out: it took longer than 0.3 s",
    ]


def test_a_worker_in_which_too_many_handlers_hang_gives_up(site: Site, conn: psycopg.Connection) -> None:
    """It says so, gives its other jobs back, and ends for its supervisor to start it again."""
    over = threading.Event()
    hanging = [enqueue(conn, "short", timeout=0.2) for _ in range(2)]
    worker = Worker(site.dsn, handle(do=over.wait), ["short"], concurrency=2)
    with pytest.raises(ReconcilerError, match="2 handlers hang beyond their time, and only the end of"):
        worker.run(signals=False)
    over.set()
    assert worker.tally.failed == 2
    assert {look(conn, job)["status"] for job in hanging} == {"pending"}


def test_a_coroutine_that_does_not_end_is_left_behind(
    site: Site, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that swallows its cancellation fails all the same, and another takes its place."""
    monkeypatch.setattr("reconciler.runtime.shift._LEAVE_AFTER", 0.3)
    over = threading.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    stuck = enqueue(conn, "short", timeout=0.2)
    with working(site, handle(do=stubborn, quick=lambda: 7), "short", concurrency=1) as worker:
        wait_until(lambda: worker.tally.failed == 1, seconds=8, what="it has failed")
        quick = enqueue(conn, "short", handler="work.quick")
        wait_until(lambda: look(conn, quick)["status"] == "completed", seconds=5, what="the next one is done")
        over.set()
    assert look(conn, stuck)["last_error"] == "timed out: it took longer than 0.2 s"


def test_a_worker_is_seen_while_it_lives(site: Site) -> None:
    """Its row tells where it is, and goes with it."""
    with working(site, handle(do=lambda: None), "a", "b", concurrency=7) as worker:
        wait_until(
            lambda: (
                site.rows("SELECT id, queues, concurrency FROM reconciler.pull_workers")
                == [(worker.id, ["a", "b"], 7)]
            ),
            seconds=5,
            what="it is seen",
        )
    assert site.rows("SELECT count(*) FROM reconciler.pull_workers") == [(0,)]


def test_jobs_of_workers_that_are_gone_are_rescued(site: Site, conn: psycopg.Connection) -> None:
    """A worker looks for them by itself."""
    job = enqueue(conn)
    conn.execute("SELECT reconciler.claim_jobs('default', 'gone', 1)")
    conn.execute("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 s'")
    with working(site, handle(do=lambda: None), "other"):
        wait_for_statuses(site, "default", pending=1, seconds=8)
    assert look(conn, job)["last_error"] == "the worker gone went away with it"


def test_a_worker_with_the_granted_rights_is_enough(site: Site, conn: psycopg.Connection) -> None:
    """allow_work gives all that it needs; without it the error says so."""
    conn.execute("CREATE ROLE hand LOGIN")
    mine = Site(site.database, "hand")
    fill(conn, 3)
    with pytest.raises(RightsError, match="may not work on the queues of") as raised:
        drain(mine, handle(do=skip))
    assert "allow_work" in raised.value.remedy
    conn.execute("GRANT USAGE ON SCHEMA reconciler TO hand; SELECT reconciler.allow_work('hand')")
    drain(mine, handle(do=skip))
    assert statuses(site) == {"completed": 3}


def test_a_database_without_the_schema_is_told(database: Database) -> None:
    """What is missing and what to do."""
    with pytest.raises(MigrationError, match="lacks the schema reconciler") as raised:
        drain(Site(database), handle(do=lambda: None))
    assert raised.value.remedy == "run reconciler migrate"


def test_no_server_is_told(tmp_path: object) -> None:
    """The first connection is not tried again and again."""
    with pytest.raises(ConnectError, match="cannot connect to app on"):
        Worker(f"host={tmp_path} dbname=app", Handlers()).run(signals=False)


@pytest.mark.parametrize(
    "options", [{"queues": ()}, {"queues": "default"}, {"concurrency": 0}, {"poll": 0}, {"grace": -1}]
)
def test_a_worker_of_nothing_is_refused(options: dict[str, Any]) -> None:
    """No queue, a text in place of a list of them, or no time at all."""
    with pytest.raises(ValueError, match="a worker needs"):
        Worker("dbname=app", Handlers(), **options)


def test_a_worker_runs_in_an_event_loop_of_others(site: Site, conn: psycopg.Connection) -> None:
    """run_async is a coroutine like any other; cancelling its task gives back what runs."""
    fill(conn, 1)

    async def wait(job: Job) -> None:  # noqa: ARG001 - it takes no keys
        await asyncio.sleep(60)

    async def main() -> None:
        worker = Worker(site.dsn, handle(do=wait))
        task = asyncio.create_task(worker.run_async())
        while not worker.running:  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with_time_limit = asyncio.wait_for(main(), 20)
    asyncio.run(_await(with_time_limit))
    assert statuses(site) == {"pending": 1}
    assert site.rows("SELECT attempts FROM reconciler.jobs") == [(0,)]


async def _await(what: Any) -> Any:
    return await what


def test_nothing_is_logged_when_all_goes_well(
    site: Site, conn: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A quiet worker is a good one."""
    fill(conn, 500)
    with caplog.at_level(logging.INFO):
        drain(site, handle(do=lambda job: job.id), concurrency=20)
    assert statuses(site) == {"completed": 500}
    assert [one.message for one in caplog.records if one.name.startswith("reconciler")] == []
