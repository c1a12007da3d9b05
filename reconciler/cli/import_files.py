"""Import from files: SQL migrations and crontabs; nothing is connected to."""

from __future__ import annotations

import glob
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from reconciler.cli import exits
from reconciler.cli.importing import (
    count_imported,
    render_spec_file,
    write_spec_file,
)
from reconciler.errors import ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reconciler.cli.session import Session
    from reconciler.core.imports.results import ImportedFiles

_TOKENS: Final = (
    "The tokens are not here. reconciler.yaml has to name each of them below secrets, and where it is kept:"
)
_DOWN: Final = ".down.sql"


def import_script_files(
    paths: Sequence[str], session: Session | None, output: Path | None, *, by_name: bool
) -> int:
    """Import what SQL migrations leave in cron.job.

    Args:
        paths: Files, folders and patterns.
        by_name: Whether the order of `paths` means nothing, since a shell made it.
        session: Where to write; None to print.
        output: The file to write; None for the usual one.

    Returns:
        The exit code.
    """
    from reconciler.core.imports.scripts import import_scripts
    from reconciler.loader.sql_texts import find_sql_fault

    files, undoing = find_scripts(paths, by_name=by_name)
    for path in undoing:
        click.echo(f"Note: {path}: it undoes a migration, and was not read", err=True)
    scripts = [(str(path), _read(path)) for path in files]
    imported = import_scripts(scripts, find_fault=find_sql_fault)
    named = f"{files[0]} to {files[-1]}" if len(files) > 1 else str(files[0])
    where = f"{named}; mode direct keeps each command as it was"
    return _finish(
        imported,
        session,
        output,
        where=where,
        end="Run reconciler plan: where these files made cron.job what it is, it has nothing to change; the "
        "next apply marks the entries as yours.",
    )


def import_crontab_file(
    path: str,
    session: Session | None,
    output: Path | None,
    *,
    has_users: bool,
    timezone: str,
    database: str,
) -> int:
    """Import what the lines of a crontab do in a database.

    Args:
        path: The file; - for standard input.
        session: Where to write; None to print.
        output: The file to write; None for the usual one.
        has_users: Whether it has a column of users.
        timezone: The zone of its machine; "" for unknown.
        database: The only one whose jobs are wanted; "" for any.

    Returns:
        The exit code.
    """
    from reconciler.core.imports.crontabs import import_crontab
    from reconciler.loader.sql_texts import find_sql_fault

    def read_file(name: str) -> str | None:
        file = Path(name)
        return _read(file) if file.is_file() else None

    text = sys.stdin.read() if path == "-" else _read(Path(path))
    imported = import_crontab(
        text,
        path="crontab" if path == "-" else path,
        find_fault=find_sql_fault,
        read_file=read_file,
        has_users=has_users,
        timezone=timezone,
        database=database,
    )
    return _finish(
        imported,
        session,
        output,
        where="a crontab" if path == "-" else path,
        end="Run reconciler plan; once it is applied, take these lines out of the crontab.",
    )


def find_scripts(paths: Sequence[str], *, by_name: bool = False) -> tuple[list[Path], list[Path]]:
    """Find SQL files in the order in which migrations run.

    Args:
        paths: Files, folders and patterns, each kept in its place; `*.sql` below a folder, and what fits a
            pattern, in the order of their names, where numbers count as numbers.
        by_name: Whether all files are put into that order.

    Returns:
        The files, each once; and those that undo migrations (`*.down.sql`), which are not to be read.

    Raises:
        ReconcilerError: There is no such file, or none at all.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files = _order(path.rglob("*.sql"), path)
        elif path.is_file():
            files = [path]
        else:
            files = _order(map(Path, glob.glob(given, recursive=True)), Path())  # noqa: PTH207 - absolute ones too
        if not files:
            raise ReconcilerError(
                f"{given}: no SQL files there", remedy="name files, folders or patterns after --from"
            )
        found |= dict.fromkeys(files)
    files = _order(found, Path()) if by_name else list(found)
    undoing = [path for path in files if path.name.endswith(_DOWN)]
    kept = [path for path in files if path not in undoing]
    if not kept:
        raise ReconcilerError(f"{undoing[0]} undoes a migration", remedy="name those that make jobs")
    return kept, undoing


def _order(files: Iterable[Path], folder: Path) -> list[Path]:
    def key(path: Path) -> tuple[bool, list[tuple[int, int, str]]]:
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
        parts = re.split(r"([0-9]+)", name)
        numbered = [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]
        return path.name.startswith("R__"), numbered  # Flyway runs repeatable ones last

    return sorted((path for path in files if path.is_file()), key=key)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ReconcilerError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ReconcilerError(f"{path} is not in UTF-8", remedy="convert it first") from None


def _finish(
    imported: ImportedFiles, session: Session | None, output: Path | None, *, where: str, end: str
) -> int:
    """Write or print what was imported, and say what was not."""
    for remark in imported.remarks:
        shown = f"{remark.source}: {remark.source.text}" if remark.source.text else str(remark.source)
        click.echo(f"Note: {shown}: {remark.message}", err=True)
    for left in imported.left:
        shown = f"{left.source}: {left.source.text}" if left.source.text else str(left.source)
        click.echo(f"Left: {shown}: {left.reason}", err=True)
    if not imported.jobs and not imported.workers:
        click.echo("Nothing to import.", err=True)
        return exits.DONE
    text = render_spec_file(
        imported.jobs, imported.workers, where=where, tokens=_TOKENS, secrets=imported.secrets
    )
    if session is None:
        click.echo(text, nl=False)
        return exits.DONE
    path, unknown = write_spec_file(session, output, text, imported.secrets)
    click.echo(f"Imported {count_imported(imported.jobs, imported.workers, 'job', 'jobs')} into {path}.")
    if imported.left:
        click.echo(f"{len(imported.left)} left, see above: none of it is in that file.")
    if unknown:
        click.echo("First add to secrets in reconciler.yaml, and put each token into its variable:")
        click.echo("".join(f"  {line}\n" for line in unknown), nl=False)
    click.echo(end)
    return exits.DONE
