"""What a program asks of jobs that it registers: take one away, list them, read how the last run went."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from reconciler.core.change_policies import judge_changes
from reconciler.core.diff import diff
from reconciler.core.identity import guard_identity
from reconciler.core.plan import Plan
from reconciler.core.policies import Governance
from reconciler.core.state import DesiredState
from reconciler.core.steps import find_obstacles, make_steps
from reconciler.errors import DatabaseError, RefusedError, RightsError

from .migrate import take_apply_lock
from .observe import observe_within
from .queries import load_queries
from .statements import list_definition_statements, list_entry_statements, make_revision

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    import psycopg

    from reconciler.core.changes import Change
    from reconciler.core.state import Definition, ObservedState

    from .statements import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledJob:
    """A declared job and how it fares.

    Attributes:
        name: Of the job.
        owner: Whose it is.
        description: What it is for.
        trigger: schedule, once, after, or none where it is held.
        schedule: In pg_cron's grammar; None where it has no entry.
        run_at: When a one-time job is due.
        after: Names of the jobs that it waits for.
        active: Whether it fires.
        paused: Whether somebody paused it.
        role: The role that runs it.
        source: Where it was declared.
        last_status: Of its last run; None where it never ran.
        last_run_at: When that began, aware.
        next_run_at: When it fires next, aware.
        consecutive_failures: How many of its last runs failed.
    """

    name: str
    owner: str
    description: str | None
    trigger: str
    schedule: str | None
    run_at: datetime | None
    after: list[str]
    active: bool
    paused: bool
    role: str
    source: str
    last_status: str | None
    last_run_at: datetime | None
    next_run_at: datetime | None
    consecutive_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How a run went.

    Attributes:
        run_id: In the log; for a job that is handed to pg_cron as it is, pg_cron's own number.
        status: succeeded, failed, timed_out, cancelled or lost.
        run_at: When it began, aware.
        completed_at: When it ended, aware.
        duration: How long it took.
        error: What it failed with.
        rows: How many rows its last statement changed, or what the code said.
        attempt: Which try it was, from 1.
        trigger: schedule, manual, retry, dependency or catch_up.
    """

    run_id: int
    status: str
    run_at: datetime
    completed_at: datetime | None
    duration: timedelta | None
    error: str | None
    rows: int | None
    attempt: int
    trigger: str


def list_scheduled_jobs(conn: psycopg.Connection, owner: str | None) -> tuple[ScheduledJob, ...]:
    """List declared jobs.

    Args:
        conn: To a target with the schema reconciler.
        owner: Whose; None for everybody's.

    Returns:
        Sorted by name, without the tool's own entries.
    """
    with conn.cursor(row_factory=class_row(ScheduledJob)) as cursor:
        query = load_queries("registrations")["list_scheduled_jobs"]
        return tuple(cursor.execute(query, {"owner": owner}))


def read_last_result(conn: psycopg.Connection, name: str) -> ExecutionResult | None:
    """Read how the last run of a job went that is over.

    Args:
        conn: To a target with the schema reconciler.
        name: Of a job, declared or not.

    Returns:
        Its result; None where there is none. Skipped runs do not count.
    """
    with conn.cursor(row_factory=class_row(ExecutionResult)) as cursor:
        return cursor.execute(load_queries("registrations")["read_last_result"], {"name": name}).fetchone()


def has_role(conn: psycopg.Connection, role: str) -> bool:
    """Tell whether the server has a role: pg_cron's error for one that is not there looks like a fault.

    Args:
        conn: To the target.
        role: Its name.
    """
    row = conn.execute(load_queries("registrations")["has_role"], {"role": role}).fetchone()
    return row == (True,)


def remove_job(
    conn: psycopg.Connection,
    name: str,
    request: Request,
    *,
    require: Callable[[Definition], None] | None = None,
) -> bool:
    """Unschedule one job of an owner and remove its definition; all else stays, also what drifted.

    Args:
        conn: In autocommit mode, or without an open transaction.
        name: Of the job.
        request: For which owner and target; its specs do not count.
        require: Looks at its definition before anything is changed, while no apply can work; what it raises
            comes out.

    Returns:
        False where nobody declared it.

    Raises:
        ApplyLockError: An apply is at work.
        RefusedError: It is another owner's, is protected, other jobs wait for it, or the policies and windows
            of the target forbid it, or this is a copy of a database that nobody has claimed.
        RightsError: The role may not.
        DatabaseError: It is still there afterwards; all was rolled back.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        take_apply_lock(conn)
        observed = observe_within(conn).state
        if name not in observed.definitions:
            return False
        if require is not None:
            require(observed.definitions[name])
        _require_removable(name, request.owner, observed)
        nothing = DesiredState(owner=request.owner, resources={})
        changes = find_obstacles(diff(nothing, observed, prune="auto"), observed.facts)
        change = _judge(next(change for change in changes if change.name == name), observed, request)
        if change.obstacle is not None:
            error = RightsError if change.obstacle.kind == "rights" else RefusedError
            raise error(f"{name} was not removed: {change.obstacle.why}", remedy=change.obstacle.remedy)
        _remove(conn, change, observed, request)
        if name in observe_within(conn).state.definitions:
            raise DatabaseError(f"{name} is still there after it was removed, so all was rolled back")
    return True


def _require_removable(name: str, owner: str, observed: ObservedState) -> None:
    definition = observed.definitions[name]
    if definition.owner != owner:
        raise RefusedError(
            f"{definition.kind} {name} belongs to the owner {definition.owner}, not to {owner}",
            remedy=f"remove it where it is declared: {definition.source or 'source unknown'}",
        )
    if definition.kind != "job":
        raise RefusedError(f"{name} is a {definition.kind}, not a job", remedy="it was not declared here")
    waiting = sorted(
        other.name
        for other in observed.definitions.values()
        if name in json.loads(other.document).get("after", ())
    )
    if waiting:
        raise RefusedError(
            f"{', '.join(waiting)} would wait for {name} for ever", remedy="change or cancel that first"
        )
    if not observed.facts.rights.write_definitions:
        raise RightsError(
            f"the role {observed.facts.role} may not write the schema reconciler",
            remedy="connect as its owner",
        )


def _judge(change: Change, observed: ObservedState, request: Request) -> Change:
    """Refuse a change in a copy of a database, and what policies and windows of the target forbid now."""
    plan = Plan(target=request.target.name, owner=request.owner, changes=(change,))
    closed = guard_identity(plan, observed.facts.identity).closed
    if closed is not None:
        return replace(change, obstacle=closed)
    if request.target.governance == Governance():
        return change
    assert observed.now is not None  # noqa: S101 - each observation asks for it
    verdict = judge_changes([change], request.target.governance, now=observed.now, emergency="")
    judged = verdict.changes[0]
    return replace(judged, obstacle=judged.obstacle or verdict.closed)


def _remove(conn: psycopg.Connection, change: Change, observed: ObservedState, request: Request) -> None:
    steps = make_steps([change], observed.facts)
    plan = Plan(target=request.target.name, owner=request.owner, changes=steps.changes)
    queries, rights = load_queries("apply"), observed.facts.rights
    if steps.unschedule and (rights.update_entries or rights.alter_job):
        guard = "lock_entries" if rights.update_entries else "touch_entries"
        conn.execute(queries[guard], {"jobids": list(steps.unschedule)})
    for query, values in list_entry_statements(steps):
        conn.execute(queries[query], values)
    row = conn.execute(queries["insert_revision"], make_revision(plan, steps, request)).fetchone()
    assert row is not None  # noqa: S101 - INSERT RETURNING
    for query, values in list_definition_statements(request.owner, steps):
        conn.execute(queries[query], {"revision": row[0], **values})
