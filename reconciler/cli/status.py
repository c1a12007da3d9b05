"""The command `status`: what runs, when it last ran and when it will."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.facts import Facts
    from reconciler.database.runs import JobStatus

_COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "skipped": "yellow"}
_HEAD = ("name", "schedule", "last run", "outcome", "next run")


@click.command()
@target_options
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def status(config_path: Path | None, target_name: str | None, dsn: str | None, as_json: bool) -> int:
    """Show every job and worker with its last and next run."""
    from reconciler.database.observe import observe, require_pg_cron
    from reconciler.database.runs import read_status

    session = open_session(config_path, target_name, dsn)
    now = datetime.now(UTC)
    with session.connect() as conn:
        facts = observe(conn).state.facts
        require_pg_cron(facts)
        jobs = read_status(conn) if facts.migrations else []
    if as_json:
        import json

        click.echo(json.dumps([_to_json(job, facts, now) for job in jobs], indent=2, ensure_ascii=False))
        return exits.DONE
    if not jobs:
        click.echo("Nothing was applied to this target yet: run reconciler apply.")
        return exits.DONE
    click.echo(_render(jobs, facts, now))
    return exits.DONE


def _find_next(job: JobStatus, facts: Facts, now: datetime) -> datetime | None:
    from reconciler.core.schedules import next_runs

    if not job.active or job.schedule is None:
        return None
    try:
        runs = next_runs(job.schedule, after=now, count=1, zone=facts.timezone, dialect=facts.dialect)
    except ValueError:
        return None
    return runs[0] if runs else None


def _to_json(job: JobStatus, facts: Facts, now: datetime) -> dict[str, Any]:
    upcoming = _find_next(job, facts, now)
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
        "next_run_at": upcoming.isoformat() if upcoming else None,
    }


def _render(jobs: list[JobStatus], facts: Facts, now: datetime) -> str:
    from reconciler.cli.render_text import clean

    rows = [list(_HEAD)]
    for job in jobs:
        upcoming = _find_next(job, facts, now)
        outcome = job.last_status or "-"
        if job.last_error:
            outcome += f": {clean(job.last_error).splitlines()[0][:60]}"
        if not job.scheduled:
            schedule = "(no entry)"
        elif job.schedule is None:
            schedule = "(entry missing)"
        else:
            schedule = clean(job.schedule) + ("" if job.active else " (inactive)")
        last = job.last_run_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if job.last_run_at else "never"
        following = upcoming.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if upcoming else "-"
        rows.append([job.name, schedule, last, outcome, following])
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            cells = [click.style(cell, bold=True) for cell in cells]
        else:
            colour = _COLOURS.get(row[3].partition(":")[0])
            cells[3] = click.style(cells[3], fg=colour) if colour else cells[3]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
