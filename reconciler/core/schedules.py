"""Judge schedules as pg_cron does, and say when they run; knows no database, no file and no clock.

Three questions: does that pg_cron take the text (`accepts`), does it mean what a person reads in it
(`find_problem`), and when does it run (`next_runs`). Whoever has a text from a person asks `find_problem`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Final, cast
from zoneinfo import ZoneInfo

from reconciler.core.cron_fields import (
    INTERVAL,
    START_WORDS,
    WORDS,
    Field,
    is_sound,
    read_field,
    split_fields,
)
from reconciler.core.cron_grammar import FIELDS, accepts
from reconciler.core.dialects import ANY_DIALECT, Dialect, dialect_for, parse_version
from reconciler.core.schedule_faults import ScheduleProblem, diagnose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from croniter import croniter

__all__ = [
    "ANY_DIALECT",
    "Dialect",
    "ScheduleProblem",
    "accepts",
    "dialect_for",
    "find_problem",
    "next_runs",
    "parse_version",
]

# Zones have set their clocks back by three hours at the most since 1970; a time in that stretch comes twice.
_TURNED_BACK: Final = timedelta(hours=3)
_SIZES: Final = (60, 24, 31, 12, 7)


def find_problem(text: str, dialect: Dialect) -> ScheduleProblem | None:
    """Find out why a schedule should not be given to pg_cron.

    Refuses what the target refuses, and what it takes but reads otherwise than people do: a sixth field, text
    after a value, ranges that run backwards, dates that never come, `@yearly` from 1.6.0 on. Day of month and
    day of week follow pg_cron's own rule and are not refused for it: `0 0 13 * 5` runs on the 13th *or* on
    Fridays, but `0 0 */2 * 1`, where one of the two begins with `*`, on Mondays that are odd days.

    Args:
        text: The schedule as a person wrote it.
        dialect: What the target's pg_cron reads, or `ANY_DIALECT`.

    Returns:
        The problem with its right spelling, or None: the text is taken, means what it looks like, and comes
        at least once in eight years.
    """
    return None if is_sound(text, dialect) else diagnose(text, dialect)


def next_runs(
    text: str, *, after: datetime, count: int, zone: tzinfo | str, dialect: Dialect
) -> tuple[datetime, ...]:
    """Say when a schedule runs next.

    pg_cron has no rule for daylight saving: it turns each minute of UTC into the zone's time and compares. So
    a time that the clocks skip does not run on that day, and a time that comes twice runs twice.

    Args:
        text: A schedule without problems.
        after: An aware instant; runs are later than it.
        count: How many runs are wanted.
        zone: The target's `cron.timezone` (GMT before pg_cron 1.5), as a zone or its name.
        dialect: What the target's pg_cron reads.

    Returns:
        The next `count` instants in that zone. For an interval (`30 seconds`) they count from `after`, but
        pg_cron counts from the last start. Empty for `@reboot` and `@restart`, which no clock decides.

    Raises:
        ValueError: The schedule has a problem, `after` is naive, or there is no such zone.
    """
    problem = find_problem(text, dialect)
    if problem is not None:
        message = f"no runs for the schedule {text!r}: {problem.reason}"
        raise ValueError(message)
    if after.tzinfo is None:
        raise ValueError("`after` needs a time zone")
    place = _find_zone(zone)
    interval = INTERVAL.fullmatch(text)
    if interval:
        step = timedelta(seconds=int(interval[1]))
        start = after.astimezone(UTC)
        return tuple((start + step * number).astimezone(place) for number in range(1, count + 1))
    if text in START_WORDS:
        return ()
    runs = _follow(WORDS.get(text, text), after.astimezone(UTC), place)
    return tuple(run.astimezone(place) for run in islice(runs, max(count, 0)))


def _find_zone(zone: tzinfo | str) -> tzinfo:
    if not isinstance(zone, str):
        return zone
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        message = f"there is no time zone {zone!r}"
        raise ValueError(message) from error


def _follow(text: str, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Yield the instants of a five-field schedule in UTC, in order, for ever."""
    pending: list[datetime] = []
    clock = _make_clock(text, after.astimezone(zone).replace(tzinfo=None) - _rewind(after, zone))
    while True:
        wall = clock.get_next(datetime)
        first, second = (_to_instant(wall, zone, fold) for fold in (0, 1))
        if first is None:
            continue
        while pending and pending[0] < first:
            yield from _later(pending.pop(0), after)
        yield from _later(first, after)
        if second is not None and second != first:
            pending.append(second)


def _later(run: datetime, after: datetime) -> Iterator[datetime]:
    if run > after:
        yield run


def _rewind(after: datetime, zone: tzinfo) -> timedelta:
    day = timedelta(days=1)
    offsets = {(after + shift).astimezone(zone).utcoffset() for shift in (-day, timedelta(0), day)}
    return timedelta(0) if len(offsets) == 1 else _TURNED_BACK


def _to_instant(wall: datetime, zone: tzinfo, fold: int) -> datetime | None:
    """Give the instant at which the zone's clocks show a time; None for a time that they skip."""
    instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return instant if instant.astimezone(zone).replace(tzinfo=None) == wall else None


def _make_clock(text: str, start: datetime) -> croniter:
    """Make the croniter of the times on the zone's clocks.

    It is given plain numbers and how pg_cron joins the two day fields, never the text: croniter 7.0.0
    reads the range `8-8` as any value.
    """
    from croniter import croniter  # noqa: PLC0415 - slow to import, and few commands ask for times

    read = [
        cast("Field", read_field(kind, field)) for kind, field in zip(FIELDS, split_fields(text), strict=True)
    ]
    spelt = [_spell(field, size) for field, size in zip(read, _SIZES, strict=True)]
    day, weekday = read[2], read[4]
    either = not day.starred and not weekday.starred
    if either and "*" in (spelt[2], spelt[4]):
        spelt[2] = spelt[4] = "*"
    return croniter(" ".join(spelt), start, day_or=either)


def _spell(field: Field, size: int) -> str:
    if field.last_day:
        return "L"
    return "*" if len(field.values) == size else ",".join(map(str, sorted(field.values)))
