"""Rules of local time: read, spelt, and followed on the calendar."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.schedules import ANY_DIALECT, find_problem
from reconciler.core.specs import Daily, Monthly, NthWeekday, Trigger, Weekly
from reconciler.core.times.cron_fields import WORDS
from reconciler.core.times.local_rules import LocalRule, make_rule, parse_rule, render_rule, render_values
from tests.schedule_texts import sound_text

_UNHURRIED = settings(deadline=None, database=None)
_DAY = 86_400


def _own_text(chance: Random) -> str:
    """Make a rule as only ours can be."""
    minute, hour, _, month, _ = sound_text(chance).split()
    weekday = f"{chance.randint(0, 6)}{chance.choice(('#1', '#2', '#3', '#4', '#5', 'L'))}"
    return f"{minute} {hour} * {month} {weekday}"


def _starred_text(chance: Random) -> str:
    """Make a rule whose two day fields both count."""
    minute, hour, _, month, _ = sound_text(chance).split()
    day = ",".join((f"*/{chance.randint(2, 31)}", str(chance.randint(1, 31))))
    weekday = ",".join((f"*/{chance.randint(2, 7)}", str(chance.randint(1, 6))))
    days = (
        (day, str(chance.randint(1, 6))),
        (f"{chance.randint(2, 31)}", weekday),
        ("$", weekday),
        (day, weekday),
    )
    return f"{minute} {hour} {chance.choice(days)[0]} {month} {chance.choice(days)[1]}"


def _texts(*kinds: object) -> st.SearchStrategy[str]:
    def make(seed: int) -> str:
        chance = Random(seed)
        text: str = chance.choice(kinds)(chance)  # type: ignore[operator]
        return text

    return st.integers(0, 2**64 - 1).map(make)


_TEXTS = _texts(sound_text, _own_text, _starred_text)


def _wants(text: str, day: date) -> bool:
    """Tell whether a rule wants a day, from its text and the calendar alone."""
    _, _, days, months, weekdays = WORDS.get(text, text).split()
    last = monthrange(day.year, day.month)[1]
    if weekdays[-1] == "L":
        by_weekday, weekdays = day.day > last - 7, weekdays[:-1]
    elif "#" in weekdays:
        weekdays, nth = weekdays.split("#")
        by_weekday = (day.day + 6) // 7 == int(nth)
    else:
        by_weekday = True
    on = day.isoweekday() % 7
    by_weekday = by_weekday and any(on == value % 7 for value in _values(weekdays, 0, 7))
    by_day = day.day == last if days == "$" else day.day in _values(days, 1, 31)
    both = days[0] == "*" or weekdays[0] == "*"
    return day.month in _values(months, 1, 12) and (by_day and by_weekday if both else by_day or by_weekday)


_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def _values(field: str, low: int, high: int) -> set[int]:
    def number(text: str) -> int:
        if text.isdigit():
            return int(text)
        return _DAYS.index(text.lower()) if high == 7 else _NAMES.index(text.lower()) + 1

    found: set[int] = set()
    for part in field.split(","):
        ends, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if ends == "*" else ends).partition("-")
        found |= set(range(number(first), number(last or first) + 1, int(step or 1)))
    return found


@settings(_UNHURRIED, max_examples=300)
@given(_TEXTS, st.dates(date(1990, 1, 1), date(2090, 1, 1)))
def test_walls_are_the_times_that_the_text_says(text: str, start: date) -> None:
    """On each day of two months the rule has the times of its fields, or none."""
    rule = parse_rule(text)
    minute, hour, *_ = text.split()
    times = sorted(
        hours * 3600 + minutes * 60 for hours in _values(hour, 0, 23) for minutes in _values(minute, 0, 59)
    )
    first = (start - date(1970, 1, 1)).days
    low, high = first * _DAY + times[len(times) // 2] + 1, (first + 61) * _DAY + times[-1]
    expected = [
        wall
        for day in range(first, first + 62)
        if _wants(text, date.fromordinal(date(1970, 1, 1).toordinal() + day))
        for time in times
        if low <= (wall := day * _DAY + time) < high
    ]
    assert list(rule.find_walls(low, high)) == expected
    if expected:
        assert list(islice(rule.find_walls(expected[0], None), 5)) == list(
            islice(rule.find_walls(low, None), 5)
        )
    assert rule.times == tuple(times)


@settings(_UNHURRIED, max_examples=1500)
@given(_TEXTS)
def test_a_rule_that_is_spelt_is_read_as_the_same_rule(text: str) -> None:
    """And where it is no form of our own, pg_cron takes the spelling, unless it does not take the text."""
    rule = parse_rule(text)
    spelt = render_rule(rule)
    assert parse_rule(spelt) == rule
    assert render_rule(parse_rule(spelt)) == spelt
    if not rule.nth and find_problem(text, ANY_DIALECT) is None:
        assert find_problem(spelt, ANY_DIALECT) is None


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("@weekly", "0 0 * * 0"),
        ("30 2 * * *", "30 2 * * *"),
        ("0,1,2,5,7,8 0-23 * JAN,mar *", "0-2,5,7,8 * * 1,3 *"),
        ("*/5 */12 * * 0,3-6", "*/5 */12 * * 0,3-6"),
        ("0-55/5 0 * * *", "*/5 0 * * *"),
        ("0,30 0,23 * * *", "*/30 0,23 * * *"),
        ("0 8 $ * *", "0 8 $ * *"),
        ("0 8 * * 1#2", "0 8 * * 1#2"),
        ("0 8 * * 5L", "0 8 * * 5L"),
        ("0 8 13 * 5#2", "0 8 13 * 5#2"),
        ("0 8 13 * 5", "0 8 13 * 5"),
        ("0 8 1-31 * 5", "0 8 * * *"),
        ("0 8 5 2 0-6", "0 8 * 2 *"),
        ("0 8 $ 2 0-6", "0 8 * 2 *"),
        ("0 8 */2 * 1", "0 8 */2 * 1"),
        ("0 8 */31,15 * 1", "0 8 */31,15 * 1"),
        ("0 8 15 * */7", "0 8 15 * */7"),
        ("0 8 15 * */7,1,2", "0 8 15 * */7,1,2"),
        ("0 8 $ * */2", "0 8 $ * */2"),
        ("0 8 * * 1-5", "0 8 * * 1-5"),
        ("* * * * *", "* * * * *"),
    ],
)
def test_rules_are_spelt_shortly(text: str, spelt: str) -> None:
    """Steps and ranges where they fit; a star in a day field only where both fields count."""
    assert render_rule(parse_rule(text)) == spelt


def test_ranges_need_three_values() -> None:
    """Two neighbours are shorter as a list."""
    assert render_values(frozenset((1, 2, 4, 5, 6)), 0, 59) == "1,2,4-6"


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "x * * * *", "@yearl", "@reboot", "30 seconds",
     "0 0 * * 7#1", "0 0 * * 1#6", "0 0 * * L", "0 * * 1#2"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    """With its text, or the field."""
    with pytest.raises(ValueError, match=r"cannot be read|no rule of five fields"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("trigger", "spelt"),
    [
        (Daily(hour=2, minute=30), "30 2 * * *"),
        (Weekly(days=(0, 3), hour=3, minute=0), "0 3 * * 0,3"),
        (Monthly(day=15, hour=4, minute=5), "5 4 15 * *"),
        (Monthly(day="last", hour=4, minute=5), "5 4 $ * *"),
        (Monthly(day=NthWeekday(weekday=1, nth=2), hour=4, minute=5), "5 4 * * 1#2"),
        (Monthly(day=NthWeekday(weekday=5, nth=-1), hour=4, minute=5), "5 4 * * 5L"),
    ],
)
def test_triggers_with_times_of_the_day_have_a_rule(trigger: Trigger, spelt: str) -> None:
    """The same as its text has."""
    assert isinstance(trigger, Daily | Weekly | Monthly)
    rule = make_rule(trigger)
    assert render_rule(rule) == spelt
    assert parse_rule(spelt) == rule


@pytest.mark.parametrize(
    ("text", "hourly", "daily"),
    [
        ("5 * * * *", True, True),
        ("5 0-22 * * *", False, True),
        ("* * * * 1", True, False),
        ("0 0 1 * *", False, False),
        ("0 0 * 2 *", False, False),
        ("0 0 $ * *", False, False),
        ("0 0 * * 0#1", False, False),
    ],
)
def test_a_rule_knows_its_pace(text: str, hourly: bool, daily: bool) -> None:
    """Whether no hour, and whether no day is left out."""
    rule = parse_rule(text)
    assert (rule.is_hourly, rule.is_each_day) == (hourly, daily)


def test_what_never_comes_ends() -> None:
    """After nine years without a day, and before Python's years end."""
    never = LocalRule(
        minutes=frozenset((0,)), hours=frozenset((0,)), days=frozenset((30,)), months=frozenset((2,))
    )
    assert list(never.find_walls(0, None)) == []
    late = int(datetime(9998, 12, 30, tzinfo=UTC).timestamp())
    assert len(list(parse_rule("0 0 * * *").find_walls(late, None))) == 2
    assert list(parse_rule("0 0 * * *").find_walls(late + 10 * _DAY, None)) == []
