"""The command `drift`: what was changed behind the files' back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.planning import make_request, refuse_problems, show_plan
from reconciler.cli.selecting import make_selection, selection_options
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.changes import Change


@click.command()
@target_options
@selection_options
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "markdown")),
    default="text",
    show_default=True,
    help="How to show it.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 7 when there is drift.")
@click.option("--alert", "tell", is_flag=True, help="Tell the channels of the jobs whose alert.on has drift.")
def drift(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    only: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    paths: tuple[str, ...],
    form: str,
    exit_code: bool,
    tell: bool,
) -> int:
    """Show what was changed on the target behind the files' back; changes nothing.

    What the files changed and nobody applied yet is no drift; plan shows it.
    """
    from reconciler.database.apply import plan_target

    session = open_session(config_path, target_name, dsn)
    request = make_request(session, selection=make_selection(only, labels, paths))
    with session.connect() as conn:
        planned = plan_target(conn, request)
        refuse_problems(planned)
        drifted = tuple(change for change in planned.plan.changes if change.reason in {"drifted", "both"})
        if tell:
            from reconciler.database.alerts import open_drift_alerts, require_outbox

            require_outbox(conn)
            messages = {change.name: _describe_drift(change) for change in drifted}
            open_drift_alerts(conn, messages, owner=request.owner)
    shown = replace(planned, plan=replace(planned.plan, changes=drifted, notices=(), migrations=(), kept=()))
    if drifted or form != "text":
        show_plan(shown, request, form)
    else:
        click.echo(f"No drift on {planned.plan.target}: nothing was changed behind the files' back.")
    return exits.DRIFT if exit_code and drifted else exits.DONE


def _describe_drift(change: Change) -> str:
    """Say in one line what an alert tells."""
    fields = "; ".join(
        f"{field.path} is {field.before!r}, declared is {field.after!r}" for field in change.fields[:5]
    )
    return f"{change.name} was changed on the target" + (f": {fields}" if fields else "")
