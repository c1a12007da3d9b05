"""What the fault tests share: runs beside the test, and what has to hold after every fault."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

from reconciler.database.connect import connect
from reconciler.database.launcher import remind_launcher
from reconciler.database.observe import observe_facts
from tests.runs import call, tick
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.declared import Site

STATUSES: LiteralString = (
    "SELECT status FROM reconciler.cron_execution_log WHERE job_name = coalesce(%s, job_name) ORDER BY id"
)
HOLDERS: LiteralString = """
SELECT d.name, k.pid FROM pg_locks k JOIN reconciler.definitions d
    ON k.locktype = 'advisory' AND k.objsubid = 1
   AND k.classid::bigint = (d.lock_key >> 32) & 4294967295 AND k.objid::bigint = d.lock_key & 4294967295
"""
"""The locks of jobs that somebody has, or waits for."""

_RUNNING: LiteralString = """
SELECT l.job_name, l.backend_pid FROM reconciler.cron_execution_log l
 WHERE l.status = 'running' AND l.request_id IS NULL AND NOT l.handed_over
"""
_UNTRUE: LiteralString = """
SELECT id, job_name, status, run_at, completed_at FROM reconciler.cron_execution_log
 WHERE completed_at < run_at OR (status = 'running') <> (completed_at IS NULL)
    OR (status IN ('failed', 'timed_out', 'cancelled', 'lost', 'skipped')) <> (error_message IS NOT NULL)
"""
_MISCOUNTED: LiteralString = """
SELECT s.name, s.total_runs, s.failed_runs, l.runs, l.failures
  FROM reconciler.job_states s
 CROSS JOIN LATERAL (
       SELECT count(*) AS runs, count(*) FILTER (WHERE status IN ('failed', 'timed_out', 'lost')) AS failures
         FROM reconciler.cron_execution_log
        WHERE job_name = s.name AND status NOT IN ('running', 'skipped')) AS l
 WHERE (s.total_runs, s.failed_runs) <> (l.runs, l.failures)
"""
_FORGOTTEN: LiteralString = """
SELECT l.id, l.job_name, l.status
  FROM reconciler.cron_execution_log l JOIN reconciler.policies p ON p.name = l.job_name
 WHERE l.status IN ('failed', 'timed_out', 'lost') AND l.attempt <= p.retries AND NOT l.handed_over
   AND NOT EXISTS (SELECT FROM reconciler.starts s WHERE s.job_name = l.job_name AND s.trigger = 'retry')
   AND NOT EXISTS (SELECT FROM reconciler.cron_execution_log n
                    WHERE n.job_name = l.job_name AND n.id > l.id AND n.status <> 'skipped')
"""
_UNTOLD: LiteralString = """
SELECT l.job_name, l.status, count(DISTINCT a.id), count(DISTINCT (d.alert_id, d.channel, d.reminder))
  FROM reconciler.cron_execution_log l
  JOIN reconciler.policies p ON p.name = l.job_name AND p.alert_after = 1
  LEFT JOIN reconciler.alerts a ON a.job_name = l.job_name AND a.resolved_at IS NULL
                               AND a.kind = CASE l.status WHEN 'lost' THEN 'lost' ELSE 'failed' END
  LEFT JOIN reconciler.alert_deliveries d ON d.alert_id = a.id
 WHERE l.status IN ('failed', 'timed_out', 'lost')
   AND NOT EXISTS (SELECT FROM reconciler.cron_execution_log n
                    WHERE n.job_name = l.job_name AND n.status = 'succeeded'
                      AND (n.id > l.id OR n.completed_at >= l.completed_at
                           -- Of runs side by side that end together, the one written down last counts.
                           OR (n.completed_at > l.run_at
                               AND n.completed_at >= l.completed_at - interval '1 second')))
 GROUP BY l.job_name, l.status, p.channels
HAVING count(DISTINCT a.id) <> 1
    OR count(DISTINCT (d.alert_id, d.channel, d.reminder)) FILTER (WHERE d.id IS NOT NULL)
       <> cardinality(p.channels)
"""


@contextmanager
def running(site: Site, name: str = "a") -> Iterator[tuple[int, list[psycopg.Error | None]]]:
    """Run a job beside the test, from when its row says running until it ends.

    Yields:
        Its backend, and a list that gets what it failed with.
    """
    outcome: list[psycopg.Error | None] = []
    thread = threading.Thread(target=lambda: outcome.append(call(site, name)), daemon=True)
    thread.start()
    try:
        yield wait_for_run(site, name), outcome
    finally:
        thread.join(20)
        assert not thread.is_alive()


def wait_for_run(site: Site, name: str = "a") -> int:
    """Wait until a run of a job is in the log as running, and return its backend."""
    query: LiteralString = (
        "SELECT backend_pid FROM reconciler.cron_execution_log WHERE status = 'running' AND job_name = %s"
    )
    began = time.monotonic()

    def has_begun() -> bool:
        if len(site.rows(query, name)) == 1:
            return True
        if time.monotonic() > began + 3:
            # What was scheduled together with the schema may have been lost on pg_cron.
            with connect(site.dsn) as conn:
                remind_launcher(conn, observe_facts(conn).rights, sleep=time.sleep)
        return False

    wait_until(has_begun, seconds=15, what=f"a run of {name} has begun")
    return int(site.rows(query, name)[0][0])


def statuses(site: Site, name: str | None = None) -> list[str]:
    """Return the status of each run, of one job or of all, the oldest first."""
    return [status for (status,) in site.rows(STATUSES, name)]


def check_aftermath(site: Site) -> None:
    """See that a tick leaves nothing untrue behind, whatever happened before.

    The log: whoever is said to run holds its job's lock, and nobody else holds one; times and messages fit
    the statuses; the counts of each job are those of its log. Nothing is lost: a failure with tries left has
    its retry. Alerts: what failed and has not succeeded since has one open alert, and each channel one
    message.
    """
    tick(site)
    running_now = set(site.rows(_RUNNING))
    assert set(site.rows(HOLDERS)) == running_now, "locks and running rows differ"
    assert site.rows(_UNTRUE) == []
    assert site.rows(_MISCOUNTED) == []
    assert site.rows(_FORGOTTEN) == []
    assert site.rows(_UNTOLD) == []


def check_recovery(site: Site, name: str = "a") -> None:
    """See that the next run of a job succeeds, and closes what was open."""
    assert call(site, name) is None
    assert statuses(site, name)[-1] == "succeeded"
    check_aftermath(site)
    assert (
        site.rows("SELECT kind FROM reconciler.alerts WHERE resolved_at IS NULL AND job_name = %s", name)
        == []
    )
