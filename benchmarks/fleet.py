"""Plan and apply on 200 databases of one server: one process, one for each, and bare connections."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from reconciler.errors import LocalServerError
from reconciler.runtime.local import start_local_server, stop_local_server
from tests.installations import find_test_installation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DIRECTORY = Path(".reconciler/bench-fleet")
ROUNDS = 2
_TEMPLATE = "fleet-template"
_CONFIG = """\
owner: bench
target_defaults: {{dsn: "{dsn}", prune: auto, runtime: false, wave: 1}}
targets:
{targets}
"""
_JOB = """\
  job-{number:03d}: {{schedule: "{minute} 3 * * *", sql: "DELETE FROM t{number} WHERE old"}}
"""
_SCHEDULE = """
    SELECT cron.schedule_in_database(name, schedule, command, current_database())
      FROM unnest(%s::text[], %s::text[], %s::text[]) AS t (name, schedule, command)
"""
_RENEW = """
    DELETE FROM cron.job;
    DELETE FROM reconciler.definitions;
    DELETE FROM reconciler.revisions;
    DELETE FROM reconciler.identity;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Databases on one server, and a folder that declares jobs for them.

    Attributes:
        admin: A connection string to none of them.
        names: Of the databases, and of the targets.
        jobs: How many each of them has.
        folder: With reconciler.yaml.
    """

    admin: str
    names: Sequence[str]
    jobs: int
    folder: Path

    def dsn(self, name: str) -> str:
        """Return the connection string of one database."""
        return make_conninfo(self.admin, dbname=name)

    def create(self) -> None:
        """Make the databases."""
        with psycopg.connect(self.admin, autocommit=True) as conn:
            for name in self.names:
                conn.execute(_copy(name, _TEMPLATE))

    def renew(self) -> None:
        """Make all databases as they were; dropping and creating them takes minutes."""
        self.do_bare(lambda conn: conn.execute(_RENEW), parallel=4)

    def write(self) -> None:
        """Write the configuration and the one spec file."""
        dsn = make_conninfo(self.admin, dbname="DATABASE").replace("DATABASE", "${target}")
        lines = [f"  {name}: {{{'wave: 0' if name == self.names[0] else ''}}}" for name in self.names]
        (self.folder / "reconciler.yaml").write_text(_CONFIG.format(dsn=dsn, targets="\n".join(lines)))
        (self.folder / "jobs.d").mkdir()
        jobs = "".join(_JOB.format(number=number, minute=number % 60) for number in range(self.jobs))
        (self.folder / "jobs.d" / "all.yaml").write_text(f"jobs:\n{jobs}")

    def run(self, *args: str) -> None:
        """Run the command line to its end."""
        subprocess.run(
            [sys.executable, "-m", "reconciler", *args],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run_once(self, command: str, *options: str, parallel: int) -> None:
        """Do a command on all databases in one process."""
        self.run(command, "-t", "tenant-*", "--parallel", str(parallel), *options)

    def run_each(self, command: str, *options: str) -> None:
        """Do a command in one process for each database, one by one."""
        for name in self.names:
            self.run(command, "-t", name, *options)

    def do_bare(self, work: Callable[[psycopg.Connection], object], *, parallel: int) -> None:
        """Connect to each database and do the least, in threads."""

        def visit(name: str) -> None:
            with psycopg.connect(self.dsn(name), autocommit=True) as conn:
                work(conn)

        with ThreadPoolExecutor(parallel) as pool:
            for _ in pool.map(visit, self.names):
                pass

    def schedule(self, conn: psycopg.Connection) -> None:
        """Make the same entries as an apply does."""
        names = [f"job-{number:03d}" for number in range(self.jobs)]
        schedules = [f"{number % 60} 3 * * *" for number in range(self.jobs)]
        commands = [f"CALL reconciler.run_job('{name}')" for name in names]
        with conn.transaction():
            conn.execute(_SCHEDULE, (names, schedules, commands))


def _copy(name: str, template: str) -> sql.Composed:
    return sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))


def make_template(dsn: str, admin: str) -> None:
    """Copy the database that has the extension, and bring our schema there once."""
    with psycopg.connect(admin, autocommit=True) as conn:
        source = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        # pg_cron's launcher is connected to it, and comes back after a second.
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [source])
        conn.execute(_copy(_TEMPLATE, str(source)))
    with connect(make_conninfo(admin, dbname=_TEMPLATE)) as conn:
        migrate_target(conn)
        conn.execute("DELETE FROM reconciler.identity")  # else the databases are copies of it


def remove_server() -> None:
    """Stop and remove the server, whose files are so many that it may take more than one attempt."""
    for left in reversed(range(10)):
        try:
            stop_local_server(DIRECTORY, purge=True)
        except LocalServerError:
            if not left:
                raise
        else:
            return


def measure(
    title: str, contestants: dict[str, tuple[int, Callable[[], None]]], prepare: Callable[[], None]
) -> None:
    """Time contestants in turns and print the best of each against the first.

    Args:
        title: What is done.
        contestants: How many rounds and what to do, by name, ours first.
        prepare: What comes before each, untimed.
    """
    best = dict.fromkeys(contestants, float("inf"))
    for number in range(ROUNDS):
        for name, (rounds, run) in contestants.items():
            if number < rounds:
                prepare()
                begin = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - begin)
    print(f"\n{title}")
    ours = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"    {seconds:8.2f} s  {seconds / ours:6.2f}  {name}", flush=True)


def measure_all(fleet: Fleet) -> None:
    """Measure apply on empty databases, then plan with nothing to do."""
    count = f"{fleet.jobs} jobs on each of {len(fleet.names)} databases"
    apply = partial(fleet.run_once, "apply", "--yes")
    measure(
        f"apply {count}, from nothing",
        {
            "one process, --parallel 4": (ROUNDS, partial(apply, parallel=4)),
            "one process, --parallel 1": (1, partial(apply, parallel=1)),
            "one process, --parallel 16": (1, partial(apply, parallel=16)),
            "bare connections, 4 at once": (ROUNDS, partial(fleet.do_bare, fleet.schedule, parallel=4)),
            "bare connections, one by one": (1, partial(fleet.do_bare, fleet.schedule, parallel=1)),
            "a process for each, one by one": (1, partial(fleet.run_each, "apply", "--yes")),
        },
        fleet.renew,
    )
    fleet.renew()
    apply(parallel=4)
    plan = partial(fleet.run_once, "plan")

    def select(conn: psycopg.Connection) -> None:
        conn.execute("SELECT * FROM cron.job").fetchall()

    measure(
        f"plan {count}, nothing to do",
        {
            "one process, --parallel 4": (ROUNDS, partial(plan, parallel=4)),
            "one process, --parallel 1": (1, partial(plan, parallel=1)),
            "one process, --parallel 16": (1, partial(plan, parallel=16)),
            "bare connections and a SELECT, 4 at once": (ROUNDS, partial(fleet.do_bare, select, parallel=4)),
            "a process for each, one by one": (1, partial(fleet.run_each, "plan")),
        },
        lambda: None,
    )


def main() -> None:
    """Run everything and print a table each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--databases", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="Ten databases, to see that it works.")
    options = parser.parse_args()
    count = 10 if options.quick else options.databases
    remove_server()
    try:
        server = start_local_server(DIRECTORY, installation=find_test_installation(17))
        admin = make_conninfo(server.dsn, dbname="postgres")
        make_template(server.dsn, admin)
        print(f"PostgreSQL {server.major}, Python {sys.version.split()[0]}, {os.cpu_count()} cores,", end=" ")
        print(f"load {os.getloadavg()[0]:.1f} at the beginning")
        with tempfile.TemporaryDirectory() as folder:
            names = [f"tenant-{number:03d}" for number in range(count)]
            fleet = Fleet(admin=admin, names=names, jobs=options.jobs, folder=Path(folder))
            fleet.write()
            begin = time.perf_counter()
            fleet.create()
            print(f"{count} databases made in {time.perf_counter() - begin:.0f} s", flush=True)
            measure_all(fleet)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    finally:
        remove_server()


if __name__ == "__main__":
    main()
