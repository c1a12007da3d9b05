"""What `plan`, `apply` and `drift` do with several targets: one outcome for each, one exit code for all."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.applying import carry_out
from reconciler.cli.fleets import Choice, open_fleet
from reconciler.cli.planning import find_plan_code, plan_session
from reconciler.cli.render_fleet import render_fleet, render_fleet_json
from reconciler.core.fleets import Outcome, Result, make_plan_key, pick_worst
from reconciler.errors import ReconcilerError
from reconciler.runtime.fleets import run_waves

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.cli.fleets import Fleet
    from reconciler.cli.session import Session
    from reconciler.core.plan import Plan
    from reconciler.database.apply import Applied, Planned
    from reconciler.database.statements import Request

    Work = Callable[[Session, Outcome], Outcome]
    """Does a command on one target: from an outcome that says nothing yet to one that says what happened."""

_RESULTS: dict[int, Result] = {exits.REFUSED: "refused", exits.STALE: "stale", exits.LOCKED: "locked"}


def plan_fleet(
    choice: Choice, make: Callable[[Session], Request], *, form: str, check: bool, exit_code: bool
) -> int:
    """Plan on every target, also where others fail.

    Args:
        choice: Of the targets.
        make: The request of one target.
        form: text or json.
        check: Whether servers also plan the SQL that is new or edited.
        exit_code: Whether changes have an exit code.

    Returns:
        The worst exit code.
    """

    def work(session: Session, outcome: Outcome) -> Outcome:
        planned = plan_session(session, make(session), check=check)
        code = find_plan_code(planned.plan)
        names: dict[int, Result] = {exits.CHANGES: "changes", exits.REFUSED: "refused"}
        outcome = plans.put(replace(outcome, result=names.get(code, "no changes")), planned)
        return replace(outcome, code=code if exit_code else exits.DONE)

    _require_form("plan", form)
    plans = _Plans()
    return _run("plan", choice, work, plans, form=form)


def apply_fleet(
    choice: Choice,
    make: Callable[[Session], Request],
    *,
    form: str,
    yes: bool,
    allow_deletes: int | str | None,
) -> int:
    """Apply wave by wave, until a target fails.

    Args:
        choice: Of the targets.
        make: The request of one target.
        form: text or json.
        yes: Whether somebody agreed.
        allow_deletes: How many deletions each target may have, exactly where it has any.

    Returns:
        The worst exit code.
    """
    if not yes:
        raise click.UsageError("nobody is asked target by target: look at plan, then apply with --yes")
    if isinstance(allow_deletes, str):
        raise click.UsageError(
            "a code is for the deletions of one target: give their number, which counts for each target by "
            "itself, or apply to that target alone"
        )
    plans = _Plans()
    work = partial(_apply, make=make, allow_deletes=allow_deletes, plans=plans)
    return _run("apply", choice, work, plans, form=form)


def drift_fleet(
    choice: Choice, make: Callable[[Session], Request], *, form: str, exit_code: bool, tell: bool
) -> int:
    """Look for drift on every target, also where others fail.

    Args:
        choice: Of the targets.
        make: The request of one target.
        form: text or json.
        exit_code: Whether drift has an exit code.
        tell: Whether alerts are opened.

    Returns:
        The worst exit code.
    """
    from reconciler.cli.drift_looks import look_for_drift

    def work(session: Session, outcome: Outcome) -> Outcome:
        with session.connect() as conn:
            shown = look_for_drift(conn, make(session), tell=tell)
        drifted = bool(shown.plan.changes)
        outcome = plans.put(replace(outcome, result="drift" if drifted else "no drift"), shown)
        return replace(outcome, code=exits.DRIFT if drifted and exit_code else exits.DONE)

    _require_form("drift", form)
    plans = _Plans()
    return _run("drift", choice, work, plans, form=form)


def _require_form(command: str, form: str) -> None:
    if form not in {"text", "json"}:
        raise click.UsageError(f"{command} of several targets is text or json: name one target for {form}")


@dataclass(slots=True)
class _Plans:
    """One plan of each kind: those of hundreds of targets would fill the memory.

    Attributes:
        by_key: The target's name and its plan.
    """

    by_key: dict[str, tuple[str, Plan]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, outcome: Outcome, planned: Planned) -> Outcome:
        """Note the plan of a target."""
        plan, facts = planned.plan, planned.observed.facts
        key = make_plan_key(plan, database=facts.database, role=facts.role)
        with self._lock:
            known = self.by_key.get(key)
            if known is None or outcome.target < known[0]:
                self.by_key[key] = outcome.target, plan
        counts = {action: count for action, count in plan.count().items() if count}
        return replace(outcome, key=key, counts=counts, consent=plan.consent)


def _apply(
    session: Session,
    outcome: Outcome,
    *,
    make: Callable[[Session], Request],
    allow_deletes: int | str | None,
    plans: _Plans,
) -> Outcome:
    from reconciler.database.apply import plan_target
    from reconciler.runtime.plans import refuse_problems

    request = make(session)
    found: list[Applied] = []
    planned: Planned | None = None
    try:
        with session.connect() as conn:
            planned = plan_target(conn, request)
            refuse_problems(planned)
            carry_out(conn, planned, request, allow_deletes=allow_deletes, confirm=None, report=found.append)
    except ReconcilerError as error:
        outcome = _fail(outcome, error)
    if planned is not None:
        outcome = plans.put(outcome, planned)
    for applied in found:
        outcome = replace(
            outcome, revision=applied.revision, migrations=applied.migrations, secrets=applied.secrets
        )
        beyond = applied.plan.beyond_rights
        if beyond and not outcome.error:
            outcome = replace(
                outcome,
                result="incomplete",
                code=exits.ERROR,
                error=f"not done, for lack of rights: {', '.join(change.name for change in beyond)}",
                remedy=beyond[0].obstacle.remedy if beyond[0].obstacle else "",
            )
    is_changed = bool(outcome.revision or outcome.migrations or outcome.secrets)
    return replace(outcome, result="no changes") if outcome.result == "done" and not is_changed else outcome


def _fail(outcome: Outcome, error: ReconcilerError) -> Outcome:
    code = exits.pick_exit_code(error)
    return replace(
        outcome, result=_RESULTS.get(code, "failed"), code=code, error=error.message, remedy=error.remedy
    )


def _run(command: str, choice: Choice, work: Work, plans: _Plans, *, form: str) -> int:
    """Do it on all targets, print what became of them, and pick the exit code."""
    fleet = open_fleet(choice)
    blank = {name: Outcome(target=name, wave=number, result="done") for name, number in fleet.numbers.items()}
    waves, keep_going = fleet.waves, choice.keep_going
    if command != "apply":
        waves = (tuple(blank),)  # what changes nothing needs no canary
    elif fleet.errors and not keep_going:
        waves, keep_going = (tuple(fleet.errors),), True  # what is wrong somewhere is begun nowhere

    def begin_wave(number: int) -> None:
        if len(waves) > 1:
            count, wave = len(waves[number]), fleet.numbers[waves[number][0]]
            click.echo(f"Wave {wave}: {count} target{'s' if count > 1 else ''}.", err=True)

    try:
        found, is_interrupted = run_waves(
            waves,
            lambda name: _attempt(fleet, blank[name], work),
            parallel=choice.parallel,
            goes_on=lambda outcome: keep_going or outcome.result in {"done", "no changes"},
            begin=begin_wave,
        )
    except KeyboardInterrupt:
        click.echo(
            "Interrupted while targets were at work: each is as it was, or as declared; plan shows it.",
            err=True,
        )
        return exits.ERROR
    outcomes = [
        found.get(name) or replace(blank[name], result="not reached") for wave in fleet.waves for name in wave
    ]
    code = exits.ERROR if is_interrupted else pick_worst(outcome.code for outcome in outcomes)
    render = render_fleet_json if form == "json" else render_fleet
    click.echo(render(command, outcomes, plans.by_key, code), nl=False)
    if is_interrupted:
        click.echo("Interrupted: no further target was begun.", err=True)
    return code


def _attempt(fleet: Fleet, outcome: Outcome, work: Work) -> Outcome:
    """Do it on one target; what goes wrong is its outcome."""
    begin = time.monotonic()
    try:
        outcome = work(fleet.find_session(outcome.target), outcome)
    except ReconcilerError as error:
        outcome = _fail(outcome, error)
    except Exception as error:  # noqa: BLE001 - a fault of ours must not hide what became of the others
        outcome = replace(
            outcome,
            result="failed",
            code=exits.ERROR,
            error=f"a fault of reconciler, please report it: {type(error).__name__}: {error}",
            remedy=traceback.format_exc().strip(),
        )
    return replace(outcome, seconds=time.monotonic() - begin)
