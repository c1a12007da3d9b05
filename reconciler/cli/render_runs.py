"""Render runs: as rows of a table, one in full, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.render_text import clean
from reconciler.cli.tables import render_table, shorten
from reconciler.cli.times import render_instant, render_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from reconciler.database.runs import Run, RunDetails, WaitingStart

_HEAD = ("run", "job", "when", "took", "status", "trigger", "attempt", "rows", "error")
_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
}
_ERROR_WIDTH = 70


def render_status(status: str) -> str:
    """Render a run's status with its colour.

    Args:
        status: Of a run.

    Returns:
        As people read it: `timed out`.
    """
    return click.style(status.replace("_", " "), fg=_COLOURS.get(status))


def render_id(run: Run) -> str:
    """Render the id by which a run can be asked for.

    Args:
        run: Of either source.

    Returns:
        `12`, or `c12` for a run that pg_cron alone has a record of.
    """
    return f"{'c' if run.source == 'pg_cron' else ''}{run.id}"


def render_runs(runs: Sequence[Run], now: datetime) -> str:
    """Render runs as a table.

    Args:
        runs: In the order in which they are shown.
        now: For what is still running.

    Returns:
        Lines.
    """
    return render_table(_HEAD, [_render_row(run, now) for run in runs])


def describe_end(run: Run) -> str:
    """Describe how a run ended.

    Args:
        run: That is over.

    Returns:
        One line, and another with the error.
    """
    took = (
        f" in {render_length(run.duration)}" if run.duration is not None and run.status != "skipped" else ""
    )
    rows = f", {_count(run.rows_affected, 'row')}" if run.rows_affected is not None else ""
    return f"{render_status(run.status)}{took}{rows}"


def render_error(run: RunDetails) -> Iterator[str]:
    """Render the error of a run, with all that is known of it.

    Args:
        run: Any.

    Yields:
        Lines; none where nothing went wrong.
    """
    if run.error_message:
        code = f" (SQLSTATE {run.error_sqlstate})" if run.error_sqlstate else ""
        yield from _block("reason" if run.status == "skipped" else "error", run.error_message + code)
    if run.error_detail:
        yield from _block("detail", run.error_detail)
    if run.error_context:
        yield from _block("context", run.error_context)


def render_details(
    run: RunDetails, attempts: Sequence[Run], waiting: Sequence[WaitingStart], now: datetime
) -> str:
    """Render everything of one run.

    Args:
        run: The run.
        attempts: The tries that it belongs to.
        waiting: Tries that are still to come.
        now: For what is still running.

    Returns:
        Lines.
    """
    head = click.style(f"Run {render_id(run)} of {clean(run.name)}", bold=True)
    lines = [f"{head}: {_describe(run, now)}"]
    lines += [f"  {label:<9} {clean(text)}" for label, text in _list_facts(run) if text]
    lines += render_error(run)
    if len(attempts) > 1 or waiting:
        lines += ["", "Attempts:", render_runs(attempts, now)]
        lines += [f"Attempt {start.attempt} is due {render_instant(start.due_at)}." for start in waiting]
    return "\n".join(lines)


def to_json(run: Run) -> dict[str, Any]:
    """Make the JSON of a run.

    Args:
        run: Any.

    Returns:
        Instants after RFC 3339, durations in seconds.
    """
    return {
        "id": run.id,
        "source": run.source,
        "name": run.name,
        "run_at": _iso(run.run_at),
        "completed_at": _iso(run.completed_at),
        "duration_seconds": run.duration.total_seconds() if run.duration is not None else None,
        "status": run.status,
        "trigger": run.trigger,
        "attempt": run.attempt,
        "chain_id": run.chain_id,
        "rows_affected": run.rows_affected,
        "error_message": run.error_message,
        "error_sqlstate": run.error_sqlstate,
        "role": run.role,
        "backend_pid": run.backend_pid,
        "note": run.note,
    }


def details_to_json(
    run: RunDetails, attempts: Sequence[Run], waiting: Sequence[WaitingStart]
) -> dict[str, Any]:
    """Make the JSON of one run with everything.

    Args:
        run: The run.
        attempts: The tries that it belongs to.
        waiting: Tries that are still to come.

    Returns:
        What `to_json` has and more.
    """
    return {
        **to_json(run),
        "error_detail": run.error_detail,
        "error_context": run.error_context,
        "due_at": _iso(run.due_at),
        "deadline_at": _iso(run.deadline_at),
        "stop_reason": run.stop_reason,
        "stop_at": _iso(run.stop_at),
        "stop_by": run.stop_by,
        "response_status": run.response_status,
        "queued_job_id": run.queued_job_id,
        "revision": run.revision,
        "start_id": run.start_id,
        "attempts": [to_json(attempt) for attempt in attempts],
        "waiting": [
            {"trigger": start.trigger, "due_at": _iso(start.due_at), "attempt": start.attempt}
            for start in waiting
        ],
    }


def _render_row(run: Run, now: datetime) -> list[str]:
    attempt = str(run.attempt) if run.chain_id is None else f"{run.attempt} of {run.chain_id}"
    return [
        render_id(run),
        clean(run.name),
        render_instant(run.run_at) if run.run_at else "-",
        _describe_length(run, now),
        render_status(run.status),
        run.trigger.replace("_", " "),
        attempt if run.source == "log" else "",
        "" if run.rows_affected is None else str(run.rows_affected),
        shorten(clean(run.error_message or run.note or ""), _ERROR_WIDTH),
    ]


def _describe_length(run: Run, now: datetime) -> str:
    if run.status == "skipped":
        return "-"
    if run.duration is not None:
        return render_length(run.duration)
    return f"{render_length(now - run.run_at)} so far" if run.run_at else "-"


def _describe(run: RunDetails, now: datetime) -> str:
    if run.status != "running":
        return describe_end(run)
    length = f" for {render_length(now - run.run_at)}" if run.run_at else ""
    return render_status(run.status) + length


def _list_facts(run: RunDetails) -> Iterator[tuple[str, str]]:
    yield "began", _instant(run.run_at)
    yield "ended", _instant(run.completed_at)
    chain = f", attempt {run.attempt}" + (f" of the chain {run.chain_id}" if run.chain_id else "")
    yield "trigger", run.trigger.replace("_", " ") + (chain if run.source == "log" else "")
    yield "for", _instant(run.due_at)
    yield "role", f"{run.role or ''}, backend {run.backend_pid}" if run.backend_pid else run.role or ""
    yield "deadline", _instant(run.deadline_at)
    if run.stop_reason:
        yield "stopped", f"{run.stop_reason.replace('_', ' ')} by {run.stop_by}, {_instant(run.stop_at)}"
    yield "answer", f"HTTP {run.response_status}" if run.response_status is not None else ""
    if run.note:
        yield "waits", run.note
    elif run.queued_job_id is not None:
        yield "queued", f"job {run.queued_job_id} of the jobs table"
    yield "revision", str(run.revision or "")


def _block(label: str, text: str) -> Iterator[str]:
    first, *rest = clean(text).rstrip().splitlines() or [""]
    yield f"  {label:<9} {first}"
    yield from (f"  {'':<9} {line}" for line in rest)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _instant(at: datetime | None) -> str:
    return render_instant(at) if at is not None else ""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
