"""The commands `apply` and `migrate`: the ones that change a target."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.asking import ask, yes_option
from reconciler.cli.fleets import Choice, fleet_options
from reconciler.cli.planning import make_request, show_plan
from reconciler.cli.selecting import load_paths, make_selection, selection_options
from reconciler.cli.session import open_session, target_options
from reconciler.errors import InvalidInputError, RightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from reconciler.core.saved_plans import SavedPlan
    from reconciler.database.apply import Applied, Planned
    from reconciler.database.statements import Request


_CODE = re.compile(r"[1-9][0-9]*-[0-9a-f]{6}")


def _check_reason(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
    if value is None:
        return ""
    if not (value.strip() and value.isprintable()):
        raise click.BadParameter("write one line that says why")
    return value.strip()


def _read_consent(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Read a number of deletions, or the code of a list of them."""
    if value is None or _CODE.fullmatch(value):
        return value
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(
            f"{value!r} is neither a number from 1 on nor a code such as 3-9f2c1a", ctx=ctx, param=param
        )
    return int(value)


consent_option = click.option(
    "--allow-deletes",
    callback=_read_consent,
    metavar="N|CODE",
    help="Consent to exactly N deletions, or to the very list whose CODE the plan shows.",
)
emergency_option = click.option(
    "--emergency",
    metavar="REASON",
    callback=_check_reason,
    help="Apply outside of windows and at forbidden times; the revision keeps the reason.",
)


@click.command()
@click.argument("plan_path", metavar="[PLAN]", required=False)
@fleet_options(changes=True)
@selection_options
@yes_option
@click.option("--adopt", multiple=True, metavar="NAME", help="Take over an entry that nobody declared.")
@consent_option
@emergency_option
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="Of several targets: how to show what became of them.",
)
def apply(
    plan_path: str | None,
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    fleet: Choice | None,
    only: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    paths: tuple[str, ...],
    yes: bool,
    adopt: tuple[str, ...],
    allow_deletes: int | str | None,
    emergency: str,
    form: str,
) -> int:
    """Make the target as declared, in one transaction.

    Shows the plan first and asks. Refuses when the target moves between the plan and the apply; a failure at
    any point changes nothing.

    PLAN is a file that plan --out wrote: exactly that is applied, without asking, or nothing where it holds
    no longer (exit code 5).
    """
    from reconciler.database.apply import plan_target
    from reconciler.runtime.plans import refuse_problems
    from reconciler.runtime.tracing import exporting

    click.get_current_context().with_resource(exporting(os.environ, service="reconciler"))
    selection = make_selection(only, labels, paths)
    if allow_deletes is not None and not selection.is_empty:
        raise click.UsageError(
            "under --only, --label or --path nothing is deleted: leave --allow-deletes out"
        )
    if fleet is not None:
        from reconciler.cli.fleet_commands import apply_fleet

        if plan_path is not None:
            raise click.UsageError("a saved plan is for one target: name that one, or none")
        return apply_fleet(
            fleet,
            lambda session: replace(make_request(session, adopt, selection), emergency=emergency),
            form=form,
            yes=yes,
            allow_deletes=allow_deletes,
        )
    if form != "text":
        raise click.UsageError("--format goes with several targets: -t a -t b, or -t 'tenant-*'")
    saved = None
    if plan_path is not None:
        from reconciler.cli.plan_files import read_saved_plan

        if adopt:
            raise click.UsageError("--adopt is said when the plan is made")
        if not selection.is_empty:
            raise click.UsageError("--only, --label and --path are said when the plan is made")
        saved = read_saved_plan(plan_path)
        adopt = saved.adopt
        target_name = target_name or saved.target
    session = open_session(config_path, target_name, dsn)
    if saved is not None:
        selection = load_paths(saved.selection, session.config)
        if allow_deletes is not None and not selection.is_empty:
            raise click.UsageError(
                "the plan was made of a part and deletes nothing: leave --allow-deletes out"
            )
    request = replace(make_request(session, adopt, selection), emergency=emergency)
    if saved is not None:
        _require_same_place(saved, request)
    with session.connect() as conn:
        planned = plan_target(conn, request)
        refuse_problems(planned)
        if saved is not None:
            _require_exact(saved, planned)
        show_plan(planned, request, "text")
        if saved is not None and allow_deletes is None and session.target.policy.prune == "confirm":
            # Who reviewed the file saw its deletions. The limits of prune: auto go on to hold.
            allow_deletes = planned.plan.consent
        return apply_shown(
            conn, planned, request, allow_deletes=allow_deletes, asks=saved is None and not yes
        )


def apply_shown(
    conn: psycopg.Connection,
    planned: Planned,
    request: Request,
    *,
    allow_deletes: int | str | None,
    asks: bool,
) -> int:
    """Apply a plan that was just shown, where nothing forbids it.

    Args:
        conn: To the target.
        planned: The plan.
        request: What it was made of.
        allow_deletes: The consent to its deletions, as a number or a code; None for none.
        asks: Whether somebody has to say yes first.

    Returns:
        The exit code.

    Raises:
        RefusedError: A limit, a protection or another owner forbids it.
        ReconcilerError: As `apply_target`.
    """
    carry_out(
        conn,
        planned,
        request,
        allow_deletes=allow_deletes,
        confirm=_confirm if asks else None,
        report=_report,
    )
    return exits.ERROR if planned.plan.beyond_rights else exits.DONE


def carry_out(
    conn: psycopg.Connection,
    planned: Planned,
    request: Request,
    *,
    allow_deletes: int | str | None,
    confirm: Callable[[str], object] | None,
    report: Callable[[Applied], object],
) -> None:
    """Apply a plan where nothing forbids it; prints nothing itself.

    Args:
        conn: To the target.
        planned: The plan.
        request: What it was made of.
        allow_deletes: The consent to its deletions, as a number or a code; None for none.
        confirm: Asks somebody, with the target's name, where there is anything to do; None asks nobody.
        report: Hears of what was done.

    Raises:
        RefusedError: A limit, a protection or another owner forbids it.
        ReconcilerError: As `apply_target`.
    """
    from reconciler.database.apply import require_consent

    require_consent(planned.plan, request.target.policy, allow_deletes=allow_deletes)
    is_pending = bool(planned.plan.changes or planned.plan.migrations)
    # A secret is no part of the plan, and its new value has to arrive all the same.
    if is_pending or request.secrets or planned.is_upgraded:
        if is_pending and confirm is not None:
            confirm(request.target.name)
        apply_planned(conn, planned, request, allow_deletes=allow_deletes, report=report)


def apply_planned(
    conn: psycopg.Connection,
    planned: Planned,
    request: Request,
    *,
    report: Callable[[Applied], object],
    allow_deletes: int | str | None = None,
) -> Applied:
    """Apply exactly a plan; where that made the schema, see to it that pg_cron hears of what was scheduled.

    Args:
        conn: To the target.
        planned: The plan.
        request: What it was made of.
        report: Hears of what was done, as soon as it is.
        allow_deletes: The consent to its deletions, as a number or a code; None for none.

    Returns:
        What was done.

    Raises:
        ReconcilerError: As `apply_target`.
    """
    from reconciler.database.launcher import remind_launcher
    from reconciler.runtime.traced_apply import apply_traced

    applied = apply_traced(
        conn, request, expected=planned.fingerprints(), allow_deletes=allow_deletes, shown=planned
    )
    report(applied)
    if applied.migrations and applied.revision is not None:
        remind_launcher(conn, planned.observed.facts.rights, sleep=time.sleep)
    return applied


def _require_same_place(saved: SavedPlan, request: Request) -> None:
    for what, then, now in (
        ("target", saved.target, request.target.name),
        ("owner", saved.owner, request.owner),
    ):
        if then != now:
            raise InvalidInputError([f"the plan is for the {what} {then!r}, not for {now!r}"])


def _require_exact(saved: SavedPlan, planned: Planned) -> None:
    """Stop unless all of what was reviewed, and nothing else, would be done."""
    from reconciler.cli.plan_files import require_fresh, require_same_database

    facts = planned.observed.facts
    require_same_database(saved, planned)
    require_fresh(saved, planned.plan, planned.fingerprints(), role=facts.role)
    if beyond := planned.plan.beyond_rights:
        names = ", ".join(change.name for change in beyond)
        raise RightsError(
            f"nothing was changed: the role {facts.role} cannot make all changes of the plan: {names}",
            remedy=beyond[0].obstacle.remedy if beyond[0].obstacle else "",
        )


def _confirm(target: str) -> None:
    ask(f"Apply this to {target}?", otherwise="apply without asking")


def _report(applied: Applied) -> None:
    if applied.migrations:
        click.echo(f"Migrated: {', '.join(applied.migrations)}.")
    if applied.revision is not None:
        click.echo(click.style(f"Applied as revision {applied.revision}.", fg="green", bold=True))
    if applied.secrets:
        click.echo(f"Brought to the target: {', '.join(applied.secrets)} (secrets).")
    if applied.plan.beyond_rights:
        names = ", ".join(change.name for change in applied.plan.beyond_rights)
        click.echo(f"Not done, for lack of rights: {names}.", err=True)


@click.command()
@target_options
def migrate(config_path: Path | None, target_name: str | None, dsn: str | None) -> int:
    """Create or upgrade the schema reconciler on the target; apply does this too.

    For administrators who give the applying role no right to create schemas.
    """
    from reconciler.database.migrate import migrate_target

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        names = migrate_target(conn)
    click.echo(f"Migrated: {', '.join(names)}." if names else "Nothing to migrate.")
    return exits.DONE
