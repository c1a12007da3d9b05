"""Turn entries that nobody declared into declarations of just what they are, or say why they were left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.core.names import OWN_PREFIX, is_name
from reconciler.core.schedules import find_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.state import Entry, ObservedState


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An entry that was not imported.

    Attributes:
        entry: As observed.
        reason: Why, and what can be done about it.
    """

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the entries.

    Attributes:
        jobs: Declarations by name, sorted, as they stand below `jobs:` in a spec file.
        left: What was not imported, by jobid.
    """

    jobs: Mapping[str, Mapping[str, Any]]
    left: tuple[Left, ...]


def import_entries(observed: ObservedState, *, role: str = "") -> Imported:
    """Make declarations of the entries that have no definition.

    They are declared in `mode: direct`, so that the command stays as it is: under our lock and log it would
    be another one.

    Args:
        observed: What the target holds.
        role: The role of entries that name none; "" is the connected role.

    Returns:
        The declarations, and what was left with its reasons.
    """
    role = role or observed.facts.role
    owned = {definition.entry.jobid for definition in observed.definitions.values() if definition.entry}
    jobs: dict[str, dict[str, Any]] = {}
    left: list[Left] = []
    for jobid in sorted(observed.entries.keys() - owned):
        entry = observed.entries[jobid]
        reason = _find_reason(entry, observed, jobs)
        if reason:
            left.append(Left(entry=entry, reason=reason))
            continue
        job: dict[str, Any] = {"schedule": entry.schedule, "sql": _escape(entry.command), "mode": "direct"}
        if entry.username != role:
            job["role"] = entry.username
        if entry.database != observed.facts.database:
            job["database"] = entry.database
        if not entry.active:
            job["active"] = False
        jobs[entry.name] = job
    return Imported(jobs=dict(sorted(jobs.items())), left=tuple(left))


def _escape(command: str) -> str:
    """Keep a command from being read as one with variables."""
    return command.replace("${var:", "$${var:")


def _find_reason(entry: Entry, observed: ObservedState, jobs: Mapping[str, object]) -> str:
    if not entry.name:
        return (
            "it has no name, so nothing can refer to it; schedule it again under a name "
            f"and SELECT cron.unschedule({entry.jobid})"
        )
    if not is_name(entry.name):
        return (
            "its name is not of lower-case letters, digits, dots, underscores and hyphens; schedule it again "
            f"under such a name and SELECT cron.unschedule({entry.jobid})"
        )
    if entry.name.startswith(OWN_PREFIX):
        return (
            f"names that begin with {OWN_PREFIX} are the tool's own; schedule it again under another name "
            f"and SELECT cron.unschedule({entry.jobid})"
        )
    if entry.name in jobs:
        return f"another role has an entry of this name that was imported; it belongs to {entry.username}"
    definition = observed.definitions.get(entry.name)
    if definition is not None:
        return f"the name is declared already, by the owner {definition.owner}"
    problem = find_problem(entry.schedule, observed.facts.dialect)
    if problem is not None:
        return f"its schedule {entry.schedule!r}: {problem.reason}; correct it first" + (
            f", as {problem.suggestion!r}" if problem.suggestion else ""
        )
    return ""
