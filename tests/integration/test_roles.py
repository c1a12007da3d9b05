"""Roles that let a login do one part of the work: each does all of its part, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from reconciler.database.roles import KINDS
from tests.declared import Site
from tests.roled import CONFIG, JOBS, Roled
from tests.served import Served

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = {"secrets", "run_key", "api_tokens", "api_calls"}
"""What no role may read; the applier may where it bypasses row-level security, for it brings them."""
LOOKS = (
    *("status", "runs", "runs --since 1h", "queues letters", "jobs list", "jobs show 1", "alerts list --all"),
    *("history", "history show 1", "blame tidy", "doctor", "target show", "policies"),
)
PLANS = (
    *(
        "plan",
        "plan --format sql",
        "drift",
        "validate --connect",
        "calendar",
        "next -t test",
        "explain tidy -t test",
    ),
    *("rollback 1 --dry-run", "history show 1", "target show"),
)
CHANGES = (
    *("apply --yes", "rollback 1 --yes", "run tidy", "pause tidy", "cancel 1"),
    *("drift --alert", "roles create --grant applier=reader --yes", "roles drop --yes"),
)
ENTRIES: LiteralString = (
    "SELECT jobname::text, schedule, active FROM cron.job WHERE username = 'deploy' ORDER BY 1"
)


@pytest.fixture
def run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Roled:
    """Write a project, and run commands in it."""
    return Roled(site, tmp_path, monkeypatch, capsys)


@pytest.fixture
def life(run: Roled) -> Roled:
    """Set the project's target up, with a login in each role."""
    run.begin()
    return run


def test_an_applier_leads_the_whole_life_of_jobs(life: Roled, site: Site) -> None:
    """Without owning anything it applies, mends, goes back and brings secrets; it only cannot migrate."""
    assert site.rows("SELECT name, value FROM reconciler.secrets") == [("hook", "https://chat.test/hook")]
    assert "Nothing to change" in life("plan", "deploy")
    applied = site.rows(ENTRIES)
    assert {"tidy", "off", "reconciler-tick", "reconciler-runner"} <= {name for name, _, _ in applied}
    site.run("UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = 'tidy'")
    life("drift --alert", "deploy")
    assert site.rows("SELECT kind FROM reconciler.alerts WHERE resolved_at IS NULL") == [("drift",)]
    life("reconcile --once", "deploy")
    life("drift --alert", "deploy")
    assert site.rows("SELECT kind FROM reconciler.alerts WHERE resolved_at IS NULL") == []
    assert site.rows(ENTRIES) == applied
    life.declared.write_text(
        JOBS.replace("tidy", "tidy-up").replace("welcome", "hello").replace("letters", "post")
    )
    life("apply --yes", "deploy")
    life("rollback 1 --yes", "deploy")
    assert site.rows(ENTRIES) == applied
    life("run tidy", "deploy")
    site.run("UPDATE reconciler.identity SET database_oid = 1, table_oids = '{}'")
    life("target claim --yes", "deploy")
    site.database.connect("deploy").execute("CALL reconciler.tick()")
    site.run(
        "DELETE FROM reconciler.migrations WHERE number = (SELECT max(number) FROM reconciler.migrations)"
    )
    assert "permission denied" in life("migrate", "deploy", code=1)


@pytest.mark.one_server
def test_a_superuser_hands_entries_over(site: Site, run: Roled, tmp_path: Path) -> None:
    """What a superuser applied first is the applier's once the superuser applies it with that role."""
    site.run("CREATE ROLE deploy LOGIN")
    config = tmp_path / "reconciler.yaml"
    config.write_text(CONFIG.replace(", role: deploy", ""))
    run("apply --yes")
    run("roles create --grant applier=deploy --bypass-rls --yes")
    run.declared.write_text(JOBS.replace("0 0 29 2", "0 0 28 2"))
    assert "only a superuser" in run("apply --yes", "deploy", code=1)
    config.write_text(CONFIG)
    run.declared.write_text(JOBS)
    run("apply --yes")
    assert len(site.rows(ENTRIES)) == len(site.rows("SELECT FROM cron.job"))
    run.declared.write_text(JOBS.replace("0 0 29 2", "0 0 28 2"))
    run("apply --yes", "deploy")
    assert {schedule for name, schedule, _ in site.rows(ENTRIES) if name == "tidy"} == {"0 0 28 2 *"}


def test_each_role_does_its_part_and_no_more(life: Roled, site: Site) -> None:
    """Readers look at all, planners plan and compare, and whatever changes something is refused to both."""
    for command in (*LOOKS, *PLANS):
        assert "lacks a right" not in life(command, "reader"), command
    for command in PLANS:
        life(command, "planner")
    for command in ("status", "queues", "jobs list", "alerts list"):
        life(command, "planner", code=1)
    life.declared.write_text(JOBS.replace("02:30", "02:40"))
    site.run("UPDATE cron.job SET active = true WHERE jobname = 'off'")
    everything = site.everything()
    for user in ("reader", "planner", "worker"):
        for command in CHANGES:
            assert "Traceback" not in life(command, user, code=1)
    for user in ("reader", "planner"):
        assert "permission denied" in life("enqueue mail.send", user, code=1)
    assert site.everything() == everything


def test_only_who_bypasses_row_level_security_sees_entries_of_others(life: Roled, site: Site) -> None:
    """A plan by a login without it says that entries are hidden, and `roles show` says of whom."""
    assert "hidden_entries" not in life("plan", "planner")
    site.run("ALTER ROLE planner NOBYPASSRLS")
    assert "hidden_entries" in life("plan", "planner")
    assert "planner, who sees no entries of others" in life("roles show", "planner")
    life("roles create --grant planner=planner --bypass-rls --yes")
    assert "hidden_entries" not in life("plan", "planner")


@pytest.mark.one_server
def test_a_worker_works_and_sees_nothing_else(life: Roled, site: Site) -> None:
    """It claims, does and puts jobs; definitions, entries and secrets are closed to it."""
    life("enqueue mail.send", "worker")
    life("worker --app shop_jobs --drain", "worker")
    assert site.rows("SELECT status, result FROM reconciler.jobs WHERE NOT once") == [("completed", "sent")]
    for command in ("plan", "status", "doctor", "runs", "history"):
        life(command, "worker", code=1)
    conn = site.database.connect("worker")
    for relation in ("reconciler.definitions", "reconciler.jobs", "reconciler.secrets", "cron.job"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"SELECT FROM {relation}".encode())


@pytest.mark.one_server
def test_a_service_answers_whoever_brings_a_token(life: Roled, site: Site) -> None:
    """Its login finds tokens by a function alone, answers what the owner could, and puts and does jobs."""
    token = Served(site).token("read")
    answers = _ask_for_everything(site, token)
    assert 200 in answers.values()
    assert _ask_for_everything(Site(site.database, "service"), token) == answers
    life("enqueue mail.send", "service")
    life("worker --app shop_jobs --drain", "service")
    for relation in HIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            site.database.connect("service").execute(f"SELECT FROM reconciler.{relation}".encode())
    life("run tidy", "service", code=1)


def _ask_for_everything(site: Site, token: str) -> dict[str, int]:
    """Serve as one role, get whatever needs no more than a path, and return how each was answered."""
    served = Served(site)
    paths = [
        path
        for path, methods in served.app.openapi()["paths"].items()
        if "get" in methods and not any(one.get("required") for one in methods["get"].get("parameters", ()))
    ]
    with served.client:
        headers = {"Authorization": f"Bearer {token}"}
        return {path: served.request("GET", path, headers=headers).status_code for path in paths}


@pytest.mark.one_server
def test_a_service_makes_jobs_as_the_login_that_applies(life: Roled, site: Site) -> None:
    """In both roles one login triggers jobs of files and makes others; a service of its own does neither."""
    life("roles create --grant service=deploy --yes")
    new = {"name": "made", "schedule": "0 0 29 2 *", "handler": "mail.send"}
    tokens = [Served(site).token("trigger"), Served(site).token("write")]
    answers = {}
    for user in ("service", "deploy"):
        served = Served(Site(site.database, user))
        bearers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        with served.client:
            triggered = served.request("POST", "/api/v1/cron/jobs/tidy/trigger", headers=bearers[0])
            made = served.request("POST", "/api/v1/cron/jobs", headers=bearers[1], json=new)
        answers[user] = (triggered.status_code, made.status_code)
    assert min(answers["service"]) >= 400
    assert answers["deploy"] == (202, 201)
    assert ("made", "0 0 29 2 *", True) in site.rows(ENTRIES)


def test_control_of_jobs_is_a_membership_that_may_give_nothing_else(life: Roled, site: Site) -> None:
    """Who is in a job's role starts and pauses it; from PostgreSQL 16 on without being able to become it."""
    site.run("CREATE TABLE public.orders (); ALTER TABLE public.orders OWNER TO deploy")
    if site.database.server.major >= 16:
        site.run("GRANT deploy TO service WITH INHERIT FALSE, SET FALSE")
        for attempt in ("SET ROLE deploy", "TABLE public.orders"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                site.database.connect("service").execute(attempt.encode())
    else:
        site.run("GRANT deploy TO service")
    for command in ("run tidy", "pause tidy", "resume tidy"):
        life(command, "service")


@pytest.mark.one_server
@pytest.mark.usefixtures("life")
def test_every_table_is_either_read_or_hidden(site: Site) -> None:
    """Who adds a table decides whether readers see it: only these are kept from them, column by column."""
    readable = {
        kind: {name for (name,) in site.rows(
            "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'reconciler'::regnamespace"
            " AND c.relkind IN ('r', 'p', 'v', 'm') AND has_any_column_privilege(%s, c.oid, 'SELECT')", kind)}
        for kind in KINDS
    }  # fmt: skip
    tables = {name for (name,) in site.rows(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'reconciler'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm')")}  # fmt: skip
    assert readable["reader"] == readable["service"] == tables - HIDDEN
    assert readable["planner"] < readable["reader"]
    assert readable["applier"] & HIDDEN == {"secrets"}
    assert readable["worker"] == {"queue_health", "held_orders"}
    site.run("ALTER ROLE applier NOBYPASSRLS")
    assert site.database.connect("applier").execute("SELECT FROM reconciler.secrets").fetchall() == []
