"""Render a plan as JSON, in the format of `schemas/plan.schema.json`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.cli.render_change_times import render_json_instant, render_json_times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.change_times import ChangeTimes
    from reconciler.core.changes import Change
    from reconciler.core.plan import Fingerprints, Plan

FORMAT_VERSION = "1.3"
"""The minor number grows with additions; the major one when something is renamed or goes."""


def render_plan(plan: Plan, fingerprints: Fingerprints) -> str:
    """Render a plan.

    Args:
        plan: To show.
        fingerprints: What it holds for.

    Returns:
        Indented JSON with a line break at the end; the same plan gives the same bytes.
    """
    return render_value(make_value(plan, fingerprints))


def render_value(value: Mapping[str, Any]) -> str:
    """Render the JSON of a plan.

    Args:
        value: Made by `make_value`.

    Returns:
        Indented JSON with a line break at the end.
    """
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def make_value(plan: Plan, fingerprints: Fingerprints) -> dict[str, Any]:
    """Make the JSON value of a plan.

    Args:
        plan: To show.
        fingerprints: What it holds for.

    Returns:
        Fit for the schema.
    """
    summary: dict[str, int] = {"resources": plan.resources, "kept": len(plan.kept)}
    summary.update((str(action), count) for action, count in plan.count().items())
    if plan.held:
        summary["held"] = len(plan.held)
    return {
        "format_version": FORMAT_VERSION,
        "reconciler_version": __version__,
        "target": plan.target,
        "owner": plan.owner,
        "empty": plan.is_empty,
        "fingerprints": {"desired": fingerprints.desired, "observed": fingerprints.observed},
        "summary": summary,
        "consent": plan.consent or None,
        "migrations": list(plan.migrations),
        "changes": [render_change(change, plan.times.get(change.name)) for change in plan.changes],
        "kept": list(plan.kept),
        "notices": [
            {"code": notice.code, "message": notice.message, "names": list(notice.names)}
            for notice in plan.notices
        ],
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity,
                "message": finding.message,
                "remedy": finding.remedy,
            }
            for finding in plan.findings
        ],
    }


def render_change(change: Change, times: ChangeTimes | None) -> dict[str, Any]:
    """Render a change.

    Args:
        change: Of a plan, or of a revision.
        times: What it does in time; None where there is nothing to say.

    Returns:
        A value that JSON knows.
    """
    obstacle = change.obstacle
    return {
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "reason": change.reason,
        "source": change.source,
        "renamed_from": change.renamed_from or None,
        **(
            {}
            if change.retired_until is None
            else {"retired_until": render_json_instant(change.retired_until)}
        ),
        "before": None if change.before is None else change.before.to_json(),
        "after": None if change.after is None else change.after.to_json(),
        "fields": [
            {"path": field.path, "before": field.before, "after": field.after} for field in change.fields
        ],
        "times": render_json_times(times),
        "obstacle": None
        if obstacle is None
        else {"kind": obstacle.kind, "why": obstacle.why, "remedy": obstacle.remedy},
    }
