"""Oban for Python: `fill JOBS`, `work`, `produce RATE SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

import uvloop
from oban import Oban, worker
from oban.schema import install

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments

if TYPE_CHECKING:
    from oban.job import Job

LIMIT = int(os.environ.get("BENCH_LIMIT", "100"))
TALLY = Tally()


class Noop:
    """A job that does nothing."""

    async def process(self, job: Job) -> None:
        """Do nothing."""
        TALLY.note(job.args["at"])


NOOP = worker(queue="default")(Noop)


async def fill(oban: Oban, pool: object, jobs: int) -> None:
    """Make the schema, and put jobs."""
    await install(pool)
    for size in list_batches(jobs, 1000):
        await oban.enqueue_many(*(NOOP.new({"at": time.time()}) for _ in range(size)))


async def produce(oban: Oban, rate: int, seconds: int) -> None:
    """Put single jobs at a steady rate."""
    begin = time.time()
    for moment in list_moments(rate, seconds):
        await asyncio.sleep(begin + moment - time.time())
        await oban.enqueue(NOOP.new({"at": time.time()}))


async def main() -> None:
    """Do what the arguments say."""
    pool = await Oban.create_pool(os.environ["DATABASE_URL"])
    what, *numbers = sys.argv[1:]
    if what == "fill":
        await fill(Oban(pool=pool), pool, int(numbers[0]))
    elif what == "produce":
        oban = Oban(pool=pool)
        await produce(oban, int(numbers[0]), int(numbers[1]))
    else:
        async with Oban(pool=pool, queues={"default": LIMIT}):
            await asyncio.Event().wait()
    await pool.close()


if __name__ == "__main__":
    uvloop.run(main())
