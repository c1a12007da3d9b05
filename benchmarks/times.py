"""Next runs of 10,000 jobs, and their schedules for a server, against croniter: `script/bench times`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from croniter import croniter

from benchmarks.measure import Comparison, compare
from reconciler.core.times import clock_pairs, clocks, cron_fields, local_rules
from reconciler.core.times.dialects import dialect_for
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.occurrences import clock_of, find_runs
from reconciler.core.times.timings import Timing
from reconciler.core.times.triggers import compile_timing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JOBS: Final = 10_000
RUNS: Final = 10
SAMPLE: Final = 500
"""How many of the jobs croniter is asked for; its time is scaled up."""

_ZONES: Final = (
    "UTC", "Europe/Oslo", "Europe/London", "Europe/Dublin", "Europe/Athens", "Africa/Cairo",
    "Africa/Casablanca", "Africa/Lagos", "America/New_York", "America/Chicago", "America/Los_Angeles",
    "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo",
    "Asia/Gaza", "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Auckland", "Pacific/Apia",
    "Pacific/Chatham", "Pacific/Honolulu",
)  # fmt: skip
_NOW: Final = datetime(2026, 3, 20, 11, 7, 31, tzinfo=UTC)
_SERVER: Final = "Etc/GMT"


def make_texts(count: int) -> list[tuple[str, str]]:
    """Make different local times, each in one of two dozen zones.

    Args:
        count: How many.

    Returns:
        Five fields, as both read them but for `$`, and the zone.
    """
    chance = Random(7)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        minute, hour = chance.randrange(60), chance.randrange(24)
        day, weekday = chance.randint(1, 31), chance.randrange(7)
        text = chance.choice(
            (
                f"{minute} {hour} * * *",
                f"{minute} {hour} * * {weekday}",
                f"{minute} {hour} {day} * *",
                f"{minute} {hour} * * {weekday}#{chance.randint(1, 4)}",
                f"{minute} {hour} $ * *",
                f"{minute},{59 - minute} 8-17 * * 1-5",
                f"*/{chance.choice((5, 10, 15))} {hour} * * {weekday}",
                f"{minute} */{chance.choice((2, 3, 4, 6))} * * *",
            )
        )
        found[text, chance.choice(_ZONES)] = None
    return list(found)


def make_timings(texts: Sequence[tuple[str, str]]) -> list[Timing]:
    """Make their timings, with what is usual for times of the day."""
    return [
        Timing(zone=zone, rule=parse_rule(text), ambiguous="first", nonexistent="next")
        for text, zone in texts
    ]


def find_all(timings: Sequence[Timing]) -> None:
    """Find the next runs of each."""
    for timing in timings:
        assert len(find_runs(timing, after=_NOW, count=RUNS)) == RUNS


def find_all_anew(texts: Sequence[tuple[str, str]]) -> None:
    """Do the same as the first thing of a process: read zones and rules too."""
    for function in (
        clocks.read_clock,
        clock_pairs.pair_clocks,
        cron_fields.read_field,
        local_rules.parse_rule,
        local_rules._list_days,  # noqa: SLF001 - what is remembered is what has to be forgotten
        local_rules._list_times,  # noqa: SLF001
        local_rules._look_up_month,  # noqa: SLF001
    ):
        function.cache_clear()
    find_all(make_timings(texts))


def ask_croniter(texts: Sequence[tuple[str, str]]) -> None:
    """Find the next runs of each with croniter."""
    for text, zone in texts:
        runs = croniter(text.replace("$", "L"), _NOW.astimezone(ZoneInfo(zone)))
        for _ in range(RUNS):
            runs.get_next(datetime)


def compile_all(timings: Sequence[Timing]) -> None:
    """Compile each for a server whose clocks show GMT."""
    since = clocks.to_seconds(_NOW)
    known = {zone: clock_of(zone).since(since) for zone in _ZONES}
    dialect = dialect_for((1, 6, 5))
    for timing in timings:
        assert compile_timing(timing, server_zone=_SERVER, clocks=known, dialect=dialect).text


def measure_runs(texts: Sequence[tuple[str, str]]) -> Comparison:
    """Compare next runs with croniter's."""
    title = f"next {RUNS} runs of {JOBS} jobs in {len(_ZONES)} zones"
    compared = compare(
        f"{title}, against croniter ({SAMPLE} of them, scaled)",
        {
            "reconciler": partial(find_all, make_timings(texts)),
            "croniter": partial(ask_croniter, texts[:SAMPLE]),
        },
        bound=0.1,
        rounds=3,
    )
    ours, theirs = compared.seconds.values()
    return replace(compared, seconds={"reconciler": ours, "croniter": theirs * JOBS / SAMPLE})


def measure_alone(title: str, run: Callable[[], object]) -> Comparison:
    """Compare the processor time of something with a second; other work on the machine does not count."""
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        run()
        best = min(best, time.process_time() - begin)
    return Comparison(title=f"{title}: processor time", seconds={"reconciler": best, "bound": 1.0}, bound=1)


def main() -> None:
    """Run everything and print one line each."""
    texts = make_texts(JOBS)
    jobs = f"{JOBS} jobs in {len(_ZONES)} zones"
    comparisons = [
        measure_runs(texts),
        measure_alone(
            f"next {RUNS} runs of {jobs}, as the first thing of a process", partial(find_all_anew, texts)
        ),
        measure_alone(f"schedules of {jobs} for a server in GMT", partial(compile_all, make_timings(texts))),
    ]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    for comparison in comparisons:
        print(comparison.render())


if __name__ == "__main__":
    main()
