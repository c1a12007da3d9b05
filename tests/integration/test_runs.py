"""The list of runs, and everything about one of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.database.connect import connect
from reconciler.database.queries import load_queries
from reconciler.database.runs import (
    Run,
    is_known,
    list_attempts,
    list_names,
    list_runs,
    list_starts,
    read_direct_run,
    read_run,
)
from tests.declared import Site, job, once, queue, worker
from tests.queued import claim_one, complete, fail
from tests.runs import call, fire, hold, make_due, runner, running

pytestmark = pytest.mark.one_server


def runs(site: Site, **options: Any) -> list[Run]:
    """List runs; options are those of `list_runs`."""
    with connect(site.dsn) as conn:
        return list_runs(conn, **options)


def names(site: Site, **options: Any) -> list[str]:
    """Return the jobs of the runs that are listed."""
    return [run.name for run in runs(site, **options)]


def add_details(site: Site, name: str, *rows: str) -> None:
    """Write rows of pg_cron's history for a job: status, message, and age of the start as SQL reads it."""
    for row in rows:
        state, message, age = row.split("|")
        site.run(
            "INSERT INTO cron.job_run_details"
            " (jobid, runid, job_pid, username, command, status, return_message, start_time, end_time)"
            " SELECT jobid, (SELECT coalesce(max(runid), 0) + 1 FROM cron.job_run_details), 77, username,"
            " command, %s, %s, now() - %s::interval, CASE WHEN %s <> 'running' THEN now() END"
            " FROM cron.job WHERE jobname = %s",
            state,
            message,
            age,
            state,
            name,
        )


def test_the_newest_run_comes_first(site: Site) -> None:
    """Runs of all jobs are one list, cut after so many."""
    site.apply(job("a"), job("b", "SELECT 1/0"))
    call(site, "a")
    call(site, "b")
    fire(site, "a")
    assert names(site) == ["a", "b", "a"]
    assert names(site, limit=2) == ["a", "b"]
    newest, failed, first = runs(site)
    assert (newest.source, newest.trigger, newest.status, newest.rows_affected) == (
        "log",
        "schedule",
        "succeeded",
        1,
    )
    assert (failed.error_message, failed.error_sqlstate, failed.trigger) == (
        "division by zero",
        "22012",
        "manual",
    )
    assert first.duration is not None
    assert first.duration >= timedelta(0)


def test_runs_are_chosen_by_name_status_and_age(site: Site) -> None:
    """Each choice holds alone and together with the others."""
    site.apply(job("a"), job("b", "SELECT 1/0"))
    for name in ("a", "b", "a", "b"):
        call(site, name)
    site.run("UPDATE reconciler.cron_execution_log SET run_at = run_at - interval '3 hours' WHERE id <= 2")
    assert names(site, name="b") == ["b", "b"]
    assert names(site, name="nobody") == []
    assert names(site, statuses=["failed"]) == ["b", "b"]
    assert names(site, statuses=["failed", "succeeded"]) == ["b", "a", "b", "a"]
    assert names(site, statuses=["lost"]) == []
    assert names(site, since=timedelta(hours=1)) == ["b", "a"]
    assert names(site, since=timedelta(hours=4)) == ["b", "a", "b", "a"]
    assert names(site, name="a", statuses=["succeeded"], since=timedelta(hours=1)) == ["a"]


def test_a_run_that_was_handed_over_says_where_its_work_stands(site: Site) -> None:
    """Waiting, done by a worker, waiting for another try, or gone: for as long as the run goes on."""
    site.apply(job("a", handler="work.do", queue="mail"))
    assert fire(site) is None
    conn = site.database.connect()
    queued = runs(site)[0].note
    assert queued is not None
    name = queued.removesuffix(" waits on mail")
    claimed = claim_one(conn, "mail", worker="pluto-17")
    assert runs(site, name="a")[0].note == f"{name} is done by pluto-17"
    fail(conn, claimed)
    with connect(site.dsn) as reader:
        found = read_run(reader, runs(site)[0].id)
    assert found is not None
    assert (found.note, found.queued_job_id) == (f"{name} waits on mail for another try", claimed.id)
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    complete(conn, [claim_one(conn, "mail")])
    assert runs(site)[0].note is None
    assert fire(site) is None
    site.run("DELETE FROM reconciler.jobs")
    assert str(runs(site)[0].note).endswith(" is gone")


def test_work_that_took_long_hides_no_other_run(site: Site) -> None:
    """A run that is written when it is over began before others that are older in the log."""
    site.apply(job("a"), once("o"))
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    conn = site.database.connect()
    claimed = claim_one(conn)
    call(site, "a")
    site.run("UPDATE reconciler.jobs SET started_at = now() - interval '5 hours'")
    complete(conn, [claimed])
    assert names(site) == ["a", "o"]
    assert names(site, since=timedelta(hours=1)) == ["a"]
    assert names(site, since=timedelta(hours=6)) == ["a", "o"]


def test_runs_of_direct_jobs_are_those_of_pg_cron(site: Site) -> None:
    """They stand among the others by time; those of managed jobs are not shown twice."""
    site.apply(job("a"), job("d", mode="direct"))
    call(site, "a")
    add_details(site, "d", "succeeded|1 row|2 hours", "failed|ERROR:  broken\n|1 hour", "running||1 minute")
    add_details(site, "a", "succeeded|CALL|1 hour")
    assert names(site) == ["a", "d", "d", "d"]
    assert names(site, use_cron=False) == ["a"]
    newest, failed, _ = runs(site, name="d")
    assert (newest.source, newest.status, newest.completed_at) == ("pg_cron", "running", None)
    assert (failed.status, failed.error_message, failed.role) == ("failed", "ERROR:  broken", "postgres")
    assert names(site, statuses=["failed"], since=timedelta(hours=3)) == ["d"]
    assert names(site, name="d", since=timedelta(minutes=30)) == ["d"]


def test_the_tools_own_entries_are_shown_when_they_are_named(site: Site) -> None:
    """The tick runs all the time: it is left out of the list of everything."""
    site.apply(job("reconciler-tick", "SELECT 1", mode="direct"))
    add_details(site, "reconciler-tick", "succeeded||1 minute")
    assert names(site) == []
    assert names(site, name="reconciler-tick") == ["reconciler-tick"]


def test_a_run_that_pg_cron_has_not_timed_yet_is_the_newest(site: Site) -> None:
    """A row without a start time is of a run that is only beginning."""
    site.apply(job("a"), job("d", mode="direct"))
    add_details(site, "d", "running||1 hour")
    site.run("UPDATE cron.job_run_details SET status = 'starting', start_time = NULL")
    call(site, "a")
    assert names(site) == ["d", "a"]
    assert names(site, since=timedelta(minutes=1)) == ["d", "a"]


def test_a_run_in_full(site: Site) -> None:
    """One run tells who stopped it, where its error happened and what it came of."""
    site.apply(job("a", hold(), timeout="1h"))
    with running(site) as going:
        site.run("SELECT reconciler.cancel_run(%s)", going.run)
    with connect(site.dsn) as conn:
        found = read_run(conn, going.run)
        assert read_run(conn, going.run + 1) is None
    assert found is not None
    assert (found.status, found.stop_reason, found.stop_by) == ("cancelled", "cancelled", "postgres")
    assert found.error_context is not None
    assert "pg_advisory_xact_lock_shared" in found.error_context
    assert found.deadline_at is not None
    assert found.run_at is not None
    assert abs(found.deadline_at - found.run_at - timedelta(hours=1)) < timedelta(seconds=10)
    assert found.revision == 1


def test_the_attempts_of_a_chain(site: Site) -> None:
    """Each of the tries leads to all of them, and to the one that is still to come."""
    backoff = {"initial": "1h", "max": "1h"}
    site.apply(job("a", "SELECT 1/0", on_failure={"retries": 2, "backoff": backoff}), job("b"))
    call(site, "b")
    call(site, "a")
    make_due(site)
    runner(site)
    call(site, "b")
    with connect(site.dsn) as conn:
        chain = list_runs(conn, name="a")[::-1]
        assert [(run.attempt, run.chain_id) for run in chain] == [(1, None), (2, chain[0].id)]
        for run in chain:
            assert list_attempts(conn, run) == chain
            assert [(start.trigger, start.attempt) for start in list_starts(conn, run)] == [("retry", 3)]
        (other, _) = list_runs(conn, name="b")
        assert list_attempts(conn, other) == [other]
        assert list_starts(conn, other) == []
        # Retention may have taken the first one.
        conn.execute("DELETE FROM reconciler.cron_execution_log WHERE id = %s", [chain[0].id])
        assert list_attempts(conn, chain[1]) == chain[1:]


def test_a_run_of_pg_cron_in_full(site: Site) -> None:
    """What pg_cron has of a run can be asked for by its own number, also of entries that nobody declared."""
    site.apply(job("d", "SELECT 'x'", mode="direct"))
    site.run("SELECT cron.schedule('foreign', '0 0 29 2 *', 'SELECT 2')")
    add_details(site, "d", "failed|ERROR:  broken|1 hour")
    add_details(site, "foreign", "succeeded|1 row|1 hour")
    with connect(site.dsn) as conn:
        first, second = read_direct_run(conn, 1), read_direct_run(conn, 2)
        assert read_direct_run(conn, 3) is None
    assert first is not None
    assert second is not None
    assert (first.name, first.status, first.error_message, first.backend_pid) == (
        "d",
        "failed",
        "ERROR:  broken",
        77,
    )
    assert first.error_context == "command: SELECT 'x'"
    assert (second.name, second.status) == ("foreign", "succeeded")


def test_known_names(site: Site) -> None:
    """A name is known while it is declared, and for as long as the log has a run of it."""
    site.apply(job("a"), job("b"), worker("w"), queue("q"))
    call(site, "a")
    with connect(site.dsn) as conn:
        assert sorted(list_names(conn)) == ["a", "b", "w"]
        assert is_known(conn, "b")
        assert not is_known(conn, "c")
    site.apply(job("b"), worker("w"), queue("q"), prune="auto")
    with connect(site.dsn) as conn:
        assert is_known(conn, "a")
        assert sorted(list_names(conn)) == ["b", "w"]


@pytest.mark.parametrize("query", ["list_runs", "list_runs_of"])
def test_the_log_is_read_through_its_indexes(site: Site, query: str) -> None:
    """However long the log is, a list reads no more of it than it shows."""
    site.apply(job("a"))
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'j' || n % 100, now() - (20000 - n) * interval '1 s', now(), 'succeeded', 'x', 1"
        " FROM generate_series(1, 20000) n"
    )
    site.run("ANALYZE reconciler.cron_execution_log")
    first = {"name": "j7", "since": timedelta(hours=1), "since_at": None, "statuses": None, "limit": 20}
    at = datetime.now(UTC) - timedelta(minutes=50)
    text = load_queries("runs")[query]
    with connect(site.dsn) as conn:
        for place in ({"log_at": None, "log_id": None}, {"log_at": at, "log_id": 17000}):
            rows = conn.execute(b"EXPLAIN " + text.encode(), first | place)
            plan = "\n".join(line for (line,) in rows)
            assert "Seq Scan on cron_execution_log" not in plan, plan
