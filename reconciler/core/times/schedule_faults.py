"""Say what is wrong with a schedule and how it is spelt right; called only for texts that are not sound.

Knows nothing of files and places: the caller puts `path:line:column` in front.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.core.times.cron_fields import (
    START_WORDS,
    WORDS,
    YEARLY_WORDS,
    Field,
    is_sound,
    possible_days,
    read_field,
    split_fields,
)
from reconciler.core.times.cron_grammar import FIELDS, LONGEST
from reconciler.core.times.dialects import describe_lack
from reconciler.core.times.field_faults import find_field_fault
from reconciler.core.times.month_days import read_cron_weekday

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.core.times.dialects import Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleProblem:
    """Why a schedule is refused.

    Attributes:
        reason: One clause for people, without a full stop.
        suggestion: The right spelling, itself free of problems; empty where there is none.
    """

    reason: str
    suggestion: str


_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | {"\u2217": "*"})
_WORD_FIXES: Final = {
    "@minutely": "* * * * *",
    "@every_minute": "* * * * *",
    "@boot": "@reboot",
    "@start": "@reboot",
}
_UNITS: Final = {
    "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day",
    "w": "week", "y": "year",
}  # fmt: skip
_LONE_UNITS: Final = {
    "minute": "* * * * *", "hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 0", "month": "0 0 1 * *",
    "year": "0 0 1 1 *",
}  # fmt: skip
_PLAIN_WORDS: Final = {
    "hourly": "hour", "daily": "day", "midnight": "day", "nightly": "day", "weekly": "week",
    "monthly": "month", "yearly": "year", "annually": "year",
}  # fmt: skip
_PERIOD: Final = re.compile(
    r"(?:@?every\s*([+-]?[0-9]{1,12})?|([+-]?[0-9]{1,12}))\s*"
    r"(s|sec|second|m|min|minute|h|hr|hour|d|day|w|week|month|y|year)s?",
    re.IGNORECASE,
)
_TIME: Final = re.compile(r"(?:daily\s+|at\s+)?([01]?[0-9]|2[0-3]):([0-5][0-9])", re.IGNORECASE)
_SIZES: Final = (("minute", "hour", 60), ("hour", "day", 24))
_GRAMMAR: Final = "a schedule is five fields (minute, hour, day of month, month, day of week)"


def diagnose(text: str, dialect: Dialect) -> ScheduleProblem:
    """Explain a schedule that is not sound.

    Args:
        text: A schedule for which `is_sound` is False.
        dialect: What the target's pg_cron reads.

    Returns:
        The first fault, and a right spelling of the whole text if one is known.
    """
    reason, mended = _examine(text, dialect)
    return ScheduleProblem(reason=reason, suggestion=mended if is_sound(mended, dialect) else "")


def _examine(text: str, dialect: Dialect) -> tuple[str, str]:
    checks: Sequence[Callable[[str, Dialect], tuple[str, str] | None]] = (
        _examine_text,
        _examine_blanks,
        _examine_word,
        _examine_phrase,
    )
    for check in checks:
        if fault := check(text, dialect):
            return fault
    return _examine_fields(split_fields(text), dialect)


def _mend(text: str, dialect: Dialect) -> str:
    return text if is_sound(text, dialect) else _examine(text, dialect)[1]


def _examine_text(text: str, dialect: Dialect) -> tuple[str, str] | None:
    if len(text.encode("utf-8", "replace")) > LONGEST:
        return f"it is longer than the {LONGEST} bytes that pg_cron reads", ""
    strange = next((char for char in text if not " " <= char <= "~" and char not in "\t\n\v\f\r"), None)
    if strange is None:
        return None
    name = unicodedata.name(strange, "a control character" if ord(strange) < 128 else "an unnamed character")
    reason = f"it holds U+{ord(strange):04X} ({name}), and schedules are plain ASCII"
    plain = unicodedata.normalize("NFKC", text).translate(_DASHES)
    return reason, _mend(plain, dialect) if plain != text and plain.isascii() else ""


def _examine_blanks(text: str, dialect: Dialect) -> tuple[str, str] | None:
    lines = [line.strip() for line in text.splitlines()]
    rest = " ".join(line for line in lines if line and not line.startswith("#"))
    if not rest:
        return "it is empty" if not any(lines) else "it is only a comment", ""
    if lines[0].startswith("#"):
        return "it begins with a comment, and a schedule is one line without comments", _mend(rest, dialect)
    if len(text.splitlines()) > 1 or "\n" in text:
        return "it holds a line break, and a schedule is one line", _mend(rest, dialect)
    if text != text.strip():
        return "it has blanks before or after it", _mend(rest, dialect)
    return None


def _examine_word(text: str, dialect: Dialect) -> tuple[str, str] | None:
    if not text.startswith("@"):
        return None
    if text in YEARLY_WORDS:
        return f"pg_cron 1.6.0 and later take {text} and never run it", WORDS[text]
    first, *more = text.split()
    lowered = first.lower()
    known = lowered in WORDS or lowered in START_WORDS
    if known and more:
        return f"pg_cron reads {first} and ignores the text after it", _mend(lowered, dialect)
    if known:
        return f"words are written in small letters, {lowered}", _mend(lowered, dialect)
    if _PERIOD.fullmatch(text):
        return None
    candidate = _WORD_FIXES.get(lowered, "@" + "".join(text[1:].split()).lower())
    words = ", ".join(sorted({*WORDS, *START_WORDS} - (set() if dialect.yearly_runs else YEARLY_WORDS)))
    if candidate in YEARLY_WORDS:
        candidate = WORDS[candidate]
    return f"pg_cron has no word {first}; it has {words}", candidate


def _examine_phrase(text: str, dialect: Dialect) -> tuple[str, str] | None:
    lowered = text.lower()
    if lowered in {"now", "once"}:
        return f"{text!r} is no schedule: pg_cron has only repeated runs", ""
    if unit := _PLAIN_WORDS.get(lowered):
        return f"{text!r} is no schedule: {_GRAMMAR}", _LONE_UNITS[unit]
    if found := _TIME.fullmatch(text):
        return f"{text!r} is a time, no schedule: {_GRAMMAR}", f"{int(found[2])} {int(found[1])} * * *"
    if found := _PERIOD.fullmatch(text):
        name = found[3].lower()
        return _examine_period(text, int(found[1] or found[2] or 1), _UNITS.get(name, name), dialect)
    return None


def _examine_period(text: str, count: int, unit: str, dialect: Dialect) -> tuple[str, str]:
    if unit == "second" and 1 <= count <= 59:
        spelling = f"{count} second{'' if count == 1 else 's'}"
        if not dialect.seconds:
            lack = describe_lack("an interval in seconds", "1.5", dialect)
            return f"{lack} and runs once a minute at the most", "* * * * *"
        return f"an interval is a plain number from 1 to 59 and `seconds`, not {text!r}", spelling
    if unit == "second":
        reason = f"{text!r} is no interval for pg_cron, which takes 1 to 59 seconds; longer needs five fields"
        return reason, _spell_period(count // 60, "minute") if count % 60 == 0 else ""
    return f"{text!r} is no schedule: pg_cron has intervals only in seconds", _spell_period(count, unit)


def _spell_period(count: int, unit: str) -> str:
    for small, large, size in _SIZES:
        if unit == small and count >= size and count % size == 0:
            count, unit = count // size, large
    if count == 1:
        return _LONE_UNITS[unit]
    if unit == "minute" and count > 0 and 60 % count == 0:
        return f"*/{count} * * * *"
    if unit == "hour" and count > 0 and 24 % count == 0:
        return f"0 */{count} * * *"
    if unit == "day" and count == 7:
        return _LONE_UNITS["week"]
    return ""


def _examine_fields(fields: list[str], dialect: Dialect) -> tuple[str, str]:
    if len(fields) == 5:
        return _examine_five(fields, dialect)
    shown = f"it has {len(fields)} field{'' if len(fields) == 1 else 's'}"
    if len(fields) > 5:
        joined = re.sub(r"[ \t]*([,/-])[ \t]*", r"\1", " ".join(fields))
        if len(split_fields(joined)) == 5:
            return f"{shown}: no blanks may stand around a comma, dash or slash", _mend(joined, dialect)
        reason = f"{shown}, and pg_cron ignores all after the fifth: there are no seconds and no years"
        return reason, _mend_many(fields, dialect)
    return f"{shown}, and {_GRAMMAR}", ""


def _mend_many(fields: list[str], dialect: Dialect) -> str:
    """Take away years at the end and seconds at the start, as other schedulers have them."""
    if re.match(r"[0-9]{4}", fields[-1]) or (len(fields) == 7 and fields[-1] == "*"):
        fields = fields[:-1]
    first, *rest = fields
    if len(fields) == 6:
        step = re.fullmatch(r"\*/([1-9][0-9]?)", first)
        if step and rest == ["*"] * 5:
            return _mend(f"{step[1]} seconds", dialect)
        fields = rest if first.strip("0") == "" or first == "*" else fields
    return _mend(" ".join(fields), dialect) if len(fields) == 5 else ""


def _examine_five(fields: list[str], dialect: Dialect) -> tuple[str, str]:
    reasons: list[str] = []
    mended: list[str] = []
    for kind, field in zip(FIELDS, fields, strict=True):
        fault = find_field_fault(kind, field, dialect)
        mended.append(field if fault is None else fault.mended)
        if fault is not None:
            reasons.append(f"{kind.title} {field!r}: {fault.reason}")
    if reasons:
        minutes = re.fullmatch(r"\*/([0-9]{2,4})", fields[0])
        if minutes and int(minutes[1]) > 60 and fields[1] == "*":
            mended[:2] = _spell_period(int(minutes[1]), "minute").split()[:2]
        return reasons[0] + _suggest_monthly(fields, dialect), " ".join(mended)
    return _examine_date(fields, dialect)


def _suggest_monthly(fields: list[str], dialect: Dialect) -> str:
    """Name the trigger of a job that means what pg_cron has no spelling for."""
    minute, hour, day, month, weekday = fields
    if month != "*" or not is_sound(f"{minute} {hour} * * *", dialect) or not (minute + hour).isdigit():
        return ""
    nth = read_cron_weekday(weekday) if day in {"*", "?"} else ""
    if weekday in {"*", "?"} and day in {"$", "L", "l"} and not dialect.last_day:
        nth = "last"
    at = f"{int(hour):02d}:{int(minute):02d}"
    return f'; a job can have `monthly: {{day: {nth}, at: "{at}"}}` instead' if nth else ""


def _examine_date(fields: list[str], dialect: Dialect) -> tuple[str, str]:
    day, month = (
        read_field(kind, field) or Field(frozenset())
        for kind, field in zip(FIELDS[2:4], fields[2:4], strict=True)
    )
    if possible_days(day, month):
        reason = "it needs both the day of month and the day of week, as one of them begins with `*`"
        return f"{reason}, and years pass between such days", ""
    mended = [*fields[:2], "$" if len(day.values) == 1 and dialect.last_day else fields[2], *fields[3:]]
    return f"day of month {fields[2]!r} never comes in month {fields[3]!r}", " ".join(mended)
