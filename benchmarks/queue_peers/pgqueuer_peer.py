"""PgQueuer on asyncpg: `fill JOBS`, `work`, `produce RATE SECONDS`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments

if TYPE_CHECKING:
    from pgqueuer.models import Job

BATCH = int(os.environ.get("BENCH_BATCH", "100"))
TALLY = Tally()


async def noop(job: Job) -> None:
    """Do nothing."""
    TALLY.note(float(job.payload or b"0"))


async def fill(queries: Queries, jobs: int) -> None:
    """Make the schema as `pgq install` and `pgq autovac` do, and put jobs."""
    await queries.install()
    await queries.optimize_autovacuum()
    for size in list_batches(jobs, 5000):
        now = str(time.time()).encode()
        await queries.enqueue(["noop"] * size, [now] * size, [0] * size)


async def produce(queries: Queries, rate: int, seconds: int) -> None:
    """Put single jobs at a steady rate."""
    begin = time.time()
    for moment in list_moments(rate, seconds):
        await asyncio.sleep(begin + moment - time.time())
        await queries.enqueue("noop", str(time.time()).encode())


async def main() -> None:
    """Do what the arguments say."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    what, *numbers = sys.argv[1:]
    if what == "fill":
        await fill(Queries.from_asyncpg_connection(connection), int(numbers[0]))
    elif what == "produce":
        await produce(Queries.from_asyncpg_connection(connection), int(numbers[0]), int(numbers[1]))
    else:
        manager = PgQueuer.from_asyncpg_connection(connection)
        manager.entrypoint("noop")(noop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.shutdown.set)
        await manager.run(batch_size=BATCH)


if __name__ == "__main__":
    uvloop.run(main())
