"""DO statements on their rarer ways: what ends one early, what is caught, and bodies that cannot be read."""

from __future__ import annotations

import pytest

from reconciler.core.imports.scripts import import_scripts
from reconciler.loader.sql_texts import find_sql_fault

A = "SELECT cron.schedule('a', '0 3 * * *', 'SELECT 1');"
B = "SELECT cron.schedule('b', '0 4 * * *', 'SELECT 2');"
DROP_A = "PERFORM cron.unschedule('a');"
DROP_B = "PERFORM cron.unschedule('b');"
DROP_NONE = "PERFORM cron.unschedule('zz');"
ODD = "current_setting('app.env') = 'production'"


def outcome(script: str) -> tuple[str, str]:
    """Import a script that can be read, and name the jobs, and those whose presence depends on something."""
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    assert imported.left == ()
    doubtful = [one.message.split()[4] for one in imported.remarks if one.message.startswith("conditional: ")]
    assert len(doubtful) == len(imported.remarks), imported.remarks
    return " ".join(imported.jobs), " ".join(sorted(doubtful))


def reasons(script: str) -> list[str]:
    """Import a script, and say where something was left and why."""
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    return [f"{left.source}: {left.reason}" for left in imported.left]


def do(body: str) -> str:
    """Write a DO statement."""
    return f"DO $do$ BEGIN {body} END $do$;"


# ------------------------------------------------------------------ what a program leaves


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f";; {DROP_A}", "b"),
        (f"CASE WHEN false THEN {DROP_A} WHEN true THEN {DROP_B} END CASE;", "a"),
        (f"BEGIN {DROP_A} END; {DROP_B}", ""),
        (f"BEGIN RETURN; END; {DROP_A}", "a b"),
        (f"BEGIN RAISE EXCEPTION 'no'; EXCEPTION WHEN SQLSTATE 'P0001' THEN {DROP_A} END;", "b"),
        (f"BEGIN {DROP_NONE} EXCEPTION WHEN SQLSTATE 'XX000' THEN {DROP_A} END;", "b"),
        (
            (
                f"BEGIN RAISE EXCEPTION 'no'; EXCEPTION WHEN internal_error THEN {DROP_A} "
                "WHEN others THEN NULL; END;"
            ),
            "a b",
        ),
        (
            (
                f"BEGIN BEGIN {DROP_NONE} EXCEPTION WHEN raise_exception THEN NULL; END; EXCEPTION "
                f"WHEN others THEN {DROP_A} END;"
            ),
            "b",
        ),
        ("EXECUTE 'ANALYZE ' || x;" + DROP_A, "b"),
    ],
)
def test_statements_of_a_program_are_followed_in_their_order(body: str, expected: str) -> None:
    """Empty statements do nothing, the first branch that holds is taken, and a handler catches its errors."""
    assert outcome(A + B + do(body)) == (expected, "")


def test_a_label_at_the_end_needs_no_semicolon() -> None:
    """PL/pgSQL lets the last one of a body go."""
    assert outcome(A + f"DO $$<<x>> BEGIN {DROP_A} END x$$;") == ("", "")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"IF {ODD} THEN {DROP_A} ELSE RAISE EXCEPTION 'no'; END IF;", ("b", "")),
        (f"IF {ODD} THEN {DROP_A} ELSE RETURN; END IF; {DROP_B}", ("a b", "a b")),
        (f"IF {ODD} THEN RETURN; ELSE RETURN; END IF; {DROP_A}", ("a b", "")),
        (f"WHILE {ODD} LOOP {DROP_A} RETURN; END LOOP; {DROP_B}", ("a b", "a b")),
        (f"LOOP {DROP_A} END LOOP;", ("a b", "a")),
        (f"LOOP LOOP {DROP_A} END LOOP; END LOOP;", ("a b", "a")),
    ],
)
def test_ways_that_end_early_do_not_come_together_with_the_others(
    body: str, expected: tuple[str, str]
) -> None:
    """What an error ended never was; what RETURN ended counts as it stood there."""
    assert outcome(A + B + do(body)) == expected


def test_a_loop_without_a_head_is_shown_by_its_own_line() -> None:
    """The remark names the innermost one, since whether the job goes depends on it first."""
    script = A + do(f"\nLOOP\nLOOP\n{DROP_A} END LOOP; END LOOP;")
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    assert [str(one.source) for one in imported.remarks] == ["1.sql:3"]


@pytest.mark.parametrize(
    "change",
    ["GET DIAGNOSTICS n = ROW_COUNT;", "FETCH c INTO n;", "EXECUTE 'SELECT 2' INTO n;"],
)
def test_what_a_statement_writes_into_a_variable_is_no_longer_known(change: str) -> None:
    """The value that it had before decides nothing any more."""
    script = A + "DO $$DECLARE n int := 1; BEGIN {} IF n = 1 THEN " + DROP_A + " END IF; END$$;"
    assert outcome(script.format("")) == ("", "")
    assert outcome(script.format(change)) == ("a", "a")


@pytest.mark.parametrize(
    "inner",
    [
        f"IF {ODD} THEN EXIT; END IF;",
        f"IF {ODD} THEN NULL; ELSE CONTINUE; END IF;",
        "LOOP EXIT; END LOOP;",
        f"BEGIN IF {ODD} THEN RETURN; END IF; END;",
        "BEGIN NULL; EXCEPTION WHEN others THEN EXIT; END;",
    ],
)
def test_a_loop_that_may_end_early_is_not_followed(inner: str) -> None:
    """For which rows it runs is not known then, so no row is named."""
    script = "FOR r IN SELECT jobid FROM cron.job LOOP {} PERFORM cron.unschedule(r.jobid); END LOOP;"
    assert "which job it is about cannot be told from the text" in reasons(A + do(script.format(inner)))[0]


@pytest.mark.parametrize(
    "inner", [f"IF {ODD} THEN NULL; END IF;", "BEGIN NULL; END;", "WHILE false LOOP NULL; END LOOP;", ";"]
)
def test_a_loop_that_runs_to_its_end_is_followed(inner: str) -> None:
    """Statements with others in them do not hinder that."""
    script = f"FOR r IN SELECT jobid FROM cron.job LOOP {inner} PERFORM cron.unschedule(r.jobid); END LOOP;"
    assert outcome(A + B + do(script)) == ("", "")


@pytest.mark.parametrize(
    "select",
    [
        "SELECT INTO v jobid FROM cron.job WHERE jobname = 'a'; PERFORM cron.unschedule(v);",
        "SELECT INTO STRICT v jobid FROM cron.job WHERE jobname = 'a'; PERFORM cron.unschedule(v);",
        "SELECT INTO v cron.schedule('c', '* * * * *', 'x'); PERFORM cron.unschedule(v);" + DROP_A,
        "SELECT INTO v, w.x cron.unschedule('a'), 1;",
    ],
)
def test_into_may_stand_before_what_is_selected(select: str) -> None:
    """PL/pgSQL reads the variables first, and what follows them is selected or called all the same."""
    assert outcome(A + B + f"DO $$DECLARE v bigint; BEGIN {select} END$$;") == ("b", "")


# ------------------------------------------------------------------ what is left


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"BEGIN {DROP_A} END; SELECT 1;", "something follows its last END"),
        (f"BEGIN IF x; IF y THEN {DROP_A} END IF; END", "THEN is missing"),
        (f"BEGIN {DROP_A} WHILE x", "LOOP is missing"),
        (f"BEGIN IF x THEN {DROP_A} END IF SELECT 1; END", "a semicolon is missing"),
        (f"BEGIN IF x THEN {DROP_A} END IF", "END is missing"),
        (f"BEGIN IF x THEN {DROP_A} END; END", "IF is missing"),
    ],
)
def test_a_body_that_is_no_program_is_left_with_what_is_wrong(body: str, reason: str) -> None:
    """The statement is left as a whole, and nothing of it counts."""
    assert reasons(A + f"DO $$ {body} $$;") == [f"1.sql:1: its body cannot be read as PL/pgSQL: {reason}"]


def test_a_program_may_be_sixty_blocks_deep() -> None:
    """One more is too many."""
    assert outcome(A + do(f"{'BEGIN ' * 59}{DROP_A}{'END;' * 59}")) == ("", "")
    assert "nested too deeply" in reasons(A + do(f"{'BEGIN ' * 60}{DROP_A}{'END;' * 60}"))[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            f"{DROP_A} COMMIT;",
            "1.sql:2: a transaction that ends in the middle of a DO statement is not followed",
        ),
        ("v := coalesce(cron.unschedule('a'), false);", "1.sql:2: the call is part of an expression"),
        ("v := cron.unschedule('a') OR x;", "1.sql:2: the call is part of an expression"),
        ("v := cron.unschedule('a', 'b');", "1.sql:2: unschedule takes no such arguments"),
        (
            f"BEGIN {DROP_NONE} EXCEPTION WHEN undefined_table THEN NULL; END;",
            "1.sql:1: it fails on what these files made: is a file missing?",
        ),
        (
            "BEGIN RAISE EXCEPTION 'cron.unschedule(1)'; EXCEPTION WHEN internal_error THEN NULL; END;",
            "1.sql:1: it fails on what these files made: is a file missing?",
        ),
    ],
)
def test_statements_of_a_program_that_cannot_be_followed_are_left(body: str, reason: str) -> None:
    """The place is that of the statement where the rest of the program can still be read."""
    assert reasons(A + do(f"\n{body}")) == [reason]


def test_a_literal_that_is_not_closed_inside_of_a_body_is_left_by_its_line() -> None:
    """The script goes on behind the body, whose own quotes are closed."""
    script = f"DO $$ BEGIN {DROP_A}\nPERFORM 'x; END $$;\n{A}"
    imported = import_scripts([("1.sql", script)], find_fault=find_sql_fault)
    assert list(imported.jobs) == ["a"]
    assert reasons(script) == ["1.sql:2: a literal is not closed"]


def test_a_do_statement_from_a_variable_of_psql_is_passed_over() -> None:
    """There is no text in which a call could stand."""
    assert outcome("DO :body;" + A) == ("a", "")


@pytest.mark.parametrize("language", ["", "LANGUAGE plpython3u"])
def test_a_program_without_calls_is_passed_over(language: str) -> None:
    """In whatever language it is written, and whether or not it could be read."""
    assert outcome(f"DO {language} $$ BEGIN IF x $$;" + A) == ("a", "")
