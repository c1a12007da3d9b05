"""Importing: real entries become declarations that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.imports.entries import Imported, import_entries
from reconciler.database.connect import connect
from reconciler.database.observe import observe
from tests.declared import Site, job

if TYPE_CHECKING:
    from reconciler.core.specs import Spec
    from tests.servers import Database

ENTRIES: LiteralString = "SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with two more roles and one more database, seen by its superuser."""
    site = Site(database)
    site.run("CREATE DATABASE elsewhere")
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    return site


def read_import(site: Site, role: str = "") -> Imported:
    """Import whatever there is."""
    with connect(site.dsn) as conn:
        return import_entries(observe(conn).state, role=role)


def declare(imported: Imported) -> list[Spec]:
    """Read declarations as the loader does."""
    return [job(name, **declared) for name, declared in imported.jobs.items()]


def add(
    site: Site,
    name: str | None,
    *,
    command: str = "SELECT 1",
    user: str = "postgres",
    database: str = "",
    schedule: str = "0 0 29 2 *",
    active: bool = True,
) -> None:
    """Make an entry by hand."""
    site.run(
        "INSERT INTO cron.job (jobname, schedule, command, database, username, active, nodeport)"
        " VALUES (%s, %s, %s, coalesce(nullif(%s, ''), current_database()), %s, %s,"
        " current_setting('port')::int)",
        name,
        schedule,
        command,
        database,
        user,
        active,
    )


def check_that_nothing_changes(site: Site, role: str = "") -> Imported:
    """Import, plan, apply: only adoptions, and not a row of cron.job is written."""
    before = site.rows(ENTRIES)
    imported = read_import(site, role)
    specs = declare(imported)
    planned = site.plan(*specs, role=role, prune="auto")
    assert planned.problems == ()
    assert planned.plan.is_empty
    assert {change.action for change in planned.plan.changes} <= {"adopt"}
    assert len(planned.plan.changes) == len(imported.jobs)
    site.apply(*specs, role=role, prune="auto")
    assert site.rows(ENTRIES) == before
    assert site.changes(*specs, role=role, prune="auto") == []
    assert read_import(site, role).jobs == {}
    return imported


def test_import_then_plan_is_empty(site: Site) -> None:
    """Other roles, other databases, inactive ones: all come back as they are."""
    add(site, "plain")
    add(site, "of-alice", user="alice")
    add(site, "elsewhere", database="elsewhere")
    add(site, "off", active=False)
    add(site, "text", command="SELECT 'it''s 100%% \\ {}'\n-- end ")
    imported = check_that_nothing_changes(site)
    assert list(imported.jobs) == ["elsewhere", "of-alice", "off", "plain", "text"]
    assert imported.left == ()


def test_what_cannot_be_declared_is_left_with_its_reason(site: Site) -> None:
    """Unnamed, oddly named, doubly named and never firing entries are left alone, each with its reason."""
    add(site, None)
    add(site, "")
    add(site, "Odd Name")
    add(site, "twice", user="alice")
    add(site, "twice", user="bob")
    add(site, "wrong", schedule="61 * * * *")
    imported = check_that_nothing_changes(site)
    assert list(imported.jobs) == ["twice"]
    assert len(imported.left) == 5
    assert all(left.reason for left in imported.left)


def test_what_is_declared_already_is_not_imported(site: Site) -> None:
    """Entries with a definition, of whichever owner, are not imported again."""
    site.apply(job("a"))
    site.apply(job("b"), owner="kitchen")
    add(site, "c")
    assert list(read_import(site).jobs) == ["c"]


def test_the_targets_role_is_not_repeated(site: Site) -> None:
    """Entries of the role of the target name none; those of others do."""
    add(site, "a", user="alice")
    add(site, "b", user="postgres")
    imported = check_that_nothing_changes(site, role="alice")
    assert "role" not in imported.jobs["a"]
    assert imported.jobs["b"]["role"] == "postgres"


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    entries=st.lists(
        st.tuples(
            st.one_of(
                st.none(),
                st.sampled_from(["a", "b", "c.d", "e-f", "G", "", " x", "ä"]),
                st.text("abz09._-", min_size=1, max_size=5),
            ),
            st.sampled_from(
                ["0 0 29 2 *", " 0  0 29 Feb *", "@monthly", "0 0 1 1 1-5", "* * * * * *", "5 4 31 1 *"]
            ),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
            st.sampled_from(["postgres", "alice", "bob"]),
            st.sampled_from(["", "elsewhere"]),
            st.booleans(),
        ),
        max_size=8,
        unique_by=lambda entry: (entry[0] or str(id(entry)), entry[3]),
    ),
    role=st.sampled_from(["", "alice"]),
)
def test_whatever_there_is_can_be_imported(
    site: Site, entries: list[tuple[str | None, str, str, str, str, bool]], role: str
) -> None:
    """Import, then plan, is empty for any entries; nothing is touched, and each is imported or left."""
    site.run("DROP SCHEMA IF EXISTS reconciler CASCADE")
    site.run("DELETE FROM cron.job")
    for name, schedule, command, user, database, active in entries:
        add(site, name, command=command, user=user, database=database, schedule=schedule, active=active)
    imported = check_that_nothing_changes(site, role)
    assert len(imported.jobs) + len(imported.left) == len(entries)
