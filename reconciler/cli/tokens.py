"""The commands `token create|list|revoke`: who may call the service. Shows a token, once."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options
from reconciler.core.api_tokens import SCOPES

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from reconciler.core.api_tokens import ApiToken


def _read_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    from reconciler.core.names import is_name

    if is_name(value):
        return value
    # Not repeated: somebody may have pasted a token.
    raise click.BadParameter(
        "a name has 1 to 63 lower-case letters, digits, dots, underscores and hyphens, "
        "and begins and ends with a letter or digit"
    )


@click.group()
def token() -> None:
    """Make, list and revoke the tokens that open the service."""


@token.command()
@target_options
@click.argument("name", callback=_read_name)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it opens; give it several times for more.",
)
@click.option(
    "--expires", type=read_duration, metavar="DURATION", help="How long it is good, such as 90d [for ever]."
)
def create(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    name: str,
    scopes: tuple[str, ...],
    expires: timedelta | None,
) -> int:
    """Make a token and print it, this once: only its digest is kept.

    read: look at everything. trigger: start, pause, resume and cancel runs. write: make, change and delete
    jobs of the owner api, and put, retry and cancel queued jobs. run: call the run endpoint.
    """
    from reconciler.core.api_tokens import ID_BYTES, SECRET_BYTES, make_digest, make_token, read_scopes
    from reconciler.database.api_tokens import create_token

    expires_at = None if expires is None else datetime.now(UTC) + expires
    session = open_session(config_path, target_name, dsn)
    made = make_token(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
    with session.connect() as conn:
        kept = create_token(
            conn,
            token_id=made.id,
            name=name,
            digest=make_digest(made),
            scopes=read_scopes(scopes),
            expires_at=expires_at,
        )
    click.echo(made.render().reveal())
    click.echo(f"It opens {', '.join(kept.scopes)} {_describe_end(kept)}. It is not shown again.", err=True)
    return exits.DONE


@token.command("list")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Show them as JSON.")
def list_(config_path: Path | None, target_name: str | None, dsn: str | None, as_json: bool) -> int:
    """Show all tokens, without what opens: names, ids, scopes, and when each was used last."""
    from reconciler.cli.tables import render_json_rows, render_table
    from reconciler.database.api_tokens import list_tokens

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        found = list_tokens(conn)
    now = datetime.now(UTC)
    if as_json:
        click.echo(render_json_rows(_to_json(one, now) for one in found))
    elif found:
        head = ["name", "id", "scopes", "state", "expires", "last used", "created"]
        click.echo(render_table(head, [_to_row(one, now) for one in found]))
    else:
        click.echo("No tokens: reconciler token create makes one.")
    return exits.DONE


@token.command()
@target_options
@click.argument("given", metavar="NAME|ID")
def revoke(config_path: Path | None, target_name: str | None, dsn: str | None, given: str) -> int:
    """Let a token open nothing any more; services that run know of it within five seconds."""
    from reconciler.core.api_tokens import parse_token
    from reconciler.database.api_tokens import revoke_token

    whole = parse_token(given)
    if whole is None and given.startswith("rct_"):
        raise click.BadParameter("this is a part of a token: give its name or its id", param_hint="NAME|ID")
    # Of a whole token its id is enough, so that nothing repeats the rest.
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        revoked = revoke_token(conn, given if whole is None else whole.id)
    click.echo(f"Revoked {revoked.name} ({revoked.id}).")
    return exits.DONE


def _describe_end(kept: ApiToken) -> str:
    from reconciler.cli.times import render_instant

    return "until it is revoked" if kept.expires_at is None else f"until {render_instant(kept.expires_at)}"


def _to_row(kept: ApiToken, now: datetime) -> list[str]:
    from reconciler.cli.times import render_instant
    from reconciler.core.api_tokens import find_state

    state = find_state(kept, now)
    times = [
        "never" if at is None else render_instant(at)
        for at in (kept.expires_at, kept.last_used_at, kept.created_at)
    ]
    return [kept.name, kept.id, ",".join(kept.scopes), state, *times]


def _to_json(kept: ApiToken, now: datetime) -> dict[str, Any]:
    from reconciler.core.api_tokens import find_state

    def render(at: datetime | None) -> str | None:
        return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")

    return {
        "id": kept.id,
        "name": kept.name,
        "scopes": list(kept.scopes),
        "state": find_state(kept, now),
        "created_at": render(kept.created_at),
        "created_by": kept.created_by,
        "expires_at": render(kept.expires_at),
        "revoked_at": render(kept.revoked_at),
        "last_used_at": render(kept.last_used_at),
    }
