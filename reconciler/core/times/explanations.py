"""Explain when a schedule, a job or a worker runs: in words, in instants, and by what entry; pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from reconciler.core.canonical import render_canonical
from reconciler.core.declared_times import read_timing
from reconciler.core.schedules import find_problem
from reconciler.core.specs import JobSpec, Once, Schedule
from reconciler.core.times.clocks import to_instant, to_seconds
from reconciler.core.times.cron_fields import INTERVAL, START_WORDS, is_sound
from reconciler.core.times.dialects import dialect_for, format_version
from reconciler.core.times.occurrences import clock_of, find_runs, find_runs_between
from reconciler.core.times.rule_times import join_words
from reconciler.core.times.timings import make_entry_timing, make_timing
from reconciler.core.times.triggers import compile_timing
from reconciler.core.times.words import describe_clock_changes, describe_timing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from reconciler.core.specs import WorkerSpec
    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.dialects import Dialect
    from reconciler.core.times.foreign_cron import ForeignReading
    from reconciler.core.times.timings import Timing

_DAY: Final = timedelta(days=1)
_MONTH: Final = 28
_YEAR: Final = 365
_SELDOM: Final = 1000
_CHANGES: Final = 2
# Where the grammar changed.
_VERSIONS: Final = ((1, 4, 0), (1, 5, 0), (1, 6, 0), (1, 6, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The pg_cron for which something is explained.

    Attributes:
        zone: In which it reads schedules.
        dialect: What it reads.
        clocks: Of zones, as it knows them; others are taken from this machine.
    """

    zone: str
    dialect: Dialect
    clocks: Mapping[str, Clock] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """A day on which the clocks of a zone are set.

    Attributes:
        at: When they are set, in UTC.
        before: What they would have shown, as seconds ahead of UTC.
        after: What they show from then on, likewise.
        runs: All runs of that local day, in UTC.
    """

    at: datetime
    before: int
    after: int
    runs: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """How often an entry fires.

    Attributes:
        days: Over how many days it was counted.
        fires: How often it fires in them.
        runs: How many of these are wanted; the database passes over the others.
    """

    days: int
    fires: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """When something runs.

    Attributes:
        text: The schedule, or the name.
        kind: What the text is.
        words: When it runs; "" where it has a problem.
        zone: The zone of its local times.
        spread: By how much it is put off, of its `spread`.
        clock_changes: What it does where clocks skip a time or show it twice; "" where that cannot happen.
        changes: The next days on which the clocks are set, where that matters to it.
        versions: Which versions of pg_cron take the schedule; "" for a job.
        entry: The text of its entry in cron.job; "" for none.
        starts: How often that fires, where it fires more often than it should run.
        runs: The next runs, in UTC.
        after: Names of jobs that have to succeed first.
        active: Whether it is declared to run at all.
        problem: Why it cannot be so; "" where it can.
        suggestion: The right spelling; "" for none.
        elsewhere: What other crons mean by a schedule that is refused.
    """

    text: str
    kind: Literal["schedule", "job", "worker"] = "schedule"
    words: str = ""
    zone: str = ""
    spread: timedelta = timedelta(0)
    clock_changes: str = ""
    changes: tuple[ClockChange, ...] = ()
    versions: str = ""
    entry: str = ""
    starts: Starts | None = None
    runs: tuple[datetime, ...] = ()
    after: tuple[str, ...] = ()
    active: bool = True
    problem: str = ""
    suggestion: str = ""
    elsewhere: tuple[ForeignReading, ...] = ()


def explain_schedule(
    text: str, server: Server, *, zone: str = "", after: datetime, count: int
) -> Explanation:
    """Explain a schedule.

    Args:
        text: As a person wrote it.
        server: The pg_cron that is to read it.
        zone: The zone of the job whose schedule it is; "" for pg_cron's own.
        after: An aware instant; runs are later than it.
        count: How many runs are wanted.

    Returns:
        The explanation, or what is wrong with the text.

    Raises:
        ValueError: A zone is unknown.
    """
    problem = find_problem(text, server.dialect)
    if problem is not None:
        return Explanation(text=text, problem=problem.reason, suggestion=problem.suggestion)
    has_zone = zone and text not in START_WORDS and INTERVAL.fullmatch(text) is None
    declared = render_canonical({"schedule": text, "timezone": zone})
    timing = read_timing(declared, "", name="", kind="job", server_zone=server.zone) if has_zone else None
    found = _explain_timing(
        Explanation(text=text), timing or make_entry_timing(text, server.zone), server, after, count
    )
    return replace(found, versions=describe_versions(text))


def explain_spec(spec: JobSpec | WorkerSpec, server: Server, *, after: datetime, count: int) -> Explanation:
    """Explain a job or a worker.

    Args:
        spec: As it is declared.
        server: The pg_cron that is to run it.
        after: An aware instant; runs are later than it.
        count: How many runs are wanted.

    Returns:
        The explanation, or why this server cannot run it.

    Raises:
        ValueError: A zone is unknown.
    """
    text = spec.trigger.text if isinstance(spec, JobSpec) and isinstance(spec.trigger, Schedule) else ""
    if not isinstance(spec, JobSpec):
        text = spec.schedule
    others = spec.after if isinstance(spec, JobSpec) else ()
    base = Explanation(text=spec.name, kind=spec.kind, after=others, active=spec.active)
    problem = find_problem(text, server.dialect) if text else None
    if problem is not None:
        return replace(base, problem=problem.reason, suggestion=problem.suggestion)
    timing = make_timing(spec, server.zone)
    if timing is None:
        return replace(base, words=_describe_others(others))
    found = _explain_timing(base, timing, server, after, count)
    is_direct = isinstance(spec, JobSpec) and spec.mode == "direct" and not isinstance(spec.trigger, Once)
    if is_direct and not found.problem and not _compile(timing, server)[1]:
        reason = (
            f"in this server's zone ({server.zone}) no schedule of pg_cron says just that, and with "
            "mode: direct it would run whenever its entry fires"
        )
        return replace(found, problem=reason, suggestion="mode: managed")
    return found


def find_clock_changes(timing: Timing, *, after: datetime, count: int) -> tuple[ClockChange, ...]:
    """Find the next days on which the clocks of a timing's zone are set.

    Args:
        timing: One with a rule.
        after: An aware instant.
        count: How many are wanted.

    Returns:
        The days with their runs, fewer where the zone sets its clocks no more.

    Raises:
        ValueError: There is no such zone.
    """
    clock = clock_of(timing.zone)
    found: list[ClockChange] = []
    for second, before, then in clock.steps():
        if second > to_seconds(after) and len(found) < count:
            at = to_instant(second)
            day = (at + timedelta(seconds=then)).date()
            around = find_runs_between(timing, after=at - 2 * _DAY, until=at + 2 * _DAY)
            runs = [run for run in around if _read_date(run, clock) == day]
            found.append(ClockChange(at=at, before=before, after=then, runs=tuple(runs)))
    return tuple(found)


def count_starts(timing: Timing, entry: Timing, *, after: datetime) -> Starts:
    """Count how often an entry fires, and how often that is a run.

    Args:
        timing: When runs are wanted.
        entry: When the entry fires.
        after: An aware instant; what comes later is counted.

    Returns:
        The counts over four weeks, or over a year for what comes seldom.
    """
    days, fires = _MONTH, _count(entry, after, _MONTH)
    if fires < _SELDOM:
        days, fires = _YEAR, _count(entry, after, _YEAR)
    return Starts(days=days, fires=fires, runs=_count(timing, after, days))


def describe_versions(text: str) -> str:
    """Say which versions of pg_cron take a schedule and mean by it what people do.

    Args:
        text: The schedule.

    Returns:
        `any version`, `from 1.5 on`, `before 1.6`; "" for none.
    """
    takes = [is_sound(text, dialect_for(version)) for version in _VERSIONS]
    if all(takes):
        return "any version"
    if takes[-1]:
        return f"from {format_version(_VERSIONS[takes.index(True)])} on"
    return f"before {format_version(_VERSIONS[takes.index(False)])}" if takes[0] else ""


def _explain_timing(
    base: Explanation, timing: Timing, server: Server, after: datetime, count: int
) -> Explanation:
    entry, exact, problem = "", True, ""
    if timing.once is None:
        entry, exact, problem = _compile(timing, server)
    clock_changes = describe_clock_changes(timing, since=after)
    return replace(
        base,
        words=describe_timing(timing),
        zone=timing.zone,
        spread=timing.shift,
        clock_changes=clock_changes,
        changes=find_clock_changes(timing, after=after, count=_CHANGES) if clock_changes else (),
        entry=entry,
        starts=None if exact else count_starts(timing, make_entry_timing(entry, server.zone), after=after),
        runs=find_runs(timing, after=after, count=count),
        problem=problem,
    )


def _compile(timing: Timing, server: Server) -> tuple[str, bool, str]:
    """Compile a timing: the text, whether it is exact, and the problem."""
    clocks = {zone: server.clocks.get(zone) or clock_of(zone) for zone in (server.zone, timing.zone)}
    found = compile_timing(timing, server_zone=server.zone, clocks=clocks, dialect=server.dialect)
    return found.text, found.exact, found.problem


def _describe_others(names: tuple[str, ...]) -> str:
    return f"whenever {join_words(names)} {'has' if len(names) == 1 else 'have'} succeeded since its last run"


def _read_date(run: datetime, clock: Clock) -> date:
    return (run + timedelta(seconds=clock.offset_at(to_seconds(run)))).date()


def _count(timing: Timing, after: datetime, days: int) -> int:
    return sum(1 for _ in find_runs_between(timing, after=after, until=after + days * _DAY))
