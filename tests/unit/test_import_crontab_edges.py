"""Lines of crontabs that few people write: what psql, curl and the shell make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.imports.crontabs import import_crontab
from reconciler.loader.sql_texts import find_sql_fault

if TYPE_CHECKING:
    from reconciler.core.imports.results import ImportedFiles


def read(command: str, **options: Any) -> ImportedFiles:
    """Import a crontab of one line."""
    return import_crontab(
        f"5 4 * * * {command}\n",
        path="crontab",
        find_fault=find_sql_fault,
        read_file=lambda _: None,
        timezone="UTC",
        **options,
    )


def reason(command: str, **options: Any) -> str:
    """Import a crontab of one line that is left, and say why."""
    imported = read(command, **options)
    assert not imported.jobs
    (left,) = imported.left
    return left.reason


def remarks(command: str) -> list[str]:
    """Import a crontab of one line, and say what people ought to know."""
    imported = read(command)
    assert imported.left == ()
    return [remark.message for remark in imported.remarks]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("nice -n 19", "it runs no command"),
        ("cd && psql -c 'SELECT 1'", "where it runs is up to the shell"),
        ("cd $WHERE && psql -c 'SELECT 1'", "where it runs is up to the shell"),
        ("psql -c `cat a.sql`", "the shell runs another command first (`)"),
        ("psql --single-step -c 'SELECT 1'", "what psql does with --single-step is not read"),
        ("psql --quiet=x -c 'SELECT 1'", "what psql does with --quiet is not read"),
        ("psql -f -", "the SQL comes from elsewhere"),
    ],
)
def test_what_cannot_be_told_is_left(command: str, expected: str) -> None:
    """Nothing is guessed of where and how a command runs."""
    assert reason(command) == expected


def test_a_line_of_a_system_that_has_a_user_and_no_command_is_left() -> None:
    """It is none that cron would run."""
    assert reason("alice", has_users=True) == "it is no line of a crontab"


@pytest.mark.parametrize(
    ("command", "database"),
    [
        ("psql -c 'SELECT 1' -- shop", "shop"),
        ("psql -dshop -c'SELECT 1'", "shop"),
        ("psql 'dbname=shop sslmode=require' -c 'SELECT 1'", "shop"),
        ("psql 'sslmode=require host=db dbname=shop' -c 'SELECT 1'", "db/shop"),
    ],
)
def test_where_psql_connects_to_is_found(command: str, database: str) -> None:
    """Behind --, in the option's own word, or among other settings of a connection."""
    assert remarks(command) == [f"the SQL ran in {database}: apply it to that target"]
    assert [job["sql"] for job in read(command).jobs.values()] == ["SELECT 1"]


def test_what_echo_says_is_the_file_of_the_name_minus() -> None:
    """So psql names its standard input."""
    assert [job["sql"] for job in read("echo 'SELECT 1' | psql -f -").jobs.values()] == ["SELECT 1"]


def test_sql_that_may_hold_a_secret_is_told() -> None:
    """It is imported to the letter all the same."""
    (told,) = remarks("psql -c \"SELECT rotate('password')\"")
    assert told.endswith("may hold a secret, and is imported to the letter")
    assert remarks("psql -c \"SELECT rotate('logs')\"") == []


def test_retries_of_curl_are_told() -> None:
    """They are not imported: a job says itself how it is tried again."""
    assert remarks("curl --retry 3 https://a.test/run") == [
        "run no longer tries again: write on_failure for that"
    ]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("refresh_all_materialized_views", "select-refresh-all-materialized-views"),
        ("refresh_each_of_the_materialized", "select-refresh-each-of-the-materialized"),
        ("recompute_everything_about_materialized_view", "select-recompute-everything-about"),
    ],
)
def test_a_long_name_ends_with_a_whole_word(function: str, name: str) -> None:
    """A job is called after what it does, in six words and forty letters at the most."""
    assert list(read(f"psql -c 'SELECT {function}()'").jobs) == [name]


def test_a_name_of_one_long_word_is_cut() -> None:
    """There is no whole word to end with."""
    assert list(read(f"curl https://a.test/{'x' * 50}").jobs) == ["x" * 40]
