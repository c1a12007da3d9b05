from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.core.specs import Blackout
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.occurrences import find_runs_between
from reconciler.core.times.run_rates import count_per_day, means_same
from reconciler.core.times.timings import Timing

_NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)  # a Saturday
_EVENING = Blackout(start=20 * 60, end=8 * 60)
_WEEKEND = Blackout(days=(0, 6))


def _timing(rule: str = "", **fields: Any) -> Timing:
    return Timing(**{"zone": "GMT", "rule": parse_rule(rule) if rule else None, **fields})


def _interval(minutes: int, **fields: Any) -> Timing:
    return _timing(interval=timedelta(minutes=minutes), **fields)


@pytest.mark.parametrize(
    ("timing", "rate"),
    [
        (_timing("*/5 * * * *"), 288),
        (_timing("0 8 * * *", zone="Europe/Oslo", shift=timedelta(minutes=7)), 1),
        (_timing("0,30 8-10 * * 1-5"), 6 * 5 / 7),
        (_timing("0 0 1 * *"), 12 / 365.25),
        (_timing("0 0 29 2 *"), 1 / 1461),
        (_timing("0 0 * * 1#5"), 117 / (28 * 365.25)),
        (_interval(90), 16),
        (_timing(seconds=30), 2880),
        (_timing(once=_NOW), 0),
        (_timing(word="@reboot"), 0),
        # A window leaves its pace, while there is one.
        (_timing("0 8 * * *", start_at=_NOW + timedelta(days=300)), 1),
        (_timing("0 8 * * *", end_at=_NOW + timedelta(days=300)), 1),
        (_timing("0 8 * * *", end_at=_NOW), 0),
        (_timing("0 8 * * *", end_at=_NOW, blackout=(_EVENING,)), 0),
        (_timing("0 * * * *", start_at=_NOW + timedelta(days=300), blackout=(_EVENING,)), 12),
        # Blackouts take their part of it.
        (_timing("0 * * * *", blackout=(_EVENING,)), 12),
        (_timing("0 * * * *", blackout=(_EVENING, _WEEKEND)), 12 * 5 / 7),
        (_timing(seconds=30, blackout=(_EVENING,)), 1440),
        (_interval(90, blackout=(_EVENING,)), 8),
        (_timing("0 8 1 * *", blackout=(_WEEKEND,)), 10 / 366),
        (_timing("0 2 * * *", blackout=(_EVENING,)), 0),
        (_timing("0 * * * *", blackout=(Blackout(last=_NOW.date() + timedelta(days=99)),)), 0),
    ],
)
def test_runs_on_a_usual_day_are_counted(timing: Timing, rate: float) -> None:
    """By the calendar of all years, and what window and blackouts leave of the next week or year."""
    assert count_per_day(timing, now=_NOW) == pytest.approx(rate, rel=0.005)


@pytest.mark.parametrize("rule", ["7 * * * *", "0 8,20 * * 1-5", "30 2 1,15 * *", "0 0 * 6-8 *"])
@pytest.mark.parametrize("blackout", [(), (_EVENING,), (_WEEKEND,)])
def test_the_rate_is_near_to_what_comes_in_a_year(rule: str, blackout: tuple[Blackout, ...]) -> None:
    """What is computed is what counting finds, but for what one year has more of than another."""
    timing = _timing(rule, blackout=blackout)
    runs = sum(1 for _ in find_runs_between(timing, after=_NOW, until=_NOW + timedelta(days=364)))
    assert count_per_day(timing, now=_NOW) * 364 == pytest.approx(runs, rel=0.01, abs=1)


_RULE = _timing("0 8 * * *")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_timing("*/5 * * * *"), _timing("0-59/5 * * * *")),
        (_timing("0 8 * * *"), _timing("0 8 * * 0-6", text="0 8 * * 0-6")),
        (_timing("0 8 31 4,5 *"), _timing("0 8 31 5 *")),
        (_timing("0 8 * * *"), _timing("0 8 1-31 * 1")),
        (_RULE, replace(_RULE, zone="UTC")),
        (_RULE, replace(_RULE, zone="Africa/Abidjan")),
        (_RULE, replace(_RULE, ambiguous="first", nonexistent="next")),
        (_interval(90), _interval(90, anchor=datetime(1970, 1, 2, tzinfo=UTC))),
        (_interval(90, zone="Europe/Oslo"), _interval(90)),
        (_timing(seconds=30, zone="Europe/Oslo"), _timing(seconds=30)),
        (_timing(once=_NOW, zone="Europe/Oslo"), _timing(once=_NOW)),
        (_timing(word="@reboot"), _timing(word="@reboot", zone="Europe/Oslo")),
        (_interval(5, blackout=(_EVENING,), blackout_zone="UTC"), _interval(5, blackout=(_EVENING,))),
    ],
)
def test_what_comes_at_the_same_times_means_the_same(one: Timing, other: Timing) -> None:
    """However it is spelt, and whichever zone's clocks show the same."""
    assert means_same(one, other)
    assert means_same(other, one)


@pytest.mark.parametrize(
    "other",
    [
        _timing("0 9 * * *"),
        _timing("0 8 * * 1-6"),
        _timing("0 8 $ * *"),
        replace(_RULE, zone="Europe/Oslo"),
        replace(_RULE, shift=timedelta(minutes=3)),
        replace(_RULE, start_at=_NOW),
        replace(_RULE, end_at=_NOW),
        replace(_RULE, blackout=(_EVENING,)),
        _timing(seconds=30),
        _timing(once=_NOW),
        _timing(word="@reboot"),
        _interval(24 * 60),
    ],
)
def test_what_comes_at_other_times_means_something_else(other: Timing) -> None:
    """Each part of a timing counts."""
    assert not means_same(_RULE, other)
    assert not means_same(other, _RULE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_interval(90), _interval(91)),
        (_timing(seconds=30), _timing(seconds=20)),
        (_timing(once=_NOW), _timing(once=_NOW + timedelta(hours=1))),
        (_timing(once=_NOW), _timing(word="@reboot")),
        (_interval(90), _interval(90, anchor=datetime(1970, 1, 1, 0, 1, tzinfo=UTC))),
        (_interval(90), _interval(90, shift=timedelta(minutes=1))),
        (
            _timing("0 2 * * *", zone="Europe/Oslo"),
            _timing("0 2 * * *", zone="Europe/Oslo", nonexistent="next"),
        ),
        (
            _timing(seconds=5, blackout=(_EVENING,)),
            _timing(seconds=5, blackout=(_EVENING,), zone="Europe/Oslo"),
        ),
        (
            _timing(seconds=5, blackout=(_EVENING,)),
            _timing(seconds=5, blackout=(_EVENING,), blackout_zone="Europe/Oslo"),
        ),
    ],
)
def test_a_beat_and_clocks_that_are_set_make_a_difference(one: Timing, other: Timing) -> None:
    """Where an interval counts from, what a zone does with skipped times, by whose clocks a blackout is."""
    assert not means_same(one, other)
    assert not means_same(other, one)


def test_an_unknown_zone_is_no_answer() -> None:
    """Whoever asks has to say what that means."""
    with pytest.raises(ValueError, match="Mars"):
        means_same(_RULE, replace(_RULE, zone="Mars/Olympus"))
