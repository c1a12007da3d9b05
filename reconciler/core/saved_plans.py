"""A saved plan: what was reviewed, so that this is applied or nothing. Knows no file and no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.names import list_some
from reconciler.core.plan import Fingerprints
from reconciler.core.selection import Selection, read_selection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from reconciler.core.changes import Change
    from reconciler.core.plan import Plan

_SHOWN: Final = 5
_PATHS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """What a file says of a plan that was made before.

    Attributes:
        target: The target's name.
        owner: Whose plan it is.
        release: Of the tool that made it.
        database: That it was made for.
        role: That was connected when it was made.
        made_at: By the database's clock, RFC 3339; "" where it was not asked.
        adopt: Names of entries that it takes over.
        selection: What it was made of; paths are seen from the folder of the configuration.
        fingerprints: What it holds for.
        migrations: Names of the migrations that it runs first.
        changes: As JSON, by kind and name.
    """

    target: str
    owner: str
    release: str
    database: str
    role: str
    made_at: str
    adopt: tuple[str, ...]
    selection: Selection
    fingerprints: Fingerprints
    migrations: tuple[str, ...]
    changes: Mapping[tuple[str, str], Mapping[str, Any]]


def seal(
    value: Mapping[str, Any],
    *,
    database: str,
    role: str,
    made_at: datetime | None,
    adopt: Collection[str],
    selection: Selection | None = None,
) -> dict[str, Any]:
    """Add to the JSON of a plan what an apply needs to know of it, with a digest of all.

    Args:
        value: As `plan --format json` prints it.
        database: That the plan was made for.
        role: That was connected.
        made_at: By the database's clock, aware; None where it was not asked.
        adopt: Names of entries that the plan takes over.
        selection: What it was made of; None, or an empty one, for everything.

    Returns:
        The same with the key `saved`.
    """
    saved = {
        "made_at": None if made_at is None else f"{made_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "database": database,
        "role": role,
        "adopt": sorted(set(adopt)),
        **({"selection": selection.to_json()} if selection and not selection.is_empty else {}),
    }
    return {**value, "saved": {**saved, "digest": _digest({**value, "saved": saved})}}


def open_saved(value: Mapping[str, Any]) -> SavedPlan:
    """Read a saved plan.

    Args:
        value: JSON fit for `schemas/plan.schema.json`.

    Returns:
        What it says.

    Raises:
        ValueError: It was not saved to be applied, or was altered since; the message goes behind the file's
            name.
    """
    saved = value.get("saved")
    if saved is None:
        raise ValueError("was not made to be applied: make it with plan --out FILE")
    bare = {key: one for key, one in saved.items() if key != "digest"}
    try:
        is_whole = _digest({**value, "saved": bare}) == saved["digest"]
    except ValueError:  # NaN, halves of characters
        is_whole = False
    if not is_whole:
        raise ValueError("was altered since it was made: make it anew with plan --out FILE")
    prints = value["fingerprints"]
    return SavedPlan(
        target=value["target"],
        owner=value["owner"],
        release=value["reconciler_version"],
        database=saved["database"],
        role=saved["role"],
        made_at=saved["made_at"] or "",
        adopt=tuple(saved["adopt"]),
        selection=read_selection(saved.get("selection")),
        fingerprints=Fingerprints(desired=prints["desired"], observed=prints["observed"]),
        migrations=tuple(value["migrations"]),
        changes={(change["kind"], change["name"]): change for change in value["changes"]},
    )


def find_stale(saved: SavedPlan, plan: Plan, fingerprints: Fingerprints) -> tuple[str, ...]:
    """Find why a saved plan holds no longer.

    Obstacles, sources and times do not count: the role that applies may do other things than the one that
    planned, lines of files move, and time passes.

    Args:
        saved: As it was reviewed.
        plan: Made anew, for the same target and owner.
        fingerprints: Of the plan that was made anew.

    Returns:
        What moved, then the first changes that differ; nothing where the saved plan holds.
    """
    differences = list(_list_differences(saved, plan))
    moved = []
    if saved.fingerprints.desired != fingerprints.desired:
        moved.append("what is declared is not what it was")
    if saved.fingerprints.observed != fingerprints.observed:
        moved.append(f"the target {plan.target} is not as it was")
    if not moved and differences:
        # The same two states: what becomes of them is a matter of the target's policy and of the release.
        moved.append(
            "other changes follow from the same files now; prune of the target, or the release, differs"
        )
    if new := sorted(set(plan.migrations) - set(saved.migrations)):
        moved.append(f"it would run other migrations first: {', '.join(new)}")
    if moved and saved.changes and not plan.changes:
        return (*moved, "nothing is left to change: it may have been applied already")
    shown = differences[:_SHOWN]
    if len(differences) > _SHOWN:
        shown.append(f"and {len(differences) - _SHOWN} more")
    return (*moved, *shown)


def _digest(value: Mapping[str, Any]) -> str:
    return digest(render_canonical(value))


def _list_differences(saved: SavedPlan, plan: Plan) -> Iterator[str]:
    now: dict[tuple[str, str], dict[str, Any]] = {
        (change.kind, change.name): _view(change) for change in plan.changes
    }
    for key in sorted({*now, *saved.changes}):
        name = " ".join(key)
        then = saved.changes.get(key)
        if then is None:
            yield f"{now[key]['action']} {name}: it was not in the reviewed plan"
        elif key not in now:
            yield f"{then['action']} {name}: it is not to be done any more"
        elif then["action"] != now[key]["action"]:
            yield f"{name}: now it is to {now[key]['action']}, reviewed was to {then['action']}"
        elif paths := [
            path
            for side in ("before", "after", "renamed_from")
            for path in _compare(side, then[side], now[key][side])
        ]:
            yield f"{then['action']} {name}: not as reviewed in {list_some(paths, _PATHS)}"


def _view(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "renamed_from": change.renamed_from or None,
        "before": None if change.before is None else change.before.to_json(),
        "after": None if change.after is None else change.after.to_json(),
    }


def _compare(path: str, then: Any, now: Any) -> Iterator[str]:
    """Name the places in which two JSON values differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _compare(f"{path}.{key}", then.get(key), now.get(key))
    elif render_canonical(then) != render_canonical(now):
        yield path
