"""What a change does to the times of a job: its runs before and after, left out or doubled; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.declared_times import read_timing
from reconciler.core.steps import make_steps
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.occurrences import UTC_NAMES, find_runs, find_runs_between
from reconciler.core.times.run_rates import count_per_day, means_same
from reconciler.core.times.timings import make_entry_timing
from reconciler.core.times.words import describe_timing

if TYPE_CHECKING:
    from reconciler.core.changes import Change, Snapshot
    from reconciler.core.facts import Facts
    from reconciler.core.specs import Kind
    from reconciler.core.state import Running
    from reconciler.core.times.local_rules import LocalRule
    from reconciler.core.times.timings import Timing

_NEXT: Final = 3
_AROUND: Final = 25
_MOST_SKIPPED: Final = 10
_OFTEN: Final = timedelta(minutes=15)
_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)
_MORE: Final = 1.001


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesView:
    """When a resource runs, on one side of a change.

    Attributes:
        words: The same in plain English.
        zone: In which its times are meant.
        next_runs: Up to three, in UTC; none while it is inactive, and where no clock decides.
        per_day: Runs on a usual day; nothing while it is inactive.
        woken_per_day: How often its entry fires on a usual day, where that is more often than it runs.
        active: Whether it runs at all.
        by_clock: Whether a clock decides when. It does not for `@reboot`, and not for intervals of seconds,
            which pg_cron counts from the last start.
    """

    words: str
    zone: str
    next_runs: tuple[datetime, ...]
    per_day: float
    woken_per_day: float | None = None
    active: bool = True
    by_clock: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeTimes:
    """A change as it looks in time.

    Attributes:
        before: Its times on the target; None where it has none, or they do not change.
        after: Its times as declared; likewise.
        last_run: When it was last due by the old times, where a run is left out or comes twice.
        skipped: Runs that were to come, up to ten, and in whose place none comes.
        doubled: The run that comes although the last one stands for it.
        same_times: The times are said otherwise, and are the same.
        running: Runs that go on right now.
        fate: What becomes of these; "" where there are none.
    """

    before: TimesView | None = None
    after: TimesView | None = None
    last_run: datetime | None = None
    skipped: tuple[datetime, ...] = ()
    doubled: tuple[datetime, ...] = ()
    same_times: bool = False
    running: tuple[Running, ...] = ()
    fate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline(Mapping[str, ChangeTimes]):
    """The times of the changes of a plan, by the resource's name; found when they are asked for.

    Attributes:
        changes: Of the plan, by name.
        facts: Of the target's server.
        server_zone: In which its pg_cron reads schedules.
        now: By the server's clock, aware.
        running: Runs that go on, by job.
    """

    changes: Mapping[str, Change]
    facts: Facts
    server_zone: str
    now: datetime
    running: Mapping[str, tuple[Running, ...]]

    def __getitem__(self, name: str) -> ChangeTimes:
        change = self.changes[name]
        times = find_change_times(
            change,
            server_zone=self.server_zone,
            now=self.now,
            running=self.running.get(change.renamed_from or name, ()),
            facts=self.facts,
        )
        if times is None:
            raise KeyError(name)
        return times

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.changes if self.get(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side of a change: when it runs, what fires it, and whether it does."""

    timing: Timing
    fires: str
    active: bool


def find_change_times(
    change: Change,
    *,
    server_zone: str,
    now: datetime,
    running: tuple[Running, ...] = (),
    facts: Facts | None = None,
) -> ChangeTimes | None:
    """Find what a change does in time.

    Args:
        change: Of a plan.
        server_zone: In which pg_cron reads schedules.
        now: By the server's clock, aware.
        running: The resource's runs that go on right now.
        facts: Of the server: they decide what becomes of a run; None says nothing of that.

    Returns:
        Its times, where it makes, changes or ends them, or where a run goes on; None for any other, for what
        no clock decides, and for a zone that this machine does not know.
    """
    fate = "" if facts is None or not running else _describe_fate(change, facts)
    rest = ChangeTimes(running=running, fate=fate) if running else None
    same_entry = _schedule_of(change.before) == _schedule_of(change.after) != ""
    old_name = change.renamed_from or change.name
    before = _read_side(change.before, old_name, change.kind, server_zone, by_entry=not same_entry)
    after = _read_side(change.after, change.name, change.kind, server_zone, by_entry=False)
    if before == after or change.action == "adopt":
        return rest
    try:
        views = [None if side is None else _make_view(side, server_zone, now) for side in (before, after)]
        times = ChangeTimes(before=views[0], after=views[1], running=running, fate=fate)
        if before is None or after is None or not (before.active and after.active):
            return times
        if means_same(before.timing, after.timing):
            return replace(times, same_times=True)
        last_run, skipped, doubled = _find_turn(before.timing, after.timing, now)
    except ValueError:
        return rest
    return replace(times, last_run=last_run, skipped=skipped, doubled=doubled)


def _schedule_of(snapshot: Snapshot | None) -> str:
    return "" if snapshot is None or snapshot.entry is None else snapshot.entry.schedule


def _read_side(
    snapshot: Snapshot | None, name: str, kind: Kind, server_zone: str, *, by_entry: bool
) -> _Side | None:
    """Read one side; where the entry is as the document wants it, that says more of what is meant."""
    if snapshot is None or (snapshot.entry is None and not _is_once(snapshot)):
        return None  # nothing starts it
    entry = snapshot.entry
    timing = None
    if snapshot.document:
        timing = read_timing(
            snapshot.document,
            entry.schedule if entry is not None and by_entry else "",
            name=name,
            kind=kind,
            server_zone=server_zone,
        )
    if timing is None and entry is not None:
        timing = _read_entry(entry.schedule, server_zone)
    if timing is None:
        return None
    if entry is None:
        return _Side(timing=timing, fires="", active=_read_document(snapshot).get("active", True))
    return _Side(timing=timing, fires=entry.schedule, active=entry.active)


def _is_once(snapshot: Snapshot) -> bool:
    return "once" in _read_document(snapshot)


def _read_document(snapshot: Snapshot) -> dict[str, Any]:
    declared = json.loads(snapshot.document) if snapshot.document else {}
    return declared if isinstance(declared, dict) else {}


@lru_cache(maxsize=4096)
def _read_entry(schedule: str, zone: str) -> Timing | None:
    try:
        return make_entry_timing(schedule, zone)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _make_view(side: _Side, server_zone: str, now: datetime) -> TimesView:
    """Make the view of one side; many jobs share a few."""
    timing = side.timing
    per_day = count_per_day(timing, now=now) if side.active else 0.0
    woken = None
    entry = _read_entry(side.fires, server_zone) if side.fires and side.active else None
    if entry is not None and entry is not timing:
        fires = count_per_day(entry, now=now)
        woken = fires if fires > per_day * _MORE else None
    return TimesView(
        words=describe_timing(timing),
        zone=timing.zone,
        next_runs=find_runs(timing, after=now, count=_NEXT) if side.active and not timing.seconds else (),
        per_day=per_day,
        woken_per_day=woken,
        active=side.active,
        by_clock=not (timing.word or timing.seconds),
    )


def _find_turn(
    old: Timing, new: Timing, now: datetime
) -> tuple[datetime | None, tuple[datetime, ...], tuple[datetime, ...]]:
    """Find the last old run, those old runs that are left out, and the new one that repeats the last.

    Around the change the runs are the old ones up to now and the new ones from now on. A run comes twice
    where the step between the two is shorter than any step of either, and the day, week, month or year in
    which that happens has more runs than it has by either. Runs are left out where it has fewer, and old ones
    would come before the next new one. So a daily run that is put off by an hour is neither, while today's is
    still to come. A step of less than a quarter of the shortest, or of nearly two of the longest, is enough.
    """
    before, old_ahead = _list_around(old, now)
    new_before, ahead = _list_around(new, now)
    steps = [
        later - earlier
        for runs in ((*before, *old_ahead), (*new_before, *ahead))
        for earlier, later in pairwise(runs)
    ]
    # Before anybody has read of one that comes so often, other runs are the next ones.
    if not before or not ahead or max(steps, default=_OFTEN) <= _OFTEN:
        return None, (), ()
    step, shortest, longest = ahead[0] - before[-1], min(steps), max(steps)
    if step < shortest and (step * 4 < shortest or _compare_counts(old, new, now) > 0):
        return before[-1], (), ahead[:1]
    missing = find_runs_between(old, after=now, until=ahead[0] - _INSTANT)
    skipped = tuple(islice(missing, _MOST_SKIPPED))
    if skipped and (step * 4 > longest * 7 or _compare_counts(old, new, now) < 0):
        return before[-1], skipped, ()
    return None, (), ()


@lru_cache(maxsize=4096)
def _list_around(timing: Timing, now: datetime) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    """List some two dozen runs up to now, and as many from now on; both ascending.

    What did not come for longer than two dozen runs usually take has no last run that anybody would miss.
    """
    rate = count_per_day(timing, now=now) if not timing.seconds else 0
    before: tuple[datetime, ...] = ()
    if rate:
        before = tuple(find_runs_between(timing, after=now - _AROUND / rate * _DAY, until=now))
    return before, find_runs(timing, after=now, count=_AROUND)


def _compare_counts(old: Timing, new: Timing, now: datetime) -> int:
    """Tell whether the period around now has more runs (1) or fewer (-1) than it has by either timing."""
    if old.rule is None or new.rule is None:
        return 0
    start, end = _find_period(max(_measure_period(old.rule), _measure_period(new.rule)), now, new.zone)

    def count(timing: Timing, after: datetime, until: datetime) -> int:
        return sum(1 for _ in find_runs_between(timing, after=after - _INSTANT, until=until - _INSTANT))

    by_old, by_new = count(old, start, end), count(new, start, end)
    mixed = count(old, start, now + _INSTANT) + count(new, now + _INSTANT, end)
    return (mixed > max(by_old, by_new)) - (mixed < min(by_old, by_new))


def _measure_period(rule: LocalRule) -> int:
    """Say after what a rule begins anew: 0 is a day, 1 a week, 2 a month, 3 a year."""
    if len(rule.months) < 12:
        return 3
    if rule.nth or rule.last_day or len(rule.days) < 31:
        return 2
    return 1 if len(rule.weekdays) < 7 else 0


def _find_period(size: int, now: datetime, zone: str) -> tuple[datetime, datetime]:
    """Find begin and end of the day, week, month or year around now, by the clocks of a zone."""
    place = find_zone("UTC" if zone in UTC_NAMES else zone)
    midnight = now.astimezone(place).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    monday = midnight - midnight.weekday() * _DAY
    first = midnight.replace(day=1)
    start, end = (
        (midnight, midnight + _DAY),
        (monday, monday + 7 * _DAY),
        (first, (first + 31 * _DAY).replace(day=1)),
        (first.replace(month=1), first.replace(month=1, year=first.year + 1)),
    )[size]
    return start.replace(tzinfo=place).astimezone(UTC), end.replace(tzinfo=place).astimezone(UTC)


def _describe_fate(change: Change, facts: Facts) -> str:
    """Say what becomes of a run that goes on, as pg_cron 1.4 to 1.6 do."""
    if change.obstacle is not None or change.before is None:
        return ""
    declared = _read_document(change.before)
    if "handler" in declared:
        return "a worker goes on with it"
    if "pg_net" in facts.extensions and ("http" in declared or change.kind == "worker"):
        return "its request was sent and is not taken back"
    before = change.before.entry
    after = None if change.after is None else change.after.entry
    is_cut = before is not None and (
        (before.active and after is not None and not after.active)
        or bool(make_steps((change,), facts).unschedule)
    )
    if not is_cut:
        return "apply does not stop it: it goes on with what it began with"
    cut = "pg_cron ends it if its entry started it, and the log calls it lost"
    left = "its statement goes on to the end, though pg_cron calls it canceled"
    if facts.background_workers is None:
        return f"where jobs run in background workers, {cut}; elsewhere {left}"
    return cut if facts.background_workers else left
