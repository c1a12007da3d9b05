"""What SQL migrations leave in cron.job: idioms that people use, and what cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.imports.scripts import import_scripts
from reconciler.loader.sql_texts import find_sql_fault
from tests.canary import CANARY

if TYPE_CHECKING:
    from reconciler.core.imports.results import ImportedFiles

A = "SELECT cron.schedule('a', '0 3 * * *', 'SELECT 1');"
B = "SELECT cron.schedule('b', '0 4 * * *', 'SELECT 2');"
A_FOUND = "EXISTS (SELECT 1 FROM cron.job WHERE jobname = 'a')"


def read(*scripts: str) -> ImportedFiles:
    """Import scripts, which are called 1.sql, 2.sql and so on."""
    named = [(f"{number}.sql", text) for number, text in enumerate(scripts, start=1)]
    return import_scripts(named, find_fault=find_sql_fault)


def names(*scripts: str) -> str:
    """Import scripts of which all can be read, and name the jobs."""
    imported = read(*scripts)
    assert imported.left == ()
    return " ".join(imported.jobs)


def lefts(*scripts: str) -> list[str]:
    """Import scripts, and say what was left."""
    return [f"{left.source}: {left.source.text}: {left.reason}" for left in read(*scripts).left]


def remarks(*scripts: str) -> list[str]:
    """Import scripts, and say what was remarked."""
    return [f"{remark.source}: {remark.message}" for remark in read(*scripts).remarks]


def do(body: str) -> str:
    """Write a DO statement."""
    return f"DO $do$ BEGIN {body} END $do$;"


# ------------------------------------------------------------------ what is declared


def test_a_job_is_declared_as_it_is() -> None:
    """The command stays to the letter, so the mode is direct; what is as usual is left out."""
    assert read("SELECT cron.schedule('a', '0  3 * * *', $$ VACUUM; $$);").jobs == {
        "a": {"schedule": "0  3 * * *", "sql": " VACUUM; ", "mode": "direct"}
    }


def test_everything_of_schedule_in_database_is_declared() -> None:
    """Database, role and activity; those of whoever ran the file are left out."""
    imported = read(
        "SELECT cron.schedule_in_database('a', '0 3 * * *', 'x', 'other', 'bob', false);"
        "SELECT cron.schedule_in_database('b', '0 3 * * *', 'x', current_database(), current_user, true);"
        "SELECT cron.schedule_in_database('c', '0 3 * * *', 'x', database => 'other', username => null);"
    )
    plain = {"schedule": "0 3 * * *", "sql": "x", "mode": "direct"}
    assert imported.jobs == {
        "a": {**plain, "role": "bob", "database": "other", "active": False},
        "b": plain,
        "c": {**plain, "database": "other"},
    }


def test_commands_are_kept_from_variables() -> None:
    """What looks like a variable of ours is escaped."""
    assert read("SELECT cron.schedule('a', '0 3 * * *', 'SELECT ''${var:x}''');").jobs["a"]["sql"] == (
        "SELECT '$${var:x}'"
    )


def test_jobs_are_sorted_by_name_and_left_passages_by_place() -> None:
    """The same files give the same result."""
    imported = read(B + "SELECT cron.unschedule(7);", A + "\nSELECT cron.unschedule(8);")
    assert list(imported.jobs) == ["a", "b"]
    assert [str(left.source) for left in imported.left] == ["1.sql:1", "2.sql:2"]


def test_a_worker_is_declared_without_its_token() -> None:
    """The token becomes a reference; nothing that is printed or written holds it."""
    imported = read(
        f"SELECT create_queue_worker('w-1', 'https://a.test/run?queue=x', '{CANARY}', '* * * * *');\n"
        f"SELECT create_queue_worker('w' || '2', 'https://a.test', '{CANARY}', '* * * * *');\n"
        f"SELECT create_queue_worker('w3', 'https://a.test', '{CANARY}', '61 * * * *');\n"
        f"SELECT create_queue_worker('{CANARY}');\n"
        f"DO $$BEGIN PERFORM x(create_queue_worker('w4', 'https://a.test', '{CANARY}', '* "
        "* * * *')); END$$;\n"
        "SELECT create_queue_worker('w5', 'https://a.test/${x}', null, '* * * * *');\n"
        "SELECT app.create_queue_worker('w6', 'https://a.test', current_setting('app.token'), '* * * * *');\n"
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$SELECT "
        f"create_queue_worker('a', 'b', '{CANARY}', 'c')$$;"
    )
    assert imported.workers == {
        "w-1": {
            "schedule": "* * * * *",
            "url": "https://a.test/run?queue=x",
            "token": {"secret": "worker.w-1"},
        },
        "w5": {"schedule": "* * * * *", "url": "https://a.test/$${x}"},
        "w6": {"schedule": "* * * * *", "url": "https://a.test", "token": {"secret": "worker.w6"}},
    }
    assert imported.secrets == {"worker.w-1": "W_1_TOKEN", "worker.w6": "W6_TOKEN"}
    assert [left.source.line for left in imported.left] == [2, 3, 4, 5, 8]
    assert CANARY not in repr(imported)
    assert any("worker.w-1" in remark.message for remark in imported.remarks)


def test_a_token_inside_of_a_command_is_warned_of() -> None:
    """The command is imported to the letter; the warning says where and does not repeat the token."""
    post = "SELECT net.http_post(url := 'https://a', headers := {})"
    build = post.format("jsonb_build_object({})")
    commands = {
        "literal": post.format(f"""'{{"Authorization": "Bearer {CANARY}"}}'"""),
        "joined": build.format(f"'Authorization', 'Bearer ' || '{CANARY}'"),
        "signed": build.format("'apikey', 'eyJhbGciOiJIUzI1NiJ9.e30.x'"),
        "named": build.format(f"'x-cron-secret', '{CANARY}'"),
        "asked": f"SELECT net.http_get('https://a/?secret={CANARY}')",
        "vault": build.format(
            "'Authorization', 'Bearer ' || (SELECT decrypted_secret FROM vault.decrypted_secrets LIMIT 1)"
        ),
        "setting": build.format("'x-cron-secret', current_setting('app.cron_secret')"),
    }
    script = "".join(
        f"SELECT cron.schedule('{name}', '0 3 * * *', $cmd${command}$cmd$);\n"
        for name, command in commands.items()
    )
    imported = read(script)
    assert {name: job["sql"] for name, job in imported.jobs.items()} == commands
    assert [remark.source.line for remark in imported.remarks] == [1, 2, 3, 4, 5]
    assert CANARY not in repr(imported.remarks)


# ------------------------------------------------------------------ histories in plain SQL


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (A, "a"),
        (A + B, "a b"),
        (A + "SELECT cron.unschedule('a');", ""),
        (A + "SELECT * FROM cron.unschedule('a');", ""),
        (A + "SELECT cron.unschedule('a') AS gone, 1;", ""),
        (A + "SELECT cron.unschedule('a')::text;", ""),
        (A + "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a';", ""),
        (A + "SELECT cron.unschedule(j.jobid) FROM cron.job AS j WHERE j.jobname = 'a';", ""),
        (A + "SELECT cron.unschedule(jobname) FROM cron.job WHERE jobname = 'a';", ""),
        (A + B + "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname IN ('a', 'c');", "b"),
        (A + B + "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = ANY (ARRAY['a']);", "b"),
        (A + B + "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname LIKE 'a%';", "b"),
        (A + B + "SELECT cron.unschedule(jobid) FROM cron.job WHERE command ILIKE 'select 1';", "b"),
        (
            A
            + B
            + "SELECT cron.unschedule(jobid) FROM cron.job WHERE NOT (jobname <> 'a' OR active IS NULL);",
            "b",
        ),
        (A + B + "SELECT cron.unschedule(jobid) FROM cron.job;", ""),
        (A + "SELECT cron.unschedule((SELECT jobid FROM cron.job WHERE jobname = 'a'));", ""),
        (A + "SELECT cron.unschedule((SELECT jobid FROM cron.job WHERE jobname = 'c'));", "a"),
        (A + f"SELECT cron.unschedule('a') WHERE {A_FOUND};", ""),
        (B + f"SELECT cron.unschedule('a') WHERE {A_FOUND};", "b"),
        (A + f"SELECT cron.schedule('b', '0 3 * * *', 'x') WHERE NOT {A_FOUND};", "a"),
        (A + "BEGIN; SELECT cron.unschedule('a'); COMMIT;", ""),
        (A + "BEGIN; SELECT cron.unschedule('a'); ROLLBACK;", "a"),
        (f"START TRANSACTION; {A} SAVEPOINT s; {B} ROLLBACK TO SAVEPOINT s; END;", "a"),
        (f"BEGIN; {A} SAVEPOINT s; {B} RELEASE s; ROLLBACK WORK;", ""),
        (f"BEGIN; SAVEPOINT s; {A} ROLLBACK TO s; {B} ROLLBACK TO s; {A} COMMIT;", "a"),
        (f"BEGIN; {A}", ""),
        (A + "DROP EXTENSION pg_cron CASCADE; CREATE EXTENSION pg_cron;" + B, "b"),
        (f"EXPLAIN {A}", ""),
        (f"-- {A}\n/* {A} */ {B}", "b"),
        (f"SELECT '{A.replace(chr(39), chr(39) * 2)}'; {B}", "b"),
        (f"COPY t FROM stdin;\n{A}\n\\.\n{B}", "b"),
        (f"\\echo {A}\n{B}", "b"),
        (f"{A}\n-- migrate:down\nSELECT cron.unschedule('a');", "a"),
        (f"{A}\n-- +goose Down\nSELECT cron.unschedule('a');", "a"),
        ("SELECT cron.schedule('a', '0 3 * * *', 'x') \\gset\n" + B, "a b"),
        ("SELECT jobid, jobname FROM cron.job; GRANT SELECT ON cron.job TO x; TABLE cron.job;" + A, "a"),
        ("CREATE VIEW v AS SELECT * FROM cron.job; INSERT INTO t SELECT * FROM cron.job;" + A, "a"),
        ("COPY cron.job TO '/tmp/x'; COMMENT ON TABLE cron.job IS 'x';" + A, "a"),
    ],
)
def test_plain_sql_is_replayed(script: str, expected: str) -> None:
    """What is left in the end counts, and nothing that was taken back or never executed."""
    assert names(script) == expected


def test_scheduling_again_replaces_schedule_and_command_and_keeps_the_rest() -> None:
    """`active` stays as it was, and the database follows the last call, as from pg_cron 1.6.3 on."""
    imported = read(
        "SELECT cron.schedule_in_database('a', '0 3 * * *', 'x', 'other', active := false);",
        "SELECT cron.schedule('a', '0 4 * * *', 'y');"
        "SELECT cron.schedule_in_database('a', '0 5 * * *', 'z', 'new', active := true);",
    )
    assert imported.jobs == {
        "a": {"schedule": "0 5 * * *", "sql": "z", "mode": "direct", "database": "new", "active": False}
    }
    assert (
        "database"
        not in read(
            "SELECT cron.schedule_in_database('a', '0 3 * * *', 'x', 'other'); SELECT "
            "cron.schedule('a', '0 3 * * *', 'x');"
        ).jobs["a"]
    )


@pytest.mark.parametrize(
    ("call", "changed"),
    [
        (
            "cron.alter_job((SELECT jobid FROM cron.job WHERE jobname = 'a'), '0 5 * * *')",
            {"schedule": "0 5 * * *"},
        ),
        (
            (
                "cron.alter_job(job_id := (SELECT jobid FROM cron.job WHERE jobname = 'a' LIMIT "
                "1), active => false)"
            ),
            {"active": False},
        ),
        ("cron.alter_job(jobid, command := 'y') FROM cron.job WHERE jobname = 'a'", {"sql": "y"}),
        (
            "cron.alter_job(jobid, null, null, 'other', 'bob') FROM cron.job",
            {"database": "other", "role": "bob"},
        ),
        (
            "cron.alter_job(cron.schedule('a', '0 6 * * *', 'z'), active := false)",
            {"schedule": "0 6 * * *", "sql": "z", "active": False},
        ),
        (
            (
                "cron.alter_job((SELECT jobid FROM cron.job WHERE jobname = 'a'), database => "
                "current_database())"
            ),
            {},
        ),
    ],
)
def test_alter_job_changes_what_it_names(call: str, changed: dict[str, Any]) -> None:
    """The job is known by a query for its name, by the row, or by the call that made it."""
    imported = read(A + f"SELECT {call};")
    assert imported.left == ()
    assert imported.jobs == {"a": {"schedule": "0 3 * * *", "sql": "SELECT 1", "mode": "direct", **changed}}


def test_roles_that_are_set_own_the_jobs() -> None:
    """SET ROLE counts until it is reset, SET LOCAL until the transaction ends; each file begins anew."""
    imported = read(
        "SET ROLE alice; SELECT cron.schedule('a', '0 3 * * *', 'x'); RESET ROLE;"
        "BEGIN; SET LOCAL ROLE 'bob'; SELECT cron.schedule('b', '0 3 * * *', 'x'); COMMIT;"
        "SELECT cron.schedule('c', '0 3 * * *', 'x');"
        "DO $$ BEGIN SET LOCAL ROLE dave; PERFORM cron.schedule('d', '0 3 * * *', 'x'); END $$;"
        "SET SESSION AUTHORIZATION eve; SELECT cron.schedule('e', '0 3 * * *', 'x');",
        "SELECT cron.schedule('f', '0 3 * * *', 'x');"
        "SET ROLE alice; SELECT cron.unschedule('a'); SET ROLE NONE; SELECT "
        "cron.schedule('g', '0 3 * * *', 'x');",
    )
    assert imported.left == ()
    roles = {name: job.get("role", "") for name, job in imported.jobs.items()}
    assert roles == {"b": "bob", "c": "", "d": "dave", "e": "eve", "f": "", "g": ""}


def test_set_local_role_outside_of_a_transaction_is_not_guessed() -> None:
    """Whether it counts depends on the tool that ran the file."""
    assert "SET LOCAL ROLE" in lefts("SET LOCAL ROLE bob;" + A)[0]


# ------------------------------------------------------------------ DO statements


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("PERFORM cron.unschedule('a');", "b"),
        (f"IF {A_FOUND} THEN PERFORM cron.unschedule('a'); END IF;", "b"),
        (
            "IF EXISTS (SELECT FROM cron.job WHERE jobname = 'c') THEN PERFORM cron.unschedule('c'); END IF;",
            "a b",
        ),
        (f"IF NOT {A_FOUND} THEN PERFORM cron.schedule('c', '0 3 * * *', 'x'); END IF;", "a b"),
        (f"IF {A_FOUND} THEN NULL; ELSE PERFORM cron.unschedule('b'); END IF;", "a b"),
        ("IF false THEN NULL; ELSIF 1 = 1 THEN PERFORM cron.unschedule('b'); END IF;", "a"),
        (
            (
                "IF (SELECT count(*) FROM cron.job WHERE jobname = 'a') > 0 THEN PERFORM "
                "cron.unschedule('a'); END IF;"
            ),
            "b",
        ),
        (
            (
                "IF EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_cron') THEN PERFORM "
                "cron.unschedule('a'); END IF;"
            ),
            "b",
        ),
        (
            (
                "IF NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_cron') THEN "
                "RETURN; END IF; PERFORM cron.unschedule('a');"
            ),
            "b",
        ),
        ("BEGIN PERFORM cron.unschedule('c'); EXCEPTION WHEN OTHERS THEN NULL; END;", "a b"),
        (
            (
                "BEGIN PERFORM cron.unschedule('a'); PERFORM cron.unschedule('c'); EXCEPTION WHEN "
                "OTHERS THEN RAISE NOTICE 'x'; END;"
            ),
            "a b",
        ),
        (
            (
                "BEGIN PERFORM cron.unschedule('c'); EXCEPTION WHEN undefined_table THEN NULL; "
                "WHEN internal_error THEN PERFORM cron.unschedule('a'); END;"
            ),
            "b",
        ),
        (
            (
                "BEGIN PERFORM cron.unschedule('a'); RAISE EXCEPTION 'no'; EXCEPTION WHEN "
                "raise_exception THEN NULL; END;"
            ),
            "a b",
        ),
        ("PERFORM cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a';", "b"),
        (
            (
                "FOR r IN SELECT jobid FROM cron.job WHERE jobname LIKE 'a%' LOOP PERFORM "
                "cron.unschedule(r.jobid); END LOOP;"
            ),
            "b",
        ),
        ("FOR r IN (SELECT * FROM cron.job) LOOP PERFORM cron.unschedule(r.jobname); END LOOP;", ""),
        (
            (
                "PERFORM 1 FROM cron.job WHERE jobname = 'a'; IF FOUND THEN PERFORM "
                "cron.unschedule('a'); END IF;"
            ),
            "b",
        ),
        ("EXECUTE 'SELECT cron.unschedule(''a'')';", "b"),
        ("EXECUTE $$SELECT cron.unschedule('a'); SELECT cron.unschedule('b')$$;", ""),
        ("PERFORM cron.unschedule('a'); RETURN; PERFORM cron.unschedule('b');", "b"),
        ("CASE WHEN true THEN PERFORM cron.unschedule('a'); ELSE NULL; END CASE;", "b"),
        ("<<x>> BEGIN PERFORM cron.unschedule('a'); END x;", "b"),
        ("RAISE NOTICE 'cron.unschedule(''a'')';", "a b"),
    ],
)
def test_do_statements_are_followed(body: str, expected: str) -> None:
    """Conditions and loops over entries are worked out, errors are caught as pg_cron's would be."""
    assert names(A + B + do(body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        (
            "DECLARE v bigint; BEGIN SELECT jobid INTO v FROM cron.job WHERE jobname = 'a'; "
            "IF v IS NOT NULL THEN PERFORM cron.unschedule(v); END IF; END"
        ),
        (
            "DECLARE v bigint; BEGIN SELECT jobid FROM cron.job INTO STRICT v WHERE jobname = "
            "'a'; PERFORM cron.unschedule(v); END"
        ),
        (
            "DECLARE v bigint := (SELECT jobid FROM cron.job WHERE jobname = 'a'); BEGIN "
            "PERFORM cron.unschedule(v); END"
        ),
        (
            "DECLARE v bigint; BEGIN v := (SELECT jobid FROM cron.job WHERE jobname = 'a'); "
            "PERFORM cron.unschedule(job_id := v); END"
        ),
        (
            "DECLARE r record; BEGIN SELECT * INTO r FROM cron.job WHERE jobname = 'a'; "
            "PERFORM cron.unschedule(r.jobid); END"
        ),
        (
            f"DECLARE x boolean; BEGIN SELECT {A_FOUND} INTO x; IF x THEN PERFORM "
            "cron.unschedule('a'); END IF; END"
        ),
        f"DECLARE x boolean := {A_FOUND}; BEGIN IF x THEN PERFORM cron.unschedule('a'); END IF; END",
        (
            "DECLARE n int; BEGIN SELECT count(*) INTO n FROM cron.job WHERE jobname = 'a'; "
            "IF n = 1 THEN PERFORM cron.unschedule('a'); END IF; END"
        ),
        (
            "DECLARE v bigint; BEGIN v := cron.schedule('c', '0 3 * * *', 'x'); PERFORM "
            "cron.unschedule(v); PERFORM cron.unschedule('a'); END"
        ),
        (
            "DECLARE v bigint; BEGIN SELECT cron.schedule('c', '0 3 * * *', 'x') INTO v; "
            "PERFORM cron.unschedule(v); PERFORM cron.unschedule('a'); END"
        ),
        (
            "DECLARE v bigint; w bigint; BEGIN SELECT jobid INTO w FROM cron.job WHERE "
            "jobname = 'zz'; IF w IS NULL THEN PERFORM cron.unschedule('a'); END IF; END"
        ),
    ],
)
def test_variables_for_numbers_of_jobs_are_followed(body: str) -> None:
    """A number that was found by a job's name is that job."""
    assert names(A + B, f"DO LANGUAGE plpgsql $do${body}$do$;") == "b"


def test_lines_inside_of_do_statements_are_those_of_the_file() -> None:
    """Also in quotes of either kind."""
    assert lefts("\n\nDO $$\nBEGIN\n  PERFORM cron.unschedule(7);\nEND $$;")[0].startswith("1.sql:5:")
    assert lefts("DO '\nBEGIN\n  PERFORM cron.unschedule(7);\nEND';")[0].startswith("1.sql:3:")


# ------------------------------------------------------------------ what depends on other things

ODD = "current_setting('app.env') = 'production'"


def test_a_conditional_job_is_declared_with_a_remark() -> None:
    """Whether it is there depends on what only the database knows."""
    script = do(f"\nIF {ODD} THEN PERFORM cron.schedule('a', '0 3 * * *', 'x'); END IF;")
    assert names(script) == "a"
    assert remarks(script) == ["1.sql:2: conditional: whether there is a depends on this"]


@pytest.mark.parametrize(
    "body",
    [
        f"IF {ODD} THEN PERFORM cron.unschedule('a'); END IF;",
        f"IF {ODD} THEN RETURN; END IF; PERFORM cron.unschedule('a');",
        f"WHILE {ODD} LOOP PERFORM cron.unschedule('a'); END LOOP;",
        "FOR i IN 1..x LOOP PERFORM cron.unschedule('a'); END LOOP;",
        "CASE x WHEN 1 THEN PERFORM cron.unschedule('a'); ELSE NULL; END CASE;",
        f"PERFORM cron.unschedule('a') WHERE {ODD};",
        f"IF {A_FOUND} AND {ODD} THEN PERFORM cron.unschedule('a'); END IF;",
        "PERFORM cron.unschedule(jobid) FROM cron.job WHERE jobname > 'A';",
        "PERFORM cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a' AND username = 'bob';",
        (
            f"BEGIN IF {ODD} THEN RAISE EXCEPTION 'x'; END IF; PERFORM cron.unschedule('a'); "
            "EXCEPTION WHEN OTHERS THEN NULL; END;"
        ),
    ],
)
def test_a_job_that_is_perhaps_gone_is_declared_with_a_remark(body: str) -> None:
    """Nothing vanishes silently."""
    assert names(A + do(body)) == "a"
    assert "conditional" in remarks(A + do(body))[0]


def test_a_job_that_is_of_two_kinds_is_left() -> None:
    """Which of both it is cannot be known."""
    one, other = (f"PERFORM cron.schedule('a', '0 {hour} * * *', 'x');" for hour in (3, 4))
    imported = read(do(f"IF {ODD} THEN {one} ELSE {other} END IF;"))
    assert imported.jobs == {}
    assert ODD in imported.left[0].reason


def test_what_is_settled_later_is_no_longer_conditional() -> None:
    """Scheduling or unscheduling it for sure ends the doubt."""
    maybe = do(f"IF {ODD} THEN PERFORM cron.schedule('a', '0 5 * * *', 'x'); END IF;")
    assert remarks(maybe + A) == []
    assert names(maybe + A) == "a"
    assert remarks(A + maybe + A) == []
    assert names(maybe + A + "SELECT cron.unschedule('a');") == ""
    altered = do(f"IF {ODD} THEN PERFORM cron.alter_job(jobid, active := false) FROM cron.job; END IF;")
    assert "active" in lefts(A + altered + A)[0]


def test_a_job_that_is_perhaps_there_can_be_removed_for_sure() -> None:
    """Whether it was there no longer matters; whether it is there is not taken for granted."""
    maybe = do(f"IF {ODD} THEN PERFORM cron.schedule('a', '0 5 * * *', 'x'); END IF;")
    for script in (
        "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a';",
        f"SELECT cron.unschedule('a') WHERE {A_FOUND};",
        do(f"IF {A_FOUND} THEN PERFORM cron.unschedule('a'); END IF;"),
        do(f"IF NOT {A_FOUND} THEN NULL; ELSE PERFORM cron.unschedule('a'); END IF;"),
        do("BEGIN PERFORM cron.unschedule('a'); EXCEPTION WHEN OTHERS THEN NULL; END;"),
    ):
        assert (names(maybe + script), remarks(maybe + script)) == ("", [])
    ensure = do(f"IF NOT {A_FOUND} THEN PERFORM cron.schedule('a', '0 5 * * *', 'x'); END IF;")
    assert (names(maybe + ensure), remarks(maybe + ensure)) == ("a", [])
    other = do(f"IF {A_FOUND} THEN PERFORM cron.unschedule('b'); END IF;")
    assert names(B + maybe + other) == "a b"
    count = do("IF (SELECT count(*) FROM cron.job) = 2 THEN PERFORM cron.unschedule('b'); END IF;")
    assert names(B + maybe + count) == "a b"
    inactive = maybe.replace("cron.schedule(", "cron.schedule_in_database(").replace(
        "'x')", "'x', 'd', null, false)"
    )
    assert "active" in lefts(inactive + A)[0]


def test_guards_that_raise_are_taken_to_have_passed() -> None:
    """The file was executed, so nothing was raised."""
    script = A + do(f"IF {ODD} THEN RAISE EXCEPTION 'no'; END IF; PERFORM cron.unschedule('a');")
    assert names(script) == ""


def test_psql_conditions_are_not_worked_out() -> None:
    """What stands between if and endif may have been executed."""
    script = f"\\if :prod\n{A}\n\\endif\n{B}"
    assert names(script) == "a b"
    assert remarks(script) == ["1.sql:1: conditional: whether there is a depends on this"]


# ------------------------------------------------------------------ what is left


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("SELECT cron.schedule('* * * * *', 'x');", "it has no name"),
        ("SELECT cron.schedule('a' || 'b', '* * * * *', 'x');", "its name is built with ||"),
        ("SELECT cron.schedule('a', format('%s * * * *', 5), 'x');", "its schedule is built by format()"),
        ("SELECT cron.schedule('a', '* * * * *', :'command');", "its command is a parameter"),
        (do("PERFORM cron.schedule(v, '* * * * *', 'x');"), "its name is a variable"),
        (do("PERFORM cron.unschedule(v);"), "which job it is about"),
        (
            do("FOR r IN SELECT jobid FROM cron.job LOOP PERFORM cron.unschedule(r.jobid); EXIT; END LOOP;"),
            "which job",
        ),
        ("SELECT cron.schedule('a', null, 'x');", "its schedule is NULL"),
        ("SELECT cron.unschedule(7);", "the database gives job ids out"),
        ("SELECT cron.alter_job(7, active := false);", "the database gives job ids out"),
        (A + "UPDATE cron.job SET active = false;", "past pg_cron's functions"),
        ("DELETE FROM cron.job WHERE jobname = 'a';", "past pg_cron's functions"),
        ('INSERT INTO "cron"."job" (schedule) VALUES (1);', "past pg_cron's functions"),
        ("TRUNCATE TABLE cron.job;", "past pg_cron's functions"),
        ("COPY cron.job (jobid) FROM stdin;\n1\n\\.\n", "past pg_cron's functions"),
        ("WITH x AS (DELETE FROM cron.job RETURNING 1) SELECT 1;", "past pg_cron's functions"),
        (do("DELETE FROM cron.job;"), "past pg_cron's functions"),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS void AS $$SELECT cron.unschedule('a')$$;",
            "the body of a function",
        ),
        ("CREATE FUNCTION f() BEGIN ATOMIC SELECT cron.unschedule('a'); END;", "the body of a function"),
        (do("EXECUTE format('SELECT cron.unschedule(%L)', x);"), "put together when it runs"),
        (do("EXECUTE 'SELECT cron.unschedule(' || x || ')';"), "put together when it runs"),
        ("SELECT format('SELECT cron.unschedule(%L)', x) \\gexec", "put together when it runs"),
        ("SELECT dblink_exec('', 'SELECT cron.unschedule(1)');", "another session"),
        ("SELECT cron.schedule(n, '* * * * *', 'x') FROM names n;", "rows that only the database has"),
        ("SELECT cron.schedule('a', '* * * * *', 'x') UNION SELECT 1;", "UNION"),
        ("WITH x AS (SELECT cron.unschedule('a')) SELECT 1;", "in SELECT and PERFORM"),
        ("CREATE TABLE t AS SELECT cron.unschedule('a');", "in SELECT and PERFORM"),
        ("SELECT coalesce(cron.unschedule('a'), false);", "part of an expression"),
        ("SELECT 1 WHERE cron.unschedule('a');", "calls in a condition"),
        ("SELECT 1 ORDER BY cron.unschedule('a');", "a query with ORDER"),
        (do("IF cron.unschedule('a') THEN NULL; END IF;"), "calls in a condition"),
        ("DO LANGUAGE plpython3u $$plpy.execute(\"SELECT cron.unschedule('a')\")$$;", "plpython3u"),
        ("DO $$ BEGIN PERFORM cron.unschedule('a') END $$;", "as PL/pgSQL"),
        (
            do("PERFORM cron.unschedule('zz');") + do("RAISE EXCEPTION 'cron.unschedule(1)';"),
            "it fails on what",
        ),
        ("SELECT cron.schedule('a', '* * * * *', 'it''s);", "not closed"),
        ("SET standard_conforming_strings = off; SELECT 1;", "literals mean something else"),
        ("SELECT unschedule('a');", "search path"),
        ("SET search_path TO cron, public; SELECT schedule('a', 'b', 'c');", "search path"),
        ("\\i other.sql", "another file"),
        ("\\c other", "connects elsewhere"),
        ("PREPARE TRANSACTION 'x';", "prepared transaction"),
        ("SELECT cron.schedule('Odd Name', '* * * * *', 'x');", "lower-case"),
        ("SELECT cron.schedule('reconciler-x', '* * * * *', 'x');", "the tool's own"),
        ("SELECT cron.schedule('a', '0 0 * * sat-sun', 'x');", "as '0 0 * * "),
        ("SELECT cron.schedule('a', '0 0 * * 1#2', 'x');", "nth weekdays"),
        ("SELECT cron.schedule('a', '* * * * *', 'COPY t TO STDOUT');", "COPY"),
        ("SELECT cron.schedule('a', '* * * * *', '');", "no statement"),
        ("SELECT create_queue_worker('a', 'ftp://x', 't', '* * * * *');", "http://"),
        (f"SELECT create_queue_worker('{'a' * 57}', 'http://x', 't', '* * * * *');", "56"),
        ("SELECT create_queue_worker('a', 'http://x', 't', '61 * * * *');", "its schedule"),
    ],
)
def test_what_cannot_be_read_is_left_with_its_place_and_reason(script: str, words: str) -> None:
    """Nothing is guessed."""
    imported = read(script)
    assert imported.jobs == {}
    found = [left for left in imported.left if words in left.reason]
    assert found, imported.left
    assert str(found[0].source).startswith("1.sql:")


def test_what_was_read_before_an_error_counts() -> None:
    """The rest of such a file is left, and the next file is read."""
    imported = read(A + "\nSELECT 'x", B)
    assert list(imported.jobs) == ["a", "b"]
    assert [str(left.source) for left in imported.left] == ["1.sql:2"]


@pytest.mark.parametrize(
    ("script", "names_left"),
    [
        ("UPDATE cron.job SET active = false WHERE jobname = 'a';", "b"),
        ("DELETE FROM cron.job WHERE jobname IN ('a', 'b');", ""),
        ("DELETE FROM cron.job WHERE jobid = 5;", "a b"),
        ("UPDATE cron.job SET nodename = '' WHERE jobname = 'a';", "a b"),
        ("SELECT cron.alter_job(jobid, command := format('x')) FROM cron.job WHERE jobname = 'a';", "b"),
        ("SELECT cron.schedule('a', '* * * * *', format('x'));", "b"),
    ],
)
def test_jobs_that_unreadable_statements_change_are_not_declared(script: str, names_left: str) -> None:
    """What a job was like before is no longer true."""
    assert " ".join(read(A + B, script).jobs) == names_left


def test_doubt_ends_when_a_job_is_made_anew() -> None:
    """After DELETE it is new, after UPDATE nobody knows whether it is active."""
    assert list(read(A, "DELETE FROM cron.job;", A).jobs) == ["a"]
    assert list(read(A, "UPDATE cron.job SET active = false;", A).jobs) == []
    assert list(read("SELECT cron.schedule('a', '* * * * *', format('x'));", A).jobs) == ["a"]


def test_one_name_of_several_roles() -> None:
    """The first of two named roles is declared; with and without a role it may be one job or two."""
    call = "SELECT cron.schedule_in_database('a', '0 3 * * *', 'x', 'd', '{}');"
    imported = read(call.format("alice") + call.format("bob"))
    assert imported.jobs["a"]["role"] == "alice"
    assert "belongs to bob" in imported.left[0].reason
    assert read(A + call.format("bob")).jobs == {}


def test_a_job_that_no_file_makes_is_remarked() -> None:
    """A file may be missing; a statement that finds it missing by a condition is none."""
    assert "nothing before it makes that job" in remarks("SELECT cron.unschedule('a');")[0]
    assert remarks("SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'a';") == []


def test_what_was_rolled_back_is_not_reported() -> None:
    """It had no effect, readable or not."""
    assert read("BEGIN; SELECT cron.unschedule(7); SELECT cron.unschedule('x'); ROLLBACK;").left == ()


def test_workers_and_jobs_share_their_names() -> None:
    """A worker is unscheduled like a job; one that was changed past create_queue_worker is left."""
    make = "SELECT create_queue_worker('a', 'https://a.test', null, '* * * * *');"
    assert read(make + "SELECT cron.unschedule('a');").workers == {}
    assert read(make + "SELECT reconciler.drop_queue_worker('a');").workers == {}
    assert "create_queue_worker" in read(make + A).left[0].reason
    assert (
        "alter_job" in read(make + "SELECT cron.alter_job(jobid, '1 1 * * *') FROM cron.job;").left[0].reason
    )
