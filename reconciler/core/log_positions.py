"""How far the log was read: which runs are counted, and which are still to come; pure.

Numbers of runs are given out before their transactions end, so a run may come to light after one with a
higher number; and a run is in the log long before it is over. Both are remembered: nothing is read twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_MOST_GAPS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far the log was read.

    Attributes:
        mark: The highest number that was looked at.
        running: Those up to the mark that were not over.
        gaps: Numbers up to the mark of which nothing was seen, each with the transaction that was to begin
            next at the time: once all those before it are over, nobody will use the number any more.
    """

    mark: int
    running: frozenset[int] = frozenset()
    gaps: Mapping[int, int] = field(default_factory=dict)

    def list_wanted(self, running: Collection[int]) -> list[int]:
        """List the numbers up to the mark that are to be looked at again.

        Args:
            running: Those that are not over now.

        Returns:
            Runs that have ended since, and numbers that were never seen.
        """
        return sorted((self.running - set(running)) | self.gaps.keys())

    def move_on(
        self, seen: Iterable[int], running: Collection[int], *, mark: int, snapshot: tuple[int, int]
    ) -> LogPosition:
        """Move on after a look at the log.

        Args:
            seen: Numbers of all rows that were read, ascending: those that were wanted and those above the
                mark, over or not.
            running: Those that are not over, of all numbers.
            mark: The highest number that was looked at now.
            snapshot: The oldest transaction that goes on, and the one that begins next.

        Returns:
            The new position.
        """
        oldest, following = snapshot
        found = set(seen)
        gaps = {
            number: since for number, since in self.gaps.items() if number not in found and since > oldest
        }
        for number in _list_missing(self.mark, mark, sorted(one for one in found if one > self.mark)):
            gaps[number] = following
        kept = sorted(gaps)[-_MOST_GAPS:]
        return LogPosition(
            mark=mark,
            running=frozenset(number for number in running if number <= mark),
            gaps={number: gaps[number] for number in kept},
        )


def _list_missing(after: int, until: int, seen: list[int]) -> Iterable[int]:
    """List the numbers that are not there; of a wide hole the end."""
    before = after
    for number in (*seen, until + 1):
        yield from range(max(before + 1, number - _MOST_GAPS), number)
        before = number
