"""The commands `reconciler local up|down|status|psql`: a private PostgreSQL with pg_cron to try things out.

Only parses arguments and prints; what is done lies in `reconciler.runtime.local`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reconciler.runtime.cluster import LocalServer

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".reconciler/local"),
    show_default=True,
    help="The folder of the server's state and data.",
)


@click.group()
def local() -> None:
    """Run a private, disposable PostgreSQL with pg_cron in this folder."""


@local.command()
@click.option(
    "--background-workers/--connections",
    default=None,
    help="How pg_cron runs jobs: in background workers, or over connections (the default).",
)
@click.option("--version", "major", type=int, metavar="N", help="PostgreSQL's major version [newest].")
@click.option("--database", metavar="NAME", help="The database with pg_cron [app].")
@directory_option
def up(directory: Path, background_workers: bool | None, major: int | None, database: str | None) -> None:
    """Make the server where there is none, and start it where it does not run."""
    from reconciler.runtime.local import start_local_server

    server = start_local_server(
        directory, major=major, database=database, background_workers=background_workers
    )
    click.echo(describe(server))


@local.command()
@click.option("--purge", is_flag=True, help="Remove its data too.")
@directory_option
def down(directory: Path, purge: bool) -> None:
    """Stop the server; its data stays."""
    from reconciler.runtime.local import stop_local_server

    server = stop_local_server(directory, purge=purge)
    if server is None:
        click.echo(f"No private PostgreSQL in {directory}.")
    else:
        click.echo(f"PostgreSQL {server.major} in {directory} is {'removed' if purge else 'stopped'}.")


@local.command()
@click.option(
    "--show-password", is_flag=True, help="Print the connection string over TCP, with its password."
)
@directory_option
@click.pass_context
def status(context: click.Context, directory: Path, show_password: bool) -> None:
    """Tell whether the server runs: exit code 0 if so, 1 if not."""
    from reconciler.runtime.cluster import is_running
    from reconciler.runtime.local import find_local_server

    server = find_local_server(directory)
    if server is None:
        click.echo(f"No private PostgreSQL in {directory}.")
    elif not is_running(server):
        click.echo(f"PostgreSQL {server.major} in {directory} is stopped.")
    else:
        click.echo(describe(server))
        if show_password:
            click.echo(f"  over TCP  {server.tcp_dsn}")
        return
    context.exit(1)


@local.command(context_settings={"ignore_unknown_options": True})
@directory_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
def psql(directory: Path, arguments: tuple[str, ...]) -> None:
    """Open psql on the server; ARGS go to psql as they are."""
    from psycopg.conninfo import conninfo_to_dict

    from reconciler.errors import LocalServerError
    from reconciler.runtime.local import find_local_dsn, find_psql

    parts = conninfo_to_dict(find_local_dsn(directory))
    program = find_psql(directory)
    # By the environment: a password in the arguments could be read by everybody.
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    names["password"] = "PGPASSWORD"  # noqa: S105 - the name of a variable
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment |= {variable: str(parts[name]) for name, variable in names.items() if name in parts}
    try:
        os.execve(program, [program, *arguments], environment)  # noqa: S606 - its terminal is ours
    except OSError as error:
        raise LocalServerError(f"{program} could not run: {error.strerror}") from error


def describe(server: LocalServer) -> str:
    """Render a running server for people."""
    mode = "in background workers" if server.background_workers else "over connections"
    return "\n".join(
        [
            f"PostgreSQL {server.major} is running; pg_cron runs jobs {mode}.",
            f"  dsn       {server.dsn_without_password}",
            f"  database  {server.database}",
            f"  log       {server.log_file}",
        ]
    )
