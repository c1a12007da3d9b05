"""awa for Python: `fill JOBS`, `work`, `produce RATE SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass

import awa

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments

WORKERS = int(os.environ.get("BENCH_WORKERS", "512"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "10"))
TALLY = Tally()


@dataclass
class Noop:
    """What the job carries.

    Attributes:
        at: When it was put.
    """

    at: float


async def noop(job: awa.Job[Noop]) -> None:
    """Do nothing."""
    TALLY.note(job.args.at)


async def fill(client: awa.AsyncClient, jobs: int) -> None:
    """Make the schema, and put jobs."""
    await client.migrate()
    await client.install_queue_storage()
    for size in list_batches(jobs, 10000):
        await client.enqueue_many_copy([Noop(at=time.time())] * size, queue="bench")


async def produce(client: awa.AsyncClient, rate: int, seconds: int) -> None:
    """Put single jobs at a steady rate."""
    begin = time.time()
    for moment in list_moments(rate, seconds):
        await asyncio.sleep(begin + moment - time.time())
        await client.insert(Noop(at=time.time()), queue="bench")


async def main() -> None:
    """Do what the arguments say."""
    client = awa.AsyncClient(os.environ["DATABASE_URL"], max_connections=CONNECTIONS)
    what, *numbers = sys.argv[1:]
    if what == "fill":
        await fill(client, int(numbers[0]))
    elif what == "produce":
        await produce(client, int(numbers[0]), int(numbers[1]))
    else:
        client.task(Noop, queue="bench")(noop)
        await client.start([("bench", WORKERS)])
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
