"""Troubles of the runtime that doctor finds: a silent tick, overdue starts, messages, runs nobody may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from reconciler.database.connect import connect
from reconciler.database.health import find_runtime_troubles
from reconciler.database.observe import observe_facts
from tests.declared import Site, channel, job
from tests.runs import hold, running

if TYPE_CHECKING:
    from reconciler.core.preflight import Finding
    from tests.servers import Database


@pytest.fixture
def site(database: Database) -> Site:
    """A database with one job, seen by its superuser."""
    site = Site(database)
    site.apply(job("a"))
    return site


def find(site: Site) -> dict[str, Finding]:
    """Find the troubles, by code."""
    with connect(site.dsn) as conn:
        findings = find_runtime_troubles(conn, observe_facts(conn))
    assert len({one.code for one in findings}) == len(findings)
    return {one.code: one for one in findings}


def declare_tick(site: Site) -> None:
    """Declare an entry that calls the tick, never to fire in a test, an hour ago."""
    site.apply(job("a"), job("reconciler-tick", "CALL reconciler.tick()", mode="direct"))
    site.run("UPDATE reconciler.definitions SET updated_at = now() - interval '1 hour'")


def add_tick(site: Site, status: str, age: str, message: str = "") -> None:
    """Write a run of the tick into pg_cron's history."""
    site.run(
        "INSERT INTO cron.job_run_details"
        " (jobid, runid, job_pid, status, return_message, start_time, end_time)"
        " SELECT jobid, (SELECT count(*) + 1 FROM cron.job_run_details), pg_backend_pid(), %s, %s,"
        " now() - %s::interval, now() FROM cron.job WHERE jobname = 'reconciler-tick'",
        status,
        message,
        age,
    )


def test_nothing_is_found_where_all_is_well(site: Site) -> None:
    """A fresh target and one with a tick that runs have no troubles."""
    assert find(site) == {}
    declare_tick(site)
    add_tick(site, "succeeded", "20 seconds")
    assert find(site) == {}


def test_a_silent_tick_is_an_error(site: Site) -> None:
    """A tick that was declared but does not run is told of, also one that never ran."""
    declare_tick(site)
    assert find(site)["tick_silent"].severity == "error"
    add_tick(site, "succeeded", "10 minutes")
    assert "no run of it for 10 minutes" in find(site)["tick_silent"].message
    add_tick(site, "succeeded", "4 minutes")
    assert find(site) == {}


def test_a_tick_that_was_just_declared_has_time(site: Site) -> None:
    """Nothing is said of a tick in the first minutes."""
    declare_tick(site)
    site.run("UPDATE reconciler.definitions SET updated_at = now()")
    assert find(site) == {}


def test_a_tick_that_stays_is_not_silent(site: Site) -> None:
    """One that goes on since an hour is at work as long as its backend is there."""
    declare_tick(site)
    add_tick(site, "running", "1 hour")
    assert "tick_silent" in find(site)
    site.run(
        "UPDATE cron.job_run_details SET job_pid = pid"
        " FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    )
    assert find(site) == {}


def test_nothing_is_said_of_a_tick_without_records(site: Site) -> None:
    """Where pg_cron writes no history, silence proves nothing."""
    declare_tick(site)
    site.database.server.set_server_settings(cron__log_run="off")
    assert find(site) == {}


def test_a_failing_tick_is_an_error(site: Site) -> None:
    """What the tick could not do is repeated; once it succeeds again all is well."""
    declare_tick(site)
    add_tick(site, "failed", "20 seconds", "ERROR:  the tick could not do all of its work: mark_lost: no\n")
    finding = find(site)["tick_failing"]
    assert finding.severity == "error"
    assert "mark_lost: no" in finding.message
    add_tick(site, "succeeded", "10 seconds")
    assert find(site) == {}


def test_an_inactive_tick_is_an_error(site: Site) -> None:
    """A tick that somebody switched off is told of."""
    declare_tick(site)
    site.run("SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'reconciler-tick'")
    assert list(find(site)) == ["tick_inactive"]


def test_overdue_starts_are_an_error(site: Site) -> None:
    """Starts that no runner took are told by role; those that are young or wait for others are not."""
    site.run("CREATE ROLE alice LOGIN")
    site.apply(job("a"), job("b", role="alice"), job("c", role="alice"))
    site.run(
        "INSERT INTO reconciler.starts (job_name, trigger, due_at) VALUES"
        " ('a', 'manual', now() - interval '4 minutes'), ('a', 'dependency', 'infinity'),"
        " ('b', 'manual', now() - interval '3 hours'), ('c', 'retry', now() - interval '6 minutes')"
    )
    finding = find(site)["overdue_starts"]
    assert finding.severity == "error"
    assert "no runner of the role alice has taken 2 starts, due for up to 3 hours: b, c" in finding.message


def test_messages_that_nobody_got_are_a_warning(site: Site) -> None:
    """Messages given up lately and messages that wait are told by channel, with the last reason."""
    site.apply(job("a"), channel("ops"), channel("pager", deliver="database"))
    site.run(
        "WITH a AS (INSERT INTO reconciler.alerts (job_name, kind, message) VALUES ('a', 'lost', 'x')"
        " RETURNING id)"
        " INSERT INTO reconciler.alert_deliveries"
        " (alert_id, channel, reminder, status, due_at, created_at, last_error)"
        " SELECT a.id, d.* FROM a, (VALUES"
        "  ('ops', 0, 'failed', now(), now() - interval '8 days', 'old'),"
        "  ('ops', 1, 'failed', now(), now() - interval '1 day', 'no such host'),"
        "  ('ops', 2, 'sent', now(), now(), NULL),"
        "  ('pager', 0, 'pending', now() - interval '1 minute', now(), NULL),"
        "  ('pager', 1, 'pending', now() - interval '10 minutes', now(), NULL)) AS d"
    )
    found = find(site)
    assert sorted(found) == ["deliveries_failed", "deliveries_waiting"]
    assert found["deliveries_failed"].message == (
        "the channel ops: 1 message given up in 7 days: no such host"
    )
    assert found["deliveries_failed"].severity == "warning"
    assert "the channel pager: 1 message due" in found["deliveries_waiting"].message
    assert "the tick" in found["deliveries_waiting"].remedy
    site.apply(job("a"), channel("ops"), channel("pager"))
    assert "alerts deliver" in find(site)["deliveries_waiting"].remedy


def test_runs_that_the_owner_may_not_end_are_found(site: Site) -> None:
    """An owner without rights over a job's role is told of, and the remedy lets it end that role's runs."""
    site.run("CREATE ROLE keeper; CREATE ROLE alice LOGIN")
    site.run("GRANT USAGE ON SCHEMA public TO alice")
    site.apply(job("a", hold(), role="alice"), job("d", role="alice", mode="direct"))
    site.run("ALTER SCHEMA reconciler OWNER TO keeper")
    finding = find(site)["cannot_signal"]
    assert finding.severity == "warning"
    assert "the role keeper" in finding.message
    assert "alice (1 job)" in finding.message
    site.apply(job("a", hold(), role="alice", timeout="1m"))
    assert find(site)["cannot_signal"].severity == "error"
    grant = finding.remedy.removeprefix("as an administrator: ").split(",")[0]
    with running(site, user="alice") as going:
        ask = "SET ROLE keeper; SELECT pg_cancel_backend({}); RESET ROLE".format
        with site.database.server.connect() as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(ask(going.pid).encode())
        site.run(grant.encode())  # type: ignore[arg-type] # from our own message
        assert find(site) == {}
        with site.database.server.connect() as conn:
            conn.execute(ask(going.pid).encode())
        error = going.end()
    assert error is not None
    assert error.sqlstate == "57014"


def test_runs_of_a_superuser_are_beyond_any_grant(site: Site) -> None:
    """Where jobs run as a superuser and another role owns the schema, the remedy is another role."""
    site.run("CREATE ROLE keeper; GRANT pg_signal_backend TO keeper")
    site.run("ALTER SCHEMA reconciler OWNER TO keeper")
    finding = find(site)["cannot_signal"]
    assert "GRANT" not in finding.remedy
    site.run("ALTER SCHEMA reconciler OWNER TO postgres")
    assert find(site) == {}
