"""Offsets of all zones as data, held against the tables they come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from zoneinfo import ZoneInfo, available_timezones

import pytest

from reconciler.core.times.clocks import (
    UTC_CLOCK,
    Clock,
    find_zone,
    make_clock,
    read_clock,
    to_instant,
    to_seconds,
)

_DAY = 86_400
_FIRST = int(datetime(1970, 1, 1, tzinfo=UTC).timestamp())
_LAST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
_RULED = range(
    int(datetime(2036, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(2042, 1, 1, tzinfo=UTC).timestamp()),
    _DAY,
)
"""Days beyond the tables, where rules go on: Gaza's clocks go both ways within a week in 2040."""


def _ask(zone: ZoneInfo, second: int) -> float:
    ahead = datetime.fromtimestamp(second, zone).utcoffset()
    assert ahead is not None
    return ahead.total_seconds()


def test_clocks_are_those_of_the_zone_tables() -> None:
    """Every zone has its offset on both sides of each change in its table, and where its rule goes on."""
    tables = import_module("zoneinfo._zoneinfo").ZoneInfo  # the one in C hides them
    names = sorted(available_timezones())
    assert len(names) > 400
    wrong = []
    for name in names:
        zone, clock = ZoneInfo(name), read_clock(name)
        turns = [second for second in tables(name)._trans_utc if _FIRST < second < _LAST]
        places = [second + step for second in turns for step in (-1, 0)]
        if clock.changes and clock.changes[-1] > _RULED[0]:
            places += _RULED
        wrong += [(name, second) for second in places if clock.offset_at(second) != _ask(zone, second)]
        assert len(clock.offsets) == len(clock.changes) + 1
        assert list(clock.changes) == sorted(set(clock.changes))
        assert all(before != after for _, before, after in clock.steps())
    assert wrong == []


def test_each_change_is_a_step() -> None:
    """A step has the second, the offset before and the one after."""
    clock = Clock(changes=(10, 20), offsets=(0, 3600, 1800))
    assert list(clock.steps()) == [(10, 0, 3600), (20, 3600, 1800)]
    assert [clock.offset_at(second) for second in (-5, 9, 10, 19, 20)] == [0, 0, 3600, 3600, 1800]
    assert list(UTC_CLOCK.steps()) == []


def test_what_clocks_did_before_can_be_left_out() -> None:
    """From then on all is the same; a change at that very second has happened."""
    clock = Clock(changes=(10, 20), offsets=(0, 3600, 1800))
    assert clock.since(9) == clock
    assert clock.since(10) == Clock(changes=(20,), offsets=(3600, 1800))
    assert clock.since(99) == Clock(offsets=(1800,))


def test_clocks_are_made_of_what_somebody_else_knows() -> None:
    """The first row says what was before the second."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert make_clock([(start, 3600)]) == Clock(offsets=(3600,))
    rows = [(start, 3600), (start + timedelta(days=1), 7200)]
    assert make_clock(rows) == Clock(changes=(to_seconds(start) + _DAY,), offsets=(3600, 7200))


def test_seconds_leave_fractions_out() -> None:
    """Down to the second, also before 1970, and back."""
    assert to_seconds(datetime(1970, 1, 1, 1, 0, 0, 999_999, tzinfo=ZoneInfo("Europe/Oslo"))) == 0
    assert to_seconds(datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)) == -1
    assert to_instant(-1) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc", "/etc/localtime", "Europe"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    """By its name, whatever the operating system says to it."""
    with pytest.raises(ValueError, match=f"no time zone {name!r}"):
        find_zone(name)
    with pytest.raises(ValueError, match="no time zone"):
        read_clock(name)
