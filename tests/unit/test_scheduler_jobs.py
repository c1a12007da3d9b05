"""What the Scheduler shows of rows and recurring jobs, and when a job is the one that is there already."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.queued_jobs import NewJob, QueuedJob
from reconciler.core.scheduler_jobs import (
    JobStatus,
    JobType,
    RecurringJob,
    SchedulerConfig,
    is_same,
    show_recurring,
    show_row,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CONFIG = SchedulerConfig(max_retries=2)
NEW = NewJob("send", {"to": 7}, type="email")
ROW = QueuedJob(
    id=5,
    queue="scheduler",
    handler="send",
    payload={"to": 7},
    type="email",
    status="pending",
    run_at=NOON,
    priority=0,
    attempts=0,
    max_attempts=None,
    losses=0,
    unique_key="welcome",
    ordering_key=None,
    timeout=None,
    job_name=None,
    run_id=None,
    once=False,
    active=True,
    worker=None,
    lease_until=None,
    cancelled_by=None,
    result=None,
    last_error=None,
    created_at=NOON - MINUTE,
    started_at=None,
    completed_at=None,
)
TRIED = replace(ROW, attempts=2, started_at=NOON, run_at=NOON + MINUTE, last_error="no answer")
KNOWN = RecurringJob(
    name="digest",
    handler="send",
    payload='{"to": 7}',
    type="of our own",
    next_run_at=NOON + MINUTE,
    last_run_at=NOON - MINUTE,
    last_error="it rained",
    created_at=NOON - 3 * MINUTE,
    updated_at=NOON - 2 * MINUTE,
)


@pytest.mark.parametrize(
    ("row", "new", "at", "same"),
    [
        (ROW, NEW, NOON, True),
        (ROW, NEW, NOON + MINUTE, False),
        (ROW, replace(NEW, payload={"to": 8}), NOON, False),
        (ROW, replace(NEW, type="sms"), NOON, False),
        (replace(ROW, status="cancelled"), NEW, NOON, False),
        (replace(ROW, job_name="digest"), NEW, NOON, False),
        (TRIED, NEW, NOON, True),
        (TRIED, NEW, NOON + MINUTE, False),
        (TRIED, replace(NEW, handler="call"), NOON, False),
        (replace(TRIED, status="completed"), replace(NEW, handler="call"), NOON, True),
        (replace(TRIED, status="completed"), NEW, NOON + MINUTE, False),
    ],
)
def test_a_job_is_scheduled_once(row: QueuedJob, new: NewJob, at: datetime, same: bool) -> None:
    """What waits counts by what it is and when; what has begun, by when it did."""
    assert is_same(row, new, at) is same


def test_a_job_that_waits_is_shown() -> None:
    """Under the name that it was scheduled under, as not tried again yet."""
    shown = show_row(ROW, CONFIG)
    assert (shown.job_id, shown.job_type, shown.status) == ("welcome", JobType.EMAIL, JobStatus.SCHEDULED)
    assert (shown.next_run, shown.retry_count, shown.max_retries) == (NOON, 0, 2)
    assert (shown.is_recurring, shown.metadata, shown.updated_at) == (False, {"to": 7}, NOON - MINUTE)


def test_tries_are_counted_from_the_second_on() -> None:
    """While it waits for the next one, that counts already."""
    assert show_row(TRIED, CONFIG).retry_count == 2
    running = show_row(replace(TRIED, status="running"), CONFIG)
    assert (running.retry_count, running.next_run, running.updated_at) == (1, None, NOON)


def test_a_row_of_somebody_else_is_shown_too() -> None:
    """A kind that the Scheduler does not know, a payload that is no mapping, no name."""
    row = replace(ROW, type="odd", payload=[7], handler=None, unique_key=None, max_attempts=5)
    shown = show_row(row, CONFIG)
    assert (shown.job_id, shown.job_type, shown.metadata) == ("5", JobType.CUSTOM, {})
    assert (shown.func, shown.max_retries) == ("", 4)


def test_a_recurring_job_that_has_no_run_is_shown_as_it_is_declared() -> None:
    """What is remembered of runs that are gone stays."""
    shown = show_recurring(KNOWN, None, CONFIG)
    assert (shown.id, shown.status, shown.job_type) == (None, JobStatus.SCHEDULED, JobType.CUSTOM)
    assert (shown.last_run, shown.last_error, shown.next_run) == (
        KNOWN.last_run_at, "it rained", KNOWN.next_run_at,
    )  # fmt: skip
    assert (shown.metadata, shown.retry_count, shown.updated_at) == ({"to": 7}, 0, NOON - MINUTE)


def test_the_run_of_a_recurring_job_says_how_it_stands() -> None:
    """It runs while its run does, and what that run says holds."""
    row = replace(TRIED, status="running", job_name="digest", unique_key=None)
    shown = show_recurring(KNOWN, row, CONFIG)
    assert (shown.status, shown.id, shown.last_run) == (JobStatus.RUNNING, 5, NOON)
    assert (shown.last_error, shown.retry_count, shown.updated_at) == ("no answer", 1, NOON)
    over = show_recurring(KNOWN, replace(row, status="completed", result=1), CONFIG)
    assert (over.status, over.result) == (JobStatus.SCHEDULED, 1)
    waiting = show_recurring(KNOWN, replace(row, status="pending", started_at=None), CONFIG)
    assert waiting.last_run == KNOWN.last_run_at
