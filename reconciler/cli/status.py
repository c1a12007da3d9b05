"""The command `status`: what runs, how it fares and when it runs next."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from reconciler.core.facts import Facts
    from reconciler.database.status import JobStatus, Summary

_HEAD = ("name", "state", "schedule", "last run", "last 20 runs", "next run", "alerts")
_COLOURS = {
    "ok": "green",
    "failing": "red",
    "missing": "red",
    "missed": "red",
    "running": "cyan",
    "queued": "cyan",
    "paused": "yellow",
    "retired": "yellow",
}
_ERROR_WIDTH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What every row is rendered with."""

    facts: Facts
    now: datetime
    plain: bool


@click.command()
@target_options
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--failing", is_flag=True, help="Only what fails, was missed, or lost its entry.")
@click.option("--all", "everything", is_flag=True, help="The tool's own entries too.")
@click.option("--ascii", "plain", is_flag=True, help="No characters beyond ASCII.")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def status(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    names: tuple[str, ...],
    failing: bool,
    everything: bool,
    plain: bool,
    as_json: bool,
) -> int:
    """Show how every job and worker fares, or only those that are named."""
    from reconciler.database.control import find_jobs
    from reconciler.database.observe import observe_facts, require_pg_cron
    from reconciler.database.runs import has_runtime
    from reconciler.database.status import read_status, read_summary

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        facts = observe_facts(conn)
        require_pg_cron(facts)
        is_applied = has_runtime(conn)
        if is_applied:
            if names:
                find_jobs(conn, names)
            # The head counts all, whichever are shown.
            jobs = read_status(conn, facts.timezone)
            summary = read_summary(conn)
    if not is_applied:
        click.echo("[]" if as_json else "Nothing was applied to this target yet: run reconciler apply.")
        return exits.DONE
    shown = [
        job
        for job in jobs
        if (job.name in names if names else everything or not _is_own(job))
        and (job.is_failing or not failing)
    ]
    if as_json:
        from reconciler.cli.tables import render_json_rows

        click.echo(render_json_rows(map(_to_json, shown)))
        return exits.DONE
    from reconciler.cli.sparkline import is_plain

    view = _View(
        facts=facts,
        now=summary.now,
        plain=plain
        or is_plain(
            encoding=sys.stdout.encoding,
            is_terminal=sys.stdout.isatty(),
            term=os.environ.get("TERM", ""),
        ),
    )
    click.echo(_render_head([job for job in jobs if not _is_own(job)], facts, summary))
    if shown:
        click.echo("\n" + _render_rows(shown, view))
    else:
        click.echo("\nNothing is failing." if failing else "\nNo jobs.")
    return exits.DONE


def _is_own(job: JobStatus) -> bool:
    from reconciler.core.names import OWN_PREFIX

    return job.name.startswith(OWN_PREFIX)


def _to_json(job: JobStatus) -> dict[str, Any]:
    return {
        "name": job.name,
        "kind": job.kind,
        "owner": job.owner,
        "scheduled": job.scheduled,
        "schedule": job.schedule,
        "active": job.active,
        "last_status": job.last_status,
        "last_run_at": job.last_run_at.isoformat() if job.last_run_at else None,
        "last_error": job.last_error,
        "last_duration_seconds": job.last_duration.total_seconds() if job.last_duration else None,
        "next_run_at": job.next_run_at.isoformat() if job.next_run_at else None,
        "state": job.state,
        "after": job.after,
        "once_at": job.once_at.isoformat() if job.once_at else None,
        "consecutive_failures": job.consecutive_failures,
        "running_since": job.running_since.isoformat() if job.running_since else None,
        "paused": job.paused,
        "paused_until": job.paused_until.isoformat() if job.paused_until else None,
        "pause_reason": job.pause_reason,
        "paused_by": job.paused_by,
        "retired_until": job.retired_until.isoformat() if job.retired_until else None,
        "open_alerts": job.open_alerts,
        "recent_runs": [
            {"status": status, "duration_seconds": seconds}
            for status, seconds in zip(job.recent_statuses, job.recent_seconds, strict=True)
        ],
    }


def _render_head(jobs: Sequence[JobStatus], facts: Facts, summary: Summary) -> str:
    workers = sum(job.kind == "worker" for job in jobs)
    failing = sum(job.is_failing for job in jobs)
    paused = sum(job.paused for job in jobs)
    waiting = summary.deliveries_waiting
    parts = [
        _count(len(jobs) - workers, "job") + (f" and {_count(workers, 'worker')}" if workers else ""),
        click.style(f"{failing} failing", fg="red" if failing else "green"),
        click.style(f"{paused} paused", fg="yellow" if paused else None),
        _describe_launcher(facts.launcher_running),
        _describe_tick(facts, summary),
        click.style(
            f"{waiting} {'delivery' if waiting == 1 else 'deliveries'} waiting",
            fg="yellow" if waiting else None,
        ),
    ]
    return "; ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _describe_launcher(running: bool | None) -> str:
    if running is None:
        return "launcher cannot be seen"
    return "launcher alive" if running else click.style("launcher not running", fg="red", bold=True)


def _describe_tick(facts: Facts, summary: Summary) -> str:
    from reconciler.cli.times import render_age

    state = summary.judge_tick(sees_all=facts.rights.sees_all)
    match state:
        case "none":
            return click.style("no tick", fg="yellow")
        case "unknown":
            return "tick cannot be seen"
        case "not_yet":
            return "tick not seen yet"
    age = timedelta(seconds=summary.tick_age or 0)
    return click.style(f"tick {render_age(age)}", fg="red" if state == "late" else None)


def _render_rows(jobs: Sequence[JobStatus], view: _View) -> str:
    from reconciler.cli.tables import render_table

    return render_table(_HEAD, [_render_row(job, view) for job in jobs])


def _render_row(job: JobStatus, view: _View) -> list[str]:
    from reconciler.cli.render_text import clean
    from reconciler.cli.sparkline import render_sparkline
    from reconciler.cli.times import render_local

    alerts = str(job.open_alerts) if job.open_alerts else ""
    return [
        clean(job.name),
        click.style(_describe_state(job, view.now), fg=_COLOURS.get(job.state)),
        clean(_describe_schedule(job)),
        _describe_last(job, view.now),
        render_sparkline(job.recent_statuses[::-1], job.recent_seconds[::-1], plain=view.plain),
        render_local(job.next_run_at, job.timezone or view.facts.timezone) if job.next_run_at else "-",
        click.style(alerts, fg="red") if alerts else "",
    ]


def _describe_state(job: JobStatus, now: datetime) -> str:
    from reconciler.cli.times import render_instant, render_length

    match job.state:
        case "running" | "queued" if job.running_since is not None:
            return f"{job.state} for {render_length(now - job.running_since)}"
        case "missing":
            return "entry missing"
        case "no_entry":
            return "no entry"
        case "paused":
            return f"paused until {render_instant(job.paused_until)}" if job.paused_until else "paused"
        case "retired":
            return f"retired until {render_instant(job.retired_until)}" if job.retired_until else "retired"
        case "failing":
            return f"failing x{job.consecutive_failures}"
    return job.state


def _describe_schedule(job: JobStatus) -> str:
    from reconciler.cli.times import render_instant

    if job.schedule is not None:
        return job.schedule
    if job.is_hidden:
        return "(hidden)"
    if job.once_at is not None:
        return f"once {render_instant(job.once_at, fine=False)}"
    if job.after:
        return f"after {', '.join(job.after)}"
    return "-"


def _describe_last(job: JobStatus, now: datetime) -> str:
    from reconciler.cli.render_text import clean
    from reconciler.cli.tables import shorten
    from reconciler.cli.times import render_age

    if job.last_run_at is None:
        return "never"
    text = f"{render_age(now - job.last_run_at)}, {job.last_status}"
    if job.last_error:
        text += f": {shorten(clean(job.last_error), _ERROR_WIDTH)}"
    return text
