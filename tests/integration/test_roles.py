"""Roles that let a login do one part of the work: each does all of its part, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString, Protocol

import psycopg
import pytest

from reconciler.cli.main import main
from reconciler.database.roles import KINDS
from tests.declared import Site
from tests.served import Served

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
owner: shop
targets:
  test: {dsn: "${env:DSN}", prune: auto, role: deploy}
secrets:
  hook: {env: HOOK}
"""
JOBS = """\
jobs:
  tidy: {schedule: "0 0 29 2 *", sql: "DELETE FROM pg_temp.old", alert: {on: [drift]}}
  off: {schedule: "0 0 29 2 *", sql: "ANALYZE", active: false, mode: direct}
  welcome: {once: 2099-01-01T00:00:00Z, handler: mail.send}
  mail: {schedule: "0 0 29 2 *", handler: mail.send, queue: letters}
  local: {daily: "02:30", timezone: Europe/Oslo, handler: mail.send}
queues:
  letters: {}
channels:
  ops: {url: {secret: hook}, deliver: database}
"""
HANDLERS = """\
from reconciler.runtime.handlers import Handlers

handlers = Handlers()

@handlers.handler("mail.send")
async def send():
    return "sent"
"""
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


class Run(Protocol):
    """Runs a command in this process, as a login."""

    def __call__(self, command: str, user: str | None = None, code: int | None = 0) -> str:
        """Return what it printed; `code` is what it has to end with, None for anything but 0."""
        ...


@pytest.fixture
def run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Write a project, and run commands in it; without a user as superuser."""
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "reconciler.yaml").write_text(CONFIG)
    (tmp_path / "jobs.d" / "shop.yaml").write_text(JOBS)
    (tmp_path / "shop_jobs.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOOK", "https://chat.test/hook")

    def run(command: str, user: str | None = None, code: int | None = 0) -> str:
        monkeypatch.setenv("DSN", site.database.dsn if user is None else site.database.dsn_for(user))
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        said = "".join(capsys.readouterr())
        is_right = ended.value.code != 0 if code is None else ended.value.code == code
        assert is_right, f"{user}: {command}: {ended.value.code}\n{said}"
        return said

    return run


@pytest.fixture
def life(site: Site, run: Run) -> Run:
    """Set the target up as the docs say: an administrator migrates and makes roles, a login applies."""
    for login in ("deploy", *KINDS):
        site.run(f"CREATE ROLE {login} LOGIN".encode())  # type: ignore[arg-type] # of our own names
    grants = " ".join(f"--grant {kind}={kind}" for kind in KINDS)
    run("migrate")
    run(f"roles create --grant applier=deploy {grants} --bypass-rls --yes")
    run("apply --yes", "deploy")
    return run


def test_an_applier_leads_the_whole_life_of_jobs(life: Run, site: Site, tmp_path: Path) -> None:
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
    declared = tmp_path / "jobs.d" / "shop.yaml"
    declared.write_text(
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
def test_a_superuser_hands_entries_over(site: Site, run: Run, tmp_path: Path) -> None:
    """What a superuser applied first is the applier's once the superuser applies it with that role."""
    site.run("CREATE ROLE deploy LOGIN")
    config = tmp_path / "reconciler.yaml"
    config.write_text(CONFIG.replace(", role: deploy", ""))
    run("apply --yes")
    run("roles create --grant applier=deploy --bypass-rls --yes")
    declared = tmp_path / "jobs.d" / "shop.yaml"
    declared.write_text(JOBS.replace("0 0 29 2", "0 0 28 2"))
    assert "only a superuser" in run("apply --yes", "deploy", code=1)
    config.write_text(CONFIG)
    declared.write_text(JOBS)
    run("apply --yes")
    assert len(site.rows(ENTRIES)) == len(site.rows("SELECT FROM cron.job"))
    declared.write_text(JOBS.replace("0 0 29 2", "0 0 28 2"))
    run("apply --yes", "deploy")
    assert {schedule for name, schedule, _ in site.rows(ENTRIES) if name == "tidy"} == {"0 0 28 2 *"}


def test_each_role_does_its_part_and_no_more(life: Run, site: Site, tmp_path: Path) -> None:
    """Readers look at all, planners plan and compare, and whatever changes something is refused to both."""
    for command in (*LOOKS, *PLANS):
        assert "lacks a right" not in life(command, "reader"), command
    for command in PLANS:
        life(command, "planner")
    for command in ("status", "queues", "jobs list", "alerts list"):
        life(command, "planner", code=1)
    (tmp_path / "jobs.d" / "shop.yaml").write_text(JOBS.replace("02:30", "02:40"))
    site.run("UPDATE cron.job SET active = true WHERE jobname = 'off'")
    everything = site.everything()
    for user in ("reader", "planner", "worker"):
        for command in CHANGES:
            assert "Traceback" not in life(command, user, code=1)
    for user in ("reader", "planner"):
        assert "permission denied" in life("enqueue mail.send", user, code=1)
    assert site.everything() == everything


def test_only_who_bypasses_row_level_security_sees_entries_of_others(life: Run, site: Site) -> None:
    """A plan by a login without it says that entries are hidden, and `roles show` says of whom."""
    assert "hidden_entries" not in life("plan", "planner")
    site.run("ALTER ROLE planner NOBYPASSRLS")
    assert "hidden_entries" in life("plan", "planner")
    assert "planner, who sees no entries of others" in life("roles show", "planner")
    life("roles create --grant planner=planner --bypass-rls --yes")
    assert "hidden_entries" not in life("plan", "planner")


@pytest.mark.one_server
def test_a_worker_works_and_sees_nothing_else(life: Run, site: Site) -> None:
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
def test_a_service_answers_whoever_brings_a_token(life: Run, site: Site) -> None:
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


def test_control_of_jobs_is_a_membership_that_may_give_nothing_else(life: Run, site: Site) -> None:
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


@pytest.mark.one_server
def test_what_the_functions_for_grants_give_the_roles_have(life: Run, site: Site) -> None:
    """allow_work, allow_enqueue and allow_service, which other roles are let in by, add nothing to these."""
    for kind in ("worker", "service"):
        for name in ("allow_work", "allow_enqueue", *(("allow_service",) if kind == "service" else ())):
            site.run(f"SELECT reconciler.{name}('reconciler_{kind}')".encode())  # type: ignore[arg-type] # ours
    assert "nothing" not in life("roles show").lower()
    assert life("roles create") == "Nothing to do: the roles are as they are to be.\n"


@pytest.mark.one_server
def test_creating_again_mends(life: Run, site: Site) -> None:
    """What a release added is granted, what was lost comes back, what is too much goes."""
    life("roles show")
    site.run(
        "CREATE TABLE reconciler.seen (); CREATE TABLE reconciler.kept_secret ();"
        "ALTER TABLE reconciler.kept_secret ENABLE ROW LEVEL SECURITY;"
        "REVOKE SELECT ON reconciler.alerts FROM reconciler_reader;"
        "REVOKE pg_read_all_settings FROM reconciler_planner;"
        "GRANT SELECT ON reconciler.secrets, reconciler.run_key TO reconciler_reader"
    )
    told = life("roles show", code=1)
    assert "lacks     SELECT on reconciler.alerts, reconciler.seen" in told
    assert "too much  SELECT on reconciler.run_key, reconciler.secrets" in told
    before = json.loads(life("roles show --json", code=1))
    assert before[1]["missing"] == [
        {"on": "ROLE", "privileges": "MEMBER", "objects": ["pg_read_all_settings"]}
    ]
    assert life("roles create --sql").splitlines() == [
        "GRANT SELECT ON TABLE reconciler.alerts, reconciler.seen TO reconciler_reader;",
        "REVOKE SELECT ON TABLE reconciler.run_key, reconciler.secrets FROM reconciler_reader;",
        "GRANT pg_read_all_settings TO reconciler_planner;",
        "GRANT SELECT ON TABLE reconciler.seen TO reconciler_service;",
    ]
    life("roles show", code=1)
    assert "Executed: 4 statements." in life("roles create --yes")
    life("roles show")
    assert site.rows("SELECT has_table_privilege('reader', 'reconciler.kept_secret', 'SELECT')") == [(False,)]


def test_an_owner_makes_what_they_may_and_is_told_the_rest(run: Run, site: Site) -> None:
    """Who may make roles and owns the schema does a part; grants on pg_cron are an administrator's."""
    site.run(
        "CREATE ROLE owner LOGIN CREATEROLE; GRANT USAGE ON SCHEMA cron TO owner;"
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO owner', current_database()); END $$"
    )
    assert "reconciler migrate" in run("roles create --yes", "owner", code=1)
    run("migrate", "owner")
    told = run("roles create --yes", "owner", code=1)
    left = told.partition("As an administrator:")[2]
    assert "GRANT USAGE ON SCHEMA cron TO reconciler_reader;" in left
    assert "GRANT EXECUTE ON ROUTINE cron.alter_job, cron.schedule_in_database TO reconciler_applier;" in left
    assert " reconciler." not in left
    with site.database.server.connect() as conn:
        for line in left.strip().splitlines():
            conn.execute(line.partition("  -- ")[0].encode())
    run("roles show", "owner")
    run("roles drop --yes", "owner", code=1)
    run("roles drop --yes")


@pytest.mark.one_server
def test_who_may_make_no_roles_is_told_and_changes_nothing(life: Run, site: Site) -> None:
    """The error says what to do, and nothing of it was done."""
    told = life("roles create --prefix other_ --yes", "reader", code=1)
    assert "the role reader may make no roles" in told
    assert "roles create --sql" in told
    assert site.rows("SELECT count(*) FROM pg_roles WHERE rolname ~ '^other_'") == [(0,)]


@pytest.mark.one_server
def test_names_are_quoted(run: Run, site: Site) -> None:
    """A login may have any name that the server takes, and stays one name."""
    site.run('CREATE ROLE "o\'brien;""x" LOGIN')
    run("migrate")
    run("roles create --prefix app1_ --grant reader=o'brien;\"x --bypass-rls --yes")
    rows = site.rows(
        "SELECT m.rolname::text, m.rolbypassrls FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member"
        " WHERE a.roleid = 'app1_reader'::regrole"
    )
    assert rows == [("o'brien;\"x", True)]
    assert "app1_applier" in run("roles show --prefix app1_")


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("roles create --grant reader=nobody", 1, "there is no role nobody"),
        ("roles create --grant owner=nobody", 2, "reader|planner|applier|worker|service=LOGIN"),
        ("roles create --grant reader=\udcff", 2, "reader|planner|applier|worker|service=LOGIN"),
        ("roles create --grant reader", 2, "reader|planner|applier|worker|service=LOGIN"),
        ("roles create --bypass-rls", 2, "--grant"),
        ("roles create --prefix pg_", 1, "is no prefix"),
        ("roles show --prefix x;", 1, "is no prefix"),
        ("roles drop --prefix " + "x" * 51, 1, "is no prefix"),
        ("roles create", 2, "no terminal"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(run: Run, command: str, code: int, told: str) -> None:
    """A wrong name, kind or prefix is told; without a terminal and --yes nothing is executed."""
    run("migrate")
    assert told in run(command, code=code)


@pytest.mark.one_server
def test_roles_are_dropped_with_all_that_they_had(life: Run, site: Site) -> None:
    """Logins stay; what a role owns is not dropped with it, and rights in other databases keep a role."""
    site.run("CREATE DATABASE elsewhere; ")
    with site.database.connect(database="elsewhere") as other:
        other.execute("CREATE TABLE things (); GRANT SELECT ON things TO reconciler_reader")
    site.run("GRANT CREATE ON SCHEMA public TO reconciler_worker; CREATE TABLE public.owned ()")
    site.run("ALTER TABLE public.owned OWNER TO reconciler_worker")
    assert "reconciler_worker owns 1 objects" in life("roles drop --yes", code=4)
    site.run("ALTER TABLE public.owned OWNER TO postgres")
    assert "DROP ROLE reconciler_worker" in life("roles drop --sql")
    assert "Stay, with their rights in other databases: reconciler_reader." in life("roles drop --yes")
    assert site.rows("SELECT rolname::text FROM pg_roles WHERE rolname ~ '^reconciler_'") == [
        ("reconciler_reader",)
    ]
    assert site.rows("SELECT has_schema_privilege('reconciler_reader', 'cron', 'USAGE')") == [(False,)]
    site.run("DROP DATABASE elsewhere")
    life("roles drop --yes")
    assert "Nothing to do" in life("roles drop")
    assert site.rows("SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", list(KINDS)) == [(5,)]
