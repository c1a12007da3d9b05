"""What becomes of resources that are no longer declared: kept, retired for a grace, then deleted; pure.

A retired resource keeps its definition and its entry, which stands still. Consent is asked for as the grace
begins, and never again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Final

from reconciler.core.changes import Change, FieldChange, Obstacle, Snapshot
from reconciler.core.durations import render_duration
from reconciler.core.fields import diff_fields, diff_snapshots
from reconciler.core.matching import find_renames
from reconciler.core.names import OWN_PREFIX, list_some
from reconciler.core.specs import KINDS
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from reconciler.core.changes import Reason
    from reconciler.core.config import Prune
    from reconciler.core.state import Definition, DesiredState, Entry, ObservedState, QueueLoad

COUNT_LIMIT: Final = 1000
"""Where counting the jobs of a queue ends."""

_SHOWN: Final = 3


def find_undeclared(desired: DesiredState, observed: ObservedState) -> tuple[Definition, ...]:
    """Find what the owner once declared, the target still holds, and the files no longer have.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.

    Returns:
        The definitions, dependants first, so that nothing is left that refers to what is gone.
    """
    renamed = {definition.name for definition in find_renames(desired, observed).values()}
    gone = (
        definition
        for name, definition in observed.definitions.items()
        if definition.owner == desired.owner and name not in desired.resources and name not in renamed
    )
    return tuple(sorted(gone, key=lambda definition: (-KINDS.index(definition.kind), definition.name)))


def take_away(
    desired: DesiredState, observed: ObservedState, matches: Mapping[str, Entry], *, grace: timedelta
) -> Iterator[Change]:
    """Retire and delete what is no longer declared.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.
        matches: The entry of each definition, by the definition's name.
        grace: How long it stands still first; zero for not at all. The tool's own entries, which the
            configuration decides, go at once.

    Yields:
        The changes, in the order of `find_undeclared`; none for queues in use, and for what is in its grace.
    """
    undeclared = find_undeclared(desired, observed)
    kept = _find_kept_queues(desired, observed, undeclared)
    for definition in undeclared:
        if definition.name in kept:
            continue
        entry = matches.get(definition.name)
        until = definition.retired_until
        if until is None:
            if grace and not definition.name.startswith(OWN_PREFIX):
                yield _retire(definition, entry, observed, "removed", grace=grace)
            else:
                yield _delete(definition, entry)
        elif _is_over(until, observed):
            yield _delete(definition, entry)
        elif _is_astir(definition, entry, observed):
            yield _retire(definition, entry, observed, "drifted")


def find_retirement_notices(
    desired: DesiredState, observed: ObservedState, *, prune: Prune
) -> Iterator[Notice]:
    """Say what stands still and until when, and which queues are kept.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds.
        prune: Of the target's policy.

    Yields:
        A notice `in_grace` for each end of a grace, a notice `queue_in_use` for each such queue.
    """
    # Most targets have neither, and may have thousands of resources.
    if not any(
        one.retired_until is not None or (one.kind == "queue" and name not in desired.resources)
        for name, one in observed.definitions.items()
    ):
        return
    undeclared = find_undeclared(desired, observed)
    kept = _find_kept_queues(desired, observed, undeclared)
    ends: dict[datetime, list[str]] = {}
    for one in undeclared:
        if one.retired_until is None or one.name in kept:
            continue
        if prune == "never" or not _is_over(one.retired_until, observed):
            ends.setdefault(one.retired_until, []).append(one.name)
    for until, names in sorted(ends.items()):
        after = (
            "prune: never keeps them after that"
            if prune == "never"
            else "the first apply after that deletes them"
        )
        yield Notice(
            code="in_grace",
            message=f"no longer declared, these stand still, in grace until {render_instant(until)}: "
            f"reconciler restore NAME brings them back, and {after}",
            names=tuple(sorted(names)),
        )
    if prune != "never":
        for name, why in sorted(kept.items()):
            yield Notice(
                code="queue_in_use",
                message=f"no longer declared, and kept: {why}; it goes once it is idle and unused",
                names=(name,),
            )


def render_instant(at: datetime) -> str:
    """Render an instant for people, to the second.

    Args:
        at: Aware.

    Returns:
        In UTC, for instance `2026-11-28 12:00:00Z`.
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _is_over(until: datetime, observed: ObservedState) -> bool:
    return observed.now is not None and until <= observed.now


def _is_astir(definition: Definition, entry: Entry | None, observed: ObservedState) -> bool:
    """Tell whether somebody switched on what stands still; what else was edited of it goes with it."""
    return definition.name in observed.drifted_rows or (entry is not None and entry.active)


def _retire(
    definition: Definition,
    entry: Entry | None,
    observed: ObservedState,
    reason: Reason,
    *,
    grace: timedelta | None = None,
) -> Change:
    still = None
    if entry is not None:
        # As it stands: what is about to go need not be put right first.
        still = replace(entry, active=False)
    before = Snapshot(document=definition.document, entry=entry)
    after = Snapshot(document=definition.document, entry=still)
    fields = [*diff_snapshots(before, after)]
    if grace is not None:
        fields.append(FieldChange(path="grace", before=None, after=render_duration(grace)))
    row = None if grace is not None else observed.drifted_rows.get(definition.name)
    if row is not None:
        fields.extend(diff_fields("row", row.observed or {}, row.applied))
    return Change(
        action="retire",
        kind=definition.kind,
        name=definition.name,
        reason=reason,
        before=before,
        after=after,
        fields=tuple(sorted(fields, key=lambda field: field.path)),
        source=definition.source,
        once=definition.kind == "job" and "once" in json.loads(definition.document),
        protect=definition.protect,
        obstacle=find_protection(definition),
        retired_until=definition.retired_until,
    )


def _delete(definition: Definition, entry: Entry | None) -> Change:
    return Change(
        action="delete",
        kind=definition.kind,
        name=definition.name,
        reason="removed",
        before=Snapshot(document=definition.document, entry=entry),
        after=None,
        source=definition.source,
        protect=definition.protect,
        obstacle=find_protection(definition),
        retired_until=definition.retired_until,
    )


def find_protection(definition: Definition) -> Obstacle | None:
    """Find what keeps a definition that nobody declares any more.

    Args:
        definition: As last applied.

    Returns:
        The obstacle of a protected one; None for the others.
    """
    if not definition.protect:
        return None
    return Obstacle(
        kind="refused",
        why=f"{definition.kind} {definition.name} is protected",
        remedy=f"declare it again with protect: false ({definition.source}), apply, and then remove it",
    )


def _find_kept_queues(
    desired: DesiredState, observed: ObservedState, undeclared: tuple[Definition, ...]
) -> dict[str, str]:
    """Find the queues that cannot go, each with the reason."""
    names = [one.name for one in undeclared if one.kind == "queue"]
    if not names:
        return {}
    users = _find_users(desired, observed, frozenset(names))
    kept: dict[str, str] = {}
    for name in names:
        reasons = []
        load = observed.queues.get(name)
        if load is not None and (load.waiting or load.running):
            reasons.append(_describe_load(load))
        if name in users:
            reasons.append(f"other owners refer to it ({list_some(users[name], _SHOWN)})")
        if reasons:
            kept[name] = "; ".join(reasons)
    return kept


def _find_users(
    desired: DesiredState, observed: ObservedState, queues: frozenset[str]
) -> dict[str, list[str]]:
    """Find the jobs and workers of other owners that refer to queues."""
    users: dict[str, list[str]] = {}
    for name, one in sorted(observed.definitions.items()):
        if one.owner == desired.owner or '"queue":' not in one.document:
            continue
        queue = json.loads(one.document).get("queue")
        if queue in queues:
            users.setdefault(queue, []).append(f"{one.kind} {name} of {one.owner}")
    return users


def _describe_load(load: QueueLoad) -> str:
    parts = [
        f"{COUNT_LIMIT:,} or more {word}" if count >= COUNT_LIMIT else f"{count} {word}"
        for count, word in ((load.waiting, "waiting"), (load.running, "running"))
        if count
    ]
    if load.failed:
        count = f"{COUNT_LIMIT:,} or more" if load.failed >= COUNT_LIMIT else str(load.failed)
        parts.append(f"{count} failed that can be tried again")
    return ", ".join(parts)
