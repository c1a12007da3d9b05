"""The statements of an apply with their arguments: what is executed, and what `plan --sql` shows.

Each kind of step is one statement over arrays, so that the number of round trips does not grow with the
number of jobs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.core.canonical import digest, render_canonical
from reconciler.core.ownership import take_over

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from reconciler.core.changes import Change, Snapshot
    from reconciler.core.config import Target
    from reconciler.core.history import Past
    from reconciler.core.ownership import Handover
    from reconciler.core.plan import Plan
    from reconciler.core.specs import Spec
    from reconciler.core.steps import Steps

    from .secrets import StoredSecret

Statement = tuple[str, dict[str, Any]]
"""A query of `sql/queries/apply.sql` by name, and its arguments."""

_APART = frozenset({"unmanaged", "transferred"})
"""Why something goes that leaves no definition, or keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be planned or applied.

    Attributes:
        specs: Everything declared for the target.
        owner: Whose specs these are.
        target: The target, with its policy.
        adopt: Names of entries that nobody owns and that may be taken over.
        actor: Who asks, for the revision; "" if unknown.
        commit: The commit of the files, for the revision; "" if unknown.
        secrets: What the database itself needs for its requests, by name; no part of the plan.
        past: What entries are to be to the letter, where a state of before is restored; None where the specs
            and the server decide.
        emergency: Why windows and forbidden times do not count for once, for the revision; "" where they do.
        selected: Names of the specs that are planned; None for all of them.
        handover: What is given up, where that alone is planned; None where what is declared is.
    """

    specs: Sequence[Spec]
    owner: str
    target: Target
    adopt: Collection[str] = ()
    actor: str = ""
    commit: str = ""
    secrets: Mapping[str, StoredSecret] = field(default_factory=dict)
    past: Past | None = None
    emergency: str = ""
    selected: Collection[str] | None = None
    handover: Handover | None = None

    @property
    def planned_specs(self) -> Sequence[Spec]:
        """The specs that are planned."""
        if self.handover is not None:
            return ()
        if self.selected is None:
            return self.specs
        return [spec for spec in self.specs if spec.name in self.selected]


def list_entry_statements(steps: Steps) -> Iterator[Statement]:
    """List the statements that change `cron.job`.

    Args:
        steps: Of the plan.

    Yields:
        Statements, in the order in which they have to be executed.
    """
    if steps.unschedule:
        yield "unschedule_entries", {"jobids": list(steps.unschedule)}
    if steps.rename:
        # The key of cron.job is checked row by row and in no sure order, so names that others still hold are
        # reached in two steps. "~" begins no name of ours.
        final = {step.jobid: step.name for step in steps.rename}
        if len(final) > 1:
            yield "rename_entries", {"jobids": list(final), "names": [f"~{jobid}" for jobid in final]}
        yield "rename_entries", {"jobids": list(final), "names": list(final.values())}
    if steps.alter:
        yield (
            "alter_entries",
            {
                "jobids": [step.jobid for step in steps.alter],
                "schedules": [step.schedule for step in steps.alter],
                "commands": [step.command for step in steps.alter],
                "databases": [step.database for step in steps.alter],
                "usernames": [step.username for step in steps.alter],
                "actives": [step.active for step in steps.alter],
            },
        )
    for plain, query in ((False, "schedule_entries"), (True, "schedule_entries_plainly")):
        chosen = [step for step in steps.schedule if step.plain is plain]
        if not chosen:
            continue
        arrays: dict[str, list[Any]] = {
            "names": [step.entry.name for step in chosen],
            "schedules": [step.entry.schedule for step in chosen],
            "commands": [step.entry.command for step in chosen],
        }
        if not plain:
            arrays["databases"] = [step.entry.database for step in chosen]
            arrays["usernames"] = [step.username for step in chosen]
            arrays["actives"] = [step.entry.active for step in chosen]
        yield query, arrays


def list_revisions(plan: Plan, steps: Steps, request: Request) -> Iterator[dict[str, Any]]:
    """List the arguments of `insert_revision`, once for each owner whose history it is a part of.

    Args:
        plan: What is applied.
        steps: Of the plan.
        request: Who asked.

    Yields:
        The row's values by column; first those of the owner who asked.
    """
    yield make_revision(plan, steps, request)
    if request.handover is not None and request.handover.to:
        taken = take_over(steps.changes)
        theirs = replace(plan, owner=request.handover.to, changes=taken)
        yield make_revision(theirs, replace(steps, changes=taken), request)


def make_revision(plan: Plan, steps: Steps, request: Request) -> dict[str, Any]:
    """Make the arguments of `insert_revision`.

    Args:
        plan: What is applied.
        steps: Of the plan.
        request: Who asked.

    Returns:
        The row's values by column.
    """
    summary: dict[str, Any] = {str(action): count for action, count in plan.count().items()}
    if request.past is not None and request.past.names:
        summary["restored"] = list(request.past.names)
    elif request.past is not None:
        summary["rollback_to"] = request.past.revision
    if request.emergency:
        summary["emergency"] = request.emergency
    if request.handover is not None and request.handover.to:
        gives = plan.owner == request.owner
        summary["transferred_to" if gives else "transferred_from"] = (
            request.handover.to if gives else request.owner
        )
    return {
        "owner": plan.owner,
        "target": plan.target,
        "actor": request.actor,
        "commit": request.commit,
        "release": __version__,
        "summary": json.dumps(summary),
        "changes": f"[{','.join(map(_render_change, steps.changes))}]",
    }


def _render_change(change: Change) -> str:
    """Render a change as JSON; its documents are JSON already and go in as they are."""
    head = {
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "reason": change.reason,
        "source": change.source,
        **({"renamed_from": change.renamed_from} if change.renamed_from else {}),
    }
    before, after = _render_snapshot(change.before), _render_snapshot(change.after)
    return f'{render_canonical(head)[:-1]},"before":{before},"after":{after}}}'


def _render_snapshot(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return "null"
    entry = "null" if snapshot.entry is None else render_canonical(snapshot.entry.fields())
    return f'{{"spec":{snapshot.document or "null"},"entry":{entry}}}'


def list_definition_statements(owner: str, steps: Steps) -> Iterator[Statement]:
    """List the statements that change the schema `reconciler`; each also takes `revision` and `zone`.

    Args:
        owner: Whose definitions these are.
        steps: Of the plan.

    Yields:
        Statements, in the order in which they have to be executed.
    """
    deleted = [change.name for change in steps.changes if change.reason not in _APART and _is_gone(change)]
    renamed = [change for change in steps.changes if change.renamed_from]
    retired = [change for change in steps.changes if change.action == "retire"]
    transferred = [change for change in steps.changes if change.reason == "transferred"]
    put = [
        change
        for change in steps.changes
        if change.after is not None and change.action not in {"retire", "release"}
    ]
    restored = [change.name for change in put if change.retired_until is not None]
    if deleted:
        yield "delete_definitions", {"names": deleted}
    if transferred:
        to = next(field.after for field in transferred[0].fields if field.path == "owner")
        yield "transfer_definitions", {"names": [change.name for change in transferred], "to": to}
    if renamed:
        before, after = [change.renamed_from for change in renamed], [change.name for change in renamed]
        yield "rename_definitions", {"before": before, "after": after}
    if restored:
        yield "restore_definitions", {"names": restored}
    if retired:
        yield from _list_retirements(retired, frozenset(steps.unschedule))
    scheduled = [change for change in put if change.after and change.after.entry]
    others = [change for change in put if change.after and not change.after.entry]
    if scheduled:
        entries = _make_entry_arrays(scheduled, frozenset(steps.unschedule))
        arrays = {**_make_definition_arrays(scheduled), **entries}
        yield "put_definitions_with_entries", {"owner": owner, **arrays}
    if others:
        yield "put_definitions", {"owner": owner, **_make_definition_arrays(others)}
    if put:
        yield "clear_rows", {"names": [change.name for change in put]}
    kept = [*put, *retired]
    for query, names in (
        ("put_queues", [change.name for change in kept if change.kind == "queue"]),
        ("put_workers", [change.name for change in kept if change.kind == "worker"]),
        ("put_once_jobs", [change.name for change in kept if change.once]),
        ("put_policies", [change.name for change in kept if change.kind in {"job", "worker"}]),
        ("put_timings", [change.name for change in kept if change.kind == "job"]),
    ):
        if names:
            yield query, {"names": names}
    if kept:
        yield "put_job_states", {}


def _is_gone(change: Change) -> bool:
    return change.action in {"delete", "release"}


def _list_retirements(retired: Sequence[Change], replaced: Collection[int]) -> Iterator[Statement]:
    graces = [
        next((field.after for field in change.fields if field.path == "grace"), None) for change in retired
    ]
    yield "retire_definitions", {"names": [change.name for change in retired], "graces": graces}
    standing = [change for change in retired if change.after is not None and change.after.entry is not None]
    if standing:
        names = [change.name for change in standing]
        jobnames = [change.after.entry.name for change in standing if change.after and change.after.entry]
        arrays = {"names": names, "jobnames": jobnames, **_make_entry_arrays(standing, replaced)}
        yield "put_entries", arrays


def _make_definition_arrays(changes: Sequence[Change]) -> dict[str, list[Any]]:
    documents = [change.after.document for change in changes if change.after is not None]
    return {
        "names": [change.name for change in changes],
        "kinds": [change.kind for change in changes],
        "specs": documents,
        "digests": [digest(document) for document in documents],
        "protects": [change.protect for change in changes],
        "sources": [change.source for change in changes],
    }


def _make_entry_arrays(changes: Sequence[Change], replaced: Collection[int]) -> dict[str, list[Any]]:
    columns = ("jobids", "schedules", "commands", "databases", "usernames", "actives")
    arrays: dict[str, list[Any]] = {column: [] for column in columns}
    for change in changes:
        assert change.after is not None  # noqa: S101 - the caller chose those that have an entry
        assert change.after.entry is not None  # noqa: S101 - the same
        before = None if change.before is None else change.before.entry
        jobid = None if before is None or before.jobid in replaced else before.jobid
        values = (jobid, *list(change.after.entry.fields().values())[1:])
        for column, value in zip(columns, values, strict=True):
            arrays[column].append(value)
    return arrays
