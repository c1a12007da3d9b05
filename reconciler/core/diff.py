"""Compare three states: what is declared, what was last applied, and what the target holds.

The definition says what was last applied; the entry in cron.job says what the target holds. When the
declaration moved and the target did not, people edited; when the target moved and the declaration did not, it
drifted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.canonical import render_canonical
from reconciler.core.changes import Action, Change, FieldChange, Obstacle, Reason, Snapshot
from reconciler.core.fields import diff_fields, diff_snapshots
from reconciler.core.matching import (
    Key,
    differ_in_schedule,
    entry_key,
    find_renames,
    is_moving,
    match_entries,
    order_resources,
    same_entries,
    wanted_keys,
)
from reconciler.core.names import API_OWNER, SQL_OWNER
from reconciler.core.retirement import render_instant, take_away
from reconciler.core.stages import is_held
from reconciler.core.state import DesiredResource, DesiredState, Entry, ObservedState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from reconciler.core.config import Prune, Stage
    from reconciler.core.specs import Kind
    from reconciler.core.state import Definition


_OF_ENTRY = ("schedule", "active", "role")
_TAKEN_OVER: Mapping[str, Kind] = {SQL_OWNER: "worker", API_OWNER: "job"}
"""What is made without a file, by its owner: files that declare the same take it over."""
_MAKERS = {SQL_OWNER: "reconciler.create_queue_worker", API_OWNER: "the service"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """What every single comparison looks at.

    Attributes:
        observed: What the target holds.
        matches: The entry of each definition, by the definition's name.
        unowned: The entries that no definition claims, by name and role.
        adopt: Names of such entries that may be taken over although they differ.
    """

    observed: ObservedState
    matches: Mapping[str, Entry]
    unowned: Mapping[Key, Entry]
    adopt: Collection[str]

    def may_take(self, found: Entry, after: Entry) -> bool:
        """Tell whether an entry that nobody declared may become the one that is declared."""
        return after.same(found) or after.name in self.adopt


def diff(
    desired: DesiredState,
    observed: ObservedState,
    *,
    prune: Prune = "never",
    grace: timedelta = timedelta(),
    adopt: Collection[str] = (),
    stage: Stage = "declared-only",
) -> tuple[Change, ...]:
    """Compare the desired with the observed state.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.
        prune: The target's policy; under `never` what is no longer declared is left out.
        grace: How long what is no longer declared stands still before it is deleted; zero for not at all.
        adopt: Names of entries nobody owns that may be taken over although they differ.
        stage: How far an apply goes: what it leaves out is left out. Entries that nobody declared are looked
            at by `find_unmanaged`.

    Returns:
        The changes in the order of output: creations and updates by kind and name, then what is taken away.
    """
    matches = match_entries(observed)
    claimed = {entry.jobid for entry in matches.values()}
    unowned = {
        entry_key(entry): entry for jobid, entry in sorted(observed.entries.items()) if jobid not in claimed
    }
    comparison = _Comparison(observed=observed, matches=matches, unowned=unowned, adopt=adopt)
    renames = find_renames(desired, observed)
    changes: list[Change] = []
    for resource in order_resources(desired):
        definition = observed.definitions.get(resource.name, renames.get(resource.name))
        change: Change | None
        if definition is None:
            change = _diff_unowned(resource, comparison)
        elif definition.owner != desired.owner:
            change = _diff_foreign(resource, definition, comparison)
        else:
            change = _diff_owned(resource, definition, comparison)
        if change is not None:
            changes.append(change)
    if prune != "never":
        changes.extend(take_away(desired, observed, matches, grace=grace))
    if stage == "add-only":
        changes = [change for change in changes if not is_held(change, stage)]
    return _refuse_blocked(changes, comparison)


def _complete(entry: Entry | None, username: str) -> Entry | None:
    """Fill in the role of a desired entry that leaves it to the role that applies."""
    if entry is None or entry.username:
        return entry
    # Spelt out, since this is done for every resource: dataclasses.replace takes three times as long.
    return Entry(
        name=entry.name,
        schedule=entry.schedule,
        command=entry.command,
        database=entry.database,
        username=username,
        active=entry.active,
    )


def _diff_unowned(resource: DesiredResource, comparison: _Comparison) -> Change | None:
    if resource.once and resource.name in comparison.observed.settled:
        return None  # its definition went, but it ran: it must not run again
    found = _find_unowned(resource.entry, comparison)
    username = comparison.observed.facts.role if found is None else found.username
    after = Snapshot(document=resource.document, entry=_complete(resource.entry, username))
    if found is None or after.entry is None:
        return _make_change(resource, "declared", None, after)
    change = _make_change(resource, "adopted", Snapshot(document="", entry=found), after)
    return change if comparison.may_take(found, after.entry) else _refuse_unowned(change, found)


def _find_unowned(desired: Entry | None, comparison: _Comparison) -> Entry | None:
    """Find the entry that nobody declared and that a new resource would take over.

    Where no role is declared, the entry of another role is taken if it is the only one of that name.
    """
    if desired is None:
        return None
    if desired.username:
        return comparison.unowned.get(entry_key(desired))
    own = comparison.unowned.get((desired.name, comparison.observed.facts.role))
    if own is not None:
        return own
    others = [entry for entry in comparison.observed.entries.values() if entry.name == desired.name]
    return comparison.unowned.get(entry_key(others[0])) if len(others) == 1 else None


def _refuse_unowned(change: Change, found: Entry) -> Change:
    return replace(
        change,
        obstacle=Obstacle(
            kind="refused",
            why=f"cron.job already holds an entry {found.name} (jobid {found.jobid}, role {found.username}) "
            "that nobody declared",
            remedy=f"compare the two; then take it over with --adopt {found.name}, or declare another name",
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
    retired_until: datetime | None = None,
) -> Change:
    if before is not None:
        fields = tuple(
            sorted((*diff_snapshots(before, after), *fields), key=lambda field_change: field_change.path)
        )
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
        retired_until=retired_until,
    )


def _diff_owned(resource: DesiredResource, definition: Definition, comparison: _Comparison) -> Change | None:
    observed = comparison.observed
    applied = definition.entry
    entry = comparison.matches.get(definition.name)
    # The role that was applied, not the one that stands there now: a role altered by hand is put back.
    after_entry = _complete(resource.entry, applied.username if applied else observed.facts.role)
    found = None
    if entry is None and after_entry is not None:
        found = comparison.unowned.get(entry_key(after_entry))
        if found is not None:
            entry = found
    row = observed.drifted_rows.get(definition.name)
    if resource.once and definition.name in observed.settled:
        row = None
        if definition.intact:
            resource = replace(resource, document=definition.document)
    facets = [*_diff_marks(resource, definition)]
    jobid_moved = applied is not None and entry is not None and entry.jobid != applied.jobid
    drifted = not definition.intact or row is not None or jobid_moved or not same_entries(applied, entry)
    differs = not same_entries(applied, after_entry)
    # Who edits a schedule edits the document. Else the server has other clocks now, or another pg_cron.
    redone = differs and definition.document == resource.document and differ_in_schedule(applied, after_entry)
    drifted = drifted or redone
    edited = (
        bool(facets)
        or (definition.intact and definition.document != resource.document)
        or (differs and not redone)
    )
    if not (drifted or edited):
        return None
    if row is not None:
        facets.extend(diff_fields("row", row.observed or {}, row.applied))
    if applied is not None and entry is not None and jobid_moved:
        facets.append(FieldChange(path="jobid", before=applied.jobid, after=entry.jobid))
    renamed_from = definition.name if definition.name != resource.name else ""
    reason: Reason = "edited"
    if renamed_from:
        reason = "renamed"
    elif definition.retired_until is not None:
        reason = "restored"
    elif drifted:
        reason = "both" if edited else "drifted"
    change = _make_change(
        resource,
        reason,
        Snapshot(document=definition.document, entry=entry),
        Snapshot(document=resource.document, entry=after_entry),
        tuple(facets),
        renamed_from=renamed_from,
        retired_until=definition.retired_until,
    )
    if found is None or after_entry is None or comparison.may_take(found, after_entry):
        return change
    return _refuse_unowned(change, found)


def _diff_marks(resource: DesiredResource, definition: Definition) -> Iterator[FieldChange]:
    """Compare what a definition says beside its document and its entry."""
    for path, before, after in (
        ("kind", definition.kind, resource.kind),
        ("name", definition.name, resource.name),
        ("protect", definition.protect, resource.protect),
        (
            "retired_until",
            None if definition.retired_until is None else render_instant(definition.retired_until),
            None,
        ),
    ):
        if before != after:
            yield FieldChange(path=path, before=before, after=after)


def _diff_foreign(resource: DesiredResource, definition: Definition, comparison: _Comparison) -> Change:
    """Take over what somebody made without a file; refuse what another owner declared."""
    if not definition.kind == resource.kind == _TAKEN_OVER.get(definition.owner):
        return _refuse_foreign(resource, definition, comparison.observed)
    applied = definition.entry
    entry = comparison.matches.get(definition.name)
    change = _make_change(
        resource,
        "adopted",
        Snapshot(document=_align_entry(definition.document, resource.document), entry=entry),
        Snapshot(
            document=resource.document,
            entry=_complete(resource.entry, applied.username if applied else comparison.observed.facts.role),
        ),
    )
    if not change.fields or resource.name in comparison.adopt:
        return change
    return replace(
        change,
        obstacle=Obstacle(
            kind="refused",
            why=f"{_MAKERS[definition.owner]} made a {resource.kind} {resource.name}, and it is another one",
            remedy=f"compare the two; then take it over with --adopt {resource.name}, or choose another name",
        ),
    )


def _align_entry(document: str, declared: str) -> str:
    """Let a document say of the entry what is declared: the entries themselves are compared."""
    wanted = json.loads(declared)
    return render_canonical(json.loads(document) | {key: wanted[key] for key in _OF_ENTRY if key in wanted})


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


def _refuse_blocked(changes: list[Change], comparison: _Comparison) -> tuple[Change, ...]:
    """Refuse what would take a name and role that an entry holds which this plan does not move.

    pg_cron would write over that entry (`schedule` upserts) or fail (`alter_job`).
    """
    freed = {
        change.before.entry.jobid
        for change in changes
        if change.before is not None and change.before.entry is not None and is_moving(change)
    }
    holders = {
        entry_key(entry): entry
        for jobid, entry in sorted(comparison.observed.entries.items())
        if jobid not in freed
    }
    owners = {entry.jobid: name for name, entry in comparison.matches.items()}
    marked = []
    for change in changes:
        holder = next((holders[key] for key in sorted(wanted_keys(change)) if key in holders), None)
        if holder is None or change.obstacle is not None:
            marked.append(change)
            continue
        whose = f"belongs to {owners[holder.jobid]}" if holder.jobid in owners else "nobody declared"
        obstacle = Obstacle(
            kind="refused",
            why=f"cron.job already holds an entry {holder.name} (jobid {holder.jobid}, role "
            f"{holder.username}) that {whose}",
            remedy=f"unschedule it: SELECT cron.unschedule({holder.jobid}); or declare another name or role",
        )
        marked.append(replace(change, obstacle=obstacle))
    return tuple(marked)
