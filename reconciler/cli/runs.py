"""The command `runs`: what ran, and everything about one run."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    import psycopg

    from reconciler.database.runs import Run, RunDetails, WaitingStart

_ID = re.compile(r"(c?)([0-9]{1,18})")
_STATUSES = ("running", "succeeded", "failed", "timed_out", "skipped", "cancelled", "lost")


@click.command()
@target_options
@click.argument("name", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at the most."
)
@click.option(
    "--status", "statuses", type=click.Choice(_STATUSES), multiple=True, help="Only these; can be repeated."
)
@click.option(
    "--since", type=read_duration, metavar="DURATION", help="Only what began so long ago, such as 2h."
)
@click.option("--id", "run_id", metavar="RUN", help="Everything about one run.")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def runs(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    name: str | None,
    limit: int,
    statuses: tuple[str, ...],
    since: timedelta | None,
    run_id: str | None,
    as_json: bool,
) -> int:
    """Show what ran, of all jobs or of NAME, the newest first.

    The ids of direct jobs' runs, of which pg_cron alone has a record, begin with c.
    """
    from reconciler.cli.render_runs import render_runs, to_json
    from reconciler.cli.tables import render_json_rows
    from reconciler.database.control import make_unknown_error
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import is_known, list_names, list_runs, require_runtime

    if run_id is not None:
        if name or statuses or since:
            raise click.UsageError("--id shows one run: leave NAME, --status and --since out")
        return _show_run(config_path, target_name, dsn, run_id, as_json=as_json)
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        facts = observe_facts(conn)
        require_runtime(conn)
        if name is not None and not is_known(conn, name):
            raise make_unknown_error([name], list_names(conn))
        found = list_runs(
            conn,
            name=name,
            statuses=statuses,
            since=since,
            limit=limit,
            use_cron=bool(facts.extension) and facts.rights.use_cron,
        )
    if as_json:
        click.echo(render_json_rows(map(to_json, found)))
    elif found:
        click.echo(render_runs(found, datetime.now(UTC)))
    else:
        click.echo("No such runs." if statuses or since else "No runs yet.")
    return exits.DONE


def _show_run(
    config_path: Path | None, target_name: str | None, dsn: str | None, text: str, *, as_json: bool
) -> int:
    from reconciler.cli.render_runs import details_to_json, render_details

    match = _ID.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"{text!r} is no run: write its number as reconciler runs shows it", param_hint="--id"
        )
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        run, attempts, waiting = _read_run(conn, int(match[2]), is_direct=bool(match[1]))
    if as_json:
        click.echo(json.dumps(details_to_json(run, attempts, waiting), indent=2, ensure_ascii=False))
    else:
        click.echo(render_details(run, attempts, waiting, datetime.now(UTC)))
    return exits.DONE


def _read_run(
    conn: psycopg.Connection, run_id: int, *, is_direct: bool
) -> tuple[RunDetails, list[Run], list[WaitingStart]]:
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import (
        list_attempts,
        list_starts,
        read_direct_run,
        read_run,
        require_runtime,
    )
    from reconciler.errors import ConfigError

    observe_facts(conn)
    require_runtime(conn)
    run = read_direct_run(conn, run_id) if is_direct else read_run(conn, run_id)
    if run is None:
        raise ConfigError(
            f"there is no run {'c' if is_direct else ''}{run_id} on the target",
            remedy="reconciler runs lists them; old ones are cleared away",
        )
    if is_direct:
        return run, [run], []
    return run, list_attempts(conn, run), list_starts(conn, run)
