"""Claims: what is handed out and in which order, and that an attempt which lost its job changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.declared import Site, queue
from tests.queued import (
    Claimed,
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
    snooze,
    statuses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Database

pytestmark = pytest.mark.one_server

LATE = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema."""
    site = Site(database)
    site.apply(queue("slow", lease="10s", max_attempts=3))
    return site


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    return connect(site)


ENDS: dict[str, Callable[[psycopg.Connection, Claimed], bool]] = {
    "complete": lambda conn, job: complete(conn, [job]) == [job.id],
    "fail": lambda conn, job: fail(conn, job) is not None,
    "fail for good": lambda conn, job: fail(conn, job, final=True) is not None,
    "snooze": snooze,
    "give back": lambda conn, job: give_back(conn, job) == [job.id],
    "renew": lambda conn, job: renew(conn, job) == {job.id: None},
    "end as cancelled": end_cancelled,
}
"""What a worker can do with a job that it has; each tells whether the job was its own still."""


def check_stale(conn: psycopg.Connection, claimed: Claimed) -> None:
    """See that an attempt can do nothing with its job any more."""
    before = look(conn, claimed.id)
    for name, end in ENDS.items():
        assert not end(conn, claimed), name
        assert look(conn, claimed.id) == before, name


def test_the_token_of_the_claim_is_what_counts(conn: psycopg.Connection) -> None:
    """What a worker does with its job is done."""
    fill(conn, len(ENDS))
    for name, end in ENDS.items():
        assert end(conn, claim_one(conn)), name


def test_an_attempt_that_lost_its_job_changes_nothing(conn: psycopg.Connection) -> None:
    """With an older token, whatever a worker does changes nothing, and it hears so."""
    job = enqueue(conn, "slow")
    older = claim_one(conn, "slow", worker="a")
    pass_time(conn, 11)
    assert rescue(conn) == 1
    pass_time(conn, 3600)
    newer = claim_one(conn, "slow", worker="a")
    assert (newer.id, newer.attempt) == (job, 2)
    assert newer.token != older.token
    check_stale(conn, older)
    assert complete(conn, [newer]) == [job]


def test_an_attempt_whose_job_was_taken_back_changes_nothing(conn: psycopg.Connection) -> None:
    """Nor does it when the job waits again and nobody else has it."""
    enqueue(conn, "slow")
    older = claim_one(conn, "slow")
    pass_time(conn, 11)
    assert rescue(conn) == 1
    check_stale(conn, older)


@pytest.mark.parametrize(
    "end", ["complete", "fail", "fail for good", "snooze", "give back", "end as cancelled"]
)
def test_an_attempt_that_ended_its_job_cannot_end_it_again(conn: psycopg.Connection, end: str) -> None:
    """However it ended: the same attempt can do nothing more with it."""
    enqueue(conn)
    claimed = claim_one(conn)
    assert ENDS[end](conn, claimed)
    check_stale(conn, claimed)


def test_a_batch_ends_what_is_its_own(conn: psycopg.Connection) -> None:
    """Of a batch with stale ones among them, the others are completed, each with its own result."""
    fill(conn, 5, "slow")
    jobs = claim(conn, "slow", 5)
    pass_time(conn, 9)
    assert renew(conn, *jobs[:3]) == {one.id: None for one in jobs[:3]}
    pass_time(conn, 2)
    assert rescue(conn) == 2
    assert complete(conn, jobs, [{"place": place} for place in range(5)]) == sorted(
        one.id for one in jobs[:3]
    )
    assert [look(conn, one.id)["result"] for one in jobs] == [
        {"place": 0}, {"place": 1}, {"place": 2}, None, None
    ]  # fmt: skip
    assert [look(conn, one.id)["status"] for one in jobs] == ["completed"] * 3 + ["pending"] * 2


def test_a_batch_may_be_empty(conn: psycopg.Connection) -> None:
    """No ids: nothing happens."""
    assert complete(conn, []) == []
    assert give_back(conn) == []
    assert renew(conn) == {}
    assert claim(conn) == []


def test_a_claim_takes_no_more_than_it_asks_for(conn: psycopg.Connection) -> None:
    """Batch after batch, each job is handed out once."""
    fill(conn, 25)
    batches = [claim(conn, limit=10) for _ in range(4)]
    assert [len(batch) for batch in batches] == [10, 10, 5, 0]
    assert len({one.id for batch in batches for one in batch}) == 25


def test_the_order_is_priority_then_time_then_id(conn: psycopg.Connection) -> None:
    """Higher priorities first, in them what is due longest, then what was queued first."""
    ids = [
        enqueue(conn, priority=priority, after=after)
        for priority, after in ((0, -10), (5, -10), (5, -20), (-1, -99), (0, -30))
    ]
    with conn.transaction():
        pair = [enqueue(conn, priority=9) for _ in range(2)]
        conn.execute("UPDATE reconciler.jobs SET run_at = now() - interval '1 s' WHERE priority = 9")
    order = [claim_one(conn).id for _ in range(7)]
    assert order == [*pair, ids[2], ids[1], ids[4], ids[0], ids[3]]


def test_a_batch_is_the_head_of_the_order(conn: psycopg.Connection) -> None:
    """A batch takes what one claim after the other would have taken."""
    fill(conn, 30, priorities=3)
    expected = [
        row[0]
        for row in conn.execute("SELECT id FROM reconciler.jobs ORDER BY priority DESC, run_at, id LIMIT 12")
    ]
    assert [one.id for one in claim(conn, limit=12)] == expected


def test_what_is_due_later_waits(conn: psycopg.Connection) -> None:
    """A job of the future is claimed when its time has come, by the server's clock, and not before."""
    job = enqueue(conn, after=60)
    assert claim(conn) == []
    pass_time(conn, 58)
    assert claim(conn) == []
    pass_time(conn, 2)
    assert claim_one(conn).id == job


def test_each_queue_is_for_itself(conn: psycopg.Connection) -> None:
    """A claim sees the jobs of its queue alone."""
    ids = {name: enqueue(conn, name) for name in ("default", "slow", "undeclared")}
    assert {name: claim_one(conn, name).id for name in ids} == ids
    assert {claimed.queue for claimed in claim(conn, "nowhere")} == set()


def test_inactive_jobs_and_those_of_the_runner_are_left_alone(conn: psycopg.Connection) -> None:
    """No worker gets a job that is switched off, nor one-time work in SQL, which has no handler."""
    for _ in range(3):
        enqueue(conn)
    conn.execute("UPDATE reconciler.jobs SET active = false WHERE id % 3 = 0")
    conn.execute("UPDATE reconciler.jobs SET handler = NULL WHERE id % 3 = 1")
    assert len(claim(conn)) == 1
    assert claim(conn) == []


def test_a_claim_says_what_the_handler_needs(conn: psycopg.Connection) -> None:
    """Payload, attempt and limits come with the claim; what the job does not say comes from its queue."""
    enqueue(conn, "slow", payload={"to": ["ø", 1.5, None]}, unique_key="u", priority=3)
    one = claim_one(conn, "slow")
    assert (one.handler, one.payload, one.type) == ("work.do", {"to": ["ø", 1.5, None]}, "custom")
    assert (one.attempt, one.max_attempts, one.timeout, one.lease) == (1, 3, 3600, 10)
    assert (one.unique_key, one.ordering_key, one.priority, one.queue) == ("u", None, 3, "slow")
    enqueue(conn, "slow", max_attempts=7, timeout=1.5, payload="text")
    one = claim_one(conn, "slow")
    assert (one.max_attempts, one.timeout, one.payload) == (7, 1.5, "text")


def test_the_row_says_who_has_it(conn: psycopg.Connection) -> None:
    """While a job runs, its row has the worker, its start and the end of its lease."""
    job = enqueue(conn, "slow")
    claim_one(conn, "slow", worker="host-7")
    row = look(conn, job)
    assert (row["status"], row["worker"], row["attempts"], row["completed_at"]) == (
        "running",
        "host-7",
        1,
        None,
    )
    lease = datetime.fromisoformat(row["lease_until"]) - datetime.fromisoformat(row["started_at"])
    assert abs(lease - timedelta(seconds=10)) < timedelta(milliseconds=100)


def test_a_watermark_leaves_out_what_lies_before_it(conn: psycopg.Connection) -> None:
    """A claim may look at a priority from a time on; other priorities are looked at from the beginning."""
    early, late = enqueue(conn, after=-60), enqueue(conn, after=-10)
    other = enqueue(conn, after=-60, priority=1)
    mark = datetime.now(UTC) - timedelta(seconds=30)
    assert [one.id for one in claim(conn, since={0: mark})] == [other, late]
    assert claim(conn, since={0: mark}) == []
    assert [one.id for one in claim(conn)] == [early]


def test_a_watermark_is_inclusive(conn: psycopg.Connection) -> None:
    """What has exactly the watermark's time is found."""
    job = enqueue(conn, after=-60)
    mark = datetime.fromisoformat(look(conn, job)["run_at"])
    assert [one.id for one in claim(conn, since={0: mark})] == [job]


def test_a_watermark_can_lie_within_a_moment(conn: psycopg.Connection) -> None:
    """Of jobs that are due at the same time, those from an id on are looked at; of later ones, all are."""
    fill(conn, 6)
    conn.execute("UPDATE reconciler.jobs SET run_at = '2020-01-01 UTC' WHERE id > 1")
    mark = datetime(2020, 1, 1, tzinfo=UTC)
    assert [one.id for one in claim(conn, since={0: mark}, since_id={0: 5})] == [5, 6, 1]
    assert [one.id for one in claim(conn)] == [2, 3, 4]


def test_with_watermarks_nothing_is_lost(conn: psycopg.Connection) -> None:
    """Jobs queued with a time before the watermark are found by the claim without one, like all others."""
    fill(conn, 40, after=-100, priorities=2)
    seen: set[int] = set()
    marks: dict[int, datetime] = {}
    for turn in range(10):
        enqueue(conn, after=-1000, priority=turn % 3)
        batch = claim(conn, limit=7, since=marks)
        for one in batch:
            marks[one.priority] = max(marks.get(one.priority, LATE), one.run_at)
        seen |= {one.id for one in batch}
    while batch := claim(conn, limit=7):
        seen |= {one.id for one in batch}
    assert len(seen) == 50


def test_a_watermark_changes_nothing_in_the_order(conn: psycopg.Connection) -> None:
    """With watermarks for some priorities and none for others, the higher priority still comes first."""
    fill(conn, 20, after=-100, priorities=4)
    marks = {1: LATE, 3: LATE}
    claimed = [one.priority for one in claim(conn, limit=12, since=marks)]
    assert claimed == [3] * 5 + [2] * 5 + [1] * 2


def test_a_snooze_counts_no_attempt(conn: psycopg.Connection) -> None:
    """A job that puts itself off may do so more often than it may be tried."""
    job = enqueue(conn, "slow", max_attempts=1)
    for _ in range(4):
        one = claim_one(conn, "slow")
        assert one.attempt == 1
        assert snooze(conn, one, 60)
        row = look(conn, job)
        assert (row["status"], row["attempts"], row["last_error"]) == ("pending", 0, None)
        assert claim(conn, "slow") == []
        pass_time(conn, 61)
    assert fail(conn, claim_one(conn, "slow")) == "failed"


def test_giving_back_counts_no_attempt(conn: psycopg.Connection) -> None:
    """A job that a worker gives back is due at once, at its old place, as if it had never been claimed."""
    first, second = enqueue(conn, max_attempts=1), enqueue(conn)
    for _ in range(4):
        one = claim_one(conn)
        assert (one.id, one.attempt) == (first, 1)
        before = look(conn, second)
        assert give_back(conn, one) == [first]
        assert look(conn, second) == before
    row = look(conn, first)
    assert (row["status"], row["attempts"], row["lease_until"]) == ("pending", 0, None)


def test_a_claim_that_is_rolled_back_never_was(site: Site, conn: psycopg.Connection) -> None:
    """When the worker's transaction ends without commit, its jobs are there for others."""
    job = enqueue(conn)
    other = site.database.connect(autocommit=False)
    claim_one(other)
    assert claim(conn) == []
    other.rollback()
    assert claim_one(conn).id == job


def test_a_claim_passes_by_what_another_one_is_taking(site: Site, conn: psycopg.Connection) -> None:
    """No claim waits for another one of a queue without limits."""
    fill(conn, 20)
    other = site.database.connect(autocommit=False)
    taken = {one.id for one in claim(other, limit=10)}
    conn.execute("SET lock_timeout = '1ms'")
    rest = {one.id for one in claim(conn, limit=20)}
    other.commit()
    assert len(taken) == len(rest) == 10
    assert not taken & rest


def test_a_claim_in_repeatable_read_takes_nothing_twice(site: Site, conn: psycopg.Connection) -> None:
    """With an old snapshot a claim may fail to serialize, but never takes what another one has."""
    fill(conn, 4)
    old = site.database.connect(autocommit=False)
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    old.execute("SELECT count(*) FROM reconciler.jobs")
    taken = {one.id for one in claim(conn, limit=2)}
    try:
        more = {one.id for one in claim(old, limit=4)}
        old.commit()
    except psycopg.errors.SerializationFailure:
        old.rollback()
        more = {one.id for one in claim(old, limit=4)}
        old.commit()
    assert not taken & more
    assert len(taken | more) == 4
    assert statuses(site) == {"running": 4}
