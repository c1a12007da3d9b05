"""Herds: more jobs in one minute than the server runs at once, and the spread that parts them; pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from reconciler.core.durations import render_duration
from reconciler.core.specs import JobSpec, Once, Succeeded
from reconciler.core.times.heat import find_days, make_load
from reconciler.core.times.herd_times import DAYS, part_herds
from reconciler.core.times.minutes import Tally, make_stretch
from reconciler.core.times.rule_times import count
from reconciler.core.times.timings import find_shift

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from reconciler.core.facts import Facts
    from reconciler.core.specs import Place, Spec
    from reconciler.core.times.heat import Load
    from reconciler.core.times.herd_times import Gathering
    from reconciler.core.times.timetable import Scheduled
    from reconciler.core.times.timings import Timing

SPREADS: Final = tuple(timedelta(minutes=minutes) for minutes in (5, 10, 15, 30, 60, 120))
"""The spreads that are tried, the smallest first."""

_USUAL_LIMIT: Final = 32
_MINUTE: Final = timedelta(minutes=1)
# Looking for the spread of one herd takes some milliseconds.
_ADVISED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many jobs a server runs at once.

    Attributes:
        limit: The number.
        known: Whether the server said so; else it is pg_cron's usual one.
    """

    limit: int
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Herd:
    """Jobs that start together and are more than the server runs at once.

    Attributes:
        when: In words, such as `each day at 00:00`.
        first_at: The first time, in UTC.
        times: How often, in the days that were looked at.
        most: How many start in the worst of its minutes, with those that run all the time.
        names: All jobs that take part, sorted.
        spread: The smallest spread that parts it; nothing where there is none.
        moved: The jobs that need it, sorted.
        advice: What to do, as one clause.
    """

    when: str
    first_at: datetime
    times: int
    most: int
    names: tuple[str, ...]
    spread: timedelta = timedelta(0)
    moved: tuple[str, ...] = ()
    advice: str = ""


@dataclass(slots=True, kw_only=True)
class _Board:
    """The load, as it would be with the spreads that were advised so far."""

    load: Load
    limit: int
    spreads: dict[str, timedelta] = field(default_factory=dict)

    def tally(self, without: frozenset[str] = frozenset()) -> Tally:
        """Count the starts of each minute, with some jobs left out."""
        tally = Tally()
        for group in self.load.groups:
            staying = 0
            shifted: defaultdict[timedelta, int] = defaultdict(int)
            for name in group.names:
                spread = self.spreads.get(name)
                if name in without:
                    continue
                if spread is None:
                    staying += 1
                else:
                    shifted[find_shift(name, spread)] += 1
            if staying:
                tally.add(group.minutes, staying)
            for shift, times in shifted.items():
                tally.add(self.load.finder.find(group.timing, shift), times)
        return tally

    def find_crowded(self, tally: Tally) -> int:
        """Find the minutes in which too many start."""
        return _find_crowded(tally, self.load, self.limit)


def find_capacity(facts: Facts | None) -> Capacity:
    """Find how many jobs a server runs at once.

    Args:
        facts: Of the server; None for none.

    Returns:
        `cron.max_running_jobs`, which pg_cron keeps within max_connections, or within max_worker_processes
        where jobs run in background workers. Where the role cannot see it, 32: pg_cron's default over
        connections; in background workers it is 5.
    """
    value = "" if facts is None else facts.settings.get("max_running_jobs", "")
    if value.isdecimal():
        return Capacity(limit=int(value), known=True)
    if facts is not None and facts.background_workers:
        return Capacity(limit=5, known=False)
    return Capacity(limit=_USUAL_LIMIT, known=False)


def list_spreadable(specs: Iterable[Spec]) -> dict[str, Place]:
    """List the declared jobs that a spread can put off.

    Args:
        specs: Everything that is declared.

    Returns:
        Their names with their places. Left out are those that have a spread, or come once or after others;
        and direct ones, whose schedule has to stay exact.
    """
    return {
        spec.name: spec.place
        for spec in specs
        if isinstance(spec, JobSpec)
        and spec.mode == "managed"
        and not spec.spread
        and not isinstance(spec.trigger, Once | Succeeded)
    }


def make_herd_load(scheduled: Iterable[Scheduled], first: date, zone: str, days: int = DAYS) -> Load:
    """Add up what pg_cron starts in the days from a date on.

    Args:
        scheduled: What a clock starts; one-time jobs have no entry, and are left out.
        first: The first day.
        zone: By whose clocks.
        days: How many.

    Returns:
        The load.

    Raises:
        ValueError: A zone is unknown on this machine.
    """
    begins = find_days(first, days, zone)
    return make_load(
        (each for each in scheduled if each.timing.once is None), make_stretch(begins[0], begins[-1])
    )


def find_crowded(load: Load, capacity: Capacity) -> int:
    """Find the minutes in which more jobs start than the server runs at once, as bits."""
    return _find_crowded(load.tally, load, capacity.limit)


def find_herds(
    load: Load, zone: str, capacity: Capacity, spreadable: Mapping[str, Place] | None = None
) -> tuple[Herd, ...]:
    """Find herds.

    Args:
        load: As `make_herd_load` has it.
        zone: By whose clocks herds are called.
        capacity: How many jobs the server runs at once.
        spreadable: The jobs to which a spread can be advised; None advises nothing.

    Returns:
        The largest first. What is advised to one of them is taken as done for those that follow.
    """
    crowded = find_crowded(load, capacity)
    if not crowded:
        return ()
    board = _Board(load=load, limit=capacity.limit)
    found = sorted(
        part_herds(load, crowded, zone), key=lambda herd: (-_count(load, herd.minutes), herd.minutes)
    )
    herds: list[Herd] = []
    for number, herd in enumerate(found):
        spread, moved, advice = timedelta(0), frozenset[str](), ""
        if spreadable is not None and number < _ADVISED:
            spread, moved, advice = _advise(board, herd, spreadable)
            board.spreads.update(dict.fromkeys(moved, spread))
        herds.append(
            Herd(
                when=herd.when,
                first_at=load.stretch.instant((herd.minutes & -herd.minutes).bit_length() - 1),
                times=herd.minutes.bit_count(),
                most=_count(load, herd.minutes),
                names=tuple(sorted({*load.base, *(name for group in herd.groups for name in group.names)})),
                spread=spread,
                moved=tuple(sorted(moved)),
                advice=advice,
            )
        )
    return tuple(herds)


def render_spreads(herd: Herd, places: Mapping[str, Place]) -> str:
    """Render what is to be written below the jobs of a herd.

    Args:
        herd: One to which a spread is advised.
        places: Where its jobs are declared.

    Returns:
        Lines of YAML, with each job's place as a comment.
    """
    spread = render_duration(herd.spread)
    return "\n".join(["jobs:", *(f"  {name}: {{spread: {spread}}}  # {places[name]}" for name in herd.moved)])


def _find_crowded(tally: Tally, load: Load, limit: int) -> int:
    free = limit - len(load.base)
    return tally.find_above(free, load.stretch.all) if free >= 0 else load.stretch.all


def _count(load: Load, minutes: int) -> int:
    return load.tally.find_most(minutes)[0] + len(load.base)


def _advise(
    board: _Board, herd: Gathering, spreadable: Mapping[str, Place]
) -> tuple[timedelta, frozenset[str], str]:
    """Find the smallest spread that parts a herd, who needs it, and what to say."""
    before = board.find_crowded(board.tally())
    if not before & herd.minutes:
        return timedelta(0), frozenset(), "what is advised above parts this one too"
    movable = {
        name: group.timing
        for group in herd.groups
        if not _is_dense(group.timing)
        for name in group.names
        if name in spreadable and name not in board.spreads
    }
    if not movable:
        return timedelta(0), frozenset(), "none of these jobs can be given a spread here"
    # Jobs that mostly come at other times stay where they are, if that is enough.
    mostly = {name: timing for name, timing in movable.items() if _belongs(board.load, timing, herd)}
    most = 0
    for spread in SPREADS:
        for candidates in (mostly, movable):
            moved = frozenset(
                name for name, timing in candidates.items() if not _loses(board.load, name, timing, spread)
            )
            is_parted, most = _try(board, herd, before, {name: movable[name] for name in moved}, spread)
            if is_parted:
                jobs = count(len(moved), "job")
                return spread, moved, f"spread: {render_duration(spread)} in {jobs} leaves {most} at most"
    advice = (
        f"not even spread: {render_duration(SPREADS[-1])} is enough ({most} would start in one minute): "
        "give some of them other times, or the server a higher cron.max_running_jobs"
    )
    return timedelta(0), frozenset(), advice


def _try(
    board: _Board, herd: Gathering, before: int, moved: Mapping[str, Timing], spread: timedelta
) -> tuple[bool, int]:
    """Tell whether a herd is parted when some of its jobs are spread, and how many start at most then.

    What was crowded elsewhere `before` is another herd's.
    """
    tally = board.tally(frozenset(moved))
    shifted: defaultdict[tuple[Timing, timedelta], int] = defaultdict(int)
    for name, timing in moved.items():
        shifted[timing, find_shift(name, spread)] += 1
    touched = herd.minutes
    for (timing, shift), times in shifted.items():
        minutes = board.load.finder.find(timing, shift)
        tally.add(minutes, times)
        touched |= minutes
    others = before & ~herd.minutes
    most = tally.find_most(touched & ~others)[0] + len(board.load.base)
    return not board.find_crowded(tally) & ~others, most


def _belongs(load: Load, timing: Timing, herd: Gathering) -> bool:
    """Tell whether at least half of a job's runs are part of a herd."""
    minutes = load.finder.find(timing)
    return 2 * (minutes & herd.minutes).bit_count() >= minutes.bit_count()


def _is_dense(timing: Timing) -> bool:
    """Tell whether a job comes in each minute anyway, so that to put it off changes nothing."""
    return (
        bool(timing.seconds)
        or timing.interval == _MINUTE
        or (timing.rule is not None and len(timing.rule.minutes) == 60)
    )


def _loses(load: Load, name: str, timing: Timing, spread: timedelta) -> bool:
    """Tell whether a spread would put a job's run off into its blackout, or past its end."""
    if not timing.has_limits:
        return False
    shift = find_shift(name, spread)
    wanted = load.finder.find(timing) << (shift // _MINUTE) & load.stretch.all
    return bool(wanted & ~load.finder.find(timing, shift))
