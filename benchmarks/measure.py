"""Measure things against each other: alternating, several rounds, the best of each."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One line of the report.

    Attributes:
        title: What is compared.
        seconds: The best time of each contestant, by name; the first one is ours.
        bound: The most that the ratio of the first to the second may be; None where there is no bound.
    """

    title: str
    seconds: Mapping[str, float]
    bound: float | None

    def render(self) -> str:
        """Return the line as text."""
        (ours, mine), (floor, other), *more = self.seconds.items()
        ratio = mine / other
        verdict = ""
        if self.bound is not None:
            verdict = f"  bound {self.bound:g}: {'met' if ratio <= self.bound else 'MISSED'}"
        rest = "".join(f"  ({name} {seconds:.3f} s, ratio {mine / seconds:.2f})" for name, seconds in more)
        return f"{self.title}\n    {ours} {mine:.3f} s / {floor} {other:.3f} s = {ratio:.2f}{verdict}{rest}"


def compare(
    title: str,
    contestants: Mapping[str, Callable[[], object]],
    *,
    bound: float | None = None,
    rounds: int = 5,
) -> Comparison:
    """Time contestants in turns.

    Args:
        title: What is compared.
        contestants: What to run, by name, ours first.
        bound: The most that the ratio of the first to the second may be.
        rounds: How often each of them runs.

    Returns:
        The best time of each.
    """
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            gc.collect()
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begin)
    return Comparison(title=title, seconds=best, bound=bound)
