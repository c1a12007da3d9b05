"""The command `cancel`: end runs that go on."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

_PATIENCE = timedelta(minutes=1)


@click.command()
@target_options
@click.argument("run_ids", nargs=-1, required=True, type=click.IntRange(1, 2**63 - 1), metavar="RUN...")
@click.option("--wait", is_flag=True, help="Wait until they are over.")
@click.option("--timeout", type=read_duration, metavar="DURATION", help="How long to wait at the most [1m].")
def cancel(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    run_ids: tuple[int, ...],
    wait: bool,
    timeout: timedelta | None,
) -> int:
    """Tell runs to end: what their body did is rolled back, and there is no retry.

    RUN is the number that reconciler runs shows. A body that goes on in spite of it is disconnected by the
    tick after half a minute; a handler is told by its worker.
    """
    from reconciler.database.control import cancel_run, find_runs
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import require_runtime

    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long --wait waits: give --wait too")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        observe_facts(conn)
        require_runtime(conn)
        runs = find_runs(conn, run_ids)
        told = []
        for run_id in dict.fromkeys(run_ids):
            outcome = cancel_run(conn, run_id)
            click.echo(_describe(run_id, runs[run_id][0], outcome, was_running=runs[run_id][1] == "running"))
            if outcome == "cancelling":
                told.append(run_id)
        if not wait:
            return exits.DONE
        try:
            return _wait(conn, told, timeout or _PATIENCE)
        except KeyboardInterrupt:
            click.echo("They were told to end all the same.", err=True)
            return exits.ERROR


def _describe(run_id: int, name: str, outcome: str, *, was_running: bool) -> str:
    if outcome == "cancelling":
        return f"Told run {run_id} of {name} to end."
    if outcome == "cancelled" and was_running:
        return f"Cancelled run {run_id} of {name}: no worker had begun with it."
    if outcome == "lost" and was_running:
        return f"Run {run_id} of {name} had lost who did it: it is marked as lost."
    return f"Run {run_id} of {name} is over already: {outcome.replace('_', ' ')}."


def _wait(conn: psycopg.Connection, run_ids: list[int], timeout: timedelta) -> int:
    from reconciler.cli.render_runs import describe_end
    from reconciler.database.runs import read_run

    give_up_at = time.monotonic() + timeout.total_seconds()
    waiting = list(run_ids)
    while waiting:
        for run_id in list(waiting):
            run = read_run(conn, run_id)
            if run is None or run.status != "running":
                waiting.remove(run_id)
                ended = describe_end(run) if run else "cleared away"
                click.echo(f"Run {run_id}: {ended}.")
        if waiting and time.monotonic() > give_up_at:
            names = ", ".join(map(str, waiting))
            click.echo(f"Still running: {names}. The tick disconnects what does not listen.", err=True)
            return exits.ERROR
        if waiting:
            time.sleep(0.2)
    return exits.DONE
