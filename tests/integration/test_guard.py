"""The guard: an entry may come more often than its job is wanted, and each wanted instant is begun once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.declared import Site, job
from tests.runs import Beside, alerts, call, fire, hold, log, make_due, runner, running, starts, statuses
from tests.runs import wait_for_pg_cron as wait
from tests.servers import wait_until
from tests.timed import DAY, HOUR, MINUTE, aim, spell_moment

if TYPE_CHECKING:
    from tests.servers import Database

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)  # a Monday
TAKE: LiteralString = "SELECT reconciler.take_fire('a')"
FIRED: LiteralString = "SELECT fired_at FROM reconciler.job_states WHERE name = 'a'"
SLEEPS: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
WINDOW: LiteralString = "SELECT job_name, trigger FROM reconciler.starts WHERE due_at > now()"
NOW_AND_EVER = [{"first": "2020-01-01"}]
NEARLY_ALWAYS = [{"first": "2020-01-01", "last": f"{date.today() + 9 * DAY}"}]  # noqa: DTZ011 - days are enough


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database with a job whose entry does not come by itself."""
    site = Site(database)
    site.apply(job("a"))
    return site


def now(site: Site) -> datetime:
    """Look at the database's clock."""
    at: datetime = site.rows("SELECT clock_timestamp()")[0][0]
    return at.astimezone(UTC)


# --- which moments are wanted ---


def test_a_wanted_moment_is_begun_once(site: Site) -> None:
    """The entry starts the job when it is wanted; what comes again for the same instant leaves nothing."""
    at = now(site)
    aim(site, schedule=spell_moment(at))
    for _ in range(3):
        assert fire(site) is None
    assert log(site, "a", "status", "trigger") == [("succeeded", "schedule")]
    assert site.rows(FIRED) == [(at.replace(second=0, microsecond=0),)]


@pytest.mark.parametrize("away", [-61 * MINUTE, 2 * MINUTE, 12 * HOUR])
def test_another_moment_is_passed_over(site: Site, away: timedelta) -> None:
    """Where nothing was wanted in the last hour no run begins, and nobody is told."""
    aim(site, schedule=spell_moment(now(site) + away))
    assert fire(site) is None
    assert log(site) == []
    assert site.rows(FIRED) == [(None,)]


def test_a_late_start_stands_for_the_newest_instant(site: Site) -> None:
    """When pg_cron was busy, a start within the hour is for the last of what was wanted, once."""
    at = now(site).replace(second=0, microsecond=0)
    aim(site, schedule=f"{(at - 50 * MINUTE).minute},{(at - 20 * MINUTE).minute} * * * *")
    fire(site)
    fire(site)
    assert statuses(site) == ["succeeded"]
    assert site.rows(FIRED) == [(at - 20 * MINUTE,)]


def test_the_zone_decides(site: Site) -> None:
    """The same rule is right in the zone whose clocks show it, and wrong in another one."""
    rule = spell_moment(now(site), "Asia/Kathmandu")
    aim(site, schedule=rule)
    fire(site)
    assert log(site) == []
    aim(site, schedule=rule, zone="Asia/Kathmandu")
    fire(site)
    assert statuses(site) == ["succeeded"]
    site.run("UPDATE reconciler.policies SET zone = 'Asia/Kathmandu'")
    aim(site, schedule=rule)
    fire(site)
    assert statuses(site) == ["succeeded"] * 2


def test_intervals_and_shifts_decide(site: Site) -> None:
    """An interval of any length counts from its anchor, and a shift moves what is wanted."""
    at = now(site)
    aim(site, every="7 h", anchor=at - 14 * HOUR - MINUTE)
    fire(site)
    assert statuses(site) == ["succeeded"]
    aim(site, every="7 h", anchor=at - 2 * HOUR)
    fire(site)
    aim(site, every="7 h", anchor=at - MINUTE, shift="3 h")
    fire(site)
    assert statuses(site) == ["succeeded"]
    aim(site, every="7 h", anchor=at - 3 * HOUR - MINUTE, shift="3 h")
    fire(site)
    assert statuses(site) == ["succeeded"] * 2


@pytest.mark.parametrize("rule", [{"schedule": "* * * * *"}, {}], ids=["a rule", "the entry"])
@pytest.mark.parametrize(
    "limits",
    [
        {"start_at": datetime.now(UTC) + DAY},
        {"end_at": datetime.now(UTC) - DAY},
        {"windows": NOW_AND_EVER},
        {"windows": NEARLY_ALWAYS, "zone": "Pacific/Apia"},
    ],
    ids=["too early", "too late", "a blackout", "a blackout far away"],
)
def test_nothing_begins_outside(site: Site, rule: dict[str, Any], limits: dict[str, Any]) -> None:
    """Before the start, from the end on and in a blackout no run begins, and within all these each does."""
    aim(site, **rule, **limits)
    fire(site)
    assert log(site) == []
    aim(site, **rule, start_at=now(site) - HOUR, end_at=now(site) + HOUR, windows=[{"last": "2020-01-01"}])
    fire(site)
    assert statuses(site) == ["succeeded"]


def test_what_was_wanted_in_a_blackout_is_not_begun_after_it(site: Site) -> None:
    """It is not put off: when the blackout is over, the entry waits for the next instant."""
    at = now(site).replace(second=0, microsecond=0)
    if at.hour < 1:
        pytest.skip("the windows of this test begin and end on one day")
    window = {"from": f"{at - 30 * MINUTE:%H:%M}", "to": f"{at:%H:%M}"}
    aim(site, schedule=spell_moment(at - 10 * MINUTE), windows=[window])
    fire(site)
    assert log(site) == []


def test_the_entry_alone_is_begun_each_time(site: Site) -> None:
    """Without a rule or an interval of its own a job begins as often as its entry comes."""
    aim(site, start_at=now(site) - HOUR)
    fire(site)
    fire(site)
    assert statuses(site) == ["succeeded"] * 2


def test_a_job_without_a_timing_has_no_guard(site: Site) -> None:
    """As before: each start of the entry is a run."""
    fire(site)
    fire(site)
    assert statuses(site) == ["succeeded"] * 2


def test_by_hand_is_always_allowed(site: Site) -> None:
    """Who starts a job himself is not asked for the time, at once or through a runner."""
    aim(site, schedule="0 0 1 1 *", windows=NOW_AND_EVER)
    assert call(site) is None
    site.run("SELECT reconciler.request_run('a')")
    runner(site)
    assert log(site, "a", "trigger") == [("manual",), ("manual",)]


def test_a_paused_job_is_skipped_once_for_each_instant(site: Site) -> None:
    """A pause is told of when a run was wanted, and not each time that the entry comes."""
    aim(site, schedule=spell_moment(now(site)))
    site.run("SELECT reconciler.pause_job('a')")
    fire(site)
    fire(site)
    assert statuses(site) == ["skipped"]


def test_who_may_ask(site: Site) -> None:
    """A stranger gets the error of any start, and takes nothing; so does who names no job."""
    site.run("CREATE ROLE stranger LOGIN")
    errors = [call(site, user="stranger", trigger="manual")]
    aim(site, schedule=spell_moment(now(site)))
    errors += [call(site, user="stranger", trigger="schedule")]
    messages = {str(error).splitlines()[0] for error in errors}
    assert messages == {"the role stranger may not run the job a"}
    assert site.rows(FIRED) == [(None,)]
    assert isinstance(fire(site, "nobody"), psycopg.errors.UndefinedObject)


# In spring 02:30 is skipped; in autumn it comes a first time before the clocks are set back.
BAR_ENDS: dict[str, dict[str, str | None]] = {
    "02:30": {
        "2025-12-31 23:59:59": "2026-01-01 00:00",
        "2026-01-01 00:00": "2026-01-01 01:30",
        "2027-03-28 00:30": "2027-03-28 01:00",
        "2026-10-24 23:30": "2026-10-25 00:30",
        "2026-10-25 00:30": None,
        "2026-10-25 01:10": "2026-10-25 01:30",
        "2027-12-31 23:59:59": None,
        "2028-01-01 00:00": "infinity",
    },
    "04:30": {"2027-03-28 00:30": "2027-03-28 02:30", "2026-10-24 23:30": "2026-10-25 03:30"},
}


def test_when_a_run_may_start_again(site: Site) -> None:
    """To the minute, also where the clocks are set until then; never from the end on."""
    limits = {"start_at": "2026-01-01Z", "end_at": "2028-01-01Z", "zone": "Europe/Oslo"}
    for end, expected in BAR_ENDS.items():
        aim(site, windows=[{"from": "01:00", "to": end}], **limits)
        for at, over in expected.items():
            rows = site.rows(
                "SELECT reconciler.find_bar_end(t, %s::timestamp AT TIME ZONE 'UTC', 'GMT')"
                "       IS NOT DISTINCT FROM %s::timestamp AT TIME ZONE 'UTC' FROM reconciler.timings t",
                at,
                over,
            )
            assert rows == [(True,)], at


# --- what else starts ---


def put_off(site: Site, trigger: str) -> None:
    """Let something be to start."""
    site.run(
        "INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at)"
        " VALUES ('a', %s, clock_timestamp(), %s)",
        trigger,
        NOON if trigger == "catch_up" else None,
    )


@pytest.mark.parametrize("trigger", ["retry", "catch_up", "dependency"])
@pytest.mark.parametrize("limits", [{"windows": NEARLY_ALWAYS}, {"start_at": datetime.now(UTC) + DAY}])
def test_starts_wait_until_they_may(site: Site, trigger: str, limits: dict[str, Any]) -> None:
    """What is tried again or made up for waits for the end of a blackout, and for the start of its job."""
    aim(site, **limits)
    put_off(site, trigger)
    runner(site)
    assert log(site) == []
    assert site.rows(WINDOW) == [("a", trigger)]
    aim(site)
    make_due(site)
    runner(site)
    assert log(site, "a", "status", "trigger") == [("succeeded", trigger)]


def test_a_start_waits_no_longer_than_the_blackout(site: Site) -> None:
    """It is due when the blackout is over; the others of its job wait with it, and other jobs do not."""
    site.apply(job("a"), job("b"))
    at = now(site)
    over = (at + 2 * MINUTE).replace(second=0, microsecond=0)
    if over.date() != at.date():
        pytest.skip("the windows of this test begin and end on one day")
    aim(site, windows=[{"from": "00:00", "to": f"{over:%H:%M}"}])
    put_off(site, "retry")
    put_off(site, "dependency")
    site.run("INSERT INTO reconciler.starts (job_name, trigger, due_at) VALUES ('b', 'retry', now())")
    runner(site)
    assert site.rows("SELECT due_at FROM reconciler.starts") == [(over,), (over,)]
    assert statuses(site, "b") == ["succeeded"]


def test_starts_past_the_end_are_skipped(site: Site) -> None:
    """They go, and the log says why; what somebody asked for runs all the same."""
    aim(site, end_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    put_off(site, "retry")
    put_off(site, "catch_up")
    site.run("SELECT reconciler.request_run('a')")
    runner(site)
    assert sorted(log(site, "a", "trigger", "status", "error_message")) == [
        ("catch_up", "skipped", "past its end at 2026-01-02 03:04:00 UTC"),
        ("manual", "succeeded", None),
        ("retry", "skipped", "past its end at 2026-01-02 03:04:00 UTC"),
    ]
    assert starts(site) == []


def test_no_run_waits_into_a_blackout(site: Site) -> None:
    """A start that waits for the run before it is skipped when a blackout begins meanwhile."""
    site.apply(job("a", hold(), concurrency="wait"))
    aim(site)
    with running(site):
        second = Beside(site, "CALL reconciler.run_job('a', 'schedule')")
        wait_until(lambda: site.rows(SLEEPS, second.pid) == [(1,)], seconds=5, what="it waits")
        site.run("UPDATE reconciler.timings SET blackout = %s", Jsonb(NOW_AND_EVER))
        assert second.end() is None
    assert log(site, "a", "status", "error_message") == [
        ("succeeded", None),
        ("skipped", "it waited until its blackout or its end"),
    ]


# --- what was missed ---


def look(site: Site, at: datetime, since: datetime | None = None) -> int:
    """Look for missed runs at some time, since another one; return how many there were by now."""
    if since is not None:
        site.run("UPDATE reconciler.job_states SET next_due_at = %s", since)
    assert site.rows("SELECT reconciler.find_missed(%s)", at) == [(None,)]
    return int(site.rows("SELECT missed_runs FROM reconciler.job_states WHERE name = 'a'")[0][0])


def test_runs_in_a_blackout_are_not_missed(site: Site) -> None:
    """Only what was wanted counts, by the rule and outside of blackouts; then the next is expected."""
    site.apply(job("a", schedule="*/10 * * * *"))
    aim(site, schedule="*/30 * * * *", windows=[{"from": "12:20", "to": "15:00"}])
    assert look(site, NOON + 4 * HOUR, since=NOON) == 3
    assert site.rows("SELECT details ->> 'last' FROM reconciler.alerts") == [("2026-05-04T15:30:00+00:00",)]
    assert site.rows("SELECT next_due_at FROM reconciler.job_states") == [(NOON + 4 * HOUR,)]


def test_after_its_end_nothing_is_missed(site: Site) -> None:
    """The last run that was due before the end is the last that can be missed."""
    site.apply(job("a", schedule="0 * * * *"))
    aim(site, end_at=NOON + 2 * HOUR)
    assert look(site, NOON + 9 * HOUR, since=NOON) == 2
    assert site.rows("SELECT next_due_at FROM reconciler.job_states") == [(None,)]
    assert look(site, NOON + DAY) == 2


def test_seconds_in_a_blackout_are_not_missed(site: Site) -> None:
    """An interval of seconds is expected again from the end of the blackout on."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("this pg_cron has no seconds")
    site.apply(job("a", schedule="30 seconds"))
    aim(site, windows=[{"from": "12:00", "to": "13:00"}])
    assert look(site, NOON + 10 * MINUTE, since=NOON - MINUTE / 2) == 0
    assert site.rows("SELECT next_due_at FROM reconciler.job_states") == [(NOON + HOUR,)]
    assert look(site, NOON + HOUR + MINUTE) == 0
    assert look(site, NOON + HOUR + 3 * MINUTE) == 1
    assert alerts(site) == [("missed", 1, True)]


@pytest.mark.parametrize(("catch_up", "runs"), [("none", ["schedule"]), ("one", ["catch_up"])])
def test_what_is_made_up_for_is_not_begun_late_as_well(site: Site, catch_up: str, runs: list[str]) -> None:
    """When pg_cron comes half an hour late, what was missed is done by the runner or by it, not by both."""
    site.apply(job("a", schedule="* * * * *", catch_up=catch_up))
    at = (now(site) - 30 * MINUTE).replace(second=0, microsecond=0)
    aim(site, schedule=spell_moment(at))
    assert look(site, now(site), since=at) == 1
    fire(site)
    runner(site)
    assert log(site, "a", "trigger") == [(trigger,) for trigger in runs]


# --- for real ---


@pytest.mark.firing
def test_pg_cron_fires_into_a_blackout(any_mode_database: Database) -> None:
    """Fired by pg_cron, a job in its blackout does nothing while another one runs; then it runs too."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.apply(job("a", schedule=schedule), job("b", schedule=schedule))
    aim(site, windows=NOW_AND_EVER)
    if is_old:
        site.database.server.restart()
    wait(site, lambda: len(statuses(site, "b")) >= (1 if is_old else 3), what="the other has run")
    assert log(site) == []
    aim(site)
    if is_old:
        site.database.server.restart()
    wait(site, lambda: "succeeded" in statuses(site), what="it has run")
    assert log(site, "a", "trigger")[0] == ("schedule",)


@pytest.mark.firing
def test_pg_cron_fires_what_another_zone_means(site: Site) -> None:
    """However often the entries come, a job runs at the local time that is meant, once, and at no other."""
    is_old = site.database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"
    site.apply(*(job(name, schedule=schedule) for name in ("a", "b", "c")))
    at = now(site).replace(second=0, microsecond=0)
    rule = spell_moment(at, "Asia/Kathmandu")
    aim(site, schedule=rule, zone="Asia/Kathmandu")
    aim(site, "b", schedule=rule, zone="Asia/Tokyo")
    for _ in range(2):
        before = len(statuses(site, "c"))
        if is_old:
            site.database.server.restart()
        wait(site, lambda: len(statuses(site, "c")) > before + (not is_old), what="all have come")  # noqa: B023
    wait(site, lambda: "succeeded" in statuses(site), what="it has run")
    assert log(site, "a", "status", "trigger") == [("succeeded", "schedule")]
    assert site.rows(FIRED) == [(at,)]
    assert log(site, "b") == []
