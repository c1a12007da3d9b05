"""When an alert is opened, counted, told again and resolved; how it is delivered is tested elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from tests.declared import Site, channel, job
from tests.runs import alerts, call, fire, hold, log, running, starts, statuses, tick
from tests.servers import wait_until

if TYPE_CHECKING:
    from reconciler.core.specs import JobSpec

pytestmark = pytest.mark.one_server

DELIVERIES: LiteralString = (
    "SELECT a.kind, d.channel, d.reminder FROM reconciler.alert_deliveries d"
    "  JOIN reconciler.alerts a ON a.id = d.alert_id ORDER BY d.id"
)
STATE: LiteralString = (
    "SELECT total_runs, failed_runs, consecutive_failures, last_status FROM reconciler.job_states"
    " WHERE name = 'a'"
)


def watched(sql: str = "SELECT 1", *, name: str = "a", **alert: Any) -> JobSpec:
    """Declare a job of whose runs the channel `ops` is told, and how."""
    return job(name, sql, alert={"channels": ["ops"], **alert}, concurrency="allow")


def end(site: Site, *outcomes: str) -> None:
    """Begin and end runs of the job `a`, without its body."""
    with site.database.server.connect() as conn:
        for outcome in outcomes:
            run = conn.execute("SELECT run_id, token FROM reconciler.start_run('a', 'schedule')").fetchone()
            assert run is not None
            conn.execute(
                "SELECT reconciler.finish_run(%s, %s, %s, error_sqlstate => '22012', error_message => 'oh')",
                [*run, outcome],
            )


def took(site: Site, seconds: float, *, times: int) -> None:
    """Put good runs of the job `a` into the log, each of this duration."""
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'a', now() - interval '1 hour', now() - interval '1 hour' + make_interval(secs => %s),"
        "        'succeeded', 'postgres', 1 FROM generate_series(1, %s)",
        seconds,
        times,
    )


def ticked(site: Site) -> list[tuple[str, int, bool]]:
    """Return the alerts of the job `a` after another tick."""
    tick(site)
    return alerts(site)


def messages(site: Site) -> list[str]:
    """Return what the alerts say, oldest first."""
    return [row[0] for row in site.rows("SELECT message FROM reconciler.alerts ORDER BY id")]


def test_a_failure_opens_one_alert(site: Site) -> None:
    """Each further failure is counted on the open alert, and each channel is told of it once."""
    site.apply(channel("ops"), channel("boss"), job("a", "SELECT 1/0", alert={"channels": ["ops", "boss"]}))
    fire(site)
    fire(site)
    call(site)
    assert alerts(site) == [("failed", 3, True)]
    assert messages(site) == ["a failed 3 times in a row: division by zero"]
    assert sorted(site.rows(DELIVERIES)) == [("failed", "boss", 0), ("failed", "ops", 0)]
    last = log(site, "a", "id")[-1][0]
    assert site.rows("SELECT run_id, details ->> 'failures' FROM reconciler.alerts") == [(last, "3")]


def test_each_job_has_its_own_alert(site: Site) -> None:
    """Two jobs that fail are two alerts, with the channels of each; none is needed."""
    site.apply(channel("ops"), watched("SELECT 1/0"), job("b", "SELECT 1/0"))
    fire(site)
    fire(site, "b")
    assert (alerts(site, "a"), alerts(site, "b")) == ([("failed", 1, True)], [("failed", 1, True)])
    assert site.rows(DELIVERIES) == [("failed", "ops", 0)]


def test_some_failures_may_be_borne(site: Site) -> None:
    """With `after: 3` the third failure in a row is the first that counts; a success begins anew."""
    site.apply(channel("ops"), watched(after=3))
    end(site, "failed", "failed", "succeeded", "failed", "failed")
    assert alerts(site) == []
    end(site, "failed")
    assert alerts(site) == [("failed", 1, True)]
    end(site, "failed")
    assert alerts(site) == [("failed", 2, True)]
    assert site.rows(STATE) == [(7, 6, 4, "failed")]


def test_what_says_nothing_of_the_job_changes_nothing(site: Site) -> None:
    """Neither a cancelled nor a skipped run is a failure, nor the end of a row of failures."""
    site.apply(channel("ops"), watched(after=3))
    end(site, "failed", "cancelled", "failed")
    site.run("SELECT reconciler.pause_job('a')")
    fire(site)
    assert statuses(site) == ["failed", "cancelled", "failed", "skipped"]
    assert alerts(site) == []
    site.run("SELECT reconciler.resume_job('a')")
    end(site, "failed", "cancelled")
    assert alerts(site) == [("failed", 1, True)]


def test_a_good_run_resolves_all_of_it(site: Site) -> None:
    """The next good run closes what is open, and tells once that the job has recovered; and so again."""
    site.apply(channel("ops"), watched(hold()))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
    tick(site)
    for number in (1, 2):
        end(site, "failed", "failed", "succeeded", "succeeded")
        assert [kind for kind, _, is_open in alerts(site) if not is_open].count("recovered") == number
        assert [one for one in alerts(site) if one[2]] == []
    assert alerts(site) == [
        ("lost", 1, False),
        ("failed", 2, False),
        ("recovered", 1, False),
        ("failed", 2, False),
        ("recovered", 1, False),
    ]
    assert messages(site)[2].startswith("a succeeded again (failed, lost since ")
    assert [kind for kind, *_ in site.rows(DELIVERIES)] == [kind for kind, *_ in alerts(site)]


@pytest.mark.parametrize(
    ("on", "kinds"),
    [(["failed"], ["failed"]), (["lost", "recovered"], ["lost", "recovered"]), (["slow", "missed"], [])],
)
def test_only_what_was_asked_for(site: Site, on: list[str], kinds: list[str]) -> None:
    """Alerts that nobody asked for are neither opened nor told."""
    site.apply(channel("ops"), watched(hold(), on=on))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
    tick(site)
    end(site, "failed", "succeeded")
    assert [kind for kind, *_ in alerts(site)] == kinds


def test_a_lost_run_is_told_of(site: Site) -> None:
    """A lost run is an alert of its own, also the first one, and counts among the failures."""
    site.apply(channel("ops"), watched(hold(), after=2))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
    tick(site)
    tick(site)
    assert alerts(site) == [("lost", 1, True)]
    assert messages(site) == [f"a lost: backend {run.pid} went away without ending the run"]
    end(site, "failed")
    assert alerts(site) == [("lost", 1, True), ("failed", 1, True)]


def test_a_run_that_was_not_lost_after_all(site: Site) -> None:
    """A body that gives up its lock is taken for lost; when it ends well, it has run once, and well."""
    site.apply(
        channel("ops"),
        job("a", f"SELECT pg_advisory_unlock_all(); {hold()}", on_failure={"retries": 3}),
    )
    with running(site) as run:
        tick(site)
        assert statuses(site) == ["lost"]
        assert starts(site) == [("a", "retry", 2)]
        assert run.end() is None
    assert statuses(site) == ["succeeded"]
    assert starts(site) == []
    assert site.rows(STATE) == [(1, 0, 0, "succeeded")]
    assert alerts(site) == [("lost", 1, False), ("recovered", 1, False)]


def test_a_run_that_goes_on_too_long_is_slow(site: Site) -> None:
    """The tick tells of it while it goes on; its end is no second occurrence, and a quick run resolves it."""
    site.apply(channel("ops"), watched(hold(), slow="50ms"))
    with running(site):
        wait_until(lambda: bool(ticked(site)), seconds=5, what="the run is slow")
        tick(site)
        assert "has been running for" in messages(site)[0]
    assert alerts(site) == [("slow", 1, True)]
    assert ", more than 00:00:00.05" in messages(site)[0]
    assert messages(site)[0].startswith("a took ")
    assert site.rows(DELIVERIES) == [("slow", "ops", 0)]
    end(site, "succeeded")
    assert alerts(site) == [("slow", 1, False), ("recovered", 1, False)]


def test_two_slow_runs_at_once(site: Site) -> None:
    """Each of them is counted once, however many ticks see them."""
    site.apply(channel("ops"), watched(hold(), slow="50ms"))
    with running(site) as first, running(site, gate=2) as second:
        wait_until(lambda: ticked(site) == [("slow", 2, True)], seconds=5, what="both are slow")
        tick(site)
        tick(site)
        assert alerts(site) == [("slow", 2, True)]
        first.open()
        second.open()
    assert statuses(site) == ["succeeded"] * 2
    assert len(site.rows(DELIVERIES)) == 1


def test_a_slow_run_is_told_at_its_end_too(site: Site) -> None:
    """A run that no tick saw is slow when it ends, and still a good one: it resolves what failed before."""
    site.apply(channel("ops"), watched("SELECT pg_sleep(0.1)", slow="50ms"))
    end(site, "failed")
    assert fire(site) is None
    assert alerts(site) == [("failed", 1, False), ("slow", 1, True), ("recovered", 1, False)]


def test_a_failed_run_is_not_slow(site: Site) -> None:
    """How long a failed run took is nothing to be told."""
    site.apply(channel("ops"), watched("SELECT pg_sleep(0.1), 1/0", slow="50ms"))
    fire(site)
    assert [kind for kind, *_ in alerts(site)] == ["failed"]


@pytest.mark.parametrize(("known", "expected"), [(4, []), (5, [("slow", 1, True)])])
def test_slow_may_be_a_multiple_of_the_usual(site: Site, known: int, expected: list[Any]) -> None:
    """Three times the median of the good runs, while it goes on and at its end, once five are known."""
    site.apply(channel("ops"), watched(hold(), slow="3x"))
    took(site, 0.01, times=known)
    with running(site):
        site.run("SELECT pg_sleep(0.05)")
        tick(site)
        assert alerts(site) == expected
    assert alerts(site) == expected


def test_what_is_usual_is_not_slow(site: Site) -> None:
    """A run of less than the multiple is not slow, also when the runs of long ago were quicker."""
    site.apply(channel("ops"), watched("SELECT pg_sleep(0.1)", slow="3x"))
    took(site, 60, times=20)
    fire(site)
    assert alerts(site) == []


def test_reminders_of_what_is_still_open(site: Site) -> None:
    """When an alert has been open for so long, its channels are told again, until it is over."""
    site.apply(channel("ops"), watched(remind="1h"), job("b", "SELECT 1/0"))
    end(site, "failed")
    fire(site, "b")
    tick(site)
    assert site.rows(DELIVERIES) == [("failed", "ops", 0)]
    for number in (1, 2):
        site.run("UPDATE reconciler.alerts SET notified_at = notified_at - interval '61 minutes'")
        tick(site)
        tick(site)
        assert site.rows(DELIVERIES) == [("failed", "ops", reminder) for reminder in range(number + 1)]
    end(site, "succeeded")
    site.run("UPDATE reconciler.alerts SET notified_at = notified_at - interval '61 minutes'")
    tick(site)
    assert [reminder for *_, reminder in site.rows(DELIVERIES)] == [0, 1, 2, 0]


def test_nobody_is_reminded_of_a_job_that_is_gone(site: Site) -> None:
    """The alerts of a job that was withdrawn or renamed are closed by the next tick."""
    site.apply(channel("ops"), watched("SELECT 1/0"), watched("SELECT 1/0", name="b"))
    fire(site, "a")
    fire(site, "b")
    site.apply(channel("ops"), job("c", "SELECT 1/0", renamed_from="b"), prune="auto")
    site.run("UPDATE reconciler.alerts SET notified_at = notified_at - interval '10 days'")
    tick(site)
    assert (alerts(site, "a"), alerts(site, "b")) == ([("failed", 1, False)], [("failed", 1, False)])
    assert site.rows(DELIVERIES) == [("failed", "ops", 0)] * 2


def test_an_alert_and_its_messages_are_one_with_the_end(site: Site) -> None:
    """What is rolled back was never told; what is committed wakes who listens."""
    site.apply(channel("ops"), watched())
    listener = site.database.connect()
    listener.execute("LISTEN reconciler_alerts")
    with site.database.connect(autocommit=False) as conn:
        run = conn.execute("SELECT run_id, token FROM reconciler.start_run('a')").fetchone()
        conn.execute("SELECT reconciler.finish_run(%s, %s, 'failed')", run)
        assert conn.execute("SELECT count(*) FROM reconciler.alert_deliveries").fetchone() == (1,)
        conn.rollback()
    assert (alerts(site), site.rows(DELIVERIES), statuses(site)) == ([], [], [])
    assert list(listener.notifies(timeout=0)) == []
    end(site, "failed")
    assert len(site.rows(DELIVERIES)) == 1
    assert [notice.channel for notice in listener.notifies(timeout=5, stop_after=1)] == ["reconciler_alerts"]


def test_runs_that_fail_together_open_one_alert(site: Site) -> None:
    """Two runs that end at the same moment are two occurrences of one alert."""
    site.apply(channel("ops"), watched(f"{hold()}; SELECT 1/0"))
    with running(site) as first, running(site, gate=2) as second, running(site, gate=3) as third:
        for run in (first, second, third):
            run.open()
    assert statuses(site) == ["failed"] * 3
    assert alerts(site) == [("failed", 3, True)]
