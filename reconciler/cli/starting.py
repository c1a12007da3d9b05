"""The command `init`: a first configuration and spec file."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli import exits

_CONFIG = """\
# yaml-language-server: $schema=.reconciler/schemas/config.schema.json
owner: {owner}
jobs: jobs.d
default_target: local

targets:
  # A private PostgreSQL with pg_cron: reconciler local up
  local:
    dsn: local
    prune: auto
  production:
    dsn: ${{env:DATABASE_URL}}
    prune: confirm
    grace: 7d  # what is removed stands still for so long, and restore brings it back
"""

_JOBS = """\
# yaml-language-server: $schema=../.reconciler/schemas/jobs.schema.json
jobs:
  hello:
    description: Shows that scheduled work runs; replace it with your own
    schedule: "* * * * *"
    sql: SELECT pg_notify('hello', now()::text)
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--owner", help="Whose jobs these are [the folder's name].")
def init(folder: Path, owner: str | None) -> int:
    """Write a first configuration and spec file into FOLDER [here]; overwrites nothing."""
    from reconciler.core.names import is_name
    from reconciler.resources import read_resource

    owner = owner or _make_owner(folder)
    if not is_name(owner):
        raise click.BadParameter(
            "use lower-case letters, digits, dots, underscores and hyphens", param_hint="--owner"
        )
    files = {
        folder / "reconciler.yaml": _CONFIG.format(owner=owner),
        folder / "jobs.d" / "hello.yaml": _JOBS,
        folder / ".reconciler" / "schemas" / "jobs.schema.json": read_resource("schemas", "jobs.schema.json"),
        folder / ".reconciler" / "schemas" / "config.schema.json": read_resource(
            "schemas", "config.schema.json"
        ),
        folder / ".reconciler" / ".gitignore": "*\n",
    }
    jobs = folder / "jobs.d"
    if jobs.is_dir() and any(jobs.iterdir()):
        del files[jobs / "hello.yaml"]
    for path, text in files.items():
        if path.exists():
            click.echo(f"kept    {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote   {path}")
    click.echo("Next: reconciler local up, then reconciler plan and reconciler apply.")
    return exits.DONE


def _make_owner(folder: Path) -> str:
    name = "".join(
        char if char.isascii() and char.isalnum() else "-" for char in folder.resolve().name.lower()
    )
    return name.strip("-")[:63] or "main"
