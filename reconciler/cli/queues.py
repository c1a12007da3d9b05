"""The command `queues`: how deep each queue is, how quick, and what holds it up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from reconciler.database.queue_health import Held, QueueHealth


@click.command()
@target_options
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Show them as JSON.")
def queues(
    config_path: Path | None, target_name: str | None, dsn: str | None, name: str | None, as_json: bool
) -> int:
    """Show how every queue fares, or NAME with the jobs that hold up its order.

    Queues that nobody declared are shown too, as long as jobs are on them.
    """
    from reconciler.cli.render_jobs import held_to_json, queue_to_json, render_held, render_queues
    from reconciler.cli.tables import render_json_rows
    from reconciler.database.queue_health import require_queues

    session = open_session(config_path, target_name, dsn)
    held: list[Held] = []
    with session.connect() as conn:
        require_queues(conn)
        found, held = _read(conn, name)
    if as_json:
        rows = [queue_to_json(queue) for queue in found]
        if name is not None:
            rows = [{**rows[0], "held": [held_to_json(one) for one in held]}]
        click.echo(render_json_rows(rows))
    elif found:
        click.echo(render_queues(found))
        if held:
            click.echo("\n" + render_held(held, datetime.now(UTC)))
    else:
        click.echo("No queues: nothing is declared, and nothing was queued.")
    return exits.DONE


def _read(conn: psycopg.Connection, name: str | None) -> tuple[list[QueueHealth], list[Held]]:
    from reconciler.core.names import find_nearest
    from reconciler.database.queue_health import read_held, read_queues
    from reconciler.errors import ConfigError

    found = read_queues(conn, name)
    if name is None:
        return found, []
    if not found:
        nearest = find_nearest(name, [queue.queue for queue in read_queues(conn)])
        raise ConfigError(
            f"there is no queue {name} on the target: it is not declared, and no jobs are on it",
            remedy=f"did you mean {nearest}?" if nearest else "reconciler queues lists them",
        )
    return found, read_held(conn, name)
