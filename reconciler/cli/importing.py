"""The command `import`: entries that nobody declared become a spec file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import Session, open_session, target_options
from reconciler.errors import InvalidInputError, ReconcilerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.importing import Imported

_PLAIN = re.compile(r"[A-Za-z][A-Za-z_-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_HEAD = """\
# yaml-language-server: $schema={schema}
# Imported from {where}; mode direct keeps each command as it was.
"""


@click.command("import")
@target_options
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; - prints it [imported.yaml in the first folder of jobs].",
)
def import_(config_path: Path | None, target_name: str | None, dsn: str | None, output: Path | None) -> int:
    """Write entries of cron.job that nobody declared as a spec file.

    The plan after it has nothing to change: the entries stay as they are, and the next apply marks them as
    ours. The target is only read; a file that exists is never overwritten.
    """
    from reconciler.core.importing import import_entries
    from reconciler.database.observe import observe, require_pg_cron

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        observed = observe(conn).state
    require_pg_cron(observed.facts)
    imported = import_entries(observed, role=session.target.role)
    for left in imported.left:
        click.echo(
            f"Left: {left.entry.name or '(no name)'} (jobid {left.entry.jobid}): {left.reason}", err=True
        )
    if not imported.jobs:
        click.echo("Nothing to import.", err=True)
        return exits.DONE
    where = f"{observed.facts.database}, role {observed.facts.role}"
    if output == Path("-"):
        click.echo(render_jobs(imported.jobs, where=where, schema="../schemas/jobs.schema.json"), nl=False)
        return exits.DONE
    path = output or _choose_path(session)
    text = render_jobs(imported.jobs, where=where, schema="../schemas/jobs.schema.json")
    _write_new(path, text)
    try:
        session.load_specs()
    except InvalidInputError:
        path.unlink()
        raise
    _report(imported, path)
    return exits.DONE


def render_jobs(jobs: Mapping[str, Mapping[str, Any]], *, where: str, schema: str) -> str:
    """Render declarations as a spec file.

    Args:
        jobs: Declarations by name.
        where: What they were imported from.
        schema: The path or URL of the JSON Schema, for editors.

    Returns:
        YAML that our reader reads back to the same values, to the letter.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes every text so that YAML 1.1 and 1.2 read it alike: plain words, blocks, or quotes."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        style = None if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else '"'
        if "\n" in text.strip("\n"):
            style = "|"
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    declared = {"jobs": {name: dict(job) for name, job in jobs.items()}}
    body = yaml.dump(declared, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100_000)
    return _HEAD.format(schema=schema, where=where) + "\n" + body


def _choose_path(session: Session) -> Path:
    folder = Path(os.path.relpath(Path(session.config.path).parent / session.config.jobs[0]))
    if not folder.is_dir():
        raise ReconcilerError(f"{folder} is no folder", remedy="say where to write with --output FILE")
    return folder / "imported.yaml"


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise RefusedError(
            f"{path} exists", remedy="remove it, or write elsewhere with --output FILE"
        ) from None
    except OSError as error:
        raise ReconcilerError(
            f"cannot write {path}: {error.strerror}", remedy="say where with --output"
        ) from None


def _report(imported: Imported, path: Path) -> None:
    count = len(imported.jobs)
    click.echo(f"Imported {count} {'entry' if count == 1 else 'entries'} into {path}.")
    click.echo("Run reconciler plan: it has nothing to change; the next apply marks them as yours.")
