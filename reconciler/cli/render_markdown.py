"""Render a plan as Markdown for a pull request.

Texts of specs and of the database are untrusted: they stand in fences longer than any run of backticks in
them, or escaped, so that they can neither close a block nor mention or link anything.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from reconciler.cli.render_change_times import list_lines, list_warnings
from reconciler.cli.render_text import SIGNS, clean, list_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.change_times import ChangeTimes
    from reconciler.core.changes import Change
    from reconciler.core.plan import Plan

_LIMIT = 60_000
"""Characters: GitHub refuses comments of more than 65,536."""
_TICKS = re.compile(r"`+")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+.!|~@-])")


def render_plan(plan: Plan) -> str:
    """Render a plan.

    Args:
        plan: To show.

    Returns:
        Markdown of at most 60,000 characters; what does not fit is counted.
    """
    counts = plan.count()
    head = [f"### Plan for {_escape(plan.target)}", ""]
    if not plan.changes:
        head += [f"Nothing to change: {plan.resources} resources are as declared.", ""]
    else:
        head += [
            "| create | update | adopt | delete |",
            "|--:|--:|--:|--:|",
            f"| {counts['create']} | {counts['update']} | {counts['adopt']} | {counts['delete']} |",
            "",
        ]
    tail = list(_render_tail(plan))
    room = _LIMIT - sum(len(line) + 1 for line in (*head, *tail)) - 200
    body: list[str] = []
    for number, change in enumerate(plan.changes):
        block = "\n".join(_render_change(change, plan.times.get(change.name)))
        if len(block) + 1 > room:
            body += [
                f"… and {len(plan.changes) - number} more changes; run `reconciler plan` to see them.",
                "",
            ]
            break
        room -= len(block) + 1
        body.append(block)
    return "\n".join([*head, *body, *tail]).rstrip() + "\n"


def _render_tail(plan: Plan) -> Iterator[str]:
    if plan.migrations:
        yield f"Migrations to run first: {', '.join(map(_code, plan.migrations))}"
        yield ""
    if plan.kept:
        yield f"Kept, though no longer declared (`prune: never`): {_escape(list_names(plan.kept))}"
        yield ""
    for finding in plan.findings[:20]:
        label = "Danger" if finding.severity == "error" else "Warning"
        yield f"> **{label}** {_code(finding.code)}: {_escape(finding.message)}  "
        yield f"> {_escape(finding.remedy)}"
        yield ""
    for notice in plan.notices[:20]:
        yield f"> **Note** {_code(notice.code)}: {_escape(notice.message)}  "
        yield f"> {_escape(list_names(notice.names))}"
        yield ""


def _render_change(change: Change, times: ChangeTimes | None) -> Iterator[str]:
    text = f"{SIGNS[change.action]} {change.kind} {change.name} ({change.reason}, {change.source})"
    yield f"<details><summary><code>{html.escape(clean(text))}</code></summary>"
    yield ""
    if change.fields:
        lines = [
            line
            for field in change.fields
            for line in (
                *(f"- {field.path}: {line}" for line in _lines(field.before)),
                *(f"+ {field.path}: {line}" for line in _lines(field.after)),
            )
        ]
    else:
        snapshot = change.after or change.before
        sign = "-" if change.action == "delete" else " " if change.action == "adopt" else "+"
        value = {} if snapshot is None else snapshot.to_json()
        lines = [f"{sign} {line}" for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines()]
    yield _fence("\n".join(lines))
    if times is not None:
        yield ""
        yield _render_times(times)
    if change.obstacle is not None:
        yield ""
        yield f"**Cannot be done:** {_escape(change.obstacle.why)}  "
        yield _escape(change.obstacle.remedy)
    yield ""
    yield "</details>"
    yield ""


def _render_times(times: ChangeTimes) -> str:
    parts = [f"**{label}** {_escape(text)}" for label, text in list_lines(times)]
    return " · ".join([*parts, *(f"**! {_escape(warning)}**" for warning in list_warnings(times))])


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    return value.splitlines() if isinstance(value, str) else [json.dumps(value, ensure_ascii=False)]


def _fence(text: str) -> str:
    text = clean(text)
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}diff\n{text}\n{ticks}"


def _code(text: str) -> str:
    return f"<code>{html.escape(clean(text))}</code>"


def _escape(text: str) -> str:
    """Escape what Markdown and GitHub would read: markup, HTML, mentions."""
    return _SPECIAL.sub(r"\\\1", html.escape(clean(text).replace("\n", " "), quote=False))
