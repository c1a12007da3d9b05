"""What a reviewer has to know of the times in a plan, and one-time jobs that come too late; pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.changes import Obstacle
from reconciler.core.declared_times import read_instant, read_timing
from reconciler.core.state import Notice
from reconciler.core.times.clocks import make_clock, read_clock, to_seconds
from reconciler.core.times.occurrences import find_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.changes import Change
    from reconciler.core.state import DesiredResource, DesiredState, ObservedState
    from reconciler.core.times.timings import Timing

# The server tells of twelve; the last year may be one that only one of the two has read.
_HORIZON: Final = timedelta(days=11 * 365)
_LIMITS: Final = ('"end_at":', '"start_at":', '"blackout":')
_ENDED: Final = (
    "end_at of these jobs is past: they do not run again; remove them from the files, or give a later end_at"
)
_NEVER: Final = (
    "these jobs are active and will never run: no run that their schedule wants is left by start_at, end_at "
    "and blackout"
)


def find_time_notices(desired: DesiredState, observed: ObservedState) -> tuple[Notice, ...]:
    """Find what is odd about the times of what is declared.

    Args:
        desired: What is declared.
        observed: What the target holds, with its clock; without one there is nothing to say.

    Returns:
        The notices `ended`, `never` and `zone_data`, in this order.
    """
    if observed.now is None:
        return ()
    return (
        *_find_over(desired, observed.now, observed.facts.timezone),
        *_find_other_clocks(desired, observed),
    )


def refuse_past(changes: Iterable[Change], observed: ObservedState) -> tuple[Change, ...]:
    """Refuse one-time jobs of the past: they would run as soon as they are applied.

    What was applied with that instant is left alone: it runs, or has run, unless it stood still in its grace.

    Args:
        changes: Of a plan.
        observed: What the target holds, with its clock; without one nothing is refused.

    Returns:
        The same changes in the same order; those that come too late carry an obstacle.
    """
    now = observed.now
    if now is None:
        return tuple(changes)
    return tuple(change if change.obstacle else _refuse_one(change, now, observed) for change in changes)


def _refuse_one(change: Change, now: datetime, observed: ObservedState) -> Change:
    if not change.once or change.after is None or change.name in observed.settled:
        return change
    at = _find_once(change.after.document)
    if at is None or at > now or change.action == "retire":
        return change
    was = None if change.before is None or change.retired_until else _find_once(change.before.document)
    if was == at:
        return change
    return replace(
        change,
        obstacle=Obstacle(
            kind="refused",
            why=f"{change.kind} {change.name} is to run once at {at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}, "
            "which is past",
            remedy=f"remove it from the files ({change.source}), or give it a moment to come",
        ),
    )


def _find_once(document: str) -> datetime | None:
    declared = _read(document)
    try:
        return read_instant(declared["once"])
    except (KeyError, TypeError, ValueError):
        return None


def _read(document: str) -> Mapping[str, Any]:
    declared = json.loads(document) if document else {}
    return declared if isinstance(declared, dict) else {}


def _find_over(desired: DesiredState, now: datetime, server_zone: str) -> Iterator[Notice]:
    """Say which jobs do not run any more, and which never will."""
    ended, never = [], []
    for resource in desired.resources.values():
        timing = _read_limited(resource, server_zone)
        if timing is None:
            continue
        if timing.end_at is not None and timing.end_at <= now:
            ended.append(resource.name)
        elif resource.entry is not None and resource.entry.active and not _has_run(timing, now):
            never.append(resource.name)
    for code, message, names in (("ended", _ENDED, ended), ("never", _NEVER, never)):
        if names:
            yield Notice(code=code, message=message, names=tuple(sorted(names)))


def _read_limited(resource: DesiredResource, server_zone: str) -> Timing | None:
    """Read the timing of a job with a window or blackouts; few have them."""
    if not any(key in resource.document for key in _LIMITS):
        return None
    timing = read_timing(
        resource.document, "", name=resource.name, kind=resource.kind, server_zone=server_zone
    )
    return timing if timing is not None and timing.has_limits else None


@lru_cache(maxsize=1024)
def _has_run(timing: Timing, now: datetime) -> bool:
    """Tell whether there is a run to come; where that cannot be known, there is."""
    try:
        return bool(timing.word or find_runs(timing, after=now, count=1))
    except ValueError:
        return True


def _find_other_clocks(desired: DesiredState, observed: ObservedState) -> Iterator[Notice]:
    """Say which zones' clocks the server and this machine know differently."""
    zones = [zone for zone in sorted(observed.clocks) if not _agrees(zone, observed.clocks[zone])]
    if not zones:
        return
    marks = [f'"timezone":{json.dumps(zone)}' for zone in zones]
    names = (
        resource.name
        for resource in desired.resources.values()
        if resource.kind == "job" and any(mark in resource.document for mark in marks)
    )
    yield Notice(
        code="zone_data",
        message=f"the server and this machine do not know the same clocks of {', '.join(zones)}: the times "
        "shown may not be those at which jobs run, which the server decides; update the older time zone data",
        names=tuple(sorted(names)),
    )


def _agrees(zone: str, known: Sequence[tuple[datetime, int]]) -> bool:
    """Tell whether this machine knows a zone as the server does."""
    theirs = make_clock(known)
    try:
        ours = read_clock(zone)
    except ValueError:
        return False
    low, high = to_seconds(known[0][0]), to_seconds(known[0][0] + _HORIZON)
    moments = [low, *(second for clock in (ours, theirs) for second in clock.changes if low < second < high)]
    return all(ours.offset_at(second) == theirs.offset_at(second) for second in moments)
