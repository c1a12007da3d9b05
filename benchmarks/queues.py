"""Queues against their peers, on one server in one run: `script/bench queues`.

What is compared takes turns; each round of each begins with a fresh database. What a peer is and how it is
set up stands in `contestants`, the rest of the measurements in `backlog`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from benchmarks.backlog import measure_claims, measure_plans, measure_snapshot
from benchmarks.contestants import (
    call_program,
    count_children,
    count_connections,
    list_contestants,
    working,
)
from benchmarks.processor import ServerTime
from benchmarks.queue_server import SETTINGS, queue_server, renew_database, renew_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contestants import Contestant
    from reconciler.runtime.cluster import LocalServer

ROUNDS = 3
LEAST_SECONDS = 3.0
RATE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """One round of emptying a full queue.

    Attributes:
        jobs: How many there were.
        seconds: From the beginning of the first to the moment when none was open.
        kept: How many finished ones were there afterwards.
        connections: The most that the worker had.
        processes: Of the worker.
        worker_used: Processor time of the worker from the first job to the last, in seconds.
        server_used: Processor time of the server.
    """

    jobs: int
    seconds: float
    kept: int
    connections: int
    processes: int
    worker_used: float
    server_used: float

    @property
    def rate(self) -> float:
        """Return jobs a second."""
        return self.jobs / self.seconds


def prepare(server: LocalServer, contestant: Contestant, jobs: int) -> str:
    """Make a fresh database with so many jobs, and return its connection string."""
    dsn = renew_schema(server) if contestant.is_ours else renew_database(server)
    call_program(contestant, dsn, "fill", str(jobs))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
    return dsn


def drain(server: LocalServer, contestant: Contestant, jobs: int) -> Drain:
    """Let one worker process empty a queue."""
    dsn = prepare(server, contestant, jobs)
    connections = [0]

    def look() -> None:
        connections.append(count_connections(conn))
        server_time.look()

    with (
        psycopg.connect(dsn, autocommit=True) as conn,
        working(contestant, dsn, BENCH_JOBS=str(jobs), BENCH_MODE="drain") as worker,
    ):
        server_time = ServerTime(conn)
        report = worker.wait_for_report(look)
        processes = 1 + count_children(worker.process.pid)
        while contestant.is_open and conn.execute(contestant.is_open.encode()).fetchone() == (True,):
            time.sleep(0.005)
        seconds = (time.time() if contestant.is_open else report["last"]) - report["first"]
        server_time.look()
        kept = 0
        if contestant.count_kept:
            row = conn.execute(contestant.count_kept.encode()).fetchone()
            assert row is not None
            kept = row[0]
    return Drain(
        jobs=jobs,
        seconds=seconds,
        kept=kept,
        connections=max(connections),
        processes=processes,
        worker_used=report["used"],
        server_used=server_time.seconds,
    )


def describe_use(drains: list[Drain]) -> str:
    """Return how much processor time a job took: that of the worker, that of the server."""
    worker, server = (
        min(getattr(one, name) / one.jobs * 1e6 for one in drains) for name in ("worker_used", "server_used")
    )
    return f"{worker:.1f} + {server:.1f} = {worker + server:.1f}"


def measure_drains(server: LocalServer, contestants: list[Contestant], rounds: int) -> Iterator[str]:
    """Compare how quickly full queues are emptied."""
    jobs = {one.name: one.jobs for one in contestants}
    results: dict[str, list[Drain]] = {one.name: [] for one in contestants}
    for _ in range(rounds):
        for one in contestants:
            result = drain(server, one, jobs[one.name])
            while result.seconds < LEAST_SECONDS:
                # Half as much again as what should do.
                jobs[one.name] = int(result.jobs * max(1.5, 1.5 * LEAST_SECONDS / result.seconds))
                results[one.name].clear()
                result = drain(server, one, jobs[one.name])
            results[one.name].append(result)
    yield f"draining preloaded no-op jobs with one worker process, medians of {rounds} rounds in turn"
    yield (
        f"    {'':28} {'version':>9} {'jobs/s':>8} {'least':>8} {'most':>8} {'jobs':>8} {'kept':>8}"
        f" {'connections':>11} {'processes':>9} {'µs of processor a job':>24}"
    )
    medians = {}
    for one in contestants:
        rates = [result.rate for result in results[one.name]]
        medians[one.name] = statistics.median(rates)
        last = results[one.name][-1]
        yield (
            f"    {one.name:28} {one.read_version():>9}"
            f" {medians[one.name]:8.0f} {min(rates):8.0f} {max(rates):8.0f} {last.jobs:8} {last.kept:8}"
            f" {last.connections:11} {last.processes:9} {describe_use(results[one.name]):>24}  {one.settings}"
        )
    ours, *peers = contestants
    if ours.is_ours and peers:
        fastest = max((one.name for one in peers), key=medians.__getitem__)
        ratio = medians[ours.name] / medians[fastest]
        verdict = "met" if ratio >= 1.2 else "MISSED"
        yield f"    reconciler / the fastest peer ({fastest}) = {ratio:.2f}  bound 1.2 or more: {verdict}"
        more = (
            f"{name} {medians[ours.name] / rate:.1f}" for name, rate in medians.items() if name != ours.name
        )
        yield "    times as fast as " + ", ".join(more)


def measure_latency(server: LocalServer, contestants: list[Contestant], seconds: int) -> Iterator[str]:
    """Compare how long jobs wait, from before the call that puts one to the first line of its handler."""
    yield f"from enqueue to start, {RATE} jobs a second for {seconds} s, put by a process of its own"
    yield f"    {'':28} {'median':>8} {'p99':>8} {'most':>8}   ms"
    for one in contestants:
        dsn = prepare(server, one, 1)
        jobs = RATE * seconds + 1
        with working(one, dsn, BENCH_JOBS=str(jobs), BENCH_MODE="latency") as worker:
            # The first job has waited for the worker to start: it counts for nothing.
            worker.wait_for_start()
            time.sleep(1)
            call_program(one, dsn, "produce", str(RATE), str(seconds))
            waits = sorted(1000 * wait for wait in worker.wait_for_report(lambda: None)["waits"][1:])
        median, late = statistics.median(waits), waits[int(len(waits) * 0.99)]
        verdict = ""
        if one.is_ours:
            verdict = (
                f"  bound 5: {'met' if median < 5 else 'MISSED'}, 20: {'met' if late < 20 else 'MISSED'}"
            )
        yield f"    {one.name:28} {median:8.2f} {late:8.2f} {waits[-1]:8.2f}{verdict}"


MEASURES = ("drain", "latency", "claims", "snapshot", "plans")


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="script/bench queues", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(MEASURES)}; all of them where none is named")
    parser.add_argument("--quick", action="store_true", help="one short round of each: shows that it works")
    parser.add_argument(
        "--only", default="", help="contestants whose names contain one of these, with commas between"
    )
    parser.add_argument("--concurrency", type=int, default=100, help="how many jobs our worker does at once")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if unknown := set(arguments.what) - set(MEASURES):
        parser.error(f"{', '.join(sorted(unknown))}: what may be {', '.join(MEASURES)}")
    return arguments


def choose_contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """Return those that take part; say which do not."""
    wanted = [name.lower() for name in arguments.only.split(",")]
    chosen = []
    for one in list_contestants(arguments.concurrency):
        if not any(name in one.name.lower() for name in wanted):
            continue
        if one.is_installed:
            chosen.append(one)
        else:
            print(
                f"{one.name} is not installed (benchmarks/queue_peers/install), and left out", file=sys.stderr
            )
    return chosen


def main() -> None:
    """Measure everything that was asked for, and print it as it comes."""
    arguments = read_arguments()
    contestants = choose_contestants(arguments)
    assert contestants, "none of them takes part"
    quick = arguments.quick
    started = os.getloadavg()
    measures: dict[str, Callable[[LocalServer], Iterator[str]]] = {
        "drain": lambda server: measure_drains(server, contestants, 1 if quick else arguments.rounds),
        "latency": lambda server: measure_latency(server, contestants, 3 if quick else 20),
        "claims": lambda server: measure_claims(server, 100_000 if quick else 1_000_000, 1 if quick else 5),
        "snapshot": lambda server: measure_snapshot(server, 10 if quick else 60),
        "plans": lambda server: measure_plans(server, 100_000 if quick else 1_000_000),
    }
    with queue_server() as server:
        with psycopg.connect(server.dsn) as conn:
            rows = conn.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)", [[*SETTINGS]]
            )
            settings = ", ".join(f"{name} {value}" for name, value in rows)
        print(f"PostgreSQL {server.major} (fsync off, {settings}), Python {sys.version.split()[0]}, ", end="")
        print(f"{os.cpu_count()} cores{', quick: the figures mean nothing' if quick else ''}")
        for name in arguments.what or measures:
            print()
            for line in measures[name](server):
                print(line, flush=True)
    print("\nload of the machine: " + " ".join(f"{load:.1f}" for load in (*started, *os.getloadavg())))


if __name__ == "__main__":
    main()
