"""Windows without runs."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout
from reconciler.core.times.blackouts import NEVER, find_blackout_end

_UNHURRIED = settings(deadline=None, database=None)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_START = datetime(2026, 12, 20)  # noqa: DTZ001 - a local time; a Sunday


def _at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-12-{text}")


@st.composite
def _windows(draw: st.DrawFn) -> Blackout:
    start = draw(st.sampled_from((0, 1, 600, 1320, 1439)))
    end = draw(st.sampled_from((1, 360, 600, 1320, 1439, 1440)))
    first, last = (draw(st.none() | st.dates(date(2026, 12, 17), date(2026, 12, 26))) for _ in range(2))
    return Blackout(
        first=first, last=last, days=tuple(draw(st.sets(st.integers(0, 6)).map(sorted))), start=start, end=end
    )


def _is_barred(wall: datetime, windows: list[Blackout]) -> bool:
    """Tell from the definition whether a minute is in a window that began on some day."""
    for window in windows:
        length = (window.end - window.start - 1) % 1440 + 1
        for ago in range(3):
            day = wall.replace(hour=0, minute=0) - ago * _DAY
            begin = day + window.start * _MINUTE
            if (
                begin <= wall < begin + length * _MINUTE
                and (window.first is None or day.date() >= window.first)
                and (window.last is None or day.date() <= window.last)
                and (not window.days or (day.weekday() + 1) % 7 in window.days)
            ):
                return True
    return False


@settings(_UNHURRIED, max_examples=150)
@given(st.lists(_windows(), max_size=3), st.integers(0, 3 * 1440))
def test_a_blackout_ends_at_the_first_minute_outside(windows: list[Blackout], minute: int) -> None:
    """Each minute is in a window or not; the end is the next one that is in none."""
    wall = _START + minute * _MINUTE
    end = find_blackout_end(wall, windows)
    if not _is_barred(wall, windows):
        assert end is None
        return
    assert end is not None
    horizon = _START + 12 * _DAY
    expected = wall
    while expected < horizon and _is_barred(expected, windows):
        expected += _MINUTE
    assert min(end, horizon) == expected


@pytest.mark.parametrize(
    ("window", "wall", "end"),
    [
        (Blackout(start=540, end=600), "21T08:59:59", None),
        (Blackout(start=540, end=600), "21T09:00", "21T10:00"),
        (Blackout(start=540, end=600), "21T09:59:59.999999", "21T10:00"),
        (Blackout(start=540, end=600), "21T10:00", None),
        (Blackout(start=1320, end=360), "21T23:00", "22T06:00"),
        (Blackout(start=1320, end=360), "21T05:00", "21T06:00"),
        (Blackout(start=1320, end=360, days=(1,)), "22T05:00", "22T06:00"),
        (Blackout(start=1320, end=360, days=(1,)), "21T05:00", None),
        (Blackout(days=(6, 0)), "19T12:00", "21T00:00"),
        (Blackout(first=date(2026, 12, 24), last=date(2026, 12, 26)), "24T00:00", "27T00:00"),
        (Blackout(first=date(2026, 12, 24), last=date(2026, 12, 26)), "23T23:59", None),
        (Blackout(last=date(2026, 12, 26), start=1320, end=360), "27T05:00", "27T06:00"),
    ],
)
def test_windows_begin_and_end(window: Blackout, wall: str, end: str | None) -> None:
    """The start is inside, the end is not; day and dates are those on which it begins."""
    assert find_blackout_end(_at(wall), (window,)) == (_at(end) if end else None)


@pytest.mark.parametrize(
    "windows",
    [
        (Blackout(first=date(2026, 1, 1)),),
        (Blackout(last=date.max),),
        (Blackout(days=(0, 1, 2, 3, 4, 5, 6)),),
        (Blackout(start=0, end=720), Blackout(start=720, end=1440)),
    ],
)
def test_some_windows_never_end(windows: tuple[Blackout, ...]) -> None:
    """Without a last date, with the last one that there is, or one after the other for ever."""
    assert find_blackout_end(_START, windows) == NEVER


def test_many_years_are_one_stretch() -> None:
    """Whole days in a row do not take a step each."""
    for days in ((), (0, 1, 2, 3, 4, 5, 6)):
        window = Blackout(first=date(2000, 1, 1), last=date(2999, 12, 31), days=days)
        assert find_blackout_end(_START, (window,)) == datetime(3000, 1, 1)  # noqa: DTZ001 - a local time


def test_no_windows_bar_nothing() -> None:
    """There is nothing to end."""
    assert find_blackout_end(_START, ()) is None
