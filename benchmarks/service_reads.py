"""The queries that a read of jobs is, to JSON, without anything around them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reconciler.database.job_pages import find_job, read_declaration, read_named_page

if TYPE_CHECKING:
    import psycopg


def read_one(conn: psycopg.Connection[Any], name: str) -> bytes:
    """Read one job.

    Args:
        conn: To the database.
        name: Of the job.
    """
    found = find_job(conn, name, zone="GMT")
    assert found is not None
    declared = read_declaration(conn, found)
    return json.dumps({**asdict(found), **asdict(declared)}, default=str).encode()


def read_page(conn: psycopg.Connection[Any], after: str, limit: int) -> bytes:
    """Read a page of jobs.

    Args:
        conn: To the database.
        after: Where the page before ended; "" for the first one.
        limit: Jobs at the most.
    """
    page = read_named_page(conn, zone="GMT", after=(after, 0) if after else None, limit=limit)
    return json.dumps([asdict(job) for job in page.jobs], default=str).encode()
