"""Say what other crons mean by a text that pg_cron refuses or misreads, and what does the same here; pure.

Other crons are those that croniter reads: seconds as a first or a last field, `L`, `#`, `?`, `W`, `H`, ranges
that wrap around. Whether something here does the same is not guessed but tried, run by run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from croniter import CroniterError, croniter

from reconciler.core.canonical import render_canonical
from reconciler.core.declared_times import read_timing
from reconciler.core.specs import NthWeekday
from reconciler.core.times.cron_fields import is_sound
from reconciler.core.times.cron_grammar import WEEKDAYS
from reconciler.core.times.dialects import ANY_DIALECT
from reconciler.core.times.local_rules import render_values
from reconciler.core.times.month_days import render_month_day
from reconciler.core.times.occurrences import find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRIED: Final = 50
"""How many runs are compared."""

_LONGEST: Final = 200
_YEARS: Final = 12
_MINUTE: Final = timedelta(minutes=1)
_LAST_WEEKDAY: Final = re.compile(r"\b([0-7]|sun|mon|tue|wed|thu|fri|sat)l(?=,|$)", re.IGNORECASE)
_HASHED: Final = re.compile(r"\b[hr]\b|\br\(|\bh\(", re.IGNORECASE)
_NUMBERED_DAY: Final = re.compile(r"(?<![#\d])[0-7](?!\d)")
_SPREADS: Final[dict[str, dict[str, Any]]] = {
    "h * * * *": {"every": "1h", "spread": "1h"},
    "h h * * *": {"daily": "00:00", "spread": "24h"},
}
_HOURLY_SPREAD: Final = re.compile(r"h (\d|1\d|2[0-3]) \* \* \*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignReading:
    """What some other cron means by a text.

    Attributes:
        how: In which way it is read, such as `with seconds first`; "" for five fields.
        runs: The next ones there, in UTC as if its clocks showed UTC.
        declared: The keys of a job here that do the same; empty where nothing does.
        is_proven: Whether the next `TRIED` runs of both are the same; else they come at other minutes.
        remark: What else there is to know; "" for nothing.
    """

    how: str
    runs: tuple[datetime, ...]
    declared: Mapping[str, Any] = field(default_factory=dict)
    is_proven: bool = False
    remark: str = ""


def read_foreign(text: str, *, after: datetime, count: int) -> tuple[ForeignReading, ...]:
    """Read a text as other crons do.

    Args:
        text: A schedule.
        after: An aware instant; runs are later than it.
        count: How many runs are wanted, at most `TRIED`.

    Returns:
        Each way in which it can be read, without those that come to the same; none for what no other reads.
    """
    plain = " ".join(text.split())
    if len(plain) > _LONGEST or not plain.isascii():
        return ()
    if _HASHED.search(plain):
        return _read_hashed(plain, after=after, count=count)
    width = len(plain.split(" "))
    ways = {
        5: ("",),
        6: ("with seconds first", "with seconds last"),
        7: ("with seconds first and years last",),
    }
    if plain.startswith("@"):
        ways = {1: ("",)}
    found: list[ForeignReading] = []
    for how in ways.get(width, ()):
        runs, cron = _read(plain, after, TRIED, seconds_first="first" in how)
        if cron is not None and runs and not any(each.runs == runs for each in found):
            found.append(_make_reading(how, plain, runs, cron, after))
    return tuple(replace(each, runs=each.runs[:count]) for each in found)


def _read(
    text: str, after: datetime, count: int, *, seconds_first: bool, hash_id: str | None = None
) -> tuple[tuple[datetime, ...], croniter[datetime] | None]:
    """Give the runs of a text, and croniter's own reading; none where it cannot read it, or never comes."""
    start = after.astimezone(UTC)
    try:
        cron = croniter(
            _LAST_WEEKDAY.sub(_swap, text),
            start,
            datetime,
            max_years_between_matches=_YEARS,
            hash_id=hash_id,
            second_at_beginning=seconds_first,
        )
        return tuple(islice(cron.all_next(datetime), count)), cron
    except (CroniterError, ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return (), None


def _swap(found: re.Match[str]) -> str:
    """Write `5L` and `friL` as croniter does."""
    day = found[1].lower()
    return f"L{WEEKDAYS.index(day) if day in WEEKDAYS else day}"


def _make_reading(
    how: str, text: str, runs: tuple[datetime, ...], cron: croniter[datetime], after: datetime
) -> ForeignReading:
    remark = ""
    last = text.split(" ")[5:6] if "first" in how else []
    if last and _NUMBERED_DAY.search(last[0]):
        remark = "Quartz counts days of the week from 1 for Sunday: there a number means the day before"
    for declared in _list_candidates(cron):
        if _comes_alike(declared, runs, after):
            return ForeignReading(how=how, runs=runs, declared=declared, is_proven=True, remark=remark)
    return ForeignReading(how=how, runs=runs, remark=remark)


def _list_candidates(cron: croniter[datetime]) -> Iterator[dict[str, Any]]:
    """Yield keys of a job that may do the same, the plainest first."""
    fields: list[set[int | str]] = [set(values) for values in cron.expanded]
    minutes, hours, days, months, weekdays = fields[:5]
    seconds = fields[5] if len(fields) > 5 else {0}
    if len(fields) > 6 and fields[6] != {"*"}:
        return
    if seconds != {0}:
        if all(values == {"*"} for values in fields[:5]):
            yield {"every": f"{60 // (60 if '*' in seconds else len(seconds))}s"}
        return
    nth: dict[int, set[Any]] = cron.nth_weekday_of_month  # type: ignore[assignment] # the stubs say str
    if len(minutes) == len(hours) == 1 and "*" not in minutes | hours:
        at = f"{int(min(hours)):02d}:{int(min(minutes)):02d}"
        # Where there is one, croniter leaves the day of the month out.
        for weekday, which in nth.items() if days == months == {"*"} else ():
            for number in which:
                day = NthWeekday(weekday=weekday, nth=-1 if number == "l" else number)
                yield {"monthly": {"day": render_month_day(day), "at": at}}
        if days == {"l"}:
            yield {"monthly": {"day": "last", "at": at}}
        if days == months == weekdays == {"*"}:
            yield {"daily": at}
    if not nth and ("l" not in days or len(days) == 1):
        yield {"schedule": " ".join(_spell_fields(minutes, hours, days, months, weekdays))}


def _spell_fields(*fields: set[int | str]) -> Iterator[str]:
    """Spell fields in pg_cron's grammar."""
    for (low, high), values in zip(((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)), fields, strict=True):
        if "*" in values:
            yield "*"
        elif values == {"l"}:
            yield "$"
        else:
            yield render_values(frozenset(map(int, values)), low, high, stepped=high in {59, 23})


def _comes_alike(declared: Mapping[str, Any], runs: tuple[datetime, ...], after: datetime) -> bool:
    """Tell whether a job comes at the same instants, by trying."""
    text = declared.get("schedule")
    timing = read_timing(render_canonical(declared), "", name="", kind="job", server_zone="UTC")
    if timing is None or (text is not None and not is_sound(text, ANY_DIALECT)):
        return False
    # An interval of seconds counts from its last start, here from a full minute.
    start = after.replace(second=0, microsecond=0) - _MINUTE if timing.seconds else after
    ours = find_runs(timing, after=start, count=TRIED + 120 // (timing.seconds or 120))
    return tuple(run for run in ours if run > after)[:TRIED] == runs


def _read_hashed(text: str, *, after: datetime, count: int) -> tuple[ForeignReading, ...]:
    """Read a text in which the name of the job picks a value: `spread` does so here, at other minutes."""
    runs, _ = _read(text, after, count, seconds_first=False, hash_id="a job")
    if not runs:
        return ()
    hourly = _HOURLY_SPREAD.fullmatch(text)
    declared = _SPREADS.get(text.lower(), {})
    if hourly:
        declared = {"daily": f"{int(hourly[1]):02d}:00", "spread": "1h"}
    remark = "H and R are values that the name of the job or chance picks; these are those of a name"
    return (ForeignReading(how="", runs=runs, declared=declared, remark=remark),)
