"""The command `restore`: what is no longer declared comes back, by a plan like any other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.applying import apply_shown, emergency_option
from reconciler.cli.asking import dry_run_option, yes_option
from reconciler.cli.planning import FORMATS
from reconciler.cli.rolling_back import make_past_request, show_past_plan
from reconciler.cli.session import open_session, target_options
from reconciler.core.askers import find_commit
from reconciler.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from reconciler.cli.session import Session


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@target_options
@yes_option
@dry_run_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How to show the plan.",
)
@emergency_option
def restore(
    names: tuple[str, ...],
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    yes: bool,
    dry_run: bool,
    form: str,
    emergency: str,
) -> int:
    """Bring back resources that the files no longer declare.

    In its grace a resource goes on where it was, with its job id; one that is gone is made as it was applied
    last. Nothing else is touched. The files are not written: put it back there, else the next apply that
    prunes takes it away again.
    """
    from reconciler.database.history import find_comeback

    if form != "text" and not dry_run:
        raise click.UsageError("--format goes with --dry-run")
    session = open_session(config_path, target_name, dsn)
    _refuse_declared(session, names)
    with session.connect() as conn:
        restored = find_comeback(conn, names, owner=session.config.owner)
        commit = find_commit(os.environ)
        request = make_past_request(session, restored, commit=commit, emergency=emergency)
        planned = show_past_plan(conn, request, form)
        if dry_run:
            return exits.DONE
        return apply_shown(conn, planned, request, allow_deletes=None, asks=not yes)


def _refuse_declared(session: Session, names: Collection[str]) -> None:
    places = {spec.name: spec.place for spec in session.load_specs(may_be_empty=True)}
    for name in names:
        if name in places:
            raise RefusedError(
                f"{places[name]} declares {name}",
                remedy="nothing was changed; apply brings it back as it is declared there",
            )
