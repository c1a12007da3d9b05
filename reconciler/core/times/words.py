"""Say in plain English when a timing comes; pure.

Two rules with the same words mean the same. Words say what is wanted, and leave pg_cron and the database out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from reconciler.core.times.clocks import find_zone, to_seconds
from reconciler.core.times.month_days import DAY_NAMES, ORDINALS
from reconciler.core.times.occurrences import UTC_NAMES, clock_of
from reconciler.core.times.rule_times import (
    count,
    describe_times,
    join_words,
    render_clock,
    spell_numbers,
    spell_ordinal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from reconciler.core.specs import Blackout
    from reconciler.core.times.local_rules import LocalRule
    from reconciler.core.times.timings import Timing

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NTH: Final = {nth: word for word, nth in ORDINALS.items()}
_UNITS: Final = (("week", 10_080), ("day", 1440), ("hour", 60), ("minute", 1))
_ALL_DAYS: Final = frozenset(range(1, 32))
_WHOLE: Final = (0, 1440)
_TURNS: Final = {"first": "the first time", "last": "the last time", "both": "both times"}
# What the clocks did earlier tells nothing of what they will do.
_RECENT: Final = datetime(2000, 1, 1, tzinfo=UTC)


def describe_timing(timing: Timing) -> str:
    """Say when a timing comes.

    Args:
        timing: Any.

    Returns:
        One clause without a full stop, such as `every Monday at 08:00 Europe/Oslo` or
        `every 5 minutes, not from 22:00 to 06:00 the next day`.
    """
    head, says_zone = _describe_head(timing)
    parts = [head]
    if timing.shift:
        parts.append(f"put off by {_spell_length(timing.shift)}")
    if timing.start_at is not None and timing.start_at != (timing.anchor if timing.interval else None):
        parts.append(f"from {describe_instant(timing.start_at, timing.zone)} on")
    if timing.end_at is not None:
        parts.append(f"until {describe_instant(timing.end_at, timing.zone)}")
    parts += [f"not {describe_window(window)}" for window in timing.blackout]
    text = ", ".join(parts)
    zone = timing.blackout_zone or timing.zone
    return text if not timing.blackout or (says_zone and zone == timing.zone) else f"{text} {zone}"


def describe_clock_changes(timing: Timing, *, since: datetime = _RECENT) -> str:
    """Say what a timing does where the clocks of its zone skip a time, or show it twice.

    Args:
        timing: Any.
        since: Earlier changes of the clocks do not count, aware.

    Returns:
        One clause; "" where neither can happen to it.
    """
    if timing.rule is None or _keeps_pace(timing):
        return ""
    try:
        clock = clock_of(timing.zone)
    except ValueError:
        return ""
    skipped = repeated = False
    for change, before, after in clock.steps():
        if change >= to_seconds(since):
            low, high = sorted((change + before, change + after))
            if next(timing.rule.find_walls(low, high), None) is not None:
                skipped, repeated = skipped or after > before, repeated or after < before
    what = "it" if len(timing.rule.times) == 1 else "a time of it"
    parts = []
    if skipped and timing.nonexistent == "next":
        parts.append(f"where the clocks skip {what}, at the first moment after")
    elif skipped:
        parts.append(f"where the clocks skip {what}, not at all")
    if repeated:
        parts.append(f"where {what} comes twice, {_TURNS[timing.ambiguous]}")
    return "; ".join(parts)


def describe_instant(at: datetime, zone: str) -> str:
    """Say when an instant is, by the clocks of a zone.

    Args:
        at: Aware.
        zone: A zone; UTC stands for one that is not known here.

    Returns:
        Date, time and offset, such as `2026-12-01 08:00+01:00` or `2026-12-01 07:00Z`.
    """
    fine = "seconds" if at.second else "minutes"
    try:
        local = at.astimezone(find_zone(zone if zone not in UTC_NAMES else "UTC"))
    except ValueError:
        local = at.astimezone(UTC)
    return local.replace(microsecond=0).isoformat(" ", fine).replace("+00:00", "Z")


def describe_window(window: Blackout) -> str:
    """Say when a blackout is.

    Args:
        window: The blackout.

    Returns:
        What follows after `not`, such as `from 22:00 to 06:00 the next day on Fridays`.
    """
    parts = []
    if (window.start, window.end) != _WHOLE:
        later = " the next day" if window.end <= window.start else ""
        parts.append(f"from {render_clock(window.start)} to {render_clock(window.end)}{later}")
    if window.days:
        parts.append(f"on {_name_days(frozenset(window.days), plural=True)}")
    if window.first is not None and window.first == window.last:
        parts.append(f"on {window.first}")
    elif window.first is not None:
        parts.append(f"from {window.first} " + (f"to {window.last}" if window.last else "on"))
    elif window.last is not None:
        parts.append(f"up to {window.last}")
    return " ".join(parts) or "at any time"


def describe_rule(rule: LocalRule) -> str:
    """Say when a rule comes, without its zone.

    Args:
        rule: Any.

    Returns:
        One clause; two rules with the same words mean the same.
    """
    times, is_clock = describe_times(rule)
    # "On the 13th or on Fridays at 08:00" leaves open what is at 08:00.
    leads = is_clock and not (
        rule.either or (rule.nth == 0 and len(rule.weekdays) < 7 and _looks_at_dates(rule))
    )
    days = _describe_days(rule, each=leads)
    return " ".join(filter(None, (days, times) if leads else (times, days)))


def _describe_head(timing: Timing) -> tuple[str, bool]:
    """Say the part that recurs, and whether that says the zone."""
    if timing.once is not None:
        return f"once, at {describe_instant(timing.once, timing.zone)}", True
    if timing.seconds:
        return f"every {count(timing.seconds, 'second')}", False
    if timing.interval:
        since = describe_instant(timing.anchor, timing.zone)
        counted = f" from {since} on" if timing.anchor == timing.start_at else f", counted from {since}"
        return f"every {_spell_interval(timing.interval)}{counted}", False
    if timing.rule is None:
        return "whenever pg_cron's launcher starts", False
    text = describe_rule(timing.rule)
    if _is_same_everywhere(timing):
        return text, False
    return f"{text}{'' if text[-1].isdigit() and ':' in text[-3:] else ','} {timing.zone}", True


def _is_same_everywhere(timing: Timing) -> bool:
    """Tell whether a rule comes at the same instants in its zone as in UTC."""
    rule = timing.rule
    if rule is None or not (rule.is_each_day and rule.is_hourly):
        return False
    return all(
        {(minute + ahead) % 60 for minute in rule.minutes} == rule.minutes
        for ahead in _list_parts(timing.zone)
    )


@lru_cache(maxsize=1024)
def _list_parts(zone: str) -> frozenset[int]:
    """List the minutes by which a zone's clocks are more than whole hours from UTC; any that is not known."""
    try:
        clock = clock_of(zone)
    except ValueError:
        return frozenset(range(60))
    recent = [clock.offset_at(to_seconds(_RECENT))]
    recent += [after for change, _, after in clock.steps() if change > to_seconds(_RECENT)]
    return frozenset(offset // 60 % 60 for offset in recent)


def _keeps_pace(timing: Timing) -> bool:
    """Tell whether it comes at the same pace whatever the clocks do."""
    return (timing.ambiguous, timing.nonexistent) == ("both", "skip") and _is_same_everywhere(timing)


def _describe_days(rule: LocalRule, *, each: bool) -> str:
    """Say the days of a rule; that it is each day only where a time of the day follows."""
    months = (
        join_words([_MONTHS[month - 1] for month in sorted(rule.months)]) if len(rule.months) < 12 else ""
    )
    by_number = _looks_at_dates(rule)
    if rule.nth or (len(rule.weekdays) < 7 and by_number):
        return _describe_both(rule, months, by_number=by_number)
    if by_number:
        return f"on {_describe_dates(rule, months or 'each month')}"
    if len(rule.weekdays) == 7:
        days = "every day" if each else ""
    elif each and len(rule.weekdays) == 1:
        days = f"every {_name_days(rule.weekdays)}"
    elif " to " in (days := _name_days(rule.weekdays, plural=True)):
        days = f"every day from {_name_days(rule.weekdays)}" if each else f"from {_name_days(rule.weekdays)}"
    else:
        days = f"on {days}"
    return " ".join(filter(None, (days, f"in {months}" if months else "")))


def _describe_both(rule: LocalRule, months: str, *, by_number: bool) -> str:
    """Say the days of a rule that looks at the day of the month and at the day of the week."""
    within = f", in {months}" if months else ""
    if rule.nth:
        names = [f"the {_NTH[rule.nth]} {_name_days(frozenset((day,)))}" for day in sorted(rule.weekdays)]
        only = f", but only on {_describe_dates(rule, 'the month')}" if by_number else ""
        return f"on {join_words(names)} of {months or 'each month'}{only}"
    dates = _describe_dates(rule, "the month")
    weekdays = _name_days(rule.weekdays, plural=True)
    if rule.either:
        return f"on {dates} or on {weekdays}{within}"
    return f"on {weekdays}, but only on {dates}{within}"


def _describe_dates(rule: LocalRule, months: str) -> str:
    if rule.last_day:
        return f"the last day of {months}"
    if len(rule.days) > 1:
        return f"{spell_numbers(rule.days, 'day')} of {months}"
    day = min(rule.days)
    return f"the {spell_ordinal(day)} of {months}" + (
        " that has it" if day > 28 and months == "each month" else ""
    )


def _name_days(days: frozenset[int], *, plural: bool = False) -> str:
    """Name days of the week, Sunday last."""
    ordered = sorted((day - 1) % 7 for day in days)
    names = [DAY_NAMES[(day + 1) % 7].capitalize() + ("s" if plural else "") for day in ordered]
    if len(names) > 2 and ordered[-1] - ordered[0] == len(names) - 1:
        return f"{names[0]} to {names[-1]}"
    return join_words(names)


def _looks_at_dates(rule: LocalRule) -> bool:
    return rule.last_day or rule.days != _ALL_DAYS


def _spell_interval(interval: timedelta) -> str:
    minutes = int(interval.total_seconds()) // 60
    unit, size = next((unit, size) for unit, size in _UNITS if minutes % size == 0)
    return unit if minutes == size else count(minutes // size, unit)


def _spell_length(length: timedelta) -> str:
    return join_words(list(_split_length(int(length.total_seconds()) // 60)))


def _split_length(minutes: int) -> Iterator[str]:
    for unit, size in _UNITS[1:]:
        number, minutes = divmod(minutes, size)
        if number:
            yield count(number, unit)
