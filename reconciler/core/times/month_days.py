"""The day of a month as people write it: `15`, `last`, `second tue`; pure."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from reconciler.core.specs import NthWeekday

MonthDay: TypeAlias = int | Literal["last"] | NthWeekday

DAY_NAMES: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
"""Full names of the days of the week, in the order of pg_cron's numbers."""

ORDINALS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1}
"""Which of the weekdays of a month, as `NthWeekday` counts them."""

_HOW: Final = "write a number from 1 to 31, last, or a weekday such as second tue or last fri"
_DAYS: Final = {name: number for number, day in enumerate(DAY_NAMES) for name in (day, day[:3])}
_WORDS: Final = {nth: word for word, nth in ORDINALS.items()}
_NTH: Final = re.compile(r"([A-Za-z]+|[0-7])(?:#([1-5])|L)", re.IGNORECASE)


def read_month_day(value: float | str) -> MonthDay:
    """Read the day of a month.

    Args:
        value: As it stands in a spec file. Words may have capitals, days their full names.

    Returns:
        The day.

    Raises:
        ValueError: There is no such day; the message says how one is written.
    """
    if not isinstance(value, str):
        if value != int(value) or not 1 <= value <= 31:
            raise ValueError(f"{value} is no day of a month: {_HOW}")
        return int(value)
    words = value.lower().split()
    if words == ["last"]:
        return "last"
    if len(words) == 2 and words[0] in ORDINALS and words[1] in _DAYS:
        return NthWeekday(weekday=_DAYS[words[1]], nth=ORDINALS[words[0]])
    raise ValueError(f"{value!r} is no day of a month: {_HOW}")


def render_month_day(day: MonthDay) -> int | str:
    """Render the day of a month in its one canonical form.

    Args:
        day: The day.

    Returns:
        A number, `last`, or two words such as `second tue`.
    """
    if isinstance(day, NthWeekday):
        return f"{_WORDS[day.nth]} {DAY_NAMES[day.weekday][:3]}"
    return day


def read_cron_weekday(text: str) -> str:
    """Read the weekday of a month as other schedulers than pg_cron write it in their last field.

    Args:
        text: The field, such as `mon#2` or `5L`; 0 and 7 are Sunday.

    Returns:
        What it is in a spec file, such as `second mon`; "" when it is none.
    """
    found = _NTH.fullmatch(text)
    if found is None:
        return ""
    name = found[1].lower()
    weekday = int(name) % 7 if name.isdigit() else _DAYS.get(name)
    if weekday is None:
        return ""
    return str(render_month_day(NthWeekday(weekday=weekday, nth=int(found[2] or -1))))
