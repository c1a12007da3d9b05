"""Everything on a target that a clock starts, whoever declared it; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from reconciler.core.declared_times import read_timing
from reconciler.core.matching import match_entries
from reconciler.core.specs import HttpBody, JobSpec, Once, WorkerSpec
from reconciler.core.times.occurrences import UTC_NAMES, clock_of
from reconciler.core.times.timings import make_entry_timing, make_timing
from reconciler.core.times.triggers import compile_timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from reconciler.core.specs import Spec
    from reconciler.core.state import Definition, Entry, ObservedState
    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.dialects import Dialect
    from reconciler.core.times.timings import Timing

_SENDERS: Final = frozenset({"http", "pg_net"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """Something that a clock starts.

    Attributes:
        name: Of the job or worker, or of the entry; `jobid 7` for an entry without a name.
        kind: What it is; an entry is one that nobody declared.
        timing: When its runs are wanted.
        schedule: The text in cron.job, as it is there or would be; "" where it has no entry: a one-time job,
            and what this target cannot take.
        active: Whether it is started at all.
        paused: Whether its runs are skipped.
        paused_until: When the pause ends by itself, aware; None for no pause, and for one without an end.
        owner: Who declared it; "" for nobody.
    """

    name: str
    kind: Literal["job", "worker", "entry"]
    timing: Timing
    schedule: str = ""
    active: bool = True
    paused: bool = False
    paused_until: datetime | None = None
    owner: str = ""


def make_timetable(
    specs: Iterable[Spec],
    *,
    owner: str,
    server_zone: str,
    dialect: Dialect,
    observed: ObservedState | None = None,
) -> tuple[Scheduled, ...]:
    """Make the timetable of a target.

    Args:
        specs: What is declared for it, without problems.
        owner: Whose they are.
        server_zone: In which its pg_cron reads schedules.
        dialect: What its pg_cron reads.
        observed: What the target holds; None for what the files say alone.

    Returns:
        All that a clock starts, by name: the specs as declared, and what else is observed as it was applied.
        Jobs that only others' success starts are left out, and so is what cannot be read.

    Raises:
        ValueError: A zone of the specs is unknown on this machine.
    """
    entries = {} if observed is None else match_entries(observed)
    declared = [spec for spec in specs if isinstance(spec, JobSpec | WorkerSpec)]
    found = list(_list_declared(declared, owner, server_zone, dialect, observed, entries))
    if observed is not None:
        taken = {name for spec in declared for name in (spec.name, spec.renamed_from)}
        found += _list_applied(observed, entries, server_zone, taken)
        found += _list_strangers(observed, entries, server_zone, {spec.name for spec in declared})
    return tuple(sorted(found, key=lambda each: (each.name, each.kind, each.owner)))


def _list_declared(
    specs: Iterable[JobSpec | WorkerSpec],
    owner: str,
    server_zone: str,
    dialect: Dialect,
    observed: ObservedState | None,
    entries: Mapping[str, Entry],
) -> Iterator[Scheduled]:
    clocks = {server_zone: clock_of(server_zone)}
    sends = observed is None or not _SENDERS.isdisjoint(observed.facts.extensions)
    settled = frozenset[str]() if observed is None else observed.settled
    for spec in specs:
        timing = make_timing(spec, server_zone)
        if timing is None:
            continue
        if timing.zone not in clocks and timing.zone not in UTC_NAMES:
            clocks[timing.zone] = clock_of(timing.zone)
        applied = None if observed is None else observed.definitions.get(spec.name)
        entry = entries.get(spec.name)
        needs_sender = isinstance(spec, WorkerSpec) or isinstance(spec.body, HttpBody)
        if isinstance(spec, WorkerSpec):
            text = spec.schedule
        elif isinstance(spec.trigger, Once):
            text = ""
        else:
            text = _compile(timing, server_zone, clocks, dialect)
        paused, until = _find_pause(spec.name, observed)
        yield Scheduled(
            name=spec.name,
            kind=spec.kind,
            timing=timing,
            schedule=text if sends or not needs_sender else "",
            active=spec.active and spec.name not in settled and not _is_switched_off(applied, entry),
            paused=paused,
            paused_until=until,
            owner=owner,
        )


def _compile(timing: Timing, server_zone: str, clocks: Mapping[str, Clock], dialect: Dialect) -> str:
    return compile_timing(timing, server_zone=server_zone, clocks=clocks, dialect=dialect).text


def _list_applied(
    observed: ObservedState, entries: Mapping[str, Entry], server_zone: str, taken: set[str]
) -> Iterator[Scheduled]:
    """List what was applied and is not declared here: others' jobs, the tool's own, and what is to go."""
    for name, definition in observed.definitions.items():
        if name in taken or definition.retired_until is not None:
            continue
        entry = entries.get(name)
        schedule = entry.schedule if entry else ""
        timing = read_timing(
            definition.document, schedule, name=name, kind=definition.kind, server_zone=server_zone
        )
        # Without an entry only what has one time is started.
        if timing is None or (entry is None and timing.once is None) or not _is_known_here(timing):
            continue
        paused, until = _find_pause(name, observed)
        yield Scheduled(
            name=name,
            kind="worker" if definition.kind == "worker" else "job",
            timing=timing,
            schedule=schedule,
            active=entry.active if entry else name not in observed.settled,
            paused=paused,
            paused_until=until,
            owner=definition.owner,
        )


def _is_known_here(timing: Timing) -> bool:
    """Tell whether this machine knows the zones of what another one declared."""
    try:
        return all(map(clock_of, (timing.zone, timing.blackout_zone)))
    except ValueError:
        return False


def _list_strangers(
    observed: ObservedState, entries: Mapping[str, Entry], server_zone: str, declared: set[str]
) -> Iterator[Scheduled]:
    """List entries that nobody declared, but for those that an apply would adopt by their name."""
    claimed = {entry.jobid for entry in entries.values()}
    for jobid, entry in observed.entries.items():
        if jobid in claimed or entry.name in declared:
            continue
        try:
            timing = make_entry_timing(entry.schedule, server_zone)
        except ValueError:
            continue
        yield Scheduled(
            name=entry.name or f"jobid {jobid}",
            kind="entry",
            timing=timing,
            schedule=entry.schedule,
            active=entry.active,
        )


def _find_pause(name: str, observed: ObservedState | None) -> tuple[bool, datetime | None]:
    pause = None if observed is None else observed.pauses.get(name)
    return (False, None) if pause is None else (True, pause.until)


def _is_switched_off(applied: Definition | None, entry: Entry | None) -> bool:
    """Tell whether somebody switched an entry off by hand, which is not what was applied."""
    if applied is None or applied.entry is None or entry is None:
        return False
    return applied.entry.active and not entry.active
