"""Queues: how deep and how quick they are, what holds them up, and what is on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Query, Request, Response

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.problems import ProblemError
from reconciler.api.values import LARGEST_ID
from reconciler.database.queue_health import read_held, read_limits, read_queues
from reconciler.database.throughput import read_throughput
from reconciler.runtime.jobs import get_job, list_job_page

from .page_answers import PageRouter, raise_unknown
from .visits import VisitDep

if TYPE_CHECKING:
    import psycopg

    from reconciler.database.queue_health import QueueHealth

router: Final = PageRouter()

_STATUSES: Final = ("pending", "scheduled", "running", "failed", "completed", "cancelled")
_TOLD: Final = {
    "pending": "It begins anew.",
    "cancelled": "Cancelled.",
    "cancelling": "Its worker is told to end it.",
}
_OBSTACLES: Final = {
    "concurrency": "as many run as may at once",
    "rate": "as many began as may for now",
}
_HOLDS: Final = {
    "running": "runs",
    "retry": "waits for its next try",
    "failed": "is dead",
    "future": "is not due yet",
}


@router.get("/queues")
def show_queues(visit: VisitDep, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """Show every queue with how it fares."""
    after = decode_cursor(cursor, str)[0] if cursor else None
    limit = visit.service.limits.page
    with visit.connection() as conn:
        found = read_queues(conn, after=after, limit=limit + 1)
    return visit.show(
        "queues.html",
        seen=(found, cursor),
        queues=found[:limit],
        obstacle=name_obstacle,
        is_first=after is None,
        next_cursor=encode_cursor([found[limit - 1].queue]) if len(found) > limit else "",
    )


@router.get("/queues/{name:path}")
def show_queue(
    visit: VisitDep,
    name: str,
    status: Annotated[str, Query(max_length=20)] = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """Show one queue: how quick it was, what holds it up, what is on it."""
    wanted = status if status in _STATUSES else None
    before = decode_cursor(cursor, int)[0] if cursor else None
    limit = visit.service.limits.page
    with visit.connection() as conn:
        queue = _find_queue(conn, name)
        throughput = read_throughput(conn, name)
        held = read_held(conn, name)
        limits = read_limits(conn, name)
        found = list_job_page(conn, status=wanted, queue=name, before=before, limit=limit + 1)
    jobs = [one.job for one in found[:limit]]
    return visit.show(
        "queue.html",
        seen=(queue, throughput, held, limits, found, status, cursor),
        queue=queue,
        obstacle=name_obstacle,
        throughput=throughput,
        held=held,
        holds=_HOLDS,
        limits=limits,
        jobs=jobs,
        statuses=_STATUSES,
        wanted=wanted or "",
        is_first=before is None,
        next_cursor=encode_cursor([jobs[-1].id]) if len(found) > limit else "",
    )


@router.get("/queued/{job_id}")
def show_queued_job(
    request: Request, visit: VisitDep, job_id: str, told: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Show a queued job with its payload and what it failed with."""
    number = read_job_id(request, job_id)
    with visit.connection() as conn:
        job = get_job(conn, number)
    if job is None:
        raise ProblemError(
            404, f"there is no queued job {job_id}", "finished ones are kept for as long as their queue says"
        )
    return visit.show(
        "queued_job.html",
        seen=(job, told),
        job=job,
        told=_TOLD.get(told, "") if told in (job.status, "cancelling") else "",
        can_write="write" in visit.viewer.caller.scopes,
    )


def name_obstacle(blocked_by: str) -> str:
    """Name what keeps jobs that are due from being done.

    Args:
        blocked_by: As the view `reconciler.queue_health` tells it.
    """
    return _OBSTACLES.get(blocked_by, blocked_by)


def read_job_id(request: Request, text: str) -> int:
    """Read the number of a queued job out of a path.

    Raises:
        ProblemError: 404: no job can have it.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= LARGEST_ID):
        raise_unknown(request)
    return int(text)


def _find_queue(conn: psycopg.Connection, name: str) -> QueueHealth:
    found = [] if "\0" in name else read_queues(conn, name)
    if not found:
        raise ProblemError(
            404,
            f"there is no queue {name[:100]}: it is not declared, and no jobs are on it",
            "the list of queues has them all",
        )
    return found[0]
