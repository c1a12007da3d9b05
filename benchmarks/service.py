"""Reads of jobs over HTTP: how long they take at a constant 500 a second, beside the least that does it.

The service is the process that `reconciler serve` starts, on 10,000 jobs and 100,000 runs. The client is a
process of its own that sends at constant intervals, whatever becomes of the answers. Beside it: a bare
FastAPI route that makes the same queries, and the same queries by psycopg without HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.queue_server import queue_server
from benchmarks.service_reads import read_one, read_page
from benchmarks.service_site import DIRECTORY, JOBS, RUNS, fill_database, make_name
from reconciler.api.paging import encode_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOUND: Final = 0.050
"""Seconds: the p99 of our own may not be longer."""
_PAGES: Final = 20
"""One of so many reads is a page of 50 jobs; the others are one job each."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """What is measured.

    Attributes:
        name: For people.
        command: That serves; `{port}` stands for the port.
        one: The path of one job; `{}` stands for its name.
        page: The path of a page; `{}` stands for where the page before ended.
        is_ours: Whether that is told as our cursors tell it.
    """

    name: str
    command: Sequence[str]
    one: str
    page: str
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of it.

    Attributes:
        latencies: Of all answers, ascending, in seconds.
        errors: How many of each kind.
        server: Seconds of processor time that the server took.
        client: Likewise the client.
        database: Likewise PostgreSQL.
    """

    latencies: list[float]
    errors: dict[str, int]
    server: float
    client: float
    database: float

    def quantile(self, part: float) -> float:
        """Return a quantile of the latencies in seconds."""
        if not self.latencies:
            return float("inf")
        return self.latencies[min(len(self.latencies) - 1, int(part * len(self.latencies)))]


def list_paths(contestant: Contestant, count: int = 5000) -> list[str]:
    """List what is asked for, the same of each contestant."""
    chance = random.Random(7)
    paths = []
    for number in range(count):
        name = make_name(chance.randrange(JOBS))
        if number % _PAGES == 0:
            paths.append(contestant.page.format(encode_cursor([name, 0]) if contestant.is_ours else name))
        else:
            paths.append(contestant.one.format(name))
    return paths


@contextmanager
def serving(contestant: Contestant, port: int) -> Iterator[int]:
    """Run a server as long as it is needed.

    Yields:
        Its process.
    """
    command = [part.format(port=port) for part in contestant.command]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a session of its own has a share of the processors of its own
    )
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    import socket

    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {process.stderr.read() if process.stderr else ''}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server does not listen")


def call(contestant: Contestant, port: int, token: str, *, rate: float, seconds: float) -> dict[str, Any]:
    """Let the client call a server, and return what it measured."""
    wish = {
        "host": "127.0.0.1",
        "port": port,
        "token": token,
        "rate": rate,
        "seconds": seconds,
        "paths": list_paths(contestant),
    }
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.service_client"],
        input=json.dumps(wish),
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def measure(
    contestant: Contestant, token: str, postmaster: int, *, port: int, rate: float, seconds: float
) -> Measured:
    """Measure one contestant for once."""
    with serving(contestant, port) as pid:
        call(contestant, port, token, rate=min(rate, 100), seconds=3)  # connections, caches, token
        before = read_seconds(pid), read_tree(postmaster)
        found = call(contestant, port, token, rate=rate, seconds=seconds)
        after = read_seconds(pid), read_tree(postmaster)
    return Measured(
        latencies=found["latencies"],
        errors=found["errors"],
        server=after[0] - before[0],
        client=found["cpu"],
        database=after[1] - before[1],
    )


def measure_bare(dsn: str, *, rate: float, seconds: float) -> Measured:
    """Make the same queries over one connection, paced likewise, without HTTP."""
    latencies = []
    chance = random.Random(7)
    used = time.process_time()
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
        begin = time.perf_counter()
        for number in range(round(rate * seconds)):
            due = begin + number / rate
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            name = make_name(chance.randrange(JOBS))
            if number % _PAGES == 0:
                read_page(conn, name, 50)
            else:
                read_one(conn, name)
            latencies.append(time.perf_counter() - due)
    return Measured(
        latencies=sorted(latencies),
        errors={},
        server=0.0,
        client=time.process_time() - used,
        database=0.0,
    )


def read_seconds(pid: int) -> float:
    """Return the processor time of a process, with that of children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


def read_tree(postmaster: int) -> float:
    """Return the processor time of a PostgreSQL server."""
    total = read_seconds(postmaster)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == postmaster:
            total += sum(map(int, fields[11:13])) / _TICK
    return total


def find_postmaster(dsn: str) -> int:
    """Find the first process of the server: that which made the one of a connection."""
    with psycopg.connect(dsn) as conn:
        stat = Path(f"/proc/{conn.info.backend_pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def render(name: str, found: Measured, *, seconds: float) -> str:
    """Render one line of the report: times in milliseconds, processors in percent of one."""
    quantiles = "".join(f"{found.quantile(part) * 1000:9.2f}" for part in (0.5, 0.95, 0.99))
    worst = (found.latencies[-1] if found.latencies else float("inf")) * 1000
    load = "".join(f"{part / seconds:8.0%}" for part in (found.server, found.database, found.client))
    errors = ", ".join(f"{count} {what}" for what, count in found.errors.items()) or "none"
    return f"{name:24}{quantiles}{worst:9.2f}{load}  {errors}"


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second [500]")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each round [30]")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts [2]")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 3.0, 1
    with queue_server(DIRECTORY) as server:
        dsn, token = fill_database(server, jobs=JOBS, runs=RUNS)
        postmaster = find_postmaster(dsn)
        python = sys.executable
        contestants = (
            Contestant(
                name="reconciler serve",
                command=(python, "-m", "reconciler", "serve", "--dsn", dsn, "--port", "{port}"),
                one="/api/v1/cron/jobs/{}",
                page="/api/v1/cron/jobs?limit=50&cursor={}",
                is_ours=True,
            ),
            Contestant(
                name="bare FastAPI route",
                command=(python, "-m", "benchmarks.service_floor", dsn, "{port}"),
                one="/jobs/{}",
                page="/jobs?limit=50&after={}",
            ),
        )
        best: dict[str, Measured] = {}
        for _ in range(options.rounds):
            for number, contestant in enumerate(contestants):
                found = measure(
                    contestant,
                    token,
                    postmaster,
                    port=18_700 + number,
                    rate=options.rate,
                    seconds=options.seconds,
                )
                _keep(best, contestant.name, found)
            _keep(best, "bare psycopg", measure_bare(dsn, rate=options.rate, seconds=options.seconds / 3))
    report(best, options)


def _keep(best: dict[str, Measured], name: str, found: Measured) -> None:
    if name not in best or (sum(found.errors.values()), found.quantile(0.99)) < (
        sum(best[name].errors.values()),
        best[name].quantile(0.99),
    ):
        best[name] = found


def report(best: dict[str, Measured], options: argparse.Namespace) -> None:
    """Print what was measured, and whether the bound is met."""
    print(
        f"{options.rate:g} requests a second for {options.seconds:g} s; one of {_PAGES} is a page of 50 jobs"
    )
    titles = "".join(f"{title:>9}" for title in ("p50", "p95", "p99", "max"))
    print(f"{'milliseconds':24}{titles}{'server':>8}{'pg':>8}{'client':>8}  errors")
    for name, found in best.items():
        print(render(name, found, seconds=options.seconds))
    ours, floor, bare = best.values()
    for part in (0.5, 0.99):
        print(
            f"p{part * 100:g}: {ours.quantile(part) / floor.quantile(part):.2f} of the bare route, "
            f"{ours.quantile(part) / bare.quantile(part):.1f} of bare psycopg"
        )
    is_met = ours.quantile(0.99) <= BOUND and not ours.errors
    print(f"bound: p99 under {BOUND * 1000:g} ms without an error: {'met' if is_met else 'MISSED'}")


if __name__ == "__main__":
    main()
