"""Judge schedules as pg_cron does, and say when they run; knows no database, no file and no clock.

Three questions: does that pg_cron take the text (`accepts`), does it mean what a person reads in it
(`find_problem`), and when does it run (`next_runs`). Whoever has a text from a person asks `find_problem`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.times.clocks import find_zone
from reconciler.core.times.cron_fields import is_sound
from reconciler.core.times.cron_grammar import accepts
from reconciler.core.times.dialects import ANY_DIALECT, Dialect, dialect_for, parse_version
from reconciler.core.times.occurrences import find_runs
from reconciler.core.times.schedule_faults import ScheduleProblem, diagnose
from reconciler.core.times.timings import make_entry_timing

if TYPE_CHECKING:
    from datetime import datetime

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


def next_runs(text: str, *, after: datetime, count: int, zone: str, dialect: Dialect) -> tuple[datetime, ...]:
    """Say when a schedule runs next.

    pg_cron has no rule for daylight saving: it turns each minute of UTC into the zone's time and compares. So
    a time that the clocks skip does not run on that day, and a time that comes twice runs twice.

    Args:
        text: A schedule without problems.
        after: An aware instant; runs are later than it.
        count: How many runs are wanted.
        zone: The target's `cron.timezone`, GMT before pg_cron 1.5.
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
    place = find_zone(zone)
    runs = find_runs(make_entry_timing(text, zone), after=after, count=count)
    return tuple(run.astimezone(place) for run in runs)
