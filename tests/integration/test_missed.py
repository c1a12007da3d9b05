"""Missed runs: what should have fired, and left nothing in the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.declared import NEVER, Site, job
from tests.runs import Beside, alerts, fire, log, runner, starts, statuses

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=seconds) for seconds in (1, 60, 3600, 86400))
EVERY_MINUTE = "* * * * *"
AT_NOON = "0 12 * * *"


def expect(site: Site, at: datetime, name: str = "a") -> None:
    """Let this be the fire that was not looked at yet; pg_cron itself starts nothing meanwhile."""
    site.run("UPDATE cron.job SET schedule = %s WHERE jobname = %s", NEVER, name)
    site.run("UPDATE reconciler.job_states SET next_due_at = %s WHERE name = %s", at, name)


def ran(
    site: Site,
    *starts: datetime,
    took: timedelta | None = SECOND,
    status: str = "succeeded",
    trigger: str = "schedule",
) -> None:
    """Put runs of the job `a` into the log; `took` is None for one that goes on."""
    for start in starts:
        site.run(
            "INSERT INTO reconciler.cron_execution_log"
            " (job_name, definition_id, run_at, completed_at, status, trigger, role, backend_pid)"
            " SELECT name, id, %s, %s, %s, %s, 'postgres', 0 FROM reconciler.definitions WHERE name = 'a'",
            start,
            None if took is None else start + took,
            status,
            trigger,
        )


def look(site: Site, now: datetime) -> int:
    """Look for missed runs at some time; return how many the job `a` has missed by now."""
    assert site.rows("SELECT reconciler.find_missed(%s)", now) == [(None,)]
    rows = site.rows("SELECT missed_runs FROM reconciler.job_states WHERE name = 'a'")
    return int(rows[0][0])


def next_due(site: Site) -> datetime:
    """Return the fire that is expected next."""
    at: datetime = site.rows("SELECT next_due_at FROM reconciler.job_states WHERE name = 'a'")[0][0]
    return at


def caught_up(site: Site) -> list[datetime]:
    """Return the times that runs made up for, in the order in which they began."""
    return [due for due, trigger in log(site, "a", "due_at", "trigger") if trigger == "catch_up"]


def test_a_daily_run_is_missed_after_ten_minutes(site: Site) -> None:
    """A fire without a run is missed when its grace is over, once; then the next one is expected."""
    site.apply(job("a", schedule=AT_NOON))
    expect(site, NOON)
    assert look(site, NOON - SECOND) == 0
    assert look(site, NOON + 9 * MINUTE) == 0
    assert next_due(site) == NOON
    assert look(site, NOON + 11 * MINUTE) == 1
    assert next_due(site) == NOON + DAY
    assert look(site, NOON + 23 * HOUR) == 1
    assert alerts(site) == [("missed", 1, True)]
    assert site.rows("SELECT message, details ->> 'missed' FROM reconciler.alerts") == [
        ("a did not run at 2026-05-04 12:00:00 UTC", "1")
    ]


def test_a_late_start_within_its_grace_is_no_miss(site: Site) -> None:
    """When pg_cron is busy it may start a daily job minutes late."""
    site.apply(job("a", schedule=AT_NOON))
    expect(site, NOON)
    assert look(site, NOON + 5 * MINUTE) == 0
    ran(site, NOON + 8 * MINUTE)
    assert look(site, NOON + 11 * MINUTE) == 0
    assert next_due(site) == NOON + DAY


def test_a_handler_that_takes_long_hides_no_missed_run(site: Site) -> None:
    """pg_cron goes on starting a job whose work is with a worker: such a run casts no shadow."""
    site.apply(job("a", handler="work.do", schedule=AT_NOON))
    expect(site, NOON)
    ran(site, NOON - HOUR, took=2 * HOUR)
    site.run("UPDATE reconciler.cron_execution_log SET handed_over = true")
    assert look(site, NOON + 11 * MINUTE) == 1


def test_each_minute_is_expected(site: Site) -> None:
    """A job of every minute misses a run each minute, after two minutes of grace."""
    site.apply(job("a", schedule=EVERY_MINUTE))
    expect(site, NOON)
    found = [look(site, NOON + minutes * MINUTE + SECOND) for minutes in range(6)]
    assert found == [0, 0, 1, 2, 3, 4]
    ran(site, *(NOON + minutes * MINUTE for minutes in range(4, 8)))
    assert look(site, NOON + 8 * MINUTE) == 4
    assert next_due(site) in {NOON + 8 * MINUTE, NOON + 9 * MINUTE}
    assert alerts(site) == [("missed", 4, True)]


def test_an_interval_counts_from_the_last_run(site: Site) -> None:
    """A job of every 30 seconds is missed when none has begun for two minutes and the interval."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("this pg_cron has no seconds")
    site.apply(job("a", schedule="30 Seconds"))
    expect(site, NOON)
    ran(site, NOON, NOON + 31 * SECOND)
    assert look(site, NOON + 90 * SECOND) == 0
    assert look(site, NOON + 180 * SECOND) == 0
    assert look(site, NOON + 182 * SECOND) == 1
    assert next_due(site) == NOON + 212 * SECOND
    ran(site, NOON + 200 * SECOND, took=20 * MINUTE)
    assert look(site, NOON + 15 * MINUTE) == 1
    ran(site, NOON + 200 * SECOND + 20 * MINUTE)
    assert look(site, NOON + 25 * MINUTE) == 1


def test_hours_without_the_server(site: Site) -> None:
    """What was missed while the server was down is one alert, which tells how often and since when."""
    site.apply(job("a", schedule=EVERY_MINUTE))
    expect(site, NOON)
    assert look(site, NOON + 3 * HOUR - SECOND) == 178
    assert alerts(site) == [("missed", 1, True)]
    assert site.rows("SELECT message FROM reconciler.alerts") == [
        ("a did not run 178 times, from 2026-05-04 12:00:00 to 2026-05-04 14:57:00 UTC",)
    ]
    assert starts(site) == []


@pytest.mark.parametrize(("catch_up", "expected"), [("none", []), ("one", [4]), ("all", [1, 2, 3, 4])])
def test_what_was_missed_is_made_up_for(site: Site, catch_up: str, expected: list[int]) -> None:
    """Nothing, the newest, or each missed run is started, marked with the time that it stands for."""
    site.apply(job("a", schedule="0 * * * *", catch_up=catch_up))
    expect(site, NOON + HOUR)
    assert look(site, NOON + 4.5 * HOUR) == 4
    assert look(site, NOON + 4.7 * HOUR) == 4
    runner(site)
    assert caught_up(site) == [NOON + hours * HOUR for hours in expected]
    assert starts(site) == []


@pytest.mark.parametrize("seen_since", [0, 3, 250])
def test_one_start_makes_up_for_a_thousand(site: Site, seen_since: int) -> None:
    """However many rounds it takes to count what was missed, one start makes up for all of it."""
    site.apply(job("a", schedule=EVERY_MINUTE, catch_up="one"))
    expect(site, NOON)
    up = NOON + 1000 * MINUTE
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'a', fire, fire, 'succeeded', 'postgres', 0"
        "   FROM generate_series(%s::timestamptz, %s, interval '1 minute') AS fire",
        up,
        up + (seen_since - 1) * MINUTE,
    )
    now = up + (seen_since + 2) * MINUTE - SECOND
    rounds = 0
    while look(site, now) < 1000 or next_due(site) < up + seen_since * MINUTE:
        runner(site)
        rounds += 1
    assert rounds >= 4
    runner(site)
    assert caught_up(site) == [up - MINUTE]


def test_everything_is_made_up_for_in_order(site: Site) -> None:
    """Also with two runners at once, and more missed runs than one round counts, the oldest comes first."""
    site.apply(job("a", "SELECT pg_sleep(0.001)", schedule=EVERY_MINUTE, catch_up="all", concurrency="allow"))
    expect(site, NOON)
    while next_due(site) < NOON + 250 * MINUTE:
        look(site, NOON + 252 * MINUTE)
    lanes = [Beside(site, "CALL reconciler.runner()") for _ in range(2)]
    assert [lane.end() for lane in lanes] == [None, None]
    assert caught_up(site) == [NOON + minutes * MINUTE for minutes in range(251)]


def test_one_that_was_made_up_for_may_be_tried_again(site: Site) -> None:
    """A start that makes up for a missed run and fails is retried for the same time, beside the others."""
    site.run("CREATE SEQUENCE public.tries")
    body = "DO $$ BEGIN IF nextval('public.tries') < 2 THEN RAISE 'not yet'; END IF; END $$"
    retried = {"retries": 1, "backoff": {"initial": "0s"}}
    site.apply(job("a", body, schedule="0 * * * *", catch_up="all", on_failure=retried))
    expect(site, NOON)
    look(site, NOON + 1.5 * HOUR)
    runner(site)
    runner(site)
    assert sorted(log(site, "a", "due_at", "trigger", "status")) == [
        (NOON, "catch_up", "failed"),
        (NOON, "retry", "succeeded"),
        (NOON + HOUR, "catch_up", "succeeded"),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{"start": 0}], id="on time"),
        pytest.param([{"start": -0.01, "took": 0.1}], id="the clocks of two processes differ"),
        pytest.param([{"start": 3}], id="late"),
        pytest.param([{"start": 0.5, "trigger": "manual"}], id="by hand"),
        pytest.param([{"start": 0, "status": "skipped"}], id="skipped, as when paused"),
        pytest.param([{"start": 0, "status": "failed"}], id="failed"),
        pytest.param([{"start": -50, "took": None, "status": "running"}], id="the one before goes on"),
        pytest.param([{"start": -50, "took": 3060}], id="the one before went on"),
        pytest.param(
            [
                {"start": -50, "took": 3060},
                *({"start": -start, "trigger": "manual", "status": "skipped"} for start in range(20, 30)),
            ],
            id="the one before went on, and somebody tried meanwhile",
        ),
        pytest.param(
            [{"start": -50, "took": 3060}, {"start": -20, "took": 600}], id="one of two before went on"
        ),
    ],
)
def test_no_false_alarm(site: Site, rows: list[dict[str, Any]]) -> None:
    """No run is missed that began, was skipped, or that pg_cron did not start in the shadow of another."""
    site.apply(job("a", schedule="0 * * * *"))
    expect(site, NOON)
    for row in rows:
        took = row.get("took", 60)
        ran(
            site,
            NOON + row["start"] * MINUTE,
            took=None if took is None else took * SECOND,
            status=row.get("status", "succeeded"),
            trigger=row.get("trigger", "schedule"),
        )
    assert look(site, NOON + 20 * MINUTE) == 0
    assert next_due(site) == NOON + HOUR
    assert alerts(site) == []


@pytest.mark.parametrize("trigger", ["retry", "catch_up", "dependency"])
def test_other_starts_do_not_stand_for_the_entry(site: Site, trigger: str) -> None:
    """What the runner starts does not show that pg_cron has fired the job."""
    site.apply(job("a", schedule="0 * * * *"))
    expect(site, NOON)
    ran(site, NOON + MINUTE, trigger=trigger)
    assert look(site, NOON + 20 * MINUTE) == 1


def test_no_false_alarm_after_a_burst(site: Site) -> None:
    """When pg_cron was held up, and starts each minute's run later, back to back, none was missed."""
    site.apply(job("a", schedule=EVERY_MINUTE))
    expect(site, NOON)
    assert look(site, NOON + 1.9 * MINUTE) == 0
    ran(site, *(NOON + 4.5 * MINUTE + number * SECOND for number in range(5)))
    assert look(site, NOON + 4.9 * MINUTE) == 0


def test_no_false_alarm_for_jobs_that_are_switched_off(site: Site) -> None:
    """An inactive job is not expected, nor is the time while it was inactive when it is active again."""
    site.apply(job("a", schedule=EVERY_MINUTE), job("b"))
    expect(site, NOON)
    site.apply(job("a", schedule=EVERY_MINUTE, active=False), job("b"))
    assert look(site, NOON + HOUR) == 0
    site.apply(job("a", schedule=EVERY_MINUTE), job("b"))
    assert look(site, datetime.now(UTC)) == 0


def test_a_new_schedule_is_expected_from_now_on(site: Site) -> None:
    """When an apply changes the schedule, what was to fire before that is not expected any more."""
    site.apply(job("a", schedule=EVERY_MINUTE))
    expect(site, NOON)
    site.apply(job("a", schedule="0 4 1 1 *"))
    assert look(site, datetime.now(UTC)) == 0
    assert next_due(site) > datetime.now(UTC)


def test_a_body_may_be_edited_while_a_run_is_missed(site: Site) -> None:
    """An apply that leaves the schedule does not forget what is due."""
    site.apply(job("a", schedule=AT_NOON))
    expect(site, NOON)
    site.apply(job("a", "SELECT 2", schedule=AT_NOON))
    assert look(site, NOON + HOUR) == 1


def test_a_clock_that_goes_back_and_forth(site: Site) -> None:
    """When the clock is set back nothing is missed twice; when it is set forth only once."""
    site.apply(job("a", schedule="0 * * * *", catch_up="one"))
    expect(site, NOON)
    ran(site, NOON)
    clocks = (NOON + 30 * MINUTE, NOON - DAY, NOON + 59 * MINUTE, NOON + 3.5 * HOUR, NOON, NOON + 3.8 * HOUR)
    assert [look(site, clock) for clock in clocks] == [0, 0, 0, 3, 3, 3]
    assert alerts(site) == [("missed", 1, True)]
    assert starts(site) == [("a", "catch_up", 1)]


def test_the_next_good_run_resolves_it(site: Site) -> None:
    """When the job runs again the alert is over, and nothing is made up for that has run meanwhile."""
    site.apply(job("a", schedule=AT_NOON, catch_up="one"))
    expect(site, NOON)
    look(site, NOON + HOUR)
    assert starts(site) == [("a", "catch_up", 1)]
    fire(site)
    assert alerts(site) == [("missed", 1, False), ("recovered", 1, False)]
    assert starts(site) == []


def test_nobody_is_told_who_did_not_ask(site: Site) -> None:
    """Without `missed` among the alerts it is counted alone."""
    site.apply(job("a", schedule=AT_NOON, alert={"on": ["failed"]}))
    expect(site, NOON)
    assert look(site, NOON + HOUR) == 1
    assert alerts(site) == []


def test_one_job_with_a_wrong_zone_does_not_hide_the_others(site: Site) -> None:
    """Whatever is in a zone's column, every job is looked at."""
    site.apply(job("a", schedule=AT_NOON), job("b", schedule=AT_NOON))
    site.run("UPDATE reconciler.policies SET zone = 'Nowhere' WHERE name = 'b'")
    expect(site, NOON)
    expect(site, NOON - SECOND, "b")
    assert look(site, NOON + HOUR) == 1
    assert statuses(site) == []
