"""Counts of runs for as long as a process lives: how they ended, how long they took, how late they began."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from reconciler.core.lateness import find_lateness

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reconciler.database.metrics import LogRow, OwnerCounts

DURATIONS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400, inf)
"""Seconds up to which runs are counted together."""
LATENESSES: Final = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, inf)
"""Likewise, for how late they began."""
ENDINGS: Final = ("succeeded", "failed", "timed_out", "skipped", "cancelled", "lost")
"""How a run ends."""


@dataclass(slots=True)
class Distribution:
    """How often values lay where.

    Attributes:
        bounds: Up to which value each place counts, ascending; the last is infinite.
        counts: How many lay there, above the bound before.
        total: Of all values.
    """

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.counts = [0] * len(self.bounds)

    def add(self, value: float) -> None:
        """Count a value.

        Args:
            value: Any.
        """
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def list_buckets(self) -> Iterator[tuple[float, int]]:
        """List the bounds, each with how many values were not above it."""
        found = 0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            found += count
            yield bound, found


class RunTally:
    """Counts what the log tells, look by look; each run once.

    Attributes:
        endings: How many runs ended, by owner and status.
        durations: Of runs that were begun, by owner.
        latenesses: Of first tries, by owner, where it is known when they were due.
        missed: Runs that did not start, by owner.
    """

    def __init__(self) -> None:
        self.endings: Counter[tuple[str, str]] = Counter()
        self.durations: dict[str, Distribution] = {}
        self.latenesses: dict[str, Distribution] = {}
        self.missed: Counter[str] = Counter()
        self._missed_before: dict[str, int] = {}

    def know(self, owners: Iterable[str]) -> None:
        """Count from nothing what was not counted yet: what is not there cannot be seen to grow.

        Args:
            owners: Of whom there are definitions.
        """
        for owner in owners:
            for status in ENDINGS:
                self.endings.setdefault((owner, status), 0)
            self.missed.setdefault(owner, 0)
            self.durations.setdefault(owner, Distribution(DURATIONS))
            self.latenesses.setdefault(owner, Distribution(LATENESSES))

    def count(self, rows: Iterable[LogRow]) -> None:
        """Count runs that are over.

        Args:
            rows: What is new in the log; those that go on are left out.
        """
        for row in rows:
            if row.completed_at is None:
                continue
            self.know(() if row.owner in self.durations else (row.owner,))
            self.endings[row.owner, row.status] += 1
            if row.status != "skipped":
                self.durations[row.owner].add((row.completed_at - row.run_at).total_seconds())
                self._count_lateness(row)

    def count_missed(self, counts: Iterable[OwnerCounts]) -> None:
        """Count what was missed since the last look.

        Args:
            counts: By owner; a sum that is less than before, since jobs went, takes nothing away.
        """
        for one in counts:
            before = self._missed_before.get(one.owner, one.missed_runs)
            self.missed[one.owner] += max(one.missed_runs - before, 0)
            self._missed_before[one.owner] = one.missed_runs

    def _count_lateness(self, row: LogRow) -> None:
        if row.attempt > 1 or (row.due_at is None and row.is_put_off):
            return
        lateness = find_lateness(
            row.run_at,
            trigger=row.trigger,
            due_at=row.due_at,
            schedule=row.schedule,
            zone=row.zone,
            fired_at=row.fired_at,
            has_rule=row.has_rule,
        )
        if lateness is not None:
            self.latenesses[row.owner].add(lateness.total_seconds())
