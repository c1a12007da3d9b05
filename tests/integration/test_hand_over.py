"""Runs that are handed over to a worker: they go on until their queued job is finished, and end as it did."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.runtime.attempts import Failed
from tests.attempted import try_once
from tests.declared import Site, after, channel, job, once, queue
from tests.faults import check_aftermath
from tests.handed_over import begin, declare, give_up
from tests.queued import claim_one, complete, end_cancelled, fail, look, retry
from tests.runs import (
    OUR_LOCKS,
    alerts,
    attempt,
    call,
    fire,
    log,
    starts,
    statuses,
    tick,
    wait_for_pg_cron,
)

if TYPE_CHECKING:
    import psycopg

    from tests.servers import Database

pytestmark = pytest.mark.one_server

DUE: LiteralString = "UPDATE reconciler.jobs SET run_at = clock_timestamp()"
CANCEL: LiteralString = "SELECT reconciler.cancel_run(%s)"


@pytest.fixture
def worker(database: Database) -> psycopg.Connection:
    """The connection of a worker."""
    return database.connect()


def test_a_run_goes_on_until_its_job_is_done(site: Site, worker: psycopg.Connection) -> None:
    """Queued, claimed, done: the run has no lock and no limit of its own, and ends with its work."""
    declare(site, timeout="1ms")
    queued = begin(site)
    check_aftermath(site)
    assert site.rows(OUR_LOCKS) == [(0,)]
    assert log(site, "a", "status", "deadline_at", "queued_job_id") == [("running", None, queued)]
    claimed = claim_one(worker)
    check_aftermath(site)
    assert statuses(site) == ["running"]
    assert complete(worker, [claimed]) == [queued]
    assert log(site, "a", "status", "error_message", "trigger") == [("succeeded", None, "schedule")]
    assert site.rows("SELECT last_status, total_runs, failed_runs FROM reconciler.job_states") == [
        ("succeeded", 1, 0)
    ]
    check_aftermath(site)


def test_a_stale_end_ends_no_run(site: Site, worker: psycopg.Connection) -> None:
    """Who lost his lease does not end the run of what somebody else does now."""
    declare(site)
    begin(site)
    first = claim_one(worker)
    site.run("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 second'")
    tick(site)
    site.run(DUE)
    second = claim_one(worker)
    assert complete(worker, [first]) == []
    assert statuses(site) == ["running"]
    assert complete(worker, [second]) == [second.id]
    assert statuses(site) == ["succeeded"]


@pytest.mark.parametrize(
    ("fields", "max_attempts", "timeout"),
    [
        ({}, None, None),
        ({"timeout": "5m"}, None, timedelta(minutes=5)),
        ({"on_failure": {"retries": 2}}, 3, None),
        ({"on_failure": {"retries": 0}}, 1, None),
        ({"on_failure": {"backoff": {"initial": "1s"}}}, 1, None),
    ],
)
def test_what_is_declared_goes_along(
    site: Site, fields: dict[str, Any], max_attempts: int | None, timeout: timedelta | None
) -> None:
    """The queued job has the tries and the limit that the job declares, else those of its queue."""
    declare(site, **fields)
    begin(site)
    assert site.rows(
        "SELECT j.job_name, j.max_attempts, j.timeout, j.ordering_key, j.run_id = l.id"
        "  FROM reconciler.jobs j JOIN reconciler.cron_execution_log l ON l.queued_job_id = j.id"
    ) == [("a", max_attempts, timeout, None, True)]


@pytest.mark.parametrize("name", ["blocking", "mine"])
def test_a_blocking_queue_orders_it(site: Site, worker: psycopg.Connection, name: str) -> None:
    """On a blocking queue, declared or by its name, the jobs of runs are done one at a time and in order."""
    others = [queue("mine", mode="blocking")] if name == "mine" else []
    declare(site, job("b", handler="work.do", queue=name), *others, queue=name)
    first, second = begin(site, "b"), begin(site)
    assert site.rows("SELECT DISTINCT ordering_key FROM reconciler.jobs") == [("",)]
    claimed = claim_one(worker, name)
    assert claimed.id == first
    assert site.rows("SELECT count(*) FROM reconciler.claim_jobs(%s, 'other', 10)", name) == [(0,)]
    complete(worker, [claimed])
    assert claim_one(worker, name).id == second


def test_workers_hear_of_it(site: Site, worker: psycopg.Connection) -> None:
    """Who listens for work on the queue is told at once."""
    declare(site, queue="mail")
    worker.execute("LISTEN reconciler_jobs")
    begin(site)
    heard = [note.payload for note in worker.notifies(timeout=5, stop_after=1)]
    assert heard == ["mail"]


def test_what_cannot_be_queued_has_failed(site: Site) -> None:
    """A run whose work does not get onto the queue is tried again like any other."""
    declare(site, on_failure={"retries": 1})
    site.run("ALTER TABLE reconciler.jobs ADD CHECK (handler <> 'work.do')")
    assert fire(site) is not None
    assert log(site, "a", "status", "handed_over", "queued_job_id") == [("failed", False, None)]
    assert starts(site) == [("a", "retry", 2)]
    check_aftermath(site)


def test_tries_are_the_workers(site: Site, worker: psycopg.Connection) -> None:
    """While tries are left the run goes on; after the last one it has failed, and no start is put."""
    declare(site, on_failure={"retries": 1, "backoff": {"initial": "40s", "max": "40s"}, "jitter": False})
    queued = begin(site)
    assert fail(worker, claim_one(worker), "first") == "pending"
    assert statuses(site) == ["running"]
    wait = site.rows("SELECT extract(epoch FROM run_at - now())::float FROM reconciler.jobs")[0][0]
    assert 35 < wait <= 40
    site.run(DUE)
    assert fail(worker, claim_one(worker), "second") == "failed"
    assert log(site, "a", "status", "error_message", "error_detail") == [
        ("failed", "second", f"queued job {queued} on default, attempt 2, last done by w")
    ]
    assert starts(site) == []
    assert alerts(site) == [("failed", 1, True)]
    check_aftermath(site)


def test_without_retries_of_its_own_the_queues_waits_count(site: Site, worker: psycopg.Connection) -> None:
    """A job that says nothing of failures is tried as often, and after such waits, as its queue says."""
    backoff = {"initial": "10m", "factor": 1}
    declare(site, queue("default", max_attempts=2, backoff=backoff), timeout="1h")
    begin(site)
    assert fail(worker, claim_one(worker)) == "pending"
    wait = site.rows("SELECT extract(epoch FROM run_at - now())::float FROM reconciler.jobs")[0][0]
    assert 295 < wait <= 600
    site.run(DUE)
    assert fail(worker, claim_one(worker)) == "failed"
    assert statuses(site) == ["failed"]


def test_over_its_limit(site: Site, worker: psycopg.Connection) -> None:
    """A handler that took too long, in its worker's words, has timed out, as SQL has."""
    declare(site, timeout="50ms")
    begin(site)
    claimed = claim_one(worker)
    outcome = asyncio.run(try_once(lambda: asyncio.sleep(60), timeout=claimed.timeout))
    assert isinstance(outcome, Failed)
    fail(worker, claimed, outcome.error, final=True)
    assert log(site, "a", "status", "error_message") == [("timed_out", outcome.error)]
    assert alerts(site) == [("failed", 1, True)]
    begin(site)
    give_up(worker, "TimeoutError: timed out")
    assert statuses(site) == ["timed_out", "failed"]


def test_a_good_end_resolves_and_starts(site: Site, worker: psycopg.Connection) -> None:
    """What waited for the job starts when its work is done and not before; an open alert is resolved."""
    declare(site, after("b", "a"))
    begin(site)
    give_up(worker)
    assert alerts(site) == [("failed", 1, True)]
    begin(site)
    tick(site)
    assert starts(site) == []
    complete(worker, [claim_one(worker)])
    assert starts(site) == [("b", "dependency", 1)]
    assert alerts(site) == [("failed", 1, False), ("recovered", 1, False)]
    check_aftermath(site)


def test_cancelled_before_it_began(site: Site) -> None:
    """To cancel a run cancels its queued job, and with a job that waits the run is over at once."""
    declare(site)
    queued = begin(site)
    run = log(site, "a", "id")[0][0]
    assert site.rows(CANCEL, run) == [("cancelled",)]
    assert log(site, "a", "status", "error_message") == [
        ("cancelled", "cancelled by postgres before it began")
    ]
    assert site.rows("SELECT id, status FROM reconciler.jobs") == [(queued, "cancelled")]
    assert site.rows(CANCEL, run) == [("cancelled",)]
    assert alerts(site) == []


def test_cancelled_while_its_handler_runs(site: Site, worker: psycopg.Connection) -> None:
    """The worker is told; until it has stopped the run goes on, whatever the tick sees."""
    declare(site)
    queued = begin(site)
    claimed = claim_one(worker)
    worker.execute("LISTEN reconciler_cancel")
    run = log(site, "a", "id")[0][0]
    assert site.rows(CANCEL, run) == [("cancelling",)]
    assert [note.payload for note in worker.notifies(timeout=5, stop_after=1)] == [str(queued)]
    site.run("UPDATE reconciler.cron_execution_log SET stop_at = stop_at - interval '1 hour'")
    tick(site)
    assert log(site, "a", "status", "stop_reason", "stop_by") == [("running", "cancelled", "postgres")]
    assert end_cancelled(worker, claimed, "cancelled by postgres")
    assert log(site, "a", "status", "error_message") == [("cancelled", "cancelled by postgres")]
    assert starts(site) == []


def test_a_cancelled_queued_job_ends_its_run(site: Site) -> None:
    """Whoever cancels the queued job cancels the run."""
    declare(site)
    assert site.rows("SELECT reconciler.cancel_job(%s)", begin(site)) == [("cancelled",)]
    assert statuses(site) == ["cancelled"]


def test_who_may_cancel(site: Site) -> None:
    """The role of the job may cancel its run, without any right on queued jobs; others may not."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    declare(site, role="alice")
    assert call(site, user="alice") is None
    run = log(site, "a", "id")[0][0]
    assert "may not control" in str(attempt(site, CANCEL, run, user="bob"))
    assert statuses(site) == ["running"]
    assert attempt(site, CANCEL, run, user="alice") is None
    assert log(site, "a", "error_message") == [("cancelled by alice before it began",)]


def test_a_one_time_job_is_in_the_log_when_it_is_over(site: Site, worker: psycopg.Connection) -> None:
    """It has no run before; its end writes one, from when its handler began, and tells who waits for it."""
    site.apply(once("o"), after("b", "o"))
    site.run(DUE)
    tick(site)
    claimed = claim_one(worker)
    tick(site)
    assert log(site, "o") == []
    complete(worker, [claimed])
    row = look(worker, claimed.id)
    [(status, trigger, try_, run)] = log(site, "o", "status", "trigger", "attempt", "id")
    assert (status, trigger, try_, run) == ("succeeded", "schedule", 1, row["run_id"])
    assert site.rows(
        "SELECT l.run_at = j.started_at, l.due_at = j.run_at, l.revision = d.revision"
        "  FROM reconciler.cron_execution_log l JOIN reconciler.jobs j ON j.run_id = l.id"
        "  JOIN reconciler.definitions d ON d.id = l.definition_id"
    ) == [(True, True, True)]
    assert starts(site) == [("b", "dependency", 1)]
    check_aftermath(site)
    assert len(log(site, "o")) == 1


@pytest.mark.parametrize("body", [{}, {"sql": "SELECT 1"}])
def test_a_one_time_job_that_somebody_cancels(site: Site, body: dict[str, Any]) -> None:
    """Cancelled before its time it is in the log as cancelled, whoever would have done it, and stays so."""
    site.apply(once("o", **body))
    assert site.rows("SELECT reconciler.cancel_job(id) FROM reconciler.jobs") == [("cancelled",)]
    check_aftermath(site)
    assert log(site, "o", "status", "error_message") == [
        ("cancelled", "cancelled by postgres before it began")
    ]


def test_a_one_time_job_that_fails_is_told_of(site: Site, worker: psycopg.Connection) -> None:
    """Its dead job is a failed run, with an alert; tried again by hand, that is a second try of the chain."""
    site.apply(channel("ops"), once("o", alert={"channels": ["ops"]}))
    site.run(DUE)
    dead = give_up(worker)
    first = log(site, "o", "id")[0][0]
    assert log(site, "o", "status", "error_message") == [("failed", "no")]
    assert alerts(site, "o") == [("failed", 1, True)]
    assert retry(worker, dead.id) == "pending"
    check_aftermath(site)
    complete(worker, [claim_one(worker)])
    assert log(site, "o", "status", "trigger", "attempt", "chain_id") == [
        ("failed", "schedule", 1, None),
        ("succeeded", "retry", 2, first),
    ]
    assert alerts(site, "o") == [("failed", 1, False), ("recovered", 1, False)]
    check_aftermath(site)


@pytest.mark.parametrize("by", ["hand", "a worker of dead jobs"])
def test_a_dead_job_tried_again_is_a_run_of_its_own(site: Site, worker: psycopg.Connection, by: str) -> None:
    """Each later end of the same job is one more row: the run that failed stays as it was."""
    declare(site)
    queued = begin(site)
    give_up(worker, "first")
    run = log(site, "a", "id")[0][0]
    for error in ("second", None):
        if by == "hand":
            assert retry(worker, queued) == "pending"
            claimed = claim_one(worker)
        else:
            claimed = claim_one(worker, status="failed")
        check_aftermath(site)
        if error:
            fail(worker, claimed, error, final=True)
        else:
            complete(worker, [claimed])
    assert log(site, "a", "status", "error_message", "trigger", "attempt", "chain_id") == [
        ("failed", "first", "schedule", 1, None),
        ("failed", "second", "retry", 2, run),
        ("succeeded", None, "retry", 3, run),
    ]
    assert alerts(site) == [("failed", 2, False), ("recovered", 1, False)]
    check_aftermath(site)


def test_a_renamed_job_ends_its_run(site: Site, worker: psycopg.Connection) -> None:
    """Renamed while its job waits, that holds up the next run under the new name, and ends the old one."""
    declare(site)
    begin(site)
    site.apply(channel("ops"), job("z", handler="work.do", renamed_from="a"))
    assert fire(site, "z") is None
    assert statuses(site, "z") == ["skipped"]
    complete(worker, [claim_one(worker)])
    assert statuses(site) == ["succeeded"]
    assert site.rows("SELECT name, last_status FROM reconciler.job_states") == [("z", "succeeded")]


def test_nobody_stays_for_it(site: Site, worker: psycopg.Connection) -> None:
    """A run that a worker has in its hands keeps no runner awake, and no tick, also when it is to end."""
    declare(site)
    begin(site)
    claim_one(worker)
    assert site.rows(CANCEL, log(site, "a", "id")[0][0]) == [("cancelling",)]
    began = site.rows("SELECT clock_timestamp()")[0][0]
    site.run("CALL reconciler.runner(stay => '30 seconds')")
    site.run("CALL reconciler.tick(stay => '30 seconds')")
    took = site.rows("SELECT clock_timestamp() - %s", began)[0][0]
    assert took < timedelta(seconds=25)


@pytest.mark.firing
def test_pg_cron_fires_it(any_mode_database: Database) -> None:
    """Fired by pg_cron its own record says that it was put, and our log that it goes on."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.apply(job("a", handler="work.do", schedule=schedule))
    if is_old:
        any_mode_database.server.restart()
    queued = "SELECT FROM reconciler.jobs_open WHERE status = 'pending'"
    wait_for_pg_cron(site, lambda: bool(site.rows(queued)), what="it was put")
    worker = any_mode_database.connect()
    complete(worker, [claim_one(worker)])
    assert log(site, "a", "status", "trigger")[0] == ("succeeded", "schedule")
