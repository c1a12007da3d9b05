"""The commands `validate` and `schema`: files only, no database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.session import config_option, open_session, target_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@config_option
@target_option
@click.option("--all-targets", is_flag=True, help="Check the specs of every target.")
def validate(config_path: Path | None, target_name: str | None, all_targets: bool) -> int:
    """Check the files without a database; all problems are shown at once.

    Schedules are checked for the target's pg_cron version where the configuration names it, otherwise for
    any.
    """
    session = open_session(config_path, target_name, "")
    names = sorted(session.config.targets) if all_targets else [session.target.name]
    for name in names:
        specs = open_session(config_path, name, "").load_specs()
        counts = Counter(spec.kind for spec in specs)
        what = ", ".join(
            f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items())
        )
        click.echo(f"{name}: {what}: valid.")
    return exits.DONE


@click.command()
@click.argument("name", type=click.Choice(("jobs", "config", "plan")), default="jobs")
def schema(name: str) -> int:
    """Print a JSON Schema: of spec files (jobs), reconciler.yaml (config) or plan --format json (plan)."""
    from reconciler.resources import read_resource

    click.echo(read_resource("schemas", f"{name}.schema.json"), nl=False)
    return exits.DONE
