"""The status of jobs: how the last run went, from our log or from pg_cron's history."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from reconciler.database.connect import connect
from reconciler.database.runs import JobStatus, read_status
from tests.declared import NEVER, Site, channel, job, once, queue, worker

if TYPE_CHECKING:
    from tests.servers import Database


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database, seen by its superuser."""
    return Site(database)


def status(site: Site) -> dict[str, JobStatus]:
    """Read the status of everything, by name."""
    with connect(site.dsn) as conn:
        return {one.name: one for one in read_status(conn)}


def test_jobs_and_workers_are_listed_by_owner_and_name(site: Site) -> None:
    """Every job and worker is there, whether it has an entry or not; queues and channels are not."""
    site.apply(job("b"), job("a", active=False), worker("w"), once("o"), queue("q"), channel("c"))
    site.apply(job("z"), owner="kitchen")
    with connect(site.dsn) as conn:
        found = read_status(conn)
    assert [(one.owner, one.name) for one in found] == [
        ("kitchen", "z"),
        ("shop", "a"),
        ("shop", "b"),
        ("shop", "o"),
        ("shop", "w"),
    ]
    assert [(one.scheduled, one.schedule, one.active) for one in found[1:4]] == [
        (True, NEVER, False),
        (True, NEVER, True),
        (False, None, None),
    ]
    assert {one.last_status for one in found} == {None}


def test_the_last_run_of_a_managed_job_is_the_one_of_our_log(site: Site) -> None:
    """A failure shows with its message; a later success takes its place."""
    site.apply(job("a", "SELECT 1/0"))
    with pytest.raises(psycopg.errors.DivisionByZero):
        site.run("CALL reconciler.run_job('a')")
    failed = status(site)["a"]
    assert (failed.last_status, failed.last_error) == ("failed", "division by zero")
    assert failed.last_run_at is not None
    assert failed.last_run_at.tzinfo is not None
    assert failed.last_duration is not None
    assert failed.last_duration >= timedelta(0)
    site.apply(job("a", "SELECT 1"))
    site.run("CALL reconciler.run_job('a')")
    done = status(site)["a"]
    assert (done.last_status, done.last_error) == ("succeeded", None)


def test_the_last_run_of_a_direct_job_is_the_one_of_pg_cron(site: Site) -> None:
    """A direct job has no log of ours: pg_cron's newest row for its jobid counts."""
    site.apply(job("a", mode="direct"), job("b", mode="direct"))
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)"
        " SELECT jobid, n, CASE n WHEN 2 THEN 'failed' ELSE 'succeeded' END, 'message ' || n,"
        " now() - interval '1 minute', now() FROM cron.job, generate_series(1, 2) n WHERE jobname = 'a'"
    )
    found = status(site)
    assert (found["a"].last_status, found["a"].last_error) == ("failed", "message 2")
    assert found["a"].last_duration == timedelta(minutes=1)
    assert found["b"].last_status is None


def test_an_entry_that_is_hidden_is_still_listed(site: Site) -> None:
    """A role that row-level security keeps from an entry sees the job without its schedule."""
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    site.apply(job("a"))
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice")
    found = status(Site(site.database, "alice"))["a"]
    assert (found.scheduled, found.schedule, found.active) == (True, None, None)
