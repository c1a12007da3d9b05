"""Execute a body and roll it back: what would it do, how long would it take, by which plan.

Everything happens in one transaction that is never committed, as the job's role. What no rollback undoes
(numbers taken from sequences, what other sessions or other servers were told) is the caller's to warn of.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors

from reconciler.errors import RightsError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

_COMMENTS = r"(?:\s|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)*"
_EXPLAINED = re.compile(
    rf"{_COMMENTS}(?:\(\s*)*(select|insert|update|delete|merge|values|with|table)\b", re.IGNORECASE
)
_WORDS = re.compile(
    rf"{_COMMENTS}([a-z]+)(?:\s+(?:or\s+replace\s+|temp(?:orary)?\s+|unlogged\s+|unique\s+)*([a-z]+))?",
    re.IGNORECASE,
)
_TWO_WORDS = frozenset({"create", "alter", "drop", "refresh", "set", "comment", "import", "security"})

_TOP = re.compile(r"(Insert|Update|Delete|Merge) on ")
_CHILD = re.compile(r"  ->  .*\(actual .*\brows=([0-9.]+) loops=([0-9]+)\)$")
_ACTUAL = re.compile(r".*\(actual .*\brows=([0-9.]+) loops=([0-9]+)\)$")
_INSERTED = re.compile(r"  Tuples Inserted: ([0-9]+)$")
_CONFLICTS = re.compile(r"  Conflicting Tuples: ([0-9]+)$")
_MERGED = re.compile(r"  Tuples:((?: (?:inserted|updated|deleted|skipped)=[0-9]+)+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """One statement of a body, executed.

    Attributes:
        text: The statement.
        command: What it is, such as UPDATE or CREATE TABLE.
        rows: How many rows it touched or gave; None where nothing counts them.
        seconds: How long it took, planning included.
        plan: The lines of its plan with what really happened; none for commands that have no plan.
        error: Why it failed, with the server's details; "" where it did not.
    """

    text: str
    command: str
    rows: int | None
    seconds: float
    plan: tuple[str, ...]
    error: str


def read_session(conn: psycopg.Connection) -> tuple[str, str]:
    """Read who is connected, and where.

    Args:
        conn: To the target.

    Returns:
        The role and the database.
    """
    row = conn.execute(load_queries("rehearsal")["read_session"]).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row[0], row[1]


def rehearse(
    conn: psycopg.Connection, statements: Sequence[str], *, role: str, timeout: timedelta
) -> Iterator[Rehearsed]:
    """Execute statements one after the other, and roll all of them back.

    Args:
        conn: In autocommit mode, outside of a transaction.
        statements: The body's, in order.
        role: Whose rights they have; "" for the connected role's own.
        timeout: For all of them together.

    Yields:
        Each statement when it is done; the one that failed is the last.

    Raises:
        RightsError: The connected role may not act as that role.
    """
    give_up_at = time.monotonic() + timeout.total_seconds()
    with conn.transaction(force_rollback=True):
        if role:
            _take_role(conn, role)
        for text in statements:
            done = _execute(conn, text, give_up_at)
            yield done
            if done.error:
                return
        done = _check_constraints(conn)
        if done.error:
            yield done


def count_rows(plan: Sequence[str]) -> int | None:
    """Read from an executed plan how many rows its statement touched or gave.

    A plan's node for a change reports no rows without RETURNING: what came in below it counts, less what it
    left alone.

    Args:
        plan: Lines of EXPLAIN ANALYZE in its text form.

    Returns:
        The number, or None where the plan has none.
    """
    if not plan:
        return None
    if _TOP.match(plan[0]) is None:
        found = _ACTUAL.match(plan[0])
        return _multiply(found) if found else None
    merged = next((match for line in plan if (match := _MERGED.match(line))), None)
    if merged:
        counts = dict(part.split("=") for part in merged[1].split())
        return sum(int(count) for what, count in counts.items() if what != "skipped")
    inserted = next((int(match[1]) for line in plan if (match := _INSERTED.match(line))), None)
    if inserted is not None:
        conflicts = next((int(match[1]) for line in plan if (match := _CONFLICTS.match(line))), 0)
        return inserted + (conflicts if "  Conflict Resolution: UPDATE" in plan else 0)
    return sum(_multiply(match) for line in plan if (match := _CHILD.match(line)))


def name_command(statement: str, plan: Sequence[str] = ()) -> str:
    """Name what a statement is.

    Args:
        statement: SQL.
        plan: Its plan, which knows what a WITH leads to.

    Returns:
        One or two words in capitals, such as `UPDATE` or `CREATE TABLE`.
    """
    top = _TOP.match(plan[0]) if plan else None
    if top:
        return top[1].upper()
    if plan:
        return "SELECT"
    words = _WORDS.match(statement)
    if words is None:
        return "statement"
    first, second = words[1], words[2]
    return f"{first} {second}".upper() if second and first.lower() in _TWO_WORDS else first.upper()


def _take_role(conn: psycopg.Connection, role: str) -> None:
    queries = load_queries("rehearsal")
    try:
        conn.execute(queries["set_role"], {"role": role})
    except (errors.InsufficientPrivilege, errors.InvalidParameterValue) as error:
        raise RightsError(
            f"the job runs as the role {role}, and this connection may not: {error.diag.message_primary}",
            remedy=f"connect as {role} or a member of it with --dsn: other rights would make it another run",
        ) from error
    conn.execute(queries["take_search_path"], {"role": role})


def _execute(conn: psycopg.Connection, text: str, give_up_at: float) -> Rehearsed:
    queries = load_queries("rehearsal")
    # 0 would be no limit at all.
    milliseconds = max(int((give_up_at - time.monotonic()) * 1000), 1)
    began = time.monotonic()
    plan: tuple[str, ...] = ()
    error = ""
    try:
        conn.execute(queries["limit_statement"], {"milliseconds": str(milliseconds), "statement": text})
        began = time.monotonic()
        if _EXPLAINED.match(text):
            # Binary results take the extended protocol, which refuses several statements in one text.
            explain = b"EXPLAIN (ANALYZE, BUFFERS) " + text.encode()
            plan = tuple(line for (line,) in conn.execute(explain, binary=True))
        else:
            conn.execute(queries["execute_statement"])
    except psycopg.DatabaseError as raised:
        if conn.closed or conn.broken:
            raise
        error = _describe(raised)
    return Rehearsed(
        text=text,
        command=name_command(text, plan),
        rows=count_rows(plan),
        seconds=time.monotonic() - began,
        plan=plan,
        error=error,
    )


def _check_constraints(conn: psycopg.Connection) -> Rehearsed:
    """Check what was deferred, as a real run does before it counts as good."""
    text = load_queries("rehearsal")["check_constraints"]
    error = ""
    try:
        conn.execute(text)
    except psycopg.DatabaseError as raised:
        if conn.closed or conn.broken:
            raise
        error = _describe(raised)
    return Rehearsed(text=text, command="deferred constraints", rows=None, seconds=0.0, plan=(), error=error)


def _describe(error: psycopg.Error) -> str:
    diag = error.diag
    parts = (diag.message_primary or str(error), diag.message_detail, diag.message_hint)
    return "\n".join(part for part in parts if part)


def _multiply(match: re.Match[str]) -> int:
    return round(float(match[1]) * int(match[2]))
