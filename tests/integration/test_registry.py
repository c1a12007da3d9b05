"""Jobs that a program registers: declared, started, listed and cancelled like those of files."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.errors import (
    ApplyLockError,
    ConfigError,
    ConnectError,
    DatabaseError,
    InvalidInputError,
    MigrationError,
    RefusedError,
    RightsError,
)
from reconciler.runtime import Registry, locked_execution
from tests.declared import NEVER, Site, channel, job, queue

if TYPE_CHECKING:
    from psycopg import Connection

pytestmark = pytest.mark.one_server


NAMES: LiteralString = (
    "SELECT name FROM reconciler.definitions WHERE NOT starts_with(name, 'reconciler-') ORDER BY name"
)
OURS: LiteralString = "SELECT jobname::text FROM cron.job WHERE jobname LIKE 'reconciler-%%' ORDER BY 1"


@pytest.fixture(params=[True, False], ids=["autocommit", "transactions"])
def conn(request: pytest.FixtureRequest, site: Site) -> Connection[Any]:
    """A connection in either mode."""
    return site.database.connect(autocommit=request.param)


@pytest.fixture
def registry(conn: Connection[Any]) -> Registry:
    """The registry of the owner app."""
    return Registry(conn)


def greet(name: str) -> str:
    """Do something that can be seen."""
    return f"hello {name}"


def test_sql_becomes_an_entry(site: Site, registry: Registry) -> None:
    """Registering on an empty database makes the schema, the entry, and those that carry out policies."""
    assert registry.register_job("nightly", NEVER, "SELECT 1", timeout="30s", on_failure={"retries": 2})
    entry = site.entry("nightly")
    assert (entry["schedule"], entry["command"]) == (NEVER, "CALL reconciler.run_job('nightly')")
    assert site.rows("SELECT timeout, retries FROM reconciler.policies") == [(timedelta(seconds=30), 2)]
    assert site.rows(OURS) == [("reconciler-runner",), ("reconciler-tick",)]
    ((source,),) = site.rows("SELECT source FROM reconciler.definitions WHERE name = 'nightly'")
    assert source.startswith("tests/integration/test_registry.py:")


def test_registering_again_is_registering_once(site: Site, registry: Registry) -> None:
    """At each start of a program; what is different is changed, in place, and all other jobs stay."""
    registry.register_job("other", NEVER, "SELECT 1")
    registry.register_job("nightly", NEVER, "SELECT 1", timeout="1m")
    jobid = site.entry("nightly")["jobid"]
    before = site.everything()
    assert not registry.register_job("nightly", NEVER, "SELECT 1", timeout=timedelta(seconds=60))
    assert site.everything() == before
    assert registry.register_job("nightly", "1 0 29 2 *", "SELECT 1")
    assert site.entry("nightly")["jobid"] == jobid
    assert site.entry("nightly")["schedule"] == "1 0 29 2 *"
    assert site.rows(NAMES) == [("nightly",), ("other",)]


def test_drift_is_put_right(site: Site, registry: Registry) -> None:
    """Registering is applying: what was changed by hand is as declared afterwards."""
    registry.register_job("nightly", NEVER, "SELECT 1")
    site.run("SELECT cron.unschedule('nightly')")
    assert registry.register_job("nightly", NEVER, "SELECT 1")
    assert site.entry("nightly")["schedule"] == NEVER


def test_values_may_be_those_of_python(site: Site, registry: Registry) -> None:
    """Durations, instants, tuples and sets are written as a spec file has them."""
    registry.register_job("one", "", "SELECT 1", once=datetime(2099, 1, 2, tzinfo=UTC), labels={"team": "a"})
    registry.register_job(
        "two", "", "SELECT 1", after={"one"}, alert={"on": ("failed", "lost"), "remind": timedelta(hours=3)}
    )
    assert site.rows(
        "SELECT spec ->> 'once', spec #>> '{alert,remind}', spec ->> 'after' FROM reconciler.definitions"
        " WHERE name IN ('one', 'two') ORDER BY name"
    ) == [("2099-01-02T00:00:00Z", None, None), (None, "3h", '["one"]')]


@pytest.mark.parametrize(
    ("name", "schedule", "body", "policies", "message"),
    [
        ("A b", NEVER, "SELECT 1", {}, "'A b' is no name"),
        ("reconciler-x", NEVER, "SELECT 1", {}, "names that begin with reconciler- are the tool's own"),
        ("a", "0 0 * *", "SELECT 1", {}, "the schedule '0 0 * *'"),
        ("a", "", "SELECT 1", {}, "job a has no trigger"),
        ("a", NEVER, "SELECT 1", {"daily": "02:30"}, "job a has two triggers"),
        ("a", NEVER, "VACUUM", {}, "it needs mode: direct"),
        ("a", NEVER, "SELECT 1", {"time_out": "1s"}, "unknown key 'time_out' in job a; did you mean"),
        ("a", NEVER, "SELECT 1", {"timeout": "soon"}, "'soon'"),
        ("a", NEVER, "SELECT 1", {"after": ["b"]}, "unknown job 'b'"),
        ("a", NEVER, "SELECT 1", {"after": ["knwon"]}, "did you mean 'known'?"),
        ("a", NEVER, "SELECT 1", {"alert": {"channels": ["ops"]}}, "unknown channel 'ops'"),
        ("known", "", "SELECT 1", {"after": ["waits"]}, "would wait for itself"),
        ("a", NEVER, "SELECT 1", {"sql": "SELECT 2"}, "sql does not go with register_job"),
        ("a", NEVER, lambda: 1, {}, "a handler is a dotted name"),
        ("a", NEVER, greet, {"queue": "mail"}, "unknown queue 'mail'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(
    site: Site,
    registry: Registry,
    name: str,
    schedule: str,
    body: Any,
    policies: dict[str, Any],
    message: str,
) -> None:
    """With the words that a spec file gets, and the place of the call; nothing is changed."""
    site.apply(job("known"), job("waits", after=["known"]))
    before = site.everything()
    with pytest.raises(InvalidInputError) as caught:
        registry.register_job(name, schedule, body, **policies)
    assert message in str(caught.value)
    assert caught.value.problems[0].startswith("tests/integration/test_registry.py:")
    assert site.everything() == before


def test_what_others_declared_can_be_referred_to(site: Site, registry: Registry) -> None:
    """Channels, queues and jobs of any owner."""
    site.apply(channel("ops"), queue("mail"), job("first"))
    registry.register_job("then", "", greet, after=["first"], queue="mail", alert={"channels": ["ops"]})
    assert ("then",) in site.rows(NAMES)


def test_what_another_owner_declared_is_refused(site: Site, registry: Registry) -> None:
    """A job of the files can neither be registered nor cancelled."""
    site.apply(job("theirs"))
    before = site.everything()
    with pytest.raises(RefusedError, match="belongs to the owner shop"):
        registry.register_job("theirs", "1 0 29 2 *", "SELECT 2")
    with pytest.raises(RefusedError, match="belongs to the owner shop"):
        registry.cancel_job("theirs")
    assert site.everything() == before


def test_an_entry_that_nobody_declared_is_refused(site: Site, registry: Registry) -> None:
    """It is not overwritten."""
    site.run("SELECT cron.schedule('mine', '* 1 * * *', 'SELECT 1')")
    with pytest.raises(RefusedError, match="that nobody declared"):
        registry.register_job("mine", NEVER, "SELECT 2")
    assert site.entry("mine")["command"] == "SELECT 1"


def test_the_owners_leave_each_other_alone(site: Site, registry: Registry) -> None:
    """After registering, the plan of the files is as empty as before, and the other way round."""
    site.apply(job("theirs"))
    registry.register_job("ours", NEVER, "SELECT 1")
    assert site.changes(job("theirs")) == []
    assert site.changes(job("theirs"), prune="auto") == []
    site.apply(job("theirs", "SELECT 2"))
    assert not registry.register_job("ours", NEVER, "SELECT 1")


def test_a_cancelled_job_is_gone(site: Site, registry: Registry) -> None:
    """Its entry, its definition and its policies; its runs stay, and so do all other jobs."""
    registry.register_job("a", NEVER, "SELECT 1")
    registry.register_job("b", NEVER, "SELECT 1")
    site.run("CALL reconciler.run_job('a')")
    site.run("UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = 'b'")
    assert registry.cancel_job("a")
    assert site.rows(NAMES) == [("b",)]
    assert site.rows("SELECT jobname::text FROM cron.job WHERE jobname IN ('a', 'b')") == [("b",)]
    assert site.entry("b")["schedule"] == "1 1 1 1 *"
    assert site.rows("SELECT job_name FROM reconciler.cron_execution_log") == [("a",)]
    assert site.rows("SELECT summary ->> 'delete' FROM reconciler.revisions ORDER BY id DESC LIMIT 1") == [
        ("1",)
    ]
    assert not registry.cancel_job("a")
    assert registry.get_last_execution_result("a") is not None


def test_what_cannot_be_cancelled_is_refused(site: Site, registry: Registry) -> None:
    """A protected job, one that others wait for, a resource of another kind, while an apply works."""
    site.apply(queue("mail"), owner="app")
    registry.register_job("kept", NEVER, "SELECT 1", protect=True)
    registry.register_job("first", NEVER, "SELECT 1")
    registry.register_job("then", "", "SELECT 1", after=["first"])
    before = site.everything()
    for name, message in (
        ("kept", "kept was not removed: job kept is protected"),
        ("first", "then would wait for first for ever"),
        ("mail", "mail is a queue, not a job"),
    ):
        with pytest.raises(RefusedError, match=message):
            registry.cancel_job(name)
    with site.database.connect().transaction() as tx:
        tx.connection.execute("SELECT pg_advisory_xact_lock(7411530208936421)")
        with pytest.raises(ApplyLockError):
            Registry(site.database.connect(), patience=0).cancel_job("then")
    assert site.everything() == before


@pytest.mark.parametrize("owner", ["sql", "api"])
def test_owners_of_what_others_make_are_refused(conn: Connection[Any], owner: str) -> None:
    """Workers made in SQL and jobs of the service are nobody else's."""
    with pytest.raises(ConfigError, match=f"'{owner}' is the owner of"):
        Registry(conn, owner)


def test_a_role_without_rights_is_told_so(site: Site, registry: Registry) -> None:
    """Before anything is changed."""
    site.run("CREATE ROLE bob LOGIN; GRANT USAGE ON SCHEMA cron TO bob")
    bob = Registry(site.database.connect("bob"))
    with pytest.raises(RightsError, match="may not create the schema"):
        bob.register_job("a", NEVER, "SELECT 1")
    registry.register_job("a", NEVER, "SELECT 1")
    before = site.everything()
    for grant in ("SELECT 1", "GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO bob"):
        site.run(grant)
        with pytest.raises(RightsError):
            bob.register_job("b", NEVER, "SELECT 1")
        with pytest.raises(RightsError):
            bob.cancel_job("a")
        with pytest.raises(RightsError):
            bob.trigger_job("a")
    assert site.everything() == before


def test_a_triggered_job_is_started_by_a_runner(site: Site, registry: Registry) -> None:
    """The request is committed, and the run bears its id; asking twice is asking once."""
    registry.register_job("nightly", NEVER, "SELECT 1")
    start_id = registry.trigger_job("nightly")
    assert registry.trigger_job("nightly") == start_id
    site.run("CALL reconciler.runner()")
    assert site.rows("SELECT job_name, start_id, trigger, status FROM reconciler.cron_execution_log") == [
        ("nightly", start_id, "manual", "succeeded")
    ]
    with pytest.raises(DatabaseError, match="no job nothing is declared"):
        registry.trigger_job("nothing")


def test_the_last_result_is_that_of_a_run_that_is_over(site: Site, registry: Registry) -> None:
    """Neither what goes on nor what was skipped is a result."""
    assert registry.get_last_execution_result("nightly") is None
    registry.register_job("nightly", NEVER, "SELECT 1/0")
    assert registry.get_last_execution_result("nightly") is None
    with pytest.raises(psycopg.errors.DivisionByZero):
        site.run("CALL reconciler.run_job('nightly')")
    with locked_execution(site.database.connect(), "nightly"):
        site.run("CALL reconciler.run_job('nightly')")
        result = registry.get_last_execution_result("nightly")
    assert result is not None
    assert (result.status, result.error, result.trigger, result.attempt) == (
        "failed",
        "division by zero",
        "manual",
        1,
    )
    assert result.completed_at is not None
    assert result.duration == result.completed_at - result.run_at
    result = registry.get_last_execution_result("nightly")
    assert result is not None
    assert result.status == "succeeded"


def test_a_direct_job_has_the_results_of_pg_cron(site: Site, registry: Registry) -> None:
    """It has no row in our log."""
    registry.register_job("direct", NEVER, "VACUUM", mode="direct")
    site.run(
        "INSERT INTO cron.job_run_details"
        " (jobid, runid, status, return_message, start_time, end_time, username)"
        " SELECT jobid, 7, 'failed', 'ERROR: no', now() - interval '2 s', now(), username"
        " FROM cron.job WHERE jobname = 'direct'"
    )
    result = registry.get_last_execution_result("direct")
    assert result is not None
    assert (result.run_id, result.status, result.error) == (7, "failed", "ERROR: no")
    assert result.duration == timedelta(seconds=2)


def test_jobs_are_listed_with_how_they_fare(site: Site, registry: Registry) -> None:
    """Those of the owner, or of everybody, without the tool's own."""
    assert registry.list_scheduled_jobs() == ()
    site.apply(job("theirs"))
    registry.register_job("nightly", NEVER, "SELECT 1", description="Does nothing")
    registry.register_job("then", "", greet, after=["nightly"], active=False)
    site.run("CALL reconciler.run_job('nightly')")
    site.run("SELECT reconciler.pause_job('nightly')")
    nightly, then = registry.list_scheduled_jobs()
    assert (nightly.name, nightly.owner, nightly.trigger, nightly.schedule) == (
        "nightly",
        "app",
        "schedule",
        NEVER,
    )
    assert (nightly.description, nightly.role, nightly.last_status) == (
        "Does nothing",
        "postgres",
        "succeeded",
    )
    assert (nightly.active, nightly.paused, nightly.consecutive_failures) == (True, True, 0)
    assert f"{nightly.next_run_at:%m-%d}" == "02-29"
    assert (then.trigger, then.after, then.active, then.next_run_at) == ("after", ["nightly"], False, None)
    assert [one.name for one in registry.list_scheduled_jobs(everybody=True)] == ["nightly", "theirs", "then"]


def test_a_function_is_declared_by_its_name(site: Site, registry: Registry) -> None:
    """At each time a job is put on its queue, under the dotted name that a worker knows."""
    registry.register_job("greet", NEVER, greet, payload={"name": "you"})
    registry.register_job("named", NEVER, lambda: None, handler="mail.welcome")
    site.run("CALL reconciler.run_job('greet')")
    site.run("CALL reconciler.run_job('named')")
    assert site.rows("SELECT job_name, handler, payload FROM reconciler.jobs ORDER BY id") == [
        ("greet", f"{__name__}.greet", {"name": "you"}),
        ("named", "mail.welcome", {}),
    ]


def test_a_registered_function_can_be_called_here(site: Site, registry: Registry) -> None:
    """With its payload, under the lock and in the log; it is skipped while another run goes on."""
    registry.register_job("greet", NEVER, greet, payload={"name": "you"}, active=False)
    assert registry.run_registered("greet") == "hello you"
    with locked_execution(site.database.connect(), "greet"):
        assert registry.run_registered("greet") is None
    assert site.rows("SELECT trigger, status FROM reconciler.cron_execution_log ORDER BY id") == [
        ("schedule", "succeeded"), ("manual", "succeeded"), ("schedule", "skipped"),
    ]  # fmt: skip
    registry.cancel_job("greet")
    with pytest.raises(ConfigError, match="registered no function for the job greet"):
        registry.run_registered("greet")


def test_a_function_that_fails_fails_its_run(registry: Registry) -> None:
    """Its error comes out as it is."""
    registry.register_job("greet", NEVER, greet, payload={"nobody": 1}, active=False)
    with pytest.raises(TypeError, match="nobody"):
        registry.run_registered("greet")
    result = registry.get_last_execution_result("greet")
    assert result is not None
    assert (result.status, str(result.error)[:11]) == ("failed", "TypeError: ")


def test_it_does_not_work_within_the_callers_transaction(site: Site, conn: Connection[Any]) -> None:
    """What it does would be undone with it."""
    registry = Registry(conn)
    with conn.transaction(), pytest.raises(DatabaseError, match="has an open transaction"):
        registry.register_job("a", NEVER, "SELECT 1")
    conn.close()
    with pytest.raises(ConnectError):
        registry.list_scheduled_jobs()
    assert site.rows("SELECT to_regnamespace('reconciler') IS NULL") == [(True,)]


def test_nothing_is_started_on_an_empty_database(registry: Registry) -> None:
    """The error says what to do."""
    with pytest.raises(MigrationError):
        registry.trigger_job("nightly")


def test_several_processes_register_at_once(site: Site) -> None:
    """As they do when a program starts: all succeed, and each job is there once."""
    failures: list[Exception] = []

    def start(number: int) -> None:
        registry = Registry(site.database.connect())
        try:
            for name in ("a", "b", f"own-{number}"):
                registry.register_job(name, NEVER, "SELECT 1")
        except Exception as error:  # noqa: BLE001 - whatever it is
            failures.append(error)

    threads = [threading.Thread(target=start, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    names = [("a",), ("b",), ("own-0",), ("own-1",), ("own-2",), ("own-3",)]
    assert site.rows(NAMES) == names
    assert (
        site.rows("SELECT jobname::text FROM cron.job WHERE command LIKE '%%run_job%%' ORDER BY 1") == names
    )


def test_another_role_runs_what_names_none(site: Site) -> None:
    """The role of the registry is that of its entries."""
    site.run("CREATE ROLE runs LOGIN; GRANT USAGE ON SCHEMA cron TO runs")
    registry = Registry(site.database.connect(), "billing", role="runs", runtime=None)
    registry.register_job("a", NEVER, "SELECT 1")
    assert site.entry("a")["username"] == "runs"
    assert site.rows(OURS) == []
    assert registry.list_scheduled_jobs()[0].owner == "billing"
