"""Workers made in SQL: as people call it, what is refused, how they go, and who may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.database.connect import connect
from reconciler.database.health import find_runtime_troubles
from reconciler.database.observe import observe_facts
from reconciler.database.status import read_status
from tests.canary import CANARY, read_everything, read_log
from tests.declared import Site, job, queue, worker
from tests.faults import check_aftermath, statuses
from tests.http_server import HttpServer, run_http_server
from tests.made_workers import CREATE, URL, create, drop
from tests.pg_net import STAND_IN, answer
from tests.runs import Beside, alerts, call, fire, tick, wait_for_pg_cron
from tests.servers import LIBPQ_KINDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec
    from tests.servers import Database

pytestmark = pytest.mark.one_server

ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
"""Where the extension http is installed."""
DEFINITION: LiteralString = """
SELECT owner, kind, spec::text, jobid, schedule, username, active FROM reconciler.definitions WHERE name = %s
"""
SPEC = (
    '{"schedule":"* * * * *","token":{"secret":"worker.worker-outreach-failed-1"},'
    '"url":"https://app.relay.club/api/jobs/run?queue=outreach&status=failed"}'
)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A run endpoint that records what it is asked."""
    with run_http_server() as server:
        yield server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema reconciler and the stand-in for pg_net, on both servers."""
    site = Site(database)
    site.run(STAND_IN)
    site.apply()
    return site


@pytest.fixture
def sending(database: Database) -> Site:
    """A database with the schema reconciler and the extension http."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    site.apply()
    return site


@pytest.fixture
def alice(site: Site) -> Site:
    """An ordinary role that may make workers."""
    site.run(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT USAGE ON SCHEMA cron TO alice, bob;"
        " SELECT reconciler.allow_queue_workers('alice'), reconciler.allow_queue_workers('bob')"
    )
    return Site(site.database, user="alice")


# ------------------------------------------------------------------------------------------ as people call it


def test_it_is_called_without_a_schema_and_answers_with_the_jobid(site: Site) -> None:
    """With the schema in the search path four texts are enough; the entry is one call without the token."""
    conn = site.database.connect()
    conn.execute("SET search_path = reconciler, public")
    row = conn.execute(
        "SELECT create_queue_worker('worker-outreach-failed-1',"
        " 'https://app.relay.club/api/jobs/run?queue=outreach&status=failed', '123ABC', '* * * * *')"
    ).fetchone()
    entry = site.entry("worker-outreach-failed-1")
    assert row == (entry["jobid"],)
    assert entry["command"] == "CALL reconciler.run_job('worker-outreach-failed-1')"
    assert (entry["schedule"], entry["active"], entry["username"]) == ("* * * * *", True, "postgres")
    assert site.rows(DEFINITION, "worker-outreach-failed-1") == [
        (
            "sql",
            "worker",
            SPEC,
            entry["jobid"],
            "* * * * *",
            "postgres",
            True,
        )
    ]
    assert site.rows("SELECT queue, status, job_limit FROM reconciler.workers") == [("outreach", "failed", 1)]
    assert site.rows("SELECT name, value FROM reconciler.secrets") == [
        ("worker.worker-outreach-failed-1", "123ABC")
    ]


@ON_17
def test_pg_cron_fires_it(sending: Site, server: HttpServer) -> None:
    """What was made in SQL calls the endpoint with its token, and is logged like any job."""
    create(sending, url=server.url("/api/jobs/run?queue=outreach&status=failed"), schedule="1 second")
    wait_for_pg_cron(sending, lambda: bool(server.received), what="the endpoint is called")
    wait_for_pg_cron(sending, lambda: "succeeded" in statuses(sending), what="the answer is in the log")
    received = server.received[0]
    assert (received.method, received.path) == ("POST", "/api/jobs/run?queue=outreach&status=failed&limit=1")
    assert received.headers["authorization"] == f"Bearer {CANARY}"


def test_calling_it_again_changes_the_worker(site: Site) -> None:
    """Address, token and schedule are the last ones, under the same jobid; the log and the pause stay."""
    jobid = create(site)
    site.run("SELECT reconciler.pause_job('worker-default-1')")
    site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job")
    assert create(site, url=f"{URL}?limit=5", token="other", schedule="5 4 * * *") == jobid
    entry = site.entry("worker-default-1")
    assert (entry["schedule"], entry["active"]) == ("5 4 * * *", True)
    assert site.rows("SELECT url, job_limit FROM reconciler.workers") == [(f"{URL}?limit=5", 5)]
    assert site.rows("SELECT value FROM reconciler.secrets") == [("other",)]
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(1,)]
    before = site.rows(DEFINITION, "worker-default-1")
    assert create(site, url=f"{URL}?limit=5", token="other", schedule="5 4 * * *") == jobid
    assert site.rows(DEFINITION, "worker-default-1") == before


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_none_is_sent(site: Site, token: str | None) -> None:
    """A worker that needs none has none, also if it had one before."""
    create(site)
    create(site, token=token)
    assert site.rows("SELECT count(*) FROM reconciler.secrets") == [(0,)]
    assert call(site, "worker-default-1") is None
    [request] = answer(site)
    assert "Authorization" not in request["headers"]


def test_it_has_the_policy_of_any_worker(site: Site) -> None:
    """It runs under a limit of 30 seconds, is told of when it fails or is missed, and is due at its time."""
    create(site, schedule="* * * * *")
    assert site.rows("SELECT timeout::text, concurrency, retries, alert_on FROM reconciler.policies") == [
        ("00:00:30", "skip", 0, ["failed", "missed", "lost", "recovered"])
    ]
    site.run("UPDATE reconciler.job_states SET next_due_at = now() - interval '1 hour'")
    tick(site)
    assert [kind for kind, *_ in alerts(site, "worker-default-1")] == ["missed"]
    fire(site, "worker-default-1")
    answer(site, 500)
    check_aftermath(site)
    assert [kind for kind, *_ in alerts(site, "worker-default-1")] == ["missed", "failed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Worker 1"}, "a worker cannot be called 'Worker 1'"),
        ({"name": "x" * 57}, "a worker cannot be called"),
        ({"name": "reconciler-tick"}, "a worker cannot be called 'reconciler-tick'"),
        ({"name": "a'b"}, "a worker cannot be called 'a''b'"),
        ({"url": "app.test/run"}, "has no address that can be called: 'app.test/run'"),
        ({"url": "https://app.test/r un"}, "has no address"),
        ({"schedule": "every minute"}, "invalid schedule: every minute"),
        ({"schedule": None}, "the worker worker-default-1 has no schedule"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, change: dict[str, Any], message: str) -> None:
    """The error says what is wrong, and nothing is left behind; the token is not in it."""
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        create(site, **change)
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]
    assert site.rows("SELECT count(*) FROM reconciler.secrets") == [(0,)]


def test_a_bad_change_leaves_the_worker_as_it_was(site: Site) -> None:
    """A schedule that pg_cron refuses changes neither the entry nor the token."""
    create(site)
    before = site.everything()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        create(site, token="other", schedule="61 * * * *")
    assert site.everything() == before


@pytest.mark.parametrize("taken", [job("x"), worker("x"), queue("x")])
def test_names_of_other_owners_are_refused(site: Site, taken: Spec) -> None:
    """What a repository declared is neither changed nor removed."""
    site.apply(taken)
    before = site.everything()
    for attempt in (create, drop):
        with pytest.raises(
            psycopg.errors.DuplicateObject, match=f"the {taken.kind} x belongs to the owner shop"
        ):
            attempt(site, "x")
    assert site.everything() == before


def test_an_entry_that_nobody_declared_is_not_overwritten(site: Site) -> None:
    """What somebody scheduled by hand under that name stays, with a word on what to do."""
    site.run("SELECT cron.schedule('worker-default-1', '0 0 29 2 *', 'SELECT 1')")
    with pytest.raises(psycopg.errors.DuplicateObject, match="that nobody declared") as caught:
        create(site)
    assert "SELECT cron.unschedule(" in (caught.value.diag.message_hint or "")
    assert site.entry("worker-default-1")["command"] == "SELECT 1"


def test_a_database_that_cannot_send_says_so(database: Database) -> None:
    """Better than a worker that fails each minute."""
    site = Site(database)
    site.apply()
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="this database cannot send requests"):
        create(site)


def test_it_waits_for_an_apply(site: Site) -> None:
    """Not beside an apply, which relies on what it saw at its beginning."""
    apply = site.database.connect(autocommit=False)
    apply.execute("SELECT pg_advisory_xact_lock(7411530208936421)")
    beside = Beside(site, CREATE, "worker-default-1", URL, CANARY, "0 0 29 2 *")
    waits: LiteralString = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    wait_until(lambda: site.rows(waits, beside.pid) == [(1,)], seconds=10, what="it waits")
    apply.rollback()
    assert beside.end() is None


# ------------------------------------------------------------------------------------------ removing


def test_drop_removes_all_of_it(site: Site) -> None:
    """Entry, definition and token go; the log stays. Again, there is nothing to remove."""
    create(site)
    fire(site, "worker-default-1")
    answer(site)
    tick(site)
    assert drop(site) is True
    for table in ("cron.job", "reconciler.definitions", "reconciler.secrets", "reconciler.workers"):
        assert site.database.connect().execute(f"SELECT FROM {table}".encode()).fetchall() == []
    assert statuses(site) == ["succeeded"]
    assert drop(site) is False


def test_unscheduling_it_hurts_nothing(site: Site) -> None:
    """After cron.unschedule nothing is missed, status and doctor tell, and it can be made anew or dropped."""
    create(site, schedule="* * * * *")
    create(site, "stays")
    site.run("SELECT cron.unschedule('worker-default-1')")
    site.run("UPDATE reconciler.job_states SET next_due_at = now() - interval '1 hour'")
    tick(site)
    assert alerts(site, "worker-default-1") == []
    with connect(site.dsn) as conn:
        states = {job.name: job.state for job in read_status(conn, "GMT")}
        findings = {one.code: one for one in find_runtime_troubles(conn, observe_facts(conn))}
    assert states["worker-default-1"] == "missing"
    assert set(findings) == {"worker_unscheduled", "workers_unwatched"}
    assert "reconciler.drop_queue_worker('worker-default-1')" in findings["worker_unscheduled"].remedy
    jobid = create(site, schedule="* * * * *")
    assert site.entry("worker-default-1")["jobid"] == jobid
    due: LiteralString = (
        "SELECT next_due_at > now() FROM reconciler.job_states WHERE name = 'worker-default-1'"
    )
    assert site.rows(due) == [(True,)]
    site.run("SELECT cron.unschedule('worker-default-1')")
    assert drop(site) is True
    assert site.rows("SELECT name FROM reconciler.secrets") == [("worker.stays",)]


def test_doctor_says_where_nobody_looks_after_them(site: Site) -> None:
    """Without an entry that calls the tick, missed and lost runs go unnoticed."""
    create(site)
    with connect(site.dsn) as conn:
        assert [one.code for one in find_runtime_troubles(conn, observe_facts(conn))] == ["workers_unwatched"]
    site.run("SELECT cron.schedule('tick', '0 0 29 2 *', 'CALL reconciler.tick()')")
    with connect(site.dsn) as conn:
        assert find_runtime_troubles(conn, observe_facts(conn)) == ()


# ------------------------------------------------------------------------------------------ who may


def test_a_role_makes_workers_of_its_own(site: Site, alice: Site) -> None:
    """An ordinary role that was allowed to can make, change and drop; the entry runs as that role."""
    jobid = create(alice)
    assert site.entry("worker-default-1")["username"] == "alice"
    assert create(alice, url=f"{URL}?queue=mail") == jobid
    assert call(site, "worker-default-1", user="alice") is None
    [request] = answer(site)
    assert request["headers"]["Authorization"] == f"Bearer {CANARY}"
    assert drop(alice) is True
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]


def test_a_role_without_alter_job_makes_anew_what_was_switched_off(site: Site, alice: Site) -> None:
    """cron.schedule, all that such a role may call, activates nothing: the entry is a new one."""
    jobid = create(alice)
    site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job")
    assert create(alice) != jobid
    assert site.entry("worker-default-1")["active"] is True
    site.run("GRANT EXECUTE ON FUNCTION cron.alter_job TO alice")
    site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job")
    assert create(alice) == site.entry("worker-default-1")["jobid"]
    assert site.entry("worker-default-1")["active"] is True


def test_workers_of_another_role_are_refused(site: Site, alice: Site) -> None:
    """Neither changed nor dropped, whatever the other role is allowed; a member has to say as whom."""
    create(alice)
    before = site.everything()
    for attempt in (create, drop):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to the role alice"):
            attempt(site, user="bob")
    for function in (
        "forget_queue_worker('worker-default-1')",
        "store_queue_worker('worker-default-1', 'https://a.test', 't', '0 0 29 2 *', 1, 'bob')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to the role alice"):
            site.database.connect("bob").execute(f"SELECT reconciler.{function}".encode())
    site.run("GRANT alice TO bob")
    for attempt in (create, drop):
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
            attempt(site, user="bob")
        assert caught.value.diag.message_hint == "First: SET ROLE alice."
    assert site.everything() == before
    bob = site.database.connect("bob")
    bob.execute("SET ROLE alice")
    bob.execute(CREATE, ["worker-default-1", f"{URL}?limit=2", None, "0 0 29 2 *"])
    assert site.entry("worker-default-1")["username"] == "alice"


def test_a_superuser_changes_the_worker_of_a_role_and_leaves_it_to_that_role(site: Site, alice: Site) -> None:
    """Who may do all does not become its owner by that."""
    jobid = create(alice)
    assert create(site, schedule="5 4 * * *") == jobid
    entry = site.entry("worker-default-1")
    assert (entry["username"], entry["schedule"]) == ("alice", "5 4 * * *")
    assert site.rows("SELECT username FROM reconciler.definitions") == [("alice",)]
    assert drop(site) is True


def test_who_was_not_allowed_makes_none(site: Site) -> None:
    """By default only the owner of the schema may, and nobody writes definitions around the front door."""
    site.run("CREATE ROLE eve LOGIN; GRANT USAGE ON SCHEMA cron TO eve")
    eve = site.database.connect("eve")
    for function in (
        "create_queue_worker('x', 'https://a.test', 't', '0 0 29 2 *')",
        "drop_queue_worker('x')",
        "store_queue_worker('x', 'https://a.test', 't', '0 0 29 2 *', 1, 'eve')",
        "forget_queue_worker('x')",
        "find_queue_worker('x')",
        "allow_queue_workers('eve')",
        "end_answered(1)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            eve.execute(f"SELECT reconciler.{function}".encode())
    site.run("SELECT reconciler.allow_queue_workers('eve')")
    with pytest.raises(
        psycopg.errors.InsufficientPrivilege, match="may not make a worker for the role postgres"
    ):
        eve.execute(
            "SELECT reconciler.store_queue_worker('x', 'https://a.test', 't', '0 0 29 2 *', 1, 'postgres')"
        )


def test_a_role_without_pg_cron_is_told_so(site: Site) -> None:
    """What pg_cron does not let a role do, nobody does for it."""
    site.run("CREATE ROLE eve LOGIN; SELECT reconciler.allow_queue_workers('eve')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema cron"):
        create(site, user="eve")


def test_an_ordinary_owner_of_the_schema_can_do_all_of_it(database: Database) -> None:
    """Without a superuser, as on Supabase: the owner makes, calls and drops its workers."""
    owner = Site(database, user="keeper")
    owner.run("CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA cron TO keeper")
    owner.run(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO keeper', current_database()); END $$"
    )
    owner.run(STAND_IN)
    owner.run("GRANT USAGE ON SCHEMA net TO keeper; GRANT ALL ON ALL TABLES IN SCHEMA net TO keeper;"
              " GRANT ALL ON ALL SEQUENCES IN SCHEMA net TO keeper")  # fmt: skip
    owner.apply()
    jobid = create(owner)
    assert create(owner, url=f"{URL}?limit=3") == jobid
    assert call(owner, "worker-default-1", user="keeper") is None
    [request] = answer(owner)
    assert request["headers"]["Authorization"] == f"Bearer {CANARY}"
    owner.run("SELECT cron.unschedule(jobid) FROM cron.job")
    create(owner)
    assert drop(owner) is True
    assert owner.rows("SELECT count(*) FROM cron.job") == [(0,)]


def test_the_token_is_in_no_table_and_no_log(site: Site) -> None:
    """Given as a parameter, a token is in its own table alone: not in entries, definitions, log or errors."""
    before = len(read_log(site))
    site.database.server.reload(
        log_statement="all", log_min_duration_statement="0", log_parameter_max_length="0"
    )
    create(site)
    create(site, token=f"{CANARY}-2")
    errors = []
    for change in ({"schedule": "x"}, {"name": "X"}, {"url": "x"}):
        with pytest.raises(psycopg.Error) as caught:
            create(site, **change)
        errors.append(f"{caught.value} {caught.value.diag.context}")
    call(site, "worker-default-1")
    net: LiteralString = "DELETE FROM net.http_request_queue RETURNING headers::text"
    assert CANARY in str(site.rows(net))
    for text in (*errors, read_everything(site), read_log(site)[before:]):
        assert CANARY not in text
    assert "create_queue_worker" in read_log(site)[before:]
