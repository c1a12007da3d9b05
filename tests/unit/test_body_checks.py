"""SQL bodies judged by what a server said of them, and parsed without one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from reconciler.cli.validating import validate
from reconciler.core.body_checks import (
    NO_EFFECT,
    Refusal,
    Remark,
    Statement,
    find_denied,
    find_parameter,
    is_planned,
    judge_plan,
    judge_refusal,
    list_called,
    list_called_by_plan,
    make_notices,
    place_statements,
    quote_name,
)
from reconciler.core.specs import Place
from reconciler.errors import InvalidInputError
from reconciler.loader import sql_syntax
from reconciler.loader.body_places import BodyPlaces
from reconciler.loader.sql_syntax import parse_statement
from reconciler.loader.sql_texts import split_statements, strip_sql

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place(path="jobs.d/shop.yaml", line=3, column=3)


def place(body: str) -> tuple[Statement, ...]:
    """Split a body as the command line does."""
    return place_statements("tidy", body, [(one, strip_sql(one)) for one in split_statements(body)])


def refuse(body: str, sqlstate: str, message: str, *, is_complete: bool = True, **fields: Any) -> Remark:
    """Judge a refusal of the last statement of a body."""
    refusal = Refusal(sqlstate=sqlstate, message=message, **fields)
    return judge_refusal(place(body)[-1], refusal, role="Al", is_complete=is_complete)


def test_statements_are_found_in_their_body() -> None:
    """Each statement knows where it begins, also where one is part of another."""
    body = "SELECT 10;\n\n -- and\nSELECT 1 ;SELECT 1"
    assert [body[one.offset :].startswith(one.text) for one in place(body)] == [True] * 3
    assert [one.offset for one in place(body)] == [0, 13, 30]


@pytest.mark.parametrize(
    ("first", "unknown"),
    [
        ("SELECT 1 INTO a", True),
        ("CREATE TABLE a ()", True),
        ("CALL a()", True),
        ("SELECT ' into ' FROM b", False),
        ("INSERT INTO a TABLE b", False),
        ("WITH x AS (INSERT INTO a TABLE b RETURNING 1) SELECT 1 FROM x", False),
    ],
)
def test_what_may_make_something_is_remembered(first: str, unknown: bool) -> None:
    """After a statement that may make a table, a table that is not there may be there."""
    assert [one.follows_unknown for one in place(f"{first}; SELECT 1; SELECT 2")] == [False, unknown, unknown]


@pytest.mark.parametrize(
    ("statement", "planned"),
    [
        ("/* a */ -- b\n ((select 1))", True),
        ("Table a", True),
        ("WITH a AS (SELECT 1) TABLE a", True),
        ("selection", False),
        ("EXPLAIN ANALYZE DELETE FROM a", False),
        ("COPY (SELECT 1) TO '/tmp/a'", False),
        ("DECLARE c CURSOR FOR SELECT 1", False),
        ("", False),
    ],
)
def test_only_what_explain_takes_is_planned(statement: str, planned: bool) -> None:
    """The rest is parsed."""
    assert is_planned(statement) is planned


def test_calls_are_found_in_sql_and_in_plans() -> None:
    """Names are folded as the server does; quoted ones stay."""
    assert list_called('SELECT Now(), a.b (1), "C d"(2), "e""f"(3)') == {"now", "b", "C d", 'e"f'}
    plan = node("Result", node("Seq Scan", Filter="(f(1) = 2)"), Output=['"C d"(2)', "b"], Width=4)
    assert list_called_by_plan(plan) == {"C d", "f"}


def node(kind: str, *plans: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Make a node of a plan."""
    named = {key.replace("_", " ").replace("One Time", "One-Time"): value for key, value in fields.items()}
    return {"Node Type": kind, **named, **({"Plans": list(plans)} if plans else {})}


def change(operation: str, *plans: dict[str, Any]) -> dict[str, Any]:
    """Make a change of a table."""
    return node("ModifyTable", *plans, Operation=operation, Relation_Name="things")


SCAN = node("Seq Scan")
UNBOUNDED = "DELETE of things has no condition: each run does it to all rows; WHERE true says so"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (change("Delete", SCAN), UNBOUNDED),
        (change("Delete", node("Nested Loop", SCAN, SCAN)), UNBOUNDED),
        (
            change("Delete", node("Seq Scan", node("Result", Filter="x", Parent_Relationship="SubPlan"))),
            UNBOUNDED,
        ),
        (node("CTE Scan", change("Delete", SCAN)), UNBOUNDED),
        (change("Delete", node("Nested Loop", SCAN, node("Index Scan", Index_Cond="x"))), ""),
        (change("Delete", node("Append", SCAN, node("Seq Scan", Filter="x"))), ""),
        (change("Delete", node("Nested Loop", SCAN, node("Limit", SCAN))), ""),
        (change("Delete", node("Foreign Scan")), ""),
        (change("Delete"), ""),
        (change("Insert", SCAN), ""),
        (change("Merge", SCAN), ""),
        (
            change("Update", node("Result", One_Time_Filter="false")),
            "UPDATE of things never touches a row: its condition is never true",
        ),
        (
            change(
                "Update",
                node("Result", One_Time_Filter="false"),
                node("Result", Parent_Relationship="InitPlan"),
            ),
            "UPDATE of things never touches a row: its condition is never true",
        ),
        (change("Update", node("Result", One_Time_Filter="(InitPlan 1).col1")), ""),
        (SCAN, NO_EFFECT),
        (
            node("Result", One_Time_Filter="false"),
            "it does nothing: the condition of this SELECT is never true",
        ),
        (node("Append", node("Foreign Scan")), ""),
        (node("Custom Scan"), ""),
    ],
)
def test_shapes_of_plans(plan: dict[str, Any], message: str) -> None:
    """A change without a condition, one that is never true, and a SELECT without effect are warned of."""
    (statement,) = place("TABLE things")
    assert judge_plan(statement, plan, calls=False) == message


@pytest.mark.parametrize("body", ["DELETE FROM things WHERE TRUE", "delete from things\nwhere  true"])
def test_all_rows_may_be_meant(body: str) -> None:
    """WHERE true says that all rows are meant."""
    assert judge_plan(place(body)[0], change("Delete", SCAN), calls=False) == ""


@pytest.mark.parametrize(("body", "calls"), [("SELECT a()", True), ("SELECT 1 INTO b", False)])
def test_a_select_may_have_an_effect(body: str, calls: bool) -> None:
    """A SELECT that calls something or makes a table is not idle."""
    assert judge_plan(place(body)[0], SCAN, calls=calls) == ""


@pytest.mark.parametrize(
    ("sqlstate", "message", "severity", "said"),
    [
        ("57014", "canceling statement due to statement timeout", "unchecked", "planning it takes longer"),
        ("55P03", "canceling statement due to lock timeout", "unchecked", "locked what it needs (canceling"),
        ("25006", "cannot execute DELETE in a read-only transaction", "unchecked", "writes as soon as it is"),
        ("42P01", 'relation "b" does not exist', "error", 'relation "b" does not exist'),
        ("42601", "syntax error", "error", "syntax error"),
        ("0A000", "cross-database references are not implemented", "error", "cross-database"),
        ("22P02", 'invalid input syntax for type integer: "a"', "error", 'integer: "a"'),
        ("22P02", 'invalid input syntax for type integer: "secret"', "error", "cannot be computed (SQLSTATE"),
        ("22012", "division by zero", "error", "division by zero"),
        ("P0001", "the balance is 5", "unchecked", "the server could not plan it (SQLSTATE P0001)"),
        ("08001", "could not connect to server", "unchecked", "the server could not plan it"),
    ],
)
def test_refusals(sqlstate: str, message: str, severity: str, said: str) -> None:
    """What cannot run is an error; what only this check could not do is none."""
    remark = refuse("SELECT 1; SELECT 'a'", sqlstate, message)
    assert remark.severity == severity
    assert said in remark.message
    assert "secret" not in remark.message
    assert "balance" not in remark.message


def test_a_refusal_has_its_place_in_the_body() -> None:
    """The position counts from the start of the body, and never leaves the statement."""
    body = "SELECT 1; SELECT b"
    assert [refuse(body, "42703", "no", position=position).offset for position in (None, 7, 8, 99, -5)] == [
        10,
        17,
        18,
        18,
        10,
    ]


def test_a_hint_is_passed_on() -> None:
    """What the server advises stands behind what it says."""
    assert refuse("SELECT b", "42703", "no b", hint="Take c.").message == "no b (Take c.)"


def test_what_may_come_is_no_error() -> None:
    """What a statement before it, or the first apply, may make is unchecked."""
    message = 'schema "reconciler" does not exist'
    assert refuse("CREATE TABLE b (); TABLE b", "42P01", "no b").severity == "unchecked"
    assert refuse("CREATE TABLE b (); TABLE b", "42601", "no b").severity == "error"
    assert refuse("SELECT 1", "3F000", message, is_complete=False).severity == "unchecked"
    assert refuse("SELECT 1", "3F000", message).severity == "error"
    assert refuse("SELECT 1", "3F000", "no b", is_complete=False).severity == "error"


@pytest.mark.parametrize(
    ("body", "denied", "remedy"),
    [
        ("TABLE a.b", "table b", 'GRANT SELECT ON a.b TO "Al"'),
        ("TABLE b", "view b", 'GRANT SELECT ON found.b TO "Al"'),
        ("DELETE FROM ONLY a.b", "table b", 'GRANT SELECT, DELETE ON a.b TO "Al"'),
        ("UPDATE a . b SET c = 1", "foreign table b", 'GRANT SELECT, UPDATE ON a.b TO "Al"'),
        ("MERGE INTO a.b USING c", "table b", 'GRANT SELECT, INSERT, UPDATE, DELETE ON a.b TO "Al"'),
        ("INSERT INTO c TABLE a.b", "table b", 'GRANT SELECT ON a.b TO "Al"'),
        ('TABLE "A"."B c"', "table B c", 'GRANT SELECT ON "A"."B c" TO "Al"'),
        ("SELECT a.f()", "function f", 'GRANT EXECUTE ON FUNCTION a.f TO "Al"'),
        ("TABLE a.b", "schema a", 'GRANT USAGE ON SCHEMA a TO "Al"'),
        ("TABLE a.b", "type b", 'grant it to "Al"'),
    ],
)
def test_the_grant_is_written_out(body: str, denied: str, remedy: str) -> None:
    """A missing right comes with the statement that gives it."""
    remark = refuse(body, "42501", f"permission denied for {denied}", relation="found.b")
    assert remark.severity == "error"
    assert remark.message.endswith(remedy)


def test_a_right_in_other_words_is_told_without_its_grant() -> None:
    """A server that speaks another language is understood as far as possible."""
    assert refuse("TABLE b", "42501", "keine Berechtigung").message == 'keine Berechtigung: grant it to "Al"'


def test_denied_relations_are_named() -> None:
    """Only relations have to be looked for."""
    assert find_denied(Refusal(sqlstate="42501", message="permission denied for table b")) == "b"
    assert find_denied(Refusal(sqlstate="42501", message="permission denied for schema b")) == ""
    assert find_denied(Refusal(sqlstate="42P01", message="permission denied for table b")) == ""
    assert find_denied(Refusal(sqlstate="42501", message="must be owner of b")) == ""


def test_names_are_quoted_where_they_have_to_be() -> None:
    """Quotes in names are doubled."""
    assert [quote_name(name) for name in ("a_1$", "A", 'a"b', "1a")] == ["a_1$", '"A"', '"a""b"', '"1a"']


def test_parameters_are_errors() -> None:
    """A job has no parameters; dollars elsewhere are none."""
    (statement,) = place("DELETE FROM a$1 WHERE b = '$2' AND c = $$$3$$ AND d = $4")
    remark = find_parameter(statement)
    assert remark is not None
    assert statement.text[remark.offset :] == "$4"
    assert find_parameter(place("SELECT a$1, '$2', $$$3$$")[0]) is None


def test_notices_are_grouped() -> None:
    """Jobs of which the same is to be said share a notice; errors and warnings have their places."""
    remarks: list[tuple[Remark, Place | None]] = [
        (Remark(name="b", severity="unchecked", message="why"), PLACE),
        (Remark(name="a", severity="unchecked", message="why"), None),
        (Remark(name="b", severity="unchecked", message="why"), None),
        (Remark(name="c", severity="warning", message="what"), PLACE),
        (Remark(name="d", severity="error", message="no"), None),
    ]
    assert [(one.code, one.message, one.names) for one in make_notices(remarks)] == [
        ("body_error", "no", ("d",)),
        ("body_warning", "jobs.d/shop.yaml:3:3: what", ("c",)),
        ("body_unchecked", "not checked: why", ("a", "b")),
    ]


def test_very_many_notices_are_counted() -> None:
    """A broken role makes a plan no longer than people read."""
    remarks = [(Remark(name=f"job{n}", severity="error", message=str(n)), None) for n in range(100)]
    notices = make_notices(remarks)
    assert len(notices) == 21
    assert len(notices[-1].names) == 80
    assert "validate --connect" in notices[-1].message


@pytest.mark.parametrize(
    "body",
    [
        "DELETE FROM a WHERE b",
        "DELETE FROM a WHERE true",
        "DELETE FROM a USING b",
        "UPDATE a SET b = c FROM d",
        "SELECT f()",
        "SELECT * FROM a",
        "SELECT 1 INTO a",
        "WITH a AS (DELETE FROM b WHERE c RETURNING 1) SELECT 1",
        "CALL f(1)",
        "VACUUM a",
        "DO $$ DECLARE a b%ROWTYPE; BEGIN PERFORM f(); END $$",
        "DO LANGUAGE plpython3u $$ import a $$",
        "DO LANGUAGE plpgsql $$ BEGIN NULL; END $$",
    ],
)
def test_good_sql_parses(body: str) -> None:
    """Without a server nothing is said of what is right."""
    assert parse_statement(place(body)[0]) is None


@pytest.mark.parametrize(
    ("body", "severity", "message", "at"),
    [
        ("SELECT 1; SELECT 'é' FRM x", "error", 'syntax error at or near "x"', "x"),
        ("DELETE FROM a WHERE", "error", "syntax error at end of input", ""),
        ("DO $$ BEGIN SELEC 1; END $$", "error", 'in the block of DO: syntax error at or near "SELEC"', "DO"),
        ("DELETE FROM a WHERE b = $1", "error", "there is no parameter $1", "$1"),
        ("DELETE FROM a", "warning", "DELETE of a has no condition", "DELETE"),
        ("WITH x AS (UPDATE b SET c = 1 RETURNING 1) SELECT f(x) FROM x", "warning", "UPDATE of b", "WITH"),
        ("SELECT 1, 'a'", "warning", "it does nothing", "SELECT"),
        ("VALUES (1)", "warning", "it does nothing", "VALUES"),
    ],
)
def test_bad_sql_does_not_parse(body: str, severity: str, message: str, at: str) -> None:
    """Errors of the grammar are found where they are, and the plainest shapes are warned of."""
    remark = parse_statement(place(body)[-1])
    assert remark is not None
    assert remark.severity == severity
    assert message in remark.message
    assert remark.offset is not None
    assert body[remark.offset :].startswith(at)
    assert at or remark.offset == len(body)


FILE = """\
defaults: {timeout: 5m}
jobs:
  block:
    sql: |
      -- é

      DELETE FROM X1
  indented:
    sql: |2-
        SELECT X2
  plain: {sql: SELECT X3}
  quoted: {sql: "SELECT X4"}
  folded:
    sql: >-
      SELECT
      X5
  escaped: {sql: "SELECT \\t X6"}
  none: {schedule: "* * * * *"}
queues: []
"""


@pytest.mark.parametrize(
    ("line", "body", "found"),
    [
        (3, "-- é\n\nDELETE FROM X1\n", (7, 19)),
        (8, "  SELECT X2", (10, 16)),
        (11, "SELECT X3", (11, 23)),
        (12, "SELECT X4", (12, 25)),
        (13, "SELECT X5", (14, 10)),
        (17, "SELECT \t X6", (17, 18)),
        (18, "SELECT X7", (18, 3)),
        (12, "SELECT 'by a variable', X4", (12, 3)),
        (2, "SELECT X8", (2, 3)),
    ],
)
def test_places_in_bodies(tmp_path: Path, line: int, body: str, found: tuple[int, int]) -> None:
    """A character of a body is found in its file, or the nearest thing that is sure."""
    path = tmp_path / "jobs.yaml"
    path.write_text(FILE)
    offset = re.search(r"X\d", body)
    assert offset is not None
    place = BodyPlaces().find(Place(path=str(path), line=line, column=3), body, offset.start())
    assert (place.line, place.column) == found


@pytest.mark.parametrize("text", ["jobs: [", "", "- a"])
def test_files_without_places(tmp_path: Path, text: str) -> None:
    """A file that changed since gives the place of the job; so does none."""
    path = tmp_path / "jobs.yaml"
    path.write_text(text)
    for name in (path, tmp_path / "gone.yaml"):
        place = Place(path=str(name), line=2, column=3)
        assert BodyPlaces().find(place, "SELECT 1", 3) == place


def test_without_pglast_it_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SQL of no target is parsed then; nothing is said where there is none, or where it is parsed."""
    config = tmp_path / "reconciler.yaml"
    config.write_text("owner: shop\ndefault_target: one\ntargets: {one: {dsn: local}, two: {dsn: local}}\n")
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d/shop.yaml").write_text("jobs: {tidy: {daily: '03:00', sql: SELECT b FROM a}}\n")
    options = ["--config", str(config), "--all-targets"]
    parsed = CliRunner().invoke(validate, options)
    assert (parsed.exit_code, parsed.stderr) == (0, "")
    monkeypatch.setattr(sql_syntax, "find_spec", lambda _: None)
    said = CliRunner().invoke(validate, options)
    assert said.stderr == sql_syntax.HINT + "\n"
    assert said.stdout == "one: 1 job: valid.\ntwo: 1 job: valid.\n"
    (tmp_path / "jobs.d/shop.yaml").write_text("queues: {mail: {}}\n")
    assert CliRunner().invoke(validate, options).stderr == ""


def test_what_does_not_parse_is_a_problem_of_its_file(tmp_path: Path) -> None:
    """The command ends with the problem, and says on standard error what is only doubtful."""
    config = tmp_path / "reconciler.yaml"
    config.write_text("owner: shop\ntargets: {one: {dsn: local}}\n")
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d/shop.yaml").write_text(
        "jobs:\n  tidy: {daily: '03:00', sql: DELETE FORM a}\n  all: {daily: '03:00', sql: DELETE FROM a}\n"
    )
    result = CliRunner().invoke(validate, ["--config", str(config)])
    assert isinstance(result.exception, InvalidInputError)
    assert 'shop.yaml:2:38: tidy: syntax error at or near "FORM"' in str(result.exception)
    assert "shop.yaml:3:30: warning: all: DELETE of a has no condition" in result.stderr
