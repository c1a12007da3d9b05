"""How far the clocks of a zone are ahead of UTC, and when that changes, as data; knows no present moment.

Seconds are POSIX seconds. A wall second is what the zone's clocks show, counted as if they showed UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_NONE: Final = timedelta(0)
# Brazil's clocks went forward and back within seven days less an hour in 2000, Gaza's will in 2040; nobody's
# do within five.
_STRIDE: Final = 5 * 86_400
_FIRST: Final = int((datetime(1968, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST: Final = int((datetime(2100, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clocks of one zone.

    Attributes:
        changes: When they are set to another offset, ascending, in seconds.
        offsets: Seconds ahead of UTC: the first up to the first change, each other one from its change on.
    """

    changes: tuple[int, ...] = ()
    offsets: tuple[int, ...] = (0,)

    def offset_at(self, second: int) -> int:
        """Give the offset at an instant, in seconds."""
        return self.offsets[bisect_right(self.changes, second)]

    def steps(self) -> Iterator[tuple[int, int, int]]:
        """Yield each change as its second, and the offsets before and after it."""
        yield from zip(self.changes, self.offsets[:-1], self.offsets[1:], strict=True)

    def since(self, second: int) -> Clock:
        """Leave out what they did before an instant, which is nothing to what comes later."""
        number = bisect_right(self.changes, second)
        return Clock(changes=self.changes[number:], offsets=self.offsets[number:])


UTC_CLOCK: Final = Clock()
"""Clocks that are never set."""


def to_seconds(at: datetime) -> int:
    """Count the whole seconds of an instant, fractions left out.

    Args:
        at: Aware.

    Returns:
        POSIX seconds.
    """
    return (at - _EPOCH) // _SECOND


def to_instant(second: int) -> datetime:
    """Give the instant of POSIX seconds, in UTC."""
    return _EPOCH + timedelta(seconds=second)


def find_zone(name: str) -> ZoneInfo:
    """Find a zone by its name.

    Args:
        name: An IANA name.

    Returns:
        The zone.

    Raises:
        ValueError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        message = f"there is no time zone {name!r}"
        raise ValueError(message) from error


@lru_cache(maxsize=1024)
def read_clock(name: str) -> Clock:
    """Read a zone's clocks from the time zone data of this machine.

    Args:
        name: An IANA name.

    Returns:
        Its offsets from 1968 to 2100; afterwards the last one stays.

    Raises:
        ValueError: There is no such zone.
    """
    zone = find_zone(name)

    def offset_at(second: int) -> timedelta:
        return datetime.fromtimestamp(second, zone).utcoffset() or _NONE

    changes: list[int] = []
    offsets = [offset_at(_FIRST)]
    for early in range(_FIRST, _LAST, _STRIDE):
        after = offset_at(early + _STRIDE)
        if after == offsets[-1]:
            continue
        low, high = early, early + _STRIDE
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle) == offsets[-1] else (low, middle)
        changes.append(high)
        offsets.append(after)
    return Clock(changes=tuple(changes), offsets=tuple(ahead // _SECOND for ahead in offsets))


def make_clock(offsets: Iterable[tuple[datetime, int]]) -> Clock:
    """Make a zone's clocks of what somebody else knows of them.

    Args:
        offsets: From when on, aware, they are how many seconds ahead of UTC, ascending; at least one.

    Returns:
        The clocks; before the first instant as at it.
    """
    known = tuple(offsets)
    return Clock(
        changes=tuple(to_seconds(since) for since, _ in known[1:]), offsets=tuple(ahead for _, ahead in known)
    )
