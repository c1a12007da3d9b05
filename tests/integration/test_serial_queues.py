"""Order: blocking queues and ordering keys, one at a time and by id, over twelve separate connections."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.declared import Site, queue
from tests.queued import (
    Claimed,
    Gauge,
    cancel,
    claim,
    claim_one,
    complete,
    connect,
    enqueue,
    fail,
    fill,
    give_back,
    look,
    pass_time,
    rescue,
    retry,
    snooze,
    statuses,
    together,
)
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Database

pytestmark = pytest.mark.one_server

HELD_BY: dict[str, list[str]] = {
    "nothing": [],
    "retries": ["retry"],
    "dead": ["failed"],
    "future": ["future"],
    "all": ["retry", "failed", "future"],
}


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a queue for each thing that can hold up an order, blocking ones and with keys."""
    site = Site(database)
    backoff = {"initial": "10s", "factor": 1, "max": "10s"}
    site.apply(
        *(
            queue(f"{mode}.{name}", mode=mode, held_by=held_by, lease="10s", backoff=backoff)
            for mode in ("standard", "blocking")
            for name, held_by in HELD_BY.items()
        )
    )
    return site


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    return connect(site)


ENDS: dict[str, Callable[[psycopg.Connection, Claimed], Any]] = {
    "completed": lambda conn, job: complete(conn, [job]),
    "given back": give_back,
    "to be retried": lambda conn, job: fail(conn, job, retry_in=30),
    "dead": lambda conn, job: fail(conn, job, final=True),
    "snoozed": lambda conn, job: snooze(conn, job, 30),
}
NEXT = {
    # What becomes of the first of two jobs -> what holds -> whether the second may go on.
    "completed": dict.fromkeys(HELD_BY, "second"),
    "given back": dict.fromkeys(HELD_BY, "first"),
    "to be retried": {**dict.fromkeys(HELD_BY, "none"), "nothing": "second", "dead": "second"},
    "dead": {**dict.fromkeys(HELD_BY, "second"), "dead": "none", "all": "none"},
    "snoozed": {**dict.fromkeys(HELD_BY, "none"), "nothing": "second", "dead": "second"},
}


@pytest.mark.parametrize("end", ENDS)
def test_what_holds_up_the_order(conn: psycopg.Connection, end: str) -> None:
    """A running job always does; a retry, a dead job and one of the future do where the queue says so."""
    for mode, held_by in itertools.product(("standard", "blocking"), HELD_BY):
        name = f"{mode}.{held_by}"
        first, second = (enqueue(conn, name, ordering_key="k") for _ in range(2))
        claimed = claim_one(conn, name)
        assert claimed.id == first, name
        assert claim(conn, name) == [], name
        ENDS[end](conn, claimed)
        expected = {"first": [first], "second": [second], "none": []}[NEXT[end][held_by]]
        assert [one.id for one in claim(conn, name)] == expected, name


def test_whether_a_job_of_the_future_holds(conn: psycopg.Connection) -> None:
    """A job that was queued for later lets those behind it pass, unless the queue says otherwise."""
    for mode, held_by in itertools.product(("standard", "blocking"), HELD_BY):
        name = f"{mode}.{held_by}"
        holds = "future" in HELD_BY[held_by]
        first = enqueue(conn, name, ordering_key="k", after=60)
        second = enqueue(conn, name, ordering_key="k")
        assert [one.id for one in claim(conn, name)] == ([] if holds else [second]), name
        pass_time(conn, 61)
        assert [one.id for one in claim(conn, name)] == ([first] if holds else []), name


@pytest.mark.parametrize("end", ["retry", "cancel"])
def test_a_dead_job_holds_until_somebody_decides(conn: psycopg.Connection, end: str) -> None:
    """Where dead jobs hold, retrying it or cancelling it lets the order go on."""
    first, second = (enqueue(conn, "blocking.dead") for _ in range(2))
    fail(conn, claim_one(conn, "blocking.dead"), final=True)
    assert claim(conn, "blocking.dead") == []
    if end == "retry":
        assert retry(conn, first) == "pending"
        claimed = claim_one(conn, "blocking.dead")
        assert claimed.id == first
        complete(conn, [claimed])
    else:
        assert cancel(conn, first) == "cancelled"
    assert claim_one(conn, "blocking.dead").id == second


def test_a_retry_that_is_due_comes_before_the_others(conn: psycopg.Connection) -> None:
    """A job that is tried again keeps its place in the order."""
    ids = [enqueue(conn, "blocking") for _ in range(3)]
    fail(conn, claim_one(conn, "blocking"), retry_in=5)
    pass_time(conn, 6)
    order = []
    for _ in ids:
        claimed = claim_one(conn, "blocking")
        order.append(claimed.id)
        complete(conn, [claimed])
    assert order == ids


def test_what_is_given_back_keeps_its_place(conn: psycopg.Connection) -> None:
    """Also a job that had put itself off before, and so is due later than those behind it."""
    first, second = (enqueue(conn, "blocking") for _ in range(2))
    snooze(conn, claim_one(conn, "blocking"), 30)
    pass_time(conn, 31)
    give_back(conn, claim_one(conn, "blocking"))
    claimed = claim_one(conn, "blocking")
    assert claimed.id == first
    complete(conn, [claimed])
    assert claim_one(conn, "blocking").id == second


def test_a_lost_job_keeps_its_place(conn: psycopg.Connection) -> None:
    """The job of a vanished worker holds the order: until its lease, and then its next try, is over."""
    first, second = (enqueue(conn, "blocking.retries") for _ in range(2))
    claim_one(conn, "blocking.retries")
    pass_time(conn, 11)
    assert claim(conn, "blocking.retries") == []
    assert rescue(conn) == 1
    assert claim(conn, "blocking.retries") == []
    pass_time(conn, 31)
    claimed = claim_one(conn, "blocking.retries")
    assert claimed.id == first
    complete(conn, [claimed])
    assert claim_one(conn, "blocking.retries").id == second


def test_a_priority_does_not_change_the_order(conn: psycopg.Connection) -> None:
    """A blocking queue goes by the time from which a job is due, then by id."""
    ids = [enqueue(conn, "blocking", priority=n) for n in range(4)]
    ids.insert(0, enqueue(conn, "blocking", after=-10))
    order = []
    for _ in ids:
        claimed = claim_one(conn, "blocking")
        order.append(claimed.id)
        complete(conn, [claimed])
    assert order == ids


def test_a_claim_takes_one_of_a_blocking_queue(conn: psycopg.Connection) -> None:
    """However many a worker asks for."""
    fill(conn, 5, "blocking", key="")
    assert len(claim(conn, "blocking", 5)) == 1
    assert claim(conn, "blocking", 5) == []


def test_a_claim_takes_one_of_each_key(conn: psycopg.Connection) -> None:
    """The heads of the keys in one batch, together with jobs without a key."""
    heads = []
    for key in ("a", "b", "c"):
        heads.append(enqueue(conn, ordering_key=key))
        enqueue(conn, ordering_key=key)
    free = [enqueue(conn) for _ in range(2)]
    assert sorted(one.id for one in claim(conn, limit=20)) == heads + free
    assert claim(conn, limit=20) == []


def test_keys_are_of_their_queue(conn: psycopg.Connection) -> None:
    """The same key in another queue is another order."""
    for name in ("default", "standard.all"):
        enqueue(conn, name, ordering_key="k")
        assert claim_one(conn, name).ordering_key == "k"


def test_a_slow_key_does_not_block_the_others(conn: psycopg.Connection) -> None:
    """While a job of one key runs, with a thousand behind it, the other keys go on."""
    fill(conn, 1000, key="slow", after=-100)
    claim_one(conn)
    fill(conn, 3, key="a")
    fill(conn, 3, key="b")
    done = 0
    while batch := [one for one in claim(conn, limit=5) if one.ordering_key != "slow"]:
        assert len({one.ordering_key for one in batch}) == len(batch)
        done += len(complete(conn, batch))
    assert done == 6


def test_every_key_gets_its_turn(conn: psycopg.Connection) -> None:
    """With more keys than a claim takes, none waits forever for those that come before it in the alphabet."""
    for key in "abcdefgh":
        fill(conn, 8, key=key)
    first: dict[str | None, int] = {}
    for turn in range(8):
        batch = claim(conn, limit=2)
        assert len(batch) == 2
        for one in batch:
            first.setdefault(one.ordering_key, turn)
        complete(conn, batch)
    assert len(first) == 8


def drain(site: Site, name: str, gauge: Gauge, count: int, *, limit: int = 3, faults: bool = False) -> None:
    """Do all jobs of a queue over twelve connections; with faults, some ends are not the first time's."""

    def work(conn: psycopg.Connection, number: int) -> None:
        done = "SELECT count(*) FROM reconciler.jobs_finished WHERE queue = %s"
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at:
            batch = claim(conn, name, limit, worker=f"w{number}")
            for one in batch:
                gauge.enter(one.ordering_key or "", one.id)
            for one in batch:
                gauge.leave(one.ordering_key or "")
                if faults and one.attempt == 1 and one.id % 5 == 0:
                    assert fail(conn, one, retry_in=0.005) == "pending"
                elif faults and one.id % 7 == 0:
                    assert fail(conn, one, final=True) == "failed"
                else:
                    assert complete(conn, [one]) == [one.id]
            if not batch and conn.execute(done, [name]).fetchone() == (count,):
                return
        pytest.fail("not done in time")

    together(site, 12, work)


def test_twelve_connections_on_a_blocking_queue(site: Site, conn: psycopg.Connection) -> None:
    """Never two at once, by id, and each once."""
    fill(conn, 150, "blocking", key="")
    gauge = Gauge()
    drain(site, "blocking", gauge, 150)
    assert gauge.most == {"": 1}
    assert gauge.order[""] == sorted(gauge.order[""])
    assert len(gauge.order[""]) == 150
    assert statuses(site, "blocking") == {"completed": 150}


def test_twelve_connections_on_a_blocking_queue_with_failures(site: Site, conn: psycopg.Connection) -> None:
    """Retries hold the order: what is tried again comes directly after itself, and dead jobs let it go on."""
    fill(conn, 100, "blocking.retries", key="")
    gauge = Gauge()
    drain(site, "blocking.retries", gauge, 100, faults=True)
    assert gauge.most == {"": 1}
    assert gauge.order[""] == sorted(gauge.order[""])
    assert len(gauge.order[""]) == 120
    assert len(set(gauge.order[""])) == 100


def test_twelve_connections_on_keys(site: Site, conn: psycopg.Connection) -> None:
    """Never two of a key at once, each key by id, also with failures, and several keys at once."""
    for key in "abcde":
        fill(conn, 40, "standard.retries", key=key)
    gauge = Gauge()
    drain(site, "standard.retries", gauge, 200, limit=3, faults=True)
    assert gauge.most == dict.fromkeys("abcde", 1)
    assert all(order == sorted(order) for order in gauge.order.values())
    assert sum(len(set(order)) for order in gauge.order.values()) == 200


def test_the_index_refuses_a_second_one(conn: psycopg.Connection) -> None:
    """Whatever a claim decided, two running jobs of a key cannot be written."""
    enqueue(conn, ordering_key="k")
    enqueue(conn, ordering_key="k")
    with pytest.raises(psycopg.errors.UniqueViolation, match="jobs_ordered_key"):
        conn.execute("UPDATE reconciler.jobs SET status = 'running'")


def test_a_claim_that_is_open_holds_the_order(site: Site, conn: psycopg.Connection) -> None:
    """While one worker's claim is not committed, another one gets nothing: it waits for that decision."""
    fill(conn, 3, "blocking", key="")
    other = site.database.connect(autocommit=False)
    taken = claim_one(other, "blocking")
    conn.execute("SET lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        claim(conn, "blocking")
    other.rollback()
    assert claim_one(conn, "blocking").id == taken.id


def test_a_head_that_is_locked_is_not_passed_by(site: Site, conn: psycopg.Connection) -> None:
    """When somebody just has the first job's row, as a cancel does, the second one is not taken before it."""
    first, second = (enqueue(conn, "blocking") for _ in range(2))
    other = site.database.connect(autocommit=False)
    other.execute("SELECT FROM reconciler.jobs WHERE id = %s FOR UPDATE", [first])
    conn.execute("SET statement_timeout = '500ms'")
    try:
        claimed = claim(conn, "blocking")
    except psycopg.errors.QueryCanceled:
        claimed = []
    assert second not in [one.id for one in claimed]
    other.rollback()


@pytest.mark.parametrize("name", ["blocking", "keyed"])
def test_an_order_is_not_claimed_with_an_old_snapshot(
    site: Site, conn: psycopg.Connection, name: str
) -> None:
    """In a repeatable read transaction a claim of an order is refused, with what to do."""
    fill(conn, 3, name, key="" if name == "blocking" else "k")
    old = site.database.connect(autocommit=False)
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="read committed") as error:
        claim(old, name)
    assert "snapshot" in (error.value.diag.message_hint or "")


def test_an_undeclared_queue_is_blocking_by_its_name(conn: psycopg.Connection) -> None:
    """The queue `blocking` needs no declaration, and its jobs may name no key of their own."""
    job = enqueue(conn, "blocking", ordering_key="mine")
    assert look(conn, job)["ordering_key"] == ""


def test_the_order_goes_on_when_a_connection_breaks(site: Site, conn: psycopg.Connection) -> None:
    """A worker that is disconnected in the middle of a claim holds nothing."""
    fill(conn, 2, "blocking", key="")
    other = site.database.connect(autocommit=False)
    claim_one(other, "blocking")
    conn.execute("SELECT pg_terminate_backend(%s, 5000)", [other.info.backend_pid])
    wait_until(lambda: len(claim(conn, "blocking")) == 1, seconds=5, what="the next one is claimed")
