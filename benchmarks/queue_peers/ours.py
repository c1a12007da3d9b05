"""This project: `fill JOBS`, `produce RATE SECONDS`; the command `reconciler worker` does the jobs."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import psycopg

from benchmarks.queue_peers.tally import Tally, list_batches, list_moments
from reconciler.runtime import NewJob, enqueue_async, enqueue_many_async
from reconciler.runtime.handlers import Handlers

TALLY = Tally()
handlers = Handlers()


@handlers.handler("noop")
async def noop(at: float) -> None:
    """Do nothing."""
    TALLY.note(at)


async def main() -> None:
    """Do what the arguments say."""
    what, *numbers = sys.argv[1:]
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
    asyncio.run(main())
