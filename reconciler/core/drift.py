"""Drift: which changes of a plan somebody made on the target, and what is new since the last look; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.changes import Change, FieldChange
    from reconciler.core.state import Definition

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftNews:
    """What is new between two looks at a target.

    Attributes:
        appeared: What drifts now and did not.
        changed: What drifts otherwise than it did.
        ended: Names of what drifts no longer, sorted.
    """

    appeared: tuple[Change, ...]
    changed: tuple[Change, ...]
    ended: tuple[str, ...]

    def __bool__(self) -> bool:
        """Tell whether there is anything new."""
        return bool(self.appeared or self.changed or self.ended)


def find_drift(changes: Iterable[Change], definitions: Mapping[str, Definition]) -> tuple[Change, ...]:
    """Find what was changed on the target behind the files' back.

    Args:
        changes: Of a plan.
        definitions: What was applied last, by name.

    Returns:
        Those changes whose reason is drift, in the same order. Where the files were edited as well, only the
        fields that differ on the target from what was applied last.
    """
    return tuple(
        _narrow(change, definitions[change.name]) if change.reason == "both" else change
        for change in changes
        if change.reason in {"drifted", "both"}
    )


def compare_drift(before: Iterable[Change], now: Iterable[Change]) -> DriftNews:
    """Compare two looks at a target.

    Args:
        before: What drifted at the last look.
        now: What drifts now.

    Returns:
        What is new. Where something is declared, and by whom it was edited besides, is nothing new.
    """
    known = {change.name: _list_sides(change) for change in before}
    found = tuple(now)
    return DriftNews(
        appeared=tuple(change for change in found if change.name not in known),
        changed=tuple(
            change for change in found if change.name in known and known[change.name] != _list_sides(change)
        ),
        ended=tuple(sorted(known.keys() - {change.name for change in found})),
    )


def describe_drift(change: Change) -> str:
    """Say in one line what drifted.

    Args:
        change: One of `find_drift`.

    Returns:
        For instance `report was changed on the target: entry.active is False, declared is True`.
    """
    fields = "; ".join(
        f"{field.path} is {field.before!r}, declared is {field.after!r}" for field in change.fields[:_SHOWN]
    )
    return f"{change.name} was changed on the target" + (f": {fields}" if fields else "")


def _narrow(change: Change, definition: Definition) -> Change:
    fields = tuple(field for field in change.fields if _has_drifted(field, change, definition))
    return replace(change, fields=fields or change.fields)


def _has_drifted(field: FieldChange, change: Change, definition: Definition) -> bool:
    """Tell what somebody changed on the target from what the files changed."""
    part, _, key = field.path.partition(".")
    if part == "entry":
        applied = definition.entry
        observed = change.before.entry if change.before is not None else None
        if applied is None or observed is None:
            return applied is not observed
        return bool(applied.fields()[key] != observed.fields()[key])
    if part == "spec":
        # The document of the definition: somebody wrote it by hand where it is not the one that was applied.
        return not definition.intact
    return part in {"row", "jobid"}


def _list_sides(change: Change) -> tuple[Any, ...]:
    return (change.action, change.kind, change.before, change.fields)
