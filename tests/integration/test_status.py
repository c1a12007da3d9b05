"""The status of jobs: how the last runs went, from our log or from pg_cron's history, and what comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import load_migrations
from reconciler.database.queries import join_queries
from reconciler.database.runs import has_runtime, require_runtime
from reconciler.database.status import STATUS_PARTS, JobStatus, Summary, read_status, read_summary
from reconciler.errors import MigrationError
from tests.declared import LATER, NEVER, Site, after, channel, job, once, queue, worker
from tests.queued import claim_one, complete
from tests.runs import call, fire, hold, running

pytestmark = pytest.mark.one_server


def status(site: Site, zone: str = "GMT") -> dict[str, JobStatus]:
    """Read the status of everything, by name."""
    with connect(site.dsn) as conn:
        return {one.name: one for one in read_status(conn, zone)}


def summary(site: Site) -> Summary:
    """Read what holds for all jobs together."""
    with connect(site.dsn) as conn:
        return read_summary(conn)


def test_jobs_and_workers_are_listed_by_owner_and_name(site: Site) -> None:
    """Every job and worker is there, whether it has an entry or not; queues and channels are not."""
    site.apply(job("b"), job("a", active=False), worker("w"), once("o"), queue("q"), channel("c"))
    site.apply(job("z"), owner="kitchen")
    with connect(site.dsn) as conn:
        found = read_status(conn, "GMT")
    assert [(one.owner, one.name) for one in found] == [
        ("kitchen", "z"),
        ("shop", "a"),
        ("shop", "b"),
        ("shop", "o"),
        ("shop", "w"),
    ]
    assert [(one.scheduled, one.schedule, one.active) for one in found[1:4]] == [
        (True, NEVER, False),
        (True, NEVER, True),
        (False, None, None),
    ]
    assert {one.last_status for one in found} == {None}
    assert [one.state for one in found[1:]] == ["inactive", "ok", "ok", "no_entry"]


def test_the_last_run_of_a_managed_job_is_the_one_of_our_log(site: Site) -> None:
    """A failure shows with its message and counts; a later success takes its place."""
    site.apply(job("a", "SELECT 1/0"))
    call(site)
    call(site)
    failed = status(site)["a"]
    assert (failed.last_status, failed.last_error) == ("failed", "division by zero")
    assert (failed.state, failed.consecutive_failures, failed.open_alerts) == ("failing", 2, 1)
    assert failed.is_failing
    assert failed.last_run_at is not None
    assert failed.last_run_at.tzinfo is not None
    assert failed.last_duration is not None
    assert failed.last_duration >= timedelta(0)
    site.apply(job("a", "SELECT 1"))
    call(site)
    done = status(site)["a"]
    assert (done.last_status, done.last_error, done.state) == ("succeeded", None, "ok")
    assert (done.consecutive_failures, done.open_alerts, done.is_failing) == (0, 0, False)
    assert done.recent_statuses == ["succeeded", "failed", "failed"]
    assert all(seconds is not None and 0 <= seconds < 10 for seconds in done.recent_seconds)


def test_only_the_last_twenty_runs_are_shown(site: Site) -> None:
    """Of many runs the newest twenty count, the newest first."""
    site.apply(job("a"))
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'a', at, at + n * interval '1 second', CASE n WHEN 1 THEN 'lost' ELSE 'succeeded' END,"
        " 'postgres', 1 FROM generate_series(1, 25) n,"
        " LATERAL (SELECT now() - n * interval '1 minute' AS at) AS began"
    )
    found = status(site)["a"]
    assert found.recent_statuses == ["lost", *["succeeded"] * 19]
    assert found.recent_seconds == [float(n) for n in range(1, 21)]


def test_the_last_run_of_a_direct_job_is_the_one_of_pg_cron(site: Site) -> None:
    """A direct job has no log of ours: pg_cron's newest rows for its jobid count."""
    site.apply(job("a", mode="direct"), job("b", mode="direct"), job("c", mode="direct"))
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)"
        " SELECT jobid, n, CASE WHEN n > 1 THEN 'failed' ELSE 'succeeded' END, 'message ' || n,"
        " now() - interval '1 minute', now() FROM cron.job, generate_series(1, 3) n WHERE jobname = 'a'"
    )
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time)"
        " SELECT jobid, 4, 'running', now() FROM cron.job WHERE jobname = 'c'"
    )
    found = status(site)
    assert (found["a"].last_status, found["a"].last_error) == ("failed", "message 3")
    assert found["a"].last_duration == timedelta(minutes=1)
    assert (found["a"].state, found["a"].consecutive_failures) == ("failing", 2)
    assert found["a"].recent_statuses == ["failed", "failed", "succeeded"]
    assert found["a"].recent_seconds == [60.0, 60.0, 60.0]
    assert (found["b"].last_status, found["b"].state) == (None, "ok")
    assert (found["c"].last_status, found["c"].state) == ("running", "running")


def test_an_entry_that_is_hidden_is_still_listed(site: Site) -> None:
    """A role that row-level security keeps from an entry sees the job without its schedule, not as broken."""
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    site.apply(job("a"))
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice")
    found = status(Site(site.database, "alice"))["a"]
    assert (found.scheduled, found.schedule, found.active) == (True, None, None)
    assert (found.is_hidden, found.is_failing, found.state) == (True, False, "ok")


def test_an_entry_that_is_gone_is_trouble(site: Site) -> None:
    """Whoever sees all entries is told that one is missing."""
    site.apply(job("a"))
    site.run("SELECT cron.unschedule('a')")
    found = status(site)["a"]
    assert (found.is_hidden, found.is_failing, found.state) == (False, True, "missing")


def test_a_run_that_goes_on_is_shown_since_when(site: Site) -> None:
    """While a job runs its state is running, whatever else holds."""
    site.apply(job("a", hold()))
    site.run("SELECT reconciler.pause_job('a', NULL, 'no need')")
    with running(site):
        found = status(site)["a"]
        assert (found.state, found.last_status) == ("running", "running")
        assert found.running_since == found.last_run_at
        assert found.recent_seconds == [None]
    assert status(site)["a"].state == "paused"


def test_a_run_that_waits_for_a_worker_is_queued(site: Site) -> None:
    """What was handed over is queued until a worker begins with it, then it is running."""
    site.apply(job("a", handler="work.do"))
    assert fire(site) is None
    found = status(site)["a"]
    assert (found.state, found.last_status) == ("queued", "running")
    assert found.running_since == found.last_run_at
    conn = site.database.connect()
    claimed = claim_one(conn)
    assert status(site)["a"].state == "running"
    complete(conn, [claimed])
    assert (status(site)["a"].state, status(site)["a"].running_since) == ("ok", None)


def test_a_one_time_job_that_a_worker_does_is_running(site: Site) -> None:
    """It has no run yet, and is shown from when its handler began."""
    site.apply(once("o"))
    assert status(site)["o"].state == "ok"
    site.run("UPDATE reconciler.jobs SET run_at = now()")
    conn = site.database.connect()
    claimed = claim_one(conn)
    found = status(site)["o"]
    assert (found.state, found.next_run_at) == ("running", None)
    assert site.rows("SELECT started_at FROM reconciler.jobs") == [(found.running_since,)]
    complete(conn, [claimed])
    found = status(site)["o"]
    assert (found.state, found.last_status) == ("ok", "succeeded")


def test_a_pause_is_shown_until_it_is_over(site: Site) -> None:
    """A pause has its end, its reason and its author; one that is over is none, cleared away or not."""
    site.apply(job("a"), job("b"))
    until = datetime(2099, 1, 1, tzinfo=UTC)
    site.run("SELECT reconciler.pause_job('a', %s, 'moving house')", until)
    site.run("INSERT INTO reconciler.pauses (job_name, until) VALUES ('b', now() - interval '1 second')")
    found = status(site)
    assert (found["a"].state, found["a"].paused_until) == ("paused", until)
    assert (found["a"].pause_reason, found["a"].paused_by) == ("moving house", "postgres")
    assert (found["b"].state, found["b"].paused, found["b"].paused_until) == ("ok", False, None)
    fire(site)
    assert status(site)["a"].last_status == "skipped"


def test_missed_runs_are_shown_while_their_alert_is_open(site: Site) -> None:
    """An open alert of missed runs is a state of its own."""
    site.apply(job("a"))
    site.run("INSERT INTO reconciler.alerts (job_name, kind, message) VALUES ('a', 'missed', 'x')")
    assert (status(site)["a"].state, status(site)["a"].is_failing) == ("missed", True)
    site.run("UPDATE reconciler.alerts SET resolved_at = clock_timestamp()")
    assert status(site)["a"].state == "ok"


def test_the_next_run_follows_the_zone_of_pg_cron(site: Site) -> None:
    """A schedule is read in the given zone; what is inactive or waits for others has no next run."""
    site.apply(
        job("a", schedule="30 2 1 1 *"),
        job("b", active=False),
        once("c", sql="SELECT 1"),
        once("d", active=False),
        after("e", "a"),
    )
    found = status(site)
    assert found["a"].next_run_at is not None
    assert (found["a"].next_run_at.hour, found["a"].next_run_at.minute) == (2, 30)
    assert [found[name].next_run_at for name in "bcde"] == [None, LATER, None, None]
    assert (found["c"].once_at, found["e"].after) == (LATER, ["a"])
    there = status(site, "Asia/Tokyo")["a"].next_run_at
    assert there == found["a"].next_run_at - timedelta(hours=9)


def test_the_next_run_is_when_the_job_is_due(site: Site) -> None:
    """An entry may fire more often than its job is wanted: the next run is told, not the next fire."""
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    site.apply(job("a", schedule="* * * * *", start_at=later.isoformat()))
    found = status(site)["a"].next_run_at
    assert found is not None
    assert later <= found <= later + timedelta(minutes=1)


def test_a_target_without_timings_has_to_be_migrated(site: Site) -> None:
    """A release from before there were timings is told apart, without a traceback."""
    site.apply(job("a"))
    site.run("ALTER TABLE reconciler.timings RENAME TO later")
    with pytest.raises(MigrationError, match="earlier release"):
        status(site)


def test_seconds_count_from_the_last_start(site: Site) -> None:
    """An interval of seconds is due that long after the last run, or now where that is over."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("no seconds before pg_cron 1.5")
    site.apply(job("a", schedule="59 seconds"), job("b", schedule="59 seconds"))
    call(site, "a")
    call(site, "b")
    site.run(
        "UPDATE reconciler.cron_execution_log SET run_at = now() - interval '1 hour' WHERE job_name = 'b'"
    )
    found = status(site)
    assert found["a"].last_run_at is not None
    assert found["a"].next_run_at == found["a"].last_run_at + timedelta(seconds=59)
    now = summary(site).now
    assert found["b"].next_run_at is not None
    assert now - timedelta(seconds=10) < found["b"].next_run_at <= now


def test_the_summary_tells_of_the_tick_and_of_deliveries(site: Site) -> None:
    """The tick's age comes from pg_cron's records of any active entry that calls it."""
    site.apply(job("a"))
    assert (summary(site).ticks, summary(site).tick_age, summary(site).deliveries_waiting) == (0, None, 0)
    site.run("SELECT cron.schedule('my-tick', '0 0 29 2 *', ' call reconciler.tick(stay => ''1 s'')')")
    assert (summary(site).ticks, summary(site).tick_age) == (1, None)
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time, end_time)"
        " SELECT jobid, n, 'succeeded', now() - interval '2 hour' / n, now()"
        " FROM cron.job, generate_series(1, 2) n WHERE jobname = 'my-tick'"
    )
    site.run(
        "WITH a AS (INSERT INTO reconciler.alerts (job_name, kind, message)"
        " VALUES ('a', 'lost', 'x') RETURNING id)"
        " INSERT INTO reconciler.alert_deliveries (alert_id, channel, status)"
        " SELECT id, status, status FROM a, unnest('{pending,sent,failed}'::text[]) AS status"
    )
    found = summary(site)
    assert found.tick_age == pytest.approx(3600, abs=60)
    assert found.deliveries_waiting == 1
    # One that goes on counts as new, however long ago it began.
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time, job_pid)"
        " SELECT jobid, 3, 'running', now() - interval '3 hours', pid FROM cron.job,"
        " (SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher') AS alive"
        " WHERE jobname = 'my-tick'"
    )
    assert summary(site).tick_age == 0


def test_a_schema_of_an_earlier_release_is_told_apart(site: Site) -> None:
    """Without a schema nothing was applied; with the first two migrations alone a migrate is asked for."""
    with connect(site.dsn) as conn:
        assert has_runtime(conn) is False
        with pytest.raises(MigrationError, match="nothing was applied"):
            require_runtime(conn)
        for migration in load_migrations()[:2]:
            conn.execute(migration.text)
        with pytest.raises(MigrationError, match="earlier release") as caught:
            has_runtime(conn)
    assert caught.value.remedy == "run reconciler migrate"


def test_the_log_is_read_through_its_index(site: Site) -> None:
    """However long the log is, a status reads twenty runs of each job."""
    site.apply(*(job(f"j{number}") for number in range(20)))
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'j' || n % 20, now() - n * interval '1 s', now(), 'succeeded', 'x', 1"
        " FROM generate_series(1, 40000) n"
    )
    site.run("ANALYZE reconciler.cron_execution_log")
    query = join_queries("job_pages", *STATUS_PARTS)
    values = {"zone": "GMT", "query": None, "own": True}
    with connect(site.dsn) as conn:
        plan = "\n".join(line for (line,) in conn.execute(b"EXPLAIN " + query.encode(), values))
    assert "Seq Scan on cron_execution_log" not in plan, plan
