"""The sample schema and this repository's own jobs.d/, for tests that run the jobs' SQL.

Everything happens in one transaction, so that now() stands still and a boundary can be hit exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import yaml
from psycopg import sql

if TYPE_CHECKING:
    import psycopg

    from tests.servers import Database

ROOT = Path(__file__).parents[1]
SCHEMA = (ROOT / "sql" / "sample" / "delivery.sql").read_bytes()
JOBS: dict[str, dict[str, Any]] = {
    name: job
    for path in sorted((ROOT / "jobs.d").glob("*.yaml"))
    for name, job in yaml.safe_load(path.read_text(encoding="utf-8")).get("jobs", {}).items()
}
MANAGED = sorted(name for name, job in JOBS.items() if "sql" in job and job.get("mode") != "direct")

PROVIDE_ROLE = """
CREATE ROLE app LOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO app;
GRANT USAGE ON SCHEMA cron TO app;
"""

# The way in which a managed job runs: as one EXECUTE in PL/pgSQL, without transaction control.
PROVIDE_RUN = """
CREATE FUNCTION pg_temp.run(body text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE body; END $$
"""

# Two roles' runs: ids and ages.
ADD_RUNS = """
INSERT INTO cron.job_run_details (jobid, runid, username, status, start_time, end_time)
SELECT 1, id, who, status, now() - started::interval, now() - ended::interval
FROM (VALUES
    (11, 'app', 'succeeded', '8 days 1 minute', '8 days'),
    (12, 'app', 'failed', '8 days', NULL),
    (13, 'app', 'starting', NULL, NULL),
    (14, 'other', 'succeeded', '8 days', '8 days'),
    (15, 'app', 'succeeded', '8 days', '6 days 23 hours'),
    (16, 'app', 'starting', NULL, NULL),
    (17, 'app', 'running', '1 day', NULL)
) AS run (id, who, status, started, ended)
"""

LIST_TABLES = """
SELECT table_schema, table_name
FROM information_schema.tables
WHERE table_type = 'BASE TABLE'
    AND (table_schema = 'public' OR (table_schema, table_name) = ('cron', 'job_run_details'))
"""

# A row that was written shows, also with the values that it had: its place in the file is part of it.
DIGEST = """
SELECT md5(coalesce(string_agg(t.ctid::text || t::text, ' ' ORDER BY t.ctid), '')) FROM {table} AS t
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The loaded sample schema, in one open transaction of an ordinary role."""

    conn: psycopg.Connection

    def run(self, name: str) -> None:
        """Run one job's SQL as a managed job runs."""
        self.conn.execute("SELECT pg_temp.run(%s)", [JOBS[name]["sql"]])

    def add(self, query: LiteralString, *values: object) -> int:
        """Insert one row and return its id."""
        row = self.conn.execute(query, values).fetchone()
        assert row is not None
        return int(row[0])

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.conn.execute(query, values).fetchall()

    def digests(self) -> dict[str, str]:
        """Return each table's contents in short."""
        return {
            table: self.conn.execute(sql.SQL(DIGEST).format(table=sql.Identifier(schema, table))).fetchall()[
                0
            ][0]
            for schema, table in self.rows(LIST_TABLES)
        }

    def empty(self) -> None:
        """Take the sample's rows away, where a test wants only its own."""
        self.conn.execute(
            "TRUNCATE restaurants, menus, restaurant_menus, reviews, drivers, orders, distance_requests,"
            " user_sessions, vendor_reports, mentors, certifications, certification_warnings, assignments,"
            " reminders, events, event_registrations, event_reminders"
        )

    def add_restaurant(self) -> int:
        """Insert a restaurant."""
        return self.add("INSERT INTO restaurants (name) VALUES ('One') RETURNING id")


def open_sample(database: Database) -> Sample:
    """Load the sample schema as an ordinary role, beside the run history of two roles.

    Args:
        database: An empty database with pg_cron.

    Returns:
        The sample, nothing of it uncommitted but the function that runs jobs.
    """
    admin = database.connect()
    admin.execute(PROVIDE_ROLE)
    admin.execute(ADD_RUNS)
    conn = database.connect("app")
    conn.execute(SCHEMA)
    conn.execute(PROVIDE_RUN)
    conn.autocommit = False
    return Sample(conn)
