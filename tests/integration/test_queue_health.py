"""How queues fare, and what holds up an order: the views and functions that people look at."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from reconciler.database.queue_health import (
    Held,
    QueueHealth,
    read_held,
    read_limits,
    read_queues,
    require_queues,
)
from reconciler.errors import MigrationError
from tests.declared import Site, queue, worker
from tests.queued import cancel, claim, claim_one, complete, enqueue, fail, fill, pass_time, snooze

if TYPE_CHECKING:
    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server


BACKOFF = {"initial": "1h", "max": "1h"}


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    return site


def health(site: Site, name: str = "default") -> QueueHealth:
    """Return how a queue fares."""
    with connect(site.dsn) as conn:
        [found] = read_queues(conn, name)
    return found


def held(site: Site, name: str, key: str | None = None) -> list[Held]:
    """Return what holds up the order of a queue."""
    with connect(site.dsn) as conn:
        return read_held(conn, name, key=key)


def reasons(site: Site, name: str) -> list[tuple[str, int, str, int]]:
    """Return key, job, reason and number of those that wait."""
    return [(one.ordering_key, one.job_id, one.why, one.waiting) for one in held(site, name)]


def test_a_target_without_queues_is_told(database: Database) -> None:
    """What to do about it, too."""
    with connect(database.dsn) as conn, pytest.raises(MigrationError) as caught:
        require_queues(conn)
    assert caught.value.remedy == "run reconciler migrate"


def test_queues_are_those_that_are_declared_and_those_with_jobs(site: Site, conn: Connection) -> None:
    """By name; one with nothing but finished jobs is one, too."""
    assert site.rows("SELECT * FROM reconciler.queue_health") == []
    site.apply(queue("mail"), queue("invoices", mode="blocking", concurrency=1))
    enqueue(conn, "waits")
    enqueue(conn, "blocking")
    enqueue(conn, "ordered", ordering_key="k")
    for name in ("runs", "done", "dead", "gone"):
        enqueue(conn, name)
    claim_one(conn, "runs")
    complete(conn, [claim_one(conn, "done")])
    fail(conn, claim_one(conn, "dead"), final=True)
    cancel(conn, site.rows("SELECT id FROM reconciler.jobs WHERE queue = 'gone'")[0][0])
    enqueue(conn, "later", after=3600)
    with connect(site.dsn) as reader:
        found = read_queues(reader)
    assert [(one.queue, one.mode, one.declared) for one in found] == [
        ("blocking", "blocking", False),
        ("dead", "standard", False),
        ("done", "standard", False),
        ("gone", "standard", False),
        ("invoices", "blocking", True),
        ("later", "standard", False),
        ("mail", "standard", True),
        ("ordered", "standard", False),
        ("runs", "standard", False),
        ("waits", "standard", False),
    ]


def test_jobs_are_counted(site: Site, conn: Connection) -> None:
    """Ordered or not; neither one-time work in SQL nor what is inactive waits for a worker."""
    fill(conn, 5)
    fill(conn, 3, key="k")
    enqueue(conn, after=3600)
    enqueue(conn, after=3600, ordering_key="k")
    site.run("INSERT INTO reconciler.jobs (handler, active) VALUES ('a', false)")
    site.run("INSERT INTO reconciler.jobs (once, job_name) VALUES (true, 'tidy')")
    found = health(site)
    assert (found.waiting, found.scheduled, found.running, found.failed) == (8, 2, 0, 0)
    assert found.oldest_age is not None
    assert timedelta(0) < found.oldest_age < timedelta(minutes=1)
    pass_time(conn, 600)
    assert timedelta(minutes=10) < (health(site).oldest_age or timedelta(0)) < timedelta(minutes=11)
    batch = claim(conn, limit=4)
    fail(conn, batch[0], final=True)
    found = health(site)
    assert (found.waiting, found.scheduled, found.running, found.failed) == (4, 2, 3, 1)
    complete(conn, batch[1:])
    while batch := claim(conn):
        complete(conn, batch)
    found = health(site)
    assert (found.waiting, found.oldest_age, found.completed_last_minute) == (0, None, 7)


def test_what_was_completed_lately_is_counted(site: Site) -> None:
    """In the last minute and the last hour; neither dead nor cancelled jobs are."""
    for age in (0, 30, 90, 3500, 3700):
        site.run(
            "INSERT INTO reconciler.jobs (handler, status, completed_at)"
            " SELECT 'a', status, clock_timestamp() - make_interval(secs => %s)"
            " FROM unnest('{completed,failed,cancelled}'::text[]) AS status",
            age,
        )
    found = health(site)
    assert (found.completed_last_minute, found.completed_last_hour, found.rate) == (2, 4, 2)


def test_only_the_newest_of_many_finished_jobs_are_looked_at(site: Site) -> None:
    """The numbers are least ones then; the rate is right all the same."""
    site.run(
        "INSERT INTO reconciler.jobs (handler, status, completed_at)"
        " SELECT 'a', 'completed', clock_timestamp() - n * interval '200 microseconds'"
        " FROM generate_series(1, 200000) AS n"
    )
    found = health(site)
    assert (found.completed_last_minute, found.completed_last_hour) == (100_000, 100_000)
    assert 200_000 <= found.rate <= 300_000


def test_workers_are_those_that_live(site: Site, conn: Connection) -> None:
    """Processes heard of within a minute, for each of their queues, and entries that fire."""
    site.apply(
        queue("mail"),
        worker("w1", queue="mail"),
        worker("w2", queue="mail", active=False),
        worker("w3", queue="mail", status="failed"),
        worker("w4", queue="mail"),
    )
    # Not every server of the tests has an extension for requests, and only there a worker gets an entry.
    site.run(
        "UPDATE reconciler.definitions SET jobid = 1, schedule = '', command = '', database = '',"
        " username = '', active = name <> 'w2' WHERE kind = 'worker' AND name <> 'w4'"
    )
    report: LiteralString = "SELECT reconciler.report_worker(%s, 'host', 1, %s, 5)"
    conn.execute(report, ["old", ["mail"]])
    pass_time(conn, 61)
    conn.execute(report, ["a", ["mail", "other"]])
    conn.execute(report, ["b", ["other"]])
    enqueue(conn, "other")
    assert (health(site, "mail").workers, health(site, "other").workers) == (2, 2)


def test_what_blocks_a_queue_is_named(site: Site, conn: Connection) -> None:
    """No worker, its limits, or the head of its order; nothing where nothing is due."""
    site.apply(queue("narrow", concurrency=1), queue("slow", rate="1/1h"), queue("serial", mode="blocking"))
    for name in ("plain", "narrow", "slow", "serial"):
        enqueue(conn, name, after=60)
        assert health(site, name).blocked_by is None
        fill(conn, 3, name, key="" if name == "serial" else None)
        assert health(site, name).blocked_by == "no worker"
        conn.execute("SELECT reconciler.report_worker('w', 'host', 1, %s, 5)", [[name]])
        assert health(site, name).blocked_by is None
    claim_one(conn, "narrow")
    assert health(site, "narrow").blocked_by == "concurrency"
    complete(conn, [claim_one(conn, "slow")])
    assert health(site, "slow").blocked_by == "rate"
    head = claim_one(conn, "serial")
    assert health(site, "serial").blocked_by == f"job {head.id} (running)"
    fail(conn, head, retry_in=60)
    assert health(site, "serial").blocked_by == f"job {head.id} (retry)"
    assert (health(site, "serial").concurrency, health(site, "narrow").concurrency) == (None, 1)


def test_keys_that_are_held_up_are_counted(site: Site, conn: Connection) -> None:
    """One that is being done is no trouble."""
    conn.execute("SELECT reconciler.report_worker('w', 'host', 1, %s, 5)", [["default"]])
    for key in "abc":
        fill(conn, 2, key=key)
    batch = claim(conn)
    assert health(site).blocked_by is None
    fail(conn, batch[0], retry_in=60)
    assert health(site).blocked_by == "1 ordering key"
    fail(conn, batch[1], retry_in=60)
    assert health(site).blocked_by == "2 ordering keys"


@pytest.mark.parametrize("name", ["serial", "keyed"])
def test_what_holds_up_an_order_is_told(site: Site, conn: Connection, name: str) -> None:
    """Which job, why, since when, until when, and how many wait; nothing where none is due."""
    key = "" if name == "serial" else "k"
    site.apply(queue("serial", mode="blocking", backoff=BACKOFF), queue("keyed", backoff=BACKOFF))
    fill(conn, 3, name, key=key)
    enqueue(conn, name, ordering_key=key, after=3600)
    assert reasons(site, name) == []
    head = claim_one(conn, name)
    assert reasons(site, name) == [(key, head.id, "running", 2)]
    assert held(site, name)[0].until is None
    fail(conn, head)
    [one] = held(site, name)
    assert (one.job_id, one.why, one.waiting) == (head.id, "retry", 2)
    assert one.until is not None
    assert timedelta(minutes=25) < one.until - one.since < timedelta(minutes=65)
    pass_time(conn, 3000 * 2)
    head = claim_one(conn, name)
    assert snooze(conn, head)
    assert reasons(site, name) == [(key, head.id, "retry", 3)]
    cancel(conn, head.id)
    assert reasons(site, name) == []


def test_what_holds_up_is_the_queues_choice(site: Site, conn: Connection) -> None:
    """A dead job, a job that is due later, a retry: each only where the queue says so."""
    site.apply(
        queue("free", held_by=[]),
        queue("dead", held_by=["failed"]),
        queue("later", held_by=["future", "retry"]),
    )
    for name in ("free", "dead", "later"):
        first = enqueue(conn, name, ordering_key="k")
        enqueue(conn, name, ordering_key="k")
        fail(conn, claim_one(conn, name), final=True)
        assert reasons(site, name) == ([("k", first, "failed", 1)] if name == "dead" else [])
        second = claim_one(conn, name) if name != "dead" else None
        if second is not None:
            enqueue(conn, name, ordering_key="k")
            fail(conn, second, retry_in=60)
            assert reasons(site, name) == ([("k", second.id, "retry", 1)] if name == "later" else [])
    conn.execute("DELETE FROM reconciler.jobs")
    for name in ("free", "later"):
        first = enqueue(conn, name, ordering_key="k", after=60)
        fill(conn, 2, name, key="k")
        fill(conn, 2, name, key="other")
        assert reasons(site, name) == ([("k", first, "future", 2)] if name == "later" else [])
        assert len(claim(conn, name)) == (1 if name == "later" else 2)


def test_it_agrees_with_what_is_claimed(site: Site, conn: Connection) -> None:
    """A key that is held up gives no job, and one that is not gives one: in all states that chance brings."""
    choices = [[], ["retry"], ["failed"], ["future"], ["retry", "failed", "future"]]
    site.apply(*(queue(f"q{number}", held_by=held_by) for number, held_by in enumerate(choices)))
    conn.execute("SELECT setseed(0.5)")
    site.run(
        """
        INSERT INTO reconciler.jobs (handler, queue, ordering_key, status, started_at, completed_at, run_at)
        SELECT 'a', 'q' || q, 'k' || key, CASE WHEN random() < 0.25 THEN 'failed' ELSE 'pending' END,
               CASE WHEN random() < 0.3 THEN now() - interval '1 minute' END, now(),
               now() + (random() - 0.5) * interval '1 hour'
          FROM generate_series(0, 4) AS q, generate_series(1, 200) AS key, generate_series(1, 3)
        """
    )
    site.run(
        "UPDATE reconciler.jobs_open j SET status = 'running'"
        " FROM (SELECT DISTINCT ON (queue, ordering_key) id FROM reconciler.jobs_open"
        "        WHERE ordering_key LIKE '%7' ORDER BY queue, ordering_key, id) f WHERE f.id = j.id"
    )
    for number in range(len(choices)):
        name = f"q{number}"
        due = site.rows(
            "SELECT DISTINCT ordering_key FROM reconciler.jobs WHERE queue = %s AND status = 'pending'"
            " AND run_at <= now()",
            name,
        )
        with connect(site.dsn) as reader:
            blocked = {one.ordering_key for one in read_held(reader, name, limit=1000)}
        claimed = {job.ordering_key for job in claim(conn, name, limit=1000)}
        assert len(claimed) > 20
        assert claimed == {key for (key,) in due} - blocked


def test_one_key_is_asked_for(site: Site, conn: Connection) -> None:
    """Others are left out; those come first that keep the most waiting."""
    for key, count in (("a", 2), ("b", 4), ("c", 3)):
        fill(conn, count, key=key)
    claim(conn)
    assert [(one.ordering_key, one.waiting) for one in held(site, "default")] == [
        ("b", 3),
        ("c", 2),
        ("a", 1),
    ]
    assert [one.ordering_key for one in held(site, "default", "c")] == ["c"]
    assert held(site, "default", "d") == []


def test_limits_are_those_of_the_queue(site: Site, conn: Connection) -> None:
    """Or the usual ones."""
    site.apply(queue("mail", max_attempts=9, timeout="5m"))
    found = [read_limits(conn, name) for name in ("mail", "other")]
    assert [(one.max_attempts, one.timeout) for one in found] == [
        (9, timedelta(minutes=5)),
        (5, timedelta(hours=1)),
    ]


def explain(site: Site, query: str) -> str:
    """Return the plan of a query with small tables left out of account."""
    with connect(site.dsn) as conn:
        return "\n".join(line for (line,) in conn.execute(b"EXPLAIN " + query.encode()))


def test_whatever_is_counted_is_counted_along_an_index(site: Site, conn: Connection) -> None:
    """With a hundred thousand jobs waiting and as many finished, no table of jobs is read from end to end."""
    fill(conn, 50_000)
    fill(conn, 50_000, key="k")
    site.run(
        "INSERT INTO reconciler.jobs (handler, status, queue, completed_at)"
        " SELECT 'a', CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'completed' END, 'q' || n %% 5,"
        " clock_timestamp() - n * interval '1 second' FROM generate_series(1, %s) AS n",
        100_000,
    )
    site.run("VACUUM ANALYZE reconciler.jobs_open, reconciler.jobs_finished")
    plan = explain(site, "SELECT * FROM reconciler.queue_health")
    assert "Seq Scan on jobs_" not in plan
    for index in (
        "jobs_ready_idx",
        "jobs_ordered_idx",
        "jobs_running_idx",
        "jobs_finished_idx",
        "jobs_failed_idx",
    ):
        assert index in plan
    one = explain(site, "SELECT * FROM reconciler.held_orders WHERE queue = 'default' AND ordering_key = 'k'")
    assert "Seq Scan on jobs_" not in one


def listed(conn: Connection, **values: Any) -> list[int]:
    """Return the ids that list_jobs gives."""
    rows = conn.execute(
        "SELECT id FROM reconciler.list_jobs(%(status)s, %(queue)s, %(handler)s, %(job_name)s, %(max)s)",
        {**dict.fromkeys(("status", "queue", "handler", "job_name")), "max": 100, **values},
    )
    return [number for (number,) in rows]


def test_jobs_are_listed_from_both_parts_by_what_is_asked(site: Site, conn: Connection) -> None:
    """The newest first."""
    site.run(
        "INSERT INTO reconciler.jobs (id, handler, queue, status, job_name, run_at, completed_at)"
        " SELECT n, 'h' || n %% 2, 'q' || n %% 3,"
        " ('{pending,running,completed,failed,cancelled}'::text[])[1 + n %% 5],"
        " CASE WHEN n %% 4 = 0 THEN 'j' END, now() + (n - 15) * interval '1 hour', now()"
        " FROM generate_series(1, %s) AS n",
        30,
    )
    assert listed(conn) == list(range(30, 0, -1))
    assert listed(conn, max=3) == [30, 29, 28]
    for number, status in enumerate(("pending", "running", "completed", "failed", "cancelled")):
        expected = [n for n in range(30, 0, -1) if n % 5 == number]
        assert listed(conn, status=status) == expected
        assert listed(conn, status=status, queue="q1") == [n for n in expected if n % 3 == 1]
    assert listed(conn, status="scheduled") == [n for n in range(30, 15, -1) if n % 5 == 0]
    assert listed(conn, queue="q2", handler="h1") == [n for n in range(30, 0, -1) if n % 3 == 2 and n % 2]
    assert listed(conn, job_name="j") == [28, 24, 20, 16, 12, 8, 4]
    assert listed(conn, status="unknown") == []
