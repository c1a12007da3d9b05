"""Give up resources: release their entries, or hand their definitions to another owner; pure.

Neither touches what runs: an entry stays where it is, with its jobid.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.changes import Change, FieldChange, Obstacle, Snapshot
from reconciler.core.declared_times import read_timing
from reconciler.core.fields import diff_snapshots
from reconciler.core.matching import find_renames, match_entries
from reconciler.core.names import OWN_PREFIX, find_nearest
from reconciler.core.plan import Plan
from reconciler.core.state import Notice
from reconciler.core.steps import find_obstacles
from reconciler.core.times.timings import make_entry_timing
from reconciler.errors import ReconcilerError, RefusedError

from .retirement import find_protection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from reconciler.core.config import Policy
    from reconciler.core.preflight import Finding
    from reconciler.core.specs import Place
    from reconciler.core.state import Definition, DesiredState, Entry, ObservedState

_REMOVE: Final = "remove it from the files and apply, which deletes it; or transfer it to another owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What is given up.

    Attributes:
        names: Of resources of ours.
        to: Who has them from now on; "" for nobody.
    """

    names: tuple[str, ...]
    to: str = ""


def require_owned(handover: Handover, owner: str, definitions: Mapping[str, Definition]) -> None:
    """Stop unless all of it is ours.

    Args:
        handover: What is to be given up.
        owner: Who we are.
        definitions: Of every owner, by name.

    Raises:
        ReconcilerError: The target holds nothing of that name.
        RefusedError: It is another owner's.
    """
    for name in handover.names:
        definition = definitions.get(name)
        if definition is None:
            ours = (one.name for one in definitions.values() if one.owner == owner)
            nearest = find_nearest(name, ours)
            raise ReconcilerError(
                f"the owner {owner} has nothing called {name!r} on this target",
                remedy=f"did you mean {nearest!r}?" if nearest else "reconciler status lists what there is",
            )
        if definition.owner != owner:
            raise RefusedError(
                f"{definition.kind} {name} belongs to the owner {definition.owner}",
                remedy="nothing was changed; only that owner's configuration can give it up",
            )


def make_handover_plan(
    handover: Handover,
    desired: DesiredState,
    observed: ObservedState,
    *,
    target: str,
    policy: Policy,
    findings: Sequence[Finding] = (),
    migrations: Sequence[str] = (),
) -> Plan:
    """Make the plan of a release or a transfer.

    Args:
        handover: What is to be given up; what is not ours, or no longer, is left out.
        desired: What is declared: none of it may be.
        observed: What the target holds.
        target: The target's name.
        policy: Of the target.
        findings: Dangers that were found.
        migrations: Names of the migrations to run first.

    Returns:
        The plan, with an obstacle on every change that cannot or must not be made.
    """
    matches = match_entries(observed)
    places = {name: one.place for name, one in desired.resources.items()}
    places |= {old.name: places[name] for name, old in find_renames(desired, observed).items()}
    changes = []
    for name in sorted(set(handover.names)):
        definition = observed.definitions.get(name)
        if definition is None or definition.owner != desired.owner:
            continue
        obstacle = _find_common_obstacle(definition, places.get(name))
        if handover.to:
            change = _transfer(definition, matches.get(name), handover.to)
        else:
            change = _release(definition, matches.get(name))
            obstacle = obstacle or _find_release_obstacle(definition, matches.get(name), observed)
        changes.append(replace(change, obstacle=obstacle))
    marked = find_obstacles(changes, observed.facts)
    return Plan(
        target=target,
        owner=desired.owner,
        changes=marked,
        notices=tuple(_make_notices(marked, handover, policy)),
        findings=tuple(findings),
        migrations=tuple(migrations),
        resources=len(desired.resources),
        owned=sum(definition.owner == desired.owner for definition in observed.definitions.values()),
    )


def take_over(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Say what a transfer is for the one who gets it.

    Args:
        changes: Of a plan; those that are no transfer are left out.

    Returns:
        Adoptions.
    """
    return tuple(
        replace(change, action="adopt", fields=()) for change in changes if change.reason == "transferred"
    )


def find_unkept(changes: Iterable[Change], observed: ObservedState) -> tuple[Change, ...]:
    """Find releases whose entry is not as planned.

    Args:
        changes: Of the plan that was carried out.
        observed: What the target holds now.

    Returns:
        Those changes.
    """
    unkept = []
    for change in changes:
        wanted = change.after.entry if change.after is not None else None
        if wanted is not None and wanted.jobid is not None:
            found = observed.entries.get(wanted.jobid)
            if change.action == "release" and not (found is not None and found.same(wanted)):
                unkept.append(change)
    return tuple(unkept)


def _transfer(definition: Definition, entry: Entry | None, to: str) -> Change:
    side = Snapshot(document=definition.document, entry=entry)
    return Change(
        action="release",
        kind=definition.kind,
        name=definition.name,
        reason="transferred",
        before=side,
        after=side,
        fields=(FieldChange(path="owner", before=definition.owner, after=to),),
        source=definition.source,
        protect=definition.protect,
    )


def _release(definition: Definition, entry: Entry | None) -> Change:
    declared = json.loads(definition.document)
    after = entry
    if entry is not None and definition.kind == "job" and "sql" in declared and not _is_direct(declared):
        after = replace(entry, command=declared["sql"])
    before = Snapshot(document=definition.document, entry=entry)
    bare = Snapshot(document="", entry=after)
    return Change(
        action="release",
        kind=definition.kind,
        name=definition.name,
        reason="released",
        before=before,
        after=bare,
        fields=tuple(sorted(diff_snapshots(before, bare), key=lambda field: field.path)),
        source=definition.source,
        protect=definition.protect,
    )


def _is_direct(declared: Mapping[str, Any]) -> bool:
    return bool(declared.get("mode") == "direct")


def _find_common_obstacle(definition: Definition, place: Place | None) -> Obstacle | None:
    what = f"{definition.kind} {definition.name}"
    if definition.name.startswith(OWN_PREFIX):
        return _refuse(f"{what} is the tool's own", "it goes when nothing needs it any more")
    if place is not None:
        return _refuse(f"{what} is still declared", f"remove it from {place.path}:{place.line} first")
    if definition.retired_until is not None:
        return _refuse(
            f"{what} is retired, and stands still",
            f"bring it back first: reconciler restore {definition.name}",
        )
    return None


def _find_release_obstacle(
    definition: Definition, entry: Entry | None, observed: ObservedState
) -> Obstacle | None:
    what = f"{definition.kind} {definition.name}"
    if definition.kind != "job":
        why = (
            "its entry works by its definition alone"
            if definition.kind == "worker"
            else "it has no entry that could stay"
        )
        return _refuse(f"{what} cannot be released: {why}", _REMOVE)
    if definition.protect:
        return find_protection(definition)
    declared = json.loads(definition.document)
    for key, why in (
        ("once", "it runs once, by its definition and without an entry"),
        ("http", "its request is sent by its definition"),
        ("handler", "its runs are put on a queue by its definition"),
    ):
        if key in declared:
            return _refuse(f"{what} cannot be released: {why}", _REMOVE)
    if entry is None:
        return _refuse(f"{what} cannot be released: it has no entry that could stay", _REMOVE)
    if _is_direct(declared):
        return None
    return _find_managed_obstacle(definition, declared, entry, observed)


def _find_managed_obstacle(
    definition: Definition, declared: Mapping[str, Any], entry: Entry, observed: ObservedState
) -> Obstacle | None:
    """Refuse where pg_cron alone would run the SQL at other times."""
    what = f"{definition.kind} {definition.name}"
    if definition.name in observed.pauses:
        return _refuse(f"{what} is paused, and nothing would keep it from running", "resume it first")
    if "after" in declared:
        return _refuse(f"{what} cannot be released: it waits for other jobs, which pg_cron cannot", _REMOVE)
    zone = observed.facts.timezone
    timing = read_timing(
        definition.document, entry.schedule, name=definition.name, kind="job", server_zone=zone
    )
    try:
        is_plain = timing == make_entry_timing(entry.schedule, zone)
    except ValueError:
        is_plain = False
    if not is_plain:
        return _refuse(
            f"{what} cannot be released: more than the schedule of its entry decides when it runs, so that "
            "pg_cron alone would run it at other times",
            "declare it with a plain schedule and apply, or transfer it to another owner",
        )
    return None


def _refuse(why: str, remedy: str) -> Obstacle:
    return Obstacle(kind="refused", why=why, remedy=remedy)


def _make_notices(changes: Sequence[Change], handover: Handover, policy: Policy) -> Iterator[Notice]:
    made = [change for change in changes if change.obstacle is None]
    names = tuple(change.name for change in made)
    if not names:
        return
    if handover.to:
        yield Notice(
            code="transferred",
            message=f"these belong to {handover.to} from now on, and nothing else of them changes: declare "
            "them in that owner's files, whose plan calls them no longer declared until then",
            names=names,
        )
        return
    ending = tuple(change.name for change in made if change.fields)
    if ending:
        yield Notice(
            code="released",
            message="pg_cron runs the SQL of these by itself from now on: the lock, the log, time limits, "
            "retries and alerts of reconciler end, and so does what is known of their runs in status",
            names=ending,
        )
    if policy.stage == "authoritative":
        yield Notice(
            code="unmanaged",
            message="the stage of this target is authoritative: the next apply plans to delete these "
            "entries, since nobody declares them",
            names=names,
        )
