"""The tick: every step, whatever happens in the others, and nothing where nothing is to be done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, job, once
from tests.runs import Beside, attempt, fire, hold, log, running, starts, statuses, tick, wait_for_pg_cron
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.servers import Database

OLD_PAUSE: LiteralString = (
    "INSERT INTO reconciler.pauses (job_name, until) VALUES ('a', clock_timestamp() - interval '1 second')"
)
DUE: LiteralString = "UPDATE reconciler.jobs SET run_at = clock_timestamp()"
LEFT_BEHIND: LiteralString = """
INSERT INTO reconciler.cron_execution_log (job_name, definition_id, role, backend_pid, lock_key)
SELECT name, id, 'postgres', 1, lock_key FROM reconciler.definitions WHERE name = 'a'
"""
NEWEST_TRANSACTION: LiteralString = "SELECT pg_snapshot_xmax(pg_current_snapshot())"


def test_every_step_is_done(site: Site) -> None:
    """One tick ends lost runs and old pauses, and hands over work that is due."""
    site.apply(job("a"), once("b", sql="SELECT 1"))
    site.run(LEFT_BEHIND)
    site.run(OLD_PAUSE)
    site.run(DUE)
    tick(site)
    assert log(site, "a", "status", "error_message") == [
        ("lost", "backend 1 went away without ending the run")
    ]
    assert site.rows("SELECT * FROM reconciler.pauses") == []
    assert starts(site) == [("b", "schedule", 1)]


def test_it_looks_after_queued_jobs(site: Site) -> None:
    """It takes jobs from workers that are gone, ends runs whose job is gone, and forgets silent workers."""
    site.apply(job("a", handler="work.do"), job("b", handler="work.do"))
    fire(site, "a")
    fire(site, "b")
    site.run(
        "DELETE FROM reconciler.jobs WHERE job_name = 'a';"
        "UPDATE reconciler.jobs SET status = 'running', attempts = 1, worker = 'w', lease_until = now();"
        "SELECT reconciler.report_worker('day', 'h', 1, '{default}', 1);"
        "SELECT reconciler.report_worker('minute', 'h', 1, '{default}', 1);"
        "UPDATE reconciler.pull_workers SET seen_at = now() - interval '25 hours' WHERE id = 'day'"
    )
    tick(site)
    assert site.rows("SELECT job_name, status, losses FROM reconciler.jobs") == [("b", "pending", 1)]
    assert (statuses(site, "a"), statuses(site, "b")) == (["lost"], ["running"])
    assert site.rows("SELECT id FROM reconciler.pull_workers") == [("minute",)]


def test_an_idle_tick_writes_nothing(site: Site) -> None:
    """Where nothing is to be done no row is touched and no transaction number is used up."""
    site.apply(
        job("a"),
        once("b", sql="SELECT 1"),
        job("c", alert={"slow": "3x"}, timeout="1s", after=["a"]),
        job("d", handler="work.do", timeout="1ms"),
        once("e"),
    )
    fire(site, "d")
    site.run("SELECT reconciler.report_worker('w', 'h', 1, '{default}', 1)")
    before = site.everything()
    conn = site.database.connect()
    used = []
    for _ in range(3):  # somebody else, such as autovacuum, may use one at the same time
        first = conn.execute(NEWEST_TRANSACTION).fetchone()
        conn.execute("CALL reconciler.tick()")
        used.append(conn.execute(NEWEST_TRANSACTION).fetchone() == first)
    assert True in used
    assert site.everything() == before


def test_a_second_tick_leaves_it_to_the_first(site: Site) -> None:
    """While a tick is at work another one returns at once, without an error."""
    site.apply(job("a"), once("b", sql="SELECT 1"))
    with site.database.server.connect() as obstacle:
        obstacle.execute("BEGIN; LOCK TABLE reconciler.pauses")
        first = Beside(site, "CALL reconciler.tick()")
        wait_until(
            lambda: site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)],
            seconds=5,
            what="the first tick is held up",
        )
        site.run(DUE)
        tick(site)
        assert starts(site) == []
    assert first.end() is None
    tick(site)
    assert starts(site) == [("b", "schedule", 1)]


def test_ticks_and_ends_of_runs_at_once(site: Site) -> None:
    """Many ticks beside many runs that end take no run for lost and lose no end."""
    names = [f"a{number}" for number in range(4)]
    site.apply(*(job(name, "SELECT pg_sleep(0.01)", timeout="1m") for name in names))
    calls: LiteralString = "DO $$ BEGIN FOR i IN 1..15 LOOP CALL reconciler.%s; END LOOP; END $$"
    lanes = [Beside(site, calls.replace("%s", f"run_job('{name}')")) for name in names]
    ticks = [Beside(site, calls.replace("%s", "tick()")) for _ in range(2)]
    assert [lane.end() for lane in lanes + ticks] == [None] * 6
    assert site.rows("SELECT status, count(*)::int FROM reconciler.cron_execution_log GROUP BY 1") == [
        ("succeeded", 60)
    ]


def test_a_step_that_fails_is_told_and_keeps_nobody_from_work(site: Site) -> None:
    """The other steps do their work before and after it, and the tick fails at its end."""
    site.apply(job("a"), once("b", sql="SELECT 1"))
    site.run(
        "CREATE OR REPLACE FUNCTION reconciler.start_once() RETURNS text LANGUAGE plpgsql"
        " AS 'BEGIN RAISE ''broken''; END'"
    )
    site.run(LEFT_BEHIND)
    site.run(OLD_PAUSE)
    error = attempt(site, "CALL reconciler.tick()")
    assert "the tick could not do all of its work: start_once: broken" in str(error)
    assert statuses(site) == ["lost"]
    assert site.rows("SELECT * FROM reconciler.pauses") == []


def test_a_tick_does_not_wait_for_locks_for_ever(site: Site) -> None:
    """A step that its role's lock_timeout ends has failed; the tick goes on and frees its own."""
    site.apply(job("a"), once("b", sql="SELECT 1"))
    site.run(DUE)
    conn = site.database.connect()
    conn.execute("SET lock_timeout = '50ms'")
    with site.database.server.connect() as obstacle:
        obstacle.execute("BEGIN; LOCK TABLE reconciler.job_states")
        with pytest.raises(
            psycopg.errors.RaiseException, match="find_missed: canceling statement due to lock"
        ):
            conn.execute("CALL reconciler.tick()")
    assert starts(site) == [("b", "schedule", 1)]
    site.run(OLD_PAUSE)
    tick(site)
    assert site.rows("SELECT * FROM reconciler.pauses") == []


def test_a_tick_may_stay(site: Site) -> None:
    """Where pg_cron knows no seconds, a tick stays until what begins with it is over, and not longer."""
    site.apply(job("a", hold(), timeout="500ms"))
    began = time.monotonic()
    watching = Beside(site, "CALL reconciler.tick(stay => '1 hour')")
    with running(site):
        wait_until(lambda: statuses(site) == ["timed_out"], seconds=10, what="the tick has ended the run")
    assert watching.end() is None
    assert time.monotonic() - began < 10


def test_only_the_runtime_ticks(site: Site) -> None:
    """A role that has nothing to do with it may not; one that an entry of the tool runs as may."""
    site.run("CREATE ROLE stranger LOGIN; CREATE ROLE clock LOGIN")
    site.apply(job("a"), job("reconciler-tick", "CALL reconciler.tick()", mode="direct", role="clock"))
    site.run(LEFT_BEHIND)
    error = attempt(site, "CALL reconciler.tick()", user="stranger")
    assert "the role stranger may not" in str(error)
    assert statuses(site) == ["running"]
    assert attempt(site, "CALL reconciler.tick()", user="clock") is None
    assert statuses(site) == ["lost"]


@pytest.mark.firing
def test_pg_cron_fires_the_tick(any_mode_database: Database) -> None:
    """Fired by pg_cron in each mode the tick does its work, and pg_cron's history says that it succeeded."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.apply(job("a"))
    site.run(LEFT_BEHIND)
    site.apply(job("a"), job("go", "CALL reconciler.tick()", mode="direct", schedule=schedule))
    if is_old:
        any_mode_database.server.restart()
    wait_for_pg_cron(site, lambda: statuses(site) == ["lost"], what="the tick has fired")
    wait_until(
        lambda: (
            site.rows("SELECT DISTINCT status FROM cron.job_run_details WHERE status !~ 'ing$'")
            == [("succeeded",)]
        ),
        seconds=5,
        what="its end is in pg_cron's history",
    )
