"""Whether a target is fit to be served: what is told of it may be read by anybody, so it names nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from psycopg import errors

from reconciler.core.preflight import Finding
from reconciler.errors import MigrationError, RightsError

from .health import find_tick_troubles
from .identity import read_identity
from .migrate import find_pending
from .observe import observe_facts
from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from reconciler.core.facts import Facts

_TEXTS: Final = {
    "standby": ("the server is a standby", "connect the service to the primary"),
    "pg_cron_missing": ("pg_cron is not in this database", "reconciler doctor says how to get it"),
    "schema_missing": ("the schema reconciler is not there", "run reconciler migrate"),
    "schema_older": ("the schema reconciler is of an earlier release", "run reconciler migrate"),
    "schema_newer": ("the schema reconciler is of a later release", "upgrade the service"),
    "rights": ("the role of the service lacks a right", "reconciler doctor, as that role, says which"),
    "copy": (
        "the database is a copy that nobody has claimed, so nothing runs in it",
        "reconciler target shows of what; reconciler target claim lets it run",
    ),
    "launcher_down": ("pg_cron's launcher is not running", "reconciler doctor says more"),
    "tick_inactive": ("the entry that calls the tick is inactive", "reconciler doctor says more"),
    "tick_silent": ("the tick does not run", "reconciler doctor says more"),
}
_TOLERABLE: Final = frozenset({"schema_newer", "copy", "launcher_down", "tick_inactive", "tick_silent"})
"""What people have to look at, so that the service is to be there: it is told, and hinders nothing."""


def find_unready(conn: psycopg.Connection[Any]) -> tuple[Finding, ...]:
    """Find out why a target is not fit to be served, and what else is wrong with it.

    Args:
        conn: To the target, in autocommit mode.

    Returns:
        Errors where it cannot be served, warnings for the rest, with texts that tell neither names nor
        places. What the role cannot see is nothing.

    Raises:
        psycopg.Error: The target did not answer.
    """
    try:
        return tuple(_find(conn))
    except (RightsError, errors.InsufficientPrivilege):
        return (_make("rights"),)


def make_unreachable(detail: str) -> Finding:
    """Make what is told of a target that does not answer.

    Args:
        detail: What is so; it names neither the target nor the role.
    """
    return Finding(
        code="unreachable", severity="error", message=detail, remedy="the log of this process says more"
    )


def _make(code: str) -> Finding:
    message, remedy = _TEXTS[code]
    severity: Literal["error", "warning"] = "warning" if code in _TOLERABLE else "error"
    return Finding(code=code, severity=severity, message=message, remedy=remedy)


def _find(conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    facts = observe_facts(conn)
    if not facts.extension:
        yield _make("pg_cron_missing")
    code = _judge_schema(conn)
    if code:
        yield _make(code)
    else:
        identity = read_identity(conn)
        if identity is not None and identity.state == "copy":
            yield _make("copy")
    if facts.in_recovery:
        yield _make("standby")
    elif facts.launcher_running is False:
        yield _make("launcher_down")
    elif facts.extension and not code:
        yield from _find_silent_ticks(conn, facts)


def _judge_schema(conn: psycopg.Connection[Any]) -> str:
    try:
        applied = dict(conn.execute(load_queries("observe")["observe_migrations"]).fetchall())
        return "schema_older" if find_pending(applied) else ""
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        return "schema_missing"
    except MigrationError:
        return "schema_newer"


def _find_silent_ticks(conn: psycopg.Connection[Any], facts: Facts) -> Iterator[Finding]:
    found = {finding.code for finding in find_tick_troubles(conn, facts)}
    yield from map(_make, sorted(found & _TEXTS.keys()))
