"""Running a job in the database: under its lock, logged, with its own role's rights, whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, channel, job, queue
from tests.runs import OUR_LOCKS, attempt, call, hold, log, running, statuses, wait_for_pg_cron

if TYPE_CHECKING:
    from tests.servers import Database

LOG: LiteralString = """
SELECT status, rows_affected, error_sqlstate, error_message FROM reconciler.cron_execution_log ORDER BY id
"""
CALLABLE: LiteralString = """
SELECT proname::text, array_to_string(proconfig, ' ') FROM pg_proc
 WHERE pronamespace = 'reconciler'::regnamespace AND prosecdef
   AND has_function_privilege('weak', oid, 'EXECUTE')
"""


@pytest.mark.firing
def test_pg_cron_runs_a_managed_job(any_mode_database: Database) -> None:
    """Fired by pg_cron in each mode, runs are logged as scheduled; a failed one fails in its history too."""
    site = Site(any_mode_database)
    is_old = any_mode_database.server.pg_cron < (1, 5, 0)
    schedule = "@reboot" if is_old else "1 second"  # 1.4 has no seconds; a restart is sooner than a minute
    site.apply(
        job("good", "CREATE TABLE IF NOT EXISTS public.made (n int)", schedule=schedule),
        job("bad", "SELECT 1/0", schedule=schedule),
    )
    if is_old:
        any_mode_database.server.restart()
    history: LiteralString = (
        "SELECT DISTINCT j.jobname::text, d.status FROM cron.job_run_details d JOIN cron.job j USING (jobid)"
        " WHERE d.status IN ('failed', 'succeeded') ORDER BY 1"
    )
    expected = [("bad", "failed"), ("good", "succeeded")]
    wait_for_pg_cron(site, lambda: site.rows(history) == expected, what="both jobs ran")
    log = site.rows(
        "SELECT DISTINCT job_name, status, error_message, role, trigger FROM reconciler.cron_execution_log"
        " WHERE status <> 'running' ORDER BY 1"
    )
    assert log == [
        ("bad", "failed", "division by zero", "postgres", "schedule"),
        ("good", "succeeded", None, "postgres", "schedule"),
    ]
    messages = site.rows("SELECT DISTINCT return_message FROM cron.job_run_details WHERE status = 'failed'")
    assert "division by zero" in messages[0][0]


def test_a_run_is_logged_with_its_row_count(site: Site) -> None:
    """A run that succeeds has its end, its number of rows, its role and its revision."""
    site.run("CREATE TABLE public.t (n int)")
    applied = site.apply(job("a", "INSERT INTO public.t SELECT generate_series(1, 7)"))
    assert call(site) is None
    assert site.rows(LOG) == [("succeeded", 7, None, None)]
    assert site.rows(
        "SELECT completed_at >= run_at, role, revision, trigger FROM reconciler.cron_execution_log"
    ) == [(True, "postgres", applied.revision, "manual")]
    assert site.rows("SELECT count(*) FROM public.t") == [(7,)]


def test_a_failure_is_logged_and_raised_again(site: Site) -> None:
    """A failed body is rolled back, logged with its details, and raised with its own SQLSTATE."""
    site.run("CREATE TABLE public.t (n int UNIQUE)")
    site.apply(job("a", "INSERT INTO public.t VALUES (1); INSERT INTO public.t VALUES (1)"))
    error = call(site)
    assert isinstance(error, psycopg.errors.UniqueViolation)
    assert "cron_execution_log" in (error.diag.message_detail or "")
    assert site.rows("SELECT count(*) FROM public.t") == [(0,)]
    assert site.rows(
        "SELECT status, error_sqlstate, error_message ~ 'duplicate key', error_detail ~ 'already exists',"
        " error_context ~ 'INSERT' FROM reconciler.cron_execution_log"
    ) == [("failed", "23505", True, True, True)]


@pytest.mark.parametrize(
    ("body", "sqlstate"),
    [
        ("SELEC", "42601"),
        ("COMMIT", "0A000"),
        ("DO $$ BEGIN ASSERT false; END $$", "P0004"),
        ("DO $$ BEGIN RAISE EXCEPTION 'a' USING ERRCODE = '57014'; END $$", "57014"),
        ("DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 100000); END $$", "P0001"),
        ("VACUUM", "25001"),
        ("COPY (SELECT 1) TO STDOUT", "0A000"),
        ("SELECT pg_catalog.pg_sleep(9), set_config('statement_timeout', '1', true)", ""),
    ],
)
def test_no_failure_escapes_the_log(site: Site, body: str, sqlstate: str) -> None:
    """Every failure of a body ends its run, also those that `WHEN OTHERS` does not catch."""
    if not sqlstate:
        site.run("ALTER ROLE postgres SET statement_timeout = '200ms'")
    site.apply(job("a", body))
    error = call(site)
    site.run("ALTER ROLE postgres RESET statement_timeout")
    assert error is not None
    ended = site.rows("SELECT status <> 'running', error_sqlstate FROM reconciler.cron_execution_log")
    assert ended == [(True, sqlstate or "57014")]
    assert error.sqlstate == (sqlstate or "57014")
    assert site.rows(OUR_LOCKS) == [(0,)]


def test_a_body_of_many_statements_is_one_unit(site: Site) -> None:
    """A body may hold any number of statements, quotes, percent signs and comments."""
    site.run("CREATE TABLE public.t (s text)")
    body = "INSERT INTO public.t VALUES ('50% of ''%s'' \\ $1'); -- done;\nINSERT INTO public.t SELECT 'x';"
    site.apply(job("a", body))
    assert call(site) is None
    assert site.rows("SELECT s FROM public.t") == [("50% of '%s' \\ $1",), ("x",)]


def test_a_running_row_is_visible_and_a_second_run_is_skipped(site: Site) -> None:
    """While a job runs, others see its row; a second run of it does nothing but say who holds the lock."""
    site.apply(job("a", hold()), job("b"))
    with running(site) as run:
        assert call(site) is None
        assert call(site, "b") is None
        assert site.rows(
            "SELECT status, error_message, completed_at IS NOT NULL FROM reconciler.cron_execution_log"
            " WHERE job_name = 'a' ORDER BY id"
        ) == [("running", None, False), ("skipped", f"already running in backend {run.pid}", True)]
        assert run.end() is None
    assert call(site) is None
    assert [row[0] for row in site.rows(LOG)] == ["succeeded", "skipped", "succeeded", "succeeded"]


@pytest.mark.parametrize("body", ["SELECT 1", "SELECT 1/0"])
def test_the_lock_is_released_while_the_session_lives_on(site: Site, body: str) -> None:
    """After success and after failure the lock is free at once, though the session stays."""
    site.apply(job("a", body))
    for _ in range(3):
        call(site)
        assert site.rows(OUR_LOCKS) == [(0,)]
    assert "skipped" not in {row[0] for row in site.rows(LOG)}


def test_a_cancelled_run_is_logged_and_frees_the_lock(site: Site) -> None:
    """pg_cancel_backend ends a run as cancelled, and the next one runs."""
    site.apply(job("a", hold()))
    with running(site) as run:
        site.run("SELECT pg_cancel_backend(%s)", run.pid)
        assert isinstance(run.end(), psycopg.errors.QueryCanceled)
    assert [row[0] for row in site.rows(LOG)] == ["cancelled"]
    assert site.rows(OUR_LOCKS) == [(0,)]


def test_a_killed_backend_leaves_no_lock(site: Site) -> None:
    """A run whose backend is killed leaves its lock, does not hinder the next, and is lost then."""
    site.apply(job("a", hold()))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
        assert isinstance(run.end(), psycopg.errors.AdminShutdown)
    assert site.rows(OUR_LOCKS) == [(0,)]
    site.apply(job("a", "SELECT 1"))
    assert call(site) is None
    assert [row[0] for row in site.rows(LOG)] == ["lost", "succeeded"]


def test_inside_a_transaction_it_fails_at_once(site: Site) -> None:
    """In somebody's transaction block no lock is taken and no row is written."""
    site.apply(job("a"))
    conn = site.database.connect(autocommit=False)
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        conn.execute("CALL reconciler.run_job('a')")
    assert site.rows(OUR_LOCKS) == [(0,)]
    conn.rollback()
    assert site.rows(LOG) == []


def test_an_unknown_job_is_told(site: Site) -> None:
    """A name that is not declared, or not a job, is an error that names it."""
    site.apply(job("a"), queue("q"))
    for name in ("nope", "q"):
        error = call(site, name)
        assert isinstance(error, psycopg.errors.UndefinedObject)
        assert name in str(error)
    assert site.rows(LOG) == []


def test_another_role_may_not_run_a_job(site: Site) -> None:
    """Only its role, and members of it, run a job."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN IN ROLE alice")
    site.apply(job("a", role="alice"))
    error = call(site, user="bob")
    assert isinstance(error, psycopg.errors.InsufficientPrivilege)
    assert "alice" in (error.diag.message_hint or "")
    assert call(site, user="alice") is None
    assert call(site, user="carol") is None
    assert site.rows("SELECT role, status FROM reconciler.cron_execution_log ORDER BY id") == [
        ("alice", "succeeded"),
        ("carol", "succeeded"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "SELECT * FROM reconciler.definitions",
        "SELECT * FROM reconciler.cron_execution_log",
        "INSERT INTO reconciler.cron_execution_log (job_name, role, backend_pid) VALUES ('x', 'x', 1)",
        "UPDATE reconciler.cron_execution_log SET status = 'succeeded'",
        "INSERT INTO reconciler.jobs (handler) VALUES ('x')",
        "UPDATE cron.job SET command = 'x'",
        "CREATE TABLE reconciler.mine (a int)",
        "SELECT reconciler.start_run('of-another')",
        "SELECT reconciler.queue_run(1, '')",
        "SELECT reconciler.send_request(1, '')",
        "SELECT reconciler.finish_run(1, '', 'failed')",
        "SELECT reconciler.finish_run(1, sha256(int8send(1)), 'failed')",
        "SELECT reconciler.finish_run(max(id), '', 'succeeded') FROM generate_series(1, 2) AS id",
        "SELECT reconciler.make_token(1)",
        "SELECT key FROM reconciler.run_key",
        "SELECT value FROM reconciler.secrets",
        "SELECT reconciler.read_secret('x')",
        "SELECT reconciler.start_execution('x')",
        "SELECT reconciler.open_alert('of-another', 'failed', 1, '', '{}', '{}', '1d')",
        "SELECT reconciler.request_run('of-another')",
        "SELECT reconciler.cancel_run(1)",
        "SELECT reconciler.pause_job('of-another')",
        "SELECT reconciler.tick_step('mark_lost')",
        "SELECT reconciler.clear_history('1 hour', 1)",
    ],
)
def test_a_body_has_no_more_rights_than_its_role(site: Site, body: str) -> None:
    """The job of a weak role neither reads nor writes what belongs to the reconciler, nor others' runs."""
    site.run("CREATE ROLE weak LOGIN; GRANT USAGE ON SCHEMA cron TO weak")
    site.apply(job("a", body, role="weak"), job("of-another", hold()))
    with running(site, "of-another"):
        error = call(site, user="weak")
    assert isinstance(
        error, psycopg.errors.InsufficientPrivilege | psycopg.errors.ObjectNotInPrerequisiteState
    )
    assert [row[0] for row in site.rows(LOG)] == ["succeeded", "failed"]


def test_what_everybody_may_call(site: Site) -> None:
    """With the owner's rights only what looks who asks or wants a token, under its own search_path."""
    site.run("CREATE ROLE weak LOGIN")
    site.apply()
    assert {name for name, _ in site.rows(CALLABLE)} == {
        *("start_run", "finish_run", "queue_run", "send_request", "take_fire"),
        *("request_run", "cancel_run", "pause_job", "resume_job"),
        *("next_start", "tick_step", "is_watching", "clear_history", "claim_delivery", "send_delivery"),
        "can_send",  # tells no more than whether one of two extensions is there
        # Tell no more than whether this is a copy, and of which database; the last one looks who asks.
        *("is_home", "judge_home", "require_home", "describe_copy", "read_system_identifier"),
        "list_direct_entries",
    }
    assert {settings for _, settings in site.rows(CALLABLE)} == {"search_path=pg_catalog, pg_temp"}


def test_nobody_else_sends_messages(site: Site) -> None:
    """A role that has nothing to do with the runtime neither claims nor sends what is to be delivered."""
    site.run("CREATE ROLE weak LOGIN")
    site.apply(channel("ops", deliver="database"), job("a", "SELECT 1/0", alert={"channels": ["ops"]}))
    call(site)
    attempt(site, "SELECT reconciler.claim_delivery()", user="weak")
    attempt(site, "SELECT reconciler.send_delivery(id, 0) FROM generate_series(1, 3) AS id", user="weak")
    assert site.rows("SELECT attempts, last_error FROM reconciler.alert_deliveries") == [(0, None)]


def test_nobody_but_the_owner_sees_a_secret(site: Site) -> None:
    """Not even a role that may read all tables sees a secret, or the key of the runs' tokens."""
    site.run("CREATE ROLE reader LOGIN; CREATE ROLE auditor LOGIN IN ROLE pg_read_all_data")
    site.apply()
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader")
    site.run("INSERT INTO reconciler.secrets (name, value) VALUES ('x', 'hidden')")
    for user in ("reader", "auditor"):
        conn = site.database.connect(user)
        assert conn.execute("SELECT * FROM reconciler.secrets").fetchall() == []
        assert conn.execute("SELECT * FROM reconciler.run_key").fetchall() == []
        assert attempt(site, "SELECT reconciler.read_secret('x')", user=user) is not None


def test_objects_of_the_caller_do_not_lead_astray(site: Site) -> None:
    """Temporary tables and functions named like ours, and any search_path, are not used in their stead."""
    site.run("CREATE ROLE weak LOGIN; CREATE SCHEMA evil AUTHORIZATION weak")
    site.apply(job("a", role="weak"))
    conn = site.database.connect("weak")
    conn.execute(
        "SET search_path = evil, pg_temp, pg_catalog;"
        "CREATE TEMP TABLE definitions (a int); CREATE TEMP TABLE pg_locks (a int);"
        "CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END'"
    )
    conn.execute("CALL reconciler.run_job('a')")
    assert [row[0] for row in site.rows(LOG)] == ["succeeded"]


def test_a_body_may_change_its_session(site: Site) -> None:
    """A body that sets another search_path or role is still logged, and its lock is freed."""
    site.run("CREATE ROLE weak LOGIN")
    site.apply(job("a", "SET search_path = nowhere; SET ROLE weak"))
    assert call(site) is None
    assert [row[0] for row in site.rows(LOG)] == ["succeeded"]
    assert site.rows(OUR_LOCKS) == [(0,)]


@pytest.mark.parametrize(
    "body",
    [
        "DELETE FROM reconciler.cron_execution_log",
        "UPDATE reconciler.cron_execution_log SET status = 'failed', completed_at = now()",
    ],
)
def test_a_body_that_keeps_its_run_from_ending_has_failed(site: Site, body: str) -> None:
    """When the row cannot be finished, what the body did is undone, the run has failed, its lock is free."""
    site.run("CREATE TABLE public.t (n int)")
    site.apply(job("a", f"INSERT INTO public.t VALUES (1); {body}"))
    assert "not running" in str(call(site))
    assert site.rows("SELECT count(*) FROM public.t") == [(0,)]
    assert [
        (status, "not running" in text) for status, text in log(site, "a", "status", "error_message")
    ] == [("failed", True)]
    assert site.rows(OUR_LOCKS) == [(0,)]


def test_what_is_deferred_fails_in_the_run(site: Site) -> None:
    """A deferred constraint is checked while the run can still say so."""
    site.run("CREATE TABLE public.t (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    site.apply(job("a", "INSERT INTO public.t VALUES (1), (1)"))
    assert isinstance(call(site), psycopg.errors.UniqueViolation)
    assert statuses(site) == ["failed"]


def test_a_handler_job_is_queued(site: Site) -> None:
    """A run of a job with a handler puts one row on its queue, with its payload, and goes on with that."""
    site.apply(queue("mail"), job("a", handler="mail.send", queue="mail", payload={"to": ["x"]}))
    assert call(site) is None
    assert site.rows("SELECT job_name, handler, queue, payload, status, once FROM reconciler.jobs") == [
        ("a", "mail.send", "mail", {"to": ["x"]}, "pending", False)
    ]
    assert site.rows(LOG) == [("running", None, None, None)]
    assert site.rows(OUR_LOCKS) == [(0,)]


def test_a_run_of_the_old_body_is_not_touched_by_an_apply(site: Site) -> None:
    """A job may be changed, and even removed, while it runs; the run ends as it began."""
    site.apply(job("a", hold()), job("b"))
    with running(site):
        site.apply(job("b"), prune="auto")
        assert site.rows("SELECT count(*) FROM reconciler.definitions") == [(1,)]
    assert [row[0] for row in site.rows(LOG)] == ["succeeded"]
