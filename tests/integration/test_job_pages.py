"""Pages of jobs: the same facts as the status tells, searched, filtered and counted by the server."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from itertools import product
from typing import Any, get_args

import pytest

from reconciler.database.connect import connect
from reconciler.database.job_pages import JobPage, count_jobs, find_job, read_job_page, read_named_page
from reconciler.database.migrate import load_migrations
from reconciler.database.queries import join_queries
from reconciler.database.status import JobStatus, State, read_status
from reconciler.errors import MigrationError
from tests.declared import LATER, NEVER, Site, after, channel, job, once, queue, worker
from tests.queued import claim_one
from tests.runs import call, fire, hold, running

pytestmark = pytest.mark.one_server


def read(site: Site, **options: Any) -> JobPage:
    """Read a page."""
    with connect(site.dsn) as conn:
        return read_job_page(conn, zone="GMT", **options)


def names(site: Site, **options: Any) -> list[str]:
    """Read the names of a page."""
    return [one.name for one in read(site, **options).jobs]


def only_status(one: JobStatus) -> dict[str, Any]:
    """Return what the status tells of a job too."""
    return {field.name: getattr(one, field.name) for field in fields(JobStatus)}


def make_every_state(site: Site) -> None:
    """Make a job of each state, managed and direct ones."""
    site.apply(
        *(job(name) for name in ("ok", "missing", "paused", "missed", "retired")),
        job("inactive", active=False),
        job("failing", "SELECT 1/0"),
        job("queued", handler="work.do", queue="q"),
        job("direct-ok", mode="direct"),
        job("direct-failing", mode="direct"),
        job("direct-running", mode="direct"),
        job("running", hold()),
        once("once"),
        once("once-held", active=False),
        once("once-running", queue="other"),
        after("waiting", "ok"),
        worker("worker"),
        queue("q"),
        queue("other"),
        channel("channel"),
    )
    site.apply(job("z"), owner="kitchen")
    for _ in range(3):
        call(site, "failing")
    fire(site, "ok")
    fire(site, "queued")
    site.run("UPDATE reconciler.jobs SET run_at = now() WHERE job_name = 'once-running'")
    claim_one(site.database.connect(), queue="other")
    site.run("SELECT cron.unschedule('missing')")
    site.run("SELECT reconciler.pause_job('paused', NULL, 'no need')")
    site.run("INSERT INTO reconciler.alerts (job_name, kind, message) VALUES ('missed', 'missed', 'x')")
    site.run(
        "UPDATE reconciler.definitions SET retired_at = now(), retired_until = %s WHERE name = 'retired'",
        LATER,
    )
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)"
        " SELECT jobid, n, CASE WHEN n > 1 THEN 'failed' ELSE 'succeeded' END, 'message ' || n,"
        " now() - interval '1 minute', now() FROM cron.job, generate_series(1, 3) n"
        " WHERE jobname = 'direct-failing'"
    )
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time)"
        " SELECT jobid, 4, 'running', now() FROM cron.job WHERE jobname = 'direct-running'"
    )


def test_a_page_tells_what_the_status_tells(site: Site) -> None:
    """Every fact of every job is the one of the status, and each state finds its jobs and counts them."""
    make_every_state(site)
    with running(site, name="running"), connect(site.dsn) as conn, conn.transaction():
        status = {one.name: one for one in read_status(conn, "GMT")}
        page = read_job_page(conn, zone="GMT", own=True)
        single = [find_job(conn, one.name, zone="GMT") for one in page.jobs]
        by_state: dict[State, list[str]] = {
            state: [one.name for one in read_job_page(conn, zone="GMT", state=state).jobs]
            for state in {one.state for one in status.values()}
        }
    assert {one.name: only_status(one) for one in page.jobs} == {
        name: only_status(one) for name, one in status.items()
    }
    assert single == list(page.jobs)
    expected: dict[State, list[str]] = {}
    for name in sorted(status):
        expected.setdefault(status[name].state, []).append(name)
    assert by_state == expected
    assert set(expected) == set(get_args(State))
    assert page.counts == Counter(one.state for one in status.values())
    assert (page.total, page.next, page.is_hiding) == (len(status), None, False)


def test_a_page_without_a_state_is_the_same_found_by_its_names(site: Site) -> None:
    """Page by page, of whatever size: the same jobs with the same facts, and the counts are told apart."""
    make_every_state(site)
    site.run("SELECT cron.schedule('a', %s, 'SELECT 1')", NEVER)
    site.run("SELECT cron.schedule('zz', %s, 'SELECT 1')", NEVER)
    site.run("SELECT cron.schedule('0 0 29 2 *', 'SELECT 2')")
    with connect(site.dsn) as conn, conn.transaction():
        for own, kind, owner in product(
            (True, False), (None, "job", "worker", "entry"), (None, "shop", "kitchen", "")
        ):
            options: dict[str, Any] = {"own": own, "kind": kind, "owner": owner}
            for limit in (1, 4, 50):
                place = None
                while True:
                    page = read_job_page(conn, zone="GMT", after=place, limit=limit, **options)
                    named = read_named_page(conn, zone="GMT", after=place, limit=limit, **options)
                    assert (named.jobs, named.next) == (page.jobs, page.next)
                    place = page.next
                    if place is None:
                        break
            assert count_jobs(conn, **options) == (page.total, page.counts)


def test_pages_follow_one_another(site: Site) -> None:
    """Each page begins after the last job of the one before; nothing comes twice, also among like names."""
    site.apply(*(job(name) for name in ("a", "a-b", "a.b", "b1", "b10", "b2")))
    site.run(
        "SELECT cron.schedule('a', %s, 'SELECT 1') FROM (SELECT set_config('x.y', '', false)) AS s", NEVER
    )
    found, after_, totals = [], None, set()
    while True:
        page = read(site, after=after_, limit=2)
        assert len(page.jobs) <= 2
        found += [(one.name, one.kind) for one in page.jobs]
        totals.add(page.total)
        if page.next is None:
            break
        after_ = page.next
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    assert found == [(one.name, one.kind) for one in read(site).jobs]
    assert totals == {len(found)}
    assert read(site, after=("zzz", 0)).jobs == ()


def test_jobs_are_searched_by_what_people_know_of_them(site: Site) -> None:
    """A search looks at name, description, owner and labels, in any case; no sign means anything else."""
    site.apply(
        job("orders", description="Brings the ORDERS\nof today"),
        job("mail", labels={"team": "Delivery", "odd": "100%_'\\"}),
        worker("push", description="tells of orders"),
    )
    site.apply(job("soup"), owner="kitchen")
    assert names(site, query="order") == ["orders", "push"]
    assert names(site, query="of TODAY") == ["orders"]
    assert names(site, query="team=delivery") == ["mail"]
    assert names(site, query="KITCH") == ["soup"]
    assert names(site, query="%_'\\") == ["mail"]
    assert names(site, query="%") == ["mail"]
    assert names(site, query="'; DROP TABLE reconciler.definitions; --") == []
    assert names(site, owner="kitchen") == ["soup"]
    assert names(site, owner="shop", kind="worker", query="o") == ["push"]
    page = read(site, query="order", limit=1)
    assert (page.total, page.counts) == (2, {"ok": 3, "no_entry": 1})
    labelled = read(site, query="team=").jobs[0]
    assert (labelled.labels["team"], labelled.description) == ("Delivery", None)
    assert labelled.source == "jobs.d/shop.yaml:3"


def test_what_nobody_declared_is_listed_with_its_runs(site: Site) -> None:
    """An entry made by hand is of the kind entry and of nobody; how it fares pg_cron's records say."""
    site.apply(job("a"))
    site.run("SELECT cron.schedule('a-by-hand', '30 2 1 1 *', 'SELECT 1/0')")
    site.run("SELECT cron.schedule('* * * * *', 'SELECT 1')")
    site.run("UPDATE cron.job SET active = false WHERE jobname IS NULL")
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)"
        " SELECT jobid, n, 'failed', 'no', now() - interval '1 minute', now()"
        " FROM cron.job, generate_series(1, 25) n WHERE jobname = 'a-by-hand'"
    )
    unnamed, by_hand = read(site, kind="entry").jobs
    assert (by_hand.name, by_hand.owner, by_hand.source) == ("a-by-hand", "", "")
    assert (by_hand.state, by_hand.last_error, by_hand.consecutive_failures) == ("failing", "no", 25)
    assert by_hand.recent_statuses == ["failed"] * 20
    assert by_hand.next_run_at is not None
    assert by_hand.jobid == site.entry("a-by-hand")["jobid"]
    assert (unnamed.name, unnamed.state, unnamed.next_run_at) == ("", "inactive", None)
    assert names(site, owner="") == ["", "a-by-hand"]
    assert names(site, query="BY-H") == ["a-by-hand"]


def test_one_job_is_found_by_name_or_number(site: Site) -> None:
    """A name wins over a number, and what is declared over what is not; the facts are those of the page."""
    site.apply(job("a"))
    site.run("SELECT cron.schedule('by-hand', '0 0 29 2 *', 'SELECT 1')")
    declared, by_hand = (site.entry(name)["jobid"] for name in ("a", "by-hand"))
    site.apply(job("a"), job(str(by_hand), mode="direct"))
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)"
        " SELECT jobid, n, (ARRAY['succeeded', 'failed', 'failed', 'running'])[n], 'no', now(), now()"
        " FROM cron.job, generate_series(1, 4) n WHERE jobname = 'by-hand'"
    )
    listed = {one.name: one for one in read(site).jobs}
    with connect(site.dsn) as conn:
        found = {
            key: find_job(conn, key, zone="GMT")
            for key in (
                "a",
                str(declared),
                str(by_hand),
                "by-hand",
                "nothing",
                "9" * 30,
                "\uff11",
                "x' OR true --",
            )
        }
    assert found["a"] == found[str(declared)] == listed["a"]
    assert found[str(by_hand)] == listed[str(by_hand)]
    assert found["by-hand"] == listed["by-hand"]
    assert (listed["by-hand"].state, listed["by-hand"].consecutive_failures) == ("running", 2)
    assert [key for key, one in found.items() if one is None] == [
        "nothing",
        "9" * 30,
        "\uff11",
        "x' OR true --",
    ]


def test_the_tools_own_entries_are_listed_on_request(site: Site) -> None:
    """The tick and the runner are nobody's jobs, and do not count."""
    site.apply(job("a"))
    site.run("SELECT cron.schedule('reconciler-extra', '0 0 29 2 *', 'SELECT 1')")
    assert (names(site), read(site).counts) == (["a"], {"ok": 1})
    assert names(site, own=True) == ["a", "reconciler-extra"]


def test_a_role_that_sees_less_is_told_so(site: Site) -> None:
    """Entries that row-level security hides are missing in the list, and the page says that it may be so."""
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    site.apply(job("a"))
    site.run("SELECT cron.schedule('by-hand', '0 0 29 2 *', 'SELECT 1')")
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice")
    page = read(Site(site.database, "alice"))
    assert [(one.name, one.is_hidden, one.state) for one in page.jobs] == [("a", True, "ok")]
    assert page.is_hiding


def test_an_empty_page_still_counts(site: Site) -> None:
    """Where nothing fits there are no jobs, and the counts of all."""
    site.apply(job("a"))
    page = read(site, query="nothing like that")
    assert (page.jobs, page.next, page.total, page.counts) == ((), None, 0, {"ok": 1})


def test_a_schema_of_an_earlier_release_has_to_be_migrated(site: Site) -> None:
    """Without the tables of this release a migrate is asked for."""
    with connect(site.dsn) as conn:
        for migration in load_migrations()[:2]:
            conn.execute(migration.text)
    with pytest.raises(MigrationError, match="earlier release"):
        read(site)


def test_the_log_is_read_for_the_jobs_of_the_page_alone(site: Site) -> None:
    """However long the log is, a page reads twenty runs of each of its jobs, also of those in one state."""
    site.apply(*(job(f"j{number}") for number in range(20)))
    site.run(
        "INSERT INTO reconciler.cron_execution_log"
        " (job_name, run_at, completed_at, status, role, backend_pid)"
        " SELECT 'j' || n % 20, now() - n * interval '1 s', now(), 'succeeded', 'x', 1"
        " FROM generate_series(1, 40000) n"
    )
    site.run("ANALYZE reconciler.cron_execution_log")
    values = {
        **dict.fromkeys(("query", "owner", "kind", "after_name", "after_number")),
        "zone": "GMT",
        "state": "failing",
        "limit": 51,
        "own": False,
    }
    query = join_queries(
        "job_pages", "list_all", "follow_direct", "judge_jobs", "find_page", "describe_page", "show_page"
    )
    with connect(site.dsn) as conn:
        plan = "\n".join(line for (line,) in conn.execute(b"EXPLAIN " + query.encode(), values))
    assert "Seq Scan on cron_execution_log" not in plan, plan
