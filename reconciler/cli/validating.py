"""The commands `validate` and `schema`: files alone; with `--connect` the server reads the SQL too."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.session import (
    Session,
    config_option,
    dsn_option,
    open_session,
    read_config,
    target_option,
)
from reconciler.errors import InvalidInputError, ReconcilerError
from reconciler.loader.config import resolve_target
from reconciler.loader.specs import load_sources, load_specs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reconciler.core.config import Target
    from reconciler.core.specs import Spec


@click.command()
@config_option
@target_option
@dsn_option
@click.option("--all-targets", is_flag=True, help="Check the specs of every target.")
@click.option(
    "--connect",
    "connects",
    is_flag=True,
    help="Let the target's server plan the SQL of all jobs, each as its role; executes nothing.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "github", "gitlab")),
    default="text",
    show_default=True,
    help="Problems as text, as annotations of GitHub, or as a code quality report of GitLab.",
)
def validate(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    all_targets: bool,
    connects: bool,
    form: str,
) -> int:
    """Check the files without a database; all problems are shown at once.

    Schedules are checked for the target's pg_cron version where the configuration names it, otherwise for
    any. With --connect or --dsn the target's server also parses and plans the SQL of managed jobs.
    """
    if dsn is not None and all_targets:
        raise click.UsageError("--dsn leads to one target: leave out --all-targets")
    found: list[str] = []
    errors: list[ReconcilerError] = []
    connects = connects or dsn is not None
    names: list[str] = []
    try:
        session = open_session(config_path, target_name, "")
        names = sorted(session.config.targets) if all_targets else [session.target.name]
        config = read_config(config_path, dsn) if connects else session.config
        files = load_sources(config)
    except ReconcilerError as error:
        if form == "text":
            raise
        errors.append(error)
    for name in names:
        try:
            target = resolve_target(config, name, environment=os.environ)
            specs = load_specs(config, target, files)
            line = _check_target(Session(config=config, target=target, specs=specs), connects=connects)
        except ReconcilerError as error:
            if form == "text":
                raise
            errors.append(error)
        else:
            found.append(line)
            if form == "text":
                click.echo(line)
    if form != "text":
        _report(errors, found, form)
    return exits.pick_exit_code(errors[0]) if errors else exits.DONE


def _check_target(session: Session, *, connects: bool) -> str:
    """Check the specs of one target, and say what they are."""
    specs = session.load_specs()
    _warn(session.target, specs)
    _check_bodies(session, specs, connects=connects)
    counts = Counter(spec.kind for spec in specs)
    what = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))
    return f"{session.target.name}: {what}: valid."


def _check_bodies(session: Session, specs: Sequence[Spec], *, connects: bool) -> None:
    """Check the SQL of jobs: by the server, or by its grammar alone where that is installed."""
    from reconciler.cli.body_checking import check_specs, has_bodies, parse_bodies
    from reconciler.loader.sql_syntax import HINT, can_parse

    if not has_bodies(specs):
        return
    if connects:
        with session.connect() as conn:
            checked = check_specs(conn, specs, session.target)
    elif can_parse():
        checked = parse_bodies(specs)
    else:
        _hint(HINT)
        return
    for note in checked.list_notes():
        click.echo(note, err=True)
    problems = checked.list_problems()
    if problems:
        raise InvalidInputError(problems)


def _hint(text: str) -> None:
    """Say something once, however many targets are checked."""
    meta = click.get_current_context().meta
    if text not in meta:
        meta[text] = True
        click.echo(text, err=True)


def _warn(target: Target, specs: Sequence[Spec]) -> None:
    """Say what breaks policies that only warn."""
    from reconciler.core.spec_policies import SpecJudge
    from reconciler.loader.problems import describe_place

    warning = [policy for policy in target.governance.specs if policy.level == "warn"]
    for violation in SpecJudge(warning, role=target.role).judge(specs):
        click.echo(describe_place(violation.spec.place, f"warning: {violation.message}"), err=True)


def _report(errors: list[ReconcilerError], found: list[str], form: str) -> None:
    """Print the problems of all targets, each once, in the form of a forge."""
    from reconciler.cli.annotating import list_annotations, render_github, render_gitlab

    problems = list(dict.fromkeys(one for error in errors for one in list_annotations(error, os.environ)))
    if form == "gitlab":
        click.echo(render_gitlab(problems), nl=False)
    else:
        click.echo(render_github(problems) + "".join(f"{line}\n" for line in found), nl=False)


@click.command()
@click.argument("name", type=click.Choice(("jobs", "config", "plan", "openapi")), default="jobs")
def schema(name: str) -> int:
    """Print a JSON Schema: of spec files (jobs), reconciler.yaml (config) or plan --format json (plan).

    `openapi` is the OpenAPI document of the service.
    """
    from reconciler.resources import read_resource

    if name == "openapi":
        from reconciler.api.service import describe_service

        click.echo(json.dumps(describe_service(), indent=2, ensure_ascii=False))
        return exits.DONE
    click.echo(read_resource("schemas", f"{name}.schema.json"), nl=False)
    return exits.DONE
