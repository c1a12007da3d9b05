"""The dangers of pg_cron, made for real: each is found, and its remedy makes it go away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from reconciler.core.preflight import Danger, Finding, find_dangers
from reconciler.database.connect import connect
from reconciler.database.observe import observe
from tests.declared import Site
from tests.servers import has_launcher, wait_until

if TYPE_CHECKING:
    from tests.servers import Database

ADD = "SELECT cron.schedule_in_database(%s, '0 0 29 2 *', %s, current_database(), %s, false)"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with one more role, seen by its superuser."""
    site = Site(database)
    site.run("CREATE ROLE alice LOGIN")
    return site


def find(site: Site) -> dict[str, Finding]:
    """Plan nothing, and return what was found, by code; a young launcher is a test before's doing."""
    findings = {finding.code: finding for finding in site.plan().plan.findings}
    findings.pop("launcher_restarting", None)
    return findings


def execute(site: Site, statements: str) -> None:
    """Do what a remedy says, one statement after the other."""
    with site.database.server.connect() as conn:
        for statement in statements.split("; "):
            conn.execute(statement.encode())


def test_a_sound_server_has_no_findings(any_mode_database: Database) -> None:
    """On a fresh server nothing is found, but that pg_cron 1.4 with background workers runs one by one."""
    site = Site(any_mode_database)
    site.run("CREATE ROLE alice LOGIN")
    site.run(ADD, "a", "SELECT 1", "alice")
    is_serial = site.database.server.background_workers and site.database.server.pg_cron < (1, 5, 0)
    assert set(find(site)) == ({"serial_workers"} if is_serial else set())
    if is_serial:
        assert "use_background_workers = off" in find(site)["serial_workers"].remedy
        assert find(site)["serial_workers"].severity == "error"


@pytest.mark.parametrize("remedy", [0, 1])
def test_a_dropped_role_that_stops_every_job(site: Site, remedy: int) -> None:
    """An entry of a role that is gone is an error, though inactive; both remedies bring the launcher back."""
    site.run(ADD, "a", "SELECT 1", "alice")
    site.run("DROP ROLE alice")
    finding = find(site)["unknown_role"]
    assert finding.severity == "error"
    assert "alice" in finding.message
    execute(site, finding.remedy.split(", or as a superuser: ")[remedy])
    assert "unknown_role" not in find(site)
    with site.database.server.connect() as conn:
        wait_until(lambda: has_launcher(conn), seconds=5, what="the launcher is back")


def test_superusers_entries_that_may_not_run(site: Site) -> None:
    """With enable_superuser_jobs off, entries of superusers are pointed out; another role helps."""
    site.run(ADD, "a", "SELECT 1", "postgres")
    if site.database.server.pg_cron >= (1, 5, 0):
        pytest.skip("1.6.5 to 1.6.7 crash on them: see the next test")
    site.database.server.set_server_settings(cron__enable_superuser_jobs="off")
    finding = find(site)["superuser_entries"]
    assert finding.severity == "warning"
    assert "entry a " in finding.message
    site.run("SELECT cron.alter_job(jobid, username := 'alice') FROM cron.job")
    assert "superuser_entries" not in find(site)


def test_superusers_entries_that_crash_the_server(site: Site) -> None:
    """On 1.6 the same is an error, since it may crash the whole server; that is not tried out here."""
    if site.database.server.pg_cron < (1, 6, 0):
        pytest.skip("1.4 does not crash")
    site.run(ADD, "a", "SELECT 1", "postgres")
    with connect(site.dsn) as conn:
        observation = observe(conn)
        assert observation.dangers == ()
        queries = conn.execute(
            "SELECT jobid FROM cron.job j JOIN pg_roles r ON r.rolname = j.username WHERE r.rolsuper"
        ).fetchall()
    facts = observation.state.facts
    off = replace(facts, settings={**facts.settings, "enable_superuser_jobs": "off"})
    danger = Danger(code="superuser", jobid=queries[0][0], name="a", detail="postgres")
    (finding,) = find_dangers(off, [danger])
    assert (finding.code, finding.severity) == ("superuser_entries", "error")
    assert "crash" in finding.message


@pytest.mark.parametrize(
    "command",
    [
        "COPY public.t TO STDOUT",
        "  copy (SELECT 1)\n to stdout WITH (FORMAT csv)",
        "COPY t FROM STDIN",
        "-- dump\nCOPY t TO STDOUT",
        "/* dump */ COPY t TO STDOUT",
        "SET search_path = public; COPY t TO STDOUT;",
    ],
)
def test_a_copy_that_hangs_the_launcher(site: Site, command: str) -> None:
    """A COPY to or from the client is an error where jobs run over connections, though inactive."""
    site.run(ADD, "a", command, "postgres")
    finding = find(site)["copy_loop"]
    assert finding.severity == "error"
    execute(site, finding.remedy.removeprefix("unschedule it: ").split("; ")[0])
    assert find(site) == {}


@pytest.mark.parametrize(
    "command", ["COPY t TO '/tmp/x'", "SELECT 'COPY t TO STDOUT'", "INSERT INTO copy VALUES ('to stdout')"]
)
def test_a_harmless_copy_is_no_finding(site: Site, command: str) -> None:
    """Copying to a file of the server, or only speaking of it, is fine."""
    site.run(ADD, "a", command, "postgres")
    assert find(site) == {}


def test_a_copy_is_harmless_in_background_workers(any_mode_database: Database) -> None:
    """In background workers the same command is no danger."""
    site = Site(any_mode_database)
    site.run(ADD, "a", "COPY t TO STDOUT", "postgres")
    assert ("copy_loop" in find(site)) is not any_mode_database.server.background_workers


def test_a_launcher_that_is_gone(site: Site) -> None:
    """Up to 1.6.0 a terminated launcher stays away: that is found, and a restart helps."""
    if site.database.server.pg_cron >= (1, 6, 1):
        pytest.skip("it restarts by itself since 1.6.1")
    site.database.server.needs_restart = True
    site.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    )
    finding = find(site)["launcher_down"]
    assert finding.severity == "error"
    assert "restart the server" in finding.remedy
    site.database.server.restart()
    with site.database.server.connect() as conn:
        wait_until(lambda: has_launcher(conn), seconds=5, what="the launcher is back")
    assert find(site) == {}


def test_a_server_that_launches_nothing(site: Site) -> None:
    """cron.launch_active_jobs = off is an error; the remedy switches it on."""
    if site.database.server.pg_cron < (1, 6, 0):
        pytest.skip("1.4 has no such setting")
    site.database.server.reload(cron__launch_active_jobs="off")
    finding = find(site)["launch_off"]
    assert finding.severity == "error"
    execute(site, finding.remedy)
    wait_until(lambda: find(site) == {}, seconds=5, what="the setting is loaded")


def test_a_server_that_keeps_no_record(site: Site) -> None:
    """cron.log_run = off is a warning."""
    site.database.server.set_server_settings(cron__log_run="off")
    assert find(site)["log_off"].severity == "warning"


def test_an_extension_older_than_its_library(site: Site) -> None:
    """SQL objects of an older version are found, and ALTER EXTENSION brings them up."""
    if site.database.server.pg_cron < (1, 6, 0):
        pytest.skip("1.4's older versions are too far from its library")
    site.run("DROP EXTENSION pg_cron; CREATE EXTENSION pg_cron VERSION '1.5'")
    finding = find(site)["version_skew"]
    execute(site, finding.remedy)
    assert find(site) == {}


def test_a_role_that_can_no_longer_log_in(site: Site) -> None:
    """An entry of a role without LOGIN is an error; the remedy lets it in again."""
    site.run(ADD, "a", "SELECT 1", "alice")
    site.run("ALTER ROLE alice NOLOGIN")
    finding = find(site)["no_login"]
    assert finding.severity == "error"
    execute(site, finding.remedy)
    assert find(site) == {}


def test_a_role_that_may_not_connect(site: Site) -> None:
    """An entry whose role may not connect to its database is an error that names both."""
    site.run("CREATE DATABASE elsewhere")
    site.run("SELECT cron.schedule_in_database('a', '0 0 29 2 *', 'SELECT 1', 'elsewhere', 'alice', false)")
    site.run("REVOKE CONNECT ON DATABASE elsewhere FROM PUBLIC")
    finding = find(site)["no_connect"]
    assert "alice" in finding.message
    assert "elsewhere" in finding.message
    assert finding.severity == "error"
    site.run("GRANT CONNECT ON DATABASE elsewhere TO alice")
    assert find(site) == {}


def test_a_database_that_is_gone(site: Site) -> None:
    """An entry for a database that was dropped, or takes no connections, is an error."""
    site.run("CREATE DATABASE elsewhere")
    site.run("SELECT cron.schedule_in_database('a', '0 0 29 2 *', 'SELECT 1', 'elsewhere', 'alice', false)")
    site.run("ALTER DATABASE elsewhere ALLOW_CONNECTIONS false")
    assert find(site)["unknown_database"].severity == "error"
    site.run("DROP DATABASE elsewhere")
    assert "elsewhere" in find(site)["unknown_database"].message
    site.run("SELECT cron.alter_job(jobid, database := current_database()) FROM cron.job")
    assert find(site) == {}


def test_an_entry_for_another_port(site: Site) -> None:
    """An entry that is sent to another port than the server's is a warning; applying it anew helps."""
    site.run(ADD, "a", "SELECT 1", "alice")
    site.run("UPDATE cron.job SET nodename = 'localhost', nodeport = 1")
    finding = find(site)["other_node"]
    assert finding.severity == "warning"
    assert "localhost:1" in finding.message


def test_every_danger_is_told_for_each_entry(site: Site) -> None:
    """Two entries in danger are two findings, those of unnamed entries too; the plan goes on."""
    site.run(ADD, "a", "SELECT 1", "alice")
    site.run(
        "INSERT INTO cron.job (schedule, command, username, nodeport)"
        " SELECT schedule, command, 'gone', nodeport FROM cron.job"
    )
    site.run("ALTER ROLE alice NOLOGIN")
    messages = [finding.message for finding in site.plan().plan.findings]
    assert any("entry a " in message for message in messages)
    assert any("unnamed entry" in message and "gone" in message for message in messages)
