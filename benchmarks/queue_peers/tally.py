"""Counts jobs in the worker process itself and reports once the last one was begun.

Runs inside the peers' own environments too: needs nothing but the standard library.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
from pathlib import Path


class Tally:
    """What a no-op handler keeps: how many jobs there were, and how late each began.

    The environment says what is wanted. BENCH_JOBS: after how many jobs to report. BENCH_MODE: `latency` to
    keep how long ago each job was put. BENCH_PROGRESS: a file that shows the count to whoever watches.
    """

    def __init__(self) -> None:
        self.jobs = int(os.environ.get("BENCH_JOBS", "0"))
        self.waits: list[float] | None = [] if os.environ.get("BENCH_MODE") == "latency" else None
        self.done = 0
        self.first = self.first_used = 0.0
        self.shown: mmap.mmap | None = None
        if path := os.environ.get("BENCH_PROGRESS"):
            with Path(path).open("r+b") as file:
                self.shown = mmap.mmap(file.fileno(), 8)

    def note(self, put_at: float) -> None:
        """Count one job.

        Args:
            put_at: When it was put, in seconds since 1970.
        """
        self.done += 1
        if self.waits is not None:
            self.waits.append(time.time() - put_at)
        if self.done == 1:
            self.first = time.time()
            self.first_used = time.process_time()
            if self.waits is not None:
                self._say({"begun": self.first})
        if self.shown is not None:
            self.shown[:8] = struct.pack("<q", self.done)
        if self.done == self.jobs:
            used = time.process_time() - self.first_used
            self._say({"first": self.first, "last": time.time(), "used": used, "waits": self.waits})

    def _say(self, report: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


def list_batches(jobs: int, size: int) -> list[int]:
    """Split a number of jobs into batches.

    Args:
        jobs: How many in all.
        size: How many at most in one.

    Returns:
        How many in each.
    """
    return [min(size, jobs - begin) for begin in range(0, jobs, size)]


def list_moments(rate: int, seconds: int) -> list[float]:
    """Return when jobs are to be put, as seconds since the beginning: evenly."""
    return [number / rate for number in range(rate * seconds)]
