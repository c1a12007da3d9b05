"""Runs that are handed over to a worker: what becomes of the next run while the queued job is unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.declared import Site, channel, job, once
from tests.faults import check_aftermath
from tests.handed_over import begin, declare, give_up
from tests.queued import claim_one, complete, fail, retry
from tests.runs import OUR_LOCKS, call, fire, log, runner, starts, statuses

if TYPE_CHECKING:
    import psycopg

    from tests.servers import Database

pytestmark = pytest.mark.one_server

DUE: LiteralString = "UPDATE reconciler.jobs SET run_at = clock_timestamp()"


@pytest.fixture
def worker(database: Database) -> psycopg.Connection:
    """The connection of a worker."""
    return database.connect()


def test_a_run_is_skipped_while_the_last_one_waits(site: Site, worker: psycopg.Connection) -> None:
    """Waiting, being done or tried again: until the queued job is finished the next run is skipped."""
    declare(site)
    queued = begin(site)
    reason = f"queued job {queued} of it is not finished"
    assert call(site) is None
    claimed = claim_one(worker)
    assert fire(site) is None
    fail(worker, claimed)
    assert fire(site) is None
    assert log(site, "a", "status", "error_message")[1:] == [("skipped", reason)] * 3
    site.run(DUE)
    complete(worker, [claim_one(worker)])
    assert begin(site) != queued
    assert site.rows(OUR_LOCKS) == [(0,)]


def test_a_dead_job_tried_again_holds_up_the_next_run(site: Site, worker: psycopg.Connection) -> None:
    """No run of it goes on, and yet its handler must not run twice at once."""
    declare(site)
    queued = begin(site)
    give_up(worker)
    retry(worker, queued)
    assert fire(site) is None
    assert statuses(site) == ["failed", "skipped"]


def test_a_one_time_job_that_waits_for_its_time_holds_up_nothing(
    site: Site, worker: psycopg.Connection
) -> None:
    """Somebody may run it before; only while a worker does it there is no second run beside it."""
    site.apply(once("o"))
    assert call(site, "o") is None
    assert log(site, "o", "status", "trigger") == [("running", "manual")]
    complete(worker, [claim_one(worker)])
    site.run(DUE)
    claimed = claim_one(worker)
    assert call(site, "o") is None
    assert statuses(site, "o") == ["succeeded", "skipped"]
    complete(worker, [claimed])
    assert statuses(site, "o") == ["succeeded", "skipped", "succeeded"]
    check_aftermath(site)


def test_another_body_waits_for_the_handler(site: Site, worker: psycopg.Connection) -> None:
    """A job that became SQL meanwhile does not run beside what it has put on a queue."""
    declare(site)
    begin(site)
    site.apply(channel("ops"), job("a", "SELECT 1"))
    assert fire(site) is None
    assert statuses(site) == ["running", "skipped"]
    complete(worker, [claim_one(worker)])
    assert fire(site) is None
    assert statuses(site) == ["succeeded", "skipped", "succeeded"]


def test_several_at_once(site: Site, worker: psycopg.Connection) -> None:
    """With allow each run queues its job, and each ends with its own."""
    declare(site, concurrency="allow")
    first, second = begin(site), begin(site)
    one = claim_one(worker)
    two = claim_one(worker)
    assert (one.id, two.id) == (first, second)
    complete(worker, [two])
    assert statuses(site) == ["running", "succeeded"]
    fail(worker, one, final=True)
    assert statuses(site) == ["failed", "succeeded"]
    check_aftermath(site)


def test_a_start_is_put_off(site: Site, worker: psycopg.Connection) -> None:
    """With wait one start waits in the table and no backend; it begins when the job is finished."""
    declare(site, concurrency="wait")
    queued = begin(site)
    assert fire(site) is None
    assert fire(site) is None
    reason = f"queued job {queued} of it is not finished"
    assert log(site, "a", "status", "error_message")[1:] == [
        ("skipped", f"{reason}; it starts afterwards"),
        ("skipped", f"{reason}; another start waits for it"),
    ]
    assert starts(site) == [("a", "schedule", 1)]
    site.run("UPDATE reconciler.starts SET due_at = now()")
    runner(site)
    assert starts(site) == [("a", "schedule", 1)]
    assert len(statuses(site)) == 3
    complete(worker, [claim_one(worker)])
    site.run("UPDATE reconciler.starts SET due_at = now()")
    runner(site)
    assert starts(site) == []
    assert log(site, "a", "status", "trigger")[3:] == [("running", "schedule")]


def test_what_was_missed_is_made_up_for_one_by_one(site: Site, worker: psycopg.Connection) -> None:
    """With catch_up all a start begins when the handler has done the one before."""
    declare(site, catch_up="all")
    site.run(
        "INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at)"
        " SELECT 'a', 'catch_up', now(), now() - n * interval '1 hour' FROM generate_series(1, 3) AS n"
    )
    for left in (2, 1, 0):
        runner(site)
        runner(site)
        assert len(starts(site)) == left
        complete(worker, [claim_one(worker)])
    assert statuses(site) == ["succeeded"] * 3
    assert site.rows(
        "SELECT bool_and(due_at < next) FROM (SELECT due_at, lead(due_at) OVER (ORDER BY id) AS next"
        " FROM reconciler.cron_execution_log) AS l"
    ) == [(True,)]
