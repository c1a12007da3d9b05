"""The commands `release` and `transfer`: give resources up, and leave what runs as it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.applying import apply_shown, emergency_option
from reconciler.cli.asking import dry_run_option, yes_option
from reconciler.cli.planning import show_plan
from reconciler.cli.session import open_session, target_options
from reconciler.core.askers import find_actor, find_commit
from reconciler.core.names import SQL_OWNER, is_name
from reconciler.core.ownership import Handover

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.cli.session import Session


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@target_options
@yes_option
@dry_run_option
@emergency_option
def release(
    names: tuple[str, ...],
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    yes: bool,
    dry_run: bool,
    emergency: str,
) -> int:
    """Give up jobs, and let their entries stay in cron.job.

    They have to be gone from the files first. A job in mode: direct stays as it is; pg_cron runs the SQL of a
    managed one by itself from then on, without lock, log and retries.
    """
    session = open_session(config_path, target_name, dsn)
    return _give_up(session, Handover(names=names), asks=not yes, dry_run=dry_run, emergency=emergency)


def _check_owner(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not is_name(value) or value == SQL_OWNER:
        raise click.BadParameter(f"{value!r} is no owner: owner of reconciler.yaml is such a name")
    return value


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--to", "to", metavar="OWNER", required=True, callback=_check_owner, help="Who has them then.")
@target_options
@yes_option
@dry_run_option
@emergency_option
def transfer(
    names: tuple[str, ...],
    to: str,
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    yes: bool,
    dry_run: bool,
    emergency: str,
) -> int:
    """Hand resources to another owner; nothing else of them changes.

    They have to be gone from the files of this owner first, and to be declared in those of the other one, in
    whatever order.
    """
    session = open_session(config_path, target_name, dsn)
    if to == session.config.owner:
        raise click.UsageError(f"they are of {to} already: --to names another owner")
    return _give_up(session, Handover(names=names, to=to), asks=not yes, dry_run=dry_run, emergency=emergency)


def _give_up(session: Session, handover: Handover, *, asks: bool, dry_run: bool, emergency: str) -> int:
    from reconciler.database.apply import plan_target
    from reconciler.database.statements import Request

    request = Request(
        specs=session.load_specs(may_be_empty=True),
        owner=session.config.owner,
        target=session.target,
        handover=handover,
        actor=find_actor(os.environ),
        commit=find_commit(os.environ),
        emergency=emergency,
    )
    with session.connect() as conn:
        planned = plan_target(conn, request)
        show_plan(planned, request, "text")
        if dry_run:
            return exits.DONE
        return apply_shown(conn, planned, request, allow_deletes=None, asks=asks)
