"""How the clocks of one place read beside those of another, as far as it decides what times become; pure.

All is in whole minutes. Years are much alike, so that few of these remain of a century.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reconciler.core.times.clocks import Clock
    from reconciler.core.times.local_rules import LocalRule

DAY: Final = 1440
"""The minutes of a day."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which nobody's clocks are set.

    Attributes:
        start: What the place's clocks show at its beginning, in minutes of the day.
        length: Up to a day: what is longer shows each time of the day.
        ahead: What the server's clocks show when a run comes, less what the place's showed as it was wanted.
    """

    start: int
    length: int
    ahead: int

    def find_moments(self, times: Iterable[int], ahead: int = 0) -> set[int]:
        """Find when some times of the day come.

        Args:
            times: In minutes.
            ahead: How much more the clocks that are meant show than the place's.

        Returns:
            Minutes from the beginning; of a long stretch those of its first day.
        """
        start, length = self.start + ahead, self.length
        return {moment for time in times if (moment := (time - start) % DAY) < length}


@dataclass(frozen=True, slots=True)
class Turn:
    """What the place's clocks skip, or show twice, when they are set.

    Attributes:
        weekday: Of the day on which it begins; 0 is Sunday.
        start: Its first minute, in minutes of that day.
        length: How much it is, up to a day.
        fire: What the server's clocks show as what was skipped is made up for, from that day's midnight.
    """

    weekday: int
    start: int
    length: int
    fire: int

    def find_days(self, times: Iterable[int], rule: LocalRule) -> Iterator[int]:
        """Yield on which days, counted from its first, some times of a rule are concerned."""
        for time in times:
            later = (time - self.start) % DAY
            day = (self.start + later) // DAY
            if later < self.length and (rule.either or (self.weekday + day) % 7 in rule.weekdays):
                yield day


@dataclass(frozen=True, slots=True)
class Pair:
    """The clocks of a server and of a place."""

    spans: frozenset[Span]
    gaps: frozenset[Turn]
    overlaps: frozenset[Turn]


@lru_cache(maxsize=1024)
def pair_clocks(server: Clock, place: Clock, shift: int) -> Pair:
    """Compare the clocks of a server with those of a place.

    Args:
        server: In whose zone pg_cron reads schedules.
        place: In whose zone times are wanted.
        shift: How many minutes after a wanted time its run comes.

    Returns:
        All that differs from stretch to stretch and from change to change, once.
    """
    later = shift * 60
    moments = sorted({*place.changes, *(change - later for change in server.changes)})
    spans: set[Span] = set()
    for begin, end in zip((None, *moments), (*moments, None), strict=True):
        at = moments[0] - 1 if begin is None and moments else begin or 0
        here = place.offset_at(at) // 60
        length = DAY if begin is None or end is None else min((end - begin) // 60, DAY)
        start = 0 if length == DAY else (begin or 0) // 60 + here
        spans.add(Span(start % DAY, length, server.offset_at(at + later) // 60 - here + shift))
    gaps: set[Turn] = set()
    overlaps: set[Turn] = set()
    for change, before, after in place.steps():
        day, start = divmod((change + min(before, after)) // 60, DAY)
        fire = (change + later + server.offset_at(change + later)) // 60 - day * DAY
        length = min(abs(after - before) // 60, DAY)
        # The epoch was a Thursday.
        (gaps if after > before else overlaps).add(Turn((day + 4) % 7, start, length, fire))
    return Pair(frozenset(spans), frozenset(gaps), frozenset(overlaps))
