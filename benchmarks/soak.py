"""A soak in miniature: `script/bench soak`.

A million jobs go through the table while autovacuum works as it comes: put at a steady rate, done by one
worker process, and deleted by the tick once their queue's retention is over. Shows how large the tables get.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg

from benchmarks.feeding import busy_worker
from benchmarks.queue_server import queue_server, renew_schema
from tests.declared import queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.runtime.cluster import LocalServer

DIRECTORY = Path(".reconciler/bench-soak")
JOBS = 1_000_000
RATE = 2000
RETENTION = "30s"
# A size is bounded where the most of the second half of the time is at most so many times that of the first.
BOUND = 1.5
_SIZES: LiteralString = """
SELECT pg_relation_size('reconciler.jobs_open'), pg_indexes_size('reconciler.jobs_open'),
       pg_relation_size('reconciler.jobs_finished'), pg_indexes_size('reconciler.jobs_finished')
"""
_LEFT: LiteralString = """
SELECT count(*), count(*) FILTER (WHERE now() - completed_at > %s::interval) FROM reconciler.jobs
"""
NAMES = ("jobs_open, heap", "jobs_open, indexes", "jobs_finished, heap", "jobs_finished, indexes")


def measure(server: LocalServer, jobs: int, rate: int) -> Iterator[str]:
    """Let jobs go through, look at the sizes every half second, and return the report."""
    dsn = renew_schema(server, queue("default", retention=RETENTION))
    samples: list[tuple[int, ...]] = []
    begin = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as conn:
        with busy_worker(dsn, limit=jobs, rate=rate) as feeder:
            while feeder.done < jobs:
                row = conn.execute(_SIZES).fetchone()
                assert row is not None
                samples.append(row)
                time.sleep(0.5)
            seconds = time.monotonic() - begin
        vacuums = conn.execute(
            "SELECT relname, autovacuum_count FROM pg_stat_user_tables"
            " WHERE schemaname = 'reconciler' AND relname IN ('jobs_open', 'jobs_finished') ORDER BY 1"
        ).fetchall()
        left = conn.execute(_LEFT, [RETENTION]).fetchone()
    assert left is not None
    yield (
        f"{jobs} jobs in {seconds:.0f} s ({jobs / seconds:.0f}/s), kept for {RETENTION};"
        f" autovacuums: {', '.join(f'{name} {count}' for name, count in vacuums)}"
    )
    yield f"    rows at the end: {left[0]}, of them finished for longer than {RETENTION}: {left[1]}"
    yield f"    {'MB':24} {'most, 1st half':>14} {'most, 2nd half':>14} {'end':>8}"
    half = len(samples) // 2
    for place, name in enumerate(NAMES):
        first, second = (max(sample[place] for sample in part) for part in (samples[:half], samples[half:]))
        verdict = "met" if second <= BOUND * max(first, 1_000_000) else "MISSED"
        yield (
            f"    {name:24} {first / 1e6:14.1f} {second / 1e6:14.1f} {samples[-1][place] / 1e6:8.1f}"
            f"  2nd / 1st = {second / first:.2f}  bound {BOUND}: {verdict}"
        )


def main() -> None:
    """Run it and print it."""
    parser = argparse.ArgumentParser(prog="script/bench soak", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs: shows that it works")
    parser.add_argument("--rate", type=int, default=RATE, help="how many jobs a second are put")
    arguments = parser.parse_args()
    jobs = JOBS // 10 if arguments.quick else JOBS
    with queue_server(DIRECTORY) as server:
        print(
            f"PostgreSQL {server.major}, Python {sys.version.split()[0]}, {os.cpu_count()} cores", flush=True
        )
        for line in measure(server, jobs, arguments.rate):
            print(line, flush=True)
    print("\nload of the machine: " + " ".join(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
