"""Queries of cron.job, calls and transactions on their rarer ways: what is known, and what in doubt."""

from __future__ import annotations

import pytest

from reconciler.core.imports.scripts import import_scripts
from reconciler.core.imports.sql_calls import find_call
from reconciler.core.imports.sql_tokens import read_tokens
from reconciler.loader.sql_texts import find_sql_fault

A = "SELECT cron.schedule('a', '0 3 * * *', 'SELECT 1');"
B = "SELECT cron.schedule('b', '0 4 * * *', 'SELECT 2');"
DROP_A = "PERFORM cron.unschedule('a');"
DROP_B = "PERFORM cron.unschedule('b');"
ODD = "current_setting('app.env') = 'production'"
MAYBE_A = f"DO $$BEGIN IF {ODD} THEN PERFORM cron.schedule('a', '0 3 * * *', 'x'); END IF; END$$;"


def outcome(script: str) -> tuple[str, str]:
    """Import a script that can be read, and name the jobs, and those whose presence depends on something."""
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    assert imported.left == ()
    doubtful = [one.message.split()[4] for one in imported.remarks if one.message.startswith("conditional: ")]
    assert len(doubtful) == len(imported.remarks), imported.remarks
    return " ".join(imported.jobs), " ".join(sorted(doubtful))


def reasons(script: str) -> list[str]:
    """Import a script, and say why something was left."""
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    return [left.reason for left in imported.left]


def do(body: str) -> str:
    """Write a DO statement."""
    return f"DO $do$ {body} $do$;"


# ------------------------------------------------------------------ rows and conditions


@pytest.mark.parametrize(
    "condition",
    [
        "active IS TRUE",
        "jobname LIKE 'a\\_%'",
        "jobname LIKE current_setting('app.pattern')",
        "jobname = ANY ('{a}')",
        "jobname = ANY (ARRAY(SELECT 'a'))",
        "jobname IN (SELECT name FROM jobs)",
        "nodename = 'localhost'",
        "EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'postgis')",
        "EXISTS (SELECT 1 FROM pg_extension WHERE extname <> 'pg_cron')",
        "EXISTS (VALUES (1))",
        "jobname = (SELECT name FROM jobs)",
        "(SELECT jobid FROM cron.job) = 1",
    ],
)
def test_a_row_that_only_the_database_can_choose_is_in_doubt(condition: str) -> None:
    """The job is declared, with the condition that may have removed it."""
    script = f"{A}{B}SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a' AND {condition};"
    assert outcome(script) == ("a b", "a")


@pytest.mark.parametrize(
    "condition",
    [
        "jobname = 'a' AND EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_cron')",
        "jobname::text = 'a'",
        "jobname::text LIKE 'a' AND (((active)))",
        "jobname IN ('a', 'c') AND jobname = ANY (ARRAY['a'])",
    ],
)
def test_casts_and_parentheses_do_not_hide_a_column(condition: str) -> None:
    """The rows are chosen by its value all the same."""
    assert outcome(f"{A}{B}SELECT cron.unschedule(jobid) FROM cron.job WHERE {condition};") == ("b", "")


@pytest.mark.parametrize("condition", ["jobname = 'a'", "jobname LIKE 'a'", "jobname IN ('a')"])
def test_an_entry_without_a_name_is_found_by_none(condition: str) -> None:
    """Its name is NULL, which equals nothing and matches nothing."""
    script = "SELECT cron.schedule('* * * * *', 'x');" + B
    check = f"BEGIN IF EXISTS (SELECT FROM cron.job WHERE {condition}) THEN NULL; ELSE {DROP_B} END IF; END"
    assert ["no name" in reason for reason in reasons(script + do(check))] == [True]
    drop = "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname IS NULL;"
    assert outcome(script + do(check) + drop) == ("", "")


def test_the_columns_of_a_worker_are_not_guessed() -> None:
    """What create_queue_worker writes into cron.job is its own affair, but for the name."""
    make = "SELECT create_queue_worker('w', 'https://a.test', null, '* * * * *');"
    where = "SELECT cron.unschedule(jobid) FROM cron.job WHERE"
    imported = import_scripts([("1.sql", f"{make}{where} command = 'x';")], find_fault=find_sql_fault)
    assert list(imported.workers) == ["w"]
    assert "whether there is w" in imported.remarks[0].message
    imported = import_scripts([("1.sql", f"{make}{where} jobname = 'w';")], find_fault=find_sql_fault)
    assert imported.workers == {}


def test_found_is_not_known_after_a_query_for_a_job_that_is_perhaps_there() -> None:
    """What depends on it is conditional too."""
    query = "BEGIN PERFORM 1 FROM cron.job WHERE jobname = 'a'; IF FOUND THEN " + DROP_B + " END IF; END"
    assert outcome(B + do(query)) == ("b", "")
    assert outcome(A + B + do(query)) == ("a", "")
    assert outcome(MAYBE_A + B + do(query)) == ("a b", "a b")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("r.jobid IS NULL", "b"),
        ("r IS NULL", "b"),
        ("r.jobid IS NOT NULL", "a b"),
    ],
)
def test_a_record_of_no_row_is_null(test: str, expected: str) -> None:
    """So are its columns."""
    body = (
        "DECLARE r record; BEGIN SELECT * INTO r FROM cron.job WHERE jobname = 'zz'; "
        f"IF {test} THEN {DROP_A} END IF; END"
    )
    assert outcome(A + B + do(body)) == (expected, "")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("r.jobid IS NOT NULL", ("", "")),
        ("r.schedule IS NULL", ("b", "b")),
        ("other.jobid IS NOT NULL", ("b", "b")),
    ],
)
def test_a_record_outlives_its_job(test: str, expected: tuple[str, str]) -> None:
    """Its number stays what it was; of its other columns and of other records nothing is guessed."""
    body = (
        "DECLARE r record; other int := 1; BEGIN SELECT * INTO r FROM cron.job WHERE jobname = 'a'; "
        f"PERFORM cron.unschedule(r.jobid); IF {test} THEN {DROP_B} END IF; END"
    )
    assert outcome(A + B + do(body)) == expected


def test_one_of_several_rows_is_not_guessed() -> None:
    """A variable takes the first row, and which that is nobody can tell."""
    body = "DECLARE v bigint; BEGIN SELECT jobid INTO v FROM cron.job; PERFORM cron.unschedule(v); END"
    assert reasons(A + B + do(body)) == ["which job it is about cannot be told from the text"]
    assert outcome(A + do(body)) == ("", "")


# ------------------------------------------------------------------ calls in queries


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("SELECT * FROM cron.unschedule('a') WHERE now() > '2020-01-01'", "calls in FROM"),
        ("SELECT cron.unschedule('b') FROM cron.unschedule('a')", "calls in FROM"),
        ("SELECT cron.unschedule(jobid) FROM cron.job LIMIT 1", "which rows LIMIT leaves"),
        ("SELECT cron.unschedule(jobid) FROM cron.job LIMIT 1 OFFSET 1", "a query with OFFSET"),
        ("SELECT 1 UNION SELECT cron.unschedule('a') LIMIT 1", "a query with UNION"),
        ("SELECT true FROM cron.job UNION SELECT cron.unschedule('a') FROM cron.job", "a query with UNION"),
        (
            "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a' FOR UPDATE FOR SHARE",
            "a query with FOR",
        ),
        (
            (
                "SELECT cron.schedule_in_database(job_name => 'c', schedule => '* * * * *', command => 'x', "
                "username => 'bob')"
            ),
            "schedule_in_database takes no such arguments",
        ),
        ("SELECT cron.schedule(7::text, '* * * * *', 'x')", "its name is an expression"),
        (
            "SELECT cron.schedule(job_name => , schedule => '* * * * *', command => 'x')",
            "its name is missing",
        ),
        (
            "SELECT cron.schedule_in_database('c', '* * * * *', 'x', 'd', null, true::text)",
            "active is an expression",
        ),
    ],
)
def test_calls_that_cannot_be_followed_are_left_and_change_nothing(call: str, reason: str) -> None:
    """Nothing is guessed, and nothing is passed over in silence."""
    imported = import_scripts([("1.sql", f"{A}{B}{call};")], find_fault=find_sql_fault)
    assert list(imported.jobs) == ["a", "b"]
    assert [reason in left.reason for left in imported.left] == [True], imported.left


def test_one_row_is_not_made_fewer_by_limit() -> None:
    """So a call for it is followed."""
    assert outcome(f"{A}{B}SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a' LIMIT 1;") == (
        "b",
        "",
    )


def test_the_result_of_a_call_may_get_names_for_its_columns() -> None:
    """The call is followed all the same."""
    assert outcome(f"{A}{B}SELECT * FROM cron.unschedule('a') AS t (gone);") == ("b", "")


@pytest.mark.parametrize(("flag", "expected"), [("false::boolean", {"active": False}), ("true::bool", {})])
def test_a_truth_value_may_be_cast_to_what_it_is(flag: str, expected: dict[str, bool]) -> None:
    """The job is declared with it."""
    script = f"SELECT cron.schedule_in_database('a', '* * * * *', 'x', current_database(), null, {flag});"
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    assert imported.jobs == {"a": {"schedule": "* * * * *", "sql": "x", "mode": "direct", **expected}}


def test_a_name_behind_a_dot_begins_no_call() -> None:
    """It belongs to what stands before the dot."""
    tokens = read_tokens("other.cron.unschedule('a')")
    assert find_call(tokens, 2) is None
    assert find_call(tokens[2:], 0) is not None


@pytest.mark.parametrize(
    "rest",
    [
        "SELECT 1 FROM cron.job WHERE (SELECT 1",
        "SELECT 1 FROM cron.job WHERE EXISTS (SELECT 1",
        "SELECT 1 FROM cron.job WHERE (jobname = 'a'",
    ],
)
def test_a_script_that_ends_inside_of_parentheses_is_read_up_to_there(rest: str) -> None:
    """What came before counts."""
    assert outcome(A + rest) == ("a", "")


# ------------------------------------------------------------------ scripts


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$SELECT 1$$;" + A, "a"),
        ("SET statement_timeout = 0;" + A, "a"),
        (A + "ROLLBACK;", "a"),
        (A + "BEGIN; " + B + "ROLLBACK PREPARED 'x'; COMMIT;", "a b"),
        ("SAVEPOINT s;" + A + "ROLLBACK TO s;", "a"),
        ("BEGIN;" + A + "ROLLBACK TO SAVEPOINT elsewhere; COMMIT;", "a"),
    ],
)
def test_statements_that_change_no_job_are_passed_over(script: str, expected: str) -> None:
    """Settings, functions without calls, and ends of transactions that were never begun."""
    assert outcome(script) == (expected, "")


def test_the_search_path_outlasts_other_settings() -> None:
    """A name without a schema may still be that of pg_cron's function."""
    call = "SET statement_timeout = 0; SELECT schedule('a', '* * * * *', 'x');"
    assert reasons(call) == []
    assert "write cron.schedule" in reasons("SET search_path TO cron;" + call)[0]


def test_a_do_statement_in_a_transaction_ends_with_it() -> None:
    """It is no transaction of its own there."""
    script = A + "BEGIN;" + do("BEGIN " + DROP_A + " END")
    assert outcome(script + "COMMIT;") == ("", "")
    assert outcome(script + "ROLLBACK;") == ("a", "")
