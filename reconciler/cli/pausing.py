"""The commands `pause` and `resume`: managed jobs skip their runs for a while, without an apply."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration, read_instant
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@click.command()
@target_options
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--for", "duration", type=read_duration, metavar="DURATION", help="How long, such as 2h.")
@click.option("--until", type=read_instant, metavar="INSTANT", help="Until when, such as 2026-12-01T08:00Z.")
@click.option("--why", "reason", metavar="TEXT", default="", help="The reason, for all who wonder.")
def pause(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    names: tuple[str, ...],
    duration: timedelta | None,
    until: datetime | None,
    reason: str,
) -> int:
    """Let managed jobs skip their runs, until they are resumed or the time is over; all of them or none.

    Files and entries stay as they are, so no plan shows it as a change. A run that goes on is not stopped.
    """
    from reconciler.cli.times import render_instant
    from reconciler.database.control import find_managed_jobs, pause_jobs
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import require_runtime

    if duration is not None and until is not None:
        raise click.UsageError("--for and --until say the same twice: give one of them")
    if until is not None and until <= datetime.now(UTC):
        raise click.BadParameter("a pause ends in the future", param_hint="--until")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        observe_facts(conn)
        require_runtime(conn)
        jobs = find_managed_jobs(conn, names)
        pauses = pause_jobs(conn, [job.name for job in jobs], until=until, duration=duration, reason=reason)
    for job in jobs:
        end = pauses[job.name]
        when = f"until {render_instant(end)}" if end else f"until reconciler resume {job.name}"
        click.echo(f"Paused {job.name} {when}.")
    return exits.DONE


@click.command()
@target_options
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(config_path: Path | None, target_name: str | None, dsn: str | None, names: tuple[str, ...]) -> int:
    """Let paused jobs run again at their next time; all of them or none."""
    from reconciler.database.control import find_managed_jobs, resume_jobs
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import require_runtime

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        observe_facts(conn)
        require_runtime(conn)
        jobs = find_managed_jobs(conn, names)
        resumed = resume_jobs(conn, [job.name for job in jobs])
    for job in jobs:
        click.echo(f"Resumed {job.name}." if resumed[job.name] else f"{job.name} was not paused.")
    return exits.DONE
