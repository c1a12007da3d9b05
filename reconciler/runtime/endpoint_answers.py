"""What the run endpoint answers: problems for people, and results as documents; knows no connection."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.bearer_tokens import make_challenge
from reconciler.core.endpoint_requests import Problem
from reconciler.errors import (
    BusyError,
    ConnectError,
    DatabaseError,
    InvalidInputError,
    MigrationError,
    ReconcilerError,
    RightsError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from reconciler.core.endpoint_requests import RunRequest
    from reconciler.core.queued_jobs import QueuedJob

    from .drains import JobReport

_LARGEST_RESULT: Final = 64 * 1024
_LONGEST_ERROR: Final = 2000
_RETRY_AFTER: Final = 30
_BUSY_RETRY_AFTER: Final = 5
_STATUSES: Final = ("completed", "failed", "pending", "cancelled", "running", "lost")


def make_method_problem(allowed: Sequence[str]) -> Problem:
    """Make the problem of a call by another method.

    Args:
        allowed: Those that there are.

    Returns:
        The problem, with the header Allow.
    """
    return Problem(
        status=405,
        detail="this path knows no such method",
        remedy=f"send {' or '.join(allowed)}",
        headers={"Allow": ", ".join(allowed)},
    )


def make_unauthorized(*, is_given: bool) -> Problem:
    """Make the problem of a call without a right token.

    Args:
        is_given: Whether it brings another one.
    """
    return Problem(
        status=401,
        detail="the token is not one of this endpoint's" if is_given else "the call brings no token",
        remedy="send the header Authorization: Bearer, with the token of this endpoint",
        headers={"WWW-Authenticate": make_challenge("invalid_token" if is_given else "")},
    )


def make_too_long(limit: int) -> Problem:
    """Make the problem of a body that is too long.

    Args:
        limit: How many bytes it may have.
    """
    return Problem(
        status=413,
        detail=f"the body is longer than {limit} bytes",
        remedy="keep what is large in a table or a file store, and send its id or address",
        headers={"Connection": "close"},
    )


def make_stopping() -> Problem:
    """Make the problem of a call that comes while the process ends."""
    return Problem(
        status=503,
        detail="this process is about to end",
        remedy="call again",
        headers={"Retry-After": "5"},
    )


def make_problem(error: ReconcilerError) -> Problem:
    """Make a problem of what the database said; where it is and who we are there is not told.

    Args:
        error: Of ours.
    """
    if isinstance(error, InvalidInputError):
        detail = "; ".join(problem.replace("\n", " ") for problem in error.problems)
        return Problem(status=400, detail=detail, remedy="send another value")
    if isinstance(error, BusyError):
        return Problem(
            status=503,
            detail="the database has no time for this",
            remedy="call again; the log of this process says more",
            headers={"Retry-After": str(_BUSY_RETRY_AFTER)},
        )
    if isinstance(error, ConnectError):
        return Problem(
            status=503,
            detail="the database cannot be reached",
            remedy=f"call again in {_RETRY_AFTER} s; the log of this process says more",
            headers={"Retry-After": str(_RETRY_AFTER)},
        )
    if isinstance(error, MigrationError):
        return Problem(
            status=500,
            detail="the database lacks the schema reconciler, or has one of an earlier release",
            remedy="run reconciler migrate",
        )
    if isinstance(error, RightsError):
        return Problem(
            status=500,
            detail="the role of this endpoint lacks a right",
            remedy="SELECT reconciler.allow_work('…'), reconciler.allow_enqueue('…') with its name",
        )
    if isinstance(error, DatabaseError):
        return Problem(status=500, detail="the database said no", remedy="see the log of this process")
    return Problem(status=503, detail=error.message, remedy=error.remedy)


def render_cause(error: ReconcilerError) -> str:
    """Render an error for the log of a process: in one line, without what to do."""
    return " ".join(error.message.split())


def render_run(
    request: RunRequest, reports: Sequence[JobReport], error: ReconcilerError | None
) -> dict[str, Any]:
    """Render what became of the jobs of a call.

    Args:
        request: What was asked for.
        reports: Of all jobs that were begun.
        error: Why no more were claimed.

    Returns:
        A document for JSON.
    """
    counts = Counter(report.status for report in reports)
    document: dict[str, Any] = {
        "queue": request.queue,
        "status": request.status,
        "limit": request.limit,
        "claimed": len(reports),
        "counts": {status: counts[status] for status in _STATUSES},
        "jobs": [_render_report(report) for report in reports],
    }
    if error is not None:
        document["problem"] = make_problem(error).detail
    return document


def _render_report(report: JobReport) -> dict[str, Any]:
    job = report.job
    is_too_long = report.result is not None and len(report.result) > _LARGEST_RESULT
    return {
        "id": job.id,
        "handler": job.handler,
        "status": report.status,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "result": None if report.result is None or is_too_long else json.loads(report.result),
        "error": None if report.error is None else report.error[:_LONGEST_ERROR],
        "duration_seconds": round(report.seconds, 6),
        **({"result_omitted": True} if is_too_long else {}),
    }


def render_job(job: QueuedJob) -> dict[str, Any]:
    """Render a job as it is now.

    Args:
        job: As it was read.

    Returns:
        A document for JSON; instants in UTC.
    """
    return {
        "id": job.id,
        "name": job.handler,
        "queue": job.queue,
        "type": job.type,
        "status": job.status,
        "run_at": _render(job.run_at),
        "payload": job.payload,
        "result": job.result,
        "error": job.last_error,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "unique_key": job.unique_key,
        "ordering_key": job.ordering_key,
        "created_at": _render(job.created_at),
        "started_at": _render(job.started_at),
        "completed_at": _render(job.completed_at),
    }


def _render(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
