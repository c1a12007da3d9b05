"""Queues: how deep and how quick they are, and what holds them up."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from reconciler.core.names import find_nearest
from reconciler.database.queue_health import (
    Held as ReadHeld,
)
from reconciler.database.queue_health import (
    Limits,
    QueueHealth,
    read_held,
    read_limits,
    read_queues,
)
from reconciler.database.throughput import Span as ReadSpan
from reconciler.database.throughput import read_throughput

from .context import ServiceDep
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .problems import PROBLEMS, ProblemError
from .security import Reader
from .values import Instant, count_seconds

router: Final = APIRouter(prefix="/api/v1/queues", tags=["queues"])


class Queue(BaseModel):
    """A queue, and how it fares."""

    queue: str
    mode: Literal["standard", "blocking"]
    declared: Annotated[bool, Field(description="Else it is here because jobs are, with the usual settings")]
    waiting: Annotated[int, Field(description="Jobs that are due")]
    oldest_age_seconds: Annotated[float | None, Field(description="For how long the oldest has been due")]
    scheduled: Annotated[int, Field(description="Jobs that are due later")]
    running: int
    concurrency: Annotated[int | None, Field(description="How many may run at once; null for any number")]
    failed: Annotated[int, Field(description="Dead jobs that are kept")]
    completed_last_minute: int
    completed_last_hour: Annotated[int, Field(description="At 100,000 or more, at least so many")]
    rate: Annotated[int, Field(description="Jobs completed a minute, as measured in the last one")]
    workers: Annotated[int, Field(description="Processes heard of in a minute, and push workers")]
    blocked_by: Annotated[str | None, Field(description="What keeps due jobs from being done")]


class Held(BaseModel):
    """What holds up an order."""

    ordering_key: Annotated[str, Field(description="Empty for that of a blocking queue")]
    job_id: int
    why: Annotated[str, Field(description="running, retry, failed or future")]
    since: Instant
    until: Instant | None
    waiting: Annotated[int, Field(description="How many jobs that are due wait behind it")]


class QueueLimits(BaseModel):
    """What a queue says of its jobs; of their tries, where they say nothing of their own."""

    max_attempts: int
    timeout_seconds: float
    backoff_initial_seconds: float
    backoff_factor: float
    backoff_max_seconds: float
    concurrency: int | None
    rate_count: Annotated[int | None, Field(description="How many may begin in rate_per_seconds")]
    rate_per_seconds: float | None
    lease_seconds: float
    retention_seconds: Annotated[float, Field(description="How long finished jobs are kept")]
    keep_failed_seconds: Annotated[float, Field(description="How long dead ones are")]
    held_by: list[Literal["retry", "failed", "future"]]


class Span(BaseModel):
    """What was finished in a minute or an hour; null where it was not counted."""

    at: Annotated[Instant, Field(description="Its begin")]
    finished: Annotated[int | None, Field(description="Jobs that were completed or cancelled")]
    failed: Annotated[int | None, Field(description="Jobs that were given up")]


class Throughput(BaseModel):
    """How quick a queue was: of its newest million finished jobs; the last span is not over yet."""

    minutes: Annotated[list[Span], Field(description="The last 60 minutes of the clock")]
    hours: Annotated[list[Span], Field(description="The last 24 hours of the clock, in UTC")]


class QueueDetails(Queue):
    """A queue with what holds it up, its limits, and its throughput."""

    held: Annotated[list[Held], Field(description="The 20 orders in which the most jobs wait")]
    limits: QueueLimits
    throughput: Throughput


@router.get("", summary="List queues by name")
def list_queues(service: ServiceDep, _: Reader, limit: PageLimit, cursor: Cursor = None) -> Page[Queue]:
    """List queues with how each fares; also those that nobody declared, as long as jobs are on them."""
    after = None if cursor is None else decode_cursor(cursor, str)[0]
    with service.connections.connection() as conn:
        found = read_queues(conn, after=after, limit=limit + 1)
    items = [Queue(**_list_fields(one)) for one in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor([items[-1].queue]) if len(found) > limit else None)


@router.get("/{name:path}", responses={404: PROBLEMS[404]}, summary="Show a queue")
def show_queue(
    service: ServiceDep,
    _: Reader,
    name: Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\u0000]*$")],
) -> QueueDetails:
    """Show how a queue fares and fared, what it is limited to, and what holds up its order."""
    with service.connections.connection() as conn:
        found = read_queues(conn, name)
        if not found:
            nearest = find_nearest(name, [one.queue for one in read_queues(conn)])
            raise ProblemError(
                404,
                f"there is no queue {name}: it is not declared, and no jobs are on it",
                f"did you mean {nearest}?" if nearest else "GET /api/v1/queues lists them",
            )
        throughput = read_throughput(conn, name)
        return QueueDetails(
            **_list_fields(found[0]),
            held=[_make_held(one) for one in read_held(conn, name)],
            limits=_make_limits(read_limits(conn, name)),
            throughput=Throughput(
                minutes=[_make_span(span) for span in throughput.minutes],
                hours=[_make_span(span) for span in throughput.hours],
            ),
        )


def _list_fields(queue: QueueHealth) -> dict[str, Any]:
    same = Queue.model_fields.keys() - {"oldest_age_seconds"}
    return {
        **{name: getattr(queue, name) for name in same},
        "oldest_age_seconds": count_seconds(queue.oldest_age),
    }


def _make_held(held: ReadHeld) -> Held:
    return Held(**{name: getattr(held, name) for name in Held.model_fields})


def _make_span(span: ReadSpan) -> Span:
    return Span(at=span.at, finished=span.finished, failed=span.failed)


def _make_limits(limits: Limits) -> QueueLimits:
    return QueueLimits(
        max_attempts=limits.max_attempts,
        timeout_seconds=limits.timeout.total_seconds(),
        backoff_initial_seconds=limits.backoff_initial.total_seconds(),
        backoff_factor=limits.backoff_factor,
        backoff_max_seconds=limits.backoff_max.total_seconds(),
        concurrency=limits.concurrency,
        rate_count=limits.rate_count,
        rate_per_seconds=count_seconds(limits.rate_per),
        lease_seconds=limits.lease.total_seconds(),
        retention_seconds=limits.retention.total_seconds(),
        keep_failed_seconds=limits.keep_failed.total_seconds(),
        held_by=limits.held_by,
    )
