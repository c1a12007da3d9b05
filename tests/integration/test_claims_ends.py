"""How attempts end: failures and their waits, lost workers, cancelling, retrying, unique keys, results."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.declared import Site, queue
from tests.queued import (
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
)

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

BACKOFF = {"initial": "10s", "factor": 3, "max": "1m"}


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a queue whose backoff is known."""
    site = Site(database)
    site.apply(queue("mail", backoff=BACKOFF, max_attempts=5, lease="10s"))
    return site


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    return connect(site)


def wait_of(conn: psycopg.Connection, job: int) -> float:
    """Return how many seconds from now a job is due."""
    row = conn.execute(
        "SELECT extract(epoch FROM run_at - clock_timestamp())::float FROM reconciler.jobs WHERE id = %s",
        [job],
    ).fetchone()
    assert row is not None
    return float(row[0])


def test_a_failure_waits_longer_each_time(conn: psycopg.Connection) -> None:
    """The wait grows by the queue's factor up to its most, but for chance; then the job is dead."""
    job = enqueue(conn, "mail")
    for attempt, expected in enumerate((10, 30, 60, 60), start=1):
        claimed = claim_one(conn, "mail")
        assert claimed.attempt == attempt
        assert fail(conn, claimed, f"no {attempt}") == "pending"
        row = look(conn, job)
        assert (row["status"], row["attempts"], row["last_error"]) == ("pending", attempt, f"no {attempt}")
        assert expected * 0.5 - 1 < wait_of(conn, job) <= expected
        pass_time(conn, 100)
    assert fail(conn, claim_one(conn, "mail"), "no 5") == "failed"
    row = look(conn, job)
    assert (row["status"], row["attempts"], row["last_error"]) == ("failed", 5, "no 5")
    assert row["completed_at"] is not None
    assert claim(conn, "mail") == []


def test_many_failures_do_not_come_back_at_once(conn: psycopg.Connection) -> None:
    """The waits of jobs that failed together differ."""
    fill(conn, 20, "mail")
    for one in claim(conn, "mail", 20):
        fail(conn, one)
    waits = {round(wait_of(conn, job), 1) for (job,) in conn.execute("SELECT id FROM reconciler.jobs")}
    assert len(waits) > 5


def test_a_handler_may_say_when_to_try_again(conn: psycopg.Connection) -> None:
    """A wait that is asked for is the wait, without chance."""
    job = enqueue(conn, "mail")
    assert fail(conn, claim_one(conn, "mail"), retry_in=500) == "pending"
    assert 498 < wait_of(conn, job) <= 500


def test_a_handler_may_ask_for_no_further_try(conn: psycopg.Connection) -> None:
    """A final failure makes the job dead at its first attempt."""
    job = enqueue(conn, "mail")
    assert fail(conn, claim_one(conn, "mail"), "no such address", final=True) == "failed"
    assert (look(conn, job)["attempts"], look(conn, job)["last_error"]) == (1, "no such address")


def test_a_wait_that_is_asked_for_makes_no_further_attempt(conn: psycopg.Connection) -> None:
    """After the last attempt a job is dead, whenever it asked to be tried again."""
    enqueue(conn, "mail", max_attempts=1)
    assert fail(conn, claim_one(conn, "mail"), retry_in=5) == "failed"


def test_a_long_error_is_kept_in_part(conn: psycopg.Connection) -> None:
    """An error of any length can be written down."""
    job = enqueue(conn, "mail")
    assert fail(conn, claim_one(conn, "mail"), "x" * 3_000_000) == "pending"
    assert look(conn, job)["last_error"].startswith("xxx")


def test_a_worker_that_vanishes_costs_an_attempt(conn: psycopg.Connection) -> None:
    """When the lease is over and not before, the job waits again with the backoff of its attempt."""
    job = enqueue(conn, "mail")
    claim_one(conn, "mail")
    pass_time(conn, 9)
    assert rescue(conn) == 0
    pass_time(conn, 1)
    assert rescue(conn) == 1
    row = look(conn, job)
    assert (row["status"], row["attempts"], row["losses"]) == ("pending", 1, 1)
    assert row["last_error"]
    assert 4 < wait_of(conn, job) <= 10
    assert rescue(conn) == 0
    pass_time(conn, 20)
    assert claim_one(conn, "mail").attempt == 2


def test_a_lease_that_is_renewed_goes_on(conn: psycopg.Connection) -> None:
    """Renewing counts from now, as often as needed."""
    enqueue(conn, "mail")
    claimed = claim_one(conn, "mail")
    for _ in range(3):
        pass_time(conn, 9)
        assert renew(conn, claimed) == {claimed.id: None}
        row = conn.execute(
            "SELECT extract(epoch FROM lease_until - clock_timestamp())::float FROM reconciler.jobs"
        ).fetchone()
        assert row is not None
        assert 8 < row[0] <= 10
        assert rescue(conn) == 0
    assert complete(conn, [claimed]) == [claimed.id]


def test_a_lease_is_renewed_for_its_worker_alone(conn: psycopg.Connection) -> None:
    """Leases of jobs that ended or went elsewhere are not renewed, those of the others are."""
    fill(conn, 3, "mail")
    jobs = claim(conn, "mail", 3)
    complete(conn, jobs[:1])
    pass_time(conn, 5)
    assert renew(conn, *jobs) == {one.id: None for one in jobs[1:]}
    pass_time(conn, 6)
    assert rescue(conn) == 0


def test_a_job_that_is_lost_thrice_is_dead(conn: psycopg.Connection) -> None:
    """A job that kills whoever does it is given up, however many attempts it has."""
    job = enqueue(conn, "mail", max_attempts=100)
    for losses in (1, 2, 3):
        claim_one(conn, "mail")
        pass_time(conn, 11)
        assert rescue(conn) == 1
        assert look(conn, job)["losses"] == losses
        pass_time(conn, 100)
    assert (look(conn, job)["status"], look(conn, job)["attempts"]) == ("failed", 3)
    assert look(conn, job)["last_error"]


def test_a_lost_job_without_further_attempts_is_dead(conn: psycopg.Connection) -> None:
    """The attempt that was lost was the last one."""
    job = enqueue(conn, "mail", max_attempts=1)
    claim_one(conn, "mail")
    pass_time(conn, 11)
    assert rescue(conn) == 1
    assert look(conn, job)["status"] == "failed"


def test_a_rescue_takes_no_more_than_it_may(conn: psycopg.Connection) -> None:
    """However many were lost, one call takes back as many as it was told to."""
    fill(conn, 25, "mail")
    claim(conn, "mail", 25)
    pass_time(conn, 11)
    assert [rescue(conn, 10) for _ in range(4)] == [10, 10, 5, 0]


def test_a_rescue_passes_by_what_is_being_renewed(site: Site, conn: psycopg.Connection) -> None:
    """A job whose worker is just renewing or ending it is left to it, and nobody waits."""
    fill(conn, 2, "mail")
    jobs = claim(conn, "mail", 2)
    pass_time(conn, 11)
    other = site.database.connect(autocommit=False)
    assert complete(other, jobs[:1]) == [jobs[0].id]
    conn.execute("SET lock_timeout = '200ms'")
    assert rescue(conn) == 1
    other.commit()
    assert rescue(conn) == 0
    assert statuses(site, "mail") == {"completed": 1, "pending": 1}


def test_a_worker_that_is_late_may_still_end_its_job(conn: psycopg.Connection) -> None:
    """As long as nobody took the job back, an attempt beyond its lease counts: the work was done."""
    enqueue(conn, "mail")
    claimed = claim_one(conn, "mail")
    pass_time(conn, 60)
    assert complete(conn, [claimed]) == [claimed.id]
    assert rescue(conn) == 0


def test_a_waiting_job_is_cancelled_at_once(conn: psycopg.Connection) -> None:
    """It is never claimed."""
    job = enqueue(conn)
    assert cancel(conn, job) == "cancelled"
    assert claim(conn) == []
    assert look(conn, job)["completed_at"] is not None
    assert cancel(conn, job) == "cancelled"


def test_a_running_job_is_asked_to_end(site: Site, conn: psycopg.Connection) -> None:
    """Its worker is told at once and at its next renewal, and ends it as cancelled."""
    listener = site.database.connect()
    listener.execute("LISTEN reconciler_cancel")
    job = enqueue(conn)
    claimed = claim_one(conn)
    assert cancel(conn, job) == "cancelling"
    assert [note.payload for note in listener.notifies(timeout=2, stop_after=1)] == [str(job)]
    assert renew(conn, claimed) == {job: look(conn, job)["cancelled_by"]}
    assert look(conn, job)["cancelled_by"] == "postgres"
    assert look(conn, job)["status"] == "running"
    assert end_cancelled(conn, claimed, "asked to")
    row = look(conn, job)
    assert (row["status"], row["last_error"]) == ("cancelled", "asked to")


def test_a_cancelled_job_may_be_done_before_it_hears(conn: psycopg.Connection) -> None:
    """What was completed nevertheless is completed."""
    job = enqueue(conn)
    claimed = claim_one(conn)
    cancel(conn, job)
    assert complete(conn, [claimed]) == [job]
    assert look(conn, job)["status"] == "completed"


def test_a_cancelled_job_is_not_tried_again(conn: psycopg.Connection) -> None:
    """What is to end is cancelled, too, when its attempt fails, vanishes, puts it off or gives it back."""
    jobs = [enqueue(conn, "mail") for _ in range(4)]
    claimed = [claim_one(conn, "mail") for _ in jobs]
    for job in jobs:
        cancel(conn, job)
    fail(conn, claimed[0])
    snooze(conn, claimed[1])
    give_back(conn, claimed[2])
    pass_time(conn, 11)
    rescue(conn)
    assert [look(conn, job)["status"] for job in jobs] == ["cancelled"] * 4


def test_what_is_done_is_not_cancelled(conn: psycopg.Connection) -> None:
    """Its status is the answer, and nothing changes; no job, no answer."""
    done = enqueue(conn)
    complete(conn, [claim_one(conn)])
    before = look(conn, done)
    assert [cancel(conn, job) for job in (done, 99)] == ["completed", None]
    assert look(conn, done) == before


def test_a_dead_job_can_be_tried_again(conn: psycopg.Connection) -> None:
    """It is due at once and has all its attempts before it."""
    job = enqueue(conn, "mail", max_attempts=1)
    fail(conn, claim_one(conn, "mail"))
    assert retry(conn, job) == "pending"
    row = look(conn, job)
    assert (row["status"], row["attempts"], row["losses"]) == ("pending", 0, 0)
    assert (row["completed_at"], row["cancelled_by"]) == (None, None)
    assert claim_one(conn, "mail").attempt == 1


def test_a_cancelled_job_can_be_tried_again(conn: psycopg.Connection) -> None:
    """Who cancelled it is forgotten: it is not ended once more."""
    job = enqueue(conn)
    claimed = claim_one(conn)
    cancel(conn, job)
    end_cancelled(conn, claimed)
    assert retry(conn, job) == "pending"
    again = claim_one(conn)
    assert again.token != claimed.token
    assert renew(conn, again) == {job: None}
    assert not end_cancelled(conn, claimed)


def test_only_what_died_is_tried_again(conn: psycopg.Connection) -> None:
    """A job that waits, runs or was done is left as it is, and its status is the answer."""
    done, running, waiting = (enqueue(conn) for _ in range(3))
    complete(conn, [claim_one(conn)])
    claim_one(conn)
    before = [look(conn, job) for job in (done, running, waiting)]
    assert [retry(conn, job) for job in (done, running, waiting, 99)] == [
        "completed",
        "running",
        "pending",
        None,
    ]
    assert [look(conn, job) for job in (done, running, waiting)] == before


def test_dead_jobs_are_claimed_when_asked_for(conn: psycopg.Connection) -> None:
    """A claim of failed ones takes the longest dead first, each once, and nothing else."""
    jobs = [enqueue(conn, "mail", max_attempts=1) for _ in range(4)]
    for one in claim(conn, "mail", 3):
        fail(conn, one)
        pass_time(conn, 1)
    dead = claim(conn, "mail", 2, status="failed")
    assert sorted(one.id for one in dead) == jobs[:2]
    assert complete(conn, dead[:1]) == [dead[0].id]
    assert fail(conn, dead[1]) == "failed"
    assert [one.id for one in claim(conn, "mail", 9, status="failed")] in (
        [jobs[1], jobs[2]],
        [jobs[2], jobs[1]],
    )
    assert claim_one(conn, "mail").id == jobs[3]


def test_a_dead_job_is_not_revived_where_its_key_is_taken(conn: psycopg.Connection) -> None:
    """As long as another job has its unique key, a dead one stays dead; the claim goes on."""
    first = enqueue(conn, unique_key="a", max_attempts=1)
    fail(conn, claim_one(conn))
    other = enqueue(conn, max_attempts=1)
    fail(conn, claim_one(conn))
    second = enqueue(conn, unique_key="a", after=60)
    with pytest.raises(psycopg.errors.UniqueViolation):
        retry(conn, first)
    assert [one.id for one in claim(conn, limit=1, status="failed")] == [other]
    assert look(conn, first)["status"] == "failed"
    cancel(conn, second)
    assert [one.id for one in claim(conn, status="failed")] == [first]


def test_a_unique_key_is_for_open_jobs_of_a_queue(conn: psycopg.Connection) -> None:
    """The id of the job that has the key is the answer, while it waits and while it runs, in its queue."""
    job = enqueue(conn, unique_key="a")
    assert enqueue(conn, unique_key="a", priority=5) == job
    assert enqueue(conn, "mail", unique_key="a") != job
    claimed = claim_one(conn)
    assert claimed.priority == 0
    assert enqueue(conn, unique_key="a") == job
    complete(conn, [claimed])
    assert enqueue(conn, unique_key="a") not in {job, claimed.id}


def test_any_json_is_a_result(conn: psycopg.Connection) -> None:
    """What JSON holds can be a result, null included."""
    values: tuple[object, ...] = (None, 0, "", "text", [], {"a": [1, None]}, False)
    for value in values:
        job = enqueue(conn)
        complete(conn, [claim_one(conn)], [value])
        assert look(conn, job)["result"] == value


def test_times_fit_the_order_of_things(conn: psycopg.Connection) -> None:
    """A job is created, then started, then completed."""
    job = enqueue(conn)
    complete(conn, [claim_one(conn)])
    row = look(conn, job)
    times = [datetime.fromisoformat(row[name]) for name in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)
    assert times[-1] - times[0] < timedelta(seconds=5)
