"""Field-level differences between two JSON values, and between the two sides of a change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import render_canonical
from reconciler.core.changes import FieldChange
from reconciler.core.state import ENTRY_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.changes import Snapshot
    from reconciler.core.state import Entry


def diff_snapshots(before: Snapshot, after: Snapshot) -> Iterator[FieldChange]:
    """Compare a resource on both sides of a change.

    Args:
        before: The one side.
        after: The other side; documents are compared where both have one.

    Yields:
        The differences, first those of the entry.
    """
    if before.entry is not None and after.entry is not None:
        yield from diff_fields("entry", before.entry.fields(), after.entry.fields())
    elif before.entry is not after.entry:
        yield from _diff_presence(before.entry, after.entry)
    if before.document and after.document and before.document != after.document:
        yield from diff_fields("spec", json.loads(before.document), json.loads(after.document))


def diff_fields(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Compare two JSON objects field by field.

    Flat fields are compared here; deepdiff, which is slow to import and to run, only sees nested ones. Values
    are equal when their canonical JSON is: 1, 1.0 and true are three values. A field that is null and one
    that is not there look alike.

    Args:
        prefix: What to put before each path, for instance `spec`.
        before: The one side.
        after: The other side.

    Returns:
        The differences, sorted by path.
    """
    changes: list[FieldChange] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if _same(old, new):
            continue
        path = f"{prefix}.{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            changes.extend(_diff_nested(path, old, new))
        else:
            changes.append(FieldChange(path=path, before=old, after=new))
    return tuple(sorted(changes, key=lambda change: change.path))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return render_canonical(one) == render_canonical(other)


def _diff_nested(path: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[FieldChange]:
    from deepdiff import DeepDiff  # noqa: PLC0415 - it takes longer to import than most plans take to make

    tree = DeepDiff(
        before,
        after,
        view="tree",
        ignore_numeric_type_changes=False,
        ignore_private_variables=False,  # or keys that begin with two underscores would not be seen
        zip_ordered_iterables=True,  # or [1] and [true] would be one
        threshold_to_diff_deeper=0,  # or objects with few keys in common would be shown as a whole
    )
    for level in (level for levels in tree.values() for level in levels):
        keys = level.path(output_format="list")
        yield FieldChange(
            path=path + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys),
            before=_present(level.t1),
            after=_present(level.t2),
        )


def _present(value: Any) -> Any:
    """Turn deepdiff's marker for an absent side into None."""
    return None if type(value).__name__ == "NotPresent" else value


def _diff_presence(before: Entry | None, after: Entry | None) -> Iterator[FieldChange]:
    old = {} if before is None else before.fields()
    new = {} if after is None else after.fields()
    for key in ENTRY_FIELDS:
        yield FieldChange(path=f"entry.{key}", before=old.get(key), after=new.get(key))
