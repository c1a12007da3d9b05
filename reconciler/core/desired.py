"""Turn specs and server facts into the desired state of one target."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.core.runtime_jobs import RUNNER, Neighbours, is_foreign, make_runtime_specs, render_call
from reconciler.core.schedules import find_problem
from reconciler.core.specs import (
    ChannelSpec,
    HandlerBody,
    HttpBody,
    JobSpec,
    Once,
    Schedule,
    Spec,
    SqlBody,
    Succeeded,
    WorkerSpec,
    order_specs,
)
from reconciler.core.state import DesiredResource, DesiredState, Entry, Notice
from reconciler.core.times.clocks import to_seconds
from reconciler.core.times.occurrences import clock_of
from reconciler.core.times.timings import make_timing
from reconciler.core.times.triggers import compile_timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reconciler.core.config import Target
    from reconciler.core.facts import Facts
    from reconciler.core.schedules import Dialect
    from reconciler.core.specs import Place
    from reconciler.core.times.clocks import Clock

HOLDS = {
    "http": "requests are sent from the database, and this one has neither of the extensions http and "
    "pg_net, so these are only stored: CREATE EXTENSION http (the package postgresql-NN-http), or pg_net",
    "runtime": "nobody carries out their time limits, retries, alerts, dependencies, missed, delayed and "
    "one-time starts, since runtime is false on this target: leave it out, or call reconciler.tick() and "
    "reconciler.runner() often",
}
"""What is stored and not executed on this target, by the notice's code."""

_FIRST_RUN = to_seconds(datetime(2026, 1, 1, tzinfo=UTC))
"""No job of this tool ran earlier."""

_LONG_WAIT = timedelta(minutes=1)
_WAITING = (
    "these workers may wait for over a minute: without pg_net a call holds one of pg_cron's slots until its "
    "answer, and a snapshot, which keeps VACUUM of all tables from its work; let them fetch less at a time "
    "(limit) under a shorter timeout, or CREATE EXTENSION pg_net"
)

_SENDERS = frozenset({"http", "pg_net"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecProblem:
    """A spec that this target cannot take.

    Attributes:
        place: Where the resource was declared.
        message: What is wrong and what to write.
    """

    place: Place
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What of server and target decides; found out once, since there can be many specs."""

    database: str
    dialect: Dialect
    timezone: str
    sends: bool
    sends_later: bool
    role: str
    foreign_role: str
    has_runtime: bool
    clocks: Mapping[str, Clock]


def make_desired(
    specs: Sequence[Spec],
    facts: Facts,
    *,
    owner: str,
    target: Target,
    neighbours: Neighbours | None = None,
    clocks: Mapping[str, Clock] | None = None,
) -> tuple[DesiredState, tuple[SpecProblem, ...]]:
    """Make the desired state of one target.

    Args:
        specs: Everything that people declared for this target.
        facts: The target's server.
        owner: Whose specs these are.
        target: With the role of entries that name none, where "" leaves it to the role that applies, and the
            tool's own entries.
        neighbours: What other owners have there; None for nobody.
        clocks: Of the zones of all jobs and of the server's, as the server knows them for the years to come,
            by name; None takes what this machine knows.

    Returns:
        The state, and every spec that this server cannot take.
    """
    neighbours = neighbours or Neighbours()
    server = _read_server(specs, facts, target, neighbours, clocks)
    resources: dict[str, DesiredResource] = {}
    problems: list[SpecProblem] = []
    held: defaultdict[str, list[str]] = defaultdict(list)
    for spec in order_specs([*specs, *make_runtime_specs(specs, facts, target, neighbours)]):
        entry: Entry | None = None
        once = False
        match spec:
            case WorkerSpec():
                entry = _place_worker(spec, server, problems, held)
            case ChannelSpec(deliver="database") if not server.sends:
                held["http"].append(spec.name)
            case JobSpec():
                once = isinstance(spec.trigger, Once)
                entry = _place_job(spec, server, problems, held)
            case _:
                pass
        resources[spec.name] = DesiredResource(
            kind=spec.kind,
            name=spec.name,
            document=spec.document,
            place=spec.place,
            entry=entry,
            once=once,
            protect=spec.protect,
            renamed_from=spec.renamed_from,
        )
    messages = {**HOLDS, "waiting": _WAITING}
    notices = tuple(
        Notice(code=code, message=messages[code], names=tuple(sorted(held[code]))) for code in sorted(held)
    )
    return DesiredState(owner=owner, resources=resources, notices=notices), tuple(problems)


def _read_server(
    specs: Sequence[Spec],
    facts: Facts,
    target: Target,
    neighbours: Neighbours,
    clocks: Mapping[str, Clock] | None,
) -> _Server:
    if clocks is None:
        zones = {facts.timezone, *(spec.timezone for spec in specs if isinstance(spec, JobSpec))} - {""}
        clocks = _read_clocks(zones)
    return _Server(
        clocks=clocks,
        database=facts.database,
        dialect=facts.dialect,
        timezone=facts.timezone,
        sends=not _SENDERS.isdisjoint(facts.extensions),
        sends_later="pg_net" in facts.extensions,
        role=target.role,
        foreign_role=neighbours.entries[RUNNER] if is_foreign(target.role, neighbours) else "",
        has_runtime=target.runtime is not None,
    )


def _read_clocks(zones: Iterable[str]) -> dict[str, Clock]:
    """Read what this machine knows; a zone that it does not know is left out."""
    found = {}
    for zone in zones:
        with suppress(ValueError):
            # What clocks did once would make schedules come more often than they have to.
            found[zone] = clock_of(zone).since(_FIRST_RUN)
    return found


def _place_worker(
    spec: WorkerSpec, server: _Server, problems: list[SpecProblem], held: defaultdict[str, list[str]]
) -> Entry | None:
    """Make the entry of a worker, where requests can be sent."""
    problem = find_problem(spec.schedule, server.dialect)
    if problem is not None:
        problems.append(_describe(spec, problem.reason, problem.suggestion))
    if not server.sends:
        held["http"].append(spec.name)
        return None
    if server.sends_later and not server.has_runtime:
        held["runtime"].append(spec.name)
    if not server.sends_later and spec.timeout > _LONG_WAIT:
        held["waiting"].append(spec.name)
    return Entry(
        name=spec.name,
        schedule=spec.schedule,
        command=render_call(spec.name),
        database=server.database,
        username=spec.role or server.role,
        active=spec.active,
    )


def _place_job(
    spec: JobSpec, server: _Server, problems: list[SpecProblem], held: defaultdict[str, list[str]]
) -> Entry | None:
    """Make the entry of a job, where it has one; note what is not executed."""
    if spec.mode == "managed" and spec.database not in {"", server.database}:
        reason = f"a managed job runs in the target's own database, {server.database}"
        problems.append(_describe(spec, reason, "mode: direct"))
    is_timed = not isinstance(spec.trigger, Once | Succeeded)
    if server.foreign_role and not (is_timed or spec.role or isinstance(spec.body, HandlerBody)):
        # Without an entry a job that names no role belongs to the runner of those, which is another owner's.
        reason = f"it names no role, and would run as {server.foreign_role} like the jobs of another owner"
        problems.append(_describe(spec, reason, f"role: {server.role}"))
    schedule = _compile_schedule(spec, server, problems)
    reason = _find_hold(spec, server)
    if reason:
        held[reason].append(spec.name)
    is_sent_later = isinstance(spec.body, HttpBody) and server.sends_later
    if not server.has_runtime and (spec.needs_runtime or is_sent_later):
        held["runtime"].append(spec.name)
    return _make_entry(spec, schedule, server) if schedule and not reason else None


def _make_entry(spec: JobSpec, schedule: str, server: _Server) -> Entry:
    if spec.mode == "direct" and isinstance(spec.body, SqlBody):
        command = spec.body.text
    else:
        command = render_call(spec.name)
    return Entry(
        name=spec.name,
        schedule=schedule,
        command=command,
        database=spec.database or server.database,
        username=spec.role or server.role,
        active=spec.active,
    )


def _describe(spec: Spec, reason: str, suggestion: str) -> SpecProblem:
    message = f"{spec.kind} {spec.name}: {reason}" + (f"; write {suggestion!r}" if suggestion else "")
    return SpecProblem(place=spec.place, message=message)


def _compile_schedule(spec: JobSpec, server: _Server, problems: list[SpecProblem]) -> str:
    if isinstance(spec.trigger, Schedule):
        problem = find_problem(spec.trigger.text, server.dialect)
        if problem is not None:
            problems.append(_describe(spec, problem.reason, problem.suggestion))
            return ""
        is_plain = not (spec.timezone or spec.spread or spec.ambiguous or spec.nonexistent)
        if is_plain and spec.mode != "direct":
            return spec.trigger.text  # as most jobs have it; what leaves runs out is the database's to see
    timing = make_timing(spec, server.timezone)
    if timing is None or timing.once is not None:
        return ""
    compiled = compile_timing(
        timing, server_zone=server.timezone, clocks=server.clocks, dialect=server.dialect
    )
    if compiled.problem:
        problems.append(_describe(spec, compiled.problem, ""))
        return ""
    if spec.mode == "direct" and not compiled.exact:
        reason = (
            f"no schedule of pg_cron says just that in this server's zone ({server.timezone}), and with "
            "mode: direct it would run whenever its entry fires"
        )
        problems.append(_describe(spec, reason, "mode: managed"))
        return ""
    return compiled.text


def _find_hold(spec: JobSpec, server: _Server) -> str:
    return "http" if isinstance(spec.body, HttpBody) and not server.sends else ""
