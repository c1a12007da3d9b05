"""How far an apply goes on a target: from adding alone to deleting what nobody declared; pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from reconciler.core.changes import ACTIONS, Change, Snapshot
from reconciler.core.matching import match_entries
from reconciler.core.names import OWN_PREFIX
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from reconciler.core.config import Stage
    from reconciler.core.state import DesiredState, ObservedState

_ADDING: Final = frozenset({"create", "adopt"})


def is_held(change: Change, stage: Stage) -> bool:
    """Tell whether a stage leaves a change out.

    Args:
        change: From `diff`.
        stage: Of the target.

    Returns:
        True under `add-only` for what changes or takes away; the tool's own resources follow the release and
        may change.
    """
    if stage != "add-only" or change.action in _ADDING:
        return False
    return change.action != "update" or not change.name.startswith(OWN_PREFIX)


def make_held_notice(held: Sequence[Change]) -> Notice:
    """Say what was left out.

    Args:
        held: At least one change.

    Returns:
        A notice with counts and names.
    """
    counts = Counter(change.action for change in held)
    counted = ", ".join(f"{counts[action]} to {action}" for action in ACTIONS if action in counts)
    return Notice(
        code="held_back",
        message=f"left out, since the stage of this target is add-only: {counted}; reconciler drift shows "
        "what was edited on the target, and stage: declared-only makes these changes too",
        names=tuple(sorted({change.name for change in held})),
    )


def find_unmanaged(
    desired: DesiredState, observed: ObservedState, changes: Iterable[Change]
) -> tuple[Change, ...]:
    """Find the entries that nobody declared.

    Args:
        desired: What one owner's specs ask for.
        observed: What the target holds, as far as the role sees it.
        changes: From `diff`: what they take over is somebody's.

    Returns:
        A deletion for each, by jobid. Its name is that of the entry, with role or jobid where that name is
        another's too; none begins a name of ours.
    """
    taken = {entry.jobid for entry in match_entries(observed).values()}
    for change in changes:
        if change.before is not None and change.before.entry is not None:
            taken.add(change.before.entry.jobid)
    entries = [entry for jobid, entry in sorted(observed.entries.items()) if jobid not in taken]
    uses = Counter(entry.name for entry in entries)
    found = []
    for entry in entries:
        name = entry.name
        if uses[name] > 1 or _is_known(name, (desired.resources, observed.definitions)):
            name = f"{entry.name}@{entry.username}"
        found.append(
            Change(
                action="delete",
                kind="job",
                name=name if entry.name else f"#{entry.jobid}",
                reason="unmanaged",
                before=Snapshot(document="", entry=entry),
                after=None,
                source="cron.job",
            )
        )
    return tuple(found)


def _is_known(name: str, collections: Iterable[Collection[str]]) -> bool:
    return any(name in names for names in collections)
