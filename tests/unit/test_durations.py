from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.durations import Rate, parse_duration, parse_rate, render_duration

_LONGEST = timedelta(days=3650)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("1w2d3h4m5s6ms", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5, milliseconds=6)),
        ("3650d", _LONGEST),
        ("000000000000001s", timedelta(seconds=1)),
    ],
)
def test_numbers_with_units_are_read(text: str, duration: timedelta) -> None:
    """Each unit counts what it says, up to ten years."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a number and a unit"),
        ("30", "a number and a unit"),
        ("5 m", "a number and a unit"),
        ("-5m", "a number and a unit"),
        ("1.5h", "a number and a unit"),
        ("٣s", "a number and a unit"),
        ("30m1h", "the largest first"),
        ("1m1m", "each unit once"),
        ("99999999999d", "longer than ten years"),
        ("0s", "no time at all"),
        ("3651d", "longer than ten years"),
        ("9999999999999999s", "longer than ten years"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_reason(text: str, why: str) -> None:
    """The message names the text and says how a duration is written."""
    with pytest.raises(ValueError, match=why) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.integers(min_value=1, max_value=_LONGEST // timedelta(milliseconds=1)))
def test_the_canonical_text_reads_back_as_the_same_duration(milliseconds: int) -> None:
    """Rendering loses nothing down to a millisecond, and there is one text for one duration."""
    duration = timedelta(milliseconds=milliseconds)
    text = render_duration(duration)
    assert parse_duration(text) == duration
    assert render_duration(parse_duration(text)) == text


def test_a_rate_is_a_count_and_a_duration() -> None:
    """`100/1m` is a hundred starts a minute."""
    assert parse_rate("100/1m") == Rate(count=100, per=timedelta(minutes=1))
    assert parse_rate("007/1h30m") == Rate(count=7, per=timedelta(minutes=90))


@pytest.mark.parametrize("text", ["100", "/1m", "0/1m", "-1/1m", "1.5/1m", "٣/1m", "1234567890/1m", "a/1m"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """The message says how a rate is written."""
    with pytest.raises(ValueError, match="is no rate: write a count, a slash and a duration"):
        parse_rate(text)


def test_a_rate_in_no_time_is_refused() -> None:
    """The part after the slash is a duration, and faults in it are told."""
    with pytest.raises(ValueError, match="no time at all"):
        parse_rate("1/0s")
