"""Time limits, enforced from outside: the tick cancels what runs too long, and nothing else."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from tests.declared import Site, channel, job
from tests.faults import check_aftermath, check_recovery, running, statuses
from tests.runs import call, tick
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.servers import Database

STUBBORN = """
DO $$ BEGIN
    LOOP
        BEGIN
            PERFORM pg_sleep(60);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
END $$
"""
PASS_DEADLINES: LiteralString = (
    "UPDATE reconciler.cron_execution_log SET deadline_at = clock_timestamp() WHERE status = 'running'"
)


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database."""
    return Site(database)


@pytest.mark.firing
def test_pg_cron_s_tick_ends_what_runs_too_long(any_mode_database: Database) -> None:
    """Fired by pg_cron in each mode, the tick ends a run soon after its deadline; pg_cron says failed too."""
    site = Site(any_mode_database)
    # 1.4 has no seconds: a restart starts the run and a tick that stays, as a full minute does.
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule, call_tick = ("@reboot", "CALL reconciler.tick(stay => '50 seconds')")
    if not is_old:
        schedule, call_tick = ("1 second", "CALL reconciler.tick()")
    site.apply(job("a", "SELECT pg_sleep(60)", schedule=schedule, timeout="1s"))
    site.run("SELECT cron.schedule('tick', %s, %s)", schedule, call_tick)
    if is_old:
        any_mode_database.server.restart()
    wait_until(lambda: "timed_out" in statuses(site), seconds=20, what="the run was ended")
    ended: LiteralString = (
        "SELECT status, error_sqlstate, trigger, stop_by, completed_at - deadline_at < '7 seconds'"
        " FROM reconciler.cron_execution_log WHERE status <> 'running' ORDER BY id LIMIT 1"
    )
    assert site.rows(ended) == [("timed_out", "57014", "schedule", "tick", True)]
    details: LiteralString = (
        "SELECT d.status, d.return_message ~ 'canceling statement due to user request'"
        " FROM cron.job_run_details d JOIN cron.job j USING (jobid)"
        " WHERE j.jobname = 'a' AND d.status IN ('failed', 'succeeded') ORDER BY d.runid LIMIT 1"
    )
    wait_until(
        lambda: site.rows(details) == [("failed", True)], seconds=10, what="pg_cron's record says failed"
    )


def test_a_run_beyond_its_limit_is_cancelled_and_tried_again(site: Site) -> None:
    """It is timed out, which is a failure: told, counted, and tried again; the next run may succeed."""
    fields: dict[str, Any] = {"timeout": "30s", "on_failure": {"retries": 1}, "alert": {"channels": ["ops"]}}
    site.apply(channel("ops"), job("a", "SELECT pg_sleep(60)", **fields))
    with running(site) as (_, outcome):
        site.run(PASS_DEADLINES)
        tick(site)
    assert isinstance(outcome[0], psycopg.errors.QueryCanceled)
    check_aftermath(site)
    assert statuses(site) == ["timed_out"]
    assert site.rows("SELECT kind, message FROM reconciler.alerts") == [
        ("failed", "a timed out: took longer than its timeout of 00:00:30")
    ]
    site.apply(channel("ops"), job("a", "SELECT 1", **fields))
    check_recovery(site)


def test_a_run_within_its_limit_is_left_alone(site: Site) -> None:
    """The tick touches neither a run whose deadline is to come nor one without."""
    site.apply(job("a", "SELECT pg_sleep(0.5)", timeout="30s"), job("b", "SELECT pg_sleep(0.5)"))
    with running(site, "a"), running(site, "b"):
        for _ in range(5):
            tick(site)
    assert statuses(site) == ["succeeded", "succeeded"]


def test_the_deadline_counts_from_the_start(site: Site) -> None:
    """deadline_at is the start plus the limit, and null without a limit."""
    site.apply(job("a", timeout="90s"), job("b"))
    call(site, "a")
    call(site, "b")
    assert site.rows(
        "SELECT job_name, extract(epoch FROM deadline_at - run_at)::integer"
        " FROM reconciler.cron_execution_log ORDER BY id"
    ) == [("a", 90), ("b", None)]


def test_who_does_not_listen_is_disconnected(site: Site) -> None:
    """A body that goes on after it was cancelled loses its connection half a minute later."""
    site.apply(job("a", STUBBORN, timeout="30s"))
    with running(site) as (_, outcome):
        site.run(PASS_DEADLINES)
        tick(site)
        tick(site)
        assert statuses(site) == ["running"]
        site.run("UPDATE reconciler.cron_execution_log SET stop_at = stop_at - interval '31 seconds'")
        tick(site)
    assert isinstance(outcome[0], psycopg.errors.AdminShutdown)
    check_aftermath(site)
    assert statuses(site) == ["timed_out"]
    site.apply(job("a", "SELECT 1"))
    check_recovery(site)


def test_only_the_overdue_one_of_two_is_cancelled(site: Site) -> None:
    """Where a job may run twice at once, each run has its own deadline."""
    site.apply(job("a", "SELECT pg_sleep(1)", timeout="30s", concurrency="allow"))
    with running(site):
        second = threading.Thread(target=call, args=(site,), daemon=True)
        second.start()
        wait_until(lambda: statuses(site) == ["running"] * 2, seconds=5, what="both run")
        site.run(
            "UPDATE reconciler.cron_execution_log SET deadline_at = clock_timestamp()"
            " WHERE id = (SELECT min(id) FROM reconciler.cron_execution_log)"
        )
        tick(site)
        second.join(10)
    check_aftermath(site)
    assert statuses(site) == ["timed_out", "succeeded"]


@pytest.mark.parametrize("milliseconds", [10, 1])
def test_a_cancelling_never_hits_the_next_run(site: Site, milliseconds: int) -> None:
    """Runs of two jobs take turns in one backend; only those whose limit passes are ended, all of them.

    With the short limit the cancelling comes in every moment of a run, also before its body and after it.
    """
    site.apply(
        job("a", f"SELECT pg_sleep({milliseconds / 1000})", timeout="1s"),
        job("b", "SELECT pg_sleep(0.002)"),
    )
    site.run("UPDATE reconciler.policies SET timeout = %s::interval WHERE name = 'a'", f"{milliseconds}ms")
    over = time.monotonic() + 2.5
    watcher = site.database.connect()

    def watch() -> None:
        while time.monotonic() < over:
            watcher.execute("SELECT reconciler.tick_step('stop_overdue')")

    thread = threading.Thread(target=watch)
    thread.start()
    session = site.database.connect()
    failures = 0
    while time.monotonic() < over - 0.2:
        try:
            session.execute("CALL reconciler.run_job('a')")
        except psycopg.errors.QueryCanceled:
            failures += 1
        session.execute("CALL reconciler.run_job('b')")
    thread.join()
    session.close()
    check_aftermath(site)
    assert set(statuses(site, "b")) == {"succeeded"}
    assert set(statuses(site, "a")) <= {"succeeded", "timed_out"}
    assert failures == statuses(site, "a").count("timed_out") > 20


def test_a_runner_goes_on_after_a_run_was_ended(site: Site) -> None:
    """The runner's backend takes the next start after one that was cancelled for its limit."""
    site.apply(job("a", "SELECT pg_sleep(60)", timeout="30s"), job("b"))
    site.run("SELECT reconciler.request_run('a'), reconciler.request_run('b')")
    runner = threading.Thread(target=site.run, args=("CALL reconciler.runner()",), daemon=True)
    runner.start()
    wait_until(lambda: statuses(site, "a") == ["running"], seconds=5, what="the first one runs")
    site.run(PASS_DEADLINES)
    tick(site)
    runner.join(10)
    check_aftermath(site)
    assert site.rows("SELECT job_name, status FROM reconciler.cron_execution_log ORDER BY id") == [
        ("a", "timed_out"),
        ("b", "succeeded"),
    ]


def test_a_time_limit_of_the_role_is_one_too(site: Site) -> None:
    """statement_timeout of the job's role ends a run as timed out, with the server's own words."""
    site.run("CREATE ROLE hasty LOGIN; ALTER ROLE hasty SET statement_timeout = '100ms'")
    site.apply(job("a", "SELECT pg_sleep(60)", role="hasty"))
    assert isinstance(call(site, user="hasty"), psycopg.errors.QueryCanceled)
    check_aftermath(site)
    assert site.rows("SELECT status, error_message FROM reconciler.cron_execution_log") == [
        ("timed_out", "canceling statement due to statement timeout")
    ]


def test_a_tick_that_may_not_signal_says_so_and_goes_on(site: Site) -> None:
    """Where the owner may not signal a job's role, the tick says what to grant, and ends the others."""
    site.run(
        "CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; GRANT USAGE ON SCHEMA cron TO app;"
        "GRANT CREATE ON DATABASE app TO app; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cron TO app"
    )
    fields = {"timeout": "30s"}
    owner = Site(site.database, "app")
    owner.apply(job("a", "SELECT pg_sleep(60)", **fields), job("b", "SELECT pg_sleep(60)", **fields))
    # An owner without superuser cannot make entries of others; an administrator can hand them on.
    site.run(
        "UPDATE cron.job SET username = 'other' WHERE jobname = 'b';"
        "UPDATE reconciler.definitions SET username = 'other' WHERE name = 'b'"
    )
    threads = [
        threading.Thread(target=call, args=(site, name), kwargs={"user": user}, daemon=True)
        for name, user in (("a", "app"), ("b", "other"))
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: statuses(site) == ["running"] * 2, seconds=5, what="both run")
    site.run(PASS_DEADLINES)
    session = site.database.connect("app")
    with pytest.raises(psycopg.errors.RaiseException, match=r"stop_overdue: run .* the role other"):
        session.execute("CALL reconciler.tick()")
    wait_until(lambda: "timed_out" in statuses(site), seconds=5, what="the other one was ended")
    assert statuses(site, "b") == ["running"]
    site.run("GRANT pg_signal_backend TO app")
    session.execute("CALL reconciler.tick()")
    for thread in threads:
        thread.join(10)
    check_aftermath(site)
    assert statuses(site) == ["timed_out"] * 2
