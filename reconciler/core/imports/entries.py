"""Turn entries and workers that no file declares into declarations of just what they are, or say why not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.core.imports.results import escape_sql, escape_text
from reconciler.core.matching import match_entries
from reconciler.core.names import API_OWNER, OWN_PREFIX, SQL_OWNER, is_name
from reconciler.core.schedules import find_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.state import Definition, Entry, ObservedState


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
        workers: Declarations by name, sorted, as they stand below `workers:`.
    """

    jobs: Mapping[str, Mapping[str, Any]]
    left: tuple[Left, ...]
    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that the workers' tokens are, sorted."""
        return tuple(
            sorted(worker["token"]["secret"] for worker in self.workers.values() if "token" in worker)
        )


def import_entries(observed: ObservedState, *, role: str = "") -> Imported:
    """Make declarations of the entries that have no definition, and of the workers that were made in SQL.

    Entries are declared in `mode: direct`, so that the command stays as it is: under our lock and log it
    would be another one.

    Args:
        observed: What the target holds.
        role: The role of entries that name none; "" is the connected role.

    Returns:
        The declarations, and what was left with its reasons.
    """
    role = role or observed.facts.role
    owned = {definition.entry.jobid for definition in observed.definitions.values() if definition.entry}
    workers, left = _import_workers(observed, role)
    owned |= {entry.jobid for entry in _find_worker_entries(observed).values()}
    jobs: dict[str, dict[str, Any]] = {}
    for jobid in sorted(observed.entries.keys() - owned):
        entry = observed.entries[jobid]
        reason = _find_reason(entry, observed, jobs)
        if reason:
            left.append(Left(entry=entry, reason=reason))
            continue
        jobs[entry.name] = declare_entry(entry, role=role, database=observed.facts.database)
    left.sort(key=lambda one: one.entry.jobid or 0)
    return Imported(jobs=dict(sorted(jobs.items())), left=tuple(left), workers=workers)


def find_service_jobs(observed: ObservedState, *, role: str = "") -> dict[str, Mapping[str, Any]]:
    """Find the jobs that were made through the service.

    Args:
        observed: What the target holds.
        role: The role of entries that name none; "" is the connected role.

    Returns:
        By name, sorted, what is declared of each; texts are to the letter. Roles are named that files would
        not give by themselves.
    """
    role = role or observed.facts.role
    jobs: dict[str, Mapping[str, Any]] = {}
    for name, definition in sorted(observed.definitions.items()):
        if definition.owner != API_OWNER or definition.kind != "job" or name.startswith(OWN_PREFIX):
            continue
        declared = json.loads(definition.document)
        if definition.entry is not None and definition.entry.username != role:
            declared.setdefault("role", definition.entry.username)
        jobs[name] = declared
    return jobs


def declare_entry(entry: Entry, *, role: str, database: str) -> dict[str, Any]:
    """Declare an entry as just what it is.

    Args:
        entry: As observed.
        role: The role of entries that name none.
        database: The database of entries that name none.

    Returns:
        What stands below its name in a spec file.
    """
    job: dict[str, Any] = {"schedule": entry.schedule, "sql": escape_sql(entry.command), "mode": "direct"}
    if entry.username != role:
        job["role"] = entry.username
    if entry.database != database:
        job["database"] = entry.database
    if not entry.active:
        job["active"] = False
    return job


def _import_workers(observed: ObservedState, role: str) -> tuple[dict[str, dict[str, Any]], list[Left]]:
    """Declare the workers that were made in SQL; tokens stay where they are, under the names given here."""
    entries = _find_worker_entries(observed)
    workers: dict[str, dict[str, Any]] = {}
    left: list[Left] = []
    for name, definition in sorted(observed.definitions.items()):
        applied = definition.entry
        if definition.owner != SQL_OWNER or applied is None:
            continue
        entry = entries.get(name)
        problem = None if entry is None else find_problem(entry.schedule, observed.facts.dialect)
        if entry is None:
            reason = f"it was unscheduled; SELECT reconciler.drop_queue_worker('{name}') forgets it"
            left.append(Left(entry=applied, reason=reason))
        elif problem is not None:
            left.append(Left(entry=entry, reason=f"its schedule {entry.schedule!r}: {problem.reason}"))
        else:
            workers[name] = _declare_worker(definition, entry, role)
    return workers, left


def _find_worker_entries(observed: ObservedState) -> dict[str, Entry]:
    entries = match_entries(observed)
    return {
        name: entries[name]
        for name, definition in observed.definitions.items()
        if definition.owner == SQL_OWNER and name in entries
    }


def _declare_worker(definition: Definition, entry: Entry, role: str) -> dict[str, Any]:
    stored = json.loads(definition.document)
    worker: dict[str, Any] = {"schedule": entry.schedule, "url": escape_text(stored["url"])}
    worker |= {key: value for key, value in stored.items() if key not in {"schedule", "url"}}
    if entry.username != role:
        worker["role"] = entry.username
    if not entry.active:
        worker["active"] = False
    return worker


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
