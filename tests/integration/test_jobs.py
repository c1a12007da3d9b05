"""Queued jobs from Python, over connections that block and connections that are awaited: one behaviour."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler import runtime
from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from reconciler.errors import DatabaseError, InvalidInputError
from reconciler.runtime import Enqueued, NewJob
from tests.declared import Site
from tests.queued import claim_one, complete, fail, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Database

pytestmark = pytest.mark.one_server

OPEN: LiteralString = "SELECT id FROM reconciler.jobs_open ORDER BY id"
SOON = timedelta(minutes=10)


class Caller:
    """A program with one connection, which calls the functions of one kind.

    Attributes:
        conn: Its connection.
    """

    def __init__(self, dsn: str, *, is_awaited: bool, autocommit: bool) -> None:
        """Connect.

        Args:
            dsn: Where to.
            is_awaited: Whether the connection is, and the functions whose names end in _async are called.
            autocommit: The mode of the connection.
        """
        self._runner = asyncio.Runner() if is_awaited else None
        if self._runner is None:
            self.conn: Any = psycopg.connect(dsn, autocommit=autocommit)
        else:
            self.conn = self._runner.run(psycopg.AsyncConnection.connect(dsn, autocommit=autocommit))

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a function of reconciler.runtime by its name without _async."""
        if self._runner is None:
            return getattr(runtime, name)(self.conn, *arguments, **options)
        return self._runner.run(getattr(runtime, f"{name}_async")(self.conn, *arguments, **options))

    def do(self, method: str, *arguments: Any) -> Any:
        """Call a method of the connection."""
        found = getattr(self.conn, method)(*arguments)
        return found if self._runner is None else self._runner.run(found)

    def close(self) -> None:
        """Close the connection."""
        self.do("close")
        if self._runner is not None:
            self._runner.close()


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    return site


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def make_caller(request: pytest.FixtureRequest, site: Site) -> Iterator[Callable[..., Caller]]:
    """Make programs that call functions of one kind; their connections are closed after the test."""
    callers: list[Caller] = []

    def make(dsn: str | None = None, *, autocommit: bool = True) -> Caller:
        callers.append(Caller(dsn or site.dsn, is_awaited=request.param, autocommit=autocommit))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()


@pytest.fixture
def caller(make_caller: Callable[..., Caller]) -> Caller:
    """A program whose statements are transactions of their own."""
    return make_caller()


def test_a_job_is_queued_with_everything_that_is_said_of_it(caller: Caller) -> None:
    """And read as it was given."""
    due = datetime(2099, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    put = caller.call(
        "enqueue",
        "mail.send",
        {"to": "anna", "nested": [1, None, {"a": "kø 🙂"}]},
        queue="outreach",
        run_at=due,
        priority=-3,
        unique_key="anna",
        ordering_key="customer 7",
        max_attempts=2,
        timeout=timedelta(seconds=1.5),
        type="email",
    )
    assert put == Enqueued(id=put.id, created=True)
    job = caller.call("get_job", put.id)
    assert (job.id, job.handler, job.queue, job.type, job.status) == (
        put.id,
        "mail.send",
        "outreach",
        "email",
        "pending",
    )
    assert job.payload == {"to": "anna", "nested": [1, None, {"a": "kø 🙂"}]}
    assert (job.run_at, job.priority, job.unique_key, job.ordering_key) == (due, -3, "anna", "customer 7")
    assert (job.max_attempts, job.timeout) == (2, timedelta(seconds=1.5))
    assert (job.attempts, job.losses, job.result, job.last_error, job.worker) == (0, 0, None, None, None)
    assert (job.once, job.active, job.job_name, job.run_id) == (False, True, None, None)
    assert job.is_scheduled(job.created_at)


def test_what_is_left_out_is_as_usual(caller: Caller, site: Site) -> None:
    """On the default queue, due at once, with an empty object."""
    job = caller.call("get_job", caller.call("enqueue", "mail.send").id)
    assert (job.queue, job.payload, job.priority, job.type) == ("default", {}, 0, "custom")
    assert (job.unique_key, job.ordering_key, job.max_attempts, job.timeout) == (None, None, None, None)
    assert job.run_at == job.created_at
    assert site.rows("SELECT clock_timestamp() - %s BETWEEN '0' AND '1 minute'", job.run_at) == [(True,)]


@pytest.mark.parametrize("payload", [[1, 2], "text", 0, False, 2.5, {}])
def test_a_payload_is_any_json(caller: Caller, payload: object) -> None:
    """Also one that is no object."""
    assert caller.call("get_job", caller.call("enqueue", "a", payload).id).payload == payload


def test_some_time_from_now_counts_by_the_clock_of_the_server(caller: Caller, site: Site) -> None:
    """However long the caller's transaction has been open."""
    many = caller.call("enqueue_many", [NewJob("a", run_at=SOON), NewJob("b"), NewJob("c", run_at=-SOON)])
    waits = [
        round(seconds / 60)
        for (seconds,) in site.rows(
            "SELECT extract(epoch FROM run_at - created_at)::float FROM reconciler.jobs WHERE id = ANY (%s)"
            " ORDER BY id",
            [one.id for one in many],
        )
    ]
    assert waits == [10, 0, -10]


def test_many_jobs_are_put_in_their_order(caller: Caller) -> None:
    """Each answer stands in the place of its job, whichever queue that is for."""
    jobs = [NewJob("a", {"n": n}, queue=f"q{n % 3}", priority=n % 2) for n in range(100)]
    put = caller.call("enqueue_many", jobs)
    assert [one.created for one in put] == [True] * 100
    assert sorted(one.id for one in put) == [one.id for one in put]
    assert [caller.call("get_job", one.id).payload["n"] for one in put[::33]] == [0, 33, 66, 99]
    assert caller.call("enqueue_many", []) == []
    assert caller.call("enqueue_many", iter([NewJob("a")]))[0].created


def test_a_unique_key_that_is_taken_is_a_normal_answer(caller: Caller, conn: psycopg.Connection) -> None:
    """The id is that of the open job; once that one is finished, there is room."""
    first = caller.call("enqueue", "a", unique_key="k")
    assert caller.call("enqueue", "b", {"other": True}, unique_key="k") == Enqueued(
        id=first.id, created=False
    )
    assert caller.call("enqueue", "a", unique_key="k", queue="other").created
    claimed = claim_one(conn)
    assert caller.call("enqueue", "a", unique_key="k") == Enqueued(id=first.id, created=False)
    complete(conn, [claimed])
    assert caller.call("enqueue", "a", unique_key="k").created


def test_of_many_with_one_unique_key_the_first_is_made(caller: Caller) -> None:
    """The others get its id; nothing else is held up."""
    before = caller.call("enqueue", "a", unique_key="old")
    keys = ["new", "old", None, "new", "other"]
    put = caller.call("enqueue_many", [NewJob("a", unique_key=key) for key in keys])
    assert [one.created for one in put] == [True, False, True, False, True]
    assert put[1].id == before.id
    assert put[3].id == put[0].id


@pytest.mark.parametrize("autocommit", [True, False], ids=["autocommit", "transactions"])
def test_a_rollback_of_the_caller_takes_the_job_away(
    make_caller: Callable[..., Caller], site: Site, *, autocommit: bool
) -> None:
    """And nothing is there for others before its commit."""
    caller = make_caller(autocommit=autocommit)
    site.run("CREATE TABLE public.orders (id int)")
    if autocommit:
        caller.do("execute", "BEGIN")
    caller.do("execute", "INSERT INTO orders VALUES (1)")
    gone = caller.call("enqueue", "a")
    assert caller.call("get_job", gone.id) is not None
    assert site.rows(OPEN) == []
    caller.do("rollback")
    assert (caller.call("get_job", gone.id), site.rows("SELECT id FROM orders")) == (None, [])
    caller.do("rollback")
    if autocommit:
        caller.do("execute", "BEGIN")
    caller.do("execute", "INSERT INTO orders VALUES (2)")
    kept = caller.call("enqueue", "a")
    caller.do("commit")
    assert site.rows(OPEN) == [(kept.id,)]
    assert site.rows("SELECT id FROM orders") == [(2,)]


def test_nothing_is_committed_behind_the_callers_back(make_caller: Callable[..., Caller], site: Site) -> None:
    """By none of the functions."""
    caller = make_caller(autocommit=False)
    job = caller.call("enqueue", "a")
    caller.call("enqueue_many", [NewJob("b")])
    caller.call("get_jobs_by_status", "pending")
    caller.call("cancel_job", job.id)
    caller.call("retry_job", job.id)
    caller.call("retry_jobs", "default")
    caller.do("rollback")
    assert site.rows("SELECT id FROM reconciler.jobs") == []


def test_finished_jobs_are_read_too(caller: Caller, conn: psycopg.Connection) -> None:
    """With their result or their error, as long as they are kept."""
    done, dead, gone = (caller.call("enqueue", "a", {"n": n}).id for n in range(3))
    assert complete(conn, [claim_one(conn)], [{"sent": [1, "é"]}]) == [done]
    fail(conn, claim_one(conn), "no such address", final=True)
    assert caller.call("cancel_job", gone) == "cancelled"
    jobs = [caller.call("get_job", number) for number in (done, dead, gone)]
    assert [job.status for job in jobs] == ["completed", "failed", "cancelled"]
    assert [job.payload["n"] for job in jobs] == [0, 1, 2]
    assert jobs[0].result == {"sent": [1, "é"]}
    assert jobs[1].last_error == "no such address"
    assert [job.attempts for job in jobs] == [1, 1, 0]
    assert all(job.is_finished and job.completed_at is not None for job in jobs)
    assert caller.call("get_job", 10**9) is None


def test_jobs_are_read_by_status(caller: Caller, conn: psycopg.Connection) -> None:
    """The newest first; scheduled ones are pending ones that are not due."""
    done, runs = (caller.call("enqueue", "a").id for _ in range(2))
    complete(conn, [claim_one(conn)])
    claim_one(conn)
    due, later = caller.call("enqueue", "a").id, caller.call("enqueue", "a", run_at=SOON).id
    other = caller.call("enqueue", "a", queue="other").id
    gone = caller.call("enqueue", "a", run_at=SOON).id
    caller.call("cancel_job", gone)

    def ids(status: str, **options: Any) -> list[int]:
        return [job.id for job in caller.call("get_jobs_by_status", status, **options)]

    assert ids("pending") == [other, later, due]
    assert ids("pending", limit=2) == [other, later]
    assert ids("pending", queue="default") == [later, due]
    assert ids("scheduled") == [later]
    assert (ids("running"), ids("completed"), ids("cancelled"), ids("failed")) == ([runs], [done], [gone], [])
    with pytest.raises(InvalidInputError, match="'dead' is no status of a job: ask for scheduled, pending"):
        ids("dead")


def test_cancelling_says_what_became_of_it(caller: Caller, conn: psycopg.Connection) -> None:
    """A job that waits ends at once; one that runs is told to end; a finished one stays as it is."""
    waits = caller.call("enqueue", "a", run_at=SOON).id
    runs, done = (caller.call("enqueue", "a").id for _ in range(2))
    claim_one(conn)
    assert caller.call("cancel_job", waits) == "cancelled"
    assert caller.call("cancel_job", runs) == "cancelling"
    assert look(conn, runs)["cancelled_by"] == "postgres"
    complete(conn, [claim_one(conn)])
    assert caller.call("cancel_job", done) == "completed"
    assert caller.call("cancel_job", 10**9) is None


def test_a_dead_job_begins_anew(caller: Caller, conn: psycopg.Connection) -> None:
    """With all its attempts, now or when it is said; no other job is touched."""
    job = caller.call("enqueue", "a", max_attempts=1).id
    fail(conn, claim_one(conn))
    assert caller.call("retry_job", job) == "pending"
    assert fail(conn, claim_one(conn)) == "failed"
    due = datetime(2099, 1, 1, tzinfo=UTC)
    assert caller.call("retry_job", job, run_at=due) == "pending"
    found = caller.call("get_job", job)
    assert (found.status, found.attempts, found.run_at, found.completed_at) == ("pending", 0, due, None)
    assert caller.call("retry_job", job) == "pending"
    assert caller.call("get_job", job).run_at == due
    caller.call("cancel_job", job)
    assert caller.call("retry_job", job) == "pending"
    complete(conn, [claim_one(conn)])
    assert caller.call("retry_job", job) == "completed"
    assert caller.call("retry_job", 10**9) is None
    with pytest.raises(InvalidInputError, match="run_at has no time zone"):
        caller.call("retry_job", job, run_at=due.replace(tzinfo=None))


def test_a_dead_job_whose_unique_key_is_taken_stays_dead(caller: Caller, conn: psycopg.Connection) -> None:
    """The error names the job that has it."""
    dead = caller.call("enqueue", "a", unique_key="k").id
    fail(conn, claim_one(conn), final=True)
    other = caller.call("enqueue", "a", unique_key="k").id
    with pytest.raises(DatabaseError) as caught:
        caller.call("retry_job", dead)
    assert caught.value.message == (
        f"job {dead} was not put back: job {dead} cannot be tried again while job {other} has the same "
        "unique_key k"
    )
    assert caught.value.remedy == "Wait until that one is finished, or cancel it."
    assert look(conn, dead)["status"] == "failed"


def bury(caller: Caller, conn: psycopg.Connection, count: int, **options: Any) -> list[int]:
    """Queue jobs and let them die, one after the other."""
    found = []
    for _ in range(count):
        found.append(caller.call("enqueue", "a", **options).id)
        fail(conn, claim_one(conn, options.get("queue", "default")), final=True)
    return found


def test_all_dead_jobs_begin_anew(caller: Caller, conn: psycopg.Connection) -> None:
    """Of one queue; others stay dead."""
    dead = bury(caller, conn, 3)
    others = bury(caller, conn, 1, queue="other")
    assert caller.call("retry_jobs", "default") == 3
    assert [look(conn, job)["status"] for job in [*dead, *others]] == ["pending"] * 3 + ["failed"]
    assert caller.call("retry_jobs", "default") == 0


def test_dead_jobs_come_bit_by_bit(caller: Caller, conn: psycopg.Connection) -> None:
    """So many of them, those first that died first, one each second, on another queue."""
    dead = bury(caller, conn, 4)
    every = timedelta(seconds=30)
    assert caller.call("retry_jobs", "default", limit=3, every=every, to_queue="slow") == 3
    jobs = [caller.call("get_job", job) for job in dead]
    assert [job.queue for job in jobs] == ["slow", "slow", "slow", "default"]
    assert [job.run_at - jobs[0].run_at for job in jobs[:3]] == [every * n for n in range(3)]
    assert jobs[3].status == "failed"


def test_those_whose_unique_key_is_taken_stay_dead_while_others_begin_anew(
    caller: Caller, conn: psycopg.Connection
) -> None:
    """Of two dead ones with one key the first comes back."""
    dead = [bury(caller, conn, 1, unique_key=key)[0] for key in ("a", "b", "a")]
    caller.call("enqueue", "a", unique_key="b")
    assert caller.call("retry_jobs", "default") == 1
    assert [look(conn, job)["status"] for job in dead] == ["pending", "failed", "failed"]


def test_dead_jobs_of_a_blocking_queue_lose_its_order_on_another(
    caller: Caller, conn: psycopg.Connection
) -> None:
    """And get it where they come to a blocking one."""
    dead = bury(caller, conn, 1, queue="blocking")
    assert look(conn, dead[0])["ordering_key"] == ""
    caller.call("retry_jobs", "blocking", to_queue="default")
    assert (look(conn, dead[0])["queue"], look(conn, dead[0])["ordering_key"]) == ("default", None)
    fail(conn, claim_one(conn), final=True)
    caller.call("retry_jobs", "default", to_queue="blocking")
    assert look(conn, dead[0])["ordering_key"] == ""
