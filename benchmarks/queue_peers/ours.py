"""This project: `fill JOBS`, `work`, `produce RATE SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import psycopg

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments
from reconciler.runtime import NewJob, enqueue_async, enqueue_many_async
from reconciler.runtime.handlers import Handlers
from reconciler.runtime.worker import Worker

TALLY = Tally()
handlers = Handlers()


@handlers.handler("noop")
async def noop(at: float) -> None:
    """Do nothing."""
    TALLY.note(at)


async def put(what: str, *numbers: str) -> None:
    """Put jobs, many at once or one by one."""
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
        if what == "fill":
            for size in list_batches(int(numbers[0]), 10_000):
                jobs = [NewJob("noop", {"at": time.time()}) for _ in range(size)]
                await enqueue_many_async(conn, jobs)
        else:
            begin = time.time()
            for moment in list_moments(int(numbers[0]), int(numbers[1])):
                await asyncio.sleep(begin + moment - time.time())
                await enqueue_async(conn, "noop", {"at": time.time()})


if __name__ == "__main__":
    if sys.argv[1] == "work":
        concurrency = int(os.environ["BENCH_CONCURRENCY"])
        Worker(os.environ["DATABASE_URL"], handlers, concurrency=concurrency).run()
    else:
        asyncio.run(put(*sys.argv[1:]))
