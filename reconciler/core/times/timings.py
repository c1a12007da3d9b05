"""When a job runs as people mean it: a rule or an interval, its zone, window and blackouts; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal

from reconciler.core.specs import Every, JobSpec, Once, Schedule, Succeeded, WorkerSpec
from reconciler.core.times.cron_fields import INTERVAL, START_WORDS
from reconciler.core.times.local_rules import LocalRule, make_rule, parse_rule

if TYPE_CHECKING:
    from reconciler.core.specs import Blackout

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_ALL_HOURS: Final = frozenset(range(24))
_ALL_MINUTES: Final = frozenset(range(60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a job runs. Exactly one of rule, interval, seconds, once and word is given.

    Attributes:
        zone: In which the rule is meant.
        rule: Local times.
        interval: Whole minutes between two runs, counted from `anchor`; nothing for none.
        anchor: Where the interval counts from, aware.
        seconds: pg_cron's own interval of 1 to 59 seconds, which counts from the last start; 0 for none.
        once: The one instant, aware.
        word: `@reboot` or `@restart`, which no clock decides; "" for none.
        text: The schedule as it was declared in pg_cron's grammar; "" for another trigger.
        ambiguous: Which run of a local time that comes twice is wanted.
        nonexistent: What becomes of a local time that the clocks skip: a run at the first moment after it, or
            none.
        shift: How much later each run is than the rule or the interval says.
        start_at: No run before, aware; None for no limit.
        end_at: No run then or later, aware; None for no limit.
        blackout: Windows without runs.
        blackout_zone: In which these are meant; "" for that of the rule.
    """

    zone: str
    rule: LocalRule | None = None
    interval: timedelta = timedelta(0)
    anchor: datetime = _EPOCH
    seconds: int = 0
    once: datetime | None = None
    word: str = ""
    text: str = ""
    ambiguous: Literal["first", "last", "both"] = "both"
    nonexistent: Literal["next", "skip"] = "skip"
    shift: timedelta = timedelta(0)
    start_at: datetime | None = None
    end_at: datetime | None = None
    blackout: tuple[Blackout, ...] = ()
    blackout_zone: str = ""

    @property
    def has_limits(self) -> bool:
        """Whether a window or a blackout leaves runs out."""
        return self.start_at is not None or self.end_at is not None or bool(self.blackout)


def make_timing(spec: JobSpec | WorkerSpec, server_zone: str) -> Timing | None:
    """Make the timing of a job or a worker.

    Args:
        spec: Whose schedule has no problems.
        server_zone: In which pg_cron reads schedules.

    Returns:
        The timing; None for a job whose only trigger is that others succeeded.

    Raises:
        ValueError: A schedule cannot be read.
    """
    if isinstance(spec, WorkerSpec):
        return make_entry_timing(spec.schedule, server_zone)
    trigger = spec.trigger
    if isinstance(trigger, Succeeded):
        return None
    zone = spec.timezone or server_zone
    if isinstance(trigger, Once):
        return Timing(zone=zone, once=trigger.at)
    # Spelt out, since dataclasses.replace takes three times as long and there can be many jobs.
    rule, interval, anchor, seconds, word, text = None, timedelta(0), _EPOCH, 0, "", ""
    ambiguous, nonexistent = spec.ambiguous, spec.nonexistent
    if isinstance(trigger, Schedule):
        text = trigger.text
        seconds, word = _read_odd(text)
        rule = None if seconds or word else parse_rule(text)
        if not (spec.timezone or ambiguous or nonexistent):
            ambiguous, nonexistent = "both", "skip"
    elif isinstance(trigger, Every):
        if trigger.interval < _MINUTE:
            seconds = trigger.interval // timedelta(seconds=1)
        elif spec.start_at is None and divides_evenly(trigger.interval):
            rule = make_even_rule(trigger.interval)
            zone = server_zone
            ambiguous, nonexistent = "both", "skip"
        else:
            interval, anchor = trigger.interval, spec.start_at or _EPOCH
    else:
        rule = make_rule(trigger)
    keeps_pace = rule is None or rule.is_hourly
    return Timing(
        zone=zone,
        rule=rule,
        interval=interval,
        anchor=anchor,
        seconds=seconds,
        word=word,
        text=text,
        ambiguous=ambiguous or ("both" if keeps_pace else "first"),
        nonexistent=nonexistent or ("skip" if keeps_pace else "next"),
        shift=find_shift(spec.name, spec.spread),
        start_at=spec.start_at,
        end_at=spec.end_at,
        blackout=spec.blackout,
        blackout_zone=spec.timezone if spec.timezone != zone else "",
    )


def make_entry_timing(schedule: str, zone: str) -> Timing:
    """Make the timing of an entry, as pg_cron reads it.

    Args:
        schedule: Without problems.
        zone: In which pg_cron reads schedules.

    Returns:
        The timing.

    Raises:
        ValueError: The schedule cannot be read.
    """
    seconds, word = _read_odd(schedule)
    rule = None if seconds or word else parse_rule(schedule)
    return Timing(zone=zone, rule=rule, seconds=seconds, word=word, text=schedule)


def _read_odd(schedule: str) -> tuple[int, str]:
    if schedule in START_WORDS:
        return 0, schedule
    found = INTERVAL.fullmatch(schedule)
    return (int(found[1]), "") if found else (0, "")


def divides_evenly(interval: timedelta) -> bool:
    """Tell whether an interval of minutes fits evenly into an hour or a day, so that five fields say it."""
    if interval % _MINUTE or not interval:
        return False
    return not _HOUR % interval or not (interval % _HOUR or _DAY % interval)


def make_even_rule(interval: timedelta) -> LocalRule:
    """Make the rule of an interval that fits evenly into an hour or a day: it counts from their beginning."""
    if interval <= _HOUR:
        return LocalRule(minutes=frozenset(range(0, 60, interval // _MINUTE)), hours=_ALL_HOURS)
    return LocalRule(minutes=frozenset((0,)), hours=frozenset(range(0, 24, interval // _HOUR)))


def find_shift(name: str, spread: timedelta) -> timedelta:
    """Find the part of a spread by which a job is put off.

    Args:
        name: Of the job: it alone decides, so that the offset is the same everywhere and always.
        spread: Whole minutes; nothing for none.

    Returns:
        Whole minutes, less than the spread.
    """
    minutes = spread // _MINUTE
    if not minutes:
        return timedelta(0)
    return int.from_bytes(sha256(name.encode()).digest()[:8]) % minutes * _MINUTE
