"""Procrastinate: `fill JOBS`, `work`, `produce RATE SECONDS`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

import procrastinate

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments

# The pool has a connection for each job, and one that listens.
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "10"))
TALLY = Tally()


async def noop(at: float) -> None:
    """Do nothing."""
    TALLY.note(at)


async def fill(app: procrastinate.App, jobs: int) -> None:
    """Make the schema, and put jobs."""
    await app.schema_manager.apply_schema_async()
    for size in list_batches(jobs, 1000):
        await app.tasks["noop"].batch_defer_async(*({"at": time.time()} for _ in range(size)))


async def produce(app: procrastinate.App, rate: int, seconds: int) -> None:
    """Put single jobs at a steady rate."""
    begin = time.time()
    for moment in list_moments(rate, seconds):
        await asyncio.sleep(begin + moment - time.time())
        await app.tasks["noop"].defer_async(at=time.time())


async def main() -> None:
    """Do what the arguments say."""
    # It warns that this is the main module.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    connector = procrastinate.PsycopgConnector(
        conninfo=os.environ["DATABASE_URL"], min_size=1, max_size=CONCURRENCY + 1
    )
    app = procrastinate.App(connector=connector)
    app.task(name="noop")(noop)
    what, *numbers = sys.argv[1:]
    async with app.open_async():
        if what == "fill":
            await fill(app, int(numbers[0]))
        elif what == "produce":
            await produce(app, int(numbers[0]), int(numbers[1]))
        else:
            await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="never")


if __name__ == "__main__":
    asyncio.run(main())
