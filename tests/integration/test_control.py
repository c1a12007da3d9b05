"""What people ask of jobs and runs, as the command line asks it: run, pause, resume, cancel."""

from __future__ import annotations

import _thread
import threading
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.database.connect import connect
from reconciler.database.control import (
    Runner,
    cancel_run,
    find_jobs,
    find_managed_jobs,
    find_runners,
    find_runs,
    find_start,
    pause_jobs,
    request_run,
    resume_jobs,
    run_here,
)
from reconciler.errors import ConfigError, DatabaseError, RightsError
from tests.declared import Site, job, worker
from tests.runs import call, hold, log, runner, running, statuses
from tests.servers import wait_until

pytestmark = pytest.mark.one_server


def test_jobs_are_found_by_name(site: Site) -> None:
    """Each name gives its job once, in the order in which they were asked for."""
    site.run("CREATE ROLE alice LOGIN")
    site.apply(job("a", "SELECT 7"), job("b", role="alice"), worker("w"))
    with connect(site.dsn) as conn:
        found = find_jobs(conn, ["w", "b", "a", "b"])
    assert [(one.name, one.kind, one.mode) for one in found] == [
        ("w", "worker", "managed"),
        ("b", "job", "managed"),
        ("a", "job", "managed"),
    ]
    assert (found[1].role, found[2].role) == ("alice", "postgres")
    assert found[2].read()["sql"] == "SELECT 7"


def test_unknown_names_are_told_all_at_once(site: Site) -> None:
    """Every unknown name is named, with the nearest right one where there is one near."""
    site.apply(job("tidy"), job("count"))
    with connect(site.dsn) as conn:
        with pytest.raises(ConfigError) as one:
            find_jobs(conn, ["tdy"])
        with pytest.raises(ConfigError) as more:
            find_jobs(conn, ["tidy", "conut", "zzz"])
    assert str(one.value) == "no job tdy on the target\n  did you mean tidy?"
    assert str(more.value) == "no job conut, zzz on the target\n  did you mean count for conut?"


def test_only_managed_jobs_can_be_controlled(site: Site) -> None:
    """Direct jobs are refused with their names; workers are managed like jobs."""
    site.apply(job("a"), job("d", mode="direct"), job("e", mode="direct"), worker("w"))
    with connect(site.dsn) as conn:
        assert [one.name for one in find_managed_jobs(conn, ["w", "a"])] == ["w", "a"]
        with pytest.raises(ConfigError, match="d is handed to pg_cron as it is; e is handed to pg_cron"):
            find_managed_jobs(conn, ["a", "d", "w", "e"])


def test_runners_are_the_active_entries_of_the_role(site: Site) -> None:
    """Entries of other roles, other databases, other commands and inactive ones take no request."""
    site.run("CREATE ROLE alice LOGIN")
    site.apply(job("reconciler-runner", "CALL reconciler.runner()", mode="direct"))
    site.run("SELECT cron.schedule('mine', '* * * * *', E' call\\n reconciler.runner(stay => ''1 s'')')")
    site.run("SELECT cron.schedule('tick', '* * * * *', 'CALL reconciler.tick()')")
    for name, role, database, active in (
        ("hers", "alice", "app", True),
        ("off", "postgres", "app", False),
        ("away", "postgres", "template1", True),
    ):
        site.run(
            "SELECT cron.schedule_in_database(%s, '* * * * *', 'CALL reconciler.runner()',"
            " replace(%s, 'app', current_database()), %s, %s)",
            name,
            database,
            role,
            active,
        )
    with connect(site.dsn) as conn:
        found = find_runners(conn, "postgres", sees_entries=True)
        assert [one.name for one in found] == ["mine", "reconciler-runner"]
        assert found[0] == Runner(name="mine", schedule="* * * * *")
        assert [one.name for one in find_runners(conn, "alice", sees_entries=True)] == ["hers"]
        # Whoever may not see the entries goes by what was applied.
        assert [one.name for one in find_runners(conn, "postgres", sees_entries=False)] == [
            "reconciler-runner"
        ]
        assert find_runners(conn, "alice", sees_entries=False) == []


def test_a_request_waits_until_a_runner_takes_it(site: Site) -> None:
    """The request is due at once, asking again is the same request, and its run is found by it."""
    site.apply(job("a"))
    with connect(site.dsn) as conn:
        start = request_run(conn, "a")
        assert request_run(conn, "a") == start
        waiting = find_start(conn, start)
        assert waiting.due_at is not None
        assert waiting.run_id is None
        runner(site)
        taken = find_start(conn, start)
        assert (taken.due_at, taken.run_id) == (None, log(site, "a", "id")[0][0])
        assert find_start(conn, start + 1).run_id is None
        assert request_run(conn, "a") > start
    assert log(site, "a", "status", "trigger", "start_id") == [("succeeded", "manual", start)]


def test_a_stranger_may_ask_for_nothing(site: Site) -> None:
    """A role that is neither the job's nor the owner's is refused each of the ways."""
    site.run("CREATE ROLE eve LOGIN")
    site.apply(job("a"))
    call(site)
    with connect(site.database.dsn_for("eve")) as conn:
        for ask in (
            lambda: request_run(conn, "a"),
            lambda: pause_jobs(conn, ["a"]),
            lambda: resume_jobs(conn, ["a"]),
            lambda: cancel_run(conn, log(site, "a", "id")[0][0]),
        ):
            with pytest.raises(RightsError, match="eve may not control the job a") as refused:
                ask()
            assert "It runs as postgres." in refused.value.remedy
    assert site.rows("SELECT count(*) FROM reconciler.starts") == [(0,)]
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]


def test_pausing_is_all_or_nothing(site: Site) -> None:
    """When one of the jobs cannot be paused, none is."""
    site.run("CREATE ROLE alice LOGIN")
    site.apply(job("a", role="alice"), job("b"))
    with connect(site.database.dsn_for("alice")) as conn:
        with pytest.raises(RightsError):
            pause_jobs(conn, ["a", "b"])
        with pytest.raises(RightsError):
            resume_jobs(conn, ["a", "b"])
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]


def test_a_pause_ends_as_it_was_asked_for(site: Site) -> None:
    """A pause lasts so long by the server's clock, until an instant, or until it is resumed."""
    site.apply(job("a"), job("b"))
    until = datetime(2099, 1, 1, tzinfo=UTC)
    with connect(site.dsn) as conn:
        ends = pause_jobs(conn, ["a", "b"], duration=timedelta(hours=2), reason="moving")
        assert ends["a"] is not None
        (now,) = site.rows("SELECT clock_timestamp()")[0]
        assert timedelta(hours=1, minutes=59) < ends["a"] - now <= timedelta(hours=2)
        assert pause_jobs(conn, ["a"], until=until) == {"a": until}
        assert pause_jobs(conn, ["a"]) == {"a": None}
    with pytest.raises(DatabaseError, match="ends in the future"), connect(site.dsn) as conn:
        pause_jobs(conn, ["b"], until=datetime(2020, 1, 1, tzinfo=UTC))
    rows = site.rows("SELECT job_name, reason, paused_by FROM reconciler.pauses ORDER BY 1")
    assert rows == [("a", "", "postgres"), ("b", "moving", "postgres")]


def test_resuming_tells_what_was_paused(site: Site) -> None:
    """A job that was not paused is no error."""
    site.apply(job("a"), job("b"))
    with connect(site.dsn) as conn:
        pause_jobs(conn, ["a"])
        assert resume_jobs(conn, ["b", "a"]) == {"a": True, "b": False}
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]


def test_running_here_gives_the_run(site: Site) -> None:
    """A run in our own connection is found whether it succeeds, fails or is skipped."""
    site.apply(job("a"), job("b", "SELECT 1/0"), job("c", hold()))
    with connect(site.dsn) as conn:
        jobs = {one.name: one for one in find_jobs(conn, ["a", "b", "c"])}
        ids = [run_here(conn, jobs[name]).run_id for name in ("a", "b", "a")]
        with running(site, "c"):
            ids.append(run_here(conn, jobs["c"]).run_id)
    rows = site.rows(
        "SELECT id, job_name, status FROM reconciler.cron_execution_log WHERE id = ANY (%s)", ids
    )
    found = {run_id: (name, outcome) for run_id, name, outcome in rows}
    assert [found.get(run_id or 0) for run_id in ids] == [
        ("a", "succeeded"),
        ("b", "failed"),
        ("a", "succeeded"),
        ("c", "skipped"),
    ]
    assert set(log(site, "a", "trigger")) == {("manual",)}


def test_running_here_takes_the_jobs_own_role(site: Site) -> None:
    """Another role is refused before anything runs, a superuser too: the body would have other rights."""
    site.run("CREATE ROLE alice LOGIN")
    site.apply(job("a", role="alice"))
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice")
    with connect(site.dsn) as conn:
        (found,) = find_jobs(conn, ["a"])
        with pytest.raises(RightsError, match="a runs as the role alice, and this connection is of postgres"):
            run_here(conn, found)
    assert statuses(site) == []
    with connect(site.database.dsn_for("alice")) as conn:
        assert run_here(conn, found).run_id is not None
    assert statuses(site) == ["succeeded"]


def test_an_interrupt_cancels_the_run_here(site: Site) -> None:
    """Ctrl-C ends the run as cancelled, and the connection is of use afterwards."""
    site.apply(job("a", "SELECT pg_sleep(20)"))

    def interrupt() -> None:
        wait_until(lambda: statuses(site) == ["running"], seconds=10, what="the run has begun")
        _thread.interrupt_main()

    beside = threading.Thread(target=interrupt)
    with connect(site.dsn) as conn:
        (found,) = find_jobs(conn, ["a"])
        beside.start()
        outcome = run_here(conn, found)
        beside.join()
        assert outcome.interrupted
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert log(site, "a", "id", "status") == [(outcome.run_id, "cancelled")]


def test_an_error_without_a_run_is_raised(site: Site) -> None:
    """When nothing was started, the server's words are what is left."""
    site.apply(job("a"))
    with connect(site.dsn) as conn:
        (found,) = find_jobs(conn, ["a"])
    site.run("DELETE FROM reconciler.definitions")
    with pytest.raises(DatabaseError, match="no job a is declared"), connect(site.dsn) as conn:
        run_here(conn, found)


def test_cancelling_tells_what_it_did(site: Site) -> None:
    """A run that goes on is told to end; one that is over keeps its status; unknown numbers are an error."""
    site.apply(job("a", hold()), job("b"))
    call(site, "b")
    over = log(site, "b", "id")[0][0]
    with connect(site.dsn) as conn:
        with running(site) as going:
            assert find_runs(conn, [going.run, over]) == {
                going.run: ("a", "running"),
                over: ("b", "succeeded"),
            }
            assert cancel_run(conn, going.run) == "cancelling"
        assert cancel_run(conn, going.run) == "cancelled"
        assert cancel_run(conn, over) == "succeeded"
        with pytest.raises(ConfigError, match="there is no run 98, 99 on the target"):
            find_runs(conn, [over, 98, 99])
    assert statuses(site) == ["cancelled"]
