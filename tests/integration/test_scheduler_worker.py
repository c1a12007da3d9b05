"""The worker of a Scheduler: jobs are done in a thread, or in the program's own event loop."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler.runtime import JobStatus, Scheduler, SchedulerConfig, SchedulerJob, TriggerType
from reconciler.runtime.handlers import Job  # noqa: TC001 - a parameter's annotation
from tests.declared import Site
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Database

pytestmark = pytest.mark.one_server


WORKERS = "SELECT count(*) FROM reconciler.pull_workers"
seen: list[Any] = []
"""What the functions below noted, in this process."""
gate = threading.Event()
current: list[Scheduler] = []


def where() -> str:
    """Tell in which thread it is called."""
    return threading.current_thread().name


async def where_async() -> str:
    """Tell in which thread it is awaited, and note the loop."""
    await asyncio.sleep(0)
    seen.append(asyncio.get_running_loop())
    return threading.current_thread().name


def describe(job: Job, kind: str) -> list[Any]:
    """Tell what it knows of its try."""
    return [job.attempt, job.queue, job.type, kind]


def slow() -> str:
    """Wait until the test lets it go on."""
    seen.append("begun")
    assert gate.wait(10)
    return "done"


def fail_once() -> int:
    """Fail for the first time."""
    seen.append("tried")
    if len(seen) == 1:
        raise ValueError("it broke")
    return len(seen)


def schedule_another() -> str:
    """Use the scheduler within one of its jobs."""
    current[0].schedule_one_time_job(where, datetime.now(UTC), "another")
    return "scheduled"


def shut_down() -> None:
    """End the scheduler within one of its jobs."""
    seen.append("shut down")
    current[0].shutdown()


async def shut_down_async() -> None:
    """Do the same in an event loop."""
    seen.append("shut down")
    await current[0].shutdown_async()


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    """An empty database, seen by its superuser."""
    seen.clear()
    current.clear()
    gate.clear()
    yield Site(database)
    gate.set()


def now(scheduler: Scheduler, func: Any, job_id: str = "task", **arguments: Any) -> None:
    """Schedule a job that is due."""
    scheduler.schedule_one_time_job(func, datetime.now(UTC) - timedelta(seconds=1), job_id, **arguments)


def wait_for(scheduler: Scheduler, status: JobStatus, job_id: str = "task") -> SchedulerJob:
    """Wait until a job has a status, and return it."""

    def has_status() -> bool:
        job = scheduler.get_job(job_id)
        return job is not None and job.status is status

    wait_until(has_status, seconds=15, what=f"{job_id} is {status.value}")
    job = scheduler.get_job(job_id)
    assert job is not None
    return job


def test_jobs_are_done_in_threads_of_their_own(site: Site) -> None:
    """Functions in one each, coroutines in that of the worker; the caller's goes on."""
    with Scheduler(site.dsn) as scheduler:
        assert scheduler.is_working
        now(scheduler, where, "function")
        now(scheduler, where_async, "coroutine")
        names = {wait_for(scheduler, JobStatus.COMPLETED, name).result for name in ("function", "coroutine")}
    assert threading.current_thread().name not in names
    assert len(names) == 2
    assert "reconciler-scheduler" in names
    assert not scheduler.is_working
    assert site.rows(WORKERS) == [(0,)]


def test_coroutines_run_in_the_loop_of_the_program(site: Site) -> None:
    """What belongs to that loop can be used in them; it is not stopped meanwhile."""

    async def program() -> None:
        async with Scheduler(site.dsn) as scheduler:
            assert scheduler.is_working
            await asyncio.to_thread(now, scheduler, where_async)
            job = await asyncio.to_thread(wait_for, scheduler, JobStatus.COMPLETED)
            assert job.result == threading.current_thread().name
            assert seen == [asyncio.get_running_loop()]
        assert not scheduler.is_working

    asyncio.run(program())
    assert site.rows(WORKERS) == [(0,)]


def test_a_recurring_job_is_done(site: Site) -> None:
    """At its time, which is not waited for here; a function that wants its job gets it."""
    with Scheduler(site.dsn) as scheduler:
        scheduler.schedule_recurring(describe, TriggerType.DAILY, "daily", hour=8, kind="report")
        site.run("CALL reconciler.run_job('daily')")
        wait_until(
            lambda: bool(scheduler.get_jobs_by_status(JobStatus.COMPLETED)), seconds=15, what="it is done"
        )
        job = scheduler.get_job("daily")
    assert job is not None
    assert (job.status, job.result) == (JobStatus.SCHEDULED, [1, "scheduler", "custom", "report"])
    assert site.rows("SELECT status FROM reconciler.cron_execution_log") == [("succeeded",)]


def test_a_failed_job_is_tried_again_by_itself(site: Site) -> None:
    """After a wait, as often as the config says."""
    with Scheduler(site.dsn) as scheduler:
        now(scheduler, fail_once)
        wait_until(lambda: seen == ["tried"], seconds=15, what="it was tried")
        job = wait_for(scheduler, JobStatus.SCHEDULED)
        wait_until(
            lambda: scheduler.get_job("task") != job or job.retry_count == 1, seconds=5, what="it failed"
        )
        job = wait_for(scheduler, JobStatus.SCHEDULED)
        assert (job.retry_count, str(job.last_error).splitlines()[0]) == (1, "ValueError: it broke")
        site.run("UPDATE reconciler.jobs_open SET run_at = now()")
        job = wait_for(scheduler, JobStatus.COMPLETED)
        assert (job.retry_count, job.result) == (1, 2)


def test_without_retries_it_fails_at_once(site: Site) -> None:
    """And is done when somebody retries it; results are kept where that is wanted."""
    config = SchedulerConfig(retry_failed_jobs=False, store_job_results=False)
    with Scheduler(site.dsn, config) as scheduler:
        now(scheduler, fail_once)
        assert wait_for(scheduler, JobStatus.FAILED).max_retries == 0
        assert scheduler.retry_job("task")
        assert wait_for(scheduler, JobStatus.COMPLETED).result is None
    assert len(seen) == 2


def test_a_scheduler_may_leave_the_work_to_others(site: Site) -> None:
    """With a concurrency of 0 it declares what is needed, and does nothing."""
    with Scheduler(site.dsn, concurrency=0) as scheduler:
        assert not scheduler.is_working
        now(scheduler, where)
        assert site.rows(WORKERS) == [(0,)]
    assert site.rows("SELECT status FROM reconciler.jobs") == [("pending",)]


def test_it_is_started_once_and_can_be_started_again(site: Site) -> None:
    """A second start while it works does nothing."""
    scheduler = Scheduler(site.dsn)
    scheduler.shutdown()
    for name in ("first", "second"):
        scheduler.start()
        scheduler.start()
        now(scheduler, where, name)
        wait_for(scheduler, JobStatus.COMPLETED, name)
        assert site.rows(WORKERS) == [(1,)]
        scheduler.shutdown()
        scheduler.shutdown()
        assert site.rows(WORKERS) == [(0,)]


def test_shutdown_waits_for_what_runs(site: Site) -> None:
    """What has not begun is left to others."""
    scheduler = Scheduler(site.dsn, concurrency=1)
    scheduler.start()
    now(scheduler, slow)
    wait_until(lambda: seen == ["begun"], seconds=15, what="it has begun")
    now(scheduler, where, "waits")
    threading.Timer(0.3, gate.set).start()
    scheduler.shutdown()
    assert site.rows("SELECT unique_key, status FROM reconciler.jobs ORDER BY id") == [
        ("task", "completed"),
        ("waits", "pending"),
    ]


def test_a_job_may_use_its_scheduler(site: Site) -> None:
    """Also to schedule the next one."""
    with Scheduler(site.dsn) as scheduler:
        current.append(scheduler)
        now(scheduler, schedule_another)
        wait_for(scheduler, JobStatus.COMPLETED, "another")


@pytest.mark.parametrize("func", [shut_down, shut_down_async])
def test_a_job_may_end_its_scheduler(site: Site, func: Any) -> None:
    """It does not wait for itself, and is done; in a thread, and in the loop of the program."""
    scheduler = Scheduler(site.dsn)
    current.append(scheduler)
    scheduler.start()
    now(scheduler, func, "thread")
    wait_for(scheduler, JobStatus.COMPLETED, "thread")
    wait_until(lambda: not scheduler.is_working, seconds=5, what="the worker ends")

    async def program() -> None:
        await scheduler.start_async()
        await asyncio.to_thread(now, scheduler, func, "loop")
        await asyncio.to_thread(wait_for, scheduler, JobStatus.COMPLETED, "loop")
        await asyncio.to_thread(
            wait_until, lambda: not scheduler.is_working, seconds=5, what="the worker ends"
        )

    asyncio.run(program())
    assert seen == ["shut down", "shut down"]


def test_a_function_that_nobody_has_fails_its_job(site: Site) -> None:
    """And says so."""
    config = SchedulerConfig(retry_failed_jobs=False)
    with Scheduler(site.dsn, config) as scheduler:
        for handler in ("os:system", "mail.welcome"):
            site.run(
                "SELECT reconciler.enqueue(%s, '{\"command\": \"true\"}', 'scheduler', unique_key => %s)",
                handler,
                handler,
            )
            job = wait_for(scheduler, JobStatus.FAILED, handler)
            assert f"no handler is named {handler} in this worker" in str(job.last_error)


def test_a_worker_that_cannot_work_says_so(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The program goes on without it."""
    scheduler = Scheduler(site.dsn)
    now(scheduler, where)
    site.run("DROP FUNCTION reconciler.find_queue_settings")
    with caplog.at_level(logging.ERROR, "reconciler.scheduler"):
        scheduler.start()
        wait_until(lambda: not scheduler.is_working, seconds=15, what="it gave up")
    assert "no more jobs of the queue scheduler are done here" in caplog.text
    scheduler.shutdown()


def test_a_connection_tells_where_the_worker_connects(site: Site) -> None:
    """With its password, also over TCP; it stays open."""
    site.run("CREATE ROLE worker LOGIN SUPERUSER PASSWORD 'a b''c\\d'")
    with (
        psycopg.connect(site.database.dsn_for("worker", "a b'c\\d"), autocommit=True) as conn,
        Scheduler(conn) as scheduler,
    ):
        now(scheduler, where)
        wait_for(scheduler, JobStatus.COMPLETED)
        scheduler.shutdown()
        assert not conn.closed


PROGRAM = """
    import sys, time
    from datetime import UTC, datetime
    from reconciler.runtime import JobStatus, Scheduler

    scheduler = Scheduler(sys.argv[1])

    def slow() -> str:
        time.sleep(1)
        return "done"

    if __name__ == "__main__":
        scheduler.start()
        scheduler.schedule_one_time_job(slow, datetime(2024, 1, 1), "task")
        while not scheduler.get_jobs_by_status(JobStatus.RUNNING):
            time.sleep(0.05)
"""


def test_a_program_that_ends_lets_its_jobs_end(site: Site, tmp_path: Path) -> None:
    """Also where nobody calls shutdown; it does not stay for jobs to come."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    started_at = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py", site.dsn],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started_at < 20
    assert site.rows("SELECT status, result FROM reconciler.jobs") == [("completed", "done")]
    assert site.rows(WORKERS) == [(0,)]
