"""Worker processes for tests: `reconciler worker` with handlers that write down when they begin and end.

They write to a file, and not to the database: it outlives whatever becomes of process, network and server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import psycopg

APP = '''\
"""Handlers that tests give to workers."""

import asyncio
import os
import threading
import time

from reconciler.runtime.handlers import Handlers

handlers = Handlers()
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(what, job):
    os.write(log, f"{what} {job.id} {os.getpid()} {job.attempt}\\n".encode())


@handlers.handler("work.do")
async def work(job, seconds=0.0, **_):
    note("begin", job)
    await asyncio.sleep(seconds)
    note("end", job)
    return {"pid": os.getpid()}


@handlers.handler("work.sync")
def work_in_thread(job, seconds=0.0, **_):
    note("begin", job)
    time.sleep(seconds)
    note("end", job)


@handlers.handler("work.gate")
async def wait_for_the_file_open(job):
    note("begin", job)
    while not os.path.exists("open"):
        await asyncio.sleep(0.02)
    note("end", job)
    return {"pid": os.getpid()}


@handlers.handler("work.raise")
async def fail(job):
    note("begin", job)
    raise LookupError("no such order")


@handlers.handler("work.hang")
async def hang(job):
    note("begin", job)
    await asyncio.Event().wait()


@handlers.handler("work.hang_sync")
def hang_in_thread(job):
    note("begin", job)
    threading.Event().wait()


@handlers.handler("work.block")
async def block(job, seconds):
    note("begin", job)
    time.sleep(seconds)
    note("end", job)


@handlers.handler("work.odd")
async def return_what_json_cannot_hold(job):
    note("begin", job)
    return object()


@handlers.handler("work.size")
async def size(job, text):
    note("begin", job)
    return {"size": len(text), "text": text}


@handlers.handler("work.die")
async def die(job):
    note("begin", job)
    os._exit(9)
'''

SKEW = '''\
"""Shifts the clock of the process, as far as Python looks at it."""

import datetime
import os
import time

BY = float(os.environ["SKEW"])
real_time, real_datetime = time.time, datetime.datetime


class Shifted(real_datetime):
    @classmethod
    def now(cls, tz=None):
        return real_datetime.now(tz) + datetime.timedelta(seconds=BY)

    @classmethod
    def utcnow(cls):
        return real_datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(seconds=BY)


time.time = lambda: real_time() + BY
time.time_ns = lambda: int((real_time() + BY) * 1e9)
datetime.datetime = Shifted
'''


@dataclass
class Crew:
    """Worker processes with one log.

    Attributes:
        folder: Where they run.
        dsn: Where the queues are.
        processes: All that were started.
    """

    folder: Path
    dsn: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "app.py").write_text(APP, encoding="utf-8")
        (self.folder / "skew").mkdir(exist_ok=True)
        (self.folder / "skew" / "sitecustomize.py").write_text(SKEW, encoding="utf-8")
        (self.folder / "log").touch()

    def start(
        self,
        *options: str,
        queue: str = "default",
        concurrency: int = 5,
        dsn: str | None = None,
        skew: float | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker.

        Args:
            *options: More of `reconciler worker`.
            queue: Which it serves.
            concurrency: How many jobs at once.
            dsn: Another way to the queues.
            skew: Seconds by which its clock is wrong.
            prefix: What comes before its command.
        """
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("RECONCILER_", "PG"))
        }
        if skew is not None:
            env |= {"SKEW": str(skew), "PYTHONPATH": str(self.folder / "skew")}
        command = [
            *prefix, sys.executable, "-m", "reconciler", "worker", "--dsn", dsn or self.dsn, "--app", "app",
            "--queue", queue, "--concurrency", str(concurrency), "--poll", "200ms", *options,
        ]  # fmt: skip
        with (self.folder / f"stderr.{len(self.processes)}").open("wb") as stderr:
            process = subprocess.Popen(command, cwd=self.folder, env=env, stderr=stderr)
        self.processes.append(process)
        return process

    def stderr(self, number: int = 0) -> str:
        """Return what a worker said, by the order in which they were started."""
        return (self.folder / f"stderr.{number}").read_text(encoding="utf-8")

    def noted(self, what: str) -> Counter[int]:
        """Return how often each job did something: begin or end."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{what} "))

    def most_at_once(self) -> int:
        """Return how many jobs were being done at once at most, by the order of what was written."""
        inside = most = 0
        for line in (self.folder / "log").read_text(encoding="utf-8").splitlines():
            inside += 1 if line.startswith("begin ") else -1
            most = max(most, inside)
        return most

    def wait_for(self, what: str, count: int, *, seconds: float = 20) -> None:
        """Wait until so many jobs have begun or ended."""
        wait_until(
            lambda: len(self.noted(what)) >= count,
            seconds=seconds,
            what=f"{count} jobs {what}: {self.said()}",
        )

    def said(self) -> str:
        """Return what all workers said."""
        return "\n".join(self.stderr(number) for number in range(len(self.processes)))

    def close(self) -> None:
        """End every worker."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(10)


def put(
    conn: psycopg.Connection, count: int, queue: str = "default", handler: str = "work.do", **payload: Any
) -> None:
    """Put many jobs that are due on a queue, for the handlers of the workers."""
    conn.execute(
        "INSERT INTO reconciler.jobs (handler, queue, payload, ordering_key)"
        " SELECT %s, %s, %s, reconciler.find_order(%s, NULL) FROM generate_series(1, %s)",
        [handler, queue, Jsonb(payload), queue, count],
    )
