"""How late a time limit is enforced, by pg_cron itself, in each version and mode: `script/bench timeouts`.

Wants the two servers of the tests (`script/bootstrap --tests`). The tool's entries are declared as `apply`
does by default. Three jobs that would sleep for ten minutes are started again and again, each time with
another limit.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, LiteralString

from reconciler.core.config import Policy, Runtime, Target
from reconciler.database.apply import apply_target
from reconciler.database.connect import connect
from reconciler.database.statements import Request
from tests.declared import job
from tests.server_pool import ServerPool
from tests.servers import ALL_KINDS

if TYPE_CHECKING:
    from tests.servers import Server

JOBS = 3
RUNS = 30
GIVE_UP_AFTER = 600.0
_LATENESS: LiteralString = """
SELECT extract(epoch FROM completed_at - deadline_at)::float8
  FROM reconciler.cron_execution_log WHERE status = 'timed_out' ORDER BY id
"""
_LIMIT: LiteralString = "UPDATE reconciler.policies SET timeout = %s * interval '1 second' WHERE name = %s"


def measure(server: Server) -> list[float]:
    """Let runs pass their limits, and return how many seconds later each of them was over."""
    has_seconds = server.pg_cron >= (1, 5, 0)
    jobs = [
        job(
            f"sleep-{n}",
            "SELECT pg_sleep(600)",
            schedule="1 second" if has_seconds else "* * * * *",
            timeout="1s",
        )
        for n in range(JOBS)
    ]
    target = Target(name="bench", policy=Policy(prune="never"), runtime=Runtime())
    with connect(server.dsn) as conn:
        apply_target(conn, Request(specs=tuple(jobs), owner="bench", target=target))
    late: list[float] = []
    give_up_at = time.monotonic() + GIVE_UP_AFTER
    dice = random.Random(1)
    with server.connect() as conn:
        while len(late) < RUNS and time.monotonic() < give_up_at:
            for spec in jobs:
                # What the next run gets; up to a minute where only a full minute starts runs.
                conn.execute(_LIMIT, [dice.uniform(1, 15 if has_seconds else 58), spec.name])
            time.sleep(0.5)
            late = [row[0] for row in conn.execute(_LATENESS)]
        conn.execute("DELETE FROM cron.job")
        unstopped = conn.execute(
            "SELECT count(*) FROM reconciler.cron_execution_log WHERE status NOT IN ('running', 'timed_out')"
        ).fetchone()
    assert unstopped == (0,), "a run ended by itself"
    return late


def main() -> None:
    """Measure all servers at once, and print one line each."""
    pool = ServerPool()
    try:
        servers = [pool.get(kind) for kind in ALL_KINDS]
        with ThreadPoolExecutor(len(servers)) as threads:
            results = list(threads.map(measure, servers))
    finally:
        pool.close()
    print(f"seconds from the deadline to the end of a run; Python {sys.version.split()[0]}\n")
    print(f"{'server':24} {'runs':>5} {'least':>7} {'median':>7} {'most':>7}")
    for server, late in zip(servers, results, strict=True):
        numbers = (min(late), statistics.median(late), max(late))
        print(f"{server.kind.name:24} {len(late):5} " + " ".join(f"{number:7.2f}" for number in numbers))


if __name__ == "__main__":
    main()
