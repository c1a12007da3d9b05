"""Decide what belongs to whom: entries to definitions, and definitions to resources under a new name.

An entry is claimed by one definition at most, of whichever owner; what no definition claims is nobody's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from reconciler.core.specs import KINDS

if TYPE_CHECKING:
    from reconciler.core.changes import Change
    from reconciler.core.state import Definition, DesiredResource, DesiredState, Entry, ObservedState

Key: TypeAlias = tuple[str, str]
"""Name and role: unique in cron.job since pg_cron 1.3."""


def entry_key(entry: Entry) -> Key:
    """Return what pg_cron knows an entry by.

    Args:
        entry: Desired or observed.

    Returns:
        Its name and its role.
    """
    return entry.name, entry.username


def match_entries(observed: ObservedState) -> dict[str, Entry]:
    """Find the row of cron.job that belongs to each definition.

    The jobid decides, since it survives a rename by hand. But jobids start from 1 again when the extension is
    dropped and created, so that the entry must also have kept its name or its command. After a restore, or an
    unschedule and schedule by hand, the name and the role decide. An entry that row-level security hides from
    the connected role is taken to be as it was applied.

    Args:
        observed: What the target holds, with the definitions of every owner.

    Returns:
        Entries by the definition's name; none for a definition whose entry is not there.
    """
    applied = {
        name: definition.entry
        for name, definition in sorted(observed.definitions.items())
        if definition.entry is not None
    }
    by_key = {entry_key(entry): entry for entry in observed.entries.values()}
    by_jobid = {entry.jobid: entry for entry in observed.entries.values()}
    matches: dict[str, Entry] = {}
    claimed: set[int | None] = set()

    def claim(name: str, entry: Entry | None) -> None:
        if entry is not None and entry.jobid not in claimed:
            matches[name] = entry
            claimed.add(entry.jobid)

    for name, last in applied.items():
        found = by_jobid.get(last.jobid)
        if found is not None and entry_key(found) == entry_key(last):
            claim(name, found)
    for name, last in applied.items():
        found = by_jobid.get(last.jobid)
        if name not in matches and found is not None and _is_akin(found, last):
            claim(name, found)
    for name, last in applied.items():
        if name not in matches:
            claim(name, by_key.get(entry_key(last)))
    for name, last in applied.items():
        if name not in matches and _is_hidden(last, observed):
            matches[name] = last
    return matches


def find_renames(desired: DesiredState, observed: ObservedState) -> dict[str, Definition]:
    """Find the definitions that go on under another name.

    A rename holds once: where the new name has a definition already, `renamed_from` is history. The old name
    must be free, of the same owner and of the same kind; of two resources that name it, the first one has it.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.

    Returns:
        Definitions by the name of the resource that each becomes.
    """
    renames: dict[str, Definition] = {}
    taken: set[str] = set()
    for resource in order_resources(desired):
        definition = observed.definitions.get(resource.renamed_from)
        if (
            definition is not None
            and resource.name not in observed.definitions
            and definition.name not in taken
            and definition.name not in desired.resources
            and (definition.owner, definition.kind) == (desired.owner, resource.kind)
        ):
            renames[resource.name] = definition
            taken.add(definition.name)
    return renames


def order_resources(desired: DesiredState) -> list[DesiredResource]:
    """Sort resources by kind, what is referred to first, then by name.

    Args:
        desired: What one owner's specs ask for.

    Returns:
        In the one order that output uses.
    """
    return sorted(
        desired.resources.values(), key=lambda resource: (KINDS.index(resource.kind), resource.name)
    )


def wanted_keys(change: Change) -> frozenset[Key]:
    """Say which keys of cron.job a change takes that its own entry does not hold yet.

    An entry that gets another name and another role is renamed first, and so passes through its new name
    under its old role.

    Args:
        change: From `diff`.

    Returns:
        Names with roles; none for a change that makes and moves no entry.
    """
    after = None if change.after is None else change.after.entry
    if after is None:
        return frozenset()
    before = None if change.before is None else change.before.entry
    if before is None:
        return frozenset({entry_key(after)})
    return frozenset({entry_key(after), (after.name, before.username)} - {entry_key(before)})


def is_moving(change: Change) -> bool:
    """Tell whether a change frees the key of the entry that it begins with.

    Args:
        change: With an entry before it.

    Returns:
        True when the entry goes, or gets another name or role.
    """
    before = None if change.before is None else change.before.entry
    after = None if change.after is None else change.after.entry
    return before is not None and (after is None or entry_key(after) != entry_key(before))


def same_entries(one: Entry | None, other: Entry | None) -> bool:
    """Tell whether there is the same entry, or none, on both sides, whatever the jobids."""
    if one is None or other is None:
        return one is other
    return one.same(other)


def differ_in_schedule(one: Entry | None, other: Entry | None) -> bool:
    """Tell whether both sides have an entry, and those are alike but for their schedules at the most."""
    return one is not None and other is not None and replace(one, schedule=other.schedule).same(other)


def _is_akin(entry: Entry, last: Entry) -> bool:
    return entry.name == last.name or entry.command == last.command


def _is_hidden(last: Entry, observed: ObservedState) -> bool:
    facts = observed.facts
    return not facts.rights.use_cron or (not facts.rights.sees_all and last.username != facts.role)
