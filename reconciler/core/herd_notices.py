"""What a plan says of herds: that what it makes or changes starts together with too many others; pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from reconciler.core.declared_times import read_timing
from reconciler.core.names import OWN_PREFIX
from reconciler.core.state import Notice
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.herds import find_capacity, find_herds, make_herd_load
from reconciler.core.times.occurrences import UTC_NAMES
from reconciler.core.times.timetable import Scheduled, make_timetable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.core.changes import Change
    from reconciler.core.state import DesiredState, ObservedState

_FEW: Final = 3


def find_herd_notices(
    desired: DesiredState, observed: ObservedState, changes: Sequence[Change]
) -> tuple[Notice, ...]:
    """Find the herds that created and edited jobs will be part of.

    Args:
        desired: What is declared.
        observed: What the target holds, with its clock; without one there is nothing to say.
        changes: Of the plan.

    Returns:
        A notice `herd` for each of the largest, with the changed jobs that take part.
    """
    changed = {
        change.name
        for change in changes
        if change.action in {"create", "update"} and not change.name.startswith(OWN_PREFIX)
    }
    capacity = find_capacity(observed.facts)
    if observed.now is None or not changed or _count(desired, observed) <= capacity.limit:
        return ()
    zone = observed.facts.timezone
    try:
        local = find_zone("UTC" if zone in UTC_NAMES else zone)
        planned = tuple(_list_planned(desired, observed, changes))
        load = make_herd_load(planned, observed.now.astimezone(local).date(), zone)
    except ValueError:
        return ()  # a zone that only the server knows
    herds = [herd for herd in find_herds(load, zone, capacity) if not changed.isdisjoint(herd.names)]
    taken = "" if capacity.known else ", as far as can be seen"
    return tuple(
        Notice(
            code="herd",
            message=f"{herd.when} ({zone}) {herd.most} jobs start in one minute, and the server runs "
            f"{capacity.limit} at once{taken}: the others wait; reconciler calendar finds the spread that "
            "parts them",
            names=tuple(sorted(changed.intersection(herd.names))),
        )
        for herd in herds[:_FEW]
    )


def _count(desired: DesiredState, observed: ObservedState) -> int:
    """Count what may start, roughly and quickly: fewer than the server runs are no herd."""
    return len(observed.entries) + sum(
        resource.entry is not None and resource.entry.active for resource in desired.resources.values()
    )


def _list_planned(
    desired: DesiredState, observed: ObservedState, changes: Sequence[Change]
) -> Iterator[Scheduled]:
    """List what pg_cron starts after an apply."""
    zone, dialect = observed.facts.timezone, observed.facts.dialect  # found out once, there can be many jobs
    taken = {*desired.resources, *(change.renamed_from for change in changes)}
    taken |= {change.name for change in changes if change.action in {"delete", "retire"}}
    for resource in desired.resources.values():
        entry = resource.entry
        if entry is None or not entry.active:
            continue
        timing = read_timing(
            resource.document,
            entry.schedule,
            name=resource.name,
            kind=resource.kind,
            server_zone=zone,
        )
        if timing is not None:
            yield Scheduled(name=resource.name, kind="job", timing=timing, schedule=entry.schedule)
    others = replace(
        observed,
        definitions={name: each for name, each in observed.definitions.items() if name not in taken},
        entries={jobid: entry for jobid, entry in observed.entries.items() if entry.name not in taken},
    )
    yield from make_timetable((), owner=desired.owner, server_zone=zone, dialect=dialect, observed=others)
