"""A target as it stands after some weeks, for pictures: always the same, but for the clock.

The jobs are this repository's own, without those that call an application over HTTP; pg_cron starts none of
them, so that nothing changes while somebody looks. Runs are written down as if they had been at their times.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg

from reconciler.core.api_tokens import make_digest, make_token, read_scopes
from reconciler.core.specs import JobSpec
from reconciler.core.times.occurrences import find_previous_runs
from reconciler.core.times.timings import make_timing
from reconciler.database.api_tokens import create_token
from reconciler.database.apply import apply_target
from reconciler.database.connect import connect
from reconciler.runtime.spec_files import WatchedSpecFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.specs import Spec

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = 44
_CONFIG: Final = """\
owner: delivery
targets:
  production: {{dsn: "{dsn}", vars: {{app_url: "https://app.example.com"}}}}
secrets:
  ops-slack: {{env: OPS_SLACK_URL}}
"""
_ENVIRONMENT: Final = {"OPS_SLACK_URL": "json://127.0.0.1:9/"}
_COMMITS: Final = ("4f1c2ab90d3e", "9be07d5510af", "c3d9a1e47b62")
_LAUNCH: Final[Mapping[bool, LiteralString]] = {
    False: "ALTER SYSTEM SET cron.launch_active_jobs = off",
    True: "ALTER SYSTEM RESET cron.launch_active_jobs",
}
_ADD_RUN: Final[LiteralString] = """
INSERT INTO reconciler.cron_execution_log
       (job_name, definition_id, run_at, completed_at, status, error_message, error_sqlstate, error_detail,
        error_context, rows_affected, role, backend_pid)
SELECT d.name, d.id, %(at)s, %(end)s, %(status)s, %(message)s, %(sqlstate)s, %(detail)s, %(context)s,
       %(rows)s, 'cron_runner', 4711
  FROM reconciler.definitions d WHERE d.name = %(name)s
"""
_ADD_STATE: Final[LiteralString] = """
UPDATE reconciler.job_states s
   SET consecutive_failures = %(failures)s, last_run_id = l.id, last_run_at = l.run_at,
       last_status = l.status, last_error = l.error_message, last_duration = l.completed_at - l.run_at
  FROM (SELECT * FROM reconciler.cron_execution_log
         WHERE job_name = %(name)s ORDER BY run_at DESC LIMIT 1) AS l
 WHERE s.name = %(name)s
"""
_ADD_DIRECT: Final[LiteralString] = """
INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)
SELECT j.jobid, nextval('cron.runid_seq'), 'succeeded', 'VACUUM', %(at)s, %(at)s + interval '41 seconds'
  FROM cron.job j WHERE j.jobname = %(name)s
"""
_ADD_TICK: Final[LiteralString] = """
INSERT INTO cron.job_run_details (jobid, runid, status, start_time, end_time)
SELECT jobid, nextval('cron.runid_seq'), 'succeeded', clock_timestamp(), clock_timestamp()
  FROM cron.job WHERE command ~ 'reconciler.tick'
"""
_ADD_ALERT: Final[LiteralString] = """
WITH made AS (
    INSERT INTO reconciler.alerts
           (job_name, kind, run_id, message, channels, occurrences, opened_at, last_seen_at)
    SELECT %(name)s, %(kind)s, CASE %(kind)s WHEN 'failed' THEN max(l.id) END, %(message)s, '{ops}', %(seen)s,
           now() - %(open)s, now() - %(last)s
      FROM reconciler.cron_execution_log l WHERE l.job_name = %(name)s
    RETURNING id
)
INSERT INTO reconciler.alert_deliveries (alert_id, channel, status, attempts, sent_at)
SELECT id, 'ops', 'sent', 1, now() - %(last)s FROM made
"""
_ADD_FINISHED: Final[LiteralString] = """
INSERT INTO reconciler.jobs_finished
       (handler, queue, status, attempts, run_at, started_at, completed_at, last_error, payload)
SELECT %(handler)s, %(queue)s, %(status)s, %(tries)s, now() - %(age)s, now() - %(age)s, now() - %(age)s,
       %(error)s, jsonb_build_object('order', 48213 + n)
  FROM generate_series(1, %(count)s) AS n
"""
_ADD_WAITING: Final[LiteralString] = """
INSERT INTO reconciler.jobs (handler, queue, run_at, payload)
SELECT %(handler)s, %(queue)s, now() + make_interval(secs => %(after)s - n * 0.5),
       jsonb_build_object('order', 51277 + n)
  FROM generate_series(1, %(count)s) AS n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a job fails in the sample.

    Attributes:
        newest: How many of its newest runs do.
        status: How these end.
        message: What they say.
        sqlstate: Of it.
        detail: More of it.
        context: Where it was.
    """

    newest: int
    status: str = "failed"
    message: str
    sqlstate: str
    detail: str | None = None
    context: str | None = None


_FAILURES: Final[Mapping[str, Failure]] = {
    "update-restaurant-ratings": Failure(
        newest=3,
        message="canceling statement due to lock timeout",
        sqlstate="55P03",
        context='while updating tuple (212,7) in relation "restaurants"',
    ),
    "cleanup-distance-requests": Failure(
        newest=1,
        message="deadlock detected",
        sqlstate="40P01",
        detail="Process 5120 waits for ShareLock on transaction 90211; blocked by process 5133.",
    ),
}


def write_project(folder: Path, dsn: str) -> None:
    """Write the configuration and the spec files of the sample.

    Args:
        folder: Where to; it is there, and empty.
        dsn: Of the database.
    """
    (folder / "reconciler.yaml").write_text(_CONFIG.format(dsn=dsn))
    (folder / "jobs.d").mkdir()
    for path in sorted((ROOT / "jobs.d").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if path.name == "queues.yaml":
            head, _, rest = text.partition("workers:\n")
            text = head + "channels:\n" + rest.partition("channels:\n")[2]
        text = text.partition("  dispatch-reminders:")[0].replace("    targets: [local]\n", "")
        (folder / "jobs.d" / path.name).write_text(text, encoding="utf-8")


def open_files(folder: Path) -> WatchedSpecFiles:
    """Open the files of the sample, as the service knows them.

    Args:
        folder: As `write_project` had it.
    """
    return WatchedSpecFiles(folder / "reconciler.yaml", environment=_ENVIRONMENT)


def fill_site(dsn: str, folder: Path) -> str:
    """Apply the sample in three steps, write down runs, put jobs on queues, and let somebody drift.

    Args:
        dsn: Of an empty database with pg_cron, as a superuser.
        folder: As `write_project` had it.

    Returns:
        A token that may do everything.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        _launch(conn, is_on=False)
        conn.execute("SET client_min_messages = error")
        conn.execute((ROOT / "sql" / "sample" / "delivery.sql").read_bytes())
    _apply(dsn, folder)
    with psycopg.connect(dsn, autocommit=True) as conn:
        _add_runs(conn, open_files(folder).load()[2], random.Random(7))
        _add_alerts(conn)
        _add_queued(conn)
        _add_people(conn)
        token = make_token(bytes(10), random.Random(7).randbytes(32))
        create_token(
            conn,
            token_id=token.id,
            name="nora",
            digest=make_digest(token),
            scopes=read_scopes(("read", "trigger", "write")),
            expires_at=None,
        )
        conn.execute("ANALYZE")
    return token.render().reveal()


def launch(dsn: str) -> None:
    """Let pg_cron start jobs from now on, as everybody's does.

    Args:
        dsn: Of the sample.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        _launch(conn, is_on=True)


def tick(dsn: str) -> None:
    """Let the tick have been at this moment.

    Args:
        dsn: Of the sample.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(_ADD_TICK)


def _launch(conn: psycopg.Connection, *, is_on: bool) -> None:
    conn.execute(_LAUNCH[is_on])
    conn.execute("SELECT pg_reload_conf()")


def _apply(dsn: str, folder: Path) -> None:
    """Apply some of the files, all of them with one job as it was before, and then as they are."""
    path = folder / "jobs.d" / "delivery.yaml"
    now = path.read_text(encoding="utf-8")
    before = now.replace("interval '30 minutes'", "interval '45 minutes'").replace(
        '"0 1 * * *"', '"30 0 * * *"'
    )
    events = path.with_name("events.yaml")
    later = events.read_text(encoding="utf-8")
    events.unlink()
    for number, text in enumerate((before, before, now)):
        path.write_text(text, encoding="utf-8")
        if number == 1:
            events.write_text(later, encoding="utf-8")
        request = open_files(folder).make_request()
        with connect(dsn) as conn:
            apply_target(conn, replace(request, commit=_COMMITS[number], actor=("nora", "ci", "ci")[number]))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "UPDATE reconciler.revisions SET applied_at = applied_at - make_interval(days => %s)"
                " WHERE id = (SELECT max(id) FROM reconciler.revisions)",
                [(19, 6, 0)[number]],
            )


def _list_times(spec: Spec, now: datetime) -> list[datetime]:
    timing = make_timing(spec, "GMT") if isinstance(spec, JobSpec) else None
    if timing is None or timing.once is not None:
        return []
    return list(reversed(find_previous_runs(timing, before=now, count=RUNS)))


def _add_runs(conn: psycopg.Connection, specs: tuple[Spec, ...], chance: random.Random) -> None:
    now = datetime.now(UTC)
    for spec in specs:
        usual = chance.choice((0.03, 0.12, 0.4, 1.6, 6.5))
        times = _list_times(spec, now - timedelta(seconds=20))
        if isinstance(spec, JobSpec) and spec.mode == "direct":
            for at in times:
                conn.execute(_ADD_DIRECT, {"name": spec.name, "at": at})
            continue
        failure = _FAILURES.get(spec.name)
        for number, at in enumerate(times):
            took = usual * chance.lognormvariate(0, 0.35)
            is_last = failure is not None and number >= len(times) - failure.newest
            values = {"name": spec.name, "at": at, "rows": int(chance.paretovariate(0.7)) % 5000}
            status = "succeeded"
            told: dict[str, str | None] = dict.fromkeys(("message", "sqlstate", "detail", "context"))
            if failure is not None and is_last:
                status, took = failure.status, usual * 5
                told = {key: getattr(failure, key) for key in told}
            elif chance.random() < 0.03:
                status, took = "failed", usual * 1.5
                told["message"] = "could not serialize access due to concurrent update"
                told["sqlstate"] = "40001"
            conn.execute(_ADD_RUN, {**values, **told, "status": status, "end": at + timedelta(seconds=took)})
        if times:
            conn.execute(_ADD_STATE, {"name": spec.name, "failures": failure.newest if failure else 0})
    conn.execute(
        _ADD_RUN,
        {
            **dict.fromkeys(("message", "sqlstate", "detail", "context", "rows", "end")),
            "name": "archive-old-orders",
            "at": now - timedelta(minutes=3, seconds=41),
            "status": "running",
        },
    )


def _add_alerts(conn: psycopg.Connection) -> None:
    for name, kind, message, seen, opened, last in (
        (
            *("update-restaurant-ratings", "failed"),
            *("3 runs in a row did not succeed: canceling statement due to lock timeout", 3, 49, 1),
        ),
        ("nightly-certification-check", "missed", "the run that was due at 02:30 did not start", 1, 9, 9),
    ):
        conn.execute(
            _ADD_ALERT,
            {
                "name": name,
                "kind": kind,
                "message": message,
                "seen": seen,
                "open": timedelta(hours=opened),
                "last": timedelta(hours=last),
            },
        )


def _add_queued(conn: psycopg.Connection) -> None:
    chance = random.Random(3)
    for queue, handler, most in (("default", "vendor.reports", 40), ("outreach", "mail.send", 90)):
        for minute in range(24 * 60):
            count = int(most * chance.random() ** 2) if minute < 60 else int(most * chance.random() ** 6)
            values = {"queue": queue, "handler": handler, "tries": 1, "error": None, "count": count}
            age = timedelta(minutes=minute, seconds=20)
            conn.execute(_ADD_FINISHED, {**values, "status": "completed", "age": age})
            if chance.random() < 0.02:
                error = "HTTP 422 from the mail provider: the address bounces"
                values |= {"error": error, "tries": 5, "count": 1}
                conn.execute(_ADD_FINISHED, {**values, "status": "failed", "age": age})
    for queue, handler, count, after in (
        *(("outreach", "mail.send", 240, 0), ("default", "vendor.reports", 3, 0)),
        *(("default", "event.reminder", 12, 7200), ("blocking", "invoice.post", 5, 0)),
    ):
        conn.execute(_ADD_WAITING, {"queue": queue, "handler": handler, "count": count, "after": after})
    for queue in ("default", "outreach"):
        conn.execute(
            "INSERT INTO reconciler.pull_workers (id, host, pid, queues, concurrency, seen_at)"
            " SELECT %s || n, 'worker-' || n, 100 + n, ARRAY[%s], 10, now() + interval '1 hour'"
            " FROM generate_series(1, 2) AS n",
            [queue, queue],
        )
        conn.execute(
            "UPDATE reconciler.jobs_open SET status = 'running', started_at = now(), attempts = 1,"
            " token = id, worker = %s, lease_until = now() + interval '1 hour' WHERE id IN (SELECT id FROM"
            " reconciler.jobs_open WHERE queue = %s AND run_at <= now() ORDER BY run_at LIMIT 4)",
            [f"{queue}1", queue],
        )


def _add_people(conn: psycopg.Connection) -> None:
    """Pause a job, and change two by hand."""
    conn.execute(
        "SELECT reconciler.pause_job('generate-daily-stats', now() + interval '2 hours',"
        " 'orders are being moved')"
    )
    conn.execute("UPDATE cron.job SET schedule = '*/15 * * * *' WHERE jobname = 'driver-inactivity-check'")
    conn.execute("UPDATE cron.job SET active = false WHERE jobname = 'cleanup-expired-sessions'")
    conn.execute("SELECT cron.schedule('reindex-by-hand', '15 4 * * 6', 'REINDEX TABLE orders')")
