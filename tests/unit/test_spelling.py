from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.times.spelling import (
    render_age,
    render_distance,
    render_instant,
    render_length,
    render_local,
)

AT = datetime(2026, 11, 22, 2, 30, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (1.2, "1.2 s"),
        (125, "2m 05s"),
        (11520, "3h 12m"),
    ],
)
def test_a_length_has_two_units_at_the_most(seconds: float, text: str) -> None:
    """Whatever something took, it is read at a glance."""
    assert render_length(timedelta(seconds=seconds)) == text
    assert render_length(timedelta(days=4, hours=2)) == "4d 02h"


@pytest.mark.parametrize(
    ("seconds", "age", "distance"),
    [
        (0, "now", "now"),
        (12, "12s ago", "in 12s"),
        (125, "2m ago", "in 2m"),
        (3 * 3600, "3h ago", "in 3h"),
        (4 * 86400, "4d ago", "in 4d"),
    ],
)
def test_a_distance_says_on_which_side_of_now_it_is(seconds: int, age: str, distance: str) -> None:
    """The past is ago, what is to come is in so much."""
    length = timedelta(seconds=seconds)
    assert render_age(length) == age
    assert render_distance(AT - length, AT) == age
    assert render_distance(AT + length, AT) == distance


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-11-22 02:30Z"),
        ("Europe/Oslo", "2026-11-22 03:30 CET"),
        ("No/Such", "2026-11-22 02:30Z"),
        ("../etc", "2026-11-22 02:30Z"),
    ],
)
def test_an_instant_is_shown_by_the_clocks_of_a_zone(zone: str, text: str) -> None:
    """A zone that is not known here is no reason to show nothing."""
    assert render_local(AT, zone) == text
    assert render_local(AT + timedelta(seconds=5), "Europe/Oslo") == "2026-11-22 03:30:05 CET"
    assert render_instant(AT) == "2026-11-22 02:30:00Z"
