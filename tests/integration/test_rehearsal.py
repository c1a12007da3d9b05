"""Dry runs on a real database: what they show, whose rights they have, and that nothing is left of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.database.connect import connect
from reconciler.database.rehearsal import Rehearsed, rehearse
from reconciler.errors import RightsError
from reconciler.loader.sql_texts import split_statements
from tests.declared import Site

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

MINUTE = timedelta(minutes=1)


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a table of five rows, of which two are old, seen by its superuser."""
    site = Site(database)
    site.run("CREATE TABLE public.things (id int PRIMARY KEY, old boolean)")
    site.run("INSERT INTO public.things SELECT n, n > 3 FROM generate_series(1, 5) n")
    return site


def dry(site: Site, body: str, *, role: str = "", timeout: timedelta = MINUTE) -> list[Rehearsed]:
    """Rehearse a body, and check that the table is as it was."""
    before = site.rows("SELECT * FROM public.things ORDER BY id")
    with connect(site.dsn) as conn:
        done = list(rehearse(conn, split_statements(body), role=role, timeout=timeout))
        assert conn.info.transaction_status.name == "IDLE"
    assert site.rows("SELECT * FROM public.things ORDER BY id") == before
    return done


@pytest.mark.parametrize(
    ("body", "command", "rows"),
    [
        ("SELECT * FROM things", "SELECT", 5),
        ("(SELECT 1) UNION ALL SELECT 2", "SELECT", 2),
        ("VALUES (1), (2), (3)", "SELECT", 3),
        ("TABLE things", "SELECT", 5),
        ("DELETE FROM things WHERE old", "DELETE", 2),
        ("UPDATE things SET old = NOT old RETURNING id", "UPDATE", 5),
        ("INSERT INTO things SELECT 10 + n, true FROM generate_series(1, 7) n", "INSERT", 7),
        ("INSERT INTO things VALUES (5, true), (6, true) ON CONFLICT DO NOTHING", "INSERT", 1),
        (
            "INSERT INTO things VALUES (5, true), (6, true) ON CONFLICT (id) DO UPDATE SET old = false",
            "INSERT",
            2,
        ),
        (
            "WITH x AS (DELETE FROM things WHERE old RETURNING id) INSERT INTO things SELECT id + 9 FROM x",
            "INSERT",
            2,
        ),
        ("WITH gone AS (DELETE FROM things RETURNING id) SELECT count(*) FROM gone", "SELECT", 1),
        ("SELECT 1 AS n INTO other", "SELECT", 1),
    ],
)
def test_a_query_is_shown_with_its_plan(site: Site, body: str, command: str, rows: int) -> None:
    """Rows, command and the executed plan of each kind of query."""
    (done,) = dry(site, body)
    assert (done.command, done.rows, done.error) == (command, rows, "")
    assert any("actual time=" in line for line in done.plan)
    assert any(line.startswith("Execution Time:") for line in done.plan)


def test_a_merge_is_counted_by_what_it_did(site: Site) -> None:
    """Of a MERGE only the rows count that it changed."""
    if site.database.server.major < 15:
        pytest.skip("no MERGE before PostgreSQL 15")
    (done,) = dry(
        site,
        "MERGE INTO things t USING (VALUES (1), (5), (9)) AS s (id) ON t.id = s.id"
        " WHEN MATCHED AND t.old THEN DELETE WHEN MATCHED THEN DO NOTHING"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.id, false)",
    )
    assert (done.command, done.rows) == ("MERGE", 2)


def test_statements_see_each_other(site: Site) -> None:
    """Several statements run one after the other; commands have no plan; nothing of them is left."""
    done = dry(
        site,
        "CREATE TEMP TABLE gone AS SELECT * FROM things WHERE old;\n"
        "-- what; was copied\nDELETE FROM things t USING gone g WHERE g.id = t.id;\n"
        "DO $$ BEGIN PERFORM 1; PERFORM 2; END $$; SELECT count(*) FROM things; DROP TABLE things",
    )
    assert [(one.command, one.rows, bool(one.plan)) for one in done] == [
        ("CREATE TABLE", None, False),
        ("DELETE", 2, True),
        ("DO", None, False),
        ("SELECT", 1, True),
        ("DROP TABLE", None, False),
    ]
    assert all(one.error == "" and one.seconds >= 0 for one in done)


def test_a_failure_ends_it(site: Site) -> None:
    """The statement that fails is the last, with the server's words."""
    done = dry(site, "DELETE FROM things; INSERT INTO things VALUES (1), (1); SELECT 1")
    assert [one.command for one in done] == ["DELETE", "INSERT"]
    assert "duplicate key" in done[1].error
    assert "Key (id)=(1)" in done[1].error


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "/* ; */ COMMIT AND CHAIN",
        "END",
        "ROLLBACK",
        "BEGIN",
        "START TRANSACTION",
        "SAVEPOINT a",
        "PREPARE TRANSACTION 'x'",
        "VACUUM things",
        "CALL committing()",
        "DO $$ BEGIN DELETE FROM things; COMMIT; END $$",
    ],
)
def test_nothing_is_ever_committed(site: Site, statement: str) -> None:
    """Whatever would end the transaction is refused by the server, as in a real run."""
    site.run("CREATE PROCEDURE public.committing() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$")
    done = dry(site, f"DELETE FROM things; {statement}; DELETE FROM things")
    assert len(done) == 2
    assert done[1].error


def test_two_statements_that_were_not_split_do_not_run(site: Site) -> None:
    """If splitting failed, the server refuses the text: it cannot end the transaction from inside."""
    with connect(site.dsn) as conn:
        done = list(rehearse(conn, ["SELECT 1; COMMIT"], role="", timeout=MINUTE))
        assert "multiple commands" in done[0].error
        done = list(rehearse(conn, ["ANALYZE things; COMMIT"], role="", timeout=MINUTE))
        assert done[0].error


def test_time_is_limited_for_all_together(site: Site) -> None:
    """What the first statement takes is no longer there for the second."""
    done = dry(site, "SELECT pg_sleep(0.3); SELECT pg_sleep(5)", timeout=timedelta(seconds=1))
    assert done[0].error == ""
    assert "statement timeout" in done[1].error
    assert done[1].seconds < 0.95


def test_locks_are_not_waited_for_long(site: Site) -> None:
    """A table that somebody else holds ends the dry run instead of a queue behind it."""
    with site.database.connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE public.things")
        with connect(site.dsn) as conn:
            (done,) = rehearse(conn, ["DELETE FROM things"], role="", timeout=MINUTE)
    assert "lock timeout" in done.error
    assert 4.5 < done.seconds < 10


def test_deferred_constraints_are_checked(site: Site) -> None:
    """A constraint that is checked at the commit fails here too."""
    site.run(
        "ALTER TABLE public.things ADD parent int REFERENCES public.things DEFERRABLE INITIALLY DEFERRED"
    )
    done = dry(site, "UPDATE things SET parent = 99 WHERE id = 1")
    assert [one.command for one in done] == ["UPDATE", "deferred constraints"]
    assert "violates foreign key" in done[1].error


def test_it_has_the_rights_of_the_jobs_role(site: Site) -> None:
    """A superuser's dry run of another role's job fails where that job would, with its search_path."""
    site.run("CREATE ROLE alice LOGIN")
    site.run("ALTER ROLE alice SET search_path = hers, public")
    site.run("CREATE SCHEMA hers CREATE TABLE hers.things (id int)")
    site.run("GRANT USAGE ON SCHEMA hers TO alice; GRANT SELECT ON hers.things TO alice")
    done = dry(site, "SELECT current_user, * FROM things; DELETE FROM things", role="alice")
    assert (done[0].rows, done[0].error) == (0, "")
    assert "permission denied" in done[1].error


def test_a_role_that_may_not_be_taken_is_refused(site: Site) -> None:
    """Without membership nothing runs: with other rights it would be another run."""
    site.run("CREATE ROLE alice LOGIN")
    site.run("CREATE ROLE eve LOGIN")
    with (
        connect(site.database.dsn_for("eve")) as conn,
        pytest.raises(RightsError, match="runs as the role alice"),
    ):
        list(rehearse(conn, ["SELECT 1"], role="alice", timeout=MINUTE))
    with connect(site.dsn) as conn, pytest.raises(RightsError, match="runs as the role nobody"):
        list(rehearse(conn, ["SELECT 1"], role="nobody", timeout=MINUTE))
