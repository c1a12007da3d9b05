"""The runner: starts that are due, each by its own role, one after the other, and each of them once."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, after, job, once
from tests.runs import (
    Beside,
    attempt,
    hold,
    log,
    make_due,
    run_retries,
    runner,
    running,
    starts,
    statuses,
    tick,
    wait_for_pg_cron,
)
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.servers import Database

DIRTY = """
CREATE TEMP TABLE leftover (n int);
CREATE TEMP SEQUENCE counter;
SELECT pg_advisory_lock(77), set_config('my.setting', 'left', false), nextval('public.numbers');
PREPARE question AS SELECT 1;
DECLARE reader CURSOR WITH HOLD FOR SELECT 1;
SET statement_timeout = '1h';
SET default_transaction_read_only = on;
SET search_path = nowhere;
SET SESSION AUTHORIZATION weak;
"""
SESSION = """
CREATE TABLE public.seen AS SELECT
    current_user AS who, session_user AS login, current_setting('search_path') AS path,
    current_setting('statement_timeout') AS timeout,
    coalesce(current_setting('my.setting', true), '') AS setting,
    (SELECT count(*) FROM pg_class WHERE relname = 'leftover') AS tables,
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77) AS locks,
    (SELECT count(*) FROM pg_listening_channels()) AS channels,
    (SELECT count(*) FROM pg_prepared_statements WHERE name = 'question') AS prepared,
    (SELECT count(*) FROM pg_cursors WHERE name = 'reader') AS cursors
"""
CLEAN = ("postgres", "postgres", '"$user", public', "0", "", 0, 0, 0, 0, 0)
SLEEPS: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
QUEUED: LiteralString = "SELECT status, attempts, last_error FROM reconciler.jobs WHERE job_name = 'a'"


def ask_for(site: Site, *names: str) -> None:
    """Ask for runs, in this order."""
    for name in names:
        site.run("SELECT reconciler.request_run(%s)", name)


def let_it_be_time(site: Site) -> None:
    """Let the time of all one-time jobs have come, and hand what the runner does to it."""
    site.run("UPDATE reconciler.jobs SET run_at = clock_timestamp() WHERE once AND status = 'pending'")
    tick(site)


def test_a_role_carries_out_its_own_jobs_alone(site: Site) -> None:
    """A start is carried out by the job's role, not by a role that may do more or less."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN IN ROLE alice")
    site.apply(job("a"), job("b", role="alice"))
    ask_for(site, "a", "b")
    for user, left in (("bob", ["a", "b"]), ("alice", ["a"]), (None, [])):
        runner(site, user)
        assert [name for name, *_ in starts(site)] == left
    assert log(site, "a", "role") == [("postgres",)]
    assert log(site, "b", "role", "trigger") == [("alice", "manual")]


def test_starts_are_carried_out_in_order(site: Site) -> None:
    """What has been due for longest comes first."""
    site.apply(job("a"), job("b"), job("c"))
    ask_for(site, "a", "b", "c")
    site.run("UPDATE reconciler.starts SET due_at = due_at - interval '1 hour' WHERE job_name = 'c'")
    site.run("UPDATE reconciler.starts SET due_at = due_at + interval '1 hour' WHERE job_name = 'a'")
    runner(site)
    assert site.rows("SELECT job_name FROM reconciler.cron_execution_log ORDER BY id") == [("c",), ("b",)]
    assert starts(site) == [("a", "manual", 1)]


def test_a_failure_does_not_reach_the_next_run(site: Site) -> None:
    """The runner goes on after a failed run, does not fail itself, and keeps the errors apart."""
    site.apply(job("a", "SELECT 1/0"), job("b"))
    ask_for(site, "a", "b")
    runner(site)
    assert log(site, "a", "status", "error_sqlstate") == [("failed", "22012")]
    assert log(site, "b", "status", "error_sqlstate", "error_message") == [("succeeded", None, None)]


def test_a_body_finds_a_clean_session(site: Site) -> None:
    """Roles, settings, temporary tables, locks, channels, statements and cursors do not outlive a run."""
    site.run("CREATE ROLE weak; CREATE SEQUENCE public.numbers")
    site.apply(job("a", f"LISTEN gossip; {DIRTY}"), job("b", SESSION))
    ask_for(site, "a", "b")
    runner(site)
    assert log(site, "a", "status", "error_message") == [("succeeded", None)]
    assert log(site, "b", "status", "error_message") == [("succeeded", None)]
    assert site.rows("SELECT * FROM public.seen") == [CLEAN]


@pytest.mark.firing
def test_pg_cron_fires_the_runner(any_mode_database: Database) -> None:
    """Fired by pg_cron in each mode, the runner carries out one start after the other in clean sessions."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.run("CREATE ROLE weak; CREATE SEQUENCE public.numbers")
    site.apply(job("a", DIRTY), job("b", SESSION))
    ask_for(site, "a", "b")
    site.apply(
        job("a", DIRTY),
        job("b", SESSION),
        job("go", "CALL reconciler.runner()", mode="direct", schedule=schedule),
    )
    if is_old:
        any_mode_database.server.restart()
    wait_for_pg_cron(site, lambda: len(statuses(site, "b")) == 1, what="the runner has come to the second")
    wait_until(lambda: "running" not in statuses(site, "b"), seconds=5, what="the second has ended")
    assert log(site, "a", "status", "trigger") == [("succeeded", "manual")]
    assert log(site, "b", "status", "trigger") == [("succeeded", "manual")]
    assert site.rows("SELECT * FROM public.seen") == [CLEAN]


def test_two_lanes_share_the_work(site: Site) -> None:
    """Of several runners at once each start is carried out by one."""
    names = [f"a{number}" for number in range(30)]
    site.apply(*(job(name) for name in names))
    ask_for(site, *names)
    lanes = [Beside(site, "CALL reconciler.runner()") for _ in range(3)]
    assert [lane.end() for lane in lanes] == [None, None, None]
    assert site.rows("SELECT job_name, status FROM reconciler.cron_execution_log ORDER BY 1") == sorted(
        (name, "succeeded") for name in names
    )


def test_a_lane_goes_on_while_another_is_busy(site: Site) -> None:
    """A long run in one lane does not keep others from being carried out by another."""
    site.apply(job("a", hold()), job("b"))
    ask_for(site, "a", "b")
    gate = site.database.connect()
    gate.execute("SELECT pg_advisory_lock(1)")
    lane = Beside(site, "CALL reconciler.runner()")
    wait_until(lambda: statuses(site) == ["running"], seconds=5, what="the first lane is busy")
    runner(site)
    assert statuses(site, "b") == ["succeeded"]
    gate.close()
    assert lane.end() is None
    assert statuses(site) == ["succeeded"]


def test_a_body_that_ends_its_session_takes_no_other_start_along(site: Site) -> None:
    """When a body kills its own session, its run is lost, and the next runner carries out the rest."""
    site.apply(job("a", "SELECT pg_terminate_backend(pg_backend_pid())"), job("b"))
    ask_for(site, "a", "b")
    assert isinstance(attempt(site, "CALL reconciler.runner()"), psycopg.errors.AdminShutdown)
    assert starts(site) == [("b", "manual", 1)]
    runner(site)
    tick(site)
    assert (statuses(site, "a"), statuses(site, "b")) == (["lost"], ["succeeded"])


def test_it_may_stay_for_what_is_due_soon(site: Site) -> None:
    """Where pg_cron knows no seconds, a runner stays a while and takes what is asked for meanwhile."""
    site.apply(job("a"))
    lane = Beside(site, "CALL reconciler.runner(stay => '2 seconds')")
    wait_until(lambda: site.rows(SLEEPS, lane.pid) == [(1,)], seconds=5, what="the runner stays")
    ask_for(site, "a")
    assert lane.end() is None
    assert statuses(site) == ["succeeded"]


def test_a_start_goes_with_its_job(site: Site) -> None:
    """What is to be started of a job that is withdrawn, or handed to pg_cron as it is, is not."""
    site.apply(job("a"), job("b"), job("c"))
    ask_for(site, "a", "b", "c")
    site.apply(job("b", mode="direct"), job("c"), prune="auto")
    assert starts(site) == [("c", "manual", 1)]
    runner(site)
    assert statuses(site, "c") == ["succeeded"]


def test_no_retry_of_a_job_that_was_switched_off(site: Site) -> None:
    """A job that was made inactive while its retry waited is not tried again."""
    site.apply(job("a", "SELECT 1/0", on_failure={"retries": 5}))
    ask_for(site, "a")
    runner(site)
    site.apply(job("a", "SELECT 1/0", on_failure={"retries": 5}, active=False))
    run_retries(site, 2)
    assert log(site, "a", "status", "error_message")[1:] == [("skipped", "not active")]
    assert starts(site) == []


# ---------------------------------------------------------------------------------------- one-time jobs


def test_one_time_sql_runs_at_its_time(site: Site) -> None:
    """Not before its time, and once, SQL is executed, and its queued job completed."""
    site.run("CREATE TABLE public.t (n int)")
    site.apply(once("a", sql="INSERT INTO public.t VALUES (1)"))
    tick(site)
    assert starts(site) == []
    let_it_be_time(site)
    assert starts(site) == [("a", "schedule", 1)]
    tick(site)
    runner(site)
    assert site.rows(QUEUED) == [("completed", 1, None)]
    tick(site)
    runner(site)
    assert site.rows("SELECT n FROM public.t") == [(1,)]
    assert site.rows(
        "SELECT l.trigger, l.due_at = j.run_at, l.queued_job_id = j.id, j.started_at <= j.completed_at"
        "  FROM reconciler.cron_execution_log l, reconciler.jobs j"
    ) == [("schedule", True, True, True)]


def test_one_time_sql_is_tried_again(site: Site) -> None:
    """Its queued job has failed when the last attempt has, and not before."""
    site.apply(once("a", sql="SELECT 1/0", on_failure={"retries": 1}))
    let_it_be_time(site)
    runner(site)
    assert site.rows(QUEUED)[0][0] == "running"
    tick(site)
    run_retries(site)
    assert log(site, "a", "status", "attempt") == [("failed", 1), ("failed", 2)]
    assert site.rows(QUEUED) == [("failed", 2, "division by zero")]


def test_a_withdrawn_one_time_job_is_cancelled(site: Site) -> None:
    """One that is due and has not begun does not run when its file says so."""
    site.apply(once("a", sql="SELECT 1"))
    let_it_be_time(site)
    site.apply(prune="auto", allow_deletes=1)
    assert starts(site) == []
    runner(site)
    assert statuses(site) == []
    assert [row[0] for row in site.rows(QUEUED)] == ["cancelled"]


def test_a_one_time_job_is_withdrawn_between_two_attempts(site: Site) -> None:
    """One that waits for its retry is cancelled too."""
    site.apply(once("a", sql="SELECT 1/0", on_failure={"retries": 1}))
    let_it_be_time(site)
    runner(site)
    site.apply(prune="auto", allow_deletes=1)
    run_retries(site)
    assert statuses(site) == ["failed"]
    assert [row[0] for row in site.rows(QUEUED)] == ["cancelled"]


def test_a_one_time_job_is_withdrawn_while_it_runs(site: Site) -> None:
    """One that runs ends as it began."""
    site.apply(once("a", sql=hold()))
    let_it_be_time(site)
    gate = site.database.connect()
    gate.execute("SELECT pg_advisory_lock(1)")
    lane = Beside(site, "CALL reconciler.runner()")
    wait_until(lambda: statuses(site) == ["running"], seconds=5, what="it runs")
    site.apply(prune="auto", allow_deletes=1)
    gate.close()
    assert lane.end() is None
    assert statuses(site) == ["succeeded"]
    assert [row[0] for row in site.rows(QUEUED)] == ["completed"]


def test_a_paused_one_time_job_waits(site: Site) -> None:
    """A pause puts off work that would not come again."""
    site.apply(once("a", sql="SELECT 1"))
    site.run("SELECT reconciler.pause_job('a')")
    let_it_be_time(site)
    runner(site)
    assert starts(site) == [("a", "schedule", 1)]
    assert statuses(site) == []
    site.run("SELECT reconciler.resume_job('a')")
    make_due(site)
    runner(site)
    assert statuses(site) == ["succeeded"]


def test_a_one_time_job_keeps_its_turn(site: Site) -> None:
    """While somebody runs it by hand it waits, and runs at its time all the same."""
    site.apply(once("a", sql=hold()))
    with running(site):
        let_it_be_time(site)
        runner(site)
        assert statuses(site) == ["running"]
    make_due(site)
    runner(site)
    assert log(site, "a", "status", "trigger") == [("succeeded", "manual"), ("succeeded", "schedule")]


def test_a_one_time_job_waits_for_others(site: Site) -> None:
    """When its time comes before others have succeeded, it runs when they have."""
    site.apply(once("a", sql="SELECT 1", after=["b"]), job("b"), after("c", "a"))
    let_it_be_time(site)
    runner(site)
    assert log(site, "a", "status", "error_message") == [("skipped", "waits for b")]
    ask_for(site, "b")
    runner(site)
    assert statuses(site) == ["skipped", "succeeded"]
    assert [row[0] for row in site.rows(QUEUED)] == ["completed"]
    assert statuses(site, "c") == ["succeeded"]
