"""Runs that are handed over to a worker, and what goes wrong between the run and its queued job."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.declared import Site, channel, job, once
from tests.faults import check_aftermath
from tests.handed_over import begin, declare, give_up
from tests.queued import claim, claim_one, complete, fail, retry, together
from tests.runs import OUR_LOCKS, Beside, alerts, attempt, fire, log, starts, statuses, tick
from tests.servers import wait_until

if TYPE_CHECKING:
    import psycopg

    from tests.servers import Database

pytestmark = pytest.mark.one_server

CANCEL: LiteralString = "SELECT reconciler.cancel_run(%s)"
BROKEN: LiteralString = (
    "ALTER TABLE reconciler.job_states ADD CONSTRAINT broken CHECK (last_run_id IS NULL) NOT VALID"
)
MENDED: LiteralString = "ALTER TABLE reconciler.job_states DROP CONSTRAINT broken"


@pytest.fixture
def worker(database: Database) -> psycopg.Connection:
    """The connection of a worker."""
    return database.connect()


@pytest.mark.parametrize("finder", ["tick", "next start", "cancelling"])
def test_a_deleted_job_leaves_no_run_for_ever(site: Site, finder: str) -> None:
    """Whoever looks next finds that the queued job is gone: the run is lost, told of, and not tried again."""
    declare(site, on_failure={"retries": 3})
    queued = begin(site)
    run = log(site, "a", "id")[0][0]
    site.run("DELETE FROM reconciler.jobs")
    if finder == "tick":
        tick(site)
    elif finder == "cancelling":
        assert site.rows(CANCEL, run) == [("lost",)]
    else:
        begin(site)
    assert log(site, "a", "status", "error_message")[0] == (
        "lost",
        f"queued job {queued} is gone: somebody deleted it before it was finished",
    )
    assert alerts(site) == [("lost", 1, True)]
    assert starts(site) == []
    assert site.rows(OUR_LOCKS) == [(0,)]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("completed", "succeeded"), ("failed", "failed"), ("cancelled", "cancelled")],
)
def test_a_job_finished_by_hand_ends_its_run(site: Site, status: str, expected: str) -> None:
    """What nobody was told of the tick sees by comparing."""
    declare(site)
    begin(site)
    site.run("UPDATE reconciler.jobs SET status = %s, completed_at = now()", status)
    tick(site)
    assert statuses(site) == [expected]
    check_aftermath(site)


def test_a_withdrawn_job_is_done_all_the_same(site: Site, worker: psycopg.Connection) -> None:
    """What is on the queue already stays there when its declaration goes, and its run ends with it."""
    declare(site)
    begin(site)
    site.apply(channel("ops"), prune="auto")
    tick(site)
    assert statuses(site) == ["running"]
    complete(worker, [claim_one(worker)])
    assert statuses(site) == ["succeeded"]


def test_a_withdrawn_job_that_is_deleted(site: Site) -> None:
    """Neither declared nor queued any more, its run is lost."""
    declare(site)
    begin(site)
    site.apply(channel("ops"), prune="auto")
    site.run("DELETE FROM reconciler.jobs")
    tick(site)
    assert statuses(site) == ["lost"]


def test_a_withdrawn_one_time_job_that_runs(site: Site, worker: psycopg.Connection) -> None:
    """Its end is logged although nobody declares it any more."""
    site.apply(once("o"), job("b"))
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    claimed = claim_one(worker)
    site.apply(job("b"), prune="auto")
    complete(worker, [claimed])
    assert log(site, "o", "status", "definition_id") == [("succeeded", None)]


def test_one_time_jobs_that_never_began_leave_no_run(site: Site) -> None:
    """Withdrawn while they wait they are cancelled, and nothing is said to have run."""
    site.apply(once("o"), job("b"))
    site.apply(job("b"), prune="auto")
    tick(site)
    assert log(site, "o") == []
    assert site.rows("SELECT status FROM reconciler.jobs") == [("cancelled",)]


def test_work_that_is_done_stays_done(site: Site, worker: psycopg.Connection) -> None:
    """An error while an end is told of undoes neither it nor those of others: the tick makes up for it."""
    declare(site, job("b", handler="work.do"), once("o"))
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    begin(site)
    begin(site, "b")
    claimed = claim(worker)
    site.run(BROKEN)
    assert len(complete(worker, claimed)) == 3
    assert site.rows("SELECT status, count(*)::int FROM reconciler.jobs GROUP BY 1") == [("completed", 3)]
    assert statuses(site) == ["running"]
    assert "settle_runs: new row for relation" in str(attempt(site, "CALL reconciler.tick()"))
    site.run(MENDED)
    check_aftermath(site)
    assert [statuses(site, name) for name in ("a", "b", "o")] == [["succeeded"]] * 3


def test_a_retried_job_whose_end_was_not_told(site: Site, worker: psycopg.Connection) -> None:
    """Also the second end of a job is made up for, as one more row."""
    declare(site)
    queued = begin(site)
    give_up(worker)
    retry(worker, queued)
    site.run(BROKEN)
    give_up(worker, "again")
    assert statuses(site) == ["failed"]
    site.run(MENDED)
    tick(site)
    assert log(site, "a", "status", "attempt", "error_message") == [
        ("failed", 1, "no"),
        ("failed", 2, "again"),
    ]
    check_aftermath(site)


def test_a_backend_that_dies_before_the_hand_over(site: Site) -> None:
    """Until the queued job is committed the run is its backend's, and lost with it; nothing was queued."""
    declare(site, on_failure={"retries": 1})
    with site.database.server.connect() as obstacle:
        obstacle.execute("BEGIN; LOCK TABLE reconciler.jobs_open IN SHARE MODE")
        putting = Beside(site, "CALL reconciler.run_job('a')")
        wait_until(
            lambda: (
                site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", putting.pid)
                == [(1,)]
            ),
            seconds=5,
            what="it is about to queue",
        )
        assert statuses(site) == ["running"]
        site.run("SELECT pg_terminate_backend(%s, 5000)", putting.pid)
    assert putting.end() is not None
    check_aftermath(site)
    assert log(site, "a", "status", "handed_over") == [("lost", False)]
    assert starts(site) == [("a", "retry", 2)]
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


def test_a_worker_that_is_gone_does_not_keep_the_run(site: Site, worker: psycopg.Connection) -> None:
    """The tick takes the job from it; after its last try the run has failed."""
    declare(site, on_failure={"retries": 1})
    begin(site)
    for expected in ("running", "failed"):
        site.run("UPDATE reconciler.jobs SET run_at = now()")
        claim_one(worker)
        site.run("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 second'")
        check_aftermath(site)
        assert statuses(site) == [expected]
    assert "went away" in log(site, "a", "error_message")[0][0]


def test_ends_of_many_jobs_at_once(site: Site) -> None:
    """Workers that end batches of the same declared jobs in any order hold nobody up, and lose no end."""
    names = [f"a{number}" for number in range(6)]
    site.apply(*(job(name, handler="work.do", concurrency="allow") for name in names))
    for _ in range(10):
        for name in names:
            assert fire(site, name) is None

    def work(conn: psycopg.Connection, number: int) -> None:
        while claimed := claim(conn, limit=5):
            if number % 2:
                claimed.reverse()
            complete(conn, claimed[1:])
            fail(conn, claimed[0], final=True)

    together(site, 6, work)
    check_aftermath(site)
    assert site.rows("SELECT DISTINCT status FROM reconciler.cron_execution_log ORDER BY 1") == [
        ("failed",),
        ("succeeded",),
    ]
    assert site.rows("SELECT sum(total_runs)::int, min(total_runs)::int FROM reconciler.job_states") == [
        (60, 10)
    ]


def test_ends_come_in_one_order(site: Site, worker: psycopg.Connection) -> None:
    """Of a batch the states of jobs are locked by name: two batches cannot wait for each other."""
    names = [f"a{number}" for number in range(8)]
    site.apply(*(job(name, handler="work.do") for name in names))
    for name in reversed(names):
        begin(site, name)
    claimed = claim(worker)
    with site.database.server.connect() as obstacle:
        obstacle.execute("BEGIN; SELECT FROM reconciler.job_states WHERE name = 'a0' FOR UPDATE")
        ending = Beside(
            site,
            "SELECT reconciler.complete_jobs(%s::bigint[], %s::bigint[])",
            [one.id for one in claimed],
            [one.token for one in claimed],
        )
        wait_until(
            lambda: (
                site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", ending.pid)
                == [(1,)]
            ),
            seconds=5,
            what="it waits for the first state",
        )
        assert site.rows(
            "SELECT count(*) FROM (SELECT FROM reconciler.job_states FOR UPDATE SKIP LOCKED) AS free"
        ) == [(7,)]
    assert ending.end() is None
    check_aftermath(site)


def test_the_backend_that_queued_is_left_alone(site: Site, worker: psycopg.Connection) -> None:
    """It is at other work now, perhaps another run of the same job: to cancel the handler leaves it."""
    declare(site, concurrency="allow")
    backend = site.database.connect()
    backend.execute("CALL reconciler.run_job('a')")
    claim_one(worker)
    assert site.rows(CANCEL, log(site, "a", "id")[0][0]) == [("cancelling",)]
    backend.execute("SELECT pg_advisory_lock_shared(lock_key) FROM reconciler.definitions WHERE name = 'a'")
    site.run("UPDATE reconciler.cron_execution_log SET stop_at = stop_at - interval '1 hour'")
    tick(site)
    assert backend.execute("SELECT 1").fetchone() == (1,)
    assert statuses(site) == ["running"]


def test_cancelling_and_ending_at_once(site: Site) -> None:
    """People who cancel runs while workers end them are answered, and every run has one end."""
    declare(site, concurrency="allow")
    for _ in range(40):
        begin(site)
    runs = [run for (run,) in log(site, "a", "id")]
    answers: list[str] = []

    def work(conn: psycopg.Connection, number: int) -> None:
        if number == 0:
            for run in runs:
                row = conn.execute(CANCEL, [run]).fetchone()
                assert row is not None
                answers.append(row[0])
            return
        while claimed := claim(conn, limit=2):
            complete(conn, claimed)

    together(site, 3, work)
    check_aftermath(site)
    assert set(answers) <= {"cancelled", "cancelling", "succeeded"}
    assert set(statuses(site)) <= {"cancelled", "succeeded"}
    assert len(statuses(site)) == 40
