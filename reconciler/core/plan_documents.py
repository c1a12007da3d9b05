"""Plans as JSON documents, in the format of `schemas/plan.schema.json`."""

from __future__ import annotations

import json
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reconciler import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from reconciler.core.change_times import ChangeTimes, TimesView
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
        **({} if change.retired_until is None else {"retired_until": _render_instant(change.retired_until)}),
        "before": None if change.before is None else change.before.to_json(),
        "after": None if change.after is None else change.after.to_json(),
        "fields": [
            {"path": field.path, "before": field.before, "after": field.after} for field in change.fields
        ],
        "times": render_times(times),
        "obstacle": None
        if obstacle is None
        else {"kind": obstacle.kind, "why": obstacle.why, "remedy": obstacle.remedy},
    }


def render_times(times: ChangeTimes | None) -> dict[str, Any] | None:
    """Render what a change does in time as a JSON value.

    Args:
        times: Of the change; None where it does nothing.

    Returns:
        The value, by the definition `times` of `schemas/plan.schema.json`.
    """
    if times is None:
        return None
    return {
        "before": _render_view(times.before),
        "after": _render_view(times.after),
        "same_times": times.same_times,
        "last_run": None if times.last_run is None else _render_instant(times.last_run),
        "skipped": [_render_instant(run) for run in times.skipped],
        "doubled": [_render_instant(run) for run in times.doubled],
        "running": [{"run": run.run_id, "since": _render_instant(run.run_at)} for run in times.running],
        "fate": times.fate or None,
    }


@lru_cache(maxsize=4096)  # many changes share a few; whoever calls changes nothing in it
def _render_view(view: TimesView | None) -> dict[str, Any] | None:
    if view is None:
        return None
    return {
        "words": view.words,
        "zone": view.zone,
        "active": view.active,
        "next_runs": [_render_instant(run) for run in view.next_runs],
        "per_day": round(view.per_day, 6),
        "woken_per_day": None if view.woken_per_day is None else round(view.woken_per_day, 6),
    }


def _render_instant(at: datetime) -> str:
    """Render an instant in UTC to the second, with a Z."""
    return at.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
