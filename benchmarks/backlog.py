"""What becomes of our claims when a million jobs wait, and while somebody holds an old snapshot."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from benchmarks.feeding import busy_worker, put_jobs
from benchmarks.processor import read_seconds
from benchmarks.queue_server import copy_schema, renew_schema
from benchmarks.runtime import walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg import Connection

    from reconciler.runtime.cluster import LocalServer

BATCH = 100
CLAIMED = 20_000
_CLAIM: LiteralString = (
    "SELECT array_agg(id), array_agg(token), count(*) FROM reconciler.claim_jobs('default', 'bench', %s)"
)
_COMPLETE: LiteralString = "SELECT count(*) FROM reconciler.complete_jobs(%s, %s)"
# What waits besides: a title, its place, whether the claimed jobs are put besides or are some of these.
CASES: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("not due, same queue", {"queue": "default", "ahead": "1 hour", "apart": "1 second"}, True),
    (
        "not due, same queue, ten priorities",
        {"queue": "default", "ahead": "1 hour", "apart": "1 second", "priorities": 10},
        True,
    ),
    ("due, another queue", {"queue": "other", "ahead": "-1 hour", "apart": "1 millisecond"}, True),
    ("due, same queue", {"queue": "default", "ahead": "-1 hour", "apart": "1 millisecond"}, False),
)


def judge(ratio: float, bound: float) -> str:
    """Say whether a ratio is high enough."""
    return f"  bound {bound:g} or more: {'met' if ratio >= bound else 'MISSED'}"


def claim_in_turns(databases: tuple[str, str], count: int, *, put: tuple[bool, bool]) -> list[list[float]]:
    """Claim and complete jobs in two databases, a batch here and a batch there.

    Args:
        databases: Their connection strings.
        count: How many in each.
        put: In which of them to put so many before.

    Returns:
        For each the seconds of the claims alone, of claims and completions, and of the server's processor.
    """
    seconds = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    with ExitStack() as stack:
        conns = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for dsn in databases]
        for conn, needed in zip(conns, put, strict=True):
            if needed:
                put_jobs(conn, count, ahead="-1 hour")
            # What dead rows cost is another question: see the snapshot.
            conn.execute("VACUUM ANALYZE reconciler.jobs_open")
        for conn, spent in zip(conns, seconds, strict=True):
            spent[2] -= read_seconds(conn.info.backend_pid)
        for _ in range(count // BATCH):
            for conn, spent in zip(conns, seconds, strict=True):
                begin = time.perf_counter()
                row = conn.execute(_CLAIM, [BATCH]).fetchone()
                claimed = time.perf_counter()
                assert row is not None
                assert row[2] == BATCH, row[2]
                conn.execute(_COMPLETE, row[:2])
                spent[0] += claimed - begin
                spent[1] += time.perf_counter() - begin
        for conn, spent in zip(conns, seconds, strict=True):
            spent[2] += read_seconds(conn.info.backend_pid)
    return seconds


def measure_claims(server: LocalServer, waiting: int, rounds: int) -> Iterator[str]:
    """Compare claims among few jobs with claims among many more, in two databases of one server."""
    yield (
        f"claims of {BATCH} with and without {waiting} more jobs, {CLAIMED} claimed and completed each round,"
        f" batch by batch in turn, after a VACUUM; medians of {rounds} rounds"
    )
    for title, place, put in CASES:
        alone = renew_schema(server)
        full = copy_schema(server)
        with psycopg.connect(alone, autocommit=True) as conn:
            # The copy has no tick either.
            conn.execute("DELETE FROM cron.job")
        with psycopg.connect(full, autocommit=True) as conn:
            put_jobs(conn, waiting, **place)
            conn.execute("VACUUM ANALYZE")
        claim_in_turns((alone, full), CLAIMED // 4, put=(True, put))
        results = [claim_in_turns((alone, full), CLAIMED, put=(True, put)) for _ in range(rounds)]
        here, there = (statistics.median(CLAIMED / result[n][0] for result in results) for n in (0, 1))
        ratio, both, used = (statistics.median(r[0][m] / r[1][m] for r in results) for m in (0, 1, 2))
        yield (
            f"    {title:36} {there:8.0f}/s / {here:8.0f}/s = {ratio:.2f}{judge(ratio, 0.9)}"
            f"  (with completion {both:.2f}, by processor time of both {used:.2f})"
        )


def measure_snapshot(server: LocalServer, seconds: float) -> Iterator[str]:
    """Measure a busy worker before, during and after a transaction that does nothing but hold a snapshot."""
    dsn = renew_schema(server)
    yield f"one worker process, fed as quickly as it works, a snapshot held open for {seconds:g} s"
    with busy_worker(dsn) as feeder:
        feeder.measure_rate(5)
        before, waiting = feeder.measure_rate(seconds / 3)
        with psycopg.connect(dsn) as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.execute("SELECT pg_current_xact_id()")
            quarters = [feeder.measure_rate(seconds / 4) for _ in range(4)]
        during = statistics.mean(rate for rate, _ in quarters)
        after, _ = feeder.measure_rate(seconds / 3)
    ratio = during / before
    yield (
        f"    before {before:.0f}/s, during {during:.0f}/s = {ratio:.2f}{judge(ratio, 0.5)}"
        f"  (quarters {', '.join(f'{rate:.0f}' for rate, _ in quarters)}; after {after:.0f}/s)"
    )
    fewest = min(waiting, *(jobs for _, jobs in quarters))
    yield f"    on average {fewest:.0f} jobs or more were waiting in each part"


def explain(conn: Connection, statement: LiteralString, arguments: Any) -> Iterator[Mapping[str, Any]]:
    """Execute a statement, and return the plans of all statements inside of it that look at jobs."""
    plans: list[Mapping[str, Any]] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" in text:
            plans.append(json.loads(text[text.index("{") :]))

    conn.add_notice_handler(note)
    conn.execute(statement, arguments).fetchall()
    conn.remove_notice_handler(note)
    for plan in plans:
        if any(node.get("Relation Name", "").startswith("jobs_") for node in walk(plan["Plan"])):
            yield plan


def describe(plan: Mapping[str, Any]) -> str:
    """Return a plan as one line of text."""
    nodes = []
    for node in walk(plan["Plan"]):
        where = node.get("Index Name") or node.get("Relation Name") or ""
        if where:
            buffers = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
            nodes.append(f"{node['Node Type']} on {where} ({node['Actual Rows']:g} rows, {buffers} buffers)")
        elif node["Node Type"] in {"Sort", "Incremental Sort"}:
            nodes.append(node["Node Type"])
    return f"{plan['Plan']['Actual Total Time']:.2f} ms: " + " < ".join(nodes)


def measure_plans(server: LocalServer, waiting: int) -> Iterator[str]:
    """Show the plans of a claim, and of what ends jobs, with many jobs waiting."""
    dsn = renew_schema(server)
    yield f"EXPLAIN (ANALYZE, BUFFERS) of what a claim of {BATCH} executes, {waiting} jobs waiting"
    bad: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        put_jobs(conn, waiting, ahead="-1 hour", apart="1 millisecond")
        conn.execute("VACUUM ANALYZE reconciler.jobs_open")
        conn.execute("LOAD 'auto_explain'")
        for setting in (
            "min_duration = 0",
            "analyze = on",
            "buffers = on",
            "nested_statements = on",
            "format = json",
        ):
            conn.execute(f"SET auto_explain.log_{setting}".encode())
        conn.execute("SET client_min_messages = log")
        for what in ("claim_jobs, first call", "claim_jobs, tenth call"):
            for _ in range(1 if "first" in what else 8):
                plans = list(
                    explain(conn, "SELECT * FROM reconciler.claim_jobs('default', 'bench', %s)", [BATCH])
                )
            yield from list_plans(what, plans, bad)
        row = conn.execute(_CLAIM, [BATCH]).fetchone()
        assert row is not None
        yield from list_plans("complete_jobs", list(explain(conn, _COMPLETE, row[:2])), bad)
    yield f"    no Seq Scan and no Sort on jobs: {'MISSED: ' + ', '.join(bad) if bad else 'met'}"


def list_plans(what: str, plans: list[Mapping[str, Any]], bad: list[str]) -> Iterator[str]:
    """Describe plans, and note what must not be in them."""
    yield f"    {what}"
    assert plans, what
    for plan in plans:
        yield f"      {describe(plan)}"
        bad.extend(
            f"{what}: {node['Node Type']}"
            for node in walk(plan["Plan"])
            if node["Node Type"] in {"Seq Scan", "Sort", "Incremental Sort"}
        )
