from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout
from reconciler.core.times.local_rules import LocalRule, parse_rule
from reconciler.core.times.timings import Timing, make_entry_timing
from reconciler.core.times.words import (
    describe_clock_changes,
    describe_instant,
    describe_rule,
    describe_timing,
)

_OSLO = "Europe/Oslo"
_START = datetime(2026, 12, 1, 7, tzinfo=UTC)
_UNHURRIED = settings(deadline=None, database=None, max_examples=150)


def _local(schedule: str, **fields: Any) -> Timing:
    """Make the timing of a local time with the usual choices."""
    return Timing(
        **{"zone": _OSLO, "rule": parse_rule(schedule), "ambiguous": "first", "nonexistent": "next", **fields}
    )


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("@hourly", "every hour"),
        ("7 * * * *", "at minute 7 of every hour"),
        ("7,37 * * * *", "at minutes 7 and 37 of every hour"),
        ("*/7 * * * *", "at every 7th minute from 0 to 56 of every hour"),
        ("0-10,30 * * * *", "at minutes 0 to 10 and 30 of every hour"),
        ("*/22 * * * *", "at minutes 0, 22 and 44 of every hour"),
        ("*/5 * * 12 *", "every 5 minutes in December, Europe/Oslo"),
        ("*/5 8-17 * * *", "every 5 minutes from 08:00 to 17:55 Europe/Oslo"),
        ("*/5 8-17 * * 1-5", "every 5 minutes from 08:00 to 17:55 from Monday to Friday, Europe/Oslo"),
        ("*/5 * * * 1", "every 5 minutes on Mondays, Europe/Oslo"),
        ("15 8-17 * * *", "every hour from 08:15 to 17:15 Europe/Oslo"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00 Europe/Oslo"),
        ("0 1,4,9,13 * * *", "every day at 01:00, 04:00, 09:00 and 13:00 Europe/Oslo"),
        ("5 1,4,9,13-18 * * *", "at minute 5 past hours 1, 4, 9 and 13 to 18, Europe/Oslo"),
        ("* 3 * * *", "every minute from 03:00 to 03:59 Europe/Oslo"),
        ("* 3,5 * * *", "every minute of hours 3 and 5, Europe/Oslo"),
        ("7,37 8-17 * * *", "at minutes 7 and 37 past hours 8 to 17, Europe/Oslo"),
        ("30 2 * * *", "every day at 02:30 Europe/Oslo"),
        ("0 6,18 * * *", "every day at 06:00 and 18:00 Europe/Oslo"),
        ("0 8 * * 1", "every Monday at 08:00 Europe/Oslo"),
        ("0 8 * * 7,6", "on Saturdays and Sundays at 08:00 Europe/Oslo"),
        ("0 8 * * 1-5", "every day from Monday to Friday at 08:00 Europe/Oslo"),
        ("0 8 * * 5-7", "every day from Friday to Sunday at 08:00 Europe/Oslo"),
        ("0 8 * * 0,1,3", "on Mondays, Wednesdays and Sundays at 08:00 Europe/Oslo"),
        ("0 8 * 3 1", "every Monday in March at 08:00 Europe/Oslo"),
        ("0 8 * 6-8 *", "every day in June, July and August at 08:00 Europe/Oslo"),
        ("0 6 1 * *", "on the 1st of each month at 06:00 Europe/Oslo"),
        ("0 6 2,3 * *", "on days 2 and 3 of each month at 06:00 Europe/Oslo"),
        ("0 6 22 * *", "on the 22nd of each month at 06:00 Europe/Oslo"),
        ("0 6 13 * *", "on the 13th of each month at 06:00 Europe/Oslo"),
        ("0 6 31 * *", "on the 31st of each month that has it at 06:00 Europe/Oslo"),
        ("0 6 29 2 *", "on the 29th of February at 06:00 Europe/Oslo"),
        ("@yearly", "on the 1st of January at 00:00 Europe/Oslo"),
        ("30 2 $ * *", "on the last day of each month at 02:30 Europe/Oslo"),
        ("0 8 * * 1#2", "on the second Monday of each month at 08:00 Europe/Oslo"),
        ("0 8 * 3,6 5L", "on the last Friday of March and June at 08:00 Europe/Oslo"),
        (
            "0 8 1-3 * 5L",
            "on the last Friday of each month, but only on days 1 to 3 of the month at 08:00 Europe/Oslo",
        ),
        ("0 0 13 * 5", "at 00:00 on the 13th of the month or on Fridays, Europe/Oslo"),
        (
            "0 0 */2 * 1",
            "at 00:00 on Mondays, but only on every 2nd day from 1 to 31 of the month, Europe/Oslo",
        ),
        (
            "0 0 1 * */2",
            (
                "at 00:00 on Tuesdays, Thursdays, Saturdays and Sundays, "
                "but only on the 1st of the month, Europe/Oslo"
            ),
        ),
        ("0 0 $ 3 1", "at 00:00 on the last day of the month or on Mondays, in March, Europe/Oslo"),
        (
            "7,37 8-17 1-7 3 1",
            (
                "at minutes 7 and 37 past hours 8 to 17 on days 1 to 7 of the month or on Mondays, "
                "in March, Europe/Oslo"
            ),
        ),
        ("30 seconds", "every 30 seconds"),
        ("1 second", "every 1 second"),
        ("@reboot", "whenever pg_cron's launcher starts"),
    ],
)
def test_schedules_are_said_in_words(schedule: str, words: str) -> None:
    """As a person would say them, with the zone where it matters."""
    assert describe_timing(make_entry_timing(schedule, _OSLO)) == words


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [
        ("0 * * * *", "Asia/Kolkata", "every hour, Asia/Kolkata"),
        ("*/15 * * * *", "Asia/Kolkata", "every 15 minutes"),
        ("0 * * * *", "GMT", "every hour"),
        ("0 * * * *", "Mars/Olympus", "every hour, Mars/Olympus"),
        ("0 8 * * *", "GMT", "every day at 08:00 GMT"),
    ],
)
def test_the_zone_is_said_where_it_matters(schedule: str, zone: str, words: str) -> None:
    """A pace is the same in every zone whose clocks are whole hours from UTC, or as much as the pace."""
    assert describe_timing(make_entry_timing(schedule, zone)) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"interval": timedelta(minutes=7)}, "every 7 minutes, counted from 1970-01-01 00:00Z"),
        (
            {"interval": timedelta(minutes=90), "anchor": _START},
            "every 90 minutes, counted from 2026-12-01 07:00Z",
        ),
        (
            {"interval": timedelta(days=14), "anchor": _START, "start_at": _START},
            "every 2 weeks from 2026-12-01 07:00Z on",
        ),
        ({"interval": timedelta(days=1), "anchor": _START}, "every day, counted from 2026-12-01 07:00Z"),
        ({"interval": timedelta(hours=36)}, "every 36 hours, counted from 1970-01-01 00:00Z"),
        ({"once": _START}, "once, at 2026-12-01 07:00Z"),
        ({"once": _START.replace(second=5)}, "once, at 2026-12-01 07:00:05Z"),
    ],
)
def test_what_is_no_rule_is_said_too(fields: dict[str, Any], words: str) -> None:
    """Intervals with where they count from, single moments."""
    assert describe_timing(Timing(zone="GMT", **fields)) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shift": timedelta(minutes=7)}, "put off by 7 minutes"),
        ({"shift": timedelta(minutes=61)}, "put off by 1 hour and 1 minute"),
        ({"start_at": _START}, "from 2026-12-01 08:00+01:00 on"),
        ({"end_at": _START}, "until 2026-12-01 08:00+01:00"),
        ({"blackout": (Blackout(start=720, end=780),)}, "not from 12:00 to 13:00"),
        ({"blackout": (Blackout(start=1320, end=360),)}, "not from 22:00 to 06:00 the next day"),
        (
            {"blackout": (Blackout(start=1320, end=360, days=(5,)),)},
            "not from 22:00 to 06:00 the next day on Fridays",
        ),
        ({"blackout": (Blackout(days=(0, 6)),)}, "not on Saturdays and Sundays"),
        (
            {"blackout": (Blackout(first=date(2026, 12, 24), last=date(2026, 12, 26)),)},
            "not from 2026-12-24 to 2026-12-26",
        ),
        (
            {"blackout": (Blackout(first=date(2026, 12, 24), last=date(2026, 12, 24), end=720),)},
            "not from 00:00 to 12:00 on 2026-12-24",
        ),
        ({"blackout": (Blackout(first=date(2026, 12, 24)),)}, "not from 2026-12-24 on"),
        ({"blackout": (Blackout(last=date(2026, 12, 24)),)}, "not up to 2026-12-24"),
        ({"blackout": (Blackout(),)}, "not at any time"),
    ],
)
def test_what_leaves_runs_out_or_moves_them_is_said_after(fields: dict[str, Any], words: str) -> None:
    """Spread, window and blackouts follow the rule, in the job's own zone."""
    assert describe_timing(_local("0 8 * * *", **fields)) == f"every day at 08:00 Europe/Oslo, {words}"


def test_the_zone_of_a_blackout_is_said_once() -> None:
    """At the end, where the rule has no need of a zone."""
    timing = _local("*/5 * * * *", blackout=(Blackout(start=0, end=60),))
    assert describe_timing(timing) == "every 5 minutes, not from 00:00 to 01:00 Europe/Oslo"
    timing = replace(timing, zone="GMT", blackout_zone=_OSLO)
    assert describe_timing(timing) == "every 5 minutes, not from 00:00 to 01:00 Europe/Oslo"
    timing = replace(timing, rule=parse_rule("0 */6 * * *"))
    assert describe_timing(timing) == (
        "every 6 hours from 00:00 to 18:00 GMT, not from 00:00 to 01:00 Europe/Oslo"
    )


def test_an_instant_in_an_unknown_zone_is_said_in_utc() -> None:
    """The server may know zones that this machine does not."""
    assert describe_instant(_START, "Mars/Olympus") == "2026-12-01 07:00Z"


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (
            _local("30 2 * * *"),
            "where the clocks skip it, at the first moment after; where it comes twice, the first time",
        ),
        (
            _local("30 2 * * *", nonexistent="skip", ambiguous="last"),
            "where the clocks skip it, not at all; where it comes twice, the last time",
        ),
        (
            make_entry_timing("0 2,12 * * *", _OSLO),
            "where the clocks skip a time of it, not at all; where a time of it comes twice, both times",
        ),
        (_local("0 8 * * *"), ""),
        (_local("30 2 * * *", zone="Asia/Kolkata"), ""),
        (_local("30 2 * * *", zone="Mars/Olympus"), ""),
        (
            _local("30 0 * * *", zone="America/Sao_Paulo"),
            ("where the clocks skip it, at the first moment after"),
        ),
        (make_entry_timing("* * * * *", _OSLO), ""),
        (make_entry_timing("30 2 * * 1-5", _OSLO), ""),
        (make_entry_timing("30 seconds", _OSLO), ""),
        (
            _local("0 * * * *"),
            (
                "where the clocks skip a time of it, at the first moment after; "
                "where a time of it comes twice, the first time"
            ),
        ),
        (
            make_entry_timing("0 * * * 0", _OSLO),
            "where the clocks skip a time of it, not at all; where a time of it comes twice, both times",
        ),
    ],
)
def test_what_happens_when_the_clocks_are_set_is_said_where_it_can_happen(timing: Timing, words: str) -> None:
    """Nothing is said of times and days that no change touches, and of what keeps its pace."""
    assert describe_clock_changes(timing) == words


def test_changes_of_the_past_do_not_count() -> None:
    """Sao Paulo has set its clocks for the last time in 2019."""
    timing = _local("30 0 * * *", zone="America/Sao_Paulo")
    assert describe_clock_changes(timing, since=datetime(2026, 1, 1, tzinfo=UTC)) == ""


# --- no two meanings in the same words ---


def _mean(rule: LocalRule) -> tuple[object, ...]:
    """Give what a rule comes to: its times, and its days in each of the fourteen kinds of years."""
    days = tuple(rule._find_days(year, month) for year in range(2000, 2028) for month in range(1, 13))
    return rule.minutes, rule.hours, days


def _choose(chance: Random, low: int, high: int) -> str:
    """Make a field out of few forms, so that two rules are often nearly the same."""
    first, last = sorted((chance.randint(low, high), chance.randint(low, high)))
    step = chance.choice((1, 2, 2, 3, 5))
    forms = (
        "*",
        str(first),
        f"{first},{last}",
        f"{first}-{last}",
        f"{first}-{last}/{step}",
        f"*/{step}",
        f"{low}",
    )
    return chance.choice(forms)


def _make_rule(chance: Random) -> LocalRule:
    day = chance.choice(("*", "*", "$", _choose(chance, 1, 31)))
    weekday = chance.choice(("*", "*", _choose(chance, 0, 6)))
    if chance.random() < 0.1:
        day, weekday = chance.choice(("*", "1-7")), chance.choice(("1#2", "1#1", "5L", "1#5", "0#1"))
    month = chance.choice(("*", "*", "*", _choose(chance, 1, 12)))
    return parse_rule(f"{_choose(chance, 0, 59)} {_choose(chance, 0, 23)} {day} {month} {weekday}")


def test_two_meanings_never_have_the_same_words() -> None:
    """Of thousands of rules, those with the same words come at the same times on the same days."""
    chance = Random(2026)
    said: dict[str, tuple[object, ...]] = {}
    for _ in range(4000):
        rule = _make_rule(chance)
        words = describe_rule(rule)
        meaning = _mean(rule)
        assert said.setdefault(words, meaning) == meaning, words
    assert len(said) > 2000


_SETS = st.sets(st.integers(0, 11), min_size=1)
_TIMES = st.builds(
    lambda minutes, hours, wide, far: LocalRule(
        minutes=frozenset(each * wide for each in minutes), hours=frozenset(each * far for each in hours)
    ),
    _SETS,
    _SETS,
    st.sampled_from((5, 1)),
    st.sampled_from((2, 1)),
)


@_UNHURRIED
@given(_TIMES, _TIMES)
def test_sets_of_times_have_words_of_their_own(one: LocalRule, two: LocalRule) -> None:
    """Drawn as pairs: equal words are equal times."""
    assert (describe_rule(one) == describe_rule(two)) == (one == two)
