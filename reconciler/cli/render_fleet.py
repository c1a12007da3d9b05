"""Render what became of several targets: their plans, each kind once, a table, and the errors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from reconciler import __version__
from reconciler.cli.render_text import SIGNS, clean, list_names, render_body, render_summary
from reconciler.cli.tables import render_table, shorten
from reconciler.core import plan_documents
from reconciler.core.fleets import group_plans
from reconciler.core.plan import Fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reconciler.core.fleets import Outcome, Result
    from reconciler.core.plan import Plan

FORMAT_VERSION = "1.0"
"""The minor number grows with additions; the major one when something is renamed or goes."""

_OWN = frozenset({"format_version", "reconciler_version", "target", "fingerprints", "consent"})
_GOOD: frozenset[Result] = frozenset({"done", "no changes", "no drift"})
_CALM: frozenset[Result] = frozenset({"changes", "drift", "not reached"})
_ERROR_WIDTH = 80


def render_fleet(
    command: str, outcomes: Sequence[Outcome], plans: Mapping[str, tuple[str, Plan]], code: int
) -> str:
    """Render for a terminal.

    Args:
        command: plan, apply or drift.
        outcomes: In the order of waves and names.
        plans: One target's name and plan for each key.
        code: The exit code, which text does not say.

    Returns:
        Text with colour codes.
    """
    del code
    lines: list[str] = []
    for group in group_plans(outcomes):
        name, plan = plans[group.key]
        if command == "drift" and not plan.changes:
            continue
        count = len(group.targets)
        head = name if count == 1 else f"{count} targets, shown as on {name}: {list_names(group.targets)}"
        lines += [click.style(f"{command.capitalize()} on {head}", bold=True), "", *render_body(plan)]
        lines += [render_summary(plan), ""]
        if plan.consent:
            number = plan.consent.partition("-")[0]
            lines[-1:] = [
                f"To consent to its deletions, on each target by itself: --allow-deletes {number}",
                "",
            ]
    head_cells = ("target", "wave", "result", "changes", "revision", "seconds", "error")
    lines += [render_table(head_cells, [_render_row(outcome) for outcome in outcomes]), ""]
    lines += _render_errors(outcomes)
    counts = Counter(outcome.result for outcome in outcomes)
    lines.append(f"{len(outcomes)} targets: {', '.join(f'{n} {result}' for result, n in counts.items())}.")
    return "\n".join(lines) + "\n"


def _render_row(outcome: Outcome) -> tuple[str, ...]:
    colour = "green" if outcome.result in _GOOD else "yellow" if outcome.result in _CALM else "red"
    changes = " ".join(f"{SIGNS.get(action, '')}{count}" for action, count in outcome.counts.items())
    return (
        outcome.target,
        str(outcome.wave),
        click.style(outcome.result, fg=colour),
        changes,
        "" if outcome.revision is None else str(outcome.revision),
        "" if outcome.result == "not reached" else f"{outcome.seconds:.2f}",
        shorten(clean(outcome.error), _ERROR_WIDTH) if outcome.error else "",
    )


def _render_errors(outcomes: Iterable[Outcome]) -> list[str]:
    """Render each error in full, once for all targets that have it."""
    targets: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.error:
            targets.setdefault((outcome.error, outcome.remedy), []).append(outcome.target)
    lines = []
    for (error, remedy), names in targets.items():
        label = click.style(f"{list_names(tuple(names))}:", fg="red", bold=True)
        lines.append(f"{label} {clean(error)}")
        if remedy:
            lines.append(f"  {clean(remedy)}")
        lines.append("")
    return lines


def render_fleet_json(
    command: str, outcomes: Sequence[Outcome], plans: Mapping[str, tuple[str, Plan]], code: int
) -> str:
    """Render for programs.

    Args:
        command: plan, apply or drift.
        outcomes: In the order of waves and names.
        plans: One target's name and plan for each key.
        code: The exit code.

    Returns:
        Indented JSON with a line break at the end.
    """
    groups = group_plans(outcomes)
    numbers = {group.key: number for number, group in enumerate(groups)}
    value = {
        "format_version": FORMAT_VERSION,
        "reconciler_version": __version__,
        "command": command,
        "exit_code": code,
        "results": Counter(outcome.result for outcome in outcomes),
        "targets": [_make_row(outcome, numbers.get(outcome.key)) for outcome in outcomes],
        "groups": [
            {
                "targets": list(group.targets),
                "shown_as_on": plans[group.key][0],
                "plan": _make_plan(plans[group.key][1]),
            }
            for group in groups
        ],
    }
    return plan_documents.render_value(value)


def _make_row(outcome: Outcome, group: int | None) -> dict[str, Any]:
    return {
        "target": outcome.target,
        "wave": outcome.wave,
        "result": outcome.result,
        "exit_code": outcome.code,
        "changes": dict(outcome.counts),
        "consent": outcome.consent or None,
        "revision": outcome.revision,
        "migrations": list(outcome.migrations),
        "secrets": list(outcome.secrets),
        "seconds": round(outcome.seconds, 3),
        "error": outcome.error or None,
        "remedy": outcome.remedy or None,
        "group": group,
    }


def _make_plan(plan: Plan) -> dict[str, Any]:
    value = plan_documents.make_value(plan, Fingerprints(desired="", observed=""))
    return {key: child for key, child in value.items() if key not in _OWN}
