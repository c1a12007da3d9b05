"""Render a plan as text for a terminal."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.render_change_times import list_lines, list_warnings
from reconciler.core.names import list_some
from reconciler.core.retirement import render_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.change_times import ChangeTimes
    from reconciler.core.changes import Action, Change, FieldChange, Snapshot
    from reconciler.core.plan import Plan
    from reconciler.core.preflight import Finding
    from reconciler.core.state import Notice

SIGNS: dict[Action, str] = {
    "create": "+",
    "update": "~",
    "adopt": "=",
    "retire": "|",
    "delete": "-",
    "release": ">",
}
_COLOURS: dict[Action, str] = {
    "create": "green",
    "update": "yellow",
    "adopt": "cyan",
    "retire": "red",
    "delete": "red",
    "release": "magenta",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NAMES_SHOWN = 8
_ROOM = 100


def clean(text: str) -> str:
    """Make a text from a database harmless for a terminal.

    Args:
        text: Anything.

    Returns:
        The text with control and direction characters written out; line breaks and tabs stay.
    """
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def render_plan(plan: Plan) -> str:
    """Render a plan.

    Args:
        plan: To show.

    Returns:
        Text with colour codes; `click.echo` takes them out where there is no terminal.
    """
    lines = [click.style(f"Plan for {plan.target}, owner {plan.owner}", bold=True), "", *render_body(plan)]
    lines.append(render_summary(plan))
    if plan.consent:
        lines.append(f"To consent to exactly these deletions: --allow-deletes {plan.consent}")
    return "\n".join(lines)


def render_body(plan: Plan) -> list[str]:
    """Render what a plan changes and says, without its first and last lines.

    Args:
        plan: To show.

    Returns:
        Lines with colour codes, an empty one after each part.
    """
    lines: list[str] = []
    for change in plan.changes:
        lines.extend(render_change(change, plan.times.get(change.name)))
        lines.append("")
    if plan.migrations:
        lines += [f"Migrations to run first: {', '.join(plan.migrations)}", ""]
    if plan.kept:
        names = list_names(plan.kept)
        lines += [f"Kept, though no longer declared (prune: never): {names}", ""]
    for notice in plan.notices:
        lines += [render_notice(notice), ""]
    for finding in plan.findings:
        lines += [render_finding(finding), ""]
    return lines


def render_summary(plan: Plan) -> str:
    """Render a plan's last line.

    Args:
        plan: To sum up.

    Returns:
        One line.
    """
    counts = plan.count()
    left_out = f"{len(plan.held)} left out at this stage"
    if plan.held and plan.is_empty:
        return f"Nothing to change; {left_out}."
    if not plan.changes:
        return f"Nothing to change: {plan.resources} resources are as declared."
    if plan.is_empty:
        return f"Nothing to change; {counts['adopt']} are as declared and will be marked as ours."
    parts = [f"{count} to {action}" for action, count in counts.items() if count]
    hindered = len(plan.refused) + len(plan.beyond_rights)
    notes = [f"{hindered} of them cannot be done"] if hindered else []
    return "; ".join([f"Plan: {', '.join(parts)}", *notes, *([left_out] if plan.held else [])]) + "."


def render_finding(finding: Finding) -> str:
    """Render a danger with its remedy.

    Args:
        finding: From the preflight.

    Returns:
        Two lines.
    """
    style = {"error": ("red", "Danger"), "warning": ("yellow", "Warning")}[finding.severity]
    label = click.style(f"{style[1]} [{finding.code}]:", fg=style[0], bold=True)
    return f"{label} {clean(finding.message)}\n  {clean(finding.remedy)}"


def render_notice(notice: Notice) -> str:
    """Render a notice.

    Args:
        notice: From the plan.

    Returns:
        One or two lines.
    """
    names = f"\n  {list_names(notice.names)}" if notice.names else ""
    return click.style(f"Note [{notice.code}]: ", fg="blue", bold=True) + clean(notice.message) + names


def list_names(names: tuple[str, ...]) -> str:
    """List some names and count the rest.

    Args:
        names: Any number.

    Returns:
        For instance `a, b and 3 more`.
    """
    return clean(list_some(names, _NAMES_SHOWN))


def render_change(change: Change, times: ChangeTimes | None) -> Iterator[str]:
    """Render a change.

    Args:
        change: Of a plan, or of a revision.
        times: What it does in time; None where there is nothing to say.

    Yields:
        Lines, indented below what they belong to.
    """
    sign = click.style(
        f"{SIGNS[change.action]} {change.kind} {clean(change.name)}", fg=_COLOURS[change.action], bold=True
    )
    source = click.style(f"  ({change.reason}, {clean(change.source)})", dim=True)
    yield f"  {sign}{source}"
    if change.action == "create" and change.after is not None:
        yield from _render_snapshot(change.after)
    if change.action == "delete" and change.before is not None:
        yield from _render_snapshot(change.before)
    for field in change.fields:
        yield from _render_field(field)
    if change.retired_until is not None and change.action != "update":
        word = "ended" if change.action == "delete" else "ends"
        yield f"      its grace {word} at {render_instant(change.retired_until)}"
    if times is not None:
        yield from _render_times(times)
    if change.obstacle is not None:
        yield "      " + click.style("cannot: ", fg="red", bold=True) + clean(change.obstacle.why)
        yield f"      {clean(change.obstacle.remedy)}"


def _render_times(times: ChangeTimes) -> Iterator[str]:
    for label, text in list_lines(times):
        first, *others = clean(text).split(" → ") if len(text) > _ROOM else [clean(text)]
        yield f"      {label:<8}  {first}"
        yield from (f"              → {side}" for side in others)
    for warning in list_warnings(times):
        yield "      " + click.style("! ", fg="yellow", bold=True) + clean(warning)


def _render_snapshot(snapshot: Snapshot) -> Iterator[str]:
    spec: dict[str, Any] = json.loads(snapshot.document) if snapshot.document else {}
    entry = snapshot.entry
    if entry is not None:
        inactive = "" if entry.active else "  inactive"
        yield f"      schedule  {clean(entry.schedule)}{inactive}"
        yield f"      command   {_first_line(entry.command)}"
        yield f"      as        {clean(entry.username)} in {clean(entry.database)}"
    for key in ("once", "handler", "sql", "http", "url"):
        if key in spec and not (key == "sql" and entry is not None and entry.command == spec["sql"]):
            value = spec[key] if isinstance(spec[key], str) else json.dumps(spec[key], ensure_ascii=False)
            yield f"      {key:<8}  {_first_line(value)}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in clean(text).strip().splitlines()]
    return f"{lines[0]} …" if len(lines) > 1 else (lines[0] if lines else "")


def _render_field(field: FieldChange) -> Iterator[str]:
    if field.path == "grace":
        yield f"      it stands still for {field.after}, and is deleted then"
        return
    if isinstance(field.before, str) and isinstance(field.after, str) and "\n" in field.before + field.after:
        yield f"      {field.path}:"
        for line in list(
            difflib.unified_diff(field.before.splitlines(), field.after.splitlines(), n=1, lineterm="")
        )[2:]:
            colour = {"+": "green", "-": "red"}.get(line[:1])
            yield "        " + click.style(clean(line), fg=colour)
        return
    yield f"      {field.path}: {_render_value(field.before)} → {_render_value(field.after)}"


def _render_value(value: Any) -> str:
    if value is None:
        return "(none)"
    return clean(json.dumps(value, ensure_ascii=False))
