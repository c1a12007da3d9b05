"""The command `import`: entries that nobody declared, and workers made in SQL, become a spec file."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import Session, open_session, target_options
from reconciler.errors import InvalidInputError, ReconcilerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.importing import Imported

_PLAIN = re.compile(r"[A-Za-z][A-Za-z_-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_TOKENS = """\
# The token of each worker is on the target, under the name that stands here. reconciler.yaml has to name it,
# below secrets; a variable that is not set leaves the token on the target as it is:
"""
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
    """Write entries of cron.job that nobody declared, and workers made in SQL, as a spec file.

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
    if not imported.jobs and not imported.workers:
        click.echo("Nothing to import.", err=True)
        return exits.DONE
    where = f"{observed.facts.database}, role {observed.facts.role}"
    text = render_imported(imported, where=where, schema="../schemas/jobs.schema.json")
    if output == Path("-"):
        click.echo(text, nl=False)
        return exits.DONE
    path = output or _choose_path(session)
    _write_new(path, text)
    unknown = [name for name in imported.secrets if name not in session.config.secrets]
    try:
        _check(session, unknown)
    except InvalidInputError:
        path.unlink()
        raise
    _report(imported, path, session, unknown)
    return exits.DONE


def render_imported(imported: Imported, *, where: str, schema: str) -> str:
    """Render declarations as a spec file.

    Args:
        imported: The declarations.
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

    def render(section: str, declared: Mapping[str, Mapping[str, Any]]) -> str:
        value = {section: {name: dict(one) for name, one in declared.items()}}
        return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100_000)

    parts = [_HEAD.format(schema=schema, where=where)]
    if imported.jobs:
        parts.append(render("jobs", imported.jobs))
    if imported.workers:
        lines = (f"#   {line}\n" for line in _suggest_secrets(imported.secrets))
        comment = _TOKENS + "".join(lines) if imported.secrets else ""
        parts.append(comment + render("workers", imported.workers))
    return "\n".join(parts)


def _suggest_secrets(names: Iterable[str]) -> Iterator[str]:
    """Say where tokens could be kept; a variable that is not set leaves the target's own as it is."""
    for name in names:
        variable = re.sub(r"[^A-Z0-9]", "_", name.removeprefix("worker.").upper())
        yield f"{name}: {{env: {'WORKER_' if variable[0].isdigit() else ''}{variable}_TOKEN}}"


def _check(session: Session, unknown: Iterable[str]) -> None:
    """Read the files as an apply would, once the new secrets are in reconciler.yaml."""
    from reconciler.core.config import Secret

    known = {name: Secret(name=name, store="env", key="") for name in unknown}
    config = replace(session.config, secrets={**session.config.secrets, **known})
    replace(session, config=config).load_specs()


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


def _report(imported: Imported, path: Path, session: Session, unknown: list[str]) -> None:
    count, workers = len(imported.jobs), len(imported.workers)
    parts = [f"{count} {'entry' if count == 1 else 'entries'}"] if count else []
    parts += [f"{workers} {'worker' if workers == 1 else 'workers'}"] if workers else []
    click.echo(f"Imported {' and '.join(parts)} into {path}.")
    if unknown:
        click.echo(f"First add to secrets in {session.config.path}; the tokens are on the target already:")
        click.echo("".join(f"  {line}\n" for line in _suggest_secrets(unknown)), nl=False)
    click.echo("Run reconciler plan: it has nothing to change; the next apply marks them as yours.")
