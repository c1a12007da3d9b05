"""Render revisions: as rows of a table, one in full, the one that changed a resource last, and as JSON."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.render_text import SIGNS, clean, list_names, render_change
from reconciler.cli.tables import render_table
from reconciler.cli.times import render_instant
from reconciler.core.changes import ACTIONS
from reconciler.core.plan_documents import render_change as change_to_json
from reconciler.database.history import list_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.database.history import Head, Touch, Whole

_HEAD = ("revision", "when", "who", "commit", "changes", "names")
_COMMIT_WIDTH = 10
_NAMES_WIDTH = 70
_EARLIER_SHOWN = 10


def render_revisions(heads: Sequence[Head], *, with_owner: bool) -> str:
    """Render revisions as a table.

    Args:
        heads: In the order in which they are shown.
        with_owner: Show whose they are, too.

    Returns:
        Lines.
    """
    title = (*_HEAD[:1], "owner", *_HEAD[1:]) if with_owner else _HEAD
    rows = []
    for head in heads:
        cells = [
            *(str(head.id), render_instant(head.applied_at), _describe_person(head), _shorten_commit(head)),
            *(_render_counts(head), _render_names(head)),
        ]
        rows.append([*cells[:1], clean(head.owner), *cells[1:]] if with_owner else cells)
    return render_table(title, rows)


def render_whole(revision: Whole) -> str:
    """Render a revision with its changes.

    Args:
        revision: Any.

    Returns:
        Lines; each change as a plan shows it.
    """
    lines = [*_render_head(revision), ""]
    for change in revision.read_changes():
        lines.extend(render_change(change, None))
        lines.append("")
    lines.append(f"Revision {revision.id}: {_render_counts(revision)}.")
    return "\n".join(lines)


def render_blame(name: str, touches: Sequence[Touch]) -> str:
    """Render who changed a resource.

    Args:
        name: As it was asked for.
        touches: The newest first; at least one.

    Returns:
        The last change in full, and a line for each one before.
    """
    last, *earlier = touches
    change = last.read_change()
    lines = [*_render_head(last), *([f"  source    {clean(change.source)}"] if change.source else []), ""]
    lines.extend(render_change(change, None))
    if change.action == "delete":
        lines += ["", f"{clean(name)} is not there any more."]
    elif change.action == "release":
        owner = last.summary.get("transferred_to")
        lines += ["", f"{clean(name)} belongs to {clean(str(owner)) if owner else 'nobody'} now."]
    elif change.name != name:
        lines += ["", f"{clean(name)} is called {clean(change.name)} now."]
    if earlier:
        lines += ["", "Before that:"]
        rows = [
            (
                *(f"  {touch.id}", render_instant(touch.applied_at), _describe_person(touch)),
                *(_shorten_commit(touch), f"{SIGNS[one.action]} {one.name}", one.reason, clean(one.source)),
            )
            for touch in earlier[:_EARLIER_SHOWN]
            for one in [touch.read_change()]
        ]
        lines.append(
            render_table(("  revision", "when", "who", "commit", "change", "reason", "source"), rows)
        )
        if len(earlier) > _EARLIER_SHOWN:
            lines.append(f"  and {len(earlier) - _EARLIER_SHOWN} earlier ones")
    return "\n".join(lines)


def head_to_json(head: Head) -> dict[str, Any]:
    """Make the JSON object of a revision.

    Args:
        head: Any revision.

    Returns:
        The object, without changes.
    """
    return list_fields(head) | {"applied_at": head.applied_at.astimezone(UTC).isoformat()}


def whole_to_json(revision: Whole) -> dict[str, Any]:
    """Make the JSON object of a revision with its changes.

    Args:
        revision: Any.

    Returns:
        The object; its changes are those of the JSON of a plan.
    """
    changes = [change_to_json(change, None) for change in revision.read_changes()]
    return head_to_json(revision) | {"changes": changes}


def touch_to_json(touch: Touch) -> dict[str, Any]:
    """Make the JSON object of a revision with its change of one resource.

    Args:
        touch: Any.

    Returns:
        The object, without what the revision did to others.
    """
    value = head_to_json(touch)
    del value["counts"], value["names"]
    return value | {"change": change_to_json(touch.read_change(), None)}


def _render_head(head: Head) -> Iterator[str]:
    yield click.style(f"Revision {head.id} of {clean(head.owner)} on {clean(head.target)}", bold=True)
    yield f"  when      {render_instant(head.applied_at)}"
    yield f"  who       {_describe_person(head)}"
    yield f"  commit    {clean(head.commit) or '(unknown)'}"
    yield f"  release   {clean(head.release)}"
    if "rollback_to" in head.summary:
        yield f"  rollback  to revision {head.summary['rollback_to']}"
    if "restored" in head.summary:
        yield f"  restored  {clean(', '.join(head.summary['restored']))}"
    for key, words in (("transferred_to", "to"), ("transferred_from", "from")):
        if key in head.summary:
            yield f"  transfer  {words} {clean(str(head.summary[key]))}"
    if "emergency" in head.summary:
        yield f"  emergency {clean(str(head.summary['emergency']))}"


def _describe_person(head: Head) -> str:
    """Name who asked; the role is what the database itself knows of it."""
    role = clean(head.applied_by)
    actor = clean(head.actor)
    return f"{actor} (role {role})" if actor and actor != role else role


def _shorten_commit(head: Head) -> str:
    return clean(head.commit)[:_COMMIT_WIDTH] or "-"


def _render_counts(head: Head) -> str:
    actions = list(head.actions)
    parts = [f"{SIGNS[action]}{actions.count(action)}" for action in ACTIONS if action in actions]
    if "rollback_to" in head.summary:
        parts.append(f"(rollback to {head.summary['rollback_to']})")
    if "restored" in head.summary:
        parts.append("(restore)")
    if "emergency" in head.summary:
        parts.append("(emergency)")
    return " ".join(parts) or "-"


def _render_names(head: Head) -> str:
    shown = head.names
    text = clean(list_names(tuple(shown)))
    count = len(shown)
    while len(text) > _NAMES_WIDTH and count > 1:
        count -= 1
        text = clean(f"{', '.join(shown[:count])} and {len(shown) - count} more")
    return text
