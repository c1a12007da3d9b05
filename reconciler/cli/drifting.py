"""The command `drift`: what was changed behind the files' back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.drift_looks import DriftWatch, look_for_drift, show_drift
from reconciler.cli.fleets import Choice, fleet_options
from reconciler.cli.planning import make_request
from reconciler.cli.selecting import make_selection, selection_options
from reconciler.cli.session import open_session
from reconciler.cli.watching import Journal, Stop, connect_warily, keep_on, read_interval

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reconciler.cli.session import Session
    from reconciler.database.statements import Request

_INTERVAL = timedelta(minutes=1)


@click.command()
@fleet_options(changes=False)
@selection_options
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "markdown")),
    default="text",
    show_default=True,
    help="How to show it.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 7 when there is drift.")
@click.option("--alert", "tell", is_flag=True, help="Tell the channels of the jobs whose alert.on has drift.")
@click.option("--watch", "is_watching", is_flag=True, help="Go on until a signal, and tell what is new.")
@click.option(
    "--interval", callback=read_interval, metavar="DURATION", help="With --watch: between two looks [1m]."
)
def drift(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    fleet: Choice | None,
    only: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    paths: tuple[str, ...],
    form: str,
    exit_code: bool,
    tell: bool,
    is_watching: bool,
    interval: timedelta | None,
) -> int:
    """Show what was changed on the target behind the files' back; changes nothing.

    What the files changed and nobody applied yet is no drift; plan shows it.
    """
    selection = make_selection(only, labels, paths)
    if is_watching:
        if exit_code or form == "markdown":
            raise click.UsageError("--exit-code and --format markdown are for one look, not for --watch")
        if fleet is not None:
            raise click.UsageError("--watch is for one target: run one process for each")
        return _watch(
            lambda: open_session(config_path, target_name, dsn),
            lambda session: make_request(session, selection=selection),
            interval=interval or _INTERVAL,
            as_json=form == "json",
            tell=tell,
        )
    if interval is not None:
        raise click.UsageError("--interval goes with --watch")
    if fleet is not None:
        from reconciler.cli.fleet_commands import drift_fleet

        return drift_fleet(
            fleet,
            lambda session: make_request(session, selection=selection),
            form=form,
            exit_code=exit_code,
            tell=tell,
        )
    session = open_session(config_path, target_name, dsn)
    request = make_request(session, selection=selection)
    with session.connect() as conn:
        planned = look_for_drift(conn, request, tell=tell)
    show_drift(planned, form)
    return exits.DRIFT if exit_code and planned.plan.changes else exits.DONE


def _watch(
    open_anew: Callable[[], Session],
    make_anew: Callable[[Session], Request],
    *,
    interval: timedelta,
    as_json: bool,
    tell: bool,
) -> int:
    """Look until a signal comes; without a configuration, or such a target in it, it does not begin."""
    journal = Journal(open_anew().target.name, as_json=as_json)
    with Stop() as stop:
        watch = DriftWatch(
            open_session=open_anew, make_request=make_anew, connect=connect_warily, journal=journal, tell=tell
        )
        keep_on(watch.look, interval=interval, journal=journal, stop=stop)
    return exits.DONE
