"""An apply as a span of a trace, with its parts as children; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.database.apply import apply_target

from .tracing import phase, span

if TYPE_CHECKING:
    import psycopg

    from reconciler.core.plan import Fingerprints
    from reconciler.database.apply import Applied, Planned
    from reconciler.database.statements import Request


def apply_traced(
    conn: psycopg.Connection,
    request: Request,
    *,
    expected: Fingerprints | None = None,
    allow_deletes: int | str | None = None,
    shown: Planned | None = None,
) -> Applied:
    """Apply as `apply_target` does, and trace it.

    Args:
        conn: As there.
        request: As there.
        expected: As there.
        allow_deletes: As there.
        shown: As there.

    Returns:
        What was done.

    Raises:
        ReconcilerError: As there.
    """
    attributes = {
        "db.system.name": "postgresql",
        "reconciler.target": request.target.name,
        "reconciler.owner": request.owner,
    }
    with span("apply", attributes=attributes) as seen:
        applied = apply_target(
            conn,
            request,
            expected=expected,
            allow_deletes=allow_deletes,
            shown=shown,
            phase=phase,
        )
        seen.note(changes=len(applied.plan.changes), revision=applied.revision)
        return applied
