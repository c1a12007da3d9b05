"""Put jobs of ours, many at once; keep a running worker busy with them, and see how many it has done."""

from __future__ import annotations

import mmap
import statistics
import struct
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from benchmarks.contestants import list_contestants, working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

# How many jobs wait at least, as long as there is no rate.
DEPTH = 50_000
BULK = 10_000
BATCH = 100
_PUT: LiteralString = """
INSERT INTO reconciler.jobs_open (handler, payload, queue, run_at, priority)
SELECT 'noop', '{"at": 0}', %(queue)s, clock_timestamp() + n * %(apart)s::interval + %(ahead)s::interval,
       n %% %(priorities)s
  FROM generate_series(1, %(count)s) AS n
"""


def put_jobs(conn: Connection, count: int, **place: Any) -> None:
    """Put many jobs in one statement, past the functions that are for it."""
    defaults = {"queue": "default", "ahead": "0", "apart": "0", "priorities": 1}
    conn.execute(_PUT, {**defaults, **place, "count": count})


class Feeder:
    """Puts jobs in a thread: by enqueue_many at a rate, or in bulk, so that there are always enough.

    Attributes:
        put: How many were put.
        limit: After how many it stops; None for never.
        rate: How many a second; None for as many as the worker does.
    """

    def __init__(self, dsn: str, progress: mmap.mmap, *, limit: int | None, rate: int | None) -> None:
        self.put = 0
        self.limit = limit
        self.rate = rate
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, args=(dsn,), daemon=True)
        self._thread.start()

    @property
    def done(self) -> int:
        """Return how many jobs the worker has begun."""
        return int(struct.unpack("<q", self._progress[:8])[0])

    def _feed(self, dsn: str) -> None:
        batch = "[" + ",".join(['{"handler": "noop", "payload": {"at": 0}}'] * BATCH) + "]"
        begin = time.monotonic()
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not self._stop.is_set() and (self.limit is None or self.put < self.limit):
                if self.rate is None and self.put - self.done < DEPTH:
                    put_jobs(conn, BULK)
                    self.put += BULK
                elif self.rate is not None and time.monotonic() > begin + self.put / self.rate:
                    conn.execute("SELECT count(*) FROM reconciler.enqueue_many(%s)", [batch])
                    self.put += BATCH
                else:
                    self._stop.wait(0.005)

    def measure_rate(self, seconds: float) -> tuple[float, float]:
        """Return how many jobs a second the worker does over so many seconds from now, and how many wait."""
        begin, done = time.monotonic(), self.done
        waiting = []
        while time.monotonic() < begin + seconds:
            time.sleep(0.05)
            waiting.append(self.put - self.done)
        return (self.done - done) / (time.monotonic() - begin), statistics.mean(waiting)

    def stop(self) -> None:
        """Put no more."""
        self._stop.set()
        self._thread.join()


@contextmanager
def busy_worker(dsn: str, *, limit: int | None = None, rate: int | None = None) -> Iterator[Feeder]:
    """Run one worker process of ours, and feed it.

    Args:
        dsn: The database.
        limit: How many jobs to put; None for as many as it does until the end.
        rate: How many a second; None for as many as it does.
    """
    ours = list_contestants()[0]
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        with Path(file.name).open("r+b") as shared:
            progress = mmap.mmap(shared.fileno(), 8)
        with working(ours, dsn, BENCH_PROGRESS=file.name):
            feeder = Feeder(dsn, progress, limit=limit, rate=rate)
            try:
                yield feeder
            finally:
                feeder.stop()
