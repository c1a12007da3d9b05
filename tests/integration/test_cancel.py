"""What people ask for: a run to begin, or one to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, job
from tests.runs import (
    OUR_LOCKS,
    Beside,
    attempt,
    call,
    hold,
    log,
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

STUBBORN = """
DO $$ BEGIN
    LOOP
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(1);
            EXIT;
        EXCEPTION WHEN query_canceled THEN
            RAISE NOTICE 'not me';
        END;
    END LOOP;
END $$
"""
CANCEL: LiteralString = "SELECT reconciler.cancel_run(%s)"


def request(site: Site, name: str = "a") -> int:
    """Ask for a run; return the start's number."""
    return int(site.rows("SELECT reconciler.request_run(%s)", name)[0][0])


def test_a_run_is_cancelled(site: Site) -> None:
    """It ends as cancelled by whoever asked, its lock is free, and the next run is not hit."""
    site.apply(job("a", hold()))
    with running(site) as run:
        assert site.rows(CANCEL, run.run) == [("cancelling",)]
        assert isinstance(run.end(), psycopg.errors.QueryCanceled)
    assert log(site, "a", "status", "error_message") == [("cancelled", "cancelled by postgres")]
    assert site.rows(OUR_LOCKS) == [(0,)]
    assert site.rows(CANCEL, run.run) == [("cancelled",)]
    assert call(site) is None


def test_a_cancelled_run_of_the_runner_leaves_it_at_work(site: Site) -> None:
    """The runner that carried it out goes on with the next start."""
    site.apply(job("a", hold()), job("b"))
    request(site, "a")
    request(site, "b")
    with site.database.server.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        lane = Beside(site, "CALL reconciler.runner()")
        wait_until(
            lambda: site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)],
            seconds=5,
            what="the body waits",
        )
        assert site.rows(CANCEL, log(site, "a", "id")[0][0]) == [("cancelling",)]
        assert lane.end() is None
    assert (statuses(site, "a"), statuses(site, "b")) == (["cancelled"], ["succeeded"])


@pytest.mark.firing
def test_pg_cron_knows_of_it(any_mode_database: Database) -> None:
    """In each mode pg_cron's own history says that the run failed."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.apply(job("a", "SELECT pg_sleep(60)", schedule=schedule))
    if is_old:
        any_mode_database.server.restart()
    sleeping: LiteralString = (
        "SELECT l.id FROM reconciler.cron_execution_log l JOIN pg_stat_activity s ON s.pid = l.backend_pid"
        " WHERE l.status = 'running' AND s.wait_event = 'PgSleep'"
    )
    wait_for_pg_cron(site, lambda: len(site.rows(sleeping)) == 1, what="it runs")
    run = site.rows(sleeping)[0][0]
    assert site.rows(CANCEL, run) == [("cancelling",)]
    wait_until(
        lambda: (
            ("failed", True)
            in site.rows("SELECT status, return_message ~ 'canceling statement' FROM cron.job_run_details")
        ),
        seconds=10,
        what="its end is in pg_cron's history",
    )
    site.run("SELECT cron.unschedule(jobid) FROM cron.job")
    assert log(site, "a", "status", "trigger", "error_message")[0] == (
        "cancelled",
        "schedule",
        "cancelled by postgres",
    )


def test_a_run_that_is_over_stays_as_it_is(site: Site) -> None:
    """To cancel it returns how it ended; an unknown number is an error that says where to look."""
    site.apply(job("a"))
    call(site)
    assert site.rows(CANCEL, log(site, "a", "id")[0][0]) == [("succeeded",)]
    error = attempt(site, "SELECT reconciler.cancel_run(4711)")
    assert isinstance(error, psycopg.errors.UndefinedObject)
    assert (error.diag.message_primary, error.diag.message_hint) == (
        "there is no run 4711",
        "reconciler runs lists them.",
    )


def test_a_run_without_a_backend_is_lost(site: Site) -> None:
    """To cancel what was killed finds out that it was."""
    site.apply(job("a", hold()))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
    assert site.rows(CANCEL, run.run) == [("lost",)]
    assert statuses(site) == ["lost"]


def test_a_body_may_not_mind_being_cancelled(site: Site) -> None:
    """One that goes on is disconnected half a minute later, and was cancelled all the same."""
    site.apply(job("a", STUBBORN))
    with running(site) as run:
        for _ in range(3):
            assert site.rows(CANCEL, run.run) == [("cancelling",)]
            tick(site)
        assert statuses(site) == ["running"]
        site.run("UPDATE reconciler.cron_execution_log SET stop_at = stop_at - interval '31 seconds'")
        tick(site)
        wait_until(lambda: site.rows(OUR_LOCKS) == [(0,)], seconds=5, what="it is disconnected")
        assert isinstance(run.end(), psycopg.errors.AdminShutdown)
    tick(site)
    assert statuses(site) == ["cancelled"]


def test_a_body_that_ends_well_all_the_same(site: Site) -> None:
    """One that catches the cancelling and comes to its end has succeeded."""
    site.apply(job("a", STUBBORN))
    with running(site) as run:
        assert site.rows(CANCEL, run.run) == [("cancelling",)]
        assert run.end() is None
    assert log(site, "a", "status", "error_message") == [("succeeded", None)]


def test_who_may_cancel(site: Site) -> None:
    """The role of the run, its members and the owner may; others learn as whom it runs."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN IN ROLE alice")
    site.apply(job("a", hold(), role="alice"))
    with running(site, user="alice") as run:
        refused = attempt(site, CANCEL, run.run, user="bob")
        assert isinstance(refused, psycopg.errors.InsufficientPrivilege)
        assert refused.diag.message_hint == "It runs as alice."
        assert statuses(site) == ["running"]
        assert attempt(site, CANCEL, run.run, user="carol") is None
        assert isinstance(run.end(), psycopg.errors.QueryCanceled)
    assert log(site, "a", "error_message") == [("cancelled by carol",)]


def test_to_ask_twice_is_to_ask_once(site: Site) -> None:
    """Until it begins a second request is the first one; its run bears the request's number."""
    site.apply(job("a"), job("b"))
    first = request(site)
    assert request(site) == first
    assert request(site, "b") != first
    runner(site)
    assert log(site, "a", "status", "trigger", "start_id") == [("succeeded", "manual", first)]
    second = request(site)
    assert second != first
    runner(site)
    assert [start for (start,) in log(site, "a", "start_id")] == [first, second]


def test_many_ask_at_once(site: Site) -> None:
    """Requests while runners are at work are each followed by a run, and nobody is refused."""
    site.apply(job("a", concurrency="wait"))
    asking: LiteralString = (
        "DO $$ BEGIN FOR i IN 1..20 LOOP PERFORM reconciler.request_run('a'); COMMIT; END LOOP; END $$"
    )
    people = [Beside(site, asking) for _ in range(3)]
    lanes = [Beside(site, "CALL reconciler.runner()") for _ in range(2)]
    assert [one.end() for one in people + lanes] == [None] * 5
    newest = request(site)
    site.run("UPDATE reconciler.starts SET due_at = clock_timestamp()")
    runner(site)
    assert starts(site) == []
    assert log(site, "a", "status", "start_id")[-1] == ("succeeded", newest)
    assert set(statuses(site)) == {"succeeded"}


@pytest.mark.parametrize(("name", "words"), [("nope", "no job nope is declared"), ("plain", "mode: direct")])
def test_what_cannot_be_run_now(site: Site, name: str, words: str) -> None:
    """A job that is not declared or is handed to pg_cron as it is."""
    site.apply(job("a"), job("plain", mode="direct"))
    assert words in str(attempt(site, "SELECT reconciler.request_run(%s)", name))
    assert starts(site) == []
