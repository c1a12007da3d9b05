"""Push workers: entries that call a run endpoint, under the lock, log and limits of any managed job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.core.run_calls import make_run_url
from reconciler.database.control import find_managed_jobs
from reconciler.database.status import read_status
from tests.canary import CANARY, read_everything, read_log
from tests.declared import NEVER, Site, job, queue, worker
from tests.faults import check_aftermath, check_recovery, running, statuses
from tests.http_server import Answer, HttpServer, run_http_server
from tests.pg_net import STAND_IN, answer
from tests.runs import alerts, call, fire, log, tick, wait_for_pg_cron
from tests.servers import ALL_KINDS, LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Database

ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
"""Where the extension http is installed."""
PATH = "/api/jobs/run"
SECRET: LiteralString = "INSERT INTO reconciler.secrets (name, value) VALUES ('run-endpoint', %s)"
LOG: LiteralString = """
SELECT status, response_status, error_sqlstate, error_message FROM reconciler.cron_execution_log ORDER BY id
"""
ADDRESSES = [
    {"url": "https://a.test/run"},
    {"url": "https://a.test/run?queue=mail", "limit": 3},
    {"url": "https://a.test/run?a=1&status=failed&limit=7", "queue": "mail"},
    {"url": "https://a.test/run?", "status": "failed"},
    {"url": "https://a.test/run?a=1&"},
    {"url": "https://a.test/run?my_queue=1&xlimit=2#queue=no"},
    {"url": "https://a.test/run?queue=&limit", "queue": "mail"},
    {"url": "https://a.test/run/queue=1/?status=pending&queue=a&queue=b"},
]


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A run endpoint that records what it is asked."""
    with run_http_server() as server:
        yield server


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database with the extension http."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    return site


@pytest.fixture
def queueing(database: Database) -> Site:
    """An empty database with the stand-in for pg_net, on both servers."""
    site = Site(database)
    site.run(STAND_IN)
    return site


def declare(site: Site, server: HttpServer, path: str = PATH, **fields: Any) -> None:
    """Declare the queue outreach and the worker a for it, with its token on the target."""
    token = {"token": {"secret": "run-endpoint"}}
    site.apply(
        queue("outreach"), worker("a", **{"url": server.url(path), "queue": "outreach", **token, **fields})
    )
    site.run(SECRET, CANARY)


@ON_17
def test_a_worker_calls_its_endpoint(site: Site, server: HttpServer) -> None:
    """It posts empty JSON with queue, status and limit, the token, and a key that tells the runs apart."""
    declare(site, server, status="failed", limit=5)
    assert fire(site) is None
    assert fire(site) is None
    assert site.rows(LOG) == [("succeeded", 200, None, None)] * 2
    one, other = server.received
    assert (one.method, one.path, one.body) == ("POST", f"{PATH}?queue=outreach&status=failed&limit=5", "{}")
    assert one.headers["authorization"] == f"Bearer {CANARY}"
    assert one.headers["content-type"] == "application/json"
    assert [sent.headers["idempotency-key"] for sent in (one, other)] == [
        "reconciler-run-1",
        "reconciler-run-2",
    ]
    check_aftermath(site)


@ON_17
def test_what_is_not_declared_is_asked_for_as_usual(site: Site, server: HttpServer) -> None:
    """Without more than an address it asks for one pending job of the default queue, and has no token."""
    site.apply(worker("a", url=server.url(PATH)))
    assert call(site) is None
    [received] = server.received
    assert received.path == f"{PATH}?queue=default&status=pending&limit=1"
    assert "authorization" not in received.headers


@ON_17
def test_what_the_address_says_already_is_not_said_twice(site: Site, server: HttpServer) -> None:
    """Of queue, status and limit only those are added that the address does not have."""
    site.apply(worker("a", url=server.url(f"{PATH}?queue=mail&status=failed"), limit=3))
    assert call(site) is None
    assert [received.path for received in server.received] == [f"{PATH}?queue=mail&status=failed&limit=3"]
    assert site.rows("SELECT queue, status, job_limit FROM reconciler.workers") == [("mail", "failed", 3)]


@pytest.mark.parametrize("declared", ADDRESSES, ids=lambda declared: declared["url"])
def test_the_address_is_made_alike_in_the_files_and_on_the_target(
    queueing: Site, declared: dict[str, Any]
) -> None:
    """What a dry run shows is what is sent, however the address is written."""
    queueing.apply(queue("mail"), worker("a", **declared))
    assert call(queueing) is None
    assert [request["url"] for request in answer(queueing)] == [make_run_url(declared)]


@ON_17
@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_bad_answer_fails_the_run(site: Site, server: HttpServer, status: int) -> None:
    """A 4xx or 5xx fails the run with its status and text, is told once, and a good one closes that."""
    server.answers[PATH] = Answer(status=status, body="no such queue")
    declare(site, server)
    assert f"the endpoint answered {status}, not 2xx" in str(fire(site))
    fire(site)
    failed = ("failed", status, "38000", f"the endpoint answered {status}, not 2xx")
    assert site.rows(LOG) == [failed] * 2
    assert site.rows("SELECT DISTINCT error_detail FROM reconciler.cron_execution_log") == [
        ("no such queue",)
    ]
    assert alerts(site) == [("failed", 2, True)]
    check_aftermath(site)
    server.answers.clear()
    check_recovery(site)
    assert alerts(site) == [("failed", 2, False), ("recovered", 1, False)]


@ON_17
def test_a_missing_token_fails_the_run_and_nothing_is_sent(site: Site, server: HttpServer) -> None:
    """Without its secret a worker fails with the secret's name; once it is there it works."""
    site.apply(worker("a", url=server.url(PATH), token={"secret": "run-endpoint"}))
    assert "the secret run-endpoint is not on this target" in str(fire(site))
    assert server.received == []
    check_aftermath(site)
    site.run(SECRET, CANARY)
    check_recovery(site)


@ON_17
def test_no_answer_in_time_is_a_time_out(site: Site, server: HttpServer) -> None:
    """A worker waits as long as it declares, 30 seconds if it says nothing."""
    server.answers[PATH] = Answer(seconds=30)
    declare(site, server, timeout="300ms")
    assert isinstance(fire(site), psycopg.errors.QueryCanceled)
    assert site.rows(LOG) == [("timed_out", None, "57014", "no answer within 00:00:00.3")]
    check_aftermath(site)
    server.answers.clear()
    site.apply(worker("a", url=server.url(PATH)), queue("outreach"))
    check_recovery(site)
    limits: LiteralString = (
        "SELECT deadline_at - run_at BETWEEN '29s' AND '31s' FROM reconciler.cron_execution_log"
    )
    assert site.rows(limits) == [(False,), (True,)]


@ON_17
def test_the_tick_ends_a_call_that_is_over_its_time(site: Site, server: HttpServer) -> None:
    """The limit also holds from outside, as for any managed job."""
    server.answers[PATH] = Answer(seconds=30)
    declare(site, server, timeout="20s")
    with running(site):
        site.run("UPDATE reconciler.cron_execution_log SET deadline_at = clock_timestamp()")
        tick(site)
    assert statuses(site) == ["timed_out"]
    check_aftermath(site)


@ON_17
def test_a_call_that_takes_long_is_not_made_twice_at_once(site: Site, server: HttpServer) -> None:
    """While one goes on the next is skipped, and says so."""
    server.answers[PATH] = Answer(seconds=2)
    declare(site, server)
    with running(site):
        assert fire(site) is None
    assert sorted(statuses(site)) == ["skipped", "succeeded"]
    assert len(server.received) == 1


@ON_17
def test_a_worker_can_be_paused_and_called_by_hand(site: Site, server: HttpServer) -> None:
    """A pause skips what the entry fires, and not what a person asks for."""
    declare(site, server)
    with site.database.connect() as conn:
        assert [found.kind for found in find_managed_jobs(conn, ["a"])] == ["worker"]
    site.run("SELECT reconciler.pause_job('a', reason => 'the vendor is down')")
    assert fire(site) is None
    assert server.received == []
    site.run("SELECT reconciler.request_run('a')")
    site.run("CALL reconciler.runner()")
    assert log(site, "a", "status", "trigger") == [("skipped", "schedule"), ("succeeded", "manual")]
    assert len(server.received) == 1
    site.apply(queue("outreach"), worker("a", url=server.url(PATH), limit=2))
    assert site.rows("SELECT job_name FROM reconciler.pauses") == [("a",)]
    assert site.rows("SELECT total_runs FROM reconciler.job_states") == [(1,)]


@ON_17
def test_status_and_health_tell_how_a_worker_fares(site: Site, server: HttpServer) -> None:
    """Both have its runs, its failures and its next time."""
    server.answers[PATH] = Answer(status=503)
    declare(site, server, schedule="* * * * *")
    fire(site)
    with site.database.connect() as conn:
        [found] = [job for job in read_status(conn, "GMT") if job.name == "a"]
    assert (found.kind, found.state, found.open_alerts, found.last_status) == (
        "worker",
        "failing",
        1,
        "failed",
    )
    assert found.next_run_at is not None
    health: LiteralString = (
        "SELECT total_runs, failed_runs, consecutive_failures, last_error FROM reconciler.cron_job_health"
        " WHERE name = 'a'"
    )
    assert site.rows(health) == [(1, 1, 1, "the endpoint answered 503, not 2xx")]


@ON_17
def test_an_entry_is_one_call_and_stays_when_the_address_changes(site: Site, server: HttpServer) -> None:
    """Of all that is declared only time, role and activity stand in cron.job."""
    site.run("CREATE ROLE billing LOGIN")
    declare(site, server, role="billing", active=False)
    entry = site.entry("a")
    assert (entry["command"], entry["schedule"]) == ("CALL reconciler.run_job('a')", NEVER)
    assert (entry["username"], entry["active"]) == ("billing", False)
    others = worker("a", url="https://other.test/run", role="billing", active=False, limit=2)
    site.apply(queue("outreach"), others)
    assert site.entry("a") == entry
    assert site.rows("SELECT url, job_limit FROM reconciler.workers") == [("https://other.test/run", 2)]
    site.apply(queue("outreach"), prune="auto")
    assert site.rows("SELECT FROM cron.job") == []
    assert site.rows("SELECT FROM reconciler.policies") == []


@ON_17
def test_edits_by_hand_are_drift(site: Site, server: HttpServer) -> None:
    """A policy, a row or an entry that somebody changed is put back."""
    declare(site, server, limit=3)
    specs = (
        queue("outreach"),
        worker("a", url=server.url(PATH), queue="outreach", token={"secret": "run-endpoint"}, limit=3),
    )
    assert site.changes(*specs) == []
    for statement in (
        "UPDATE reconciler.policies SET timeout = '1 hour' WHERE name = 'a'",
        "DELETE FROM reconciler.policies WHERE name = 'a'",
        "UPDATE reconciler.workers SET secret = NULL",
        "SELECT cron.alter_job(jobid, active := false) FROM cron.job",
        "SELECT cron.unschedule('a')",
    ):
        site.database.connect().execute(statement.encode())
        assert site.changes(*specs) == [("update", "a", "drifted")], statement
        site.apply(*specs)
        assert site.changes(*specs) == []


@ON_17
def test_a_role_calls_with_a_token_that_it_may_not_read(site: Site, server: HttpServer) -> None:
    """The worker's role sends the token and cannot see it; other roles cannot run the worker."""
    site.run("CREATE ROLE weak LOGIN; CREATE ROLE other LOGIN")
    declare(site, server, role="weak")
    assert call(site, user="weak") is None
    assert isinstance(call(site, user="other"), psycopg.errors.InsufficientPrivilege)
    assert [received.headers["authorization"] for received in server.received] == [f"Bearer {CANARY}"]
    for function in ("reconciler.read_secret('run-endpoint')", "reconciler.find_request(NULL)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            site.database.connect("weak").execute(f"SELECT {function}".encode())


@ON_17
def test_a_token_is_sent_and_seen_nowhere_else(site: Site, server: HttpServer) -> None:
    """The token comes in with the call, and is in no table, log, error or statistics of the server."""
    server.answers.update({"/bad": Answer(status=500), "/slow": Answer(seconds=30)})
    token = {"token": {"secret": "run-endpoint"}}
    site.apply(
        worker("good", url=server.url(PATH), **token),
        worker("bad", url=server.url("/bad"), **token),
        worker("slow", url=server.url("/slow"), timeout="500ms", **token),
        worker("down", url="http://127.0.0.1:9/", **token),
    )
    site.run(SECRET, CANARY)
    before = len(read_log(site))
    site.database.server.reload(
        log_statement="all",
        log_min_duration_statement="0",
        log_parameter_max_length_on_error="-1",
        log_error_verbosity="verbose",
        log_min_messages="debug1",  # at debug2 the extension itself tells the header
    )
    seen = [str(call(site, name)) for name in ("good", "bad", "down")]
    with running(site, "slow") as (_, outcome):
        seen.append(str(site.rows("SELECT * FROM pg_stat_activity")))
    tick(site)
    seen += [str(outcome[0]), read_everything(site), read_log(site)[before:]]
    assert {received.headers["authorization"] for received in server.received} == {f"Bearer {CANARY}"}
    assert [text for text in seen if CANARY in text] == []
    assert seen[-1].count("CALL reconciler.run_job") > 3


@pytest.mark.parametrize(
    "any_mode_database", [ALL_KINDS[1], ALL_KINDS[3]], indirect=True, ids=lambda kind: str(kind.name)
)
def test_pg_cron_fires_a_worker(any_mode_database: Database, server: HttpServer) -> None:
    """The entry calls the endpoint with the token, over connections and in background workers."""
    site = Site(any_mode_database)
    site.run("CREATE EXTENSION http")
    declare(site, server, schedule="1 second")
    wait_for_pg_cron(site, lambda: bool(server.received), what="the endpoint is called")
    wait_for_pg_cron(site, lambda: "succeeded" in statuses(site), what="the answer is in the log")
    assert server.received[0].path == f"{PATH}?queue=outreach&status=pending&limit=1"
    assert server.received[0].headers["authorization"] == f"Bearer {CANARY}"
    assert ("schedule", 200) in log(site, "a", "trigger", "response_status")


def test_without_an_extension_there_is_no_entry(database: Database) -> None:
    """A database that cannot send gets no entry, and plan says what to install."""
    site = Site(database)
    applied = site.apply(job("j"), worker("a"))
    assert [notice.names for notice in applied.plan.notices if notice.code == "http"] == [("a",)]
    assert site.rows("SELECT jobname::text FROM cron.job") == [("j",)]
    assert "this database cannot send requests" in str(call(site))
    check_aftermath(site)


# ---------------------------------------------------------------------------------------- with pg_net


def test_with_pg_net_nothing_waits_for_the_answer(queueing: Site) -> None:
    """The call is queued with its token; the run goes on without a backend until the answer is read."""
    queueing.apply(worker("a", url="https://a.test/run", token={"secret": "run-endpoint"}, timeout="7s"))
    queueing.run(SECRET, CANARY)
    assert fire(queueing) is None
    assert statuses(queueing) == ["running"]
    limit: LiteralString = (
        "SELECT round(extract(epoch FROM deadline_at - run_at)) FROM reconciler.cron_execution_log"
    )
    assert queueing.rows(limit) == [(37,)]
    [request] = answer(queueing, 202)
    assert request["url"] == "https://a.test/run?queue=default&status=pending&limit=1"
    assert request["headers"]["Authorization"] == f"Bearer {CANARY}"
    assert (request["method"], request["body"], request["timeout_milliseconds"]) == ("POST", {}, 7000)
    check_aftermath(queueing)
    assert queueing.rows(LOG) == [("succeeded", 202, None, None)]


def test_with_pg_net_a_bad_answer_fails_the_run(queueing: Site) -> None:
    """The status that comes back is judged as ever."""
    queueing.apply(worker("a", url="https://a.test/run"))
    fire(queueing)
    answer(queueing, 500)
    check_aftermath(queueing)
    assert queueing.rows(LOG) == [("failed", 500, "38000", "the endpoint answered 500, not 2xx")]
    assert alerts(queueing) == [("failed", 1, True)]


def test_without_a_tick_the_next_call_reads_the_answer(queueing: Site) -> None:
    """Where nobody looks after runs, a worker whose answer is there, or is overdue, still goes on."""
    queueing.apply(worker("a", url="https://a.test/run"))
    fire(queueing)
    assert fire(queueing) is None
    assert statuses(queueing) == ["running", "skipped"]
    assert len(answer(queueing)) == 1
    assert fire(queueing) is None
    assert statuses(queueing) == ["succeeded", "skipped", "running"]
    answer(queueing, 500)
    fire(queueing)
    queueing.run("UPDATE reconciler.cron_execution_log SET deadline_at = now() WHERE status = 'running'")
    fire(queueing)
    assert statuses(queueing) == ["succeeded", "skipped", "failed", "timed_out", "running"]
    answer(queueing)
    check_aftermath(queueing)
