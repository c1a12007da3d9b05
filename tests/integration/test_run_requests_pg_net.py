"""Requests sent through pg_net, which answers after the run's own transaction.

pg_net itself cannot be had here: a stand-in has its functions and tables, and the test plays its worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from tests.declared import Site, channel, job
from tests.faults import HOLDERS, check_aftermath, check_recovery, statuses
from tests.pg_net import STAND_IN, answer
from tests.runs import call, make_due, runner, tick

if TYPE_CHECKING:
    from tests.servers import Database

URL = "https://app.test/run"
LOG: LiteralString = """
SELECT status, response_status, error_message, error_detail FROM reconciler.cron_execution_log ORDER BY id
"""
WAITING = [("running", None, None, None)]


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database with the stand-in."""
    site = Site(database)
    site.run(STAND_IN)
    return site


def declare(site: Site, **fields: Any) -> None:
    """Declare the job a, which sends a request and tells a channel when it fails."""
    options = {"on_failure": {"retries": 2}, "alert": {"channels": ["ops"]}}
    http = {"url": URL, **fields.pop("http", {})}
    site.apply(channel("ops"), job("a", http=http, **{**options, **fields}))


def test_a_run_goes_on_until_its_answer_is_read(site: Site) -> None:
    """Queued, the run waits without a backend or a lock; the tick ends it when the answer is there."""
    declare(site, http={"body": {"a": 1}, "headers": {"X-Team": "x"}, "timeout": "7s"})
    assert call(site) is None
    check_aftermath(site)
    assert site.rows(LOG) == WAITING
    assert site.rows(HOLDERS) == []
    [request] = answer(site)
    assert request == {
        "id": 1,
        "method": "POST",
        "url": URL,
        "headers": {
            "X-Team": "x",
            "Content-Type": "application/json",
            "Idempotency-Key": "reconciler-run-1",
        },
        "body": {"a": 1},
        "timeout_milliseconds": 7000,
    }
    check_aftermath(site)
    assert site.rows(LOG) == [("succeeded", 200, None, None)]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_it_sends_what_has_no_body(site: Site, method: str) -> None:
    """GET and DELETE go the same way."""
    declare(site, http={"method": method})
    assert call(site) is None
    [request] = answer(site, 204)
    assert (request["method"], request["url"], request["body"]) == (method, URL, None)
    assert request["headers"] == {"Idempotency-Key": "reconciler-run-1"}
    check_aftermath(site)
    assert statuses(site) == ["succeeded"]


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (500, {"content": "ouch"}, ("failed", 500, "the endpoint answered 500, not 2xx", "ouch")),
        (None, {"timed_out": True, "error_msg": "Timeout"}, ("timed_out", None, "Timeout", "fine")),
        (None, {"error_msg": "no such host"}, ("failed", None, "no such host", "fine")),
    ],
)
def test_a_bad_answer_fails_the_run(
    site: Site, status: int | None, fields: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """A wrong status, a timeout and an error end the run so; it is told, and retried with the same key."""
    declare(site)
    call(site)
    answer(site, status, **fields)
    check_aftermath(site)
    assert site.rows(LOG) == [expected]
    make_due(site)
    runner(site)
    [request] = answer(site)
    assert request["headers"]["Idempotency-Key"] == "reconciler-run-1"
    check_aftermath(site)
    assert statuses(site)[1:] == ["succeeded"]
    assert site.rows("SELECT kind FROM reconciler.alerts WHERE resolved_at IS NULL") == []


def test_no_answer_until_the_deadline_is_a_time_out(site: Site) -> None:
    """When the queue is lost, as in a crash, the run ends; an answer that comes too late changes nothing."""
    declare(site, http={"timeout": "7s"})
    call(site)
    assert site.rows(
        "SELECT round(extract(epoch FROM deadline_at - run_at)) FROM reconciler.cron_execution_log"
    ) == [(37,)]
    site.run("UPDATE reconciler.cron_execution_log SET deadline_at = clock_timestamp()")
    check_aftermath(site)
    assert site.rows(LOG) == [("timed_out", None, "no answer in time", None)]
    answer(site)
    check_aftermath(site)
    assert statuses(site) == ["timed_out"]


def test_the_job_s_own_limit_holds(site: Site) -> None:
    """A job whose limit is shorter than its request's ends by it."""
    declare(site, http={"timeout": "1h"}, timeout="5s")
    call(site)
    assert site.rows(
        "SELECT round(extract(epoch FROM deadline_at - run_at)) FROM reconciler.cron_execution_log"
    ) == [(5,)]


def test_the_answer_of_another_request_is_not_taken(site: Site) -> None:
    """An old answer under the same number, from before the server's numbers began anew, is none."""
    declare(site)
    site.run(
        "INSERT INTO net._http_response (id, status_code, created) VALUES (1, 200, now() - interval '1 hour')"
    )
    call(site)
    check_aftermath(site)
    assert site.rows(LOG) == WAITING


def test_while_it_waits_no_second_one_is_sent(site: Site) -> None:
    """A run that waits for its answer holds back the next one."""
    declare(site)
    call(site)
    assert call(site) is None
    assert site.rows("SELECT status, error_message FROM reconciler.cron_execution_log ORDER BY id") == [
        ("running", None),
        ("skipped", "run 1 waits for the answer to its request"),
    ]
    assert len(answer(site)) == 1
    check_aftermath(site)
    assert statuses(site) == ["succeeded", "skipped"]


def test_a_cancelled_one_is_over_at_once(site: Site) -> None:
    """Nobody waits any more for the answer of a run that was cancelled."""
    declare(site)
    call(site)
    assert site.rows("SELECT reconciler.cancel_run(1)") == [("cancelling",)]
    check_aftermath(site)
    assert site.rows(LOG) == [("cancelled", None, "cancelled by postgres", None)]
    answer(site)
    tick(site)
    assert statuses(site) == ["cancelled"]


def test_what_cannot_be_queued_fails(site: Site) -> None:
    """An error of the extension fails the run, and leaves nothing in the queue."""
    site.run(
        "ALTER TABLE net.http_request_queue ADD CHECK (url ~ 'good');"
        "ALTER SEQUENCE net.http_request_queue_id_seq RESTART"
    )
    declare(site)
    assert isinstance(call(site), psycopg.errors.CheckViolation)
    check_aftermath(site)
    assert statuses(site) == ["failed"]
    assert answer(site) == []


def test_other_methods_need_the_other_extension(site: Site) -> None:
    """pg_net has no PUT: without the extension http the error says so."""
    declare(site, http={"method": "PUT"})
    assert "this database cannot send requests" in str(call(site))
    check_aftermath(site)
    assert answer(site) == []


def test_a_removed_job_s_request_ends_too(site: Site) -> None:
    """The answer of a job that was removed meanwhile is judged as if nothing had been expected."""
    declare(site)
    call(site)
    site.apply(channel("ops"), prune="auto")
    answer(site)
    tick(site)
    assert statuses(site) == ["succeeded"]


def test_a_schema_of_somebody_else_is_not_used(site: Site) -> None:
    """Whoever may make schemas gets neither token nor rights by making one of that name."""
    site.run("DROP SCHEMA net CASCADE; CREATE ROLE evil LOGIN; CREATE SCHEMA net AUTHORIZATION evil")
    site.database.connect("evil").execute(
        "CREATE FUNCTION net.http_post(url text, body jsonb, params jsonb DEFAULT '{}',"
        " headers jsonb DEFAULT '{}', timeout_milliseconds integer DEFAULT 5000) RETURNS bigint"
        " LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught %', headers; END $$"
    )
    declare(site, http={"token": {"secret": "token"}})
    site.run("INSERT INTO reconciler.secrets (name, value) VALUES ('token', 'x')")
    assert "this database cannot send requests" in str(call(site))
    site.run("DROP SCHEMA net CASCADE")
    site.run(STAND_IN)
    make_due(site)
    call(site)
    [request] = answer(site)
    assert request["headers"]["Authorization"] == "Bearer x"
    check_aftermath(site)
    assert statuses(site) == ["failed", "succeeded"]


def test_a_channel_needs_the_extension_that_waits(site: Site) -> None:
    """Messages of the database go through http alone; without it they stay due and say so."""
    site.apply(channel("ops", deliver="database"), job("a", "SELECT 1/0", alert={"channels": ["ops"]}))
    site.run("INSERT INTO reconciler.secrets (name, value) VALUES ('ops', 'https://chat.test/x')")
    call(site)
    runner(site)
    assert site.rows("SELECT status, last_error FROM reconciler.alert_deliveries") == [
        ("pending", "this database cannot send requests")
    ]
    site.apply(channel("ops", deliver="database"), job("a", alert={"channels": ["ops"]}))
    check_recovery(site)
