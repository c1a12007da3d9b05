"""The minutes in which jobs start, over a stretch of time, as numbers whose bits are the minutes; pure.

A day has 1,440 minutes, so that all starts of a job in five weeks are one number of 50,400 bits, and ten
thousand jobs are added up in a fraction of a second: jobs with one timing share it, and a spread shifts it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from reconciler.core.times.blackouts import find_blackout_end
from reconciler.core.times.clocks import to_instant, to_seconds
from reconciler.core.times.occurrences import clock_of, find_runs_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Blackout
    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.local_rules import LocalRule
    from reconciler.core.times.timings import Timing

_DAY: Final = 1440
_MINUTE: Final = timedelta(minutes=1)
# No clocks were ever set by more than a day.
_NEAR: Final = 25 * 60
_NOTHING: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time in whole minutes.

    Attributes:
        first: Its first minute, counted from 1970 in UTC.
        length: How many minutes it has.
    """

    first: int
    length: int

    @property
    def stop(self) -> int:
        """The first minute after it."""
        return self.first + self.length

    @property
    def all(self) -> int:
        """All its minutes as bits."""
        return (1 << self.length) - 1

    def instant(self, minute: int) -> datetime:
        """Give the instant, in UTC, at which one of its minutes begins; 0 is the first."""
        return to_instant((self.first + minute) * 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a stretch in which a zone's clocks are not set.

    Attributes:
        first: Its first minute, counted from 1970 in UTC.
        stop: The first minute after it.
        ahead: How many minutes the clocks are ahead of UTC.
        again: Whether its local times come for the second time.
    """

    first: int
    stop: int
    ahead: int
    again: bool


class Tally:
    """How often each minute was counted: the n-th number holds the n-th binary digit of every count."""

    __slots__ = ("planes",)

    def __init__(self) -> None:
        self.planes: list[int] = []

    def add(self, minutes: int, times: int = 1) -> None:
        """Count minutes.

        Args:
            minutes: As bits.
            times: How often; at least once.
        """
        for digit in range(times.bit_length()):
            if times >> digit & 1:
                carry, place = minutes, digit
                while carry:
                    while place >= len(self.planes):
                        self.planes.append(0)
                    plane = self.planes[place]
                    self.planes[place] = plane ^ carry
                    carry &= plane
                    place += 1

    def count(self, minute: int) -> int:
        """Return how often one minute was counted."""
        return sum((plane >> minute & 1) << digit for digit, plane in enumerate(self.planes))

    def add_up(self, minutes: int) -> int:
        """Return how often all of some minutes were counted together."""
        return sum((plane & minutes).bit_count() << digit for digit, plane in enumerate(self.planes))

    def find_most(self, minutes: int) -> tuple[int, int]:
        """Find the highest count among some minutes.

        Args:
            minutes: As bits.

        Returns:
            The count, and those minutes that have it.
        """
        most = 0
        for digit in reversed(range(len(self.planes))):
            among = minutes & self.planes[digit]
            if among:
                minutes = among
                most |= 1 << digit
        return most, minutes

    def find_above(self, limit: int, minutes: int) -> int:
        """Find the minutes that were counted more often than a limit.

        Args:
            limit: Nothing or more.
            minutes: The candidates.

        Returns:
            Those of them.
        """
        above, equal = 0, minutes
        for digit in reversed(range(max(len(self.planes), limit.bit_length()))):
            plane = self.planes[digit] if digit < len(self.planes) else 0
            if limit >> digit & 1:
                equal &= plane
            else:
                above |= equal & plane
                equal &= ~plane
        return above


def make_stretch(start: datetime, end: datetime) -> Stretch:
    """Make the stretch from an instant up to another.

    Args:
        start: Aware; the minute in which it lies is the first.
        end: Aware and later; the minute that it begins or lies in is not part of it.

    Returns:
        The stretch.
    """
    first = to_seconds(start) // 60
    return Stretch(first=first, length=max(to_seconds(end) // 60 - first, 0))


def list_bits(minutes: int) -> list[int]:
    """List the minutes of a number, ascending."""
    found = []
    for place, byte in enumerate(minutes.to_bytes(-(-minutes.bit_length() // 8), "little")):
        while byte:
            found.append(place * 8 + (byte & -byte).bit_length() - 1)
            byte &= byte - 1  # noqa: PLW2901 - the bits are taken off one by one
    return found


def list_segments(clock: Clock, first: int, stop: int) -> Iterator[Segment]:
    """Yield the parts of a stretch between which a zone's clocks are set, ascending.

    Args:
        clock: Of the zone.
        first: The first minute.
        stop: The first minute that does not count any more.

    Yields:
        Each part; what comes again after a change back is a part of its own.
    """
    edges = {first, stop}
    repeats: list[tuple[int, int]] = []
    for number, change in enumerate(clock.changes):
        back = max(clock.offsets[number] - clock.offsets[number + 1], 0)
        repeats.append((change // 60, (change + back) // 60))
        edges.update(edge for edge in repeats[-1] if first < edge < stop)
    ordered = sorted(edges)
    for low, high in pairwise(ordered):
        yield Segment(
            first=low,
            stop=high,
            ahead=clock.offset_at(low * 60) // 60,
            again=any(start <= low < until for start, until in repeats),
        )


class MinuteFinder:
    """Finds the minutes in which timings start within one stretch, and remembers what timings share."""

    def __init__(self, stretch: Stretch) -> None:
        # A spread puts off by less than a day what the rule wants before the stretch.
        self._stretch = Stretch(first=stretch.first - _DAY, length=stretch.length + _DAY)
        self._inside = stretch
        self._wanted: dict[Timing, int] = {}
        self._closed: dict[tuple[str, tuple[Blackout, ...]], int] = {}
        self._segments: dict[str, tuple[Segment, ...]] = {}

    def find(self, timing: Timing, shift: timedelta | None = None) -> int:
        """Find the minutes in which one timing starts.

        Args:
            timing: Of a job.
            shift: How much later than the rule or the interval says; None takes the timing's own.

        Returns:
            The minutes of the stretch, as bits.
        """
        minutes = self._find_wanted(timing) << ((timing.shift if shift is None else shift) // _MINUTE)
        minutes = minutes >> _DAY & self._inside.all
        if timing.has_limits and minutes:
            minutes &= self._find_open(timing) >> _DAY
        return minutes

    def _find_wanted(self, timing: Timing) -> int:
        """Find the minutes that rule or interval want, whatever puts them off or forbids them."""
        plain = replace(timing, shift=_NOTHING, start_at=None, end_at=None, blackout=(), text="")
        if plain not in self._wanted:
            self._wanted[plain] = self._find_plain(plain)
        return self._wanted[plain]

    def _find_plain(self, timing: Timing) -> int:
        stretch = self._stretch
        if timing.seconds:
            return stretch.all
        if timing.interval:
            every = timing.interval // _MINUTE
            first = (to_seconds(timing.anchor) // 60 - stretch.first) % every
            return _repeat(1 << first, every, stretch.length)
        if timing.rule is None:
            return self._follow(timing, stretch.first, stretch.stop)
        clock = clock_of(timing.zone)
        minutes = 0
        low = stretch.first
        changes = [change // 60 for change in clock.changes if low < change // 60 + _NEAR]
        # Around each change the engine decides what is wanted; elsewhere the clocks show the rule.
        for change in (*(each for each in changes if each < stretch.stop + _NEAR), stretch.stop + _NEAR):
            quiet = min(max(change - _NEAR, low), stretch.stop)
            ahead, odd = divmod(clock.offset_at(low * 60), 60)
            if odd:
                quiet = low
            elif low < quiet:
                days = _find_rule(timing.rule, low + ahead, quiet + ahead)
                minutes |= days << (low - stretch.first)
            low = min(change + _NEAR, stretch.stop)
            if quiet < low:
                minutes |= self._follow(timing, quiet, low)
        return minutes

    def _follow(self, timing: Timing, first: int, stop: int) -> int:
        found = bytearray(-(-self._stretch.length // 8))
        after, until = to_instant(first * 60 - 1), to_instant(stop * 60 - 1)
        for run in find_runs_between(timing, after=after, until=until):
            minute = to_seconds(run) // 60 - self._stretch.first
            found[minute >> 3] |= 1 << (minute & 7)
        return int.from_bytes(found, "little")

    def _find_open(self, timing: Timing) -> int:
        """Find the minutes in which window and blackouts let a timing start."""
        stretch = self._stretch
        # All runs of an interval lie equally far within their minutes.
        within = to_seconds(timing.anchor) % 60 if timing.interval else 0
        low, high = 0, stretch.length
        if timing.start_at is not None:
            low = -((within - to_seconds(timing.start_at)) // 60) - stretch.first
        if timing.end_at is not None:
            end = to_seconds(timing.end_at) + bool(timing.end_at.microsecond)
            high = -((within - end) // 60) - stretch.first
        low, high = max(low, 0), min(high, stretch.length)
        minutes = (1 << high) - (1 << low) if low < high else 0
        return minutes & ~self._find_closed(timing) if timing.blackout else minutes

    def _find_closed(self, timing: Timing) -> int:
        key = (timing.zone, timing.blackout)
        if key not in self._closed:
            minutes = 0
            for segment in self._list_segments(timing.zone):
                for low, high in _list_closed(segment, timing.blackout):
                    minutes |= (1 << high - self._stretch.first) - (1 << low - self._stretch.first)
            self._closed[key] = minutes
        return self._closed[key]

    def _list_segments(self, zone: str) -> tuple[Segment, ...]:
        if zone not in self._segments:
            self._segments[zone] = tuple(
                list_segments(clock_of(zone), self._stretch.first, self._stretch.stop)
            )
        return self._segments[zone]


def _find_rule(rule: LocalRule, low: int, high: int) -> int:
    """Find the wall minutes of a rule from `low` up to `high`; the first bit is `low`."""
    day = 0
    for time in rule.times:
        day |= 1 << time // 60
    midnight = low - low % _DAY
    minutes = 0
    once = replace(rule, minutes=frozenset((0,)), hours=frozenset((0,)))
    for wall in once.find_walls(midnight * 60, high * 60):
        minutes |= day << (wall // 60 - midnight)
    return minutes >> (low - midnight) & ((1 << high - low) - 1)


def _repeat(pattern: int, every: int, length: int) -> int:
    """Repeat bits each so many minutes, up to a length."""
    while every < length:
        pattern |= pattern << every
        every *= 2
    return pattern & ((1 << length) - 1)


def _list_closed(segment: Segment, windows: tuple[Blackout, ...]) -> Iterator[tuple[int, int]]:
    """Yield from which minute, counted from 1970 in UTC, up to which windows are closed in a segment."""
    edges = {0, *(window.start for window in windows), *(window.end % _DAY for window in windows)}
    low, high = segment.first + segment.ahead, segment.stop + segment.ahead
    days = range(low - low % _DAY, high, _DAY)
    walls = sorted({low, *(day + edge for day in days for edge in edges if low < day + edge < high)})
    for wall, following in zip(walls, [*walls[1:], high], strict=True):
        local = to_instant(wall * 60).astimezone(UTC).replace(tzinfo=None)
        if find_blackout_end(local, windows) is not None:
            yield wall - segment.ahead, following - segment.ahead
