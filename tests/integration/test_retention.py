"""Retention: what is old enough goes in batches, from our own tables and pg_cron's; nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, job, queue
from tests.runs import attempt

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

ADD_RUNS: LiteralString = """
INSERT INTO reconciler.cron_execution_log (job_name, run_at, completed_at, status, role, backend_pid)
SELECT 'a', now() - age, CASE WHEN status <> 'running' THEN now() - age END, status, 'x', pg_backend_pid()
  FROM unnest(%s::interval[], %s::text[]) AS t (age, status) CROSS JOIN generate_series(1, %s)
 ORDER BY age DESC
"""
ADD_DETAIL: LiteralString = """
INSERT INTO cron.job_run_details (runid, jobid, job_pid, username, status, start_time, end_time)
VALUES (%s, 1, %s, %s, %s, now() - %s::interval, now() - %s::interval)
"""
RUNIDS: LiteralString = "SELECT runid FROM cron.job_run_details ORDER BY runid"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema and a job, and nothing in pg_cron's history."""
    site = Site(database)
    site.apply(job("a"), queue("mail", retention="3h"))
    site.run("DELETE FROM cron.job_run_details")
    return site


def add_runs(site: Site, *runs: tuple[str, str], times: int = 1) -> None:
    """Put runs of given age and status into the log, each so many times, the oldest first."""
    ages, statuses = zip(*runs, strict=True)
    site.run(ADD_RUNS, list(ages), list(statuses), times)


def add_detail(
    site: Site,
    runid: int,
    start: str | None,
    end: str | None,
    *,
    status: str = "succeeded",
    pid: int | None = None,
    username: str = "postgres",
) -> None:
    """Put a row into pg_cron's history; the times are ages, None for unknown."""
    site.run(ADD_DETAIL, runid, pid, username, status, start, end)


def add_jobs(site: Site, queues: list[str], ages: list[str]) -> None:
    """Put queued jobs of every status and of each age on queues."""
    site.run(
        "INSERT INTO reconciler.jobs (handler, queue, status, created_at, completed_at)"
        " SELECT 'h', queue, status, now() - age,"
        "        CASE WHEN status NOT IN ('pending', 'running') THEN now() - age END"
        "   FROM unnest(%s::text[]) AS queue,"
        "        unnest(ARRAY['completed', 'cancelled', 'failed', 'pending', 'running']) AS status,"
        "        unnest(%s::interval[]) AS age",
        queues,
        ages,
    )


def clear(site: Site, keep: str = "30 days", batch: int = 1000) -> int:
    """Clear our own history once, and return how many rows went."""
    return int(site.rows("SELECT reconciler.clear_history(%s::interval, %s)", keep, batch)[0][0])


def clear_details(site: Site, keep: str = "7 days", batch: int = 1000) -> list[int]:
    """Clear pg_cron's history once, and return the rows that are left."""
    site.rows("SELECT reconciler.clear_details(%s::interval, %s)", keep, batch)
    return [runid for (runid,) in site.rows(RUNIDS)]


def test_old_runs_go(site: Site) -> None:
    """Runs that are old enough go, however they ended; one that still runs stays, and so do younger ones."""
    old = [
        ("31 days", status)
        for status in ("succeeded", "failed", "timed_out", "skipped", "cancelled", "lost", "running")
    ]
    add_runs(site, *old, ("29 days", "succeeded"))
    assert clear(site) == 6
    assert clear(site) == 0
    assert site.rows("SELECT status FROM reconciler.cron_execution_log ORDER BY id") == [
        ("running",),
        ("succeeded",),
    ]


def test_resolved_alerts_go_with_their_messages(site: Site) -> None:
    """Alerts that were resolved long ago go; open ones stay, however old and however many come before."""
    site.run(
        "INSERT INTO reconciler.alerts (job_name, kind, message, opened_at, resolved_at)"
        " SELECT 'job-' || n, 'failed', 'x', now() - interval '40 days',"
        "        now() - CASE WHEN n > 55 THEN interval '31 days' WHEN n > 50 THEN interval '1 day' END"
        "   FROM generate_series(1, 60) AS n;"
        "INSERT INTO reconciler.alert_deliveries (alert_id, channel) SELECT id, 'ops' FROM reconciler.alerts"
    )
    assert clear(site, batch=20) == 5
    assert clear(site, batch=20) == 0
    assert site.rows("SELECT count(*), count(resolved_at) FROM reconciler.alerts") == [(55, 5)]
    assert site.rows("SELECT count(*) FROM reconciler.alert_deliveries") == [(55,)]


def test_finished_jobs_of_a_queue_go(site: Site) -> None:
    """Completed and cancelled jobs go after their queue's time; failed and waiting ones stay."""
    add_jobs(site, ["mail", "default"], ["2 hours", "4 hours", "6 days", "8 days"])
    assert clear(site) == 8
    left = site.rows(
        "SELECT queue, status, count(*) FROM reconciler.jobs GROUP BY queue, status ORDER BY queue, status"
    )
    assert left == [
        ("default", "cancelled", 3),
        ("default", "completed", 3),
        ("default", "failed", 4),
        ("default", "pending", 4),
        ("default", "running", 4),
        ("mail", "cancelled", 1),
        ("mail", "completed", 1),
        ("mail", "failed", 4),
        ("mail", "pending", 4),
        ("mail", "running", 4),
    ]


def test_queues_that_nobody_declared_are_cleared_too(site: Site) -> None:
    """Jobs of any other queue are kept for as long as those of a queue with the usual settings."""
    add_jobs(site, ["a", "blocking", "default", "z"], ["6 days", "8 days"])
    assert clear(site) == 8
    left: LiteralString = "SELECT queue, status FROM reconciler.jobs_finished WHERE status <> 'failed'"
    assert sorted(site.rows(left)) == [
        (name, status) for name in ("a", "blocking", "default", "z") for status in ("cancelled", "completed")
    ]


def test_dead_jobs_go_later(site: Site) -> None:
    """Failed jobs stay for a time of their own: keep_failed of the queue, a month where nothing is said."""
    site.apply(job("a"), queue("mail", retention="3h", keep_failed="2d"))
    add_jobs(site, ["mail", "default"], ["1 hour", "29 days", "31 days"])
    clear(site)
    assert site.rows(
        "SELECT queue, date_trunc('day', now() - completed_at)::text FROM reconciler.jobs_finished"
        " WHERE status = 'failed' ORDER BY queue, completed_at"
    ) == [("default", "29 days"), ("default", "00:00:00"), ("mail", "00:00:00")]


def test_a_batch_is_the_most_of_queued_jobs_that_goes_at_once(site: Site) -> None:
    """However many queues there are, one call deletes no more than a batch, the oldest of a queue first."""
    add_jobs(site, ["a", "b", "c"], ["40 days", "41 days", "42 days"])
    finished: LiteralString = "SELECT count(*)::int FROM reconciler.jobs_finished"
    for left in (20, 13, 6, 0):
        clear(site, batch=7)
        assert site.rows(finished) == [(left,)]


def test_the_way_to_old_jobs_is_short(site: Site) -> None:
    """To find what is old no job is read that stays: neither younger ones nor dead ones that wait longer."""
    site.run(
        "INSERT INTO reconciler.jobs_finished (id, handler, queue, status, completed_at)"
        " SELECT n, 'h', 'q' || n % 3, CASE WHEN n % 10 = 0 THEN 'completed' ELSE 'failed' END,"
        "        now() - CASE WHEN n % 10 = 0 THEN interval '1 day' ELSE interval '20 days' END"
        "   FROM generate_series(1, 30000) AS n;"
        "ANALYZE reconciler.jobs_finished"
    )
    conn = site.database.connect()
    for _ in range(6):  # from the sixth call on the server may use a plan for any value
        conn.execute("SELECT reconciler.find_old_jobs(100)")
    conn.execute("SELECT pg_stat_reset(); SELECT pg_stat_force_next_flush()")
    assert conn.execute("SELECT cardinality(reconciler.find_old_jobs(100))").fetchone() == (0,)
    conn.execute("SELECT pg_stat_force_next_flush()")
    read = conn.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'jobs_finished'"
    ).fetchone()
    assert read is not None
    assert read[0] < 50


def test_runs_that_wait_do_not_hold_up_the_rest(site: Site) -> None:
    """Old runs that still wait for a worker stay, and those after them go, however many wait."""
    add_runs(site, ("40 days", "running"), times=50)
    add_runs(site, ("35 days", "succeeded"), times=5)
    assert clear(site, batch=10) == 5
    assert site.rows("SELECT DISTINCT status FROM reconciler.cron_execution_log") == [("running",)]


def test_less_than_an_hour_is_an_hour(site: Site) -> None:
    """Whatever is asked for, the last hour stays."""
    add_runs(site, ("59 minutes", "succeeded"), ("61 minutes", "succeeded"))
    add_detail(site, 1, "61 minutes", "61 minutes")
    add_detail(site, 2, "59 minutes", "59 minutes")
    assert clear(site, keep="0") == 1
    assert clear_details(site, keep="-1 day") == [2]


def test_old_details_go_also_without_an_end(site: Site) -> None:
    """Rows without an end count by their start; rows without both are older than later ones."""
    add_detail(site, 1, None, None, status="failed")
    add_detail(site, 2, "9 days", None, status="failed")
    add_detail(site, 3, "9 days", "6 days")
    add_detail(site, 4, None, None, status="failed")
    add_detail(site, 5, "8 days", "8 days")
    add_detail(site, 6, None, None, status="failed")
    add_detail(site, 7, "6 days", "6 days")
    assert clear_details(site) == [3, 6, 7]


def test_what_a_backend_still_does_stays(site: Site) -> None:
    """A row that is not over stays as long as its backend lives, and goes when that is gone."""
    pid = site.database.connect().info.backend_pid
    add_detail(site, 1, "8 days", None, status="running", pid=pid)
    add_detail(site, 2, "8 days", None, status="running", pid=2**22 + 1)
    add_detail(site, 3, "8 days", "8 days", pid=pid)
    add_detail(site, 4, None, None, status="starting")
    add_detail(site, 5, "8 days", "8 days", status="failed")
    assert clear_details(site) == [1]


@pytest.mark.parametrize(("age", "left"), [("8 days", 1), ("6 days", 3001)])
def test_rows_without_times_do_not_hold_up_the_rest(site: Site, age: str, left: int) -> None:
    """More rows without any time than fit a batch go when the next one with a time is old."""
    site.run(
        "INSERT INTO cron.job_run_details (runid, jobid, username, status)"
        " SELECT n, 1, 'postgres', 'failed' FROM generate_series(1, 3000) AS n"
    )
    add_detail(site, 3001, age, age)
    add_detail(site, 3002, "1 day", "1 day")
    for _ in range(5):
        left_now = clear_details(site)
    assert len(left_now) == left + (age == "6 days")


def test_each_role_clears_its_own_details(site: Site) -> None:
    """Row-level security holds: an ordinary role deletes its own rows, a superuser everybody's."""
    site.run("CREATE ROLE anna LOGIN; CREATE ROLE ben LOGIN; GRANT USAGE ON SCHEMA cron TO anna")
    for runid, username in ((1, "anna"), (2, "ben"), (3, "postgres"), (4, "anna")):
        add_detail(site, runid, "8 days" if runid < 4 else "1 day", None, username=username)
    anna = site.database.connect("anna")
    found = anna.execute("SELECT reconciler.clear_details('7 days', 100)").fetchone()
    assert found == (1,)
    assert site.rows(RUNIDS) == [(2,), (3,), (4,)]
    ben = site.database.connect("ben")
    assert ben.execute("SELECT reconciler.clear_details('7 days', 100)").fetchone() == (0,)
    assert clear_details(site) == [4]


def test_a_batch_is_the_most_that_goes_at_once(site: Site) -> None:
    """One call deletes at most a batch of each table; the oldest go first."""
    add_runs(site, *[("40 days", "succeeded")] * 25)
    for runid in range(1, 26):
        add_detail(site, runid, "8 days", "8 days")
    assert clear(site, batch=10) == 10
    assert site.rows("SELECT min(id) FROM reconciler.cron_execution_log") == [(11,)]
    assert clear_details(site, batch=10) == list(range(11, 26))


def test_the_tick_clears_batch_by_batch(site: Site) -> None:
    """One tick deletes several batches of both histories, by the times that it is called with."""
    add_runs(site, ("2 days", "succeeded"), ("4 days", "failed"), times=2500)
    site.run(
        "INSERT INTO cron.job_run_details (runid, jobid, username, status, start_time, end_time)"
        " SELECT n, 1, 'postgres', 'succeeded', now() - interval '2 days', now() - interval '2 days'"
        "   FROM generate_series(1, 2500) AS n"
    )
    site.run("CALL reconciler.tick()")
    assert site.rows("SELECT count(*) FROM reconciler.cron_execution_log") == [(5000,)]
    site.run("CALL reconciler.tick(keep_runs => '3 days', keep_details => '1 day')")
    assert site.rows("SELECT DISTINCT status FROM reconciler.cron_execution_log") == [("succeeded",)]
    assert site.rows(RUNIDS) == []


def test_all_of_it_at_once(site: Site) -> None:
    """clear_all_history goes on until nothing old is left."""
    add_runs(site, ("2 days", "succeeded"), ("40 days", "failed"), times=15_000)
    site.run("CALL reconciler.clear_all_history(batch => 500)")
    assert site.rows("SELECT status, count(*) FROM reconciler.cron_execution_log GROUP BY status") == [
        ("succeeded", 15000)
    ]


def test_a_stranger_clears_nothing(site: Site) -> None:
    """A role that has nothing to do with the runtime may not delete history; the tick's role may."""
    site.run("CREATE ROLE stranger LOGIN")
    add_runs(site, ("40 days", "succeeded"))
    for statement in ("SELECT reconciler.clear_history('0', 100)", "CALL reconciler.clear_all_history()"):
        error = attempt(site, statement, user="stranger")
        assert isinstance(error, psycopg.errors.InsufficientPrivilege)
    assert "may not delete history" in str(attempt(site, "CALL reconciler.tick()", user="stranger"))
    assert site.rows("SELECT count(*) FROM reconciler.cron_execution_log") == [(1,)]
    site.run("CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA cron TO app")
    site.apply(job("a"), job("reconciler-tick", "CALL reconciler.tick()", mode="direct", role="app"))
    assert attempt(site, "CALL reconciler.tick()", user="app") is None
    assert site.rows("SELECT count(*) FROM reconciler.cron_execution_log") == [(0,)]


def test_without_rights_on_pg_cron_the_rest_is_cleared(site: Site) -> None:
    """A tick whose role may not use pg_cron's schema leaves its details alone, and does its other work."""
    site.run("CREATE ROLE app LOGIN")
    add_runs(site, ("40 days", "succeeded"))
    add_detail(site, 1, "8 days", "8 days", username="app")
    site.apply(job("a"), job("reconciler-tick", "CALL reconciler.tick()", mode="direct", role="app"))
    assert attempt(site, "CALL reconciler.tick()", user="app") is None
    assert site.rows("SELECT count(*) FROM reconciler.cron_execution_log") == [(0,)]
    assert site.rows(RUNIDS) == [(1,)]
