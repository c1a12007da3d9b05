"""How the runtime fares: whether the tick goes on, starts are taken, messages sent, and runs can be ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from reconciler.core.preflight import Finding

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from reconciler.core.facts import Facts

_PATIENCE = timedelta(minutes=5).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class TickHealth:
    """An entry that calls the tick.

    Attributes:
        name: Of the entry.
        active: Whether it fires.
        status: How its newest finished run ended; None where none is known.
        error: What that one failed with.
        age: Seconds since its newest run began; None where none is known.
        is_running: Whether that one goes on.
        declared_age: Seconds since our definition of it changed; None where nobody declared it.
    """

    name: str
    active: bool
    status: str | None
    error: str | None
    age: float | None
    is_running: bool
    declared_age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueStarts:
    """Starts of one role that no runner took in time.

    Attributes:
        role: That runs their jobs.
        starts: How many.
        age: Seconds since the oldest was due.
        jobs: Names of some of them.
    """

    role: str
    starts: int
    age: float
    jobs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubledChannel:
    """A channel that did not get its messages.

    Attributes:
        channel: Its name.
        deliver: Who sends to it: process or database.
        failed: Messages given up in the last seven days.
        waiting: Messages due for more than five minutes.
        error: The newest reason.
    """

    channel: str
    deliver: str
    failed: int
    waiting: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignalledRole:
    """A role whose runs the owner of the schema may not end.

    Attributes:
        role: That runs jobs.
        owner: Of the schema.
        is_superuser: Whether the role is one, whom no grant makes reachable.
        jobs: How many managed jobs it runs.
        has_timeout: Whether one of them has a time limit.
    """

    role: str
    owner: str
    is_superuser: bool
    jobs: int
    has_timeout: bool


def find_runtime_troubles(conn: psycopg.Connection, facts: Facts) -> tuple[Finding, ...]:
    """Find out what of the runtime does not work.

    Args:
        conn: To a target with the schema of this release.
        facts: Of the target.

    Returns:
        Findings, errors first, then by code.
    """
    queries = load_queries("health")
    findings = find_tick_troubles(conn, facts)
    with conn.cursor(row_factory=class_row(OverdueStarts)) as starts:
        findings += map(_describe_overdue, starts.execute(queries["read_overdue_starts"]))
    with conn.cursor(row_factory=class_row(TroubledChannel)) as channels:
        for channel in channels.execute(queries["read_troubled_deliveries"]):
            findings += _judge_channel(channel)
    if facts.rights.use_cron:
        findings += _judge_workers(conn.execute(queries["read_sql_workers"]).fetchall())
    with conn.cursor(row_factory=class_row(UnsignalledRole)) as roles:
        findings += map(_describe_unsignalled, roles.execute(queries["read_unsignalled_roles"]))
    return tuple(sorted(findings, key=lambda finding: (finding.severity, finding.code, finding.message)))


def find_tick_troubles(conn: psycopg.Connection, facts: Facts) -> list[Finding]:
    """Find out whether the tick goes on.

    Args:
        conn: To a target with the schema of this release.
        facts: Of the target.

    Returns:
        Findings about the entries that call the tick; none where pg_cron's tables cannot be used.
    """
    if not facts.rights.use_cron:
        return []
    with conn.cursor(row_factory=class_row(TickHealth)) as ticks:
        return list(_judge_ticks(ticks.execute(load_queries("health")["read_ticks"]).fetchall(), facts))


def _judge_ticks(ticks: list[TickHealth], facts: Facts) -> Iterator[Finding]:
    """Judge each active tick; nothing is said where pg_cron keeps no record, or hides it."""
    for tick in ticks:
        if not tick.active:
            yield Finding(
                code="tick_inactive",
                severity="error",
                message=f"the entry {tick.name} is inactive: time limits, lost and missed runs go unnoticed",
                remedy="run reconciler drift to see what was changed, and reconciler apply",
            )
        elif tick.status == "failed" and not _is_silent(tick, facts):
            yield Finding(
                code="tick_failing",
                severity="error",
                message=f"the last run of {tick.name} failed: {tick.error}",
                remedy="remove the cause that it names; the other steps of the tick were done all the same",
            )
        elif _is_silent(tick, facts):
            when = "in the records of pg_cron" if tick.age is None else f"for {_spell(tick.age)}"
            yield Finding(
                code="tick_silent",
                severity="error",
                message=f"the entry {tick.name} is active, but there is no run of it {when}: time limits, "
                "lost and missed runs go unnoticed",
                remedy="see what is found here about pg_cron's launcher; if nothing, look for this entry in "
                "cron.job_run_details and in the server's log",
            )


def _is_silent(tick: TickHealth, facts: Facts) -> bool:
    if tick.is_running or facts.settings.get("log_run") == "off" or not facts.rights.sees_all:
        return False
    if tick.age is not None:
        return tick.age > _PATIENCE
    return tick.declared_age is not None and tick.declared_age > _PATIENCE


def _describe_overdue(late: OverdueStarts) -> Finding:
    return Finding(
        code="overdue_starts",
        severity="error",
        message=f"no runner of the role {late.role} has taken {_count(late.starts, 'start')}, due for up to "
        f"{_spell(late.age)}: {', '.join(late.jobs)}{' and more' if late.starts > len(late.jobs) else ''}",
        remedy=f"run reconciler apply, which declares a runner for {late.role} unless runtime is false; if "
        "there is one, it is busy: see reconciler runs --status running, and raise runtime.runners",
    )


def _judge_channel(channel: TroubledChannel) -> Iterator[Finding]:
    why = f": {channel.error}" if channel.error else ""
    name = channel.channel
    if channel.failed:
        yield Finding(
            code="deliveries_failed",
            severity="warning",
            message=f"the channel {name}: {_count(channel.failed, 'message')} given up in 7 days{why}",
            remedy=f"run reconciler alerts test {name}; reconciler alerts list shows what was not told",
        )
    if channel.waiting:
        remedy = (
            "the tick sends to it: see what is said of the tick"
            if channel.deliver == "database"
            else "run reconciler alerts deliver, with --watch to go on"
        )
        yield Finding(
            code="deliveries_waiting",
            severity="warning",
            message=f"the channel {name}: {_count(channel.waiting, 'message')} due for over 5 minutes{why}",
            remedy=remedy,
        )


def _judge_workers(workers: list[tuple[str, bool, bool]]) -> Iterator[Finding]:
    """Judge the workers that were made in SQL: name, whether its entry is there, whether a tick is."""
    for name, has_entry, _ in workers:
        if not has_entry:
            yield Finding(
                code="worker_unscheduled",
                severity="warning",
                message=f"the worker {name} was made in SQL, and its entry was unscheduled",
                remedy=f"SELECT reconciler.drop_queue_worker('{name}') forgets it, and its token; "
                "reconciler.create_queue_worker makes it anew",
            )
    left = [name for name, has_entry, has_tick in workers if has_entry and not has_tick]
    if left:
        yield Finding(
            code="workers_unwatched",
            severity="warning",
            message=f"no entry calls reconciler.tick(): nobody notices when {', '.join(left[:3])}"
            f"{' and more' if len(left) > 3 else ''} did not start or got lost",
            remedy="declare a job or a worker and run reconciler apply, which makes that entry; or "
            "SELECT cron.schedule('tick', '* * * * *', 'CALL reconciler.tick()')",
        )


def _describe_unsignalled(role: UnsignalledRole) -> Finding:
    if role.is_superuser:
        remedy = (
            "let a role without superuser rights run them (role:), or a superuser own the schema reconciler"
        )
    else:
        remedy = (
            f'as an administrator: GRANT pg_signal_backend TO "{role.owner}", or '
            f'GRANT "{role.role}" TO "{role.owner}"'
        )
    return Finding(
        code="cannot_signal",
        severity="error" if role.has_timeout else "warning",
        message=f"the role {role.owner}, which owns the schema reconciler, may not end the runs of "
        f"{role.role} ({_count(role.jobs, 'job')}): no time limit is kept and none can be cancelled",
        remedy=remedy,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spell(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"
