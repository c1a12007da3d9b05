"""Render queued jobs and queues: as rows of a table, one in full, as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.render_text import clean
from reconciler.cli.tables import render_table, shorten
from reconciler.cli.times import render_age, render_instant, render_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from reconciler.core.queued_jobs import QueuedJob
    from reconciler.database.queue_health import Held, Limits, QueueHealth

_JOB_HEAD = ("job", "queue", "handler", "status", "when", "tries", "error")
_QUEUE_HEAD = (
    *("queue", "mode", "waiting", "oldest", "later", "running", "dead", "last minute", "last hour"),
    *("workers", "blocked by"),
)
_HELD_HEAD = ("order", "waiting", "held by", "why", "since", "until")
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
_ERROR_WIDTH = 60


def render_jobs(jobs: Sequence[QueuedJob], now: datetime) -> str:
    """Render jobs as a table.

    Args:
        jobs: In the order in which they are shown.
        now: What is due later is scheduled.

    Returns:
        Lines.
    """
    return render_table(_JOB_HEAD, [_render_row(job, now) for job in jobs])


def render_job(job: QueuedJob, limits: Limits, holder: Held | None, now: datetime) -> str:
    """Render everything of one job.

    Args:
        job: The job.
        limits: What its queue says.
        holder: What holds it up, where it waits in an order.
        now: What is due later is scheduled.

    Returns:
        Lines.
    """
    head = click.style(f"Job {job.id} on {clean(job.queue)}", bold=True)
    lines = [f"{head}: {_describe(job, now)}"]
    lines += [f"  {label:<9} {clean(text)}" for label, text in _list_facts(job, limits) if text]
    if holder is not None:
        lines += _block("held by", _describe_holder(holder))
    if job.payload not in ({}, None):
        lines += _block("payload", json.dumps(job.payload, indent=2, ensure_ascii=False))
    if job.result is not None:
        lines += _block("result", json.dumps(job.result, indent=2, ensure_ascii=False))
    if job.last_error:
        lines += _block("error" if job.status != "completed" else "note", job.last_error)
    return "\n".join(lines)


def render_queues(queues: Sequence[QueueHealth]) -> str:
    """Render queues as a table.

    Args:
        queues: In the order in which they are shown.

    Returns:
        Lines.
    """
    return render_table(_QUEUE_HEAD, [_render_queue(queue) for queue in queues])


def render_held(held: Sequence[Held], now: datetime) -> str:
    """Render what holds up the orders of a queue.

    Args:
        held: In the order in which they are shown.
        now: For how long.

    Returns:
        Lines.
    """
    rows = [
        [
            clean(one.ordering_key) or "(all)",
            str(one.waiting),
            f"job {one.job_id}",
            _describe_why(one),
            render_age(now - one.since),
            render_instant(one.until) if one.until else "",
        ]
        for one in held
    ]
    return render_table(_HELD_HEAD, rows)


def job_to_json(job: QueuedJob, now: datetime) -> dict[str, Any]:
    """Make the JSON of a job.

    Args:
        job: Any.
        now: What is due later is scheduled.

    Returns:
        Instants after RFC 3339, durations in seconds.
    """
    return {
        "id": job.id,
        "queue": job.queue,
        "handler": job.handler,
        "type": job.type,
        "status": job.status,
        "scheduled": job.is_scheduled(now),
        "active": job.active,
        "run_at": _iso(job.run_at),
        "priority": job.priority,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "losses": job.losses,
        "unique_key": job.unique_key,
        "ordering_key": job.ordering_key,
        "timeout_seconds": job.timeout.total_seconds() if job.timeout is not None else None,
        "job_name": job.job_name,
        "run_id": job.run_id,
        "worker": job.worker,
        "lease_until": _iso(job.lease_until),
        "cancelled_by": job.cancelled_by,
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "completed_at": _iso(job.completed_at),
        "payload": job.payload,
        "result": job.result,
        "last_error": job.last_error,
    }


def limits_to_json(job: QueuedJob, limits: Limits, holder: Held | None) -> dict[str, Any]:
    """Make what one job's JSON has besides: with the queue's settings in the place of what it leaves out.

    Args:
        job: The job.
        limits: What its queue says.
        holder: What holds it up.

    Returns:
        More of the same object.
    """
    timeout = job.timeout if job.timeout is not None else limits.timeout
    return {
        "max_attempts": job.max_attempts if job.max_attempts is not None else limits.max_attempts,
        "timeout_seconds": timeout.total_seconds(),
        "held_by": None if holder is None else held_to_json(holder),
    }


def queue_to_json(queue: QueueHealth) -> dict[str, Any]:
    """Make the JSON of a queue.

    Args:
        queue: Any.

    Returns:
        Durations in seconds.
    """
    return {
        "queue": queue.queue,
        "mode": queue.mode,
        "declared": queue.declared,
        "waiting": queue.waiting,
        "oldest_age_seconds": queue.oldest_age.total_seconds() if queue.oldest_age is not None else None,
        "scheduled": queue.scheduled,
        "running": queue.running,
        "concurrency": queue.concurrency,
        "failed": queue.failed,
        "completed_last_minute": queue.completed_last_minute,
        "completed_last_hour": queue.completed_last_hour,
        "rate": queue.rate,
        "workers": queue.workers,
        "blocked_by": queue.blocked_by,
    }


def held_to_json(held: Held) -> dict[str, Any]:
    """Make the JSON of what holds up an order.

    Args:
        held: Any.

    Returns:
        Instants after RFC 3339.
    """
    return {
        "ordering_key": held.ordering_key,
        "job_id": held.job_id,
        "why": held.why,
        "since": _iso(held.since),
        "until": _iso(held.until),
        "waiting": held.waiting,
    }


def _render_row(job: QueuedJob, now: datetime) -> list[str]:
    status = "scheduled" if job.is_scheduled(now) else job.status
    return [
        str(job.id),
        clean(job.queue),
        clean(job.handler or f"({job.job_name})"),
        click.style(status if job.active else f"{status}, inactive", fg=_COLOURS.get(status)),
        render_instant(_find_moment(job)),
        str(job.attempts),
        shorten(clean(job.last_error), _ERROR_WIDTH) if job.last_error else "",
    ]


def _find_moment(job: QueuedJob) -> datetime:
    """Find the moment that matters most: of its end, its begin, or when it is due."""
    if job.is_finished and job.completed_at is not None:
        return job.completed_at
    return job.started_at if job.status == "running" and job.started_at is not None else job.run_at


def _describe(job: QueuedJob, now: datetime) -> str:
    text = click.style(job.status, fg=_COLOURS.get(job.status))
    if job.is_scheduled(now):
        text = f"scheduled, due in {render_length(job.run_at - now)}"
    elif job.status == "pending":
        text += f", due for {render_length(now - job.run_at)}"
    elif job.status == "running" and job.started_at is not None:
        text += f" for {render_length(now - job.started_at)}"
    elif job.started_at is not None and job.completed_at is not None and job.status != "cancelled":
        text += f" in {render_length(job.completed_at - job.started_at)}"
    return text if job.active else f"{text}; inactive, so nobody does it"


def _list_facts(job: QueuedJob, limits: Limits) -> Iterator[tuple[str, str]]:
    yield "handler", job.handler or ""
    yield "declared", f"by {job.job_name}" if job.job_name else ""
    yield "type", job.type if job.type != "custom" else ""
    yield "queued", render_instant(job.created_at)
    yield "due", render_instant(job.run_at)
    yield "began", _instant(job.started_at)
    yield "ended", _instant(job.completed_at)
    most = job.max_attempts if job.max_attempts is not None else limits.max_attempts
    lost = f", lost by {job.losses} worker{'' if job.losses == 1 else 's'}" if job.losses else ""
    yield "tries", f"{job.attempts} of {most}{lost}"
    yield "timeout", render_length(job.timeout if job.timeout is not None else limits.timeout)
    yield "priority", str(job.priority or "")
    yield "unique", job.unique_key or ""
    yield "order", ("in its queue" if job.ordering_key == "" else job.ordering_key) or ""
    yield "worker", job.worker or ""
    yield "lease", f"until {render_instant(job.lease_until)}" if job.lease_until else ""
    yield "cancelled", f"by {job.cancelled_by}" if job.cancelled_by else ""
    yield "run", f"{job.run_id} (reconciler runs --id {job.run_id})" if job.run_id is not None else ""


def _describe_holder(held: Held) -> str:
    until = f", until {render_instant(held.until)}" if held.until else ""
    others = "1 job waits" if held.waiting == 1 else f"{held.waiting} jobs wait"
    return f"job {held.job_id}, which {_describe_why(held)}{until}; {others} behind it"


def _describe_why(held: Held) -> str:
    return {
        "running": "runs",
        "retry": "waits for its next try",
        "failed": "is dead",
        "future": "is due later",
    }.get(held.why, held.why)


def _render_queue(queue: QueueHealth) -> list[str]:
    from reconciler.database.queue_health import MOST_COUNTED

    blocked = click.style(clean(queue.blocked_by), fg="yellow") if queue.blocked_by else ""
    running = str(queue.running) if queue.concurrency is None else f"{queue.running} of {queue.concurrency}"
    return [
        clean(queue.queue),
        queue.mode if queue.declared else f"{queue.mode}, undeclared",
        str(queue.waiting),
        render_length(queue.oldest_age) if queue.oldest_age is not None else "",
        str(queue.scheduled),
        running,
        click.style(str(queue.failed), fg="red") if queue.failed else "0",
        str(queue.rate),
        f"{queue.completed_last_hour}{'+' if queue.completed_last_hour >= MOST_COUNTED else ''}",
        str(queue.workers),
        blocked,
    ]


def _block(label: str, text: str) -> Iterator[str]:
    first, *rest = clean(text).rstrip().splitlines() or [""]
    yield f"  {label:<9} {first}"
    yield from (f"  {'':<9} {line}" for line in rest)


def _instant(at: datetime | None) -> str:
    return render_instant(at) if at is not None else ""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
