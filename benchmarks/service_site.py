"""The database that the service is measured on: 10,000 jobs, 100,000 runs, and a token to read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks.queue_server import renew_schema
from reconciler.core.api_tokens import make_digest, make_token
from reconciler.core.canonical import render_canonical
from reconciler.core.specs import JobSpec, Place, Schedule, SqlBody
from reconciler.database.api_tokens import create_token

if TYPE_CHECKING:
    from reconciler.runtime.cluster import LocalServer

DIRECTORY: Final = Path(".reconciler/bench-service")
JOBS: Final = 10_000
RUNS: Final = 100_000
_SCHEDULES: Final = ("*/5 * * * *", "7 3 * * *", "30 23 * * 1")
_FILL: Final = """
    INSERT INTO reconciler.cron_execution_log
           (job_name, definition_id, run_at, completed_at, status, error_message, role, backend_pid)
    SELECT d.name, d.id, now() - n * interval '1 hour', now() - n * interval '1 hour' + interval '2 seconds',
           CASE WHEN hashtext(d.name || n) %% 20 = 0 THEN 'failed' ELSE 'succeeded' END,
           CASE WHEN hashtext(d.name || n) %% 20 = 0 THEN 'deadlock detected' END, 'postgres', 1
      FROM reconciler.definitions d, generate_series(1, %(each)s) AS n
     WHERE d.kind = 'job' AND d.owner = 'bench'
     ORDER BY n DESC, d.name
"""
_DETAILS: Final = """
    INSERT INTO cron.job_run_details
           (jobid, runid, job_pid, database, username, command, status, start_time, end_time)
    SELECT j.jobid, 1000000 + row_number() OVER (ORDER BY n DESC, j.jobid), 1, j.database, j.username,
           j.command, 'succeeded', now() - n * interval '1 hour',
           now() - n * interval '1 hour' + interval '2 seconds'
      FROM cron.job j, generate_series(1, %(each)s) AS n
"""


def make_name(number: int) -> str:
    """Name a job.

    Args:
        number: From 0 on.
    """
    return f"shop-{number % 97:02}-order-{number:05}"


def fill_database(server: LocalServer, *, jobs: int = JOBS, runs: int = RUNS) -> tuple[str, str]:
    """Apply jobs, write down runs of theirs, and make a token.

    Args:
        server: Where.
        jobs: How many.
        runs: How many of all of them together.

    Returns:
        The connection string, and the token.
    """
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        # Nothing but what is measured is to be at work.
        conn.execute("ALTER SYSTEM SET cron.launch_active_jobs = off")
        conn.execute("SELECT pg_reload_conf()")
    dsn = renew_schema(server, *(_make_job(number) for number in range(jobs)))
    token = make_token(os.urandom(10), os.urandom(32))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(_FILL, {"each": max(1, runs // jobs)})
        conn.execute("DELETE FROM cron.job_run_details")
        conn.execute(_DETAILS, {"each": max(1, runs // jobs)})
        conn.execute("VACUUM ANALYZE")
        create_token(
            conn,
            token_id=token.id,
            name="bench",
            digest=make_digest(token),
            scopes=("read",),
            expires_at=None,
        )
    return dsn, token.render().reveal()


def _make_job(number: int) -> JobSpec:
    name, schedule = make_name(number), _SCHEDULES[number % len(_SCHEDULES)]
    sql = f"UPDATE orders SET state = 'late' WHERE shop = {number % 97} AND due < now()"
    declared = {
        "schedule": schedule,
        "sql": sql,
        "description": f"Looks after orders of shop {number % 97}",
        "labels": {"team": f"team-{number % 7}"},
        "timeout": "30s",
    }
    return JobSpec(
        name=name,
        place=Place(path=f"jobs.d/shop-{number % 97:02}.yaml", line=number // 97 + 2, column=3),
        document=render_canonical(declared),
        trigger=Schedule(text=schedule),
        body=SqlBody(text=sql),
    )
