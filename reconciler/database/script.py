"""Render a plan as the SQL that an apply executes, for people who want to read or run it themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from psycopg import sql

from reconciler.core.steps import make_steps

from .migrate import AFTER_MIGRATIONS, load_migrations
from .queries import load_queries
from .statements import Request, list_definition_statements, list_entry_statements, make_revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.changes import Change

    from .apply import Planned

_PLACEHOLDER = re.compile(r"%\((\w+)\)[sb]|%%")
_REVISION = sql.SQL("currval(pg_get_serial_sequence('reconciler.revisions', 'id'))")


def render_script(planned: Planned, request: Request) -> str:
    """Render the statements of an apply with their values filled in.

    Args:
        planned: The plan.
        request: What it was made of.

    Returns:
        A script for psql: one transaction that does what apply does. It takes the same lock, or fails; but
        it neither checks that the target is still as planned nor looks again afterwards.
    """
    zone = planned.observed.facts.known_timezone
    lines = ["BEGIN ISOLATION LEVEL REPEATABLE READ;", *_render_migrations(planned)]
    if planned.plan.migrations:
        lines += [f"{_fill(name, {'zone': zone})};" for name in AFTER_MIGRATIONS]
    steps = make_steps(planned.plan.changes, planned.observed.facts)
    if steps.changes:
        lines.extend(f"{_fill(name, values)};" for name, values in list_entry_statements(steps))
        lines.append(f"{_fill('insert_revision', make_revision(planned.plan, steps, request))};")
        for name, values in list_definition_statements(planned.plan.owner, steps):
            lines.append(f"{_fill(name, {'revision': _REVISION, 'zone': zone, **values})};")
    if len(lines) == 1:
        return "-- Nothing to do.\n"
    lines.insert(1, f"{_fill('require_apply_lock', {})};")
    if planned.plan.changes:
        lines.insert(0, "\n".join(map(_describe, planned.plan.changes)))
    return "\n\n".join([*lines, "COMMIT;"]) + "\n"


def _describe(change: Change) -> str:
    """Render what is done and why as a comment of one line, whatever the file is called."""
    line = f"-- {change.action} {change.kind} {change.name} ({change.reason}, {change.source})"
    line += f"; cannot: {change.obstacle.why}" if change.obstacle is not None else ""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _render_migrations(planned: Planned) -> Iterator[str]:
    pending = frozenset(planned.plan.migrations)
    for migration in load_migrations():
        if migration.name in pending:
            yield migration.text.rstrip()
            record = sql.SQL(
                "INSERT INTO reconciler.migrations (number, name, checksum) VALUES ({}, {}, {});"
            ).format(migration.number, migration.name, migration.checksum)
            yield record.as_string()


def _fill(name: str, values: Mapping[str, Any]) -> str:
    """Fill the placeholders of a query with literals, quoted by libpq's own rules."""
    template = load_queries("apply")[name]

    def render(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = values[match[1]]
        return (value if isinstance(value, sql.Composable) else sql.Literal(value)).as_string()

    return _PLACEHOLDER.sub(render, template)
