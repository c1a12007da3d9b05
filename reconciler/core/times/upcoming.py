"""Find the runs to come of a whole timetable, in the order of time; pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from itertools import count as count_up
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reconciler.core.times.occurrences import find_runs, find_runs_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from reconciler.core.times.timetable import Scheduled
    from reconciler.core.times.timings import Timing

Why: TypeAlias = Literal["inactive", "paused", "ended", "no_entry", "start", "later"]
"""Why something has no run: switched off; paused; over; without an entry on this target; started by pg_cron's
launcher and by no clock; not within this time."""

COUNTED: Final = 100_000
"""How many runs beyond those that are listed are counted at the most."""

_OFTEN: Final = timedelta(minutes=5)
_HOUR: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Something that does not run, or not at first.

    Attributes:
        scheduled: What it is.
        why: Why not.
        runs_at: When it runs next all the same, aware; None for never, or where nobody looked.
    """

    scheduled: Scheduled
    why: Why
    runs_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """What is to come in a stretch of time.

    Attributes:
        runs: The first instants, each with what runs then.
        more: How many there are besides, `COUNTED` for as many or more; 0 where nobody counted.
        frequent: What comes every five minutes or oftener and is not listed.
        idle: What does not run.
    """

    runs: tuple[tuple[datetime, Scheduled], ...] = ()
    more: int = 0
    frequent: tuple[Scheduled, ...] = ()
    idle: tuple[Idle, ...] = ()


def find_upcoming(
    table: Iterable[Scheduled],
    *,
    now: datetime,
    end: datetime,
    count: int,
    counts_more: bool = True,
    lists_all: bool = False,
) -> Upcoming:
    """Find the runs of a stretch of time.

    Args:
        table: What may run.
        now: Where it begins, aware; runs are later than it.
        end: The last instant that counts.
        count: How many runs are wanted.
        counts_more: Whether those beyond are counted.
        lists_all: Whether what comes that often is listed too, and what has no run is said to have none.

    Returns:
        The runs, and what does not run.

    Raises:
        ValueError: A zone is unknown on this machine.
    """
    idle: list[Idle] = []
    frequent: list[Scheduled] = []
    alike: defaultdict[tuple[Timing, datetime], list[Scheduled]] = defaultdict(list)
    for each in table:
        why = _find_why(each, now)
        since = now
        if why == "paused" and each.paused_until is not None and each.paused_until <= end:
            since = max(now, each.paused_until - _SECOND)
            idle.append(Idle(scheduled=each, why=why))
        elif why:
            idle.append(Idle(scheduled=each, why=why))
            continue
        elif lists_all and not any(find_runs_between(each.timing, after=now, until=end)):
            later = next(iter(find_runs(each.timing, after=end, count=1)), None)
            idle.append(Idle(scheduled=each, why="later" if later else "ended", runs_at=later))
            continue
        if not lists_all and is_frequent(each.timing):
            frequent.append(each)
        else:
            alike[each.timing, since].append(each)
    tickets = count_up()
    merged = heapq.merge(
        *(_list_runs(timing, since, end, group, tickets) for (timing, since), group in alike.items())
    )
    runs = tuple((at, each) for at, _, _, each in islice(merged, count))
    more = sum(1 for _ in islice(merged, COUNTED)) if counts_more else 0
    return Upcoming(runs=runs, more=more, frequent=tuple(frequent), idle=tuple(idle))


def is_frequent(timing: Timing) -> bool:
    """Tell whether something comes every five minutes or oftener, at least in some hours."""
    if timing.rule is not None:
        return len(timing.rule.minutes) >= _HOUR // _OFTEN
    return timing.seconds > 0 or timedelta(0) < timing.interval <= _OFTEN


def _list_runs(
    timing: Timing, since: datetime, end: datetime, group: list[Scheduled], tickets: Iterator[int]
) -> Iterator[tuple[datetime, str, int, Scheduled]]:
    """List the runs of all that have one timing; the tickets decide between equal names."""
    ordered = [(each.name, next(tickets), each) for each in sorted(group, key=lambda each: each.name)]
    for at in find_runs_between(timing, after=since, until=end):
        for name, ticket, each in ordered:
            yield at, name, ticket, each


def _find_why(each: Scheduled, now: datetime) -> Why | None:
    timing = each.timing
    if not each.active:
        return "inactive"
    # A start at the end itself is too late, a single one at this moment is past.
    if any(last is not None and last <= now for last in (timing.end_at, timing.once)):
        return "ended"
    if not each.schedule and timing.once is None:
        return "no_entry"
    if timing.word:
        return "start"
    return "paused" if each.paused else None
