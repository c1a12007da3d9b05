"""The Scheduler's recurring jobs: declared, known to pg_cron, and done through its queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import pytest

from reconciler.errors import InvalidInputError, RefusedError
from reconciler.runtime import JobStatus, JobType, Registry, Scheduler, SchedulerJob, TriggerType
from tests.declared import NEVER, Site, job

pytestmark = pytest.mark.one_server

SOON = datetime(2099, 1, 2, 3, 4, tzinfo=UTC)


def report(kind: str = "daily") -> str:
    """Do something that can be seen."""
    return f"the {kind} report"


def other_report(kind: str = "daily") -> str:
    """Do something else."""
    return kind


@pytest.fixture
def scheduler(site: Site) -> Scheduler:
    """A scheduler of whose jobs none is done unless a test does it."""
    return Scheduler(site.dsn)


def daily(scheduler: Scheduler, **changed: Any) -> SchedulerJob:
    """Schedule a job that comes each morning."""
    return scheduler.schedule_recurring(
        **{"func": report, "trigger_type": TriggerType.DAILY, "job_id": "daily_report", "hour": 8, **changed}
    )


def fire(site: Site, name: str = "daily_report") -> None:
    """Do what pg_cron does at the time of a job."""
    site.run("CALL reconciler.run_job(%s)", name)


def claim(site: Site) -> tuple[int, int]:
    """Claim the one job that is due, as a worker does; return id and token."""
    [(job_id, token)] = site.rows("SELECT id, token FROM reconciler.claim_jobs('scheduler', 'w', 100)")
    return job_id, token


def complete(site: Site) -> None:
    """Do the one job that is due."""
    site.run("SELECT reconciler.complete_jobs(ARRAY[%s::bigint], ARRAY[%s::bigint])", *claim(site))


def fail(site: Site) -> None:
    """Let the one job that is due fail for good."""
    site.run("SELECT reconciler.fail_job(%s, %s, 'it broke', NULL, true)", *claim(site))


def get(scheduler: Scheduler, job_id: str = "daily_report") -> SchedulerJob:
    """Return a job that has to be there."""
    found = scheduler.get_job(job_id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "times", "schedule"),
    [
        (TriggerType.DAILY, {"hour": 8, "minute": 30}, "30 8 * * *"),
        (TriggerType.WEEKLY, {"day_of_week": "mon,thu", "hour": 8}, "0 8 * * 1,4"),
        (TriggerType.MONTHLY, {"day": 31, "hour": 6}, "0 6 31 * *"),
        (TriggerType.INTERVAL, {"interval": timedelta(minutes=5)}, "*/5 * * * *"),
        (TriggerType.INTERVAL, {"interval": 7200}, "0 */2 * * *"),
        (TriggerType.CRON, {"cron_expression": "15 9 * * 1-5"}, "15 9 * * 1-5"),
    ],
)
def test_each_trigger_is_an_entry(
    site: Site, scheduler: Scheduler, kind: TriggerType, times: dict[str, Any], schedule: str
) -> None:
    """In cron.job, whose command puts a queued job."""
    made = scheduler.schedule_recurring(report, kind, "a_report", **times)
    entry = site.entry("a_report")
    assert (entry["schedule"], entry["command"]) == (schedule, "CALL reconciler.run_job('a_report')")
    assert made.next_run is not None
    assert made.next_run > datetime.now(UTC)


def test_a_recurring_job_is_declared(site: Site, scheduler: Scheduler) -> None:
    """By its owner, with the place of the call; and it reads like any other job."""
    made = daily(scheduler, job_type=JobType.EMAIL, kind="weekly")
    query: LiteralString = (
        "SELECT owner, spec::text, source FROM reconciler.definitions WHERE name = 'daily_report'"
    )
    ((owner, spec, source),) = site.rows(query)
    assert owner == "app"
    assert json.loads(spec) == {
        "daily": "08:00",
        "handler": f"{__name__}:report",
        "labels": {"type": "email"},
        "payload": {"kind": "weekly"},
        "queue": "scheduler",
        "timezone": "UTC",
    }
    assert source.startswith("tests/integration/test_scheduler_recurring.py:")
    assert made == scheduler.get_job("daily_report")
    assert (made.job_type, made.status, made.is_recurring) == (JobType.EMAIL, JobStatus.SCHEDULED, True)
    assert (made.func, made.metadata) == (f"{__name__}:report", {"kind": "weekly"})
    assert (made.id, made.last_run, made.max_retries) == (None, None, 3)
    assert made.next_run is not None
    assert f"{made.next_run.astimezone(UTC):%H:%M}" == "08:00"


def test_scheduling_again_is_scheduling_once(site: Site, scheduler: Scheduler) -> None:
    """At each start of a program; what is different is changed in place."""
    daily(scheduler)
    jobid = site.entry("daily_report")["jobid"]
    before = site.everything()
    daily(Scheduler(site.dsn))
    assert site.everything() == before
    assert daily(scheduler, func=other_report, hour=9).func == f"{__name__}:other_report"
    assert (site.entry("daily_report")["jobid"], site.entry("daily_report")["schedule"]) == (
        jobid,
        "0 9 * * *",
    )


def test_each_time_is_a_queued_job(site: Site, scheduler: Scheduler) -> None:
    """On the queue of the scheduler, for the function; while it is done the job runs, then it waits again."""
    daily(scheduler, kind="weekly")
    fire(site)
    assert site.rows("SELECT queue, handler, payload, job_name, status FROM reconciler.jobs") == [
        ("scheduler", f"{__name__}:report", {"kind": "weekly"}, "daily_report", "pending")
    ]
    assert [one.status for one in scheduler.get_jobs_by_status(JobStatus.SCHEDULED)] == [JobStatus.SCHEDULED]
    job_id, token = claim(site)
    running = get(scheduler)
    assert (running.status, running.id) == (JobStatus.RUNNING, job_id)
    assert running.next_run is not None
    site.run(
        "SELECT reconciler.complete_jobs(ARRAY[%s::bigint], ARRAY[%s::bigint], ARRAY['\"sent\"'::jsonb])",
        job_id,
        token,
    )
    done = get(scheduler)
    assert (done.status, done.result, done.last_run) == (JobStatus.SCHEDULED, "sent", running.last_run)
    [completed] = scheduler.get_jobs_by_status(JobStatus.COMPLETED)
    assert (completed.job_id, completed.is_recurring, completed.id) == ("daily_report", True, job_id)
    assert site.rows("SELECT job_name, status FROM reconciler.cron_execution_log") == [
        ("daily_report", "succeeded")
    ]


def test_a_run_that_failed_can_be_retried(site: Site, scheduler: Scheduler) -> None:
    """The job itself stays scheduled; its last run stands among the failed ones until it is done."""
    daily(scheduler)
    fire(site)
    fail(site)
    job_now = get(scheduler)
    assert (job_now.status, job_now.last_error) == (JobStatus.SCHEDULED, "it broke")
    assert [one.job_id for one in scheduler.get_jobs_by_status(JobStatus.FAILED)] == ["daily_report"]
    assert scheduler.retry_job("daily_report")
    assert scheduler.get_jobs_by_status(JobStatus.FAILED) == []
    complete(site)
    assert not scheduler.retry_job("daily_report")
    assert len(scheduler.get_jobs_by_status(JobStatus.COMPLETED)) == 1


def test_a_failed_run_is_tried_again_as_the_config_says(site: Site, scheduler: Scheduler) -> None:
    """By the queue: a retry counts."""
    daily(scheduler)
    fire(site)
    job_id, token = claim(site)
    assert site.rows("SELECT max_attempts, attempts FROM reconciler.jobs") == [(None, 1)]
    assert site.rows("SELECT reconciler.fail_job(%s, %s, 'it broke')", job_id, token) == [("pending",)]
    assert get(scheduler).status is JobStatus.SCHEDULED
    assert scheduler.get_jobs_by_status(JobStatus.FAILED) == []


def test_a_cancelled_recurring_job_is_gone(site: Site, scheduler: Scheduler) -> None:
    """Its entry, and what waits of it; that it was cancelled is remembered like that of other jobs."""
    daily(scheduler, kind="weekly", job_type=JobType.SMS)
    daily(scheduler, job_id="other")
    fire(site)
    assert scheduler.cancel_job("daily_report")
    assert site.rows("SELECT jobname::text FROM cron.job WHERE command LIKE '%%run_job%%'") == [("other",)]
    assert site.rows("SELECT status FROM reconciler.jobs") == [("cancelled",), ("cancelled",)]
    found = get(scheduler)
    assert (found.status, found.next_run, found.metadata) == (JobStatus.CANCELLED, None, {"kind": "weekly"})
    assert found.job_type is JobType.SMS
    assert "daily_report" in {one.job_id for one in scheduler.get_jobs_by_status(JobStatus.CANCELLED)}
    assert [one.job_id for one in scheduler.get_jobs_by_status(JobStatus.SCHEDULED)] == ["other"]
    assert not scheduler.cancel_job("daily_report")
    assert daily(scheduler).status is JobStatus.SCHEDULED
    assert site.entry("daily_report")["active"]


def test_a_run_that_goes_on_is_told_that_its_job_is_cancelled(site: Site, scheduler: Scheduler) -> None:
    """Its function ends by itself, or is cancelled."""
    daily(scheduler)
    fire(site)
    claim(site)
    assert scheduler.cancel_job("daily_report")
    assert site.rows("SELECT status, cancelled_by FROM reconciler.jobs_open") == [("running", "postgres")]
    with pytest.raises(RefusedError, match="daily_report runs just now"):
        scheduler.schedule_one_time_job(report, datetime(2024, 1, 1, tzinfo=UTC), "daily_report")


def test_an_id_is_one_job(site: Site, scheduler: Scheduler) -> None:
    """Either a one-time job or a recurring one."""
    daily(scheduler)
    scheduler.schedule_one_time_job(report, SOON, "once")
    before = site.everything()
    with pytest.raises(RefusedError, match="daily_report is a recurring job"):
        scheduler.schedule_one_time_job(report, SOON, "daily_report")
    with pytest.raises(RefusedError, match="once is a one-time job that is pending"):
        daily(scheduler, job_id="once")
    assert site.everything() == before
    scheduler.cancel_job("once")
    daily(scheduler, job_id="once")
    scheduler.cancel_job("daily_report")
    assert scheduler.schedule_one_time_job(report, SOON, "daily_report").status is JobStatus.SCHEDULED


def test_once_is_a_one_time_job(site: Site, scheduler: Scheduler) -> None:
    """Whose time is its run_date."""
    made = scheduler.schedule_recurring(report, TriggerType.ONCE, "task", run_date=SOON, kind="last")
    assert (made.is_recurring, made.next_run, made.metadata) == (False, SOON, {"kind": "last"})
    assert site.rows("SELECT count(*) FROM reconciler.definitions WHERE kind = 'job' AND name = 'task'") == [
        (0,)
    ]
    with pytest.raises(InvalidInputError, match="run_date is missing"):
        scheduler.schedule_recurring(report, TriggerType.ONCE, "task")


def test_any_zone_is_right(site: Site) -> None:
    """Also one that pg_cron does not read times in; an interval has no zone."""
    oslo = Scheduler(site.dsn, timezone="Europe/Oslo")
    by_expression = {"trigger_type": TriggerType.CRON, "hour": None, "cron_expression": "0 8 * * *"}
    for job_id, times in (("at_eight", {"hour": 8}), ("by_expression", by_expression)):
        made = daily(oslo, job_id=job_id, **times)
        assert made.next_run is not None
        assert made.next_run.astimezone(ZoneInfo("Europe/Oslo")).hour == 8
        assert site.entry(job_id)["schedule"] == "0 6,7 * * *"
    oslo.schedule_recurring(report, TriggerType.INTERVAL, "often", interval=60)
    assert site.entry("often")["schedule"] == "* * * * *"
    if site.database.server.pg_cron >= (1, 5, 0):
        daily(oslo, job_id="seconds", **by_expression | {"cron_expression": "30 seconds"})
        assert site.entry("seconds")["schedule"] == "30 seconds"


def test_the_zone_of_pg_cron_may_be_another(site: Site) -> None:
    """From 1.5 on; then a time is in that zone."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("before pg_cron 1.5 its zone is GMT")
    site.database.server.set_server_settings(cron__timezone="Europe/Oslo")
    made = daily(Scheduler(site.dsn, timezone="Europe/Oslo"))
    assert made.next_run is not None
    assert made.next_run.astimezone(UTC).hour in {6, 7}
    there = daily(Scheduler(site.dsn), job_id="in_utc")
    assert there.next_run is not None
    assert there.next_run.astimezone(UTC).hour == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"job_id": "Daily Report"}, "'Daily Report' is no name|a name is"),
        ({"job_id": "reconciler-x"}, "the tool's own"),
        ({"job_id": ""}, "job_id is ''"),
        ({"trigger_type": "daily"}, "give a TriggerType"),
        ({"hour": 25}, "hour is 25"),
        ({"hours": 3}, "for it: got an unexpected keyword argument 'hours'"),
        ({"func": lambda: 1}, "is a lambda"),
        ({"kind": {1}}, "JSON cannot hold"),
        ({"trigger_type": TriggerType.INTERVAL, "hour": None, "interval": 90}, "whole minutes"),
        ({"trigger_type": TriggerType.CRON, "hour": None, "cron_expression": "0 8 *"}, "the schedule '0 8 "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(
    site: Site, scheduler: Scheduler, arguments: dict[str, Any], message: str
) -> None:
    """With what to do, and nothing is scheduled."""
    daily(scheduler)
    before = site.everything()
    with pytest.raises((InvalidInputError, RefusedError), match=message):
        daily(scheduler, **{"job_id": "another", **arguments})
    assert site.everything() == before


def test_what_others_declared_is_left_alone(site: Site, scheduler: Scheduler) -> None:
    """Jobs of spec files and of other registries are neither taken over nor shown nor cancelled."""
    theirs = job("theirs", handler="work.do", queue="scheduler")
    site.apply(theirs)
    Registry(site.database.connect()).register_job("registered", NEVER, report)
    with pytest.raises(RefusedError, match="belongs to the owner shop"):
        daily(scheduler, job_id="theirs")
    for name in ("theirs", "registered"):
        assert scheduler.get_job(name) is None
        assert not scheduler.cancel_job(name)
        assert site.entry(name)["active"]
    assert scheduler.get_jobs_by_status(JobStatus.SCHEDULED) == []
    daily(scheduler)
    assert site.changes(theirs, prune="auto") == []
