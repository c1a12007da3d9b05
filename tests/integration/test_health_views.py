"""The views that people look at: how every job fares, and what ran, direct jobs included."""

from __future__ import annotations

import statistics
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.declared import LATER, NEVER, Site, after, job, once, queue, worker
from tests.faults import running
from tests.queued import claim_one, complete
from tests.runs import call

if TYPE_CHECKING:
    from tests.servers import Database

ADD_RUN: LiteralString = """
INSERT INTO reconciler.cron_execution_log
       (job_name, definition_id, run_at, completed_at, status, role, backend_pid)
SELECT name, id, now() - %s::interval, now() - %s::interval + %s, %s, 'postgres', 1
  FROM reconciler.definitions WHERE name = %s
"""
ADD_DETAIL: LiteralString = """
INSERT INTO cron.job_run_details
       (runid, jobid, job_pid, username, status, return_message, start_time, end_time)
SELECT %s, jobid, 1, 'postgres', %s, %s, now() - %s::interval, now() - %s::interval + %s
  FROM cron.job WHERE jobname = %s
"""


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database."""
    return Site(database)


def read(site: Site, view: str, user: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a view."""
    conn = site.database.connect(user)
    conn.row_factory = dict_row  # type: ignore[assignment] # of a connection that is used for this alone
    query = sql.SQL("SELECT * FROM reconciler.{} ORDER BY name").format(sql.Identifier(view))
    return conn.execute(query).fetchall()  # type: ignore[return-value] # rows are dicts now


def health(site: Site, name: str) -> dict[str, Any]:
    """Return the health of one job."""
    return next(row for row in read(site, "cron_job_health") if row["name"] == name)


def seconds(value: timedelta | None) -> float | None:
    """Return a duration in seconds."""
    return None if value is None else value.total_seconds()


def test_every_job_and_worker_has_its_row(site: Site) -> None:
    """Before anything ran, jobs of every kind and workers are there, with zeros and nothing else."""
    site.apply(
        job("a"),
        job("b", mode="direct"),
        after("c", "a"),
        once("d", LATER, sql="SELECT 1"),
        queue("mail"),
        worker("push", queue="mail"),
    )
    rows = read(site, "cron_job_health")
    assert [row["name"] for row in rows] == ["a", "b", "c", "d", "push"]
    for row in rows:
        counts = [row[f"{what}_runs"] for what in ("total", "failed", "missed")]
        assert [*counts, row["consecutive_failures"]] == [0, 0, 0, 0]
        assert (row["last_status"], row["last_run_time"], row["p50_duration"]) == (None, None, None)
        assert (row["owner"], row["paused"]) == ("shop", False)
    assert [row["schedule"] for row in rows[:4]] == [NEVER, NEVER, None, None]


def test_runs_are_counted_as_they_end(site: Site) -> None:
    """Counts, the newest status, its error and the failures in a row follow the runs, and outlive the log."""
    site.apply(job("a", "SELECT 1"))
    call(site)
    site.apply(job("a", "SELECT 1/0"))
    call(site)
    call(site)
    row = health(site, "a")
    assert (row["total_runs"], row["failed_runs"], row["consecutive_failures"]) == (3, 2, 2)
    assert (row["last_status"], row["last_error"]) == ("failed", "division by zero")
    assert row["last_duration"] >= timedelta(0)
    newest = site.rows("SELECT max(run_at) FROM reconciler.cron_execution_log")[0][0]
    assert row["last_run_time"] == newest
    site.run("DELETE FROM reconciler.cron_execution_log")
    site.apply(job("a", "SELECT 1"))
    call(site)
    row = health(site, "a")
    assert (row["total_runs"], row["failed_runs"], row["consecutive_failures"]) == (4, 2, 0)
    assert (row["last_status"], row["last_error"]) == ("succeeded", None)


def test_a_run_that_goes_on_is_shown(site: Site) -> None:
    """While a job runs, its status and time are those of the run; the counts are those of what ended."""
    site.apply(job("a", "SELECT pg_sleep(0.5)"))
    with running(site):
        row = health(site, "a")
        assert (row["last_status"], row["total_runs"], row["last_duration"]) == ("running", 0, None)
        assert row["last_run_time"] is not None
    assert health(site, "a")["last_status"] == "succeeded"


def test_a_run_that_a_worker_has_is_shown(site: Site) -> None:
    """Until its queued job is finished that is the run that goes on; history keeps the number."""
    site.apply(job("a", handler="work.do"))
    call(site)
    row = health(site, "a")
    [(queued,)] = site.rows("SELECT id FROM reconciler.jobs")
    assert (row["last_status"], row["total_runs"], row["queued_job_id"]) == ("running", 0, queued)
    conn = site.database.connect()
    complete(conn, [claim_one(conn)])
    row = health(site, "a")
    assert (row["last_status"], row["total_runs"], row["queued_job_id"]) == ("succeeded", 1, None)
    assert [run["queued_job_id"] for run in read(site, "run_history")] == [queued]


def test_usual_durations_are_those_of_the_newest_good_runs(site: Site) -> None:
    """Median and 95th percentile count the last 100 runs that succeeded, as the log has them."""
    site.apply(job("a"), job("b"))
    durations = [0.1 * ((n * 7) % 31) for n in range(100)]
    with site.database.server.connect() as conn:
        for n, duration in enumerate([*durations, 900, 900, 900]):
            age = timedelta(hours=n + 1)
            conn.execute(ADD_RUN, [age, age, timedelta(seconds=duration), "succeeded", "a"])
        for n in range(20):
            age = timedelta(minutes=n)
            conn.execute(ADD_RUN, [age, age, timedelta(seconds=500), "failed", "a"])
    row = health(site, "a")
    assert seconds(row["p50_duration"]) == pytest.approx(statistics.median(durations), abs=1e-5)
    expected = statistics.quantiles(durations, n=100, method="inclusive")[94]
    assert seconds(row["p95_duration"]) == pytest.approx(expected, abs=1e-5)
    assert health(site, "b")["p50_duration"] is None


def test_direct_jobs_are_told_from_pg_cron_s_own_history(site: Site) -> None:
    """For a job that pg_cron has as it is, everything comes from its details."""
    site.apply(job("a", mode="direct"), job("b", mode="direct"))
    site.run("DELETE FROM cron.job_run_details")
    runs = [("succeeded", "1 row", 1), ("failed", "ERROR:  old\n", 2), ("succeeded", "1 row", 3)]
    runs += [("failed", "ERROR:  new\n", 4), ("failed", "ERROR:  newest\n", 5)]
    for number, (status, message, length) in enumerate(runs):
        age = timedelta(hours=10 - number)
        site.run(ADD_DETAIL, number + 1, status, message, age, age, timedelta(seconds=length), "a")
    site.run(ADD_DETAIL, 6, "running", None, "1 minute", "1 minute", timedelta(0), "a")
    row = health(site, "a")
    assert (row["total_runs"], row["failed_runs"], row["consecutive_failures"]) == (5, 3, 2)
    assert (row["last_status"], row["last_error"]) == ("failed", "ERROR:  newest")
    assert seconds(row["last_duration"]) == 5
    assert seconds(row["p50_duration"]) == 2
    assert seconds(row["p95_duration"]) == pytest.approx(2.9)
    assert health(site, "b")["total_runs"] == 0


def test_the_next_run_is_pg_cron_s(site: Site) -> None:
    """The next run is when the entry fires next in pg_cron's zone; none for what is switched off or gone."""
    site.apply(job("a", schedule="30 4 * * *"), job("off", active=False), job("gone"), job("c"))
    site.run("UPDATE reconciler.policies SET zone = 'Asia/Tokyo' WHERE name = 'c'")
    site.run("UPDATE cron.job SET schedule = '30 4 * * *' WHERE jobname = 'c'")
    site.run("DELETE FROM cron.job WHERE jobname = 'gone'")
    [(daily, tokyo)] = site.rows(
        "SELECT reconciler.next_fire('30 4 * * *', now(), 'GMT'),"
        " reconciler.next_fire('30 4 * * *', now(), 'Asia/Tokyo')"
    )
    rows = {row["name"]: row for row in read(site, "cron_job_health")}
    assert rows["a"]["next_run_time"] == daily
    assert rows["c"]["next_run_time"] == tokyo
    for name in ("off", "gone"):
        assert (rows[name]["next_run_time"], rows[name]["active"]) == (None, False)


def test_lateness_is_how_long_a_run_is_due(site: Site) -> None:
    """A job whose fire has passed without a run is late by that much; before its fire it is not."""
    site.apply(job("a"), job("b"), after("c", "a"), job("off", active=False))
    site.run(
        "UPDATE reconciler.job_states SET next_due_at = now() - interval '10 minutes' WHERE name = 'a';"
        "UPDATE reconciler.job_states SET next_due_at = now() + interval '10 minutes' WHERE name = 'b'"
    )
    rows = {row["name"]: seconds(row["lateness"]) for row in read(site, "cron_job_health")}
    assert rows["a"] == pytest.approx(600, abs=30)
    assert rows["b"] == 0
    assert (rows["c"], rows["off"]) == (None, None)


def test_pauses_are_shown_while_they_last(site: Site) -> None:
    """A paused job says so and until when; a pause that is over is none."""
    site.apply(job("a"), job("b"), job("c"))
    site.run(
        "SELECT reconciler.pause_job('a'), reconciler.pause_job('b', '2099-01-02T00:00:00Z', 'why'),"
        " reconciler.pause_job('c', clock_timestamp() + interval '1 hour');"
        "UPDATE reconciler.pauses SET until = now() - interval '1 second' WHERE job_name = 'c'"
    )
    rows = {row["name"]: (row["paused"], row["paused_until"]) for row in read(site, "cron_job_health")}
    assert rows["a"] == (True, None)
    assert rows["b"][0]
    assert rows["b"][1].year == 2099
    assert rows["c"] == (False, None)


def test_the_history_has_both_kinds_of_runs(site: Site) -> None:
    """Managed runs come from our log, direct ones from pg_cron's details; each run is there once."""
    site.apply(job("a", "SELECT 1/0"), job("b", mode="direct"))
    call(site)
    site.run("DELETE FROM cron.job_run_details")
    site.run(ADD_DETAIL, 7, "failed", "ERROR:  no\n", "1 hour", "1 hour", timedelta(seconds=3), "b")
    site.run(ADD_DETAIL, 8, "sending", None, "1 hour", "1 hour", timedelta(seconds=3), "b")
    site.run(ADD_DETAIL, 9, "succeeded", "CALL", "1 hour", "1 hour", timedelta(seconds=3), "a")
    rows = read(site, "run_history")
    assert [(row["name"], row["source"], row["status"], row["trigger"]) for row in rows] == [
        ("a", "log", "failed", "manual"),
        ("b", "pg_cron", "failed", "schedule"),
        ("b", "pg_cron", "running", "schedule"),
    ]
    assert [row["error_message"] for row in rows] == ["division by zero", "ERROR:  no", None]
    assert (rows[0]["error_sqlstate"], rows[0]["attempt"], rows[0]["role"]) == ("22012", 1, "postgres")
    assert (rows[1]["run_id"], seconds(rows[1]["duration"]), rows[1]["role"]) == (7, 3, "postgres")


def test_a_reader_without_pg_cron_sees_what_is_ours(site: Site) -> None:
    """A role with SELECT on the views, and nothing on pg_cron's schema, reads what our own tables know."""
    site.run("CREATE ROLE reader LOGIN")
    site.apply(job("a"), job("b", mode="direct"))
    call(site)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        read(site, "cron_job_health", "reader")
    site.run(
        "GRANT SELECT ON reconciler.cron_job_health, reconciler.run_history,"
        " reconciler.scheduled_jobs TO reader"
    )
    rows = read(site, "cron_job_health", "reader")
    assert [(row["name"], row["total_runs"], row["last_status"]) for row in rows] == [
        ("a", 1, "succeeded"),
        ("b", 0, None),
    ]
    assert [row["name"] for row in read(site, "run_history", "reader")] == ["a"]
    assert [row["name"] for row in read(site, "scheduled_jobs", "reader")] == ["a", "b"]


def test_what_is_declared_to_run_is_listed(site: Site) -> None:
    """Each job has its trigger, also those that have no schedule."""
    site.apply(
        job("a", description="Clean up", role="postgres"),
        after("b", "a"),
        once("c", LATER, sql="SELECT 1"),
        job("off", active=False),
    )
    rows = read(site, "scheduled_jobs")
    assert [(row["name"], row["trigger"], row["after"], row["active"]) for row in rows] == [
        ("a", "schedule", None, True),
        ("b", "after", ["a"], True),
        ("c", "once", None, True),
        ("off", "schedule", None, False),
    ]
    assert (rows[0]["description"], rows[0]["role"], rows[2]["run_at"]) == ("Clean up", "postgres", LATER)
