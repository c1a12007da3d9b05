"""Somebody holds an old snapshot: dead rows pile up before those that wait, and claims go round them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site
from tests.queued import claim, complete, enqueue, fill, wait_for_statuses
from tests.worker_processes import Crew, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tests.servers import Database

CHURN = 12_000
BATCH = 200


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    """A database in which somebody holds a snapshot from before everything."""
    site = Site(database)
    site.apply()
    site.run("CREATE TABLE public.held ()")
    holder = database.connect(autocommit=False)
    holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    holder.execute("INSERT INTO public.held DEFAULT VALUES")
    yield site
    holder.rollback()


def count_pages(conn: psycopg.Connection, since: datetime | None = None, since_id: int = 0) -> int:
    """Return how many pages a claim of ten jobs looks at; it is undone."""
    query: LiteralString = (
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM reconciler.claim_jobs("
        "'default', 'w', 10, %s::int[], %s::timestamptz[], since_ids => %s::bigint[])"
    )
    with conn.transaction(force_rollback=True):
        # Literals: how it is planned is not what is measured.
        marks = ([], [], []) if since is None else ([0], [since], [since_id])
        cursor = psycopg.ClientCursor(conn)
        row = cursor.execute(query, marks).fetchone()
    assert row is not None
    plan = row[0][0] if isinstance(row[0], list) else json.loads(row[0])[0]
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


def churn(conn: psycopg.Connection) -> datetime:
    """Do thousands of jobs, and return the time of the last one."""
    mark = None
    for _ in range(CHURN // BATCH):
        fill(conn, BATCH)
        batch = claim(conn, limit=BATCH)
        assert len(complete(conn, batch)) == BATCH
        mark = batch[-1].run_at
    assert mark is not None
    return mark


def test_a_claim_begins_behind_the_dead(site: Site) -> None:
    """From its watermark on, a claim looks at few pages, however many jobs were done meanwhile."""
    conn = site.database.connect()
    fill(conn, 100)
    count_pages(conn)  # reads the catalog, too
    before = count_pages(conn)
    complete(conn, claim(conn, limit=100))
    mark = churn(conn)
    fill(conn, 100)
    after = count_pages(conn, mark)
    assert after < 3 * before
    # Without it, the claim walks through what is dead: otherwise this test would show nothing.
    assert count_pages(conn) > 10 * after


def test_a_claim_begins_within_a_moment(site: Site) -> None:
    """So it is with jobs that were put by one statement, and are all due at the same time."""
    conn = site.database.connect()
    put(conn, CHURN)
    for _ in range(CHURN // BATCH - 1):
        batch = claim(conn, limit=BATCH)
        complete(conn, batch)
    mark, last = batch[-1].run_at, batch[-1].id
    count_pages(conn)  # reads the catalog, too
    assert count_pages(conn, mark, last) * 2 < count_pages(conn, mark)


def test_a_worker_under_an_old_snapshot(site: Site, tmp_path: Path) -> None:
    """It does thousands of jobs, and finds one that is due before all that it has seen."""
    conn = site.database.connect()
    crew = Crew(tmp_path, site.dsn)
    try:
        put(conn, 3000)
        crew.start(concurrency=50)
        wait_for_statuses(site, "default", completed=3000)
        enqueue(conn, after=-3600)
        wait_for_statuses(site, "default", seconds=10, completed=3001)
    finally:
        crew.close()
