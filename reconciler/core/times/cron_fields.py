"""Read schedules as people mean them, strictly; what pg_cron takes but reads otherwise is no schedule here.

Knows nothing of versions except through `Dialect`, and nothing of what to tell people.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler.core.times.cron_grammar import DAY, FIELDS, LONGEST, MONTH, WEEKDAY, FieldKind

if TYPE_CHECKING:
    from reconciler.core.times.dialects import Dialect

WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""The words that stand for five fields."""
START_WORDS: Final = frozenset(("@reboot", "@restart"))
"""The words for one run each time pg_cron's launcher starts."""
YEARLY_WORDS: Final = frozenset(("@yearly", "@annually"))

BLANKS: Final = re.compile(r"[ \t]+")
INTERVAL: Final = re.compile(r"(0*[1-9]|0*[1-5][0-9])[ \t]*seconds?", re.ASCII | re.IGNORECASE)
_ELEMENT: Final = re.compile(r"(?:\*|([0-9]+|[A-Za-z]{3})(?:-([0-9]+|[A-Za-z]{3}))?)(?:/([0-9]+))?")


class Field(NamedTuple):
    """What one field says.

    Attributes:
        values: The values that fit; Sunday is 0. Empty for `$`.
        starred: The text begins with `*`, which decides how the two day fields combine.
        last_day: The field is `$`.
    """

    values: frozenset[int]
    starred: bool = False
    last_day: bool = False


@lru_cache(maxsize=4096)
def read_field(kind: FieldKind, text: str) -> Field | None:
    """Read one field.

    Args:
        kind: Which of the five fields.
        text: Its text, without blanks.

    Returns:
        What it says; None where some pg_cron refuses it, or reads it otherwise than people do.
    """
    if text == "$" and kind is DAY:
        return Field(frozenset(), last_day=True)
    values: set[int] = set()
    for part in text.split(","):
        read = read_element(kind, part)
        if read is None:
            return None
        values.update(read)
    if kind is WEEKDAY and 7 in values:
        values = values - {7} | {0}
    return Field(frozenset(values), starred=text.startswith("*"))


def read_element(kind: FieldKind, text: str) -> range | None:
    """Read one element of a field's list.

    Args:
        kind: Which of the five fields.
        text: `*`, `5`, `mon`, `1-5`, with a step or without.

    Returns:
        Its values, with Sunday as 0 or 7; None where it is not sound.
    """
    found = _ELEMENT.fullmatch(text)
    if found is None:
        return None
    first, last, step = found.groups()
    if first is None:
        start, stop = kind.low, kind.high
    else:
        start = read_value(kind, first)
        stop = start if last is None else read_value(kind, last)
    bare_step = step is not None and first is not None and last is None
    if bare_step or not kind.low <= start <= stop <= kind.high:
        return None
    width = 1 if step is None else int(step)
    return range(start, stop + 1, width) if 1 <= width <= kind.high else None


def read_value(kind: FieldKind, text: str) -> int:
    """Read one number or name.

    Args:
        kind: Which of the five fields.
        text: ASCII letters or digits.

    Returns:
        The value, which can lie outside of the field; -1 for a name that the field does not have.
    """
    if text.isdigit():
        return int(text)
    name = text.lower()
    return kind.names.index(name) + kind.low if name in kind.names else -1


def split_fields(text: str) -> list[str]:
    """Split a schedule at its blanks.

    Args:
        text: The schedule.

    Returns:
        The fields; a blank at the start or the end gives an empty one.
    """
    fields = text.split(" ")
    return fields if len(fields) == 5 and "\t" not in text else BLANKS.split(text)


def is_sound(text: str, dialect: Dialect) -> bool:
    """Tell whether pg_cron takes the text and means by it what people do.

    Args:
        text: A schedule.
        dialect: What the target's pg_cron reads.

    Returns:
        True where nothing is to be said against it.
    """
    if len(text) > LONGEST:
        return False
    fields = split_fields(text)
    if len(fields) == 5:
        read = tuple(map(read_field, FIELDS, fields))
        return (
            None not in read
            and (fields[2] != "$" or dialect.last_day)
            and (fields[3] == "*" == fields[4] or fields[2] == "*" or days_occur(*read[2:]))
        )
    if text.startswith("@"):
        return text in START_WORDS or (text in WORDS and (dialect.yearly_runs or text not in YEARLY_WORDS))
    return dialect.seconds and INTERVAL.fullmatch(text) is not None


def possible_days(day: Field, month: Field) -> frozenset[tuple[int, int]]:
    """Give the dates that the day of month can fall on, leap years included.

    Args:
        day: The field day of month.
        month: The field month.

    Returns:
        Pairs of month and day.
    """
    longest = {number: monthrange(2000, number)[1] for number in month.values}
    if day.last_day:
        return frozenset(longest.items())
    return frozenset(
        (number, value) for number, last in longest.items() for value in day.values if value <= last
    )


@lru_cache(maxsize=1024)
def days_occur(day: Field, month: Field, weekday: Field) -> bool:
    """Tell whether the three day fields meet often enough to be meant.

    pg_cron runs where day of month *or* day of week fits, but needs both where one of them begins with `*`
    (`0 0 */2 * 1` is Mondays on odd days). The Gregorian calendar repeats after 400 years.

    Args:
        day: The field day of month.
        month: The field month.
        weekday: The field day of week.

    Returns:
        True where the day of month exists and no eight years pass without a day that fits.
    """
    if not possible_days(day, month):
        return False
    if not (day.starred or weekday.starred) or len(weekday.values) == 7:
        return True
    years = [year for year in range(2000, 2408) if _meets(year, day, month, weekday)]
    return all(later - year < 8 for year, later in zip((2000, *years), (*years, 2407), strict=True))


def _meets(year: int, day: Field, month: Field, weekday: Field) -> bool:
    for number in month.values:
        last = monthrange(year, number)[1]
        for value in (last,) if day.last_day else day.values:
            if value <= last and date(year, number, value).isoweekday() % 7 in weekday.values:
                return True
    return False


__all__ = [
    "BLANKS",
    "DAY",
    "FIELDS",
    "INTERVAL",
    "MONTH",
    "START_WORDS",
    "WEEKDAY",
    "WORDS",
    "YEARLY_WORDS",
    "Field",
    "FieldKind",
    "days_occur",
    "is_sound",
    "possible_days",
    "read_element",
    "read_field",
    "read_value",
    "split_fields",
]
