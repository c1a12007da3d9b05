"""The commands `target show` and `target claim`: where a target is at home, and making it so."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.asking import ask, yes_option
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.identity import Identity
    from reconciler.database.identity import Waiting


@click.group()
def target() -> None:
    """Show where a target is at home, and claim a copy of it."""


@target.command()
@target_options
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def show(config_path: Path | None, target_name: str | None, dsn: str | None, as_json: bool) -> int:
    """Show where the database is, where it was recorded, and whether its jobs run here.

    Exits with 1 where it is a copy, or was applied to under another name.
    """
    from reconciler.core.identity import find_home_dangers
    from reconciler.database.identity import read_identity

    session = open_session(config_path, target_name, dsn)
    owner, name = session.config.owner, session.target.name
    with session.connect() as conn:
        identity = read_identity(conn)
    dangers = find_home_dangers(identity, owner=owner, target=name)
    if as_json:
        click.echo(_render_json(identity, owner=owner, target=name, is_home=not dangers))
    else:
        click.echo(_render(identity, owner=owner, target=name))
        for danger in dangers:
            from reconciler.cli.render_text import render_finding

            click.echo("")
            click.echo(render_finding(danger))
    return exits.ERROR if dangers else exits.DONE


@target.command()
@target_options
@yes_option
@click.option("--drop-alerts", is_flag=True, help="Do not send the messages that wait to be sent.")
def claim(
    config_path: Path | None, target_name: str | None, dsn: str | None, yes: bool, drop_alerts: bool
) -> int:
    """Let the jobs of a copy run where it is, under the target's name.

    Shows what will start, and asks. For a copy that is to live on its own, a restored backup that takes the
    place of the original, and a target that was given another name.
    """
    from reconciler.core.identity import find_home_dangers
    from reconciler.database.identity import claim as claim_target
    from reconciler.database.identity import count_waiting, read_identity

    session = open_session(config_path, target_name, dsn)
    owner, name = session.config.owner, session.target.name
    with session.connect() as conn:
        identity = read_identity(conn)
        if identity is not None and not find_home_dangers(identity, owner=owner, target=name):
            click.echo(f"There is nothing to claim: the database is {name}, and at home.")
            return exits.DONE
        click.echo(_render(identity, owner=owner, target=name))
        click.echo("")
        is_copy = identity is not None and identity.state == "copy"
        click.echo(_render_waiting(count_waiting(conn), is_copy=is_copy, drops=drop_alerts))
        if not yes:
            ask(f"Claim this database as {name}?", otherwise="claim without asking")
        dropped = claim_target(conn, owner=owner, target=name, drop_alerts=drop_alerts)
    click.echo(click.style(f"Claimed as {name}.", fg="green", bold=True))
    if dropped:
        click.echo(f"Dropped: {dropped} messages.")
    click.echo("Look at reconciler plan next: it shows what the copy lacks.")
    return exits.DONE


def _render(identity: Identity | None, *, owner: str, target: str) -> str:
    from reconciler.core.identity import describe_place, explain_home

    lines = [f"target    {target}, owner {owner}"]
    if identity is None:
        return "\n".join([*lines, "home      yes: nothing is recorded, so any place is home"])
    at = identity.recorded_at.astimezone(UTC)
    known = identity.targets.get(owner)
    home = "no" if identity.state == "copy" else "yes"
    lines += [
        f"here      {describe_place(identity.here)}",
        f"recorded  {describe_place(identity.recorded)}",
        f"          on {at:%Y-%m-%d %H:%M:%SZ} by {identity.recorded_by}",
        f"known as  {known} to {owner}" if known else f"known as  nothing yet to {owner}",
        f"home      {home}: {explain_home(identity)}",
    ]
    others = sorted(set(identity.targets.items()) - {(owner, known)})
    if others:
        lines.insert(-1, "          " + ", ".join(f"{name} to {other}" for other, name in others))
    return "\n".join(lines)


def _render_waiting(waiting: Waiting, *, is_copy: bool, drops: bool) -> str:
    """Say what a claim lets loose; where the database is at home, all of it goes on already."""
    if not is_copy:
        return "Nothing starts by this: the database is at home, and only its name changes."
    parts = [
        (waiting.entries, "active entry fires", "active entries fire"),
        (waiting.jobs, "queued job is handed to workers", "queued jobs are handed to workers"),
        (
            waiting.begun,
            "queued job that was begun is tried again",
            "queued jobs that were begun are tried again",
        ),
        (waiting.starts, "run that was put off starts", "runs that were put off start"),
    ]
    if not drops:
        parts.append((waiting.alerts, "alert is sent", "alerts are sent"))
    lines = [f"  {_count(count)} {one if count == 1 else many}" for count, one, many in parts if count]
    lines = lines or ["  nothing that waits"]
    lines.append("  what was missed since the copy was made is made up for, where catch_up says so")
    if drops:
        lines.append(f"  {_count(waiting.alerts)} alerts that were not sent are dropped")
    if waiting.direct:
        lines.append(f"  {_count(waiting.direct)} direct entries are off; the next apply switches them on")
    return "\n".join([f"What will start here, of {', '.join(waiting.owners) or 'nobody'}:", *lines])


def _count(count: int) -> str:
    from reconciler.database.identity import MOST_COUNTED

    return f"{count:,}" if count <= MOST_COUNTED else f"{MOST_COUNTED:,} or more"


def _render_json(identity: Identity | None, *, owner: str, target: str, is_home: bool) -> str:
    from reconciler.core.identity import explain_home

    value: dict[str, object] = {"target": target, "owner": owner, "is_home": is_home}
    if identity is not None:
        value |= {
            "state": identity.state,
            "why": explain_home(identity),
            "here": asdict(identity.here),
            "recorded": asdict(identity.recorded),
            "recorded_at": identity.recorded_at.isoformat(),
            "recorded_by": identity.recorded_by,
            "targets": dict(identity.targets),
        }
    return json.dumps(value, indent=2, ensure_ascii=False)
