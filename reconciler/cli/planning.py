"""The command `plan`, and what others share with it: look, and change nothing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.annotating import annotate_option
from reconciler.cli.fleets import Choice, fleet_options
from reconciler.cli.selecting import make_selection, selection_options, store_paths
from reconciler.cli.session import Session, open_session

if TYPE_CHECKING:
    from reconciler.core.plan import Plan
    from reconciler.core.selection import Selection
    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request

FORMATS = ("text", "json", "markdown", "sql")

format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to show it."
)


def make_request(
    session: Session, adopt: tuple[str, ...] = (), selection: Selection | None = None
) -> Request:
    """Load the specs and make the request of a plan or an apply.

    Args:
        session: With the target.
        adopt: Names of entries that may be taken over.
        selection: What is planned of all that is declared; None, or an empty one, for everything.

    Returns:
        The request.

    Raises:
        ReconcilerError: The selection fits nothing.
    """
    from reconciler.runtime.plans import make_plan_request

    return make_plan_request(
        session.config,
        session.target,
        session.load_specs(),
        environment=os.environ,
        adopt=adopt,
        selection=selection,
    )


def show_plan(planned: Planned, request: Request, form: str) -> None:
    """Print a plan.

    Args:
        planned: The plan.
        request: What it was made of.
        form: One of `FORMATS`.
    """
    if form == "json":
        from reconciler.core import plan_documents

        text = plan_documents.render_plan(planned.plan, planned.fingerprints())
    elif form == "markdown":
        from reconciler.core import plan_documents
        from reconciler.core.pull_comment import Subject, render_comment

        value = plan_documents.make_value(planned.plan, planned.fingerprints())
        text = render_comment(value, Subject(target=planned.plan.target))
    elif form == "sql":
        from reconciler.database.script import render_script

        text = render_script(planned, request)
    else:
        from reconciler.cli import render_text

        text = render_text.render_plan(planned.plan) + "\n"
    click.echo(text, nl=False)


def plan_session(session: Session, request: Request, *, check: bool) -> Planned:
    """Plan on the target of a session.

    Args:
        session: With the target.
        request: Made of it.
        check: Whether the server also plans the SQL that is new or edited.

    Returns:
        The plan.

    Raises:
        InvalidInputError: The server cannot take some of the specs.
        ReconcilerError: As `plan_target`.
    """
    from reconciler.database.apply import plan_target
    from reconciler.runtime.plans import refuse_problems

    with session.connect() as conn:
        planned = plan_target(conn, request)
        refuse_problems(planned)
        if check:
            from reconciler.cli.body_checking import check_plan

            planned = check_plan(conn, planned, request.specs, request.target)
    return planned


@click.command()
@annotate_option
@fleet_options(changes=False)
@selection_options
@format_option
@click.option("--adopt", multiple=True, metavar="NAME", help="Take over an entry that nobody declared.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Save the plan, for a review and for apply FILE.",
)
@click.option(
    "--exit-code", is_flag=True, help="Exit with 3 when there are changes, 4 when some are refused."
)
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Let the server plan the SQL that is new or edited, as the job's role; executes nothing.",
)
def plan(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    fleet: Choice | None,
    only: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    paths: tuple[str, ...],
    form: str,
    adopt: tuple[str, ...],
    out: Path | None,
    exit_code: bool,
    check: bool,
) -> int:
    """Show what an apply would change; changes nothing.

    A role that may only read is enough.
    """
    selection = make_selection(only, labels, paths)
    if fleet is not None:
        from reconciler.cli.fleet_commands import plan_fleet

        if out is not None:
            raise click.UsageError("a plan is saved for one target: leave --out out, or name one target")
        return plan_fleet(
            fleet,
            lambda session: make_request(session, adopt, selection),
            form=form,
            check=check,
            exit_code=exit_code,
        )
    session = open_session(config_path, target_name, dsn)
    request = make_request(session, adopt, selection)
    planned = plan_session(session, request, check=check)
    if out is not None:
        from reconciler.cli.plan_files import write_plan

        write_plan(out, planned, adopt, store_paths(selection, session.config))
    show_plan(planned, request, form)
    if out is not None and form == "text":
        click.echo(
            f"Saved: reconciler apply {shlex.quote(str(out))} does exactly this, or nothing.", err=True
        )
    return find_plan_code(planned.plan) if exit_code else exits.DONE


def find_plan_code(plan: Plan) -> int:
    """Find what --exit-code says of a plan.

    Args:
        plan: Of one target.

    Returns:
        3 where there are changes, 4 where some are refused, else 0.
    """
    if plan.is_empty:
        return exits.DONE
    return exits.REFUSED if plan.refused else exits.CHANGES
