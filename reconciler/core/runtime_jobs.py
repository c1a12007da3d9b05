"""What of the runtime stands in cron.job: the calls of managed jobs, and the tool's own entries.

The tick looks after runs and alerts. The runners start what is due besides the schedules; an entry runs as
one role, so each role that runs managed jobs has runners of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.config import Runtime
from reconciler.core.names import NAME_LIMIT, OWN_PREFIX, is_name
from reconciler.core.specs import JobSpec, Place, QueueSpec, Schedule, SqlBody, WorkerSpec
from reconciler.core.times.triggers import compile_every

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reconciler.core.config import Target
    from reconciler.core.facts import Facts
    from reconciler.core.specs import Spec
    from reconciler.core.state import Definition

TICK: Final = f"{OWN_PREFIX}tick"
"""The entry that looks after runs."""

RUNNER: Final = f"{OWN_PREFIX}runner"
"""The first entry that starts what is due for the role that runs jobs which name none."""

_PLACE: Final = Place(path="reconciler.yaml", line=1, column=1)
_MINUTE: Final = timedelta(minutes=1)
_LONG_STAY: Final = "50 seconds"
_USUAL: Final = Runtime()
_UNITS: Final = (
    ("day", 86_400_000),
    ("hour", 3_600_000),
    ("minute", 60_000),
    ("second", 1_000),
    ("millisecond", 1),
)
# "-2" to "-8" are further runners, and eight hexadecimal digits stand for what a role's name cannot say.
_CONFUSING: Final = re.compile(r"(?:.*-)?(?:[2-8]|[0-9a-f]{8})")
_DEFAULT_RUNNER: Final = re.compile(rf"{RUNNER}(?:-[2-8])?")
_ODD: Final = re.compile(r"[^a-z0-9._-]+")
_TICK_TEXT: Final = "Look after runs: time limits, what was lost or missed, alerts, and records that are old."
_RUNNER_TEXT: Final = "Start what is due besides schedules: retries, dependents, one-time and manual runs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What other owners have in the same database, where our own entries have to reckon with it.

    Attributes:
        entries: The tool's entries that others declared, each with the role that it runs as.
        roles: The roles that run managed jobs of others.
        ours: The tool's entries that we declared, each with the role that it runs as.
        has_queues: Whether others have queues, whose old jobs the tick removes.
    """

    entries: Mapping[str, str] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()
    ours: Mapping[str, str] = field(default_factory=dict)
    has_queues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """When the tool's entries fire, and how long a call goes on looking; a runner's is "" for not at all."""

    schedule: str
    tick_stay: str
    runner_stay: str = ""


def render_call(name: str) -> str:
    """Render the command of a managed entry.

    Args:
        name: A resource's name; its grammar has no quote in it.

    Returns:
        One short, constant call, so that cron.job changes only when time, role or database do.
    """
    return f"CALL reconciler.run_job('{name}')"


def find_neighbours(definitions: Mapping[str, Definition], owner: str) -> Neighbours:
    """Find what other owners have.

    Args:
        definitions: Of every owner, by name.
        owner: Who we are.

    Returns:
        What matters of it.
    """
    entries: dict[str, str] = {}
    roles: set[str] = set()
    ours: dict[str, str] = {}
    for name, definition in definitions.items():
        if name.startswith(OWN_PREFIX):
            username = definition.entry.username if definition.entry else ""
            (ours if definition.owner == owner else entries)[name] = username
        elif definition.owner != owner and definition.entry and definition.entry.command == render_call(name):
            roles.add(definition.entry.username)
    has_queues = any(one.kind == "queue" and one.owner != owner for one in definitions.values())
    return Neighbours(entries=entries, roles=frozenset(roles), ours=ours, has_queues=has_queues)


def is_foreign(role: str, neighbours: Neighbours) -> bool:
    """Tell whether the runner for jobs that name no role is another owner's, and runs as another role.

    Args:
        role: Our target's; "" is the role that applies, and then nothing can be said.
        neighbours: What other owners have.

    Returns:
        True when that runner would start nothing of ours.
    """
    return bool(role) and neighbours.entries.get(RUNNER, role) != role


def make_runtime_specs(
    specs: Sequence[Spec], facts: Facts, target: Target, neighbours: Neighbours | None = None
) -> tuple[JobSpec, ...]:
    """Make the specs of the tool's own entries.

    Args:
        specs: Everything that people declared for the target.
        facts: The target's server.
        target: Which role runs jobs that name none, and how the entries are wanted.
        neighbours: What other owners have; None for nobody.

    Returns:
        The tick and the runners, where a managed job or a worker is declared, and the tick alone where only
        a queue is; without those that another owner declared, since once is enough, and with those of ours on
        which other owners still rely.
    """
    runtime = target.runtime
    if runtime is None:
        return ()
    neighbours = neighbours or Neighbours()
    pace = _find_pace(runtime, facts)
    default = target.role
    roles = {
        spec.role or default
        for spec in specs
        if isinstance(spec, WorkerSpec) or (isinstance(spec, JobSpec) and spec.mode == "managed")
    }
    runners = {
        name: "" if role == default else role
        for role in roles
        for name in _name_runners(role, default, runtime.runners, neighbours)
    }
    for name, role in neighbours.ours.items():
        if name.startswith(RUNNER) and role in neighbours.roles:
            runners.setdefault(name, "" if _DEFAULT_RUNNER.fullmatch(name) else role)
    made = {
        name: _make_spec(name, _RUNNER_TEXT, pace.schedule, _render_runner(pace), role)
        for name, role in runners.items()
    }
    has_queues = any(isinstance(spec, QueueSpec) for spec in specs)
    if roles or has_queues or ((neighbours.roles or neighbours.has_queues) and TICK in neighbours.ours):
        made[TICK] = _make_spec(TICK, _TICK_TEXT, pace.schedule, _render_tick(runtime, pace), "")
    return tuple(made[name] for name in sorted(made.keys() - neighbours.entries.keys()))


def _find_pace(runtime: Runtime, facts: Facts) -> _Pace:
    """Decide when the entries fire.

    A tick stays until the next one while a run's time is up before that: limits are kept to a second.
    Before pg_cron 1.5 there are no seconds, so that a call stays for the rest of its minute. With background
    workers that launcher starts nothing until the longest job ends (1.4.2): a runner must not stay, and the
    tick stays only while a run with a time limit goes on, for which the launcher waits anyway.
    """
    dialect = facts.dialect
    is_fine = runtime.every < _MINUTE
    if dialect.seconds:
        stay = _render_interval(runtime.every) if is_fine else _LONG_STAY
        return _Pace(schedule=compile_every(runtime.every, dialect).text, tick_stay=stay)
    schedule = compile_every(_MINUTE if is_fine else runtime.every, dialect).text
    if facts.background_workers:
        return _Pace(schedule=schedule, tick_stay="1 hour")
    return _Pace(schedule=schedule, tick_stay=_LONG_STAY, runner_stay=_LONG_STAY if is_fine else "")


def _name_runners(role: str, default: str, count: int, neighbours: Neighbours) -> Iterator[str]:
    first = RUNNER
    if role != default or is_foreign(default, neighbours):
        first = f"{RUNNER}-{_name_role(role)}"
    yield first
    for number in range(2, count + 1):
        yield f"{first}-{number}"


def _name_role(role: str) -> str:
    """Spell a role as a part of our names."""
    room = NAME_LIMIT - len(f"{RUNNER}--8")
    if len(role) <= room and is_name(role) and _CONFUSING.fullmatch(role) is None:
        return role
    mark = digest(role)[:8]
    slug = _ODD.sub("-", role.lower())[: room - len(mark) - 1].strip("._-")
    return f"{slug}-{mark}" if slug else mark


def _render_runner(pace: _Pace) -> str:
    stay = f"stay => '{pace.runner_stay}'" if pace.runner_stay else ""
    return f"CALL reconciler.runner({stay})"


def _render_tick(runtime: Runtime, pace: _Pace) -> str:
    arguments = []
    if runtime.keep_runs != _USUAL.keep_runs:
        arguments.append(f"keep_runs => '{_render_interval(runtime.keep_runs)}'")
    if runtime.keep_details != _USUAL.keep_details:
        arguments.append(f"keep_details => '{_render_interval(runtime.keep_details)}'")
    arguments.append(f"stay => '{pace.tick_stay}'")
    return f"CALL reconciler.tick({', '.join(arguments)})"


def _render_interval(duration: timedelta) -> str:
    """Render a duration as people and PostgreSQL's interval read it."""
    rest = duration // timedelta(milliseconds=1)
    parts = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts)


def _make_spec(name: str, description: str, schedule: str, sql: str, role: str) -> JobSpec:
    declared = {"description": description, "mode": "direct", "schedule": schedule, "sql": sql}
    return JobSpec(
        name=name,
        place=_PLACE,
        document=render_canonical(declared | ({"role": role} if role else {})),
        trigger=Schedule(text=schedule),
        body=SqlBody(text=sql),
        mode="direct",
        role=role,
    )
