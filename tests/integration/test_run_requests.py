"""Requests sent by the extension http: judged answers, time limits, and secrets that stay secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.canary import CANARY, read_everything, read_log
from tests.declared import Site, channel, job
from tests.faults import check_aftermath, check_recovery, running, statuses
from tests.http_server import Answer, HttpServer, run_http_server
from tests.runs import call, make_due, runner, tick
from tests.servers import LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Database

# PostgreSQL 17 is where the extension http is installed.
pytestmark = pytest.mark.parametrize(
    "database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name)
)
KEPT: LiteralString = "INSERT INTO reconciler.secrets (name, vault_name) VALUES ('token', 'kept')"
LOG: LiteralString = """
SELECT status, response_status, error_sqlstate, error_message FROM reconciler.cron_execution_log ORDER BY id
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A server for requests."""
    with run_http_server() as server:
        yield server


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database with the extension http."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    return site


def request(server: HttpServer, path: str = "/", **fields: Any) -> dict[str, Any]:
    """Return a request as it stands in a job."""
    return {"url": server.url(path), **fields}


def test_a_plain_request_is_a_post_of_empty_json(site: Site, server: HttpServer) -> None:
    """Without anything but an address it is POST with {}, an idempotency key, and no token."""
    site.apply(job("a", http=request(server, "/run?x=1")))
    assert call(site) is None
    assert site.rows(LOG) == [("succeeded", 200, None, None)]
    [received] = server.received
    assert (received.method, received.path, received.body) == ("POST", "/run?x=1", "{}")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["idempotency-key"] == "reconciler-run-1"
    assert "authorization" not in received.headers
    check_aftermath(site)


@pytest.mark.parametrize(
    ("fields", "method", "content_type", "body"),
    [
        ({"method": "GET"}, "GET", None, ""),
        ({"method": "HEAD"}, "HEAD", None, ""),
        ({"method": "DELETE"}, "DELETE", None, ""),
        ({"method": "PUT", "body": {"a": [1, "ü"]}}, "PUT", "application/json", '{"a":[1,"ü"]}'),
        ({"method": "PATCH", "body": "plain ü"}, "PATCH", "text/plain", "plain ü"),
        ({"body": "<a/>", "headers": {"content-TYPE": "text/xml"}}, "POST", "text/xml", "<a/>"),
        ({"body": [1, None]}, "POST", "application/json", "[1,null]"),
    ],
)
def test_method_headers_and_body_arrive(
    site: Site, server: HttpServer, fields: dict[str, Any], method: str, content_type: str | None, body: str
) -> None:
    """Every method, with its headers and its body of text or JSON, comes in as declared."""
    headers = {"X-Team": 'delivery; a="b\'s"', **fields.pop("headers", {})}
    site.apply(job("a", http=request(server, headers=headers, **fields)))
    assert call(site) is None
    [received] = server.received
    assert received.method == method
    assert received.body == body
    assert received.headers["x-team"] == 'delivery; a="b\'s"'
    if content_type is not None:
        assert received.headers["content-type"].partition(";")[0] == content_type


@pytest.mark.parametrize(
    ("answer", "expect", "message"),
    [
        (Answer(status=204, body=""), {}, None),
        (Answer(status=404, body="no such\npage"), {}, "the endpoint answered 404, not 2xx"),
        (Answer(status=500, body="ouch"), {}, "the endpoint answered 500, not 2xx"),
        (Answer(status=404), {"expect": "4xx"}, None),
        (Answer(status=200), {"expect": "4xx"}, "the endpoint answered 200, not 4xx"),
        (Answer(status=409), {"expect": [200, 409]}, None),
        (Answer(status=201), {"expect": [200, 409]}, "the endpoint answered 201, not one of [200,409]"),
    ],
)
def test_an_answer_is_judged(
    site: Site, server: HttpServer, answer: Answer, expect: dict[str, Any], message: str | None
) -> None:
    """An answer outside of what was expected fails the run, with the status and the beginning of the text."""
    server.answers["/"] = answer
    site.apply(job("a", http=request(server, **expect)))
    error = call(site)
    assert (error is None) == (message is None)
    failed = ("failed", answer.status, "38000", message)
    assert site.rows(LOG) == [failed if message else ("succeeded", answer.status, None, None)]
    if message:
        assert site.rows("SELECT error_detail FROM reconciler.cron_execution_log") == [(answer.body,)]
    check_aftermath(site)


def test_of_a_long_answer_the_beginning_is_kept(site: Site, server: HttpServer) -> None:
    """Of a failed answer 2,000 characters are in the log; of a good one nothing."""
    server.answers["/bad"] = Answer(status=500, body="ü" * 100_000)
    server.answers["/good"] = Answer(body="x" * 100_000)
    site.apply(job("a", http=request(server, "/bad")), job("b", http=request(server, "/good")))
    call(site, "a")
    call(site, "b")
    details = site.rows("SELECT error_detail FROM reconciler.cron_execution_log ORDER BY id")
    assert details == [("ü" * 2000,), (None,)]


def test_no_answer_in_time_is_a_time_out(site: Site, server: HttpServer) -> None:
    """A request that gets no answer within its own limit is timed out, and tried again."""
    server.answers["/"] = Answer(seconds=30)
    site.apply(
        channel("ops"),
        job(
            "a",
            http=request(server, timeout="300ms"),
            on_failure={"retries": 1},
            alert={"channels": ["ops"]},
        ),
    )
    assert isinstance(call(site), psycopg.errors.QueryCanceled)
    assert site.rows(LOG) == [("timed_out", None, "57014", "no answer within 00:00:00.3")]
    took: LiteralString = (
        "SELECT extract(epoch FROM completed_at - run_at) FROM reconciler.cron_execution_log"
    )
    assert 0.25 < site.rows(took)[0][0] < 2
    check_aftermath(site)
    server.answers.clear()
    check_recovery(site)


def test_nobody_there_fails_at_once(site: Site) -> None:
    """Where nothing listens, the run fails with the reason."""
    site.apply(job("a", http={"url": "http://127.0.0.1:9/"}))
    assert call(site) is not None
    [(status, response, _, message)] = site.rows(LOG)
    assert (status, response) == ("failed", None)
    assert "connect" in message
    check_aftermath(site)


def test_the_tick_ends_a_request_that_takes_too_long(site: Site, server: HttpServer) -> None:
    """The job's own limit holds while its backend waits for the answer."""
    server.answers["/"] = Answer(seconds=30)
    site.apply(job("a", http=request(server, timeout="25s"), timeout="20s"))
    with running(site):
        site.run("UPDATE reconciler.cron_execution_log SET deadline_at = clock_timestamp()")
        tick(site)
    assert statuses(site) == ["timed_out"]
    check_aftermath(site)


def test_every_try_has_the_same_key(site: Site, server: HttpServer) -> None:
    """Retries send the key of the first try, so that the endpoint can tell them from new orders."""
    server.answers["/"] = Answer(status=503)
    site.apply(
        job("a", http=request(server), on_failure={"retries": 2, "backoff": {"initial": "1ms"}}), job("b")
    )
    call(site, "b")
    call(site)
    for _ in range(3):
        make_due(site)
        runner(site)
    server.answers.clear()
    call(site)
    keys = [received.headers["idempotency-key"] for received in server.received]
    assert keys == ["reconciler-run-2"] * 3 + ["reconciler-run-5"]
    check_aftermath(site)


def put_secret(site: Site, place: str) -> None:
    """Put the canary where a job's token is read from."""
    if place == "table":
        site.run("INSERT INTO reconciler.secrets (name, value) VALUES ('token', %s)", CANARY)
        return
    # Stands for Supabase Vault: a view that decrypts.
    site.run(
        "CREATE SCHEMA vault; CREATE FUNCTION vault.open(bytea) RETURNS text LANGUAGE sql"
        " AS $$ SELECT convert_from(decode(reverse(encode($1, 'hex')), 'hex'), 'UTF8') $$;"
        "CREATE VIEW vault.decrypted_secrets AS SELECT 'kept'::text AS name,"
        f" vault.open('\\x{CANARY.encode().hex()[::-1]}'::bytea) AS decrypted_secret;" + KEPT
    )


@pytest.mark.parametrize("place", ["table", "vault"])
def test_a_token_is_sent_and_seen_nowhere_else(site: Site, server: HttpServer, place: str) -> None:
    """The token comes in with the request, and is in no table, log, error or statistics of the server."""
    site.apply(
        job("good", http=request(server, token={"secret": "token"})),
        job("bad", http=request(server, "/bad", token={"secret": "token"})),
        job("slow", http=request(server, "/slow", token={"secret": "token"}, timeout="500ms")),
        job("down", http={"url": "http://127.0.0.1:9/", "token": {"secret": "token"}}),
    )
    put_secret(site, place)
    server.answers.update({"/bad": Answer(status=500), "/slow": Answer(seconds=30)})
    before = len(read_log(site))
    site.database.server.reload(
        log_statement="all",
        log_min_duration_statement="0",
        log_parameter_max_length_on_error="-1",
        log_error_verbosity="verbose",
        log_min_messages="debug1",  # at debug2 the extension itself tells the header,
    )
    seen = [str(call(site, name)) for name in ("good", "bad", "down")]
    with running(site, "slow") as (_, outcome):
        seen.append(str(site.rows("SELECT * FROM pg_stat_activity")))
    seen += [str(outcome[0]), read_everything(site)]
    tick(site)
    seen.append(read_log(site)[before:])
    tokens = {received.headers["authorization"] for received in server.received}
    assert tokens == {f"Bearer {CANARY}"}
    assert [text for text in seen if CANARY in text] == []
    assert seen[-1].count("CALL reconciler.run_job") > 3
    check_aftermath(site)


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("SELECT", "the secret token is not on this target"),
        (
            KEPT,
            "the secret token cannot be read from the vault",
        ),
        (
            KEPT + "; CREATE SCHEMA vault;"
            " CREATE TABLE vault.decrypted_secrets (name text, decrypted_secret text)",
            "the secret token is not in the vault",
        ),
    ],
)
def test_a_missing_secret_fails_the_run(
    site: Site, server: HttpServer, setup: LiteralString, message: str
) -> None:
    """Without its secret nothing is sent; the run fails with its name, is told and can succeed later."""
    site.apply(
        channel("ops"),
        job("a", http=request(server, token={"secret": "token"}), alert={"channels": ["ops"]}),
    )
    site.run(setup)
    assert message in str(call(site))
    assert server.received == []
    check_aftermath(site)
    site.run("DELETE FROM reconciler.secrets")
    put_secret(site, "table")
    check_recovery(site)


def test_a_role_sends_what_it_may_not_read(site: Site, server: HttpServer) -> None:
    """A job's role uses the token without being able to read it, whatever it set in its session."""
    site.run("CREATE ROLE weak LOGIN")
    site.apply(job("a", http=request(server, token={"secret": "token"}), role="weak"))
    put_secret(site, "table")
    session = site.database.connect("weak")
    told: list[str] = []
    session.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    session.execute("SET client_min_messages = debug5")
    with run_http_server() as spy:
        session.execute(
            "SELECT http_set_curlopt('CURLOPT_PROXY', %s), http_set_curlopt('CURLOPT_USERAGENT', 'x')",
            [spy.url()],
        )
        session.execute("CALL reconciler.run_job('a')")
        assert spy.received == []
    assert [received.headers["authorization"] for received in server.received] == [f"Bearer {CANARY}"]
    assert len(told) > 10
    assert CANARY not in "".join(told)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT reconciler.read_secret('token')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT reconciler.send_waiting('GET', 'x', '{}', '', '', '1s')")


def test_functions_of_others_are_not_called(site: Site, server: HttpServer) -> None:
    """Whoever may write to the extension's schema gets neither the token nor the owner's rights."""
    site.run("CREATE ROLE evil LOGIN; GRANT CREATE ON SCHEMA public TO evil")
    site.apply(job("a", http=request(server, token={"secret": "token"})))
    put_secret(site, "table")
    session = site.database.connect("evil")
    for name in ("http_set_curlopt", "http_header"):
        session.execute(
            sql.SQL(
                "CREATE FUNCTION public.{} (text, text) RETURNS boolean LANGUAGE plpgsql"
                " AS 'BEGIN RAISE ''caught %'', $2; END'"
            ).format(sql.Identifier(name))
        )
    assert call(site) is None
    assert len(server.received) == 1


def test_the_extension_may_be_in_any_schema(database: Database, server: HttpServer) -> None:
    """The extension is found where it was installed, also under a name that wants quotes."""
    site = Site(database)
    site.run('CREATE SCHEMA "Odd one"; CREATE EXTENSION http SCHEMA "Odd one"')
    site.apply(job("a", http=request(server)))
    assert call(site) is None
    assert len(server.received) == 1


def test_without_any_extension_the_error_says_what_to_install(database: Database, server: HttpServer) -> None:
    """A database that cannot send says so, and with what it could."""
    site = Site(database)
    site.apply(job("a", http=request(server)))
    assert "this database cannot send requests" in str(call(site))
    assert statuses(site) == ["failed"]
    check_aftermath(site)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(), "sent", None),
        (Answer(status=500), "pending", "the endpoint answered 500, not 2xx"),
        (Answer(seconds=30), "pending", "no answer from the channel's address"),
        (None, "pending", "no answer from the channel's address"),
    ],
)
def test_a_channel_of_the_database_gets_its_message_at_least_once(
    site: Site, server: HttpServer, answer: Answer | None, status: str, error: str | None
) -> None:
    """The runner sends alerts itself where a channel wants it; what fails stays due, without the address."""
    address = server.url("/hook-" + CANARY) if answer else f"http://127.0.0.1:9/{CANARY}"
    server.answers["/hook-" + CANARY] = answer or Answer()
    site.apply(channel("ops", deliver="database"), job("a", "SELECT 1/0", alert={"channels": ["ops"]}))
    site.run("INSERT INTO reconciler.secrets (name, value) VALUES ('ops', %s)", address)
    call(site)
    runner(site)
    assert site.rows(
        "SELECT status, attempts, last_error, due_at > clock_timestamp() FROM reconciler.alert_deliveries"
    ) == [(status, 1, error, status == "pending")]
    assert CANARY not in read_everything(site)
    check_aftermath(site)
    server.answers.clear()
    if answer is None:
        site.run("UPDATE reconciler.secrets SET value = %s", server.url())
    site.run("UPDATE reconciler.alert_deliveries SET due_at = clock_timestamp() WHERE status = 'pending'")
    runner(site)
    assert site.rows("SELECT status FROM reconciler.alert_deliveries") == [("sent",)]
    assert "FAILED: a failed: division by zero" in server.received[-1].body


def test_a_channel_without_its_address_waits(site: Site, server: HttpServer) -> None:
    """As long as the channel's secret is missing, the message stays due and says why."""
    site.apply(channel("ops", deliver="database"), job("a", "SELECT 1/0", alert={"channels": ["ops"]}))
    call(site)
    runner(site)
    assert site.rows("SELECT status, last_error FROM reconciler.alert_deliveries") == [
        ("pending", "the secret ops is not on this target")
    ]
    assert server.received == []
