"""`reconciler roles`: what it makes, mends, shows and takes away, and what it says to who may not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from reconciler.database.roles import KINDS
from tests.roled import Roled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.declared import Site


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


@pytest.mark.one_server
def test_what_the_functions_for_grants_give_the_roles_have(life: Roled, site: Site) -> None:
    """allow_work, allow_enqueue and allow_service, which other roles are let in by, add nothing to these."""
    for kind in ("worker", "service"):
        for name in ("allow_work", "allow_enqueue", *(("allow_service",) if kind == "service" else ())):
            site.run(f"SELECT reconciler.{name}('reconciler_{kind}')".encode())  # type: ignore[arg-type] # ours
    assert "nothing" not in life("roles show").lower()
    assert life("roles create") == "Nothing to do: the roles are as they are to be.\n"


@pytest.mark.one_server
def test_creating_again_mends(life: Roled, site: Site) -> None:
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


def test_an_owner_makes_what_they_may_and_is_told_the_rest(run: Roled, site: Site) -> None:
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
def test_who_may_make_no_roles_is_told_and_changes_nothing(life: Roled, site: Site) -> None:
    """The error says what to do, and nothing of it was done."""
    told = life("roles create --prefix other_ --yes", "reader", code=1)
    assert "the role reader may make no roles" in told
    assert "roles create --sql" in told
    assert site.rows("SELECT count(*) FROM pg_roles WHERE rolname ~ '^other_'") == [(0,)]


@pytest.mark.one_server
def test_names_are_quoted(run: Roled, site: Site) -> None:
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
def test_what_is_asked_for_wrongly_is_told(run: Roled, command: str, code: int, told: str) -> None:
    """A wrong name, kind or prefix is told; without a terminal and --yes nothing is executed."""
    run("migrate")
    assert told in run(command, code=code)


@pytest.mark.one_server
def test_roles_are_dropped_with_all_that_they_had(life: Roled, site: Site) -> None:
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
