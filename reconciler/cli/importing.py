"""The command `import`: what runs today, in a database or by its files, becomes a spec file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import Session, open_session, target_options
from reconciler.errors import InvalidInputError, ReconcilerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKENS = (
    "The token of each worker is on the target, under the name that stands here. reconciler.yaml has to\n"
    "name it, below secrets; a variable that is not set leaves the token on the target as it is:"
)


@click.command("import")
@target_options
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; - prints it [imported.yaml in the first folder of jobs].",
)
@click.option(
    "--from",
    "scripts",
    multiple=True,
    metavar="PATH",
    help="Read SQL migrations instead: files, folders, patterns, in the order of their names.",
)
@click.argument("more_scripts", nargs=-1, metavar="[PATH]...")
@click.option("--crontab", metavar="FILE", help="Read a crontab instead; - reads standard input.")
@click.option("--system", is_flag=True, help="The crontab has a column of users, as /etc/crontab has.")
@click.option(
    "--timezone", metavar="ZONE", help="The zone of the crontab's machine, where no CRON_TZ names one."
)
@click.option("--database", metavar="NAME", help="Only the crontab's jobs on this database.")
@click.option(
    "--owner",
    type=click.Choice(["api"]),
    help="Write the jobs that were made through the service instead.",
)
def import_(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    output: Path | None,
    scripts: tuple[str, ...],
    more_scripts: tuple[str, ...],
    crontab: str | None,
    system: bool,
    timezone: str | None,
    database: str | None,
    owner: str | None,
) -> int:
    """Write what runs today as a spec file.

    Without --from and --crontab: the entries of cron.job that nobody declared, and the workers made in SQL.
    The plan after it has nothing to change: the entries stay as they are, and the next apply marks them as
    ours. The target is only read.

    With --owner api, the jobs that were made through the service; the next apply takes them over likewise.

    With --from, what SQL migrations leave in cron.job; with --crontab, what lines of a crontab do in a
    database. Nothing is connected to then. What cannot be read is reported and never guessed.

    A file that exists is never overwritten.
    """
    _check_usage(scripts, more_scripts, crontab, dsn, crontab_only=bool(system or timezone or database))
    if owner is not None:
        if scripts or crontab:
            raise click.UsageError("--owner is about the target: give neither --from nor --crontab.")
        return _import_service_jobs(open_session(config_path, target_name, dsn), output)
    if scripts or crontab:
        from reconciler.cli.import_files import import_crontab_file, import_script_files

        session = None if output == Path("-") else open_session(config_path, target_name)
        if scripts:
            paths = [*scripts, *more_scripts]
            return import_script_files(paths, session, output, by_name=bool(more_scripts))
        return import_crontab_file(
            crontab or "-",
            session,
            output,
            has_users=system,
            timezone=timezone or "",
            database=database or "",
        )
    return _import_entries(open_session(config_path, target_name, dsn), output)


def _check_usage(
    scripts: tuple[str, ...],
    more: tuple[str, ...],
    crontab: str | None,
    dsn: str | None,
    *,
    crontab_only: bool,
) -> None:
    if more and not scripts:
        raise click.UsageError(
            f"What is {more[0]}? Write --from {more[0]} for SQL, --crontab {more[0]} for a crontab."
        )
    if scripts and crontab:
        raise click.UsageError("--from and --crontab are two imports: give one of them.")
    if crontab_only and not crontab:
        raise click.UsageError(
            "--system, --timezone and --database are about a crontab: give --crontab FILE."
        )
    if dsn and (scripts or crontab):
        raise click.UsageError("Files are read without a connection: leave --dsn out.")


def _import_entries(session: Session, output: Path | None) -> int:
    """Import what is in the database."""
    from reconciler.core.imports.entries import import_entries
    from reconciler.database.observe import observe, require_pg_cron

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
    from reconciler.core.imports.results import suggest_variable

    secrets = {name: suggest_variable(name.removeprefix("worker.")) for name in imported.secrets}
    where = f"{observed.facts.database}, role {observed.facts.role}; mode direct keeps each command as it was"
    text = render_spec_file(imported.jobs, imported.workers, where=where, tokens=_TOKENS, secrets=secrets)
    if output == Path("-"):
        click.echo(text, nl=False)
        return exits.DONE
    path, unknown = write_spec_file(session, output, text, secrets)
    click.echo(f"Imported {count_imported(imported.jobs, imported.workers, 'entry', 'entries')} into {path}.")
    if unknown:
        click.echo(f"First add to secrets in {session.config.path}; the tokens are on the target already:")
        click.echo("".join(f"  {line}\n" for line in unknown), nl=False)
    click.echo("Run reconciler plan: it has nothing to change; the next apply marks them as yours.")
    return exits.DONE


def _import_service_jobs(session: Session, output: Path | None) -> int:
    """Import what was made through the service."""
    from reconciler.core.imports.entries import find_service_jobs
    from reconciler.database.observe import observe, require_pg_cron
    from reconciler.loader.written_specs import make_declaration

    with session.connect() as conn:
        observed = observe(conn).state
    require_pg_cron(observed.facts)
    found = find_service_jobs(observed, role=session.target.role)
    jobs = {name: make_declaration(declared) for name, declared in found.items()}
    if not jobs:
        click.echo("Nothing to import: no job of the owner api is on this target.", err=True)
        return exits.DONE
    where = f"{observed.facts.database}, where they were made through the service"
    text = render_spec_file(jobs, {}, where=where, tokens="", secrets={})
    if output == Path("-"):
        click.echo(text, nl=False)
        return exits.DONE
    path, _ = write_spec_file(session, output, text, {})
    click.echo(f"Imported {count_imported(jobs, {}, 'job', 'jobs')} into {path}.")
    click.echo("Run reconciler plan: it has nothing to change; the next apply marks them as yours.")
    return exits.DONE


def count_imported(jobs: Mapping[str, object], workers: Mapping[str, object], one: str, many: str) -> str:
    """Say how much was imported.

    Args:
        jobs: By name.
        workers: By name.
        one: What a job is called here.
        many: What several are called.

    Returns:
        Such as `2 entries and 1 worker`.
    """
    parts = [f"{len(jobs)} {one if len(jobs) == 1 else many}"] if jobs else []
    parts += [f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}"] if workers else []
    return " and ".join(parts)


def render_spec_file(
    jobs: Mapping[str, Mapping[str, Any]],
    workers: Mapping[str, Mapping[str, Any]],
    *,
    where: str,
    tokens: str,
    secrets: Mapping[str, str],
) -> str:
    """Render declarations as a spec file.

    Args:
        jobs: As they stand below `jobs:`.
        workers: As they stand below `workers:`.
        where: What they were imported from.
        tokens: What to do about the secrets.
        secrets: The environment variable suggested for each secret that is named.

    Returns:
        YAML that our reader reads back to the same values, to the letter.
    """
    from reconciler.loader.written_specs import SCHEMA_LINE, render_sections

    parts = [f"{SCHEMA_LINE}# Imported from {' '.join(where.split())}.\n"]
    if secrets:
        lines = [*tokens.split("\n"), *(f"  {line}" for line in suggest_secrets(secrets))]
        parts.append("".join(f"# {line}\n" for line in lines))
    body = render_sections({"jobs": jobs, "workers": workers})
    return "\n".join([*parts, *([body] if body else [])])


def suggest_secrets(secrets: Mapping[str, str]) -> list[str]:
    """Say where tokens could be kept, as lines for reconciler.yaml.

    Args:
        secrets: The environment variable for each.

    Returns:
        One line for each.
    """
    return [f"{name}: {{env: {variable}}}" for name, variable in secrets.items()]


def write_spec_file(
    session: Session, output: Path | None, text: str, secrets: Mapping[str, str]
) -> tuple[Path, list[str]]:
    """Write a spec file and read it as an apply would; one that cannot be read is removed again.

    Args:
        session: Where to.
        output: The file; None for the usual one.
        text: What to write.
        secrets: The environment variable suggested for each secret that is named.

    Returns:
        The file, and the lines that reconciler.yaml lacks below secrets.
    """
    path = output or _choose_path(session)
    _write_new(path, text)
    unknown = {name: secrets[name] for name in secrets if name not in session.config.secrets}
    try:
        _check(session, unknown)
    except InvalidInputError:
        path.unlink()
        raise
    return path, suggest_secrets(unknown)


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
            f"cannot write {path}: {error.strerror}", remedy="say where to write with --output"
        ) from None
