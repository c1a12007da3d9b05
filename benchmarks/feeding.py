"""Keep a running worker of ours busy: put jobs as quickly as it does them, and see how many it has done."""

from __future__ import annotations

import mmap
import struct
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from benchmarks.contestants import list_contestants, working

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 5000
BATCH = 1000


class Feeder:
    """Puts jobs in batches as long as fewer than DEPTH wait, in a thread.

    Attributes:
        put: How many were put.
        limit: After how many it stops; None for never.
    """

    def __init__(self, dsn: str, progress: mmap.mmap, limit: int | None) -> None:
        self.put = 0
        self.limit = limit
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
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not self._stop.is_set() and (self.limit is None or self.put < self.limit):
                if self.put - self.done < DEPTH:
                    conn.execute("SELECT count(*) FROM reconciler.enqueue_many(%s)", [batch])
                    self.put += BATCH
                else:
                    self._stop.wait(0.005)

    def measure_rate(self, seconds: float) -> float:
        """Return how many jobs a second the worker does, over so many seconds from now."""
        begin, done = time.monotonic(), self.done
        time.sleep(seconds)
        return (self.done - done) / (time.monotonic() - begin)

    def stop(self) -> None:
        """Put no more."""
        self._stop.set()
        self._thread.join()


@contextmanager
def busy_worker(dsn: str, *, limit: int | None = None) -> Iterator[Feeder]:
    """Run one worker process of ours, and feed it.

    Args:
        dsn: The database.
        limit: How many jobs to put; None for as many as it does until the end.
    """
    ours = list_contestants()[0]
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        with Path(file.name).open("r+b") as shared:
            progress = mmap.mmap(shared.fileno(), 8)
        with working(ours, dsn, BENCH_PROGRESS=file.name):
            feeder = Feeder(dsn, progress, limit)
            try:
                yield feeder
            finally:
                feeder.stop()
