"""What Prometheus is told of a target."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from reconciler.api.context import Limits
from reconciler.database.metrics import read_metrics
from reconciler.runtime.spec_files import WatchedSpecFiles
from tests import queued
from tests.declared import Site, channel, job, queue
from tests.runs import call, fire
from tests.scraped import Scraper
from tests.served import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server

BROKEN = "SELECT 1/0"


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of two jobs, one of which fails, a queue and a channel."""
    site.apply(job("a"), job("b", BROKEN), queue("mail"), channel("ops"))
    with serve(site) as made:
        yield made


@pytest.fixture
def scraper(served: Served) -> Scraper:
    """Asks for metrics; the first look is over."""
    made = Scraper(served)
    made.scrape()
    return made


def test_runs_are_counted_as_they_end(site: Site, scraper: Scraper) -> None:
    """How often, how it ended, how long and how late: by owner since the first look, by job since ever."""
    assert scraper.find("reconciler_runs_total", owner="shop", status="succeeded") == 0
    assert call(site, "a") is None
    assert call(site, "b") is not None
    site.run("UPDATE reconciler.cron_execution_log SET run_at = run_at - interval '7 seconds'")
    scraper.scrape(after=10)
    assert scraper.find("reconciler_runs_total", owner="shop", status="succeeded") == 1
    assert scraper.find("reconciler_runs_total", owner="shop", status="failed") == 1
    assert scraper.find("reconciler_run_duration_seconds_bucket", owner="shop", le="5.0") == 0
    assert scraper.find("reconciler_run_duration_seconds_bucket", owner="shop", le="10.0") == 2
    assert scraper.find("reconciler_run_duration_seconds_count", owner="shop") == 2
    total = scraper.find("reconciler_run_duration_seconds_sum", owner="shop")
    assert total is not None
    assert 14 <= total < 16
    assert scraper.find("reconciler_run_lateness_seconds_count", owner="shop") == 0  # by hand: never late
    assert scraper.find("reconciler_job_runs_total", owner="shop", job_name="b") == 1
    assert scraper.find("reconciler_job_failed_runs_total", owner="shop", job_name="b") == 1
    assert scraper.find("reconciler_job_consecutive_failures", owner="shop", job_name="b") == 1
    assert scraper.find("reconciler_job_last_success_timestamp_seconds", owner="shop", job_name="b") is None
    assert (
        scraper.find("reconciler_job_last_success_timestamp_seconds", owner="shop", job_name="a") is not None
    )
    assert scraper.find("reconciler_jobs_failing", owner="shop") == 1
    assert scraper.find("reconciler_alerts_open", kind="failed") == 1
    before = dict(scraper.samples)
    scraper.scrape(after=10)
    counted = [key for key in before if key[0].startswith("reconciler_run")]
    assert {key: scraper.samples[key] for key in counted} == {key: before[key] for key in counted}


def test_lateness_counts_from_the_time_that_was_due(site: Site, scraper: Scraper) -> None:
    """A run that its entry fired counts from the newest fire, one that was put off from its own time."""
    site.run("UPDATE reconciler.definitions SET schedule = '* * * * *' WHERE name = 'a'")
    assert fire(site, "a") is None
    site.run(
        "UPDATE reconciler.cron_execution_log"
        " SET run_at = date_trunc('minute', run_at) + interval '20 seconds', completed_at = 'infinity'"
    )
    site.run("UPDATE reconciler.cron_execution_log SET completed_at = run_at")
    scraper.scrape(after=10)
    assert scraper.find("reconciler_run_lateness_seconds_count", owner="shop") == 1
    assert scraper.find("reconciler_run_lateness_seconds_sum", owner="shop") == 20
    assert scraper.find("reconciler_run_lateness_seconds_bucket", owner="shop", le="10.0") == 0
    assert scraper.find("reconciler_run_lateness_seconds_bucket", owner="shop", le="30.0") == 1


def test_a_run_that_goes_on_is_counted_once_it_is_over(site: Site, scraper: Scraper) -> None:
    """Between two looks runs may begin and end in any order, and their numbers may come late to light."""
    late = site.database.connect()
    insert = (
        "INSERT INTO reconciler.cron_execution_log (job_name, definition_id, role, backend_pid)"
        " SELECT name, id, 'anna', 0 FROM reconciler.definitions WHERE name = 'a' RETURNING id"
    )
    late.execute("BEGIN")
    late.execute(insert)
    site.run(insert)
    scraper.scrape(after=10)
    assert scraper.find("reconciler_runs_running", owner="shop") == 1
    assert scraper.find("reconciler_job_running", owner="shop", job_name="a") == 1
    assert scraper.find("reconciler_run_duration_seconds_count", owner="shop") == 0
    late.execute("COMMIT")
    end = "UPDATE reconciler.cron_execution_log SET status = 'succeeded', completed_at = clock_timestamp()"
    site.run(end)
    scraper.scrape(after=10)
    assert scraper.find("reconciler_runs_total", owner="shop", status="succeeded") == 2
    assert scraper.find("reconciler_runs_running", owner="shop") == 0
    scraper.scrape(after=10)
    assert scraper.find("reconciler_runs_total", owner="shop", status="succeeded") == 2


def test_what_was_looked_at_is_not_read_again(site: Site, conn: Connection) -> None:
    """Each look reads what is new in the log and nothing else."""
    site.apply(job("a"))
    for _ in range(3):
        assert call(site, "a") is None
    first = read_metrics(conn, per_job=10, position=None)
    assert list(first.ended) == []
    assert call(site, "a") is None
    second = read_metrics(conn, per_job=10, position=first.position)
    assert [row.status for row in second.ended] == ["succeeded"]
    third = read_metrics(conn, per_job=10, position=second.position)
    assert list(third.ended) == []


def test_another_database_behind_the_same_name_is_looked_at_from_its_end(
    site: Site, conn: Connection
) -> None:
    """A log that is shorter than it was is another log: nothing of it is counted twice, and nothing fails."""
    site.apply(job("a"))
    assert call(site, "a") is None
    before = read_metrics(conn, per_job=10, position=None)
    site.run("TRUNCATE reconciler.cron_execution_log RESTART IDENTITY")
    after = read_metrics(conn, per_job=10, position=before.position)
    assert (after.position.mark, list(after.ended)) == (0, [])


def test_jobs_that_wait_are_told_of(site: Site, scraper: Scraper) -> None:
    """Paused, overdue and missed jobs show, by owner and one by one."""
    site.run("SELECT reconciler.pause_job('a')")
    site.run(
        "UPDATE reconciler.job_states"
        " SET next_due_at = clock_timestamp() - interval '1 hour', missed_runs = 2 WHERE name = 'b'"
    )
    scraper.scrape(after=10)
    assert scraper.find("reconciler_jobs_paused", owner="shop") == 1
    assert scraper.find("reconciler_job_paused", owner="shop", job_name="a") == 1
    assert scraper.find("reconciler_job_paused", owner="shop", job_name="b") == 0
    assert scraper.find("reconciler_jobs_overdue", owner="shop") == 1
    overdue = scraper.find("reconciler_job_overdue_seconds", owner="shop", job_name="b")
    assert overdue is not None
    assert 3600 <= overdue < 3700
    assert scraper.find("reconciler_job_missed_runs_total", owner="shop", job_name="b") == 2
    assert scraper.find("reconciler_missed_runs_total", owner="shop") == 2
    site.run("DELETE FROM reconciler.job_states WHERE name = 'b'")
    scraper.scrape(after=10)
    assert scraper.find("reconciler_missed_runs_total", owner="shop") == 2  # never less


def test_queues_and_workers_are_told_of(site: Site, scraper: Scraper) -> None:
    """Depth by status, age, dead jobs, claims and leases, and who works."""
    conn = queued.connect(site)
    for _ in range(4):
        queued.enqueue(conn, "mail", max_attempts=1)
    queued.enqueue(conn, "mail", after=3600)
    claimed = queued.claim(conn, "mail", 2)
    queued.fail(conn, claimed[0])
    site.run(
        "UPDATE reconciler.jobs_open SET run_at = run_at - interval '5 minutes' WHERE status = 'pending'"
    )
    site.run("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1s' WHERE status = 'running'")
    site.run(
        "INSERT INTO reconciler.pull_workers (id, host, pid, queues, concurrency)"
        " VALUES ('x', 'h', 1, '{mail}', 7)"
    )
    scraper.scrape(after=10)
    found = {
        status: scraper.find("reconciler_queue_jobs", queue="mail", status=status)
        for status in ("waiting", "scheduled", "running", "failed")
    }
    assert found == {"waiting": 2, "scheduled": 1, "running": 1, "failed": 1}
    age = scraper.find("reconciler_queue_oldest_age_seconds", queue="mail")
    assert age is not None
    assert 300 <= age < 400
    assert scraper.find("reconciler_claims_held") == 1
    assert scraper.find("reconciler_claims_expired") == 1
    assert scraper.find("reconciler_workers_alive") == 1
    assert scraper.find("reconciler_worker_slots") == 7
    assert scraper.find("reconciler_queue_workers", queue="mail") == 1


def test_the_tick_the_launcher_and_the_schema_are_told_of(site: Site, scraper: Scraper) -> None:
    """Whether anything starts runs at all, and what was applied when."""
    assert scraper.find("reconciler_launcher_alive") == 1
    site.run("SELECT cron.schedule('t', '* * * * *', 'CALL reconciler.tick()')")
    site.run(
        "INSERT INTO cron.job_run_details"
        " (jobid, runid, database, username, command, status, start_time, end_time)"
        " SELECT jobid, 100000, database, username, command, 'succeeded', now() - interval '10 min', now()"
        " FROM cron.job WHERE jobname = 't'"
    )
    scraper.scrape(after=10)
    assert scraper.find("reconciler_tick_entries") == 1
    age = scraper.find("reconciler_tick_age_seconds")
    assert age is not None
    assert 600 <= age < 700
    assert (
        scraper.find("reconciler_schema_version")
        == site.rows("SELECT max(number) FROM reconciler.migrations")[0][0]
    )
    assert scraper.find("reconciler_revision", owner="shop") == 1
    assert scraper.find("reconciler_definitions", owner="shop", kind="job") == 2
    assert scraper.find("reconciler_definitions", owner="shop", kind="channel") == 1


def test_an_old_snapshot_shows(site: Site, scraper: Scraper) -> None:
    """Who holds one keeps all queues slow: its age is told in seconds and in transactions."""
    other = site.database.connect()
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT 1")
    for _ in range(5):
        site.run("SELECT pg_current_xact_id()")
    site.run("SELECT pg_sleep(1.1)")
    scraper.scrape(after=10)
    age, seconds = (
        scraper.find("reconciler_oldest_xmin_age"),
        scraper.find("reconciler_oldest_transaction_age_seconds"),
    )
    assert age is not None
    assert seconds is not None
    assert (age >= 5, seconds >= 1) == (True, True)
    other.execute("ROLLBACK")


def test_direct_jobs_have_what_pg_cron_knows(site: Site) -> None:
    """No count of ours, but how the newest runs went."""
    site.apply(job("d", mode="direct"))
    site.run(
        "INSERT INTO cron.job_run_details"
        " (jobid, runid, database, username, command, status, start_time, end_time)"
        " SELECT jobid, 100000 + n, database, username, command,"
        " CASE WHEN n = 1 THEN 'succeeded' ELSE 'failed' END, now() - interval '4 seconds', now()"
        " FROM cron.job, generate_series(1, 3) n WHERE jobname = 'd'"
    )
    with serve(site) as served:
        scraper = Scraper(served)
        scraper.scrape()
    assert scraper.find("reconciler_job_consecutive_failures", owner="shop", job_name="d") == 2
    assert scraper.find("reconciler_job_last_duration_seconds", owner="shop", job_name="d") == 4
    assert (
        scraper.find("reconciler_job_last_success_timestamp_seconds", owner="shop", job_name="d") is not None
    )
    assert scraper.find("reconciler_job_runs_total", owner="shop", job_name="d") is None
    assert scraper.find("reconciler_job_overdue_seconds", owner="shop", job_name="d") is None


def test_the_database_is_read_once_in_ten_seconds(site: Site, served: Served, scraper: Scraper) -> None:
    """However many ask, and all at once: one reads, and the others are told the same."""
    site.run("SELECT reconciler.pause_job('a')")
    for _ in range(3):
        scraper.scrape(after=3)
    assert scraper.find("reconciler_reads_total", outcome="ok") == 1
    assert scraper.find("reconciler_jobs_paused", owner="shop") == 0
    scraper._now += 10
    token = served.token("read")
    texts: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: texts.append(
                served.client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert all('reconciler_reads_total{outcome="ok"} 2.0' in text for text in texts)
    assert all('reconciler_jobs_paused{owner="shop"} 1.0' in text for text in texts)


def test_many_jobs_are_told_of_by_owner_alone(site: Site) -> None:
    """Over the limit no series has a job or a queue for a label, and a gauge says so."""
    site.apply(job("a"), job("b"), queue("q1"), queue("q2"))
    with serve(site, limits=Limits(metrics_per_job=1)) as served:
        scraper = Scraper(served)
        scraper.scrape()
        conn = queued.connect(site)
        queued.enqueue(conn, "q1")
        queued.enqueue(conn, "q2")
        assert call(site, "a") is None
        scraper.scrape(after=10)
    assert scraper.find("reconciler_per_job_series") == 0
    assert not any(name.startswith("reconciler_job_") for name in scraper.names())
    assert scraper.find("reconciler_definitions", owner="shop", kind="job") == 2
    assert scraper.find("reconciler_runs_total", owner="shop", status="succeeded") == 1
    assert scraper.find("reconciler_queue_jobs", queue="", status="waiting") == 2


def test_the_number_of_statements_does_not_grow(site: Site, conn: Connection, tmp_path: Path) -> None:
    """One job or a hundred, one run or many: the same statements."""

    def count(position: object) -> int:
        path = tmp_path / "trace"
        with path.open("w") as file:
            conn.pgconn.trace(file.fileno())
            read_metrics(conn, per_job=1000, position=position)  # type: ignore[arg-type] # a position or None
            conn.pgconn.untrace()
        sent = re.findall(r"^[^\t]+\tF\t\d+\t(\w+)", path.read_text(errors="replace"), flags=re.MULTILINE)
        return sum(message in {"Query", "Execute"} for message in sent)

    site.apply(job("a"))
    position = read_metrics(conn, per_job=1000, position=None).position
    few = count(position)
    site.apply(*(job(f"j{number}") for number in range(100)))
    for number in range(20):
        assert call(site, f"j{number}") is None
    assert count(position) == few <= 14


def test_a_database_that_goes_away_is_told_of(database: Database, served: Served, scraper: Scraper) -> None:
    """Nothing of it is told as if it were fresh, and it comes back by itself.

    Who read metrics lately is let in although no database can be asked about the token.
    """
    assert "reconciler_queue_jobs" in scraper.names()
    database.server.stop()
    known = served.service.known_callers
    later = known._clock() + 60
    known._clock = lambda: later
    scraper.scrape(after=10)
    assert scraper.find("reconciler_up") == 0
    assert scraper.find("reconciler_reads_total", outcome="connect") == 1
    told = {name for name in scraper.names() if name.startswith("reconciler_")}
    left = {
        name
        for name in told
        if not name.startswith(("reconciler_http_", "reconciler_reads_", "reconciler_build_"))
    }
    assert left == {"reconciler_up"}
    scraper.scrape(after=3)
    assert scraper.find("reconciler_reads_total", outcome="connect") == 1
    assert served.get("/api/v1/queues").status_code == 503
    database.server.start()
    scraper.scrape(after=10)
    assert scraper.find("reconciler_up") == 1
    assert "reconciler_queue_jobs" in scraper.names()


def test_another_schema_and_missing_rights_are_told_of(site: Site, served: Served, scraper: Scraper) -> None:
    """What is found instead of the schema is counted by its kind; the scrape is answered all the same."""
    site.run("ALTER TABLE reconciler.job_states RENAME COLUMN missed_runs TO misses")
    scraper.scrape(after=10)
    assert scraper.find("reconciler_up") == 0
    assert scraper.find("reconciler_reads_total", outcome="schema") == 1
    site.run("ALTER TABLE reconciler.job_states RENAME COLUMN misses TO missed_runs")
    site.run("CREATE ROLE poor LOGIN")
    with serve(Site(site.database, "poor")) as poor:
        families = poor.app.state.metrics.render("")[0].decode()
    assert "\nreconciler_up 0.0\n" in families
    assert 'reconciler_reads_total{outcome="rights"} 1.0' in families
    assert served.get("/metrics").status_code == 200


def test_what_a_role_cannot_see_is_not_told(site: Site) -> None:
    """Without pg_read_all_stats and rights on pg_cron's tables: no launcher and no tick, and no wrong 0."""
    site.apply(job("a"))
    site.run("CREATE ROLE reader LOGIN")
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader")
    with serve(Site(site.database, "reader")) as served:
        text = served.app.state.metrics.render("")[0].decode()
    assert "\nreconciler_up 1.0\n" in text
    for name in ("launcher_alive", "tick_entries", "tick_age_seconds", "oldest_xmin_age"):
        assert f"reconciler_{name}" not in text


def test_only_who_may_read_is_told(served: Served) -> None:
    """A token with the scope read opens it, at both paths; nothing else does."""
    assert served.get("/metrics", scopes=()).status_code == 401
    assert served.get("/metrics", scopes=("trigger",)).status_code == 403
    for path in ("/metrics", "/api/v1/metrics"):
        response = served.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("text/plain;version=0.0.4", "text/plain"),
        ("application/openmetrics-text; version=x.y", "text/plain"),
        ("", "text/plain"),
    ],
)
def test_openmetrics_is_told_to_who_asks_for_it(served: Served, accept: str, media_type: str) -> None:
    """As Prometheus asks; what cannot be read in the header is no fault of the service."""
    response = served.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)
    assert response.text.endswith("# EOF\n") == (media_type != "text/plain")


def test_requests_are_counted_by_the_template_of_their_path(served: Served, scraper: Scraper) -> None:
    """No id and no made-up path or method makes a series of its own."""
    for _ in range(3):
        served.get("/api/v1/metrics")
    for path in ("/no/such/path", "/api/v1/nothing"):
        assert served.get(path).status_code == 404
    served.request("BREW", "/metrics")
    scraper.scrape()
    assert (
        scraper.find("reconciler_http_requests_total", method="GET", route="/api/v1/metrics", status="200")
        == 3
    )
    assert (
        scraper.find("reconciler_http_request_duration_seconds_count", method="GET", route="/api/v1/metrics")
        == 3
    )
    found = {
        dict(labels)["route"]: value
        for (name, labels), value in scraper.samples.items()
        if name == "reconciler_http_requests_total" and dict(labels)["status"] == "404"
    }
    assert sum(found.values()) == 2
    assert found.keys() <= {"", "/{path:page}"}
    assert any(dict(labels).get("method") == "other" for name, labels in scraper.samples if "http" in name)
    assert scraper.find("reconciler_http_requests_in_progress") == 1  # this one
    routes = {
        dict(labels)["route"] for name, labels in scraper.samples if name == "reconciler_http_requests_total"
    }
    assert all(route == "" or route.startswith("/") for route in routes)


def test_several_applications_of_one_process_count_for_themselves(
    site: Site, served: Served, scraper: Scraper
) -> None:
    """Each has a registry of its own."""
    bearer = {"Authorization": f"Bearer {served.token('read')}"}
    served.get("/api/v1/metrics")
    with serve(site) as other:
        text = other.client.get("/metrics", headers=bearer).text
    assert "\nreconciler_up 1.0\n" in text
    assert 'route="/api/v1/metrics"' not in text
    scraper.scrape()
    assert (
        scraper.find("reconciler_http_requests_total", method="GET", route="/api/v1/metrics", status="200")
        == 1
    )


def test_drift_is_looked_for_once_a_minute_beside_the_scrapes(site: Site, tmp_path: Path) -> None:
    """A scrape never waits for a plan: it tells what the last look found, and when that was."""
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text("jobs:\n  a: {schedule: '0 0 29 2 *', sql: SELECT 1}\n")
    (tmp_path / "reconciler.yaml").write_text(f"owner: shop\ntargets:\n  test: {{dsn: '{site.dsn}'}}\n")
    site.apply(job("a"))
    files = WatchedSpecFiles(tmp_path / "reconciler.yaml", environment={})
    with serve(site, files=files) as served:
        scraper = Scraper(served)
        scraper.scrape()
        assert scraper.find("reconciler_plan_up") is None
        scraper.database.drift.wait(20)
        scraper.scrape()
        assert scraper.find("reconciler_plan_up") == 1
        assert scraper.find("reconciler_drifted_resources") == 0
        before = scraper.find("reconciler_planned_changes")
        assert before is not None
        site.run("SELECT cron.alter_job(jobid, schedule => '1 0 * * *') FROM cron.job WHERE jobname = 'a'")
        scraper.scrape(after=30)
        scraper.database.drift.wait(20)
        scraper.scrape()
        assert scraper.find("reconciler_drifted_resources") == 0
        served.service.answers._clock = lambda: 1e9
        scraper.scrape(after=31)
        scraper.database.drift.wait(20)
        scraper.scrape()
        assert scraper.find("reconciler_drifted_resources") == 1
        assert scraper.find("reconciler_planned_changes") == before + 1
        (tmp_path / "jobs.d" / "a.yaml").write_text("jobs: [")
        served.service.answers._clock = lambda: 2e9
        scraper.scrape(after=61)
        scraper.database.drift.wait(20)
        scraper.scrape()
        assert scraper.find("reconciler_plan_up") == 0
        assert scraper.find("reconciler_drifted_resources") is None
