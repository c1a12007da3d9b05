"""Query plans of claims and ends: by the indexes in their order, whatever the statistics say."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.declared import Site, queue
from tests.queued import claim, complete, fail, fill, give_back, renew, rescue, snooze

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.servers import Database

MANY = 100_000
SMALL = ("ORDER BY f.job_name", "SELECT DISTINCT j.queue")
"""What is sorted there are the jobs that were named, not those that wait."""


@contextmanager
def explained(conn: psycopg.Connection) -> Iterator[list[dict[str, Any]]]:
    """Collect the plans of all statements, also of those inside of functions, with the rows that they met."""
    plans: list[dict[str, Any]] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" in text:
            plans.append(json.loads(text.partition("plan:")[2]))

    conn.execute("LOAD 'auto_explain'")
    for name, value in (
        ("log_min_duration", "0"),
        ("log_nested_statements", "on"),
        ("log_analyze", "on"),
        ("log_timing", "off"),
        ("log_buffers", "on"),
        ("log_format", "json"),
        ("log_level", "notice"),
    ):
        conn.execute("SELECT set_config('auto_explain.' || %s, %s, false)", [name, value])
    conn.add_notice_handler(note)
    try:
        yield plans
    finally:
        conn.remove_notice_handler(note)
        conn.execute("SET auto_explain.log_min_duration = -1")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def faults_of(plans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what should be in no plan: sequential scans of tables with jobs, sorts, long walks."""
    found = []
    for one in plans:
        for node in nodes(one["Plan"]):
            kind = node["Node Type"]
            table = node.get("Relation Name", "")
            rows = node["Actual Rows"] * node["Actual Loops"]
            walked = rows + node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
            is_jobs = table.startswith("jobs_")
            is_sort = "Sort" in kind and any(
                "jobs_" in below.get("Relation Name", "") for below in nodes(node)
            )
            if (kind == "Seq Scan" and is_jobs) or (
                is_sort and not any(part in one["Query Text"] for part in SMALL)
            ):
                found.append((f"{kind} {table}", one["Query Text"]))
            elif is_jobs and walked > 1000:
                found.append((f"{kind} of {walked} rows of {table}", one["Query Text"]))
    return found


@pytest.fixture
def site(database: Database) -> Site:
    """A database with each kind of queue."""
    site = Site(database)
    site.apply(
        queue("few", concurrency=1000), queue("rated", rate="1000/1s"), queue("serial", mode="blocking")
    )
    return site


def fill_all(conn: psycopg.Connection, count: int) -> None:
    """Put jobs that are due, jobs of the future, ordered ones and dead ones on several queues."""
    for name in ("default", "few", "rated", "elsewhere"):
        fill(conn, count // 10, name, priorities=3)
        fill(conn, count // 20, name, after=9_000)
    fill(conn, count // 10, "serial", key="")
    fill(conn, count // 20, "keyed", key="a")
    fill(conn, count // 20, "keyed", key="b", after=9_000)
    fill(conn, count // 10, "dead")
    conn.execute("UPDATE reconciler.jobs SET status = 'failed', completed_at = now() WHERE queue = 'dead'")
    fill(conn, count // 10, "done")
    conn.execute("UPDATE reconciler.jobs SET status = 'completed', completed_at = now() WHERE queue = 'done'")


@pytest.mark.parametrize("statistics", ["fresh", "stale", "none"])
def test_no_plan_walks_through_the_jobs(site: Site, statistics: str) -> None:
    """With 100,000 jobs, no claim or end scans or sorts them, also by a plan that was made for few."""
    conn = site.database.connect()
    for table in ("open", "finished"):
        conn.execute(f"ALTER TABLE reconciler.jobs_{table} SET (autovacuum_enabled = false)".encode())
    if statistics == "stale":
        fill_all(conn, 100)
        conn.execute("VACUUM ANALYZE reconciler.jobs_open, reconciler.jobs_finished")
        work(conn)
    fill_all(conn, MANY)
    if statistics == "fresh":
        conn.execute("VACUUM ANALYZE reconciler.jobs_open, reconciler.jobs_finished")
    with explained(conn) as plans:
        for _ in range(7):  # from the sixth on, plans are those that were cached
            work(conn)
    assert len(plans) > 100
    assert faults_of(plans) == []


def work(conn: psycopg.Connection) -> None:
    """Claim from each queue, and end the jobs in each way."""
    for name in ("default", "few", "rated", "serial", "keyed", "nowhere"):
        jobs = claim(conn, name, 20)
        renew(conn, *jobs)
        if len(jobs) > 4:
            fail(conn, jobs.pop())
            fail(conn, jobs.pop(), final=True)
            snooze(conn, jobs.pop())
            give_back(conn, jobs.pop())
        complete(conn, jobs)
    complete(conn, claim(conn, "dead", 20, status="failed"))
    claim(conn, "default", 5)
    conn.execute("UPDATE reconciler.jobs_open SET lease_until = now() WHERE status = 'running'")
    rescue(conn)
