"""Turn specs and server facts into the desired state of one target."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.core.schedules import find_problem
from reconciler.core.specs import (
    ChannelSpec,
    HandlerBody,
    HttpBody,
    JobSpec,
    Once,
    QueueSpec,
    Schedule,
    Spec,
    SqlBody,
    WorkerSpec,
    order_specs,
)
from reconciler.core.state import DesiredResource, DesiredState, Entry, Notice
from reconciler.core.triggers import compile_trigger, is_same_zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.facts import Facts
    from reconciler.core.schedules import Dialect
    from reconciler.core.specs import Place

HOLDS = {
    "http": "HTTP bodies are stored, but this release does not send them yet: no entry is made",
    "worker": "push workers are stored, but this release does not call their endpoints yet: no entry is made",
    "handler": "handlers are queued in reconciler.jobs when due, but this release has no worker that does "
    "them",
    "once": "one-time jobs are stored in reconciler.jobs, but this release does not start them yet",
    "timezone": "times in a zone other than the server's are stored, but not scheduled by this release: "
    "no entry is made; write the time in the server's zone until then",
    "after": "dependencies (after) are stored; this release starts each job by its own schedule alone",
    "policies": "timeout, on_failure, alert, catch_up and concurrency other than skip are stored, but not "
    "carried out by this release",
}
"""What this release stores and does not execute yet, by the notice's code."""


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
    """What of the facts decides; found out once, since there can be many specs."""

    database: str
    dialect: Dialect
    timezone: str


def render_call(name: str) -> str:
    """Render the command of a managed entry.

    Args:
        name: A resource's name; its grammar has no quote in it.

    Returns:
        One short, constant call, so that cron.job changes only when time, role or database do.
    """
    return f"CALL reconciler.run_job('{name}')"


def make_desired(
    specs: Sequence[Spec], facts: Facts, *, owner: str, role: str = ""
) -> tuple[DesiredState, tuple[SpecProblem, ...]]:
    """Make the desired state of one target.

    Args:
        specs: Everything declared for this target.
        facts: The target's server.
        owner: Whose specs these are.
        role: The role of entries that name none; "" leaves it to the role that applies.

    Returns:
        The state, and every spec that this server cannot take.
    """
    server = _Server(database=facts.database, dialect=facts.dialect, timezone=facts.timezone)
    resources: dict[str, DesiredResource] = {}
    problems: list[SpecProblem] = []
    held: defaultdict[str, list[str]] = defaultdict(list)
    for spec in order_specs(specs):
        entry: Entry | None = None
        once = False
        match spec:
            case QueueSpec() | ChannelSpec():
                pass
            case WorkerSpec():
                held["worker"].append(spec.name)
                problem = find_problem(spec.schedule, server.dialect)
                if problem is not None:
                    problems.append(_describe(spec, problem.reason, problem.suggestion))
            case JobSpec(trigger=Once()):
                once = True
                held["once"].append(spec.name)
            case _:
                text = _compile_schedule(spec, server, problems)
                reason = _find_hold(spec, server)
                if text and not reason:
                    entry = _make_entry(spec, text, server, role)
                if reason:
                    held[reason].append(spec.name)
                _note_unexecuted(spec, held)
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
    notices = tuple(
        Notice(code=code, message=HOLDS[code], names=tuple(sorted(held[code]))) for code in sorted(held)
    )
    return DesiredState(owner=owner, resources=resources, notices=notices), tuple(problems)


def _make_entry(spec: JobSpec, schedule: str, server: _Server, role: str) -> Entry:
    if spec.mode == "direct" and isinstance(spec.body, SqlBody):
        command = spec.body.text
    else:
        command = render_call(spec.name)
    return Entry(
        name=spec.name,
        schedule=schedule,
        command=command,
        database=spec.database or server.database,
        username=spec.role or role,
        active=spec.active,
    )


def _describe(spec: Spec, reason: str, suggestion: str) -> SpecProblem:
    message = f"{spec.kind} {spec.name}: {reason}" + (f"; write {suggestion!r}" if suggestion else "")
    return SpecProblem(place=spec.place, message=message)


def _compile_schedule(spec: JobSpec, server: _Server, problems: list[SpecProblem]) -> str:
    compiled = compile_trigger(spec.trigger, server.dialect)
    if compiled.problem:
        problems.append(_describe(spec, compiled.problem, ""))
        return ""
    if isinstance(spec.trigger, Schedule):
        problem = find_problem(compiled.text, server.dialect)
        if problem is not None:
            problems.append(_describe(spec, problem.reason, problem.suggestion))
            return ""
    if spec.mode == "managed" and spec.database not in {"", server.database}:
        reason = f"a managed job runs in the target's own database, {server.database}"
        problems.append(_describe(spec, reason, "mode: direct"))
    return compiled.text


def _find_hold(spec: JobSpec, server: _Server) -> str:
    if isinstance(spec.body, HttpBody):
        return "http"
    if not is_same_zone(spec.timezone, server.timezone):
        return "timezone"
    return ""


def _note_unexecuted(spec: JobSpec, held: defaultdict[str, list[str]]) -> None:
    if isinstance(spec.body, HandlerBody):
        held["handler"].append(spec.name)
    if spec.after:
        held["after"].append(spec.name)
    if spec.policies:
        held["policies"].append(spec.name)
