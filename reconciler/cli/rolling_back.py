"""The command `rollback`: the state after a revision becomes a plan like any other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.applying import apply_shown, consent_option, emergency_option
from reconciler.cli.asking import dry_run_option, yes_option
from reconciler.cli.planning import FORMATS, show_plan
from reconciler.cli.session import open_session, target_options
from reconciler.core.askers import find_actor
from reconciler.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from reconciler.cli.session import Session
    from reconciler.core.history import Restored
    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request


@click.command()
@click.argument("number", metavar="REV", type=click.IntRange(min=1))
@target_options
@yes_option
@dry_run_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How to show the plan.",
)
@consent_option
@emergency_option
def rollback(
    number: int,
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    yes: bool,
    dry_run: bool,
    form: str,
    allow_deletes: int | str | None,
    emergency: str,
) -> int:
    """Make the target as it was declared after a revision, in one transaction.

    Shows the plan first and asks. Limits, protections and policies hold as for any plan. The files are not
    touched: until they are put back too, the next apply of them undoes the rollback.
    """
    if form != "text" and not dry_run:
        raise click.UsageError("--format goes with --dry-run")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        request = _make_request(conn, session, number, emergency)
        planned = show_past_plan(conn, request, form)
        if dry_run:
            return exits.DONE
        return apply_shown(conn, planned, request, allow_deletes=allow_deletes, asks=not yes)


def _make_request(conn: psycopg.Connection, session: Session, number: int, emergency: str) -> Request:
    from reconciler.database.history import find_restored, find_revision

    restored = find_restored(conn, number, owner=session.config.owner)
    # What is applied is what the files of that commit declared.
    commit = find_revision(conn, number).commit
    return make_past_request(session, restored, commit=commit, emergency=emergency)


def make_past_request(session: Session, restored: Restored, *, commit: str, emergency: str) -> Request:
    """Make the request of a plan for what was declared once.

    Args:
        session: With the target.
        restored: What was declared.
        commit: Of the files, for the revision; "" if unknown.
        emergency: Why windows do not count for once; "" where they do.

    Returns:
        The request.

    Raises:
        RefusedError: This release, this configuration or a policy has something against it.
    """
    from reconciler.database.statements import Request
    from reconciler.loader.past_specs import build_past_specs

    return Request(
        specs=build_past_specs(restored, session.config, session.target),
        past=restored.past,
        owner=session.config.owner,
        target=session.target,
        actor=find_actor(os.environ),
        commit=commit,
        emergency=emergency,
    )


def show_past_plan(conn: psycopg.Connection, request: Request, form: str) -> Planned:
    """Plan what was declared once, and show it.

    Args:
        conn: To the target.
        request: From `make_past_request`.
        form: How to show it.

    Returns:
        The plan.

    Raises:
        RefusedError: The server cannot take it.
    """
    from reconciler.database.apply import plan_target

    planned = plan_target(conn, request)
    if planned.problems:
        # Their lines are those of the files of then.
        what = "" if request.past is None else request.past.label
        raise RefusedError(
            f"{what} cannot be restored: " + "; ".join(problem.message for problem in planned.problems),
            remedy="nothing was changed; mend the files instead and apply them",
        )
    show_plan(planned, request, form)
    return planned
