"""The commands `history`, `history show` and `blame`: who changed what, when and why; they change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

json_option = click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")


@click.group(invoke_without_command=True)
@target_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--all", "everybody", is_flag=True, help="Of all owners, not of this configuration's alone.")
@json_option
@click.pass_context
def history(
    ctx: click.Context,
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    limit: int,
    everybody: bool,
    as_json: bool,
) -> int:
    """List the revisions, the newest first: each apply that changed something."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = (config_path, target_name, dsn)
        return exits.DONE
    from reconciler.cli.render_history import head_to_json, render_revisions
    from reconciler.cli.tables import render_json_rows
    from reconciler.database.history import list_revisions

    session = open_session(config_path, target_name, dsn)
    owner = None if everybody else session.config.owner
    with session.connect() as conn:
        found = list_revisions(conn, owner=owner, limit=limit)
    if as_json:
        click.echo(render_json_rows(map(head_to_json, found)))
    elif found:
        click.echo(render_revisions(found, with_owner=everybody))
    else:
        click.echo("Nothing was applied yet." if everybody else f"Nothing was applied yet by {owner}.")
    return exits.DONE


@history.command()
@click.argument("number", metavar="REV", type=click.IntRange(min=1))
@target_options
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How to show it.",
)
@click.pass_context
def show(
    ctx: click.Context,
    number: int,
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    form: str,
) -> int:
    """Show a revision with its changes, whoever's it is: each before and after, as its plan showed it."""
    from reconciler.cli.render_history import render_whole, whole_to_json
    from reconciler.database.history import find_revision

    outer_config, outer_target, outer_dsn = ctx.obj
    session = open_session(config_path or outer_config, target_name or outer_target, dsn or outer_dsn)
    with session.connect() as conn:
        found = find_revision(conn, number)
    if form == "json":
        click.echo(json.dumps(whole_to_json(found), indent=2, ensure_ascii=False))
    else:
        click.echo(render_whole(found))
    return exits.DONE


@click.command()
@click.argument("name", metavar="NAME")
@target_options
@json_option
def blame(
    name: str, config_path: Path | None, target_name: str | None, dsn: str | None, as_json: bool
) -> int:
    """Say who changed a resource last, from what to what, by which files; also of one that is gone.

    The resource may be anybody's, and may have had other names.
    """
    from reconciler.cli.render_history import render_blame, touch_to_json
    from reconciler.cli.tables import render_json_rows
    from reconciler.database.history import list_touches

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        touches = list_touches(conn, name)
    click.echo(render_json_rows(map(touch_to_json, touches)) if as_json else render_blame(name, touches))
    return exits.DONE
