"""Faults and coincidences in a queue's tables: whoever comes second gets an answer, and nothing is lost."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.declared import Site, queue
from tests.queued import (
    Claimed,
    cancel,
    claim,
    claim_one,
    complete,
    connect,
    end_cancelled,
    enqueue,
    fail,
    fill,
    give_back,
    look,
    pass_time,
    renew,
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

    End = Callable[[psycopg.Connection, Claimed], object]

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with queues."""
    site = Site(database)
    site.apply(
        queue("mail", lease="10s", backoff={"initial": "1ms", "factor": 1, "max": "1ms"}, max_attempts=9),
        queue("few", concurrency=5),
    )
    return site


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    return connect(site)


FIRST: dict[str, End] = {
    "completed": lambda conn, job: complete(conn, [job]),
    "dead": lambda conn, job: fail(conn, job, final=True),
    "to be retried": lambda conn, job: fail(conn, job, retry_in=60),
    "snoozed": snooze,
    "cancelled": end_cancelled,
    "given back": give_back,
}
BRIEF: tuple[End, ...] = (
    give_back,
    end_cancelled,
    lambda conn, job: fail(conn, job, final=True),
    lambda conn, job: fail(conn, job, retry_in=0.001),
    lambda conn, job: snooze(conn, job, 0.001),
)
SECOND: dict[str, tuple[End, set[object]]] = {
    # What comes second -> its possible answers.
    "complete": (lambda conn, job: complete(conn, [job]) == [job.id], {False}),
    "fail": (fail, {None}),
    "snooze": (snooze, {False}),
    "give back": (lambda conn, job: give_back(conn, job) == [job.id], {False}),
    "end as cancelled": (end_cancelled, {False}),
    "renew": (lambda conn, job: job.id in renew(conn, job), {False}),
    "rescue": (lambda conn, _: rescue(conn), {0}),
    "cancel": (lambda conn, job: cancel(conn, job.id), {"completed", "failed", "cancelled"}),
    "retry": (lambda conn, job: retry(conn, job.id), {"pending", "running"}),
    "claim": (lambda conn, _: len(claim(conn, "mail")), {0}),
    "claim dead ones": (lambda conn, _: len(claim(conn, "mail", status="failed")), {0}),
}


@pytest.mark.parametrize("first", FIRST)
def test_who_comes_second_gets_an_answer(site: Site, conn: psycopg.Connection, first: str) -> None:
    """While one ends a job, whatever others do with it waits or passes by, and is then told how it is."""
    other = site.database.connect(autocommit=False)
    for name, (_, answers) in SECOND.items():
        job = enqueue(conn, "mail")
        claimed = claim_one(conn, "mail")
        FIRST[first](other, claimed)
        answer = meet(site, conn, name, claimed, other)
        assert answer in answers, (name, answer)
        conn.execute("DELETE FROM reconciler.jobs WHERE id = %s", [job])


@pytest.mark.parametrize("first", ["retry", "claim dead ones"])
def test_two_who_want_a_dead_job(site: Site, conn: psycopg.Connection, first: str) -> None:
    """While one revives a dead job, others find it open or not at all."""
    other = site.database.connect(autocommit=False)
    for name in ("retry", "cancel", "claim dead ones", "claim"):
        job = enqueue(conn, "mail")
        claimed = claim_one(conn, "mail")
        fail(conn, claimed, final=True)
        assert SECOND[first][0](other, claimed) in {"pending", 1}
        answer = meet(site, conn, name, claimed, other)
        assert answer in {"pending", "running", "cancelled", "cancelling", "failed", 0}, (name, answer)
        conn.execute("DELETE FROM reconciler.jobs WHERE id = %s", [job])


def meet(
    site: Site, conn: psycopg.Connection, name: str, claimed: Claimed, other: psycopg.Connection
) -> object:
    """Do something with a job that another transaction has in its hands, which is then committed."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(attempt, conn, SECOND[name][0], claimed)
        wait_until(lambda: answer.done() or waits(site, conn), seconds=5, what=f"{name} waits or is done")
        other.commit()
        return answer.result(10)


def attempt(conn: psycopg.Connection, end: End, claimed: Claimed) -> object:
    """Return what is answered, or the error."""
    try:
        return end(conn, claimed)
    except psycopg.Error as error:
        return error


def waits(site: Site, conn: psycopg.Connection) -> bool:
    """Tell whether a connection waits for a lock."""
    return bool(
        site.rows(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
            conn.info.backend_pid,
        )
    )


def test_many_workers_and_people_at_once(site: Site, conn: psycopg.Connection) -> None:
    """Whatever twelve connections do at once: no error, no deadlock, and each job is completed once."""
    fill(conn, 400, "mail")
    completed: list[int] = []
    give_up_at = time.monotonic() + 30

    def work(own: psycopg.Connection, number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < give_up_at:
            if number == 0:
                rescue(own)
                for (job,) in own.execute(
                    "SELECT id FROM reconciler.jobs_finished WHERE status <> 'completed'"
                ):
                    retry(own, job)
            if number == 1:
                cancel(own, chance.randint(1, 400))
                time.sleep(0.003)
            batch = claim(own, "mail", chance.randint(1, 8), worker=f"w{number}")
            if number == 2:
                batch += claim(own, "mail", 2, status="failed")
            chance.shuffle(batch)
            own_ids = {one.id for one in batch}
            assert renew(own, *batch).keys() <= own_ids
            for one in batch[2:]:
                chance.choice(BRIEF)(own, one)
            completed.extend(complete(own, batch[:2]))
            if statuses(site, "mail") == {"completed": 400}:
                return
        pytest.fail(f"not done in time: {statuses(site, 'mail')}")

    together(site, 12, work)
    assert sorted(completed) == list(range(1, 401))


def test_a_renewal_and_an_end_of_the_same_batch(site: Site, conn: psycopg.Connection) -> None:
    """A worker's heartbeat and its ends meet at the same rows in opposite order: no deadlock."""
    claimed: list[Claimed] = []

    def work(own: psycopg.Connection, number: int) -> None:
        for turn in range(20):
            batch = claimed[turn * 50 : turn * 50 + 50]
            if number == 0:
                complete(own, batch)
            elif number == 1:
                renew(own, *reversed(batch))
            else:
                give_back(own, *random.Random(turn).sample(batch, 50))

    conn.execute("ALTER TABLE reconciler.jobs_open SET (autovacuum_enabled = false)")
    for _ in range(2):
        fill(conn, 1000, "mail")
        claimed[:] = claim(conn, "mail", 1000)
        together(site, 3, work)
        assert sum(statuses(site, "mail").values()) % 1000 == 0


def test_a_unique_key_is_put_once_by_many(site: Site) -> None:
    """Of twelve who put the same key at once one creates the job, and all get its id."""
    ids: list[int] = []

    def work(own: psycopg.Connection, number: int) -> None:
        ids.extend(enqueue(own, unique_key=f"k{turn}", priority=number) for turn in range(20))

    together(site, 12, work)
    assert len(ids) == 240
    assert len(set(ids)) == 20
    assert statuses(site) == {"pending": 20}


def test_a_key_whose_job_ends_meanwhile(site: Site, conn: psycopg.Connection) -> None:
    """Who puts a key just when its job is being completed gets an open job: that one or a new one."""

    def work(own: psycopg.Connection, number: int) -> None:
        for _ in range(100):
            if number < 3:
                assert enqueue(own, unique_key="a") > 0
            else:
                complete(own, claim(own))

    together(site, 6, work)
    complete(conn, claim(conn))
    assert statuses(site).keys() == {"completed"}


def test_a_crash_of_the_server_keeps_what_was_committed(site: Site, conn: psycopg.Connection) -> None:
    """Claimed jobs are their worker's still when the server is back; what was not committed never was."""
    fill(conn, 6, "mail")
    jobs = claim(conn, "mail", 4)
    complete(conn, jobs[:1])
    other = site.database.connect(autocommit=False)
    complete(other, jobs[1:2])
    site.database.server.stop(immediate=True)
    site.database.server.start()
    conn = site.database.connect()
    assert statuses(site, "mail") == {"completed": 1, "running": 3, "pending": 2}
    assert complete(conn, jobs) == sorted(one.id for one in jobs[1:])
    assert len(claim(conn, "mail")) == 2


@pytest.mark.parametrize("name", ["mail", "few", "blocking"])
def test_a_worker_that_is_disconnected_in_its_claim(site: Site, conn: psycopg.Connection, name: str) -> None:
    """Its jobs are free at once, and so is the lock of its queue."""
    fill(conn, 3, name, key="" if name == "blocking" else None)
    other = site.database.connect(autocommit=False)
    taken = claim(other, name, 1)
    conn.execute("SELECT pg_terminate_backend(%s, 5000)", [other.info.backend_pid])
    assert claim(conn, name, 1)[0].id == taken[0].id


def test_large_payloads_come_through(conn: psycopg.Connection) -> None:
    """A megabyte is stored and handed out as it was."""
    payload = {"text": random.Random(1).randbytes(500_000).hex(), "more": ["ø" * 1000]}
    job = enqueue(conn, payload=payload)
    assert claim_one(conn).payload == payload
    assert complete(conn, [claim_one_again(conn, job)], [payload]) == [job]
    assert look(conn, job)["result"] == payload


def claim_one_again(conn: psycopg.Connection, job: int) -> Claimed:
    """Let a job be lost and claimed again."""
    conn.execute("UPDATE reconciler.jobs SET status = 'pending' WHERE id = %s", [job])
    return claim_one(conn)


def test_a_payload_that_is_too_large_is_refused(conn: psycopg.Connection) -> None:
    """Beyond 4 MB nothing is queued, and the error says what to do."""
    payload = {"text": "x" * 4_200_000}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="4 MB") as error:
        enqueue(conn, payload=payload)
    assert "store" in (error.value.diag.message_hint or "")
    many = psycopg.types.json.Jsonb([{"handler": "a"}, {"handler": "b", "payload": payload}])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="4 MB"):
        conn.execute("SELECT * FROM reconciler.enqueue_many(%s)", [many])
    assert conn.execute("SELECT count(*) FROM reconciler.jobs").fetchone() == (0,)


def test_a_clock_that_is_set_back_loses_nothing(conn: psycopg.Connection) -> None:
    """What was queued in what is now the future is not lost: it is due then."""
    job = enqueue(conn, "mail")
    pass_time(conn, -60)
    assert claim(conn, "mail") == []
    pass_time(conn, 60)
    claimed = claim_one(conn, "mail")
    pass_time(conn, -60)
    assert rescue(conn) == 0
    assert complete(conn, [claimed]) == [job]


def test_a_clock_that_jumps_forward_costs_one_try(conn: psycopg.Connection) -> None:
    """Leases are over at once then: jobs go elsewhere, and their former workers' ends are stale."""
    fill(conn, 3, "mail")
    jobs = claim(conn, "mail")
    pass_time(conn, 3600)
    assert rescue(conn) == 3
    assert complete(conn, jobs) == []
    pass_time(conn, 1)
    assert [one.attempt for one in claim(conn, "mail")] == [2, 2, 2]
