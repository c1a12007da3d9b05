"""Bring back single resources that were taken away: out of their grace, or out of the revisions; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import render_canonical
from reconciler.core.history import Held, Past, Restored, is_over, replay
from reconciler.core.names import find_nearest, is_name
from reconciler.core.selection import list_references
from reconciler.core.specs import BUILT_IN_QUEUES
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.changes import Change
    from reconciler.core.history import Present, Revision


class RestoreError(ValueError):
    """A resource cannot come back; the message says why, `remedy` what to do."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A resource as it was before it was taken away.

    Attributes:
        held: The resource.
        revision: That took it away.
    """

    held: Held
    revision: int


def find_lost(revisions: Iterable[Revision]) -> dict[str, Lost]:
    """Find everything that was taken away, as it was last.

    Args:
        revisions: Of one owner, all of them, the oldest first.

    Returns:
        By name; also what came back since, or is there under another owner.

    Raises:
        HistoryError: A revision does not follow from those before it.
    """
    lost: dict[str, Lost] = {}
    state: dict[str, Held] = {}
    for revision in revisions:
        for change in revision.changes:
            if change.action not in {"retire", "delete", "release"}:
                continue
            held = (
                _read_unmanaged(change, revision) if change.reason == "unmanaged" else state.get(change.name)
            )
            # What is retired once more, or deleted when its grace is over, was taken away before.
            if held is not None and not held.is_retired:
                lost[change.name] = Lost(held=held, revision=revision.id)
        state = replay((revision,), state=state)
    return lost


def bring_back(
    names: Sequence[str],
    revisions: Sequence[Revision],
    present: Mapping[str, Present],
    elsewhere: Mapping[str, str],
    *,
    now: datetime,
) -> Restored:
    """Bring back resources.

    Args:
        names: Which.
        revisions: Of this owner, all of them, the oldest first.
        present: This owner's definitions of now, without those that stand still.
        elsewhere: The owners of other owners' definitions, by name.
        now: By the database's clock, aware: what was to happen once before it does not come back.

    Returns:
        The state of these alone.

    Raises:
        RestoreError: One of them cannot come back.
        HistoryError: The revisions do not tell all of it.
    """
    lost = find_lost(revisions)
    wanted: dict[str, Held] = {}
    for name in names:
        if name in elsewhere:
            raise RestoreError(
                f"{name} belongs to the owner {elsewhere[name]}",
                remedy="restore it with the configuration of that owner",
            )
        if name in present:
            raise RestoreError(
                f"{present[name].kind} {name} is there, and not retired",
                remedy="there is nothing to restore; reconciler rollback brings back how it was before",
            )
        if name not in lost:
            raise _make_unknown_error(name, lost)
        held = lost[name].held
        if is_over(held, now):
            raise RestoreError(
                f"the moment of the one-time job {name} is past",
                remedy="declare it in the files, with a moment to come",
            )
        wanted[name] = held
    _require_references(wanted, present, lost)
    return Restored(
        resources={name: wanted[name] for name in sorted(wanted)},
        renamed_from={},
        past=Past(
            names=tuple(sorted(wanted)),
            entries={name: one.entry for name, one in wanted.items()},
            notices=(
                Notice(
                    code="restore",
                    message="the files do not declare these: put them back there, else the next apply that "
                    "prunes takes them away again",
                    names=tuple(sorted(wanted)),
                ),
            ),
        ),
    )


def _make_unknown_error(name: str, lost: Mapping[str, Lost]) -> RestoreError:
    nearest = find_nearest(name, lost)
    remedy = f"did you mean {nearest!r}?" if nearest else "reconciler history lists what was applied"
    return RestoreError(f"nothing called {name!r} was taken away from this target", remedy=remedy)


def _read_unmanaged(change: Change, revision: Revision) -> Held | None:
    """Read an entry that nobody declared, and that was deleted all the same, as a job handed to pg_cron."""
    entry = None if change.before is None else change.before.entry
    if entry is None or not is_name(entry.name):
        return None
    declared: dict[str, Any] = {
        "mode": "direct",
        "schedule": entry.schedule,
        "sql": entry.command,
        "role": entry.username,
        "database": entry.database,
        **({} if entry.active else {"active": False}),
    }
    return Held(
        kind="job",
        name=entry.name,
        document=render_canonical(declared),
        entry=entry,
        source=change.source,
        identity=(revision.id, entry.name),
    )


def _require_references(
    wanted: Mapping[str, Held], present: Mapping[str, Present], lost: Mapping[str, Lost]
) -> None:
    """Stop where a resource refers to one that was taken away too."""
    for name, one in sorted(wanted.items()):
        missing = sorted(
            other
            for kind, other in list_references(one.document)
            if other not in wanted
            and other not in present
            and not (kind == "queue" and other in BUILT_IN_QUEUES)
            and other in lost
        )
        if missing:
            raise RestoreError(
                f"{one.kind} {name} refers to {', '.join(missing)}, which the target does not have, or which "
                "stands still",
                remedy=f"restore all of them: reconciler restore {' '.join(sorted({*wanted, *missing}))}",
            )
