"""Follow a request until its run is over, and tell of each change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits

if TYPE_CHECKING:
    from datetime import timedelta

    import psycopg

    from reconciler.database.runs import RunDetails

_QUICK = 0.2
_SLOW = 1.0


def follow(conn: psycopg.Connection, name: str, start_id: int, *, timeout: timedelta) -> int:
    """Follow a request to the end of its run.

    Args:
        conn: In autocommit mode.
        name: Of the job.
        start_id: Of the request.
        timeout: How long at the most, before it begins and while it runs together.

    Returns:
        The exit code: 0 where the run succeeded.

    Raises:
        KeyboardInterrupt: The person did not want to wait for its begin any longer.
    """
    give_up_at = time.monotonic() + timeout.total_seconds()
    try:
        run_id = _wait_for_start(conn, start_id, give_up_at)
    except LookupError:
        click.echo(f"Request {start_id} was withdrawn: {name} is no longer declared.", err=True)
        return exits.ERROR
    if run_id is None:
        click.echo(
            f"No runner took request {start_id} in time. It still waits, and runs as soon as one does: look "
            f"with reconciler runs {name}.\n  reconciler runs --status running shows what keeps a runner "
            "busy, and reconciler doctor what else is wrong.",
            err=True,
        )
        return exits.ERROR
    return _wait_for_end(conn, run_id, give_up_at)


def follow_run(conn: psycopg.Connection, run_id: int, *, timeout: timedelta) -> int:
    """Follow a run that has begun to its end.

    Args:
        conn: In autocommit mode.
        run_id: Of the run.
        timeout: How long at the most.

    Returns:
        The exit code: 0 where it succeeded.
    """
    return _wait_for_end(conn, run_id, time.monotonic() + timeout.total_seconds())


def _wait_for_start(conn: psycopg.Connection, start_id: int, give_up_at: float) -> int | None:
    """Wait until a runner has taken a request.

    Returns:
        The run; None when the time is over.

    Raises:
        LookupError: The request is gone without a run.
    """
    from reconciler.database.control import find_start

    pause = _QUICK
    while True:
        state = find_start(conn, start_id)
        if state.run_id is not None:
            return state.run_id
        if state.due_at is None:
            raise LookupError
        if time.monotonic() >= give_up_at:
            return None
        time.sleep(pause)
        pause = min(pause * 1.2, _SLOW)


def _wait_for_end(conn: psycopg.Connection, run_id: int, give_up_at: float) -> int:
    from reconciler.cli.render_text import clean
    from reconciler.cli.times import render_instant
    from reconciler.database.runs import read_run

    pause = _QUICK
    is_told = False
    note = None
    try:
        while True:
            run = read_run(conn, run_id)
            if run is None:
                click.echo(f"Run {run_id} was cleared away.", err=True)
                return exits.ERROR
            if run.status != "running":
                return _tell_end(conn, run)
            if not is_told and run.run_at is not None:
                click.echo(f"Run {run_id} began at {render_instant(run.run_at)}.")
                is_told = True
            if run.note and run.note != note:
                click.echo(f"Run {run_id}: {clean(run.note)}.")
                note = run.note
            if time.monotonic() >= give_up_at:
                click.echo(f"Run {run_id} still goes on. {_advise(run_id)}", err=True)
                return exits.ERROR
            time.sleep(pause)
            pause = min(pause * 1.2, _SLOW)
    except KeyboardInterrupt:
        click.echo(f"Run {run_id} goes on without us. {_advise(run_id)}", err=True)
        return exits.ERROR


def _tell_end(conn: psycopg.Connection, run: RunDetails) -> int:
    from reconciler.cli.render_runs import describe_end, render_error
    from reconciler.cli.times import render_instant
    from reconciler.database.runs import list_starts

    click.echo(f"Run {run.id}: {describe_end(run)}.")
    for line in render_error(run):
        click.echo(line, err=True)
    for start in list_starts(conn, run):
        click.echo(f"Attempt {start.attempt} is due {render_instant(start.due_at)}.", err=True)
    return exits.DONE if run.status == "succeeded" else exits.ERROR


def _advise(run_id: int) -> str:
    return f"Look with reconciler runs --id {run_id}; reconciler cancel {run_id} ends it."
