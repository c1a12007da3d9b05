"""Queued jobs as values: what is put on a queue, what is read of it, and what JSON can hold; pure."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from reconciler.core.payloads import find_payload_faults, is_text
from reconciler.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JobStatus = Literal["pending", "running", "completed", "failed", "cancelled"]
STATUSES: Final[tuple[JobStatus, ...]] = ("pending", "running", "completed", "failed", "cancelled")
"""Every status of a queued job."""
ASKED_STATUSES: Final = ("scheduled", *STATUSES)
"""What can be asked for: `scheduled` are those of the pending ones that are not due yet."""

_INTEGER: Final = 2**31
_LONGEST: Final = timedelta(days=3650)
_SHOWN: Final = 10
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be put on a queue.

    Attributes:
        handler: The name of the function that does it.
        payload: What that is called with, as JSON; None for nothing.
        queue: Where it waits.
        run_at: When it is due, aware; or how long from now, by the clock of the server. None for at once.
        priority: Higher ones first.
        unique_key: At most one open job of the queue has it.
        ordering_key: Open jobs of the queue with the same one are done one at a time, in order.
        max_attempts: How often it is tried; None for what the queue says.
        timeout: How long one try may take; None for what the queue says.
        type: A word of the user's own, to tell kinds of jobs apart.
    """

    handler: str
    payload: Any = field(default_factory=dict)
    _: KW_ONLY
    queue: str = "default"
    run_at: datetime | timedelta | None = None
    priority: int = 0
    unique_key: str | None = None
    ordering_key: str | None = None
    max_attempts: int | None = None
    timeout: timedelta | None = None
    type: str = "custom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """What became of a job that was to be queued.

    Attributes:
        id: Of the job; where its unique key was taken, of the open job that has it.
        created: Whether a job was made. False is a normal answer: one like it waits or runs already.
    """

    id: int
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A row of the jobs table.

    Attributes:
        id: Of the job.
        queue: Where it waits, or waited.
        handler: The function that does it; None for declared one-time work in SQL or HTTP.
        payload: JSON that it is called with.
        type: The user's word for its kind.
        status: pending, running, completed, failed or cancelled.
        run_at: When it is due, or was.
        priority: Higher ones first.
        attempts: How often it was tried.
        max_attempts: How often it may be tried; None for what the queue says.
        losses: How often a worker vanished with it.
        unique_key: At most one open job of the queue has it.
        ordering_key: Shared by those that are done one at a time, in order.
        timeout: How long one try may take; None for what the queue says.
        job_name: The declared job that it comes from.
        run_id: The run in `reconciler.cron_execution_log` that goes on until it is finished.
        once: Whether it is a declared one-time job.
        active: Whether it may be done.
        worker: Who claimed it last.
        lease_until: When that claim is over, unless it is renewed.
        cancelled_by: The role that wants, or wanted, it to end.
        result: JSON that the handler returned.
        last_error: Why the last try failed.
        created_at: When it was queued.
        started_at: When it was claimed last.
        completed_at: When it was finished.
    """

    id: int
    queue: str
    handler: str | None
    payload: Any
    type: str
    status: JobStatus
    run_at: datetime
    priority: int
    attempts: int
    max_attempts: int | None
    losses: int
    unique_key: str | None
    ordering_key: str | None
    timeout: timedelta | None
    job_name: str | None
    run_id: int | None
    once: bool
    active: bool
    worker: str | None
    lease_until: datetime | None
    cancelled_by: str | None
    result: Any
    last_error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    def is_scheduled(self, now: datetime) -> bool:
        """Tell whether it waits for its time.

        Args:
            now: The instant to compare with, by the clock of the server.
        """
        return self.status == "pending" and self.run_at > now

    @property
    def is_finished(self) -> bool:
        """Whether it is over: completed, failed for good, or cancelled."""
        return self.status not in {"pending", "running"}


def encode_jobs(jobs: Sequence[NewJob], now: datetime | None) -> str:
    """Encode jobs as `reconciler.enqueue_many` takes them.

    Args:
        jobs: To queue.
        now: What those count from that are due in some time, by the clock of the server; None where that is
            not known yet, to find what is wrong before anything is sent.

    Returns:
        A JSON array. Left out is what is as usual.

    Raises:
        InvalidInputError: Some of them cannot be queued; all that is wrong is named, each with its place.
    """
    texts: list[str] = []
    problems: list[str] = []
    for number, job in enumerate(jobs):
        place = f"jobs[{number}]." if len(jobs) > 1 else ""
        if not isinstance(job, NewJob):
            problems.append(f"jobs[{number}] is of the class {type(job).__name__}: make a NewJob of it")
            continue
        found = list(_find_problems(job, place))
        if not found:
            try:
                texts.append(_encode(job, now))
                continue
            except (TypeError, ValueError, RecursionError) as error:
                found = list(islice(find_payload_faults(job.payload, f"{place}payload"), _SHOWN))
                if not found:
                    found = [f"{place}payload: JSON cannot hold this: {error}"]
        problems += found
    if problems:
        raise InvalidInputError(problems)
    return f"[{','.join(texts)}]"


def check_instant(at: datetime | None, place: str) -> None:
    """Refuse an instant that means another one elsewhere.

    Args:
        at: When something is due; None for at once.
        place: What it is called, for people.

    Raises:
        InvalidInputError: It has no time zone, or is no instant.
    """
    problems = list(_find_instant_problems(at, place))
    if problems:
        raise InvalidInputError(problems)


def _encode(job: NewJob, now: datetime | None) -> str:
    run_at = now + job.run_at if isinstance(job.run_at, timedelta) and now is not None else job.run_at
    values = {
        "handler": job.handler,
        "payload": job.payload,
        "queue": job.queue if job.queue != "default" else None,
        "run_at": run_at.isoformat() if isinstance(run_at, datetime) else None,
        "priority": job.priority or None,
        "unique_key": job.unique_key,
        "ordering_key": job.ordering_key,
        "max_attempts": job.max_attempts,
        "timeout": _spell(job.timeout) if job.timeout is not None else None,
        "type": job.type if job.type != "custom" else None,
    }
    text = _ENCODER.encode({key: value for key, value in values.items() if value is not None})
    text.encode()  # half of a pair of surrogates is no character
    if "\\u0000" in text:
        faults = list(find_payload_faults(job.payload, "payload"))
        if faults:
            raise ValueError(faults[0])
    return text


def _spell(duration: timedelta) -> str:
    return f"{duration // timedelta(microseconds=1)} microseconds"


def _find_problems(job: NewJob, place: str) -> Iterator[str]:
    """Find what is wrong with a job besides its payload."""
    for name, is_needed in (
        ("handler", True),
        ("queue", True),
        ("type", True),
        ("unique_key", False),
        ("ordering_key", False),
    ):
        value = getattr(job, name)
        if value is None and not is_needed:
            continue
        if not isinstance(value, str):
            what = "the function's name" if callable(value) else "a text"
            yield f"{place}{name} is of the class {type(value).__name__}: give {what}"
        elif is_needed and not value.strip():
            yield f"{place}{name} is empty"
        elif not is_text(value):
            yield f"{place}{name} has a character that PostgreSQL cannot keep: NUL, or half of a pair"
    yield from _find_instant_problems(job.run_at, f"{place}run_at", is_relative=True)
    for name, least in (("priority", -_INTEGER), ("max_attempts", 1)):
        value = getattr(job, name)
        if value is None and name == "max_attempts":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _INTEGER:
            yield f"{place}{name} is {value!r}: give a whole number from {least} to {_INTEGER - 1}"
    timeout = job.timeout
    if timeout is not None and not isinstance(timeout, timedelta):
        yield f"{place}timeout is {timeout!r}: give a timedelta, such as timedelta(minutes=5)"
    elif timeout is not None and not timedelta() < timeout <= _LONGEST:
        yield f"{place}timeout is {'no time' if timeout <= timedelta() else 'longer than ten years'}"


def _find_instant_problems(value: object, place: str, *, is_relative: bool = False) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, timedelta) and is_relative:
        if abs(value) > _LONGEST:
            yield f"{place} is more than ten years away"
    elif not isinstance(value, datetime):
        forms = (
            "a datetime with a time zone, or a timedelta" if is_relative else "a datetime with a time zone"
        )
        yield f"{place} is of the class {type(value).__name__}: give {forms}"
    elif value.utcoffset() is None:
        yield (
            f"{place} has no time zone, so that it is another instant elsewhere: give it one, as in "
            "datetime(…, tzinfo=UTC)"
        )
