"""Runs, ticks and retention, also with a log of ten million runs: `script/bench runtime`.

Everything is measured on one disposable server, in one run; what is compared takes turns. The server does not
wait for its disk (fsync is off), so that only work is counted.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from benchmarks.measure import compare
from reconciler.core.config import Policy, Target
from reconciler.database.apply import apply_target
from reconciler.database.connect import connect
from reconciler.database.queries import load_queries
from reconciler.database.statements import Request
from reconciler.runtime.local import start_local_server, stop_local_server
from tests.declared import job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg import Connection

CALLS = 100
JOBS = 10_000
OLD_RUNS = 1_000_000
OLD_DETAILS = 100_000
RUNS = 10_000_000
RUNS_OF_ONE = 1_000_000
LOG = "cron_execution_log"
DIRECTORY = Path(".reconciler/bench")

_START: LiteralString = """
INSERT INTO reconciler.cron_execution_log
       (job_name, definition_id, trigger, role, backend_pid, revision, lock_key)
SELECT name, id, 'manual', session_user, pg_backend_pid(), revision, lock_key
  FROM reconciler.definitions WHERE name = %s
RETURNING id
"""
_END: LiteralString = """
UPDATE reconciler.cron_execution_log
   SET status = 'succeeded', completed_at = clock_timestamp(), rows_affected = %s
 WHERE id = %s
"""
_COUNT: LiteralString = """
UPDATE reconciler.job_states
   SET last_run_id = %s, last_run_at = clock_timestamp(), last_status = 'succeeded', last_error = NULL,
       last_succeeded_at = clock_timestamp(), consecutive_failures = 0, total_runs = total_runs + 1
 WHERE name = %s
"""
_ADD_RUNS: LiteralString = """
INSERT INTO reconciler.cron_execution_log
       (job_name, definition_id, run_at, completed_at, status, error_message, rows_affected, role,
        backend_pid, lock_key, trigger)
SELECT d.name, d.id, now() - age, now() - age + (n %% 1000) * interval '1 millisecond',
       CASE WHEN n %% 100 = 0 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN n %% 100 = 0 THEN 'division by zero' END, 1, 'postgres', 1, d.lock_key, 'schedule'
  FROM generate_series(1, %(count)s) AS n
 CROSS JOIN LATERAL (
       SELECT %(oldest)s::interval - n * (%(oldest)s::interval - %(newest)s::interval) / %(count)s) AS a (age)
  JOIN reconciler.definitions d
    ON d.name = 'job-' || lpad((CASE WHEN n %% 10 = 0 THEN 0 ELSE n %% %(jobs)s END)::text, 5, '0')
"""
_ADD_DETAILS: LiteralString = """
INSERT INTO cron.job_run_details (runid, jobid, username, status, start_time, end_time)
SELECT n, 1, 'postgres', 'succeeded', now() - interval '8 days', now() - interval '8 days'
  FROM generate_series(1, %s) AS n
"""
_INDEXES: LiteralString = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
 WHERE indrelid = 'reconciler.cron_execution_log'::regclass AND NOT indisprimary
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One line of the report about something that has no contestant.

    Attributes:
        title: What was done.
        seconds: How long each time took.
        bound: The most that the median may be, in seconds; None where there is no bound.
    """

    title: str
    seconds: list[float]
    bound: float | None = None

    def render(self) -> str:
        """Return the line as text."""
        least, median, most = (f(self.seconds) * 1000 for f in (min, statistics.median, max))
        verdict = ""
        if self.bound is not None:
            verdict = (
                f"  bound {self.bound * 1000:g} ms: {'met' if median <= self.bound * 1000 else 'MISSED'}"
            )
        return f"{self.title}\n    least {least:.2f} ms, median {median:.2f} ms, most {most:.2f} ms{verdict}"


def time_each(run: Callable[[], object], times: int) -> list[float]:
    """Time something that many times, each time by itself."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds


def repeat(run: Callable[[], object]) -> None:
    """Do something as often as the comparisons do."""
    for _ in range(CALLS):
        run()


def name_job(number: int) -> str:
    """Return the name of a declared job."""
    return f"job-{number:05d}"


def declare_jobs(dsn: str) -> None:
    """Apply the jobs, to a server that an interrupted benchmark may have left."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
        conn.execute("DELETE FROM cron.job")
    target = Target(name="bench", policy=Policy(prune="never"))
    specs = tuple(job(name_job(number)) for number in range(JOBS))
    with connect(dsn) as conn:
        apply_target(conn, Request(specs=specs, owner="bench", target=target))


def run_by_hand(conn: Connection, name: str, lock_key: int) -> None:
    """Do what a client would have to send to log a run under its lock, and nothing more."""
    conn.execute("SELECT pg_try_advisory_lock(%s)", [lock_key])
    row = conn.execute(_START, [name]).fetchone()
    assert row is not None
    with conn.transaction():
        affected = conn.execute("SELECT 1").rowcount
        conn.execute(_END, [affected, row[0]])
        conn.execute(_COUNT, [row[0], name])
    conn.execute("SELECT pg_advisory_unlock(%s)", [lock_key])


def run_job(conn: Connection, name: str) -> None:
    """Run a job as its entry does."""
    conn.execute("CALL reconciler.run_job(%s)", [name])


def measure_runs(dsn: str) -> Iterator[str]:
    """Compare a run with the same work sent by hand, and with nothing but its body."""
    name = name_job(1)
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute("SELECT lock_key FROM reconciler.definitions WHERE name = %s", [name]).fetchone()
        assert row is not None
        yield compare(
            f"{CALLS} runs of SELECT 1 by run_job against the same writes sent by hand",
            {
                "run_job": partial(repeat, partial(run_job, conn, name)),
                "by hand": partial(repeat, partial(run_by_hand, conn, name, row[0])),
                "bare SELECT 1": partial(repeat, partial(conn.execute, "SELECT 1")),
            },
            bound=1.5,
            rounds=50,
        ).render()


def call_fresh(dsn: str, statement: LiteralString) -> float:
    """Time the first statement of a new connection, without connecting."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        begin = time.perf_counter()
        conn.execute(statement)
        return time.perf_counter() - begin


def measure_ticks(dsn: str, what: str) -> Iterator[str]:
    """Time ticks that find nothing to do."""
    fresh = [call_fresh(dsn, "CALL reconciler.tick()") for _ in range(50)]
    yield Timed(title=f"an idle tick, {what}, first of its connection", seconds=fresh, bound=0.02).render()
    with psycopg.connect(dsn, autocommit=True) as conn:
        again = time_each(partial(conn.execute, "CALL reconciler.tick()"), 51)[1:]
    yield Timed(title=f"an idle tick, {what}, again", seconds=again, bound=0.02).render()


def clear_in_batches(dsn: str, statement: LiteralString) -> list[float]:
    """Call a function that deletes a batch until none is left; time each call, which is a transaction."""
    seconds = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        while True:
            begin = time.perf_counter()
            row = conn.execute(statement).fetchone()
            seconds.append(time.perf_counter() - begin)
            if row == (0,):
                return seconds


def measure_retention(dsn: str) -> Iterator[str]:
    """Time how long old rows take to go, and for how long one transaction holds its locks."""
    batches: dict[str, LiteralString] = {
        f"{OLD_RUNS} old runs": "SELECT reconciler.clear_history('30 days', 1000)",
        f"{OLD_DETAILS} old details of pg_cron": "SELECT reconciler.clear_details('7 days', 1000)",
    }
    fill(dsn)
    for title, statement in batches.items():
        seconds = clear_in_batches(dsn, statement)
        yield f"{title} in {len(seconds)} batches: {sum(seconds):.1f} s"
        yield Timed(title="one batch, which is one transaction", seconds=seconds).render()
        verdict = "met" if max(seconds) < 0.1 else "MISSED"
        yield f"    the longest transaction: bound 100 ms: {verdict}"
    fill(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        ticks = time_each(partial(conn.execute, "CALL reconciler.tick()"), 10)
        yield Timed(title="a tick that clears 10 batches of both", seconds=ticks).render()
        begin = time.perf_counter()
        conn.execute("CALL reconciler.clear_all_history()")
        yield f"clear_all_history of the rest: {time.perf_counter() - begin:.1f} s"
        conn.execute("VACUUM ANALYZE reconciler.cron_execution_log")


def fill(dsn: str) -> None:
    """Put old rows into both histories."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE reconciler.cron_execution_log")
        conn.execute(_ADD_RUNS, {"count": OLD_RUNS, "oldest": "60 days", "newest": "31 days", "jobs": JOBS})
        conn.execute("DELETE FROM cron.job_run_details")
        conn.execute(_ADD_DETAILS, [OLD_DETAILS])


def grow_log(dsn: str) -> str:
    """Put ten million runs of the last 29 days into the log, one in ten of them of a single job."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        indexes = conn.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            conn.execute(f"DROP INDEX {name}".encode())
        conn.execute(_ADD_RUNS, {"count": RUNS, "oldest": "29 days", "newest": "1 hour", "jobs": JOBS})
        for _, definition in indexes:
            conn.execute(definition.encode())
        conn.execute("VACUUM ANALYZE reconciler.cron_execution_log")
        row = conn.execute(
            "SELECT pg_size_pretty(pg_total_relation_size('reconciler.cron_execution_log'))"
        ).fetchone()
    assert row is not None
    return str(row[0])


def list_reads(run_id: int) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """List what people and programs ask of the log: a title, a query, its parameters."""
    queries = load_queries("runs")
    arguments: dict[str, Any] = {"name": name_job(0), "since": None, "statuses": None, "limit": 20}
    arguments |= {"id": run_id, "chain_id": run_id}
    yield "runs", queries["list_runs"], arguments
    yield "runs --since 1d", queries["list_runs"], {**arguments, "since": "1 day"}
    yield "runs --failed", queries["list_runs"], {**arguments, "statuses": ["failed", "timed_out", "lost"]}
    yield "runs --status lost (there is none)", queries["list_runs"], {**arguments, "statuses": ["lost"]}
    yield f"runs of a job with {RUNS_OF_ONE}", queries["list_runs_of"], arguments
    yield "the same, failed", queries["list_runs_of"], {**arguments, "statuses": ["failed"]}
    yield "the same, lost (there is none)", queries["list_runs_of"], {**arguments, "statuses": ["lost"]}
    yield "one run", queries["read_run"], arguments
    yield "the attempts of a run", queries["list_attempts"], arguments
    health = "SELECT * FROM reconciler.cron_job_health"
    yield "cron_job_health of one job", health + " WHERE name = %(name)s", arguments
    yield f"cron_job_health of {JOBS} jobs", health, {}


def walk(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Go through the nodes of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from walk(below)


def measure_reads(dsn: str) -> Iterator[str]:
    """Time what is read from the full log, and see that an index is used."""
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        row = conn.execute("SELECT max(id) FROM reconciler.cron_execution_log").fetchone()
        assert row is not None
        for title, query, arguments in list_reads(row[0]):
            found = conn.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), arguments or None).fetchone()
            assert found is not None
            plan = found[0] if isinstance(found[0], list) else json.loads(found[0])
            scanned = [n for n in walk(plan[0]["Plan"]) if n.get("Relation Name") == LOG]
            assert scanned, title
            assert not [n for n in scanned if n["Node Type"] == "Seq Scan"], (title, plan)
            execute = partial(conn.execute, query.encode(), arguments or None)
            yield Timed(title=f"{title}: by index", seconds=time_each(execute, 5)).render()


def count_seq_scans(conn: Connection) -> int:
    """Return how often the whole log was read."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    row = conn.execute("SELECT pg_stat_get_numscans('reconciler.cron_execution_log'::regclass)").fetchone()
    assert row is not None
    return int(row[0])


def measure_growth(dsn: str) -> Iterator[str]:
    """Time runs and ticks with an empty log, and again with a full one."""
    runs = {}
    for what in ("empty", "full"):
        if what == "full":
            yield f"\na log of {RUNS} runs: {grow_log(dsn)}"
        with psycopg.connect(dsn, autocommit=True) as conn:
            before = count_seq_scans(conn)
            for number in (0, 1):
                name = name_job(number)
                run_job(conn, name)
                runs[what, number] = time_each(partial(run_job, conn, name), 5 * CALLS)
                kind = f"a job with {RUNS_OF_ONE} runs" if number == 0 and what == "full" else "a job"
                yield Timed(title=f"run_job of {kind}, {what} log", seconds=runs[what, number]).render()
            yield from measure_ticks(dsn, f"{JOBS} definitions, {what} log")
            if what == "full":
                assert count_seq_scans(conn) == before, "a run or a tick reads the whole log"
    yield from measure_reads(dsn)


def main() -> None:
    """Measure everything and print it as it comes."""
    started = os.getloadavg()
    server = start_local_server(DIRECTORY)
    try:
        print(f"PostgreSQL {server.major}, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
        declare_jobs(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
        for measure in (measure_runs, measure_retention, measure_growth):
            for line in measure(server.dsn):
                print(line, flush=True)
    finally:
        stop_local_server(DIRECTORY, purge=True)
    print("\nload of the machine: " + " ".join(f"{load:.1f}" for load in (*started, *os.getloadavg())))


if __name__ == "__main__":
    main()
