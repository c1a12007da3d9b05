"""The day of a month as people write it."""

from __future__ import annotations

import pytest

from reconciler.core.specs import NthWeekday
from reconciler.core.times.month_days import (
    DAY_NAMES,
    ORDINALS,
    MonthDay,
    read_cron_weekday,
    read_month_day,
    render_month_day,
)

_EACH: list[MonthDay] = [
    *range(1, 32),
    "last",
    *(NthWeekday(weekday=weekday, nth=nth) for weekday in range(7) for nth in (1, 2, 3, 4, 5, -1)),
]


@pytest.mark.parametrize("day", _EACH)
def test_each_day_has_one_spelling_that_is_read_again(day: MonthDay) -> None:
    """Numbers, the last day and every weekday."""
    assert read_month_day(render_month_day(day)) == day


@pytest.mark.parametrize("ordinal", ORDINALS)
@pytest.mark.parametrize("name", DAY_NAMES)
def test_full_names_and_capitals_are_read(ordinal: str, name: str) -> None:
    """They mean the same day as three small letters."""
    day = read_month_day(f"{ordinal.title()}   {name.upper()}")
    assert day == read_month_day(f"{ordinal} {name[:3]}")
    assert render_month_day(day) == f"{ordinal} {name[:3]}"


@pytest.mark.parametrize(
    "value",
    [
        0, 32, -1, 1.5, "", "15", "first", "mon", "1st mon", "sixth mon", "first mo", "first tues",
        "first mon tue", "mon first", "last day", "lastfri", "mon#2",
    ],
)  # fmt: skip
def test_what_is_no_day_is_refused_with_how_one_is_written(value: float | str) -> None:
    """There is one spelling for each."""
    with pytest.raises(
        ValueError, match="is no day of a month: write a number from 1 to 31, last, or a weekday"
    ):
        read_month_day(value)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("mon#2", "second mon"), ("1#2", "second mon"), ("MON#5", "fifth mon"), ("monday#1", "first mon"),
        ("7#1", "first sun"), ("0#1", "first sun"), ("5L", "last fri"), ("fril", "last fri"),
        ("L", ""), ("8#1", ""), ("mo#1", ""), ("mon#6", ""), ("mon#0", ""), ("mon", ""), ("1#1L", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_other_schedulers_weekdays_of_a_month_are_recognised(text: str, day: str) -> None:
    """So that people can be told the right spelling."""
    assert read_cron_weekday(text) == day
