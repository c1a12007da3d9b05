"""The command `run`: ask for a run, follow it, execute it here, or rehearse it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import Session, open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from reconciler.core.facts import Facts
    from reconciler.database.control import AppliedJob, Runner

_PATIENCE = timedelta(minutes=10)


@click.command()
@target_options
@click.argument("name")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit code 1 unless it succeeds.")
@click.option("--timeout", type=read_duration, metavar="DURATION", help="How long --wait waits [10m].")
@click.option(
    "--here", is_flag=True, help="Execute it in this connection, which has to be of the job's role."
)
@click.option("--dry-run", is_flag=True, help="Execute what the files declare, and roll it back.")
@click.option("--applied", is_flag=True, help="With --dry-run: what was applied, not what the files declare.")
def run(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    name: str,
    wait: bool,
    timeout: timedelta | None,
    here: bool,
    dry_run: bool,
    applied: bool,
) -> int:
    """Run a managed job now, besides its schedule: a runner on the target takes it.

    Its lock, time limit, retries and alerts hold as ever; a pause does not.
    """
    if sum((wait, here, dry_run)) > 1:
        raise click.UsageError("--wait, --here and --dry-run are three ways of one run: give one of them")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long --wait waits: give --wait too")
    if applied and not dry_run:
        raise click.UsageError("--applied says what --dry-run executes: give --dry-run too")
    session = open_session(config_path, target_name, dsn)
    if dry_run:
        from reconciler.cli.rehearsing import rehearse

        return rehearse(session, name, from_target=applied)

    from reconciler.database.control import find_managed_jobs
    from reconciler.database.identity import require_home
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import require_runtime

    with session.connect() as conn:
        facts = observe_facts(conn)
        require_runtime(conn)
        require_home(conn)
        (job,) = find_managed_jobs(conn, [name])
        if here:
            return _run_here(conn, job)
        return _request(conn, session, facts, job, timeout=(timeout or _PATIENCE) if wait else None)


def _request(
    conn: psycopg.Connection, session: Session, facts: Facts, job: AppliedJob, *, timeout: timedelta | None
) -> int:
    from reconciler.cli.following import follow
    from reconciler.database.control import find_runners, request_run

    sees_entries = facts.rights.use_cron and facts.rights.sees_all
    runners = find_runners(conn, job.role, sees_entries=sees_entries)
    start_id = request_run(conn, job.name)
    try:
        when = _describe_runners(runners, facts)
        outlook = f": a runner takes it {when}." if when else "."
        click.echo(f"Requested {job.name}, as request {start_id}{outlook}")
        trouble = _find_trouble(session, facts, job, runners)
        if trouble:
            click.echo(f"{click.style('Nobody takes it:', fg='red', bold=True)} {trouble}", err=True)
        if timeout is not None:
            return follow(conn, job.name, start_id, timeout=timeout)
    except KeyboardInterrupt:
        click.echo(
            f"Request {start_id} stays, and a runner takes it. Look with reconciler runs {job.name}.",
            err=True,
        )
        return exits.ERROR
    click.echo(f"Look with reconciler runs {job.name}.")
    return exits.DONE


def _find_trouble(session: Session, facts: Facts, job: AppliedJob, runners: list[Runner]) -> str:
    """Say why a request is not taken, and what to do; "" where nothing stands in its way."""
    if not runners:
        why = f"there is no active runner for the role {job.role} on the target"
        if session.target.runtime is None:
            remedy = (
                f"runtime is false for {session.target.name} in {session.config.path}: leave it out and run "
                "reconciler apply, or call reconciler.runner() as that role, or use --here"
            )
        else:
            remedy = "reconciler apply declares one; reconciler drift shows what became of it; or use --here"
        return f"{why}\n  {remedy}"
    if facts.launcher_running is False:
        return "pg_cron's launcher is not running\n  reconciler doctor says why; until then use --here"
    return ""


def _describe_runners(runners: list[Runner], facts: Facts) -> str:
    """Say when the first of them looks for work: `within 15 s`."""
    from reconciler.core.schedules import next_runs

    now = datetime.now(UTC)
    waits = []
    for runner in runners:
        try:
            runs = next_runs(runner.schedule, after=now, count=1, zone=facts.timezone, dialect=facts.dialect)
        except ValueError:
            continue
        waits += [at - now for at in runs]
    if not waits:
        return ""
    return f"within {max(round(min(waits).total_seconds()), 1)} s"


def _run_here(conn: psycopg.Connection, job: AppliedJob) -> int:
    from reconciler.cli.following import follow_run
    from reconciler.cli.render_runs import describe_end, render_error
    from reconciler.database.control import run_here
    from reconciler.database.runs import read_run

    click.echo(f"Running {job.name} here, as {job.role}.")
    outcome = run_here(conn, job)
    if outcome.run_id is None:
        click.echo(
            "Stopped before it began." if outcome.interrupted else "It left no run: ask reconciler runs.",
            err=True,
        )
        return exits.ERROR
    found = read_run(conn, outcome.run_id)
    if found is not None and found.status == "running":
        # Its request was sent, and the tick ends it when the answer is there; or a worker does its work.
        return follow_run(conn, found.id, timeout=_PATIENCE)
    if found is None:
        click.echo(f"Run {outcome.run_id} was cleared away.", err=True)
        return exits.ERROR
    click.echo(f"Run {found.id}: {describe_end(found)}.")
    for line in render_error(found):
        click.echo(line, err=True)
    return exits.DONE if found.status == "succeeded" else exits.ERROR
