"""The calls of the users' own scheduler, as they documented them, run for real on ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.runtime import JobStatus, JobType, Scheduler, SchedulerConfig, SchedulerJob, TriggerType
from tests.declared import Site
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Database

pytestmark = pytest.mark.one_server

sent: list[str] = []
gate = threading.Event()


async def send_reminder(event_id: str, message: str) -> str:
    """Remind somebody of an event."""
    sent.append(f"{event_id}: {message}")
    return "sent"


def your_function() -> str:
    """Do what is to be done."""
    return "done"


def unreliable_function() -> str:
    """Fail for the first time."""
    sent.append("tried")
    if len(sent) == 1:
        raise RuntimeError("not yet")
    return "done"


def long_function() -> str:
    """Go on until the test is over."""
    gate.wait(20)
    return "done"


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    """An empty database, seen by its superuser."""
    sent.clear()
    gate.clear()
    yield Site(database)
    gate.set()


def wait_for(scheduler: Scheduler, status: JobStatus, job_id: str) -> SchedulerJob:
    """Wait until a job is among those of a status, and return it."""
    found: list[SchedulerJob] = []

    def is_there() -> bool:
        found[:] = [job for job in scheduler.get_jobs_by_status(status) if job.job_id == job_id]
        return bool(found)

    wait_until(is_there, seconds=15, what=f"{job_id} is {status.value}")
    return found[0]


def test_a_reminder_is_sent_before_its_event(site: Site) -> None:
    """With the keywords that were given for it; an event that is over reminds nobody."""
    with Scheduler(site.dsn) as scheduler:
        reminder = scheduler.schedule_reminder(
            event_id="123",
            event_time=datetime.now(UTC) + timedelta(minutes=15, seconds=1),
            notification_func=send_reminder,
            minutes_before=15,
            message="Don't forget your meeting!",
        )
        assert reminder is not None
        assert (reminder.status, reminder.job_type) == (JobStatus.SCHEDULED, JobType.EVENT_REMINDER)
        assert sent == []
        done = wait_for(scheduler, JobStatus.COMPLETED, reminder.job_id)
        assert sent == ["123: Don't forget your meeting!"]
        assert (done.result, done.retry_count) == ("sent", 0)
        assert done.last_run is not None
        assert done.last_run >= reminder.run_date  # type: ignore[operator]
        over = scheduler.schedule_reminder(
            event_id="123",
            event_time=datetime(2024, 3, 1, 14, 0),  # noqa: DTZ001 - as it was documented
            notification_func=send_reminder,
            minutes_before=15,
            message="Don't forget your meeting!",
        )
        assert over is None


def test_a_recurring_job_is_run_by_pg_cron(site: Site) -> None:
    """Its entry has the time; what pg_cron calls then gets the function called by the worker."""
    with Scheduler(site.dsn) as scheduler:
        job = scheduler.schedule_recurring(
            func=your_function,
            trigger_type=TriggerType.DAILY,
            job_id="daily_report",
            run_date=datetime.now(),  # noqa: DTZ005 - as it was documented
            hour=8,
            minute=0,
        )
        entry = site.entry("daily_report")
        assert (entry["schedule"], entry["active"]) == ("0 8 * * *", True)
        assert job.next_run is not None
        assert (job.next_run.astimezone(UTC).hour, job.next_run.minute) == (8, 0)
        site.run("CALL reconciler.run_job('daily_report')")
        assert wait_for(scheduler, JobStatus.COMPLETED, "daily_report").result == "done"
        assert site.rows("SELECT job_name, status FROM reconciler.cron_execution_log") == [
            ("daily_report", "succeeded")
        ]
        found = scheduler.get_job("daily_report")
        assert found is not None
        assert (found.status, found.result) == (JobStatus.SCHEDULED, "done")


@pytest.mark.parametrize("trigger", list(TriggerType))
def test_every_trigger_type_can_be_scheduled(site: Site, trigger: TriggerType) -> None:
    """Once is a row of the jobs table, all others are entries of pg_cron."""
    times: dict[TriggerType, dict[str, Any]] = {
        TriggerType.ONCE: {"run_date": datetime(2099, 1, 1, 8, tzinfo=UTC)},
        TriggerType.DAILY: {"hour": 8, "minute": 0},
        TriggerType.WEEKLY: {"day_of_week": "mon,wed,fri", "hour": 8},
        TriggerType.MONTHLY: {"day": 1, "hour": 8},
        TriggerType.INTERVAL: {"interval": timedelta(minutes=30)},
        TriggerType.CRON: {"cron_expression": "*/15 9-17 * * 1-5"},
    }
    scheduler = Scheduler(site.dsn)
    job = scheduler.schedule_recurring(your_function, trigger, "some_job", **times[trigger])
    assert job.status is JobStatus.SCHEDULED
    assert job.next_run is not None
    entries: LiteralString = "SELECT count(*) FROM cron.job WHERE jobname = 'some_job'"
    rows: LiteralString = "SELECT count(*) FROM reconciler.jobs"
    is_once = trigger is TriggerType.ONCE
    assert (site.rows(entries), site.rows(rows)) == ([(int(not is_once),)], [(int(is_once),)])


def test_a_one_time_job_runs_once(site: Site) -> None:
    """At its time; scheduled again as when the program starts anew, it is not run again."""
    with Scheduler(site.dsn) as scheduler:
        for _ in range(2):
            scheduler.schedule_one_time_job(
                func=your_function,
                run_at=datetime(2024, 3, 1, 14, 0),  # noqa: DTZ001 - as it was documented
                job_id="one_time_task",
            )
            assert wait_for(scheduler, JobStatus.COMPLETED, "one_time_task").result == "done"
    assert site.rows("SELECT status, attempts FROM reconciler.jobs") == [("completed", 1)]


def test_each_status_has_its_jobs(site: Site) -> None:
    """Scheduled, running, completed, failed, cancelled; a failed job can be retried."""
    past, later = datetime(2024, 3, 1, tzinfo=UTC), datetime(2099, 3, 1, tzinfo=UTC)
    config = SchedulerConfig(retry_failed_jobs=False)
    with Scheduler(site.dsn, config=config) as scheduler:
        scheduler.schedule_one_time_job(your_function, later, "scheduled")
        scheduler.schedule_one_time_job(long_function, past, "running")
        scheduler.schedule_one_time_job(your_function, past, "completed")
        scheduler.schedule_one_time_job(unreliable_function, past, "failed")
        scheduler.schedule_one_time_job(your_function, later, "cancelled")
        assert scheduler.cancel_job("cancelled")
        jobs = {status: wait_for(scheduler, status, status.value) for status in JobStatus}
        for status, job in jobs.items():
            assert scheduler.get_job(status.value) == job
            assert [one.job_id for one in scheduler.get_jobs_by_status(status)] == [status.value]
        failed_jobs = scheduler.get_jobs_by_status(JobStatus.FAILED)
        assert str(failed_jobs[0].last_error).startswith("RuntimeError: not yet")
        assert scheduler.retry_job("failed")
        assert wait_for(scheduler, JobStatus.COMPLETED, "failed").result == "done"
        assert scheduler.cancel_job("running")
        gate.set()


def test_the_configuration_is_kept_in_the_database(site: Site) -> None:
    """As the settings of the queue."""
    config = SchedulerConfig(
        retry_failed_jobs=True, max_retries=3, store_job_results=True, cleanup_after_days=7
    )
    with Scheduler(site.dsn, config=config) as scheduler:
        job = scheduler.schedule_one_time_job(your_function, datetime(2024, 3, 1, tzinfo=UTC), "a")
        assert job.max_retries == 3
    assert site.rows("SELECT name, max_attempts, retention FROM reconciler.queues") == [
        ("scheduler", 4, timedelta(days=7))
    ]


APP = """
    import os, sys
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from reconciler.runtime import Scheduler, TriggerType

    scheduler = Scheduler(os.environ["DATABASE_URL"])
    handlers = scheduler.handlers

    async def send_reminder(event_id: str, message: str) -> int:
        with Path("sent.txt").open("a") as file:
            file.write(f"{event_id}: {message}\\n")
        return os.getpid()

    def report() -> int:
        return os.getpid()

    @scheduler.job("mail.welcome")
    def welcome(name: str) -> str:
        return f"welcome {name}"
"""
SCHEDULE = """
    from app import *
    event_time = datetime.now(UTC) + timedelta(minutes=5)
    scheduler.schedule_reminder("123", event_time, send_reminder, minutes_before=15, message="hello")
    scheduler.schedule_recurring(report, TriggerType.DAILY, "daily_report", hour=8)
    scheduler.schedule_one_time_job(welcome, datetime.now(UTC), "welcome", name="Anna")
    print(os.getpid())
"""
WORK = """
    import time
    from reconciler.runtime import JobStatus
    from app import *
    with scheduler:
        while len(scheduler.get_jobs_by_status(JobStatus.COMPLETED)) < 3:
            time.sleep(0.05)
    print(os.getpid())
"""


def run(site: Site, folder: Path, *command: str) -> str:
    """Run a program of the app's folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": site.dsn, "PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("worker", ["scheduler", "command"])
def test_everything_goes_on_after_a_restart(site: Site, tmp_path: Path, worker: str) -> None:
    """One process schedules and ends; another does it, which may be `reconciler worker`."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    first = run(site, tmp_path, "-c", textwrap.dedent(SCHEDULE))
    site.run("CALL reconciler.run_job('daily_report')")
    assert {row[0] for row in site.rows("SELECT status FROM reconciler.jobs")} == {"pending"}
    if worker == "scheduler":
        second = run(site, tmp_path, "-c", textwrap.dedent(WORK))
        assert second != first
    else:
        options = ("--dsn", site.dsn, "--queue", "scheduler", "--app", "app", "--drain")
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", "worker", *options],
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": site.dsn, "PYTHONPATH": str(tmp_path)},
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "sent.txt").read_text() == "123: hello\n"
    assert site.rows("SELECT DISTINCT status FROM reconciler.jobs") == [("completed",)]
    results = dict(site.rows("SELECT coalesce(job_name, unique_key), result FROM reconciler.jobs"))
    assert results["welcome"] == "welcome Anna"
    assert results["reminder:123:15"] == results["daily_report"] != int(first)
    run(site, tmp_path, "-c", textwrap.dedent(SCHEDULE))
    assert len(site.rows("SELECT FROM reconciler.jobs WHERE handler = 'app:send_reminder'")) == 1
