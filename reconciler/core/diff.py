"""Compare three states: what is declared, what was last applied, and what the target holds.

The definition says what was last applied; the entry in cron.job says what the target holds. When the declaration
moved and the target did not, people edited; when the target moved and the declaration did not, it drifted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.changes import Action, Change, FieldChange, Obstacle, Reason, Snapshot
from reconciler.core.fields import diff_fields
from reconciler.core.specs import KINDS
from reconciler.core.state import ENTRY_FIELDS, DesiredResource, DesiredState, Entry, ObservedState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from reconciler.core.config import Prune
    from reconciler.core.state import Definition

_Index = dict[str, list[Entry]]


def diff(
    desired: DesiredState,
    observed: ObservedState,
    *,
    prune: Prune = "never",
    adopt: Collection[str] = (),
) -> tuple[Change, ...]:
    """Compare the desired with the observed state.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.
        prune: The target's policy; under `never` what is no longer declared is left out.
        adopt: Names of entries nobody owns that may be taken over although they differ.

    Returns:
        The changes in the order of output: creations and updates by kind and name, then deletions.
    """
    entries_by_name: _Index = {}
    for entry in observed.entries.values():
        entries_by_name.setdefault(entry.name, []).append(entry)
    changes: list[Change] = []
    renamed: set[str] = set()
    for name, resource in desired.resources.items():
        definition = observed.definitions.get(name)
        if definition is None and resource.renamed_from:
            definition = _find_renamed(resource, desired, observed)
            if definition is not None:
                renamed.add(definition.name)
        if definition is None:
            changes.append(_diff_unowned(resource, entries_by_name, observed, adopt))
        elif definition.owner != desired.owner:
            changes.append(_refuse_foreign(resource, definition, observed))
        else:
            change = _diff_owned(resource, definition, observed, entries_by_name)
            if change is not None:
                changes.append(change)
    if prune != "never":
        gone = find_undeclared(desired, observed)
        changes.extend(
            _delete(definition, observed, entries_by_name)
            for definition in gone
            if definition.name not in renamed
        )
    return tuple(changes)


def find_undeclared(desired: DesiredState, observed: ObservedState) -> tuple[Definition, ...]:
    """Find what the owner once declared, the target still holds, and the files no longer have.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.

    Returns:
        The definitions, dependants first, so that nothing is left that refers to what is gone.
    """
    taken = {
        resource.renamed_from
        for resource in desired.resources.values()
        if resource.renamed_from and resource.name not in observed.definitions
    }
    gone = (
        definition
        for name, definition in observed.definitions.items()
        if definition.owner == desired.owner and name not in desired.resources and name not in taken
    )
    return tuple(sorted(gone, key=lambda definition: (-KINDS.index(definition.kind), definition.name)))


def match_entry(
    definition: Definition, observed: ObservedState, index: Mapping[str, list[Entry]]
) -> Entry | None:
    """Find the row of cron.job that belongs to a definition.

    The jobid decides, since it survives a rename by hand; after a restore or a hand-made unschedule and schedule
    the name and the role do.

    Args:
        definition: With the entry as last applied.
        observed: What the target holds.
        index: The observed entries by name.

    Returns:
        The entry, or None when the target holds it no more.
    """
    if definition.entry is None:
        return None
    jobid = definition.entry.jobid
    if jobid is not None and jobid in observed.entries:
        return observed.entries[jobid]
    same_name = index.get(definition.entry.name, ())
    return next((entry for entry in same_name if entry.username == definition.entry.username), None)


def _find_renamed(
    resource: DesiredResource, desired: DesiredState, observed: ObservedState
) -> Definition | None:
    definition = observed.definitions.get(resource.renamed_from)
    if (
        definition is None
        or definition.owner != desired.owner
        or definition.kind != resource.kind
        or definition.name in desired.resources
    ):
        return None
    return definition


def _complete(entry: Entry | None, username: str) -> Entry | None:
    """Fill in the role of a desired entry that leaves it to the role that applies."""
    if entry is None or entry.username:
        return entry
    return replace(entry, username=username)


def _diff_unowned(
    resource: DesiredResource, index: _Index, observed: ObservedState, adopt: Collection[str]
) -> Change:
    desired_entry = resource.entry
    candidates = index.get(resource.name, [])
    username = (desired_entry.username if desired_entry else "") or observed.facts.role
    found = next((entry for entry in candidates if entry.username == username), None)
    if found is None and desired_entry is not None and not desired_entry.username and len(candidates) == 1:
        found = candidates[0]
    if found is None:
        after = Snapshot(document=resource.document, entry=_complete(desired_entry, observed.facts.role))
        return _make_change(resource, "declared", None, after)
    after = Snapshot(document=resource.document, entry=_complete(desired_entry, found.username))
    before = Snapshot(document="", entry=found)
    if after.entry is not None and after.entry.same(found):
        return _make_change(resource, "adopted", before, after)
    change = _make_change(resource, "adopted", before, after)
    if resource.name in adopt:
        return change
    return replace(
        change,
        obstacle=Obstacle(
            kind="refused",
            why=f"cron.job already holds an entry {resource.name} (jobid {found.jobid}, role {found.username}) "
            "that nobody declared",
            remedy=f"compare the two; then take it over with --adopt {resource.name}, or declare another name",
        ),
    )


def _make_change(
    resource: DesiredResource,
    reason: Reason,
    before: Snapshot | None,
    after: Snapshot,
    fields: tuple[FieldChange, ...] = (),
    *,
    renamed_from: str = "",
) -> Change:
    fields = fields or (() if before is None else _diff_snapshots(before, after))
    action: Action = "update"
    if before is None:
        action = "create"
    elif reason == "adopted" and not fields:
        action = "adopt"
    return Change(
        action=action,
        kind=resource.kind,
        name=resource.name,
        reason=reason,
        before=before,
        after=after,
        fields=fields,
        source=f"{resource.place.path}:{resource.place.line}",
        once=resource.once,
        renamed_from=renamed_from,
        protect=resource.protect,
    )


def _diff_snapshots(before: Snapshot, after: Snapshot) -> tuple[FieldChange, ...]:
    changes: list[FieldChange] = []
    if before.entry is not None and after.entry is not None:
        changes.extend(diff_fields("entry", before.entry.fields(), after.entry.fields()))
    elif before.entry is not after.entry:
        changes.extend(_diff_presence(before.entry, after.entry))
    if before.document and before.document != after.document:
        changes.extend(diff_fields("spec", json.loads(before.document), json.loads(after.document)))
    return tuple(changes)


def _diff_presence(before: Entry | None, after: Entry | None) -> Iterator[FieldChange]:
    old = {} if before is None else before.fields()
    new = {} if after is None else after.fields()
    for key in sorted(ENTRY_FIELDS):
        yield FieldChange(path=f"entry.{key}", before=old.get(key), after=new.get(key))


def _diff_owned(
    resource: DesiredResource, definition: Definition, observed: ObservedState, index: _Index
) -> Change | None:
    applied = definition.entry
    entry = match_entry(definition, observed, index)
    inherited = entry or applied
    after_entry = _complete(resource.entry, inherited.username if inherited else observed.facts.role)
    row = observed.drifted_rows.get(definition.name)
    jobid_moved = applied is not None and entry is not None and entry.jobid != applied.jobid
    same_document = definition.document == resource.document and definition.protect == resource.protect
    drifted = not definition.intact or row is not None or jobid_moved or not _same_entries(applied, entry)
    edited = (definition.intact and not same_document) or not _same_entries(applied, after_entry)
    renamed_from = definition.name if definition.name != resource.name else ""
    if not (drifted or edited or renamed_from):
        return None
    before = Snapshot(document=definition.document, entry=entry)
    after = Snapshot(document=resource.document, entry=after_entry)
    fields = [*_diff_snapshots(before, after)]
    if renamed_from:
        fields.append(FieldChange(path="name", before=renamed_from, after=resource.name))
    if definition.protect != resource.protect:
        fields.append(FieldChange(path="protect", before=definition.protect, after=resource.protect))
    if row is not None:
        fields.extend(diff_fields("row", row.observed or {}, row.applied))
    if jobid_moved and applied is not None and entry is not None:
        fields.append(FieldChange(path="jobid", before=applied.jobid, after=entry.jobid))
    reason: Reason = "edited"
    if renamed_from:
        reason = "renamed"
    elif drifted:
        reason = "both" if edited else "drifted"
    return _make_change(resource, reason, before, after, tuple(fields), renamed_from=renamed_from)


def _same_entries(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.same(other)


def _refuse_foreign(resource: DesiredResource, definition: Definition, observed: ObservedState) -> Change:
    after = Snapshot(document=resource.document, entry=_complete(resource.entry, observed.facts.role))
    change = _make_change(resource, "declared", None, after)
    return replace(
        change,
        obstacle=Obstacle(
            kind="refused",
            why=f"{definition.kind} {resource.name} belongs to the owner {definition.owner} "
            f"({definition.source or 'source unknown'})",
            remedy="choose another name, or let that owner remove it first",
        ),
    )


def _delete(definition: Definition, observed: ObservedState, index: _Index) -> Change:
    obstacle = None
    if definition.protect:
        obstacle = Obstacle(
            kind="refused",
            why=f"{definition.kind} {definition.name} is protected",
            remedy=f"declare it again with protect: false ({definition.source}), apply, and then remove it",
        )
    return Change(
        action="delete",
        kind=definition.kind,
        name=definition.name,
        reason="removed",
        before=Snapshot(document=definition.document, entry=match_entry(definition, observed, index)),
        after=None,
        source=definition.source,
        protect=definition.protect,
        obstacle=obstacle,
    )
