"""Windows and freezes: when an apply is allowed, and when it is again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.change_windows import ChangeWindows, Freeze, find_closure, find_window_end
from reconciler.core.specs import Blackout

OFFICE = Blackout(days=(1, 2, 3, 4), start=8 * 60, end=16 * 60)
CHRISTMAS = Freeze(
    window=Blackout(first=date(2026, 12, 20), last=date(2027, 1, 3)), because="Nobody is there to mend it"
)
OSLO = ChangeWindows(allow=(OFFICE,), freezes=(CHRISTMAS,), timezone="Europe/Oslo")


def at(text: str) -> datetime:
    """Read an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "opens_at"),
    [
        ("2026-11-23T06:59:59", "2026-11-23T07:00"),  # Monday, a second before it opens in Oslo
        ("2026-11-23T07:00", None),
        ("2026-11-23T14:59:59", None),
        ("2026-11-23T15:00", "2026-11-24T07:00"),
        ("2026-11-26T15:00", "2026-11-30T07:00"),  # Thursday evening: Monday is next
        ("2026-11-27T09:00", "2026-11-30T07:00"),
        ("2026-12-17T16:00", "2027-01-04T07:00"),  # and after the last week before Christmas, January
        ("2026-12-21T09:00", "2027-01-04T07:00"),
        ("2026-07-06T05:59", "2026-07-06T06:00"),  # summer time
    ],
)
def test_an_apply_is_allowed_in_windows_and_outside_of_freezes(now: str, opens_at: str | None) -> None:
    """Whether it is allowed, and when it is next, goes by the clocks of the windows' zone."""
    closure = find_closure(OSLO, now=at(now))
    assert (closure and closure.opens_at) == (opens_at and at(opens_at))


def test_a_closure_says_what_is_so_and_why() -> None:
    """The words hold the local time, the windows, or the freeze with its reason."""
    closure = find_closure(OSLO, now=at("2026-11-27T18:00"))
    assert closure is not None
    assert closure.why == (
        "it is Fri 2026-11-27 19:00+01:00, and apply is open from 08:00 to 16:00 on Mondays to Thursdays "
        "Europe/Oslo"
    )
    frozen = find_closure(OSLO, now=at("2026-12-24T12:00"))
    assert frozen is not None
    assert "frozen from 2026-12-20 to 2027-01-03 (Nobody is there to mend it) Europe/Oslo" in frozen.why


def test_freezes_alone_leave_the_rest_open() -> None:
    """Without allow an apply may begin at any time but those of the freezes; two in a row are one."""
    freezes = (CHRISTMAS, Freeze(window=Blackout(first=date(2027, 1, 4), last=date(2027, 1, 5))))
    windows = ChangeWindows(freezes=freezes)
    assert find_closure(windows, now=at("2026-12-19T23:59:59")) is None
    closure = find_closure(windows, now=at("2026-12-20T00:00"))
    assert closure is not None
    assert closure.opens_at == at("2027-01-06T00:00")


def test_a_window_that_is_over_today_opens_in_a_week() -> None:
    """Also where it has one day of the week."""
    windows = ChangeWindows(allow=(Blackout(days=(1,), start=480, end=960),))
    closure = find_closure(windows, now=at("2026-11-23T16:00"))
    assert closure is not None
    assert closure.opens_at == at("2026-11-30T08:00")


@pytest.mark.parametrize(
    "windows",
    [
        ChangeWindows(freezes=(Freeze(window=Blackout(first=date(2026, 1, 1))),)),
        ChangeWindows(allow=(Blackout(last=date(2026, 1, 1)),)),
        ChangeWindows(allow=(OFFICE,), freezes=(Freeze(window=Blackout(days=(1, 2, 3, 4))),)),
        ChangeWindows(allow=(Blackout(first=date.max),), freezes=(Freeze(window=Blackout()),)),
    ],
)
def test_what_never_opens_says_no_time(windows: ChangeWindows) -> None:
    """Windows that are over, and freezes that cover all windows, end the search."""
    closure = find_closure(windows, now=at("2026-11-27T18:00"))
    assert closure is not None
    assert closure.opens_at is None


@pytest.mark.parametrize(
    ("start", "now", "opens_at"),
    [
        (150, "2026-03-29T00:59", "2026-03-29T01:00"),  # 02:30 is skipped: 03:00 is the first moment after it
        (150, "2026-10-25T00:00", "2026-10-25T00:30"),  # 02:30 comes twice: at the first
        (150, "2026-10-25T01:10", "2026-10-25T01:30"),  # 02:10 for the second time: at the second
    ],
)
def test_windows_follow_the_clocks_when_they_are_set(start: int, now: str, opens_at: str) -> None:
    """A window begins when the clocks first show its time or a later one."""
    windows = ChangeWindows(allow=(Blackout(start=start, end=240),), timezone="Europe/Oslo")
    closure = find_closure(windows, now=at(now))
    assert closure is not None
    assert closure.opens_at == at(opens_at)


def test_the_end_of_a_window_is_found() -> None:
    """It is known while the window is open alone, also past midnight; one without end ends at no time."""
    evening = Blackout(days=(5,), start=16 * 60, end=8 * 60)
    assert find_window_end(evening, "Europe/Oslo", now=at("2026-11-28T06:59")) == at("2026-11-28T07:00")
    assert find_window_end(evening, "Europe/Oslo", now=at("2026-11-28T07:00")) is None
    assert find_window_end(Blackout(), "UTC", now=at("2026-11-28T07:00")) == datetime.max.replace(tzinfo=UTC)


_days = st.dates(date(2026, 10, 20), date(2026, 11, 2))


@st.composite
def _windows(draw: st.DrawFn) -> Blackout:
    first, last = sorted((draw(_days), draw(_days)))
    start, end = draw(st.integers(0, 23)) * 60, draw(st.integers(1, 24)) * 60
    return Blackout(
        first=draw(st.sampled_from([None, first])),
        last=draw(st.sampled_from([None, last])),
        days=tuple(sorted(draw(st.sets(st.integers(0, 6), max_size=3)))),
        start=start if start != end else 0,
        end=end if start != end else 1440,
    )


def _holds(window: Blackout, wall: datetime) -> bool:
    """Tell the slow way whether a window is open."""
    for day in (wall.date() - timedelta(days=1), wall.date()):
        midnight = datetime.combine(day, datetime.min.time())
        length = window.end - window.start + (1440 if window.end <= window.start else 0)
        begin = midnight + timedelta(minutes=window.start)
        if (
            begin <= wall < begin + timedelta(minutes=length)
            and (window.first is None or window.first <= day)
            and (window.last is None or day <= window.last)
            and (not window.days or day.isoweekday() % 7 in window.days)
        ):
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_windows(), max_size=2),
    st.lists(_windows(), max_size=2),
    st.integers(0, 14 * 24 * 2),
    st.sampled_from(["UTC", "Europe/Oslo", "America/New_York"]),
)
def test_the_next_opening_is_the_first_moment_that_is_open(
    allow: list[Blackout], frozen: list[Blackout], half_hours: int, zone: str
) -> None:
    """Beside a search in steps of half an hour, across the end of summer time on both sides of the ocean."""
    windows = ChangeWindows(
        allow=tuple(allow), freezes=tuple(Freeze(window=one) for one in frozen), timezone=zone
    )
    now = at("2026-10-20T00:00") + half_hours * timedelta(minutes=30)
    closure = find_closure(windows, now=now)
    found = None
    for step in range(40 * 48):
        moment = now + step * timedelta(minutes=30)
        wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        if (not allow or any(_holds(one, wall) for one in allow)) and not any(
            _holds(one, wall) for one in frozen
        ):
            found = moment
            break
    if found == now:
        assert closure is None
    else:
        assert closure is not None
        far = closure.opens_at is not None and closure.opens_at > now + timedelta(days=39)
        assert closure.opens_at == found or (found is None and far)


def test_a_window_whose_days_are_no_more_never_opens() -> None:
    """The calendar ends with the year 9999, and nothing opens on its last day."""
    windows = ChangeWindows(allow=(Blackout(first=date.max),))
    closure = find_closure(windows, now=at("2026-12-20T00:00"))
    assert closure is not None
    assert closure.opens_at is None
