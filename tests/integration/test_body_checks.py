"""SQL bodies checked by a real server: what it says, as whom, and that nothing is executed."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from reconciler.cli.body_checking import check_plan, check_specs
from reconciler.core.body_checks import Remark, Statement, place_statements
from reconciler.database.apply import plan_target
from reconciler.database.body_checks import PATIENCE, check_bodies
from reconciler.database.connect import connect
from reconciler.loader.sql_texts import split_statements, strip_sql
from tests.declared import Site, job, request

if TYPE_CHECKING:
    from reconciler.core.specs import Spec
    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a table of five rows and a role that may read it, seen by its superuser."""
    site = Site(database)
    site.run("CREATE TABLE public.things (id int PRIMARY KEY, old boolean NOT NULL)")
    site.run("INSERT INTO public.things SELECT n, n > 3 FROM generate_series(1, 5) n")
    site.run("CREATE TABLE public.others (id int, thing int)")
    site.run("CREATE ROLE alice LOGIN")
    site.run("GRANT SELECT ON public.things TO alice")
    return site


def place(name: str, body: str) -> tuple[Statement, ...]:
    """Split a body as the command line does."""
    return place_statements(name, body, [(one, strip_sql(one)) for one in split_statements(body)])


def check(
    site: Site, *bodies: str, role: str = "", is_complete: bool = True, patience: timedelta = PATIENCE
) -> list[Remark]:
    """Check bodies of jobs named 0, 1, …, and that the connection is good for more."""
    statements = [one for number, body in enumerate(bodies) for one in place(str(number), body)]
    with connect(site.dsn) as conn:
        remarks = list(check_bodies(conn, {role: statements}, is_complete=is_complete, patience=patience))
        assert conn.info.transaction_status.name == "IDLE"
        assert conn.execute("SELECT current_user").fetchone() == (conn.info.user,)
    return remarks


def say(site: Site, body: str, *, role: str = "") -> tuple[str, str]:
    """Check one body of which one thing is to be said."""
    (remark,) = check(site, body, role=role)
    return remark.severity, remark.message


SHORT = timedelta(seconds=0.2)
GOOD = (
    "DELETE FROM things WHERE old",
    "DELETE FROM things WHERE id = 3",
    "delete from things where true",
    "DELETE FROM things USING others WHERE others.thing = things.id",
    "DELETE FROM things WHERE id IN (SELECT thing FROM others LIMIT 10)",
    "DELETE FROM things WHERE EXISTS (SELECT FROM others)",
    "DELETE FROM things WHERE ctid = ANY (ARRAY(SELECT ctid FROM things LIMIT 5))",
    "UPDATE things SET old = true FROM others WHERE others.thing = things.id",
    "INSERT INTO others SELECT id FROM things",
    "INSERT INTO things VALUES (1, true) ON CONFLICT (id) DO UPDATE SET old = true",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_catalog.pg_notify('a', id::text) FROM things",
    "SELECT count(pg_advisory_xact_lock(id)) FROM things",
    "WITH gone AS (DELETE FROM things WHERE old RETURNING 1) SELECT count(*) FROM gone",
    "-- a comment; and more\n/* SELECT */ DELETE FROM things WHERE old",
    "SELECT notify_all FROM notifying",
)
WRONG = (
    ("DELETE FROM thinks WHERE old", 'relation "thinks" does not exist', "thinks"),
    ("SELECT 1;\n  UPDATE things SET odl = true", 'column "odl" of relation "things"', "odl"),
    ("SELECT 'é'; SELECT nothing()", "function nothing() does not exist (No function", "nothing"),
    ("DELETE FROM no.things", 'relation "no.things" does not exist', "no.things"),
    ("DELETE FORM things", 'syntax error at or near "FORM"', "FORM"),
    (
        "DELETE FROM things WHERE things.oldd",
        '(Perhaps you meant to reference the column "things.old"',
        "things.oldd",
    ),
    ("CREATE TABEL a ()", 'syntax error at or near "TABEL"', "TABEL"),
    ("CALL nothing(1)", "procedure nothing(integer) does not exist", "nothing"),
    ("SELECT * FROM things WHERE id = 'abc'", 'integer: "abc"', "'abc'"),
    ("SELECT 1/0 FROM things", "division by zero", "SELECT 1/0"),
    ("DELETE FROM things WHERE id = $1", "there is no parameter $1", "$1"),
)
DOUBTFUL = (
    ("DELETE FROM things", "DELETE of things has no condition"),
    ("UPDATE things SET old = 'where true' <> 'a'", "UPDATE of things has no condition"),
    ("DELETE FROM things USING others", "DELETE of things has no condition"),
    ("UPDATE things SET old = EXISTS (SELECT FROM others WHERE thing = id)", "UPDATE of things has no"),
    ("WITH a AS (DELETE FROM things RETURNING id) INSERT INTO others SELECT id FROM a", "DELETE of things"),
    ("WITH a AS (SELECT 1 WHERE random() < 2) DELETE FROM things", "DELETE of things has no condition"),
    ("DELETE FROM things WHERE false", "DELETE of things never touches a row"),
    ("UPDATE things SET old = true WHERE 1 = 2 AND id = 5", "UPDATE of things never touches a row"),
    ("INSERT INTO things SELECT * FROM things WHERE false", "INSERT of things never touches a row"),
    ("SELECT 1", "it does nothing: nobody reads"),
    ("SELECT count(*), now() FROM things", "it does nothing: nobody reads"),
    ("VALUES (1)", "it does nothing: nobody reads"),
    ("SELECT pg_notify('a', 'b') WHERE false", "it does nothing: the condition"),
)
UNKNOWN = (
    ("DO $$ BEGIN DELETE FROM nothing; END $$", "anything but the grammar of DO"),
    ("TRUNCATE things", "anything but the grammar of TRUNCATE"),
    ("REFRESH MATERIALIZED VIEW nothing", "anything but the grammar of REFRESH MATERIALIZED"),
    ("CALL clean()", "what the procedure does of CALL"),
)


def test_a_good_body_is_silent(site: Site) -> None:
    """Nothing is said of what is right, also where only a view calls the function."""
    site.run("CREATE VIEW public.notifying AS SELECT pg_notify('a', 'b') IS NULL AS notify_all")
    assert check(site, *GOOD) == []


def test_what_cannot_run_is_an_error_at_its_place(site: Site) -> None:
    """Missing tables, columns and routines, and what is no SQL, in the server's words and where it is."""
    remarks = [one for one in check(site, *(body for body, *_ in WRONG)) if one.severity == "error"]
    for number, (remark, (body, message, at)) in enumerate(zip(remarks, WRONG, strict=True)):
        assert remark.name == str(number)
        assert message in remark.message
        assert remark.offset == body.index(at)


def test_what_is_hardly_meant_is_a_warning(site: Site) -> None:
    """Changes of all rows or of none, and reading that nobody sees, are told by the server's plan."""
    remarks = check(site, *(body for body, _ in DOUBTFUL))
    for number, (remark, (_, message)) in enumerate(zip(remarks, DOUBTFUL, strict=True)):
        assert (remark.name, remark.severity) == (str(number), "warning")
        assert message in remark.message


def test_what_nobody_can_tell_is_said(site: Site) -> None:
    """What a server tells nothing about without executing it is named, not passed over."""
    site.run("CREATE PROCEDURE public.clean() LANGUAGE sql AS 'DELETE FROM things'")
    remarks = check(site, *(body for body, _ in UNKNOWN))
    assert [(one.severity, one.message) for one in remarks] == [("unchecked", what) for _, what in UNKNOWN]


def test_what_a_statement_makes_is_there_for_the_next(site: Site) -> None:
    """A table that an earlier statement may make is no error."""
    body = "CREATE TEMP TABLE gone AS SELECT 1; DELETE FROM gone WHERE old; SELECT 1 INTO kept; TABLE kept"
    remarks = check(site, body)
    assert {one.severity for one in remarks} <= {"unchecked", "warning"}
    assert 'relation "gone" does not exist, unless a statement before it makes it' in [
        one.message for one in remarks
    ]


def test_our_own_schema_comes_with_the_first_apply(site: Site) -> None:
    """Before a migration ran, what is missing of it is no error; afterwards it is."""
    body = "SELECT reconciler.enqueue('a')"
    assert [one.severity for one in check(site, body, is_complete=False)] == ["unchecked"]
    assert [one.severity for one in check(site, body, is_complete=True)] == ["error"]


DENIED = (
    (
        "DELETE FROM things WHERE old",
        "permission denied for table things; GRANT SELECT, DELETE ON public.things TO alice",
    ),
    (
        "INSERT INTO public.others SELECT id FROM things",
        "permission denied for table others; GRANT INSERT ON public.others TO alice",
    ),
    (
        "INSERT INTO others SELECT thing FROM others",
        "permission denied for table others; GRANT INSERT ON public.others TO alice",
    ),
    (
        'SELECT * FROM public."Odd""name"',
        'permission denied for table Odd"name; GRANT SELECT ON public."Odd""name" TO alice',
    ),
    (
        "SELECT * FROM hidden.things",
        "permission denied for schema hidden; GRANT USAGE ON SCHEMA hidden TO alice",
    ),
    (
        "SELECT public.secret(1)",
        "permission denied for function secret; GRANT EXECUTE ON FUNCTION public.secret TO alice",
    ),
    (
        "CALL closed()",
        "permission denied for procedure closed; GRANT EXECUTE ON PROCEDURE closed TO alice",
    ),
    (
        "SELECT * FROM kept",
        "permission denied for materialized view kept; GRANT SELECT ON public.kept TO alice",
    ),
)


def test_a_missing_right_comes_with_its_grant(site: Site) -> None:
    """The rights are those of the job's role, though a superuser connects, and the GRANT is written out."""
    site.run('CREATE TABLE public."Odd""name" ()')
    site.run("CREATE SCHEMA hidden CREATE TABLE things (id int)")
    site.run("CREATE FUNCTION public.secret(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'")
    site.run("REVOKE EXECUTE ON FUNCTION public.secret FROM PUBLIC")
    site.run("CREATE PROCEDURE public.closed() LANGUAGE sql AS 'SELECT 1'")
    site.run("REVOKE EXECUTE ON PROCEDURE public.closed FROM PUBLIC")
    site.run("CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS n")
    remarks = check(site, *(body for body, _ in DENIED), role="alice")
    assert [(one.severity, one.message) for one in remarks] == [("error", message) for _, message in DENIED]


def test_a_grant_that_is_told_is_enough(site: Site) -> None:
    """Whoever does what the error says has no error any more."""
    body = "DELETE FROM things WHERE old"
    grant = say(site, body, role="alice")[1].partition("; ")[2]
    with site.database.connect() as conn:
        conn.execute(grant.encode())
    assert check(site, body, role="alice") == []


def test_the_search_path_is_the_roles_own(site: Site) -> None:
    """Names mean what they mean in a run of that role."""
    site.run("CREATE SCHEMA hers CREATE TABLE hers (id int)")
    site.run("GRANT USAGE ON SCHEMA hers TO alice; GRANT SELECT, DELETE ON hers.hers TO alice")
    assert say(site, "DELETE FROM hers WHERE id = 1", role="alice")[0] == "error"
    site.run("ALTER ROLE alice SET search_path = hers")
    assert check(site, "DELETE FROM hers WHERE id = 1", role="alice") == []


def test_a_role_that_may_not_be_taken_is_not_checked(site: Site) -> None:
    """Without membership nothing is asked with other rights; each job is named once."""
    site.run("CREATE ROLE eve LOGIN")
    statements = [*place("a", "SELECT 1; DELETE FROM nothing"), *place("b", "SELECT 1")]
    with connect(site.database.dsn_for("eve")) as conn:
        remarks = check_bodies(conn, {"alice": statements, "": place("c", "TABLE nothing")}, is_complete=True)
    assert [(one.name, one.severity) for one in remarks] == [
        ("c", "error"),
        ("a", "unchecked"),
        ("b", "unchecked"),
    ]
    assert "may not act as the role alice" in remarks[1].message
    with connect(site.dsn) as conn:
        (remark,) = check_bodies(conn, {"nobody": place("b", "SELECT 1")}, is_complete=True)
    assert remark.severity == "unchecked"
    assert 'role "nobody" does not exist' in remark.message


def test_nothing_is_executed(site: Site) -> None:
    """Functions that write, numbers of sequences, changes and commits: all is as it was."""
    site.run("CREATE SEQUENCE public.numbers")
    site.run(
        "CREATE FUNCTION public.wipe() RETURNS int LANGUAGE plpgsql VOLATILE AS"
        " $$ BEGIN DELETE FROM things; PERFORM nextval('numbers'); RETURN 1; END $$"
    )
    site.run(
        "CREATE PROCEDURE public.wipe_all() LANGUAGE plpgsql AS $$ BEGIN DELETE FROM things; COMMIT; END $$"
    )
    before = site.rows("SELECT *, xmin::text FROM public.things ORDER BY id")
    remarks = check(
        site,
        "SELECT wipe(), nextval('numbers')",
        "DELETE FROM things WHERE wipe() = 1 AND id = nextval('numbers')",
        "INSERT INTO things VALUES (wipe() + 8, true)",
        "CALL wipe_all()",
        "DO $$ BEGIN PERFORM wipe(); COMMIT; END $$",
        "COMMIT; DELETE FROM things WHERE old; COMMIT",
        "CREATE TABLE made (); SELECT 1 INTO made_too; TRUNCATE things",
        "SELECT set_config('role', 'postgres', false), set_config('search_path', 'x', false)",
    )
    assert {one.severity for one in remarks} == {"unchecked"}
    assert site.rows("SELECT *, xmin::text FROM public.things ORDER BY id") == before
    assert site.rows("SELECT last_value, is_called FROM public.numbers") == [(1, False)]
    assert site.rows("SELECT to_regclass('made'), to_regclass('made_too')") == [(None, None)]


def test_a_function_that_lies_cannot_write(site: Site) -> None:
    """The planner calls what is said to be immutable; the transaction takes no writes, and that is told."""
    site.run("CREATE SEQUENCE public.numbers")
    site.run(
        "CREATE FUNCTION public.count_up() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('numbers') $$"
    )
    site.run(
        "CREATE FUNCTION public.liar() RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN RETURN count_up(); END $$"
    )
    severity, message = say(site, "DELETE FROM things WHERE id = liar()")
    assert (severity, "writes as soon as it is planned" in message) == ("unchecked", True)
    assert site.rows("SELECT is_called FROM public.numbers") == [(False,)]


def test_two_statements_that_were_not_split_are_refused(site: Site) -> None:
    """If splitting failed, the server refuses the text: nothing ends the transaction from inside."""
    for text in ("SELECT 1; COMMIT; DELETE FROM things", "TRUNCATE things; COMMIT"):
        one = Statement(name="a", text=text, plain=text, offset=0, follows_unknown=False)
        with connect(site.dsn) as conn:
            (remark,) = check_bodies(conn, {"": [one]}, is_complete=True)
        assert "multiple commands" in remark.message
    assert site.rows("SELECT count(*) FROM public.things") == [(5,)]


def test_values_of_others_are_not_shown(site: Site) -> None:
    """What the planner found in the database does not come out by way of an error."""
    site.run("CREATE FUNCTION public.peek() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'hunter2'::text $$")
    severity, message = say(site, "SELECT * FROM things WHERE id = peek()::int")
    assert severity == "error"
    assert "hunter2" not in message
    assert "22P02" in message


def test_locks_are_not_waited_for_long(site: Site) -> None:
    """A table that somebody holds is not checked, and no queue forms behind the check."""
    with site.database.connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE public.things")
        began = time.monotonic()
        remarks = check(site, "DELETE FROM things WHERE old", "DELETE FROM others WHERE id = 1")
    assert [(one.name, one.severity) for one in remarks] == [("0", "unchecked")]
    assert "locked" in remarks[0].message
    assert time.monotonic() - began < 2


def test_locks_are_let_go_of(site: Site) -> None:
    """While many bodies are checked, those that were are locked no more."""
    site.run(
        "CREATE FUNCTION public.doze() RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN IF EXISTS (SELECT FROM pg_locks WHERE pid ="
        " pg_backend_pid() AND relation = 'others'::regclass) THEN RAISE 'held'; END IF; RETURN 1; END $$"
    )
    assert check(site, "DELETE FROM others WHERE id = 1", "DELETE FROM things WHERE id = doze()") == []


def test_planning_is_limited(site: Site) -> None:
    """What takes too long to plan is not checked; the rest is."""
    site.run(
        "CREATE FUNCTION public.doze() RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 FROM pg_sleep(20) $$"
    )
    began = time.monotonic()
    remarks = check(site, "SELECT * FROM things WHERE id = doze()", "TABLE nothing", patience=SHORT)
    assert [(one.name, one.severity) for one in remarks] == [("0", "unchecked"), ("1", "error")]
    assert "takes longer" in remarks[0].message
    assert 0.2 < time.monotonic() - began < 1.5


def test_many_bodies_are_asked_in_batches(site: Site) -> None:
    """A thousand bodies, each third of them broken, are checked with few round trips."""
    statements = [
        one
        for number in range(1000)
        for one in place(
            f"job{number}",
            f"DELETE FROM {'thinks' if number % 3 == 0 else 'things'} WHERE id = {number} AND old",
        )
    ]
    with connect(site.dsn) as conn:
        began = time.monotonic()
        remarks = check_bodies(conn, {"": statements}, is_complete=True)
        seconds = time.monotonic() - began
    assert [one.name for one in remarks] == [f"job{number}" for number in range(0, 1000, 3)]
    assert seconds < 5


def test_a_lost_connection_is_told(site: Site) -> None:
    """Where the server goes away in the middle, the error says so and nothing hangs."""
    site.run(
        "CREATE FUNCTION public.die() RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN 1; END $$"
    )
    with psycopg.connect(site.dsn, autocommit=True) as conn, pytest.raises(psycopg.OperationalError):
        check_bodies(conn, {"": place("a", "SELECT * FROM things WHERE id = die()")}, is_complete=True)


UNBOUNDED = "DELETE of others has no condition: each run does it to all rows; WHERE true says so"
CONFIG = """\
owner: shop
targets:
  prod: {{dsn: "{dsn}", role: alice}}
"""
JOBS = """\
jobs:
  tidy:
    schedule: "0 3 29 2 *"
    sql: |
      -- Old things go.
      DELETE FROM things
      WHERE odl
  whole: {schedule: "0 3 29 2 *", sql: "DELETE FROM others"}
  vacuum: {schedule: "0 3 29 2 *", mode: direct, sql: "VACUUM nothing"}
  done: {schedule: "0 3 29 2 *", sql: "DO $$ BEGIN NULL; END $$"}
"""


@pytest.fixture
def project(cli: Cli, site: Site) -> Cli:
    """A folder with a configuration and spec files for the database."""
    site.run("GRANT SELECT, DELETE ON public.things, public.others TO alice")
    (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=site.dsn))
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d/shop.yaml").write_text(JOBS)
    return cli


def test_plan_shows_what_the_check_found(project: Cli) -> None:
    """What is new is checked as its role; errors come with file, line and column and refuse nothing."""
    result = project("plan", "--format", "json")
    assert result.exit_code == 0
    notices = [one for one in json.loads(result.stdout)["notices"] if one["code"].startswith("body_")]
    assert [(one["code"], one["names"], one["message"]) for one in notices] == [
        ("body_error", ["tidy"], 'jobs.d/shop.yaml:7:13: column "odl" does not exist'),
        (
            "body_warning",
            ["whole"],
            f"jobs.d/shop.yaml:8:41: {UNBOUNDED}",
        ),
        ("body_unchecked", ["done"], "not checked: anything but the grammar of DO"),
    ]
    assert "body_" not in project("plan", "--no-check").stdout
    text = project("plan", "--exit-code")
    assert text.exit_code == 3
    assert 'Note [body_error]: jobs.d/shop.yaml:7:13: column "odl" does not exist\n  tidy\n' in text.stdout


def noted(site: Site, *specs: Spec) -> list[str]:
    """Plan, and return which jobs the check had something to say of."""
    asked = request(*specs)
    with connect(site.dsn) as conn:
        planned = check_plan(conn, plan_target(conn, asked), specs, asked.target)
    return [name for one in planned.plan.notices if one.code.startswith("body_") for name in one.names]


def test_plan_checks_only_what_is_edited(site: Site) -> None:
    """What was applied is checked again when its SQL or its role changes, and not with its schedule."""
    tidy, whole = job("tidy", "DELETE FROM thinks WHERE old"), job("whole", "DELETE FROM others")
    assert noted(site, tidy, whole) == ["tidy", "whole"]
    site.apply(tidy, whole)
    assert noted(site, tidy, whole) == []
    assert noted(site, tidy, job("whole", "DELETE FROM others", schedule="0 4 29 2 *")) == []
    assert noted(site, tidy, job("whole", "UPDATE others SET id = 1")) == ["whole"]
    assert noted(site, job("tidy", "DELETE FROM thinks WHERE old", role="alice"), whole) == ["tidy"]
    assert noted(site, job("tidy", "VACUUM nothing", mode="direct"), whole) == []


def test_jobs_are_checked_as_whom_they_run(site: Site) -> None:
    """A job's own role counts, then the target's, then the one that connects."""
    site.run("CREATE ROLE eve LOGIN")
    specs = [job("alices", "DELETE FROM others WHERE id = 1"), job("eves", "TABLE things", role="eve")]
    with connect(site.dsn) as conn:
        found = check_specs(conn, specs, request(role="alice").target).found
        assert [one.message.partition("; ")[2] for one, _ in found] == [
            "GRANT SELECT, DELETE ON public.others TO alice",
            "GRANT SELECT ON public.things TO eve",
        ]
        assert check_specs(conn, specs[:1], request().target).found == ()


def test_jobs_of_other_databases_are_not_checked(site: Site) -> None:
    """Names of another database mean nothing here."""
    with connect(site.dsn) as conn:
        checked = check_specs(conn, [job("far", "TABLE nothing", database="other")], request().target)
    ((remark, _),) = checked.found
    assert (remark.severity, "in the database other" in remark.message) == ("unchecked", True)


def test_validate_asks_the_server_only_where_it_is_told_to(project: Cli, site: Site) -> None:
    """All bodies are checked; errors end it with 1 and their lines, and all else is said beside."""
    offline = project("validate")
    assert (offline.exit_code, "DELETE of others has no condition" in offline.stderr) == (0, True)
    for options in (("--all-targets", "--connect"), ("--dsn", site.dsn)):
        result = project("validate", *options)
        assert result.exit_code == 1, options
        assert 'jobs.d/shop.yaml:7:13: tidy: column "odl" does not exist\n' in result.stderr
        assert "          WHERE odl\n                ^\n" in result.stderr
        assert "shop.yaml:8:41: warning: whole: DELETE of others has no condition" in result.stderr
        assert "not checked: anything but the grammar of DO: done" in result.stderr
    (project.directory / "jobs.d/shop.yaml").write_text(JOBS.replace("odl", "old"))
    result = project("validate", "--connect")
    assert (result.exit_code, result.stdout) == (0, "prod: 4 jobs: valid.\n")


def test_validate_annotates_what_the_server_refuses(project: Cli) -> None:
    """An error of the server is an annotation at its line."""
    result = project("validate", "--connect", "--format", "github")
    assert result.exit_code == 1
    assert "::error file=jobs.d/shop.yaml,line=7,col=13,title=reconciler::tidy: column" in result.stdout


def test_validate_does_not_take_one_server_for_all_targets(project: Cli, site: Site) -> None:
    """--dsn with --all-targets would check each target's jobs on one server."""
    result = project("validate", "--all-targets", "--dsn", site.dsn)
    assert result.exit_code == 2
