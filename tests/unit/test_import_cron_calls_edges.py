"""Calls of pg_cron with arguments that few people write: NULL, texts for flags, names worked out in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.core.imports.scripts import import_scripts
from reconciler.loader.sql_texts import find_sql_fault

if TYPE_CHECKING:
    from reconciler.core.imports.results import ImportedFiles

PLAIN = {"schedule": "0 3 * * *", "sql": "SELECT 1", "mode": "direct"}
A = "SELECT cron.schedule('a', '0 3 * * *', 'SELECT 1');"
ID = "(SELECT jobid FROM cron.job WHERE jobname = 'a')"
NO_JOB = "nothing before it makes that job: is a file missing, or was it made by hand?"


def read(text: str) -> ImportedFiles:
    """Import one script."""
    return import_scripts([("1.sql", text)], find_fault=find_sql_fault)


def reasons(text: str) -> list[str]:
    """Import one script, and say why something of it was left."""
    return [left.reason for left in read(text).left]


def remarks(text: str) -> list[str]:
    """Import one script, and say what people ought to know."""
    return [remark.message for remark in read(text).remarks]


def on_database(database: str = "'other'", role: str = "NULL", active: str = "true") -> str:
    """Call schedule_in_database with arguments as they are written."""
    given = f"'a', '0 3 * * *', 'SELECT 1', {database}, {role}, active => {active}"
    return f"SELECT cron.schedule_in_database({given});"


def work_out(what: str, how: str = "a variable") -> str:
    """Say that something is left to the database."""
    return f"its {what} is {how}, which only the database can work out"


# ------------------------------------------------------------------------------------- scheduling


@pytest.mark.parametrize("arguments", ["NULL, 'SELECT 1'", "'0 3 * * *', NULL"])
def test_scheduling_nothing_without_a_name_does_nothing(arguments: str) -> None:
    """The form of two arguments is STRICT: a NULL makes no job, and is no fault."""
    imported = read(f"SELECT cron.schedule({arguments});")
    assert (imported.jobs, imported.left) == ({}, ())


def test_a_job_without_a_name_whose_command_cannot_be_read_is_left() -> None:
    """For what is unknown of it, not for its name: nobody could schedule it again under one."""
    assert reasons("SELECT cron.schedule('0 3 * * *', 'SELECT ' || x);") == [
        work_out("command", "built with ||")
    ]


@pytest.mark.parametrize(
    ("active", "is_active"), [("'TRUE'", True), ("' t '", True), ("'f'", False), ("'false'", False)]
)
def test_a_text_says_whether_a_job_is_active(active: str, is_active: bool) -> None:
    """PostgreSQL reads it as a flag."""
    declared = read(on_database(active=active)).jobs["a"]
    assert declared.get("active", True) is is_active


@pytest.mark.parametrize("active", ["'never'", "1", "NULL"])
def test_what_is_no_flag_leaves_the_job(active: str) -> None:
    """Whether it would be active is not guessed."""
    assert reasons(on_database(active=active)) == ["active is neither true nor false"]


@pytest.mark.parametrize("role", ["current_user", "session_user::text", "current_user::name::text"])
def test_whoever_runs_the_file_is_no_other_role(role: str) -> None:
    """Whatever type the name is made of."""
    assert read(on_database(role=role)).jobs == {"a": {**PLAIN, "database": "other"}}


@pytest.mark.parametrize(
    ("database", "role", "what"),
    [
        ("'other'", "current_user || '_x'", "role"),
        ("'other'", "current_user::text || '_x'", "role"),
        ("current_database() || '_x'", "NULL", "database"),
        ("current_database()::text || '_x'", "NULL", "database"),
    ],
)
def test_a_name_that_is_only_made_of_ones_own_is_not_ones_own(database: str, role: str, what: str) -> None:
    """A role or a database with something appended is another one, and the job is left."""
    imported = read(on_database(database, role))
    assert [left.reason for left in imported.left] == [work_out(what, "built with ||")]
    assert imported.jobs == {}


# --------------------------------------------------------------------------------------- altering


def test_altering_no_job_is_told() -> None:
    """In the database it is an error, so that something is missing here; the job stays as it was."""
    script = f"{A} SELECT cron.alter_job(NULL, schedule => '0 4 * * *');"
    assert remarks(script) == [NO_JOB]
    assert read(script).jobs == {"a": PLAIN}


def test_null_changes_nothing_of_a_job() -> None:
    """Of alter_job a NULL means: leave it as it is."""
    script = (
        "SELECT cron.schedule_in_database('a', '0 3 * * *', 'SELECT 1', 'other', 'bob', false);"
        f"SELECT cron.alter_job({ID}, '0 4 * * *', NULL, NULL, NULL, NULL);"
    )
    assert read(script).jobs["a"] == {
        **PLAIN, "schedule": "0 4 * * *", "role": "bob", "database": "other", "active": False,
    }  # fmt: skip


def test_a_job_whose_activity_cannot_be_read_stays_left_when_it_is_scheduled_again() -> None:
    """pg_cron keeps activity where a name is scheduled again."""
    script = f"{A} SELECT cron.alter_job({ID}, active => x);"
    assert reasons(script) == [work_out("active")]
    assert reasons(script + A) == ["whether it is active depends on what cannot be read"]


def test_giving_a_job_to_a_role_that_cannot_be_read_is_left() -> None:
    """The call is left and not the job, which has no other name to be found by."""
    imported = read(f"{A} SELECT cron.alter_job({ID}, username => x);")
    assert [left.reason for left in imported.left] == [work_out("role")]
    assert imported.jobs == {"a": PLAIN}


# ----------------------------------------------------------------------------------- unscheduling


def test_unscheduling_null_changes_nothing() -> None:
    """It is STRICT."""
    imported = read(f"{A} SELECT cron.unschedule(job_name => NULL);")
    assert (imported.jobs, imported.left, imported.remarks) == ({"a": PLAIN}, (), ())


@pytest.mark.parametrize(
    ("argument", "reason"),
    [("'a' || x", work_out("name", "built with ||")), ("job_name => 5", "its name is no text")],
)
def test_unscheduling_a_name_that_cannot_be_read_is_left(argument: str, reason: str) -> None:
    """What it takes away is not guessed."""
    imported = read(f"{A} SELECT cron.unschedule({argument});")
    assert [left.reason for left in imported.left] == [reason]
    assert imported.jobs == {"a": PLAIN}


def test_the_name_may_come_from_a_query() -> None:
    """A query of one name finds the job that is unscheduled."""
    query = "(SELECT jobname FROM cron.job WHERE command = 'SELECT 1')"
    imported = read(f"{A} SELECT cron.unschedule({query});")
    assert (imported.jobs, imported.left, imported.remarks) == ({}, (), ())


def test_unscheduling_a_number_twice_is_told() -> None:
    """The second time there is no such job any more."""
    body = (
        "DECLARE j bigint; BEGIN SELECT jobid INTO j FROM cron.job WHERE jobname = 'a';"
        " PERFORM cron.unschedule(j); {} END"
    )
    assert remarks(f"{A} DO $$ {body.format('')} $$;") == []
    assert remarks(f"{A} DO $$ {body.format('PERFORM cron.unschedule(j);')} $$;") == [NO_JOB]


# ------------------------------------------------------------------------------- workers and ways


def test_a_worker_whose_address_cannot_be_read_is_left() -> None:
    """Until it is made again."""
    half = "SELECT reconciler.create_queue_worker('w', {}, 'token', '* * * * *');"
    unknown = half.format("'https://a.test/' || x")
    assert reasons(unknown) == [work_out("address", "built with ||")]
    assert read(unknown + half.format("'https://a.test/run'")).workers["w"]["url"] == "https://a.test/run"


def test_a_worker_of_another_role_names_it() -> None:
    """Who makes it runs it."""
    script = "SET ROLE bob; SELECT reconciler.create_queue_worker('w', 'https://a.test/', '', '* * * * *');"
    assert read(script).workers["w"] == {
        "schedule": "* * * * *", "url": "https://a.test/", "role": "bob",
    }  # fmt: skip


def test_one_name_for_a_job_and_a_worker_is_left() -> None:
    """Which of both it is cannot be declared."""
    script = f"{A} SELECT reconciler.create_queue_worker('a', 'https://a.test/', '', '* * * * *');"
    assert reasons(script) == ["it is made both with cron.schedule and with create_queue_worker"]


def test_scheduling_a_job_again_as_it_is_decides_nothing() -> None:
    """Whether a condition holds that cannot be read is all the same, where both ways leave the same job."""
    again = "\nDO $$ BEGIN IF x THEN PERFORM cron.schedule('a', '0 3 * * *', 'SELECT {}'); END IF; END $$;"
    imported = read(A + again.format(1))
    assert (imported.jobs, imported.left, imported.remarks) == ({"a": PLAIN}, (), ())
    assert read(A + again.format(2)).jobs == {}


@pytest.mark.parametrize(("literal", "is_told"), [("Bearer abcdefghijkl", True), ("abcdefghijkl", False)])
def test_a_token_in_a_command_that_is_no_sound_sql_is_told_too(literal: str, is_told: bool) -> None:
    """A quote that is not closed hides nothing."""
    told = remarks(f"SELECT cron.schedule('a', '0 3 * * *', $x$SELECT '{literal}$x$);")
    assert any("what looks like a token" in message for message in told) is is_told
