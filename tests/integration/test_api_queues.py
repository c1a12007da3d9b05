"""Queues over the API: how they fare, what limits and holds them up, and how quick they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from reconciler.database.queries import load_queries
from reconciler.database.throughput import Throughput, read_throughput
from tests.declared import queue
from tests.queued import claim, claim_one, complete, connect, enqueue, fail, fill

if TYPE_CHECKING:
    from httpx import Response
    from psycopg import Connection

    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

QUEUES = "/api/v1/queues"
SQL = "x'; DROP TABLE reconciler.jobs; --"
WRONG_NAMES = ["", "nobody", SQL, "%00", "a%00b", "q" * 201, "..%2F..", "%ED%A0%80", "mail/nothing"]
FINISH = """
INSERT INTO reconciler.jobs_finished (handler, queue, status, completed_at)
SELECT 'work.do', %s, %s, now() - %s::interval FROM generate_series(1, %s)
"""
COUNT = """
SELECT count(*) FROM reconciler.jobs_finished
 WHERE queue = %s AND completed_at >= date_trunc('hour', now(), 'UTC') - interval '23 hours'
"""


def refusal(answer: Response) -> tuple[int, str]:
    """Return status and detail of a problem, which has its form."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (document["status"], bool(document["remedy"])) == (answer.status_code, True)
    return answer.status_code, str(document["detail"])


@pytest.fixture
def conn(served: Served) -> Connection:
    """A connection of a worker."""
    return connect(served.site)


def collect(served: Served, **query: Any) -> list[dict[str, Any]]:
    """Return the queues of a list, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = served.get(QUEUES, params=query)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        query["cursor"] = answer.json()["next_cursor"]


def show(served: Served, name: str) -> dict[str, Any]:
    """Show a queue."""
    answer = served.get(f"{QUEUES}/{quote(name)}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_queues_are_listed_by_name(served: Served, conn: Connection) -> None:
    """Declared or not, each with how it fares; in pages."""
    served.site.apply(queue("mail", concurrency=3), queue("zoo"))
    for name in ("mail", "mail", "Über / alles?", "abc"):
        enqueue(conn, name)
    enqueue(conn, "mail", after=3600)
    claim_one(conn, "mail")
    fail(conn, claim_one(conn, "abc"), final=True)
    found = collect(served)
    assert {one["queue"] for one in found} == {"abc", "mail", "zoo", "Über / alles?"}
    for limit in (1, 2, 4, 500):
        assert [one["queue"] for one in collect(served, limit=limit)] == [one["queue"] for one in found]
    mail = next(one for one in found if one["queue"] == "mail")
    assert mail["oldest_age_seconds"] >= 0
    assert {name: mail[name] for name in ("waiting", "scheduled", "running", "concurrency", "declared")} == {
        "waiting": 1,
        "scheduled": 1,
        "running": 1,
        "concurrency": 3,
        "declared": True,
    }
    abc = next(one for one in found if one["queue"] == "abc")
    assert (abc["failed"], abc["declared"], abc["waiting"], abc["oldest_age_seconds"]) == (1, False, 0, None)
    assert show(served, "Über / alles?")["waiting"] == 1


def test_a_queue_is_shown_with_what_limits_it_and_holds_it_up(served: Served, conn: Connection) -> None:
    """Its settings in seconds, the job at the head, and what was finished lately."""
    settings: Any = {"mode": "blocking", "max_attempts": 9, "rate": "100/1m", "timeout": "90s"}
    served.site.apply(queue("invoices", **settings, backoff={"initial": "5s", "factor": 1.5, "max": "1m"}))
    jobs = [enqueue(conn, "invoices") for _ in range(4)]
    complete(conn, [claim_one(conn, "invoices")])
    fail(conn, claim_one(conn, "invoices"), retry_in=600)
    shown = show(served, "invoices")
    assert shown["blocked_by"] == f"job {jobs[1]} (retry)"
    [held] = shown["held"]
    assert (held["ordering_key"], held["job_id"], held["why"], held["waiting"]) == ("", jobs[1], "retry", 2)
    assert held["until"].endswith("Z")
    assert shown["limits"] == {
        "max_attempts": 9,
        "timeout_seconds": 90,
        "backoff_initial_seconds": 5,
        "backoff_factor": 1.5,
        "backoff_max_seconds": 60,
        "concurrency": None,
        "rate_count": 100,
        "rate_per_seconds": 60,
        "lease_seconds": 30,
        "retention_seconds": 7 * 86400,
        "keep_failed_seconds": 30 * 86400,
        "held_by": ["retry"],
    }
    minutes, hours = shown["throughput"]["minutes"], shown["throughput"]["hours"]
    assert (len(minutes), len(hours)) == (60, 24)
    assert sum(one["finished"] for one in minutes) == sum(one["finished"] for one in hours) == 1


def look(site: Site, name: str, **options: Any) -> Throughput:
    """Count what was finished, in a session that is not in UTC."""
    conn = connect(site)
    conn.execute("SET timezone = 'Asia/Kathmandu'")
    return read_throughput(conn, name, **options)


def test_finished_jobs_are_counted_where_they_ended(served: Served) -> None:
    """In their minute and their hour, dead ones by themselves, other queues and older jobs not at all."""
    site = served.site
    with connect(site) as conn, conn.transaction():
        [began] = conn.execute("SELECT now()").fetchone() or ()
        # The first minute of an hour.
        then = began.astimezone(UTC).replace(minute=0, second=30, microsecond=0) - timedelta(hours=5)
        for status, age, count in (
            *(("completed", "0 s", 5), ("cancelled", "0 s", 1), ("failed", "0 s", 2)),
            *(("failed", began - then, 3), ("completed", "10 m", 7), ("completed", "70 m", 11)),
            *(("completed", "23 h", 13), ("completed", "25 h", 100)),
        ):
            for name in ("mail", "other"):
                conn.execute(FINISH, [name, status, age, count])
    now = datetime.now(UTC)
    found = look(site, "mail")
    minutes = {span.at: (span.finished, span.failed) for span in found.minutes}
    hours = {span.at: (span.finished, span.failed) for span in found.hours}
    assert list(minutes) == [found.minutes[-1].at - timedelta(minutes=n) for n in range(59, -1, -1)]
    assert list(hours) == [found.hours[-1].at - timedelta(hours=n) for n in range(23, -1, -1)]
    last = found.minutes[-1].at
    assert now - last < timedelta(minutes=2)
    assert found.hours[-1].at == last.replace(minute=0)
    told = [at for at, counts in minutes.items() if counts != (0, 0)]
    assert [minutes[at] for at in told] == [(7, 0), (6, 2)]
    assert told[1] - told[0] in {timedelta(minutes=10), timedelta(minutes=11)}
    assert sum(one or 0 for one, _ in hours.values()) in {5 + 1 + 7 + 11, 5 + 1 + 7 + 11 + 13}
    assert sum(one or 0 for _, one in hours.values()) == 5
    assert hours[then.replace(second=0)][1] == 3
    [(kept,)] = site.rows(COUNT, "mail")
    assert sum((one or 0) + (other or 0) for one, other in hours.values()) == kept


def test_of_a_busy_queue_the_newest_jobs_are_counted(served: Served) -> None:
    """What lies before them is not known, and not told to be nothing."""
    site = served.site
    for age, count in (("1 s", 30), ("2 h", 30), ("4 h", 60), ("6 h", 5)):
        site.run(FINISH, *("mail", "completed", age, count))
    found = look(site, "mail", most=100)
    known = [span.finished for span in found.hours if span.finished is not None]
    assert (sum(known), len(known)) in {(60, 4), (60, 5)}
    assert [span.failed for span in found.hours] == [
        None if span.finished is None else 0 for span in found.hours
    ]
    assert [span.finished for span in look(site, "nobody").hours] == [0] * 24


def test_the_count_reads_indexes_alone(served: Served) -> None:
    """However wide the rows are."""
    site = served.site
    site.run(FINISH, *("mail", "completed", "1 h", 5000))
    site.run(FINISH, *("mail", "failed", "1 h", 500))
    site.run("VACUUM ANALYZE reconciler.jobs_finished")
    text = load_queries("throughput")["read_throughput"].encode()
    rows = connect(site).execute(b"EXPLAIN " + text, {"queue": "mail", "most": 1000}).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert plan.count("Index Only Scan using jobs_f") == 2, plan
    assert "Seq Scan" not in plan


def test_whatever_is_sent_is_answered(served: Served, conn: Connection) -> None:
    """Names of no queue are 404 or 422, with the nearest one; wrong queries are 422."""
    fill(conn, 2, "outreach")
    claim(conn, "outreach")
    for name in WRONG_NAMES:
        assert refusal(served.get(f"{QUEUES}/{name}"))[0] in {404, 422}, name
    answer = served.get(f"{QUEUES}/outreahc")
    assert (refusal(answer)[0], answer.json()["remedy"]) == (404, "did you mean outreach?")
    for query in ("limit=0", "limit=501", "cursor=garbage", "cursor=WzFd", "cursor=WyJcdTAwMDAiXQ"):
        assert refusal(served.get(f"{QUEUES}?{query}"))[0] == 422, query
    for path in (QUEUES, f"{QUEUES}/outreach"):
        assert refusal(served.get(path, scopes=("write", "trigger", "run")))[0] == 403
        assert refusal(served.get(path, scopes=()))[0] == 401
        assert refusal(served.request("DELETE", path, scopes=("write",)))[0] == 405
