"""The commands `jobs list|show|retry|cancel`: what is on the queues, and what became of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.asking import ask
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from pathlib import Path

    import psycopg

_STATUSES = ("scheduled", "pending", "running", "completed", "failed", "cancelled")
_ID = click.IntRange(1, 2**63 - 1)
_MANY = 1


@click.group()
def jobs() -> None:
    """List, show, retry and cancel queued jobs."""


@jobs.command("list")
@target_options
@click.option("--status", type=click.Choice(_STATUSES), help="Only these; scheduled: pending, not due yet.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--handler", metavar="NAME", help="Only for this handler.")
@click.option("--job", "job_name", metavar="NAME", help="Only those that come from this declared job.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at the most."
)
@click.option("--json", "as_json", is_flag=True, help="Show them as JSON.")
def list_(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    status: str | None,
    queue: str | None,
    handler: str | None,
    job_name: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """Show queued jobs, the newest first."""
    from reconciler.cli.render_jobs import job_to_json, render_jobs
    from reconciler.cli.tables import render_json_rows
    from reconciler.runtime.jobs import list_jobs

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        found = list_jobs(conn, status=status, queue=queue, handler=handler, job_name=job_name, limit=limit)
    now = datetime.now(UTC)
    if as_json:
        click.echo(render_json_rows(job_to_json(job, now) for job in found))
    elif found:
        click.echo(render_jobs(found, now))
    else:
        click.echo("No such jobs." if status or queue or handler or job_name else "No jobs yet.")
    return exits.DONE


@jobs.command()
@target_options
@click.argument("job_id", type=_ID, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def show(
    config_path: Path | None, target_name: str | None, dsn: str | None, job_id: int, as_json: bool
) -> int:
    """Show everything about one queued job."""
    from reconciler.cli.render_jobs import job_to_json, limits_to_json, render_job
    from reconciler.database.queue_health import read_held, read_limits
    from reconciler.runtime.jobs import get_job

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        job = get_job(conn, job_id)
        if job is None:
            raise _make_unknown_error([job_id])
        limits = read_limits(conn, job.queue)
        is_in_order = job.status == "pending" and job.ordering_key is not None
        held = read_held(conn, job.queue, key=job.ordering_key, limit=1) if is_in_order else []
    holder = next((one for one in held if one.job_id != job.id), None)
    now = datetime.now(UTC)
    if as_json:
        document = {**job_to_json(job, now), **limits_to_json(job, limits, holder)}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(render_job(job, limits, holder, now))
    return exits.DONE


@jobs.command()
@target_options
@click.argument("job_ids", nargs=-1, type=_ID, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All dead jobs of --queue, the longest dead first.")
@click.option("--queue", metavar="NAME", help="The queue whose dead jobs are meant.")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), help="Of --all: so many at the most.")
@click.option("--every", type=read_duration, metavar="DURATION", help="Of --all: one each time, such as 1s.")
@click.option("--to-queue", metavar="NAME", help="Of --all: on this queue instead of their own.")
def retry(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    job_ids: tuple[int, ...],
    everything: bool,
    queue: str | None,
    limit: int | None,
    every: timedelta | None,
    to_queue: str | None,
) -> int:
    """Let dead or cancelled jobs begin anew, with all their attempts."""
    from reconciler.runtime.jobs import retry_job, retry_jobs

    if bool(job_ids) == everything:
        raise click.UsageError("name the jobs by their IDs, or give --all with --queue")
    if everything and queue is None:
        raise click.UsageError("--all takes the dead jobs of one queue: give --queue too")
    if not everything and (queue or limit or every or to_queue):
        raise click.UsageError("--queue, --limit, --every and --to-queue go with --all")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        if queue is not None:
            count = retry_jobs(conn, queue, limit=limit, every=every, to_queue=to_queue)
            click.echo(_describe_redrive(queue, count, to_queue))
            return exits.DONE
        for job_id, status in _do_all(conn, job_ids, retry_job):
            click.echo(
                f"Job {job_id} is pending."
                if status == "pending"
                else f"Job {job_id} is {status}, and stays so: dead and cancelled ones are tried again."
            )
    return exits.DONE


@jobs.command()
@target_options
@click.argument("job_ids", nargs=-1, required=True, type=_ID, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask, also where they are several.")
def cancel(
    config_path: Path | None, target_name: str | None, dsn: str | None, job_ids: tuple[int, ...], yes: bool
) -> int:
    """Cancel jobs that wait, and tell the workers of those that run."""
    from reconciler.runtime.jobs import cancel_job

    wanted = len(set(job_ids))
    if wanted > _MANY and not yes:
        ask(f"Cancel these {wanted} jobs?", otherwise="cancel several jobs")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        for job_id, status in _do_all(conn, job_ids, cancel_job):
            click.echo(_describe_cancelled(job_id, status))
    return exits.DONE


def _do_all(
    conn: psycopg.Connection, job_ids: Sequence[int], do: Callable[[psycopg.Connection, int], str | None]
) -> list[tuple[int, str]]:
    """Do something with all jobs, or with none where one is unknown."""
    with conn.transaction():
        found = {job_id: do(conn, job_id) for job_id in job_ids}
        unknown = [job_id for job_id, status in found.items() if status is None]
        if unknown:
            raise _make_unknown_error(unknown)
    return [(job_id, status) for job_id, status in found.items() if status is not None]


def _make_unknown_error(job_ids: Sequence[int]) -> Exception:
    from reconciler.errors import ConfigError

    return ConfigError(
        f"there is no queued job {', '.join(map(str, job_ids))} on the target",
        remedy="reconciler jobs list shows them; finished ones are cleared away in time",
    )


def _describe_redrive(queue: str, count: int, to_queue: str | None) -> str:
    if not count:
        return f"No dead jobs of {queue} could be tried again."
    jobs, are = ("job", "is") if count == 1 else ("jobs", "are")
    where = f" on {to_queue}" if to_queue and to_queue != queue else ""
    return f"{count} dead {jobs} of {queue} {are} pending{where}."


def _describe_cancelled(job_id: int, status: str) -> str:
    match status:
        case "cancelled":
            return f"Job {job_id} is cancelled."
        case "cancelling":
            return f"Told the worker of job {job_id} to end it."
    return f"Job {job_id} is over already: {status}."
