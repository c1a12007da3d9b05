"""The Scheduler's one-time jobs and reminders: rows of the jobs table, each under its id."""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.queries import load_queries
from reconciler.errors import DatabaseError, InvalidInputError, RefusedError, RightsError
from reconciler.runtime import JobStatus, JobType, Scheduler, SchedulerConfig, SchedulerJob, TriggerType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.declared import Site

pytestmark = pytest.mark.one_server


SOON = datetime(2099, 1, 2, 3, 4, tzinfo=UTC)
LATER = SOON + timedelta(days=1)
PAST = datetime(2024, 3, 1, 14, 0, tzinfo=UTC)


def greet(name: str = "you") -> str:
    """Do something that can be seen."""
    return f"hello {name}"


async def send_reminder(event_id: str, message: str = "") -> str:
    """Do what the seed's example does."""
    return f"{event_id}: {message}"


def remind_of_time(event_id: str, event_time: str, minutes_before: float) -> tuple[str, str, float]:
    """Want to know everything."""
    return event_id, event_time, minutes_before


@pytest.fixture
def scheduler(site: Site) -> Scheduler:
    """A scheduler of whose jobs none is done unless a test does it."""
    return Scheduler(site.dsn)


def claim(site: Site) -> list[tuple[int, int]]:
    """Claim all that is due as a worker does; return ids and tokens."""
    return site.rows("SELECT id, token FROM reconciler.claim_jobs('scheduler', 'w', 100) ORDER BY id")


def complete(site: Site) -> None:
    """Do all that is due."""
    for job_id, token in claim(site):
        assert site.rows(
            "SELECT reconciler.complete_jobs(ARRAY[%s::bigint], ARRAY[%s::bigint], ARRAY['\"done\"'::jsonb])",
            job_id,
            token,
        )


def fail(site: Site, *, final: bool = False) -> list[tuple[str]]:
    """Let all fail that is due; return what became of it."""
    return [
        site.rows(
            "SELECT reconciler.fail_job(%s, %s, 'it broke', interval '1 hour', %s)", job_id, token, final
        )[0]
        for job_id, token in claim(site)
    ]


def rows(site: Site) -> list[tuple[Any, ...]]:
    """Return key, status and time of all queued jobs, oldest first."""
    return site.rows("SELECT unique_key, status, run_at FROM reconciler.jobs ORDER BY id")


def get(scheduler: Scheduler, job_id: str) -> SchedulerJob:
    """Return a job that has to be there."""
    job = scheduler.get_job(job_id)
    assert job is not None
    return job


def test_a_one_time_job_is_a_row(site: Site, scheduler: Scheduler) -> None:
    """Under its id on the queue of the scheduler, and it reads as the seed's table did."""
    made = scheduler.schedule_one_time_job(greet, SOON, "task", job_type=JobType.EMAIL, name="anna")
    assert site.rows(
        "SELECT queue, unique_key, handler, payload, type, status, run_at FROM reconciler.jobs"
    ) == [("scheduler", "task", f"{__name__}:greet", {"name": "anna"}, "email", "pending", SOON)]
    assert made == scheduler.get_job("task")
    assert (made.job_id, made.job_type, made.status) == ("task", JobType.EMAIL, JobStatus.SCHEDULED)
    assert (made.run_date, made.next_run, made.last_run) == (SOON, SOON, None)
    assert (made.metadata, made.retry_count, made.max_retries) == ({"name": "anna"}, 0, 3)
    assert (made.is_recurring, made.func, made.result, made.last_error) == (
        False,
        f"{__name__}:greet",
        None,
        None,
    )
    assert made.created_at == made.updated_at
    complete(site)
    assert get(scheduler, "task").status is JobStatus.SCHEDULED


def test_a_naive_time_is_in_the_zone_of_the_scheduler(site: Site) -> None:
    """Which is UTC unless it was said."""
    naive = datetime(2099, 7, 1, 14, 0)  # noqa: DTZ001 - as people write it
    for scheduler, hour in ((Scheduler(site.dsn), 14), (Scheduler(site.dsn, timezone="Europe/Oslo"), 12)):
        job = scheduler.schedule_one_time_job(greet, naive, f"at {hour}")
        assert job.run_date == datetime(2099, 7, 1, hour, tzinfo=UTC)


def test_what_is_past_is_due_at_once(site: Site, scheduler: Scheduler) -> None:
    """It keeps its time, and is done."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    complete(site)
    job = get(scheduler, "task")
    assert (job.status, job.result, job.run_date, job.next_run) == (JobStatus.COMPLETED, "done", PAST, None)
    assert job.last_run is not None
    assert job.updated_at >= job.last_run


def test_the_same_again_is_the_same_job(site: Site, scheduler: Scheduler) -> None:
    """As when a program starts anew; another time, function or argument takes its place."""
    first = scheduler.schedule_one_time_job(greet, SOON, "task", name="anna")
    assert Scheduler(site.dsn).schedule_one_time_job(greet, SOON, "task", name="anna") == first
    assert len(rows(site)) == 1
    others: list[Callable[[], SchedulerJob]] = [
        lambda: scheduler.schedule_one_time_job(greet, LATER, "task", name="anna"),
        lambda: scheduler.schedule_one_time_job(greet, LATER, "task", name="bob"),
        lambda: scheduler.schedule_one_time_job(greet, LATER, "task", job_type=JobType.SMS, name="bob"),
        lambda: scheduler.schedule_one_time_job(send_reminder, LATER, "task", event_id="7"),
    ]
    for number, other in enumerate(others, start=2):
        job = other()
        assert job.id != first.id
        assert [status for _, status, _ in rows(site)] == ["cancelled"] * (number - 1) + ["pending"]
        assert scheduler.get_job("task") == job == other()


def test_what_is_done_is_not_done_again(site: Site, scheduler: Scheduler) -> None:
    """Not for a time after which it began, although retries moved its own; for a later one it is."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    assert fail(site) == [("pending",)]
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    complete(site)
    for at in (PAST, PAST + timedelta(days=1)):
        assert scheduler.schedule_one_time_job(greet, at, "task").status is JobStatus.COMPLETED
    assert len(rows(site)) == 1
    assert scheduler.schedule_one_time_job(greet, LATER, "task").status is JobStatus.SCHEDULED
    assert [status for _, status, _ in rows(site)] == ["completed", "pending"]
    assert get(scheduler, "task").next_run == LATER


def test_a_failed_job_is_not_done_again_by_itself(site: Site, scheduler: Scheduler) -> None:
    """A program that starts again and again does not try a dead job again and again: retry_job does."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    assert fail(site, final=True) == [("failed",)]
    job = scheduler.schedule_one_time_job(greet, PAST, "task")
    assert (job.status, job.last_error, job.next_run) == (JobStatus.FAILED, "it broke", None)
    assert len(rows(site)) == 1


def test_scheduling_again_does_not_disturb_retries(site: Site, scheduler: Scheduler) -> None:
    """A job between two tries waits on; with other arguments it begins anew."""
    scheduler.schedule_one_time_job(greet, PAST, "task", name="anna")
    assert fail(site) == [("pending",)]
    before = get(scheduler, "task")
    assert (before.status, before.retry_count, before.last_error) == (JobStatus.SCHEDULED, 1, "it broke")
    assert before.next_run is not None
    assert before.next_run > datetime.now(UTC)
    assert scheduler.schedule_one_time_job(greet, PAST, "task", name="anna") == before
    assert scheduler.schedule_one_time_job(greet, PAST, "task", name="bob").retry_count == 0
    assert scheduler.schedule_one_time_job(greet, LATER, "task", name="bob").next_run == LATER


def test_a_job_that_runs_is_not_replaced(site: Site, scheduler: Scheduler) -> None:
    """Scheduled for when it runs it is the same; for later it is refused, with what to do."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    assert len(claim(site)) == 1
    job = scheduler.schedule_one_time_job(greet, PAST, "task")
    assert (job.status, job.next_run, job.retry_count) == (JobStatus.RUNNING, None, 0)
    with pytest.raises(RefusedError, match="task runs just now") as caught:
        scheduler.schedule_one_time_job(greet, LATER, "task")
    assert "Snooze" in caught.value.remedy
    assert [status for _, status, _ in rows(site)] == ["running"]


def test_a_cancelled_job_can_be_scheduled_again(site: Site, scheduler: Scheduler) -> None:
    """Whoever schedules it once more wants it."""
    scheduler.schedule_one_time_job(greet, SOON, "task")
    assert scheduler.cancel_job("task")
    job = get(scheduler, "task")
    assert (job.status, job.next_run) == (JobStatus.CANCELLED, None)
    assert not scheduler.cancel_job("task")
    assert scheduler.schedule_one_time_job(greet, SOON, "task").status is JobStatus.SCHEDULED
    assert [status for _, status, _ in rows(site)] == ["cancelled", "pending"]


def test_a_running_job_is_told_that_it_is_cancelled(site: Site, scheduler: Scheduler) -> None:
    """Its worker ends it; what is over, or never was, is not cancelled."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    claim(site)
    assert scheduler.cancel_job("task")
    assert site.rows("SELECT status, cancelled_by FROM reconciler.jobs") == [("running", "postgres")]
    site.run("SELECT reconciler.end_cancelled_job(id, token, 'cancelled') FROM reconciler.jobs")
    assert get(scheduler, "task").status is JobStatus.CANCELLED
    assert not scheduler.cancel_job("task")
    assert not scheduler.cancel_job("nothing")


def test_jobs_are_listed_by_status(site: Site, scheduler: Scheduler) -> None:
    """Each status has its own; jobs of others are in none."""
    scheduler.schedule_one_time_job(greet, LATER, "last")
    site.run("SELECT reconciler.enqueue('theirs', queue => 'other', unique_key => 'theirs')")
    scheduler.schedule_one_time_job(greet, PAST, "failed")
    fail(site, final=True)
    scheduler.schedule_one_time_job(greet, PAST, "completed")
    complete(site)
    scheduler.schedule_one_time_job(greet, PAST, "running")
    claim(site)
    scheduler.schedule_one_time_job(greet, SOON, "cancelled")
    scheduler.cancel_job("cancelled")
    scheduler.schedule_one_time_job(greet, SOON, "first")
    site.run("SELECT reconciler.enqueue('by hand', queue => 'scheduler')")
    found = {status: scheduler.get_jobs_by_status(status) for status in JobStatus}
    assert {status.value: [job.job_id for job in jobs] for status, jobs in found.items()} == {
        "scheduled": ["first", "last"],
        "running": ["running"],
        "completed": ["completed"],
        "failed": ["failed"],
        "cancelled": ["cancelled"],
    }
    for status, jobs in found.items():
        for job in jobs:
            assert job.status is status
            assert scheduler.get_job(job.job_id) == job


def test_a_dead_job_is_retried(site: Site, scheduler: Scheduler) -> None:
    """From the beginning; what is done, waits, or is not there, is not."""
    scheduler.schedule_one_time_job(greet, PAST, "task")
    assert not scheduler.retry_job("task")
    fail(site, final=True)
    assert scheduler.retry_job("task")
    job = get(scheduler, "task")
    assert (job.status, job.retry_count) == (JobStatus.SCHEDULED, 0)
    complete(site)
    assert not scheduler.retry_job("task")
    assert not scheduler.retry_job("nothing")
    assert [status for _, status, _ in rows(site)] == ["completed"]


def test_a_reminder_comes_before_its_event(site: Site, scheduler: Scheduler) -> None:
    """By so many minutes, with the event's id; several reminders of one event have ids of their own."""
    job = scheduler.schedule_reminder(
        event_id="123",
        event_time=SOON,
        notification_func=send_reminder,
        minutes_before=15,
        message="Don't forget your meeting!",
    )
    assert job is not None
    assert (job.job_id, job.job_type) == ("reminder:123:15", JobType.EVENT_REMINDER)
    assert job.next_run == SOON - timedelta(minutes=15)
    assert job.metadata == {"event_id": "123", "message": "Don't forget your meeting!"}
    other = scheduler.schedule_reminder("123", SOON, remind_of_time, minutes_before=60)
    assert other is not None
    assert other.metadata == {"event_id": "123", "event_time": SOON.isoformat(), "minutes_before": 60}
    named = scheduler.schedule_reminder("123", SOON, send_reminder, job_id="mine")
    assert named is not None
    assert [key for key, _, _ in rows(site)] == ["reminder:123:15", "reminder:123:60", "mine"]


def test_a_reminder_moves_with_its_event(site: Site, scheduler: Scheduler) -> None:
    """Into the past, too: then it is over, and nobody is reminded of it."""
    scheduler.schedule_reminder("123", SOON, send_reminder, 15)
    scheduler.schedule_reminder("123", LATER, send_reminder, 15)
    assert [row[1:] for row in rows(site)] == [
        ("cancelled", SOON - timedelta(minutes=15)),
        ("pending", LATER - timedelta(minutes=15)),
    ]
    assert scheduler.schedule_reminder("123", PAST, send_reminder, 15) is None
    assert {status for _, status, _ in rows(site)} == {"cancelled"}


def test_a_reminder_that_is_late_comes_at_once(site: Site, scheduler: Scheduler) -> None:
    """Its event is still to come; scheduled again, it is not sent again."""
    soon = datetime.now(UTC) + timedelta(minutes=10)
    assert scheduler.schedule_reminder("123", soon, send_reminder, 15) is not None
    complete(site)
    job = scheduler.schedule_reminder("123", soon, send_reminder, 15)
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    assert scheduler.schedule_reminder("7", PAST, send_reminder, 15) is None
    assert len(rows(site)) == 1


def test_the_settings_are_those_of_its_queue(site: Site) -> None:
    """The last scheduler that starts says what they are."""
    Scheduler(site.dsn, SchedulerConfig(retry_failed_jobs=False, cleanup_after_days=2), concurrency=0).start()
    settings = "SELECT max_attempts, retention, keep_failed FROM reconciler.queues WHERE name = 'scheduler'"
    assert site.rows(settings) == [(1, timedelta(days=2), timedelta(days=2))]
    scheduler = Scheduler(site.dsn, SchedulerConfig(max_retries=5), concurrency=0)
    scheduler.start()
    assert site.rows(settings) == [(6, timedelta(days=7), timedelta(days=7))]
    assert scheduler.schedule_one_time_job(greet, SOON, "task").max_retries == 5


def test_what_is_over_is_cleaned_up(site: Site) -> None:
    """By the tick, after so many days, also what failed; and there is a tick."""
    scheduler = Scheduler(site.dsn, SchedulerConfig(cleanup_after_days=2), concurrency=0)
    scheduler.start()
    assert site.rows("SELECT count(*) FROM cron.job WHERE jobname = 'reconciler-tick'") == [(1,)]
    for name in ("failed", "kept", "completed"):
        scheduler.schedule_one_time_job(greet, PAST, name)
        if name == "failed":
            fail(site, final=True)
        complete(site)
    site.run(
        "UPDATE reconciler.jobs SET completed_at = completed_at - interval '49 hours'"
        " WHERE unique_key <> 'kept'"
    )
    site.run("CALL reconciler.tick()")
    assert [key for key, _, _ in rows(site)] == ["kept"]
    assert scheduler.get_job("completed") is None


def test_one_time_jobs_belong_to_the_callers_transaction(site: Site, scheduler: Scheduler) -> None:
    """Rolled back, they are gone; what declares something is refused there."""
    conn = site.database.connect(autocommit=False)
    within = Scheduler(conn)
    conn.execute("SELECT 1")
    with pytest.raises(DatabaseError, match="the queue scheduler cannot be declared, call start"):
        within.schedule_one_time_job(greet, SOON, "task")
    conn.rollback()
    within.schedule_one_time_job(greet, SOON, "declared")
    conn.execute("SELECT 1")
    assert within.schedule_one_time_job(greet, SOON, "task").status is JobStatus.SCHEDULED
    assert scheduler.get_job("task") is None
    with pytest.raises(DatabaseError, match="has an open transaction"):
        within.schedule_recurring(greet, TriggerType.DAILY, "daily", hour=8)
    conn.rollback()
    assert [key for key, _, _ in rows(site)] == ["declared"]
    within.schedule_one_time_job(greet, SOON, "task")
    conn.commit()
    assert get(scheduler, "task").status is JobStatus.SCHEDULED
    within.shutdown()
    assert not conn.closed
    other = Scheduler(site.database.connect(autocommit=False))
    with other._kept.use() as opened:
        opened.execute("SELECT 1")
        other.schedule_one_time_job(greet, SOON, "declared by others")
        opened.commit()


def test_a_lost_connection_is_opened_again(site: Site, scheduler: Scheduler) -> None:
    """A server that was restarted meanwhile costs no call."""
    scheduler.schedule_one_time_job(greet, SOON, "task")
    site.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'reconciler' AND pid <> pg_backend_pid()"
    )
    assert get(scheduler, "task").status is JobStatus.SCHEDULED


def test_a_forked_process_has_a_connection_of_its_own(scheduler: Scheduler) -> None:
    """Both go on."""
    scheduler.schedule_one_time_job(greet, SOON, "task")
    with scheduler._kept.use() as conn:
        parents = conn.info.backend_pid
    child = os.fork()
    if child == 0:  # pragma: no cover - not measured there
        code = 1
        try:
            scheduler.schedule_one_time_job(greet, SOON, "of the child")
            with scheduler._kept.use() as conn:
                code = int(conn.info.backend_pid == parents)
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert get(scheduler, "of the child").status is JobStatus.SCHEDULED


def test_many_schedule_one_job_at_once(site: Site) -> None:
    """As the processes of a program do when it starts: one of it is open."""
    failures: list[Exception] = []

    def start(number: int) -> None:
        try:
            scheduler = Scheduler(site.dsn)
            for moment in range(5):
                scheduler.schedule_one_time_job(greet, SOON, "same")
                scheduler.schedule_one_time_job(greet, SOON + timedelta(minutes=moment), "moved")
                scheduler.schedule_one_time_job(greet, SOON, f"own-{number}")
            scheduler.shutdown()
        except Exception as error:  # noqa: BLE001 - whatever it is
            failures.append(error)

    threads = [threading.Thread(target=start, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert site.rows("SELECT unique_key, count(*) FROM reconciler.jobs_open GROUP BY 1 ORDER BY 1") == [
        ("moved", 1),
        *((f"own-{number}", 1) for number in range(6)),
        ("same", 1),
    ]
    assert site.rows("SELECT count(*) FROM reconciler.jobs WHERE unique_key = 'same'") == [(1,)]


def test_threads_may_share_a_scheduler(site: Site, scheduler: Scheduler) -> None:
    """Each of its calls is a whole."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for moment in range(20):
                scheduler.schedule_one_time_job(greet, SOON, f"{number}-{moment}")
        except Exception as error:  # noqa: BLE001 - whatever it is
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert site.rows("SELECT count(*) FROM reconciler.jobs_open") == [(80,)]


def test_owners_have_queues_of_their_own(site: Site, scheduler: Scheduler) -> None:
    """One id is two jobs then; a queue that somebody else declared is refused."""
    billing = Scheduler(site.dsn, owner="billing")
    scheduler.schedule_one_time_job(greet, SOON, "task")
    assert billing.get_job("task") is None
    assert billing.get_jobs_by_status(JobStatus.SCHEDULED) == []
    billing.schedule_one_time_job(greet, SOON, "task")
    assert site.rows("SELECT queue FROM reconciler.jobs ORDER BY id") == [
        ("scheduler",),
        ("scheduler-billing",),
    ]
    with pytest.raises(RefusedError, match="belongs to the owner app"):
        Scheduler(site.dsn, owner="billing", queue="scheduler").schedule_one_time_job(greet, SOON, "a")


@pytest.mark.parametrize("job_id", ["key 6", "job 5", "nothing"])
def test_a_job_is_found_among_many(site: Site, scheduler: Scheduler, job_id: str) -> None:
    """By an index, with statistics and without: scheduling asks for it each time."""
    scheduler.start()
    scheduler.shutdown()
    site.run(
        "INSERT INTO reconciler.jobs (handler, queue, status, completed_at, unique_key, job_name)"
        " SELECT 'x', 'scheduler', 'completed', now() - g * interval '1 s',"
        " CASE g % 2 WHEN 0 THEN 'key ' || g END, CASE g % 2 WHEN 1 THEN 'job ' || g % 10 END"
        " FROM generate_series(1, 20000) AS g"
    )
    with site.database.connect() as conn:
        query = load_queries("scheduled")["find_latest"]
        for statement in ("SELECT 1", "ANALYZE reconciler.jobs"):
            conn.execute(statement)
            plan = conn.execute(
                "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + query, {"queue": "scheduler", "job_id": job_id}
            ).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert "Seq Scan on jobs_finished" not in text
            read = [int(rows) for rows in re.findall(r"on jobs_finished.*rows=(\d+)", text)]
            assert len(read) == 2
            assert sum(read) == (job_id != "nothing")


def test_nothing_is_made_by_reading(site: Site, scheduler: Scheduler) -> None:
    """On an empty database there is nothing to read."""
    assert scheduler.get_job("task") is None
    assert scheduler.get_jobs_by_status(JobStatus.SCHEDULED) == []
    assert not scheduler.cancel_job("task")
    assert not scheduler.retry_job("task")
    assert site.rows("SELECT to_regnamespace('reconciler') IS NULL") == [(True,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"func": lambda: 1}, "is a lambda"),
        ({"run_at": "tomorrow"}, "run_at is of the class str"),
        ({"job_id": ""}, "job_id is ''"),
        ({"job_id": 5}, "job_id is 5"),
        ({"job_id": "x" * 501}, "at most 500 characters|500"),
        ({"job_type": "email"}, "give a JobType"),
        ({"name": {1, 2}}, "JSON cannot hold"),
        ({"nane": "anna"}, "cannot be called with what was given for it"),
        ({"name": "\0"}, "PostgreSQL cannot keep"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(
    site: Site, scheduler: Scheduler, arguments: dict[str, Any], message: str
) -> None:
    """With what to do, and nothing is scheduled."""
    scheduler.schedule_one_time_job(greet, SOON, "task")
    before = site.everything()
    with pytest.raises(InvalidInputError, match=message):
        scheduler.schedule_one_time_job(**{"func": greet, "run_at": SOON, "job_id": "a", **arguments})
    assert site.everything() == before


def test_a_scheduler_is_checked_when_it_is_made(site: Site) -> None:
    """Before anything is sent."""
    for wrong, message in (
        ({"timezone": "Mars"}, "no time zone 'Mars'"),
        ({"owner": "My App"}, "'scheduler-My App' is no name of a queue"),
        ({"concurrency": -1}, "concurrency is -1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Scheduler(site.dsn, **wrong)
    for minutes in (-1, "15", None, float("nan")):
        with pytest.raises(InvalidInputError, match="minutes_before is"):
            Scheduler(site.dsn).schedule_reminder("1", SOON, send_reminder, minutes)  # type: ignore[arg-type]


def test_a_role_without_rights_is_told_so(site: Site) -> None:
    """Before anything is changed."""
    site.run("CREATE ROLE bob LOGIN; GRANT USAGE ON SCHEMA cron TO bob")
    bob = Scheduler(site.database.dsn_for("bob"))
    with pytest.raises(RightsError, match="may not create the schema"):
        bob.schedule_one_time_job(greet, SOON, "task")
    bob.shutdown()
