"""Faults in the middle of runs: the log stays true, no lock stays, nothing is lost, alerts open once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.runtime.local import find_local_server
from tests.declared import Site, channel, job
from tests.faults import (
    HOLDERS,
    check_aftermath,
    check_recovery,
    running,
    statuses,
    wait_for_run,
)
from tests.runs import call, tick
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Database

TOLD: dict[str, Any] = {"alert": {"channels": ["ops"]}}
RETRIED: dict[str, Any] = {"on_failure": {"retries": 3}, **TOLD}
WORK = "INSERT INTO public.work VALUES (1); SELECT pg_sleep(30)"
HEALED = "INSERT INTO public.work VALUES (2)"


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database with a table for jobs to write to."""
    site = Site(database)
    site.run("CREATE TABLE public.work (n int)")
    return site


def declare_work(site: Site, sql: str = WORK, **fields: Any) -> None:
    """Declare a job with retries and a channel."""
    site.apply(channel("ops"), job("a", sql, **{**RETRIED, **fields}))


def heal(site: Site) -> None:
    """Give the job a body that succeeds."""
    declare_work(site, HEALED)


def alerts(site: Site) -> list[tuple[Any, ...]]:
    """Return kind and occurrences of the open alerts."""
    return site.rows(
        "SELECT kind, occurrences FROM reconciler.alerts WHERE resolved_at IS NULL ORDER BY kind"
    )


def require_private(site: Site) -> None:
    """Leave out a test that would kill a server which is not ours."""
    if site.database.server.folder is None:
        pytest.skip("only a private server can be killed")


def terminate(site: Site, pid: int) -> None:
    """Disconnect a backend."""
    site.run("SELECT pg_terminate_backend(%s, 5000)", pid)


def kill(site: Site, pid: int) -> None:
    """Kill a backend with SIGKILL; the postmaster then restarts all others. Wait until it has."""
    server = site.database.server
    assert server.folder is not None
    local = find_local_server(server.folder)
    assert local is not None
    query: LiteralString = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    before = site.rows(query)
    local.account.run(str(local.bin_dir / "pg_ctl"), "kill", "KILL", str(pid))
    # Right after the kill the server still takes connections: a new launcher shows that it has restarted.
    wait_until(lambda: has_restarted(site, query, before), seconds=20, what="the server has recovered")


def has_restarted(site: Site, query: LiteralString, before: list[Any]) -> bool:
    """Tell whether the launcher is another one than before."""
    try:
        with site.database.server.connect() as conn:
            found = conn.execute(query).fetchall()
    except psycopg.OperationalError:
        return False
    return found not in ([], before)


def crash(site: Site, pid: int) -> None:
    """Stop the server as a crash would, and start it."""
    del pid
    server = site.database.server
    server.stop(immediate=True)
    server.start()


@pytest.mark.parametrize("strike", [terminate, kill, crash])
def test_a_run_whose_backend_dies_is_lost_and_tried_again(
    site: Site, strike: Callable[[Site, int], None]
) -> None:
    """Disconnected, killed or crashed with the server: the work is undone, the run lost, told and retried."""
    require_private(site)
    declare_work(site)
    with running(site) as (pid, outcome):
        strike(site, pid)
    assert isinstance(outcome[0], psycopg.OperationalError)
    check_aftermath(site)
    assert statuses(site) == ["lost"]
    assert alerts(site) == [("lost", 1)]
    assert site.rows("SELECT count(*) FROM public.work") == [(0,)]
    assert site.rows("SELECT trigger, attempt FROM reconciler.starts") == [("retry", 2)]
    tick(site)
    assert alerts(site) == [("lost", 1)]
    heal(site)
    check_recovery(site)
    assert site.rows("SELECT n FROM public.work") == [(2,)]


def test_a_new_run_finds_the_lost_one_before_the_tick_does(site: Site) -> None:
    """Who starts the job first ends the row that was left, once."""
    declare_work(site)
    with running(site) as (pid, _):
        terminate(site, pid)
    heal(site)
    check_recovery(site)
    assert statuses(site) == ["lost", "succeeded"]
    assert site.rows("SELECT total_runs, failed_runs FROM reconciler.job_states WHERE name = 'a'") == [(2, 1)]


@pytest.mark.parametrize(
    ("body", "status", "sqlstate"),
    [
        ("DO $$ BEGIN RAISE 'no'; END $$", "failed", "P0001"),
        ("SELECT 1/0", "failed", "22012"),
        ("SET LOCAL lock_timeout = '50ms'; LOCK public.held", "failed", "55P03"),
        ("SET TRANSACTION READ ONLY; INSERT INTO public.work VALUES (1)", "failed", "25006"),
        ("SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.child VALUES (1)", "failed", "23503"),
        ("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)", "cancelled", "57014"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "lost", None),
    ],
)
def test_a_body_that_fails_leaves_everything_in_order(
    site: Site, body: str, status: str, sqlstate: str | None
) -> None:
    """Whatever a body does to itself, its run ends, its lock goes, and only failures are told and retried."""
    site.run(
        "CREATE TABLE public.held (); CREATE TABLE public.parent (n int PRIMARY KEY);"
        "CREATE TABLE public.child (n int REFERENCES public.parent DEFERRABLE INITIALLY DEFERRED)"
    )
    holder = site.database.connect(autocommit=False)
    holder.execute("LOCK public.held")
    declare_work(site, f"INSERT INTO public.work VALUES (1); {body}")
    assert call(site) is not None
    check_aftermath(site)
    holder.rollback()
    assert statuses(site) == [status]
    assert site.rows("SELECT error_sqlstate FROM reconciler.cron_execution_log") == [(sqlstate,)]
    assert site.rows("SELECT count(*) FROM public.work") == [(0,)]
    is_failure = status != "cancelled"
    assert site.rows("SELECT count(*) FROM reconciler.starts") == [(int(is_failure),)]
    assert alerts(site) == ([("lost" if status == "lost" else "failed", 1)] if is_failure else [])
    heal(site)
    check_recovery(site)


def test_a_run_cancelled_by_hand_is_no_failure(site: Site) -> None:
    """pg_cancel_backend ends a run as cancelled: no alert, no retry, no failure counted."""
    declare_work(site)
    with running(site) as (pid, outcome):
        site.run("SELECT pg_cancel_backend(%s)", pid)
    assert isinstance(outcome[0], psycopg.errors.QueryCanceled)
    check_aftermath(site)
    assert statuses(site) == ["cancelled"]
    assert alerts(site) == []
    assert site.rows("SELECT count(*) FROM reconciler.starts") == [(0,)]
    heal(site)
    check_recovery(site)


def test_of_two_jobs_in_a_deadlock_one_fails(site: Site) -> None:
    """The server chooses one, which is logged with its SQLSTATE, told and retried; the other one succeeds."""
    site.run("CREATE TABLE public.first (); CREATE TABLE public.second ()")
    meet = "SELECT pg_advisory_lock_shared(8), pg_advisory_unlock_shared(8); SET deadlock_timeout = '50ms'"
    site.apply(
        channel("ops"),
        job("a", f"LOCK public.first; {meet}; LOCK public.second", **RETRIED),
        job("b", f"LOCK public.second; {meet}; LOCK public.first", **RETRIED),
    )
    gate = site.database.connect()
    gate.execute("SELECT pg_advisory_lock(8)")
    with running(site, "a"), running(site, "b"):
        waiting: LiteralString = "SELECT count(*) FROM pg_locks WHERE NOT granted AND objid = 8"
        wait_until(lambda: site.rows(waiting) == [(2,)], seconds=5, what="both have their first table")
        gate.execute("SELECT pg_advisory_unlock(8)")
    check_aftermath(site)
    ended = site.rows("SELECT status, error_sqlstate FROM reconciler.cron_execution_log ORDER BY status")
    assert ended == [("failed", "40P01"), ("succeeded", None)]
    assert alerts(site) == [("failed", 1)]


def test_a_run_killed_while_it_ends_has_done_nothing(site: Site) -> None:
    """Body and end of a run are one transaction: killed between them, the run is lost and its work undone."""
    declare_work(site, HEALED)
    holder = site.database.connect(autocommit=False)
    holder.execute("SELECT FROM reconciler.job_states WHERE name = 'a' FOR UPDATE")
    with running(site) as (pid, _):
        waiting: LiteralString = (
            "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: site.rows(waiting, pid) == [(1,)], seconds=5, what="the run ends")
        terminate(site, pid)
    holder.rollback()
    check_aftermath(site)
    assert statuses(site) == ["lost"]
    assert site.rows("SELECT count(*) FROM public.work") == [(0,)]
    check_recovery(site)
    assert site.rows("SELECT count(*) FROM public.work") == [(1,)]


def test_a_run_cancelled_while_it_ends_is_undone_and_says_so(site: Site) -> None:
    """A cancelling that comes between body and end undoes the body and is what the log says."""
    declare_work(site, HEALED)
    holder = site.database.connect(autocommit=False)
    holder.execute("SELECT FROM reconciler.job_states WHERE name = 'a' FOR UPDATE")
    with running(site) as (pid, outcome):
        waiting: LiteralString = (
            "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: site.rows(waiting, pid) == [(1,)], seconds=5, what="the run ends")
        site.run("SELECT pg_cancel_backend(%s)", pid)
        wait_until(lambda: site.rows(waiting, pid) == [(1,)], seconds=5, what="it tries again")
        holder.rollback()
    assert outcome[0] is not None
    check_aftermath(site)
    assert statuses(site) == ["cancelled"]
    assert site.rows("SELECT count(*) FROM public.work") == [(0,)]


def test_a_run_that_was_given_up_counts_once(site: Site) -> None:
    """A body that lets the lock go is taken for lost; when it succeeds after all, that is what counts."""
    site.run("CREATE TABLE public.gate ()")
    holder = site.database.connect(autocommit=False)
    holder.execute("LOCK public.gate")
    declare_work(site, "SELECT pg_advisory_unlock_all(); LOCK public.gate")
    with running(site):
        wait_until(lambda: not site.rows(HOLDERS), seconds=5, what="the lock is gone")
        tick(site)
        assert statuses(site) == ["lost"]
        holder.rollback()
    check_aftermath(site)
    assert statuses(site) == ["succeeded"]
    assert alerts(site) == []
    assert site.rows(
        "SELECT total_runs, failed_runs, consecutive_failures FROM reconciler.job_states WHERE name = 'a'"
    ) == [(1, 0, 0)]
    assert site.rows("SELECT count(*) FROM reconciler.starts") == [(0,)]


def test_of_many_callers_at_once_one_runs(site: Site) -> None:
    """Eight sessions call a job in the same moment: one runs, seven are skipped, five times over."""
    declare_work(site, "SELECT pg_sleep(0.2)")
    sessions = [site.database.connect() for _ in range(8)]
    for _ in range(5):
        barrier = threading.Barrier(len(sessions))

        def run(session: psycopg.Connection, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            session.execute("CALL reconciler.run_job('a')")

        with ThreadPoolExecutor(len(sessions)) as pool:
            list(pool.map(run, sessions))
        check_aftermath(site)
    assert sorted(statuses(site)) == ["skipped"] * 35 + ["succeeded"] * 5


def test_two_hundred_jobs_from_twenty_sessions(site: Site) -> None:
    """200 jobs, a tenth of which fail, each called twice by 20 sessions at once: every start has its end."""
    names = [f"job-{number:03d}" for number in range(200)]
    bodies = ["SELECT 1/0" if number % 10 == 0 else HEALED for number in range(200)]
    site.apply(channel("ops"), *(job(*pair, **RETRIED) for pair in zip(names, bodies, strict=True)))

    def run(session: psycopg.Connection) -> None:
        for name in names:
            try:
                session.execute("CALL reconciler.run_job(%s)", [name])
            except psycopg.errors.DivisionByZero:
                continue

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(run, [site.database.connect() for _ in range(20)]))
    check_aftermath(site)
    ended = dict(site.rows("SELECT status, count(*) FROM reconciler.cron_execution_log GROUP BY status"))
    assert sum(ended.values()) == 4000
    assert ended.keys() <= {"succeeded", "failed", "skipped"}
    assert site.rows("SELECT count(*) FROM public.work") == [(ended["succeeded"],)]
    failures = site.rows("SELECT 'failed', failed_runs FROM reconciler.job_states WHERE failed_runs > 0")
    assert len(failures) == 20
    assert sorted(alerts(site)) == sorted(failures)


@pytest.mark.firing
@pytest.mark.slow
def test_two_hundred_jobs_in_the_same_second(site: Site) -> None:
    """Fired by pg_cron at once, staggered by its limits: every job runs, every start has its end."""
    is_old = site.database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "10 seconds"  # 1.4 has no seconds; a restart is sooner than a minute
    names = [f"job-{number:03d}" for number in range(200)]
    site.apply(*(job(name, HEALED, schedule=schedule) for name in names))
    if is_old:
        site.database.server.restart()
    ran: LiteralString = (
        "SELECT count(DISTINCT job_name) FROM reconciler.cron_execution_log WHERE status = 'succeeded'"
    )
    wait_until(lambda: site.rows(ran) == [(200,)], seconds=90, what="every job has run")
    site.run("SELECT cron.alter_job(jobid, active => false) FROM cron.job")
    wait_until(lambda: site.rows(HOLDERS) == [], seconds=20, what="the last run ends")
    check_aftermath(site)
    assert set(statuses(site)) == {"succeeded"}
    assert site.rows("SELECT DISTINCT trigger FROM reconciler.cron_execution_log") == [("schedule",)]


@pytest.mark.firing
def test_a_run_whose_entry_is_switched_off(any_mode_database: Database) -> None:
    """pg_cron gives up such a run: it goes on to its end, except in a background worker from 1.5 on."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"
    site.apply(job("a", "SELECT pg_sleep(4)", schedule=schedule))
    if is_old:
        any_mode_database.server.restart()
    wait_for_run(site)
    site.apply(job("a", "SELECT pg_sleep(4)", schedule=schedule, active=False))
    wait_until(lambda: site.rows(HOLDERS) == [], seconds=15, what="the run is over")
    check_aftermath(site)
    is_ended = any_mode_database.server.background_workers and not is_old
    assert statuses(site) == ["lost" if is_ended else "succeeded"]


def test_a_clock_that_jumps_forward_ends_the_run_in_time(site: Site) -> None:
    """When the clock jumps beyond a deadline, the tick ends the run as timed out."""
    declare_work(site, timeout="1h")
    with running(site):
        site.run("UPDATE reconciler.cron_execution_log SET deadline_at = deadline_at - interval '1 hour'")
        tick(site)
    check_aftermath(site)
    assert statuses(site) == ["timed_out"]


@pytest.mark.parametrize("end", ["SELECT 1", "SELECT 1/0", "SELECT pg_terminate_backend(pg_backend_pid())"])
def test_a_clock_that_is_set_back_makes_no_negative_times(site: Site, end: str) -> None:
    """A run that began in what is now the future ends no earlier than it began."""
    declare_work(site, f"SELECT pg_advisory_lock(8); {end}")
    gate = site.database.connect()
    gate.execute("SELECT pg_advisory_lock(8)")
    with running(site):
        site.run("UPDATE reconciler.cron_execution_log SET run_at = run_at + interval '1 hour'")
        gate.execute("SELECT pg_advisory_unlock(8)")
    check_aftermath(site)
    assert site.rows("SELECT last_duration >= '0' FROM reconciler.job_states WHERE name = 'a'") == [(True,)]
    declare_work(site, HEALED)
    check_recovery(site)


def test_a_gone_server_is_reported_by_the_next_tick_alone(site: Site) -> None:
    """Several jobs running when the server crashes are all lost, each told once, and all can run again."""
    require_private(site)
    names = ("a", "b", "c")
    site.apply(channel("ops"), *(job(name, WORK, **RETRIED) for name in names))
    threads = [threading.Thread(target=call, args=(site, name), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for name in names:
        wait_for_run(site, name)
    crash(site, 0)
    for thread in threads:
        thread.join(10)
    check_aftermath(site)
    assert statuses(site) == ["lost"] * 3
    assert alerts(site) == [("lost", 1)] * 3
    site.apply(channel("ops"), *(job(name, HEALED, **RETRIED) for name in names))
    for name in names:
        check_recovery(site, name)
