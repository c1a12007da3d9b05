"""What becomes of our claims when a million jobs wait, and while somebody holds an old snapshot."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from benchmarks.feeding import busy_worker
from benchmarks.queue_server import copy_schema, renew_schema
from benchmarks.runtime import walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg import Connection

    from reconciler.runtime.cluster import LocalServer

BATCH = 100
CLAIMED = 20_000
_PUT: LiteralString = """
INSERT INTO reconciler.jobs_open (handler, payload, queue, run_at, priority)
SELECT 'noop', '{"at": 0}', %(queue)s, clock_timestamp() + n * %(apart)s::interval + %(ahead)s::interval,
       n %% %(priorities)s
  FROM generate_series(1, %(count)s) AS n
"""
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


def put_jobs(conn: Connection, count: int, **place: Any) -> None:
    """Put many jobs in one statement."""
    defaults = {"queue": "default", "ahead": "-1 hour", "apart": "0", "priorities": 1}
    conn.execute(_PUT, {**defaults, **place, "count": count})


def claim_all(dsn: str, count: int, *, put: bool) -> tuple[float, float]:
    """Claim and complete jobs in batches over one connection.

    Args:
        dsn: The database.
        count: How many.
        put: Whether to put them before.

    Returns:
        Jobs a second in the claims alone, and in claims and completions.
    """
    claiming = completing = 0.0
    with psycopg.connect(dsn, autocommit=True) as conn:
        if put:
            put_jobs(conn, count)
        for _ in range(count // BATCH):
            begin = time.perf_counter()
            row = conn.execute(_CLAIM, [BATCH]).fetchone()
            claimed = time.perf_counter()
            assert row is not None
            assert row[2] == BATCH, row[2]
            conn.execute(_COMPLETE, row[:2])
            claiming += claimed - begin
            completing += time.perf_counter() - claimed
    return count / claiming, count / (claiming + completing)


def measure_claims(server: LocalServer, waiting: int, rounds: int) -> Iterator[str]:
    """Compare claims among few jobs with claims among many more, in turns, in two databases of one server."""
    yield (
        f"claims of {BATCH} with and without {waiting} more jobs, {CLAIMED} claimed and completed each round,"
        f" medians of {rounds} rounds in turn"
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
        rates: dict[str, list[tuple[float, float]]] = {"alone": [], "full": []}
        claim_all(alone, CLAIMED, put=True)
        claim_all(full, CLAIMED, put=put)
        for _ in range(rounds):
            rates["alone"].append(claim_all(alone, CLAIMED, put=True))
            rates["full"].append(claim_all(full, CLAIMED, put=put))
        without, others = (statistics.median(rate[0] for rate in rates[key]) for key in ("alone", "full"))
        both, both_full = (statistics.median(rate[1] for rate in rates[key]) for key in ("alone", "full"))
        ratio = others / without
        yield (
            f"    {title:36} {others:8.0f}/s / {without:8.0f}/s = {ratio:.2f}{judge(ratio, 0.9)}"
            f"  (with completion {both_full:.0f}/s / {both:.0f}/s = {both_full / both:.2f})"
        )


def measure_snapshot(server: LocalServer, seconds: float) -> Iterator[str]:
    """Measure a busy worker before, during and after a transaction that does nothing but hold a snapshot."""
    dsn = renew_schema(server)
    yield f"one worker process, fed as quickly as it works, a snapshot held open for {seconds:g} s"
    with busy_worker(dsn) as feeder:
        feeder.measure_rate(5)
        before = feeder.measure_rate(seconds / 3)
        with psycopg.connect(dsn) as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.execute("SELECT pg_current_xact_id()")
            quarters = [feeder.measure_rate(seconds / 4) for _ in range(4)]
        during = statistics.mean(quarters)
        after = feeder.measure_rate(seconds / 3)
    ratio = during / before
    yield (
        f"    before {before:.0f}/s, during {during:.0f}/s = {ratio:.2f}{judge(ratio, 0.5)}"
        f"  (quarters {', '.join(f'{rate:.0f}' for rate in quarters)}; after {after:.0f}/s)"
    )


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
        put_jobs(conn, waiting, apart="1 millisecond")
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
