"""Calls of pg_cron's functions in SQL: which ones there are, and what they are given."""

from __future__ import annotations

import pytest

from reconciler.core.imports.sql_calls import Call, UnreadableError, find_call, mentions_call, read_constant
from reconciler.core.imports.sql_tokens import read_tokens


def read_call(sql: str) -> Call:
    """Read the call with which SQL begins."""
    tokens = read_tokens(sql)
    call = find_call(tokens, 0)
    assert call is not None
    return call


def arguments(sql: str) -> dict[str, object]:
    """Read a call's arguments, which are constants."""
    return {name: read_constant(tokens) for name, tokens in read_call(sql).arguments.items()}


@pytest.mark.parametrize(
    "sql",
    [
        "cron.schedule('n', 's', 'c')",
        "CRON.SCHEDULE('n','s','c')",
        "\"cron\" . \"schedule\" ( 'n' , 's' , 'c' )",
        "cron.schedule(job_name := 'n', schedule => 's', command := 'c')",
        "cron.schedule(command => $$c$$, schedule => 's'::text, job_name => CAST('n' AS text))",
        "cron.schedule('n', command => ('c'), schedule => text 's')",
        "cron.schedule('n'::pg_catalog.text, E's', 's'::varchar::text /* c */)".replace("'s'::v", "'c'::v"),
    ],
)
def test_arguments_are_read_in_every_notation(sql: str) -> None:
    """Positions, names, casts, quotes, blanks and capitals make no difference."""
    assert arguments(sql) == {"job_name": "n", "schedule": "s", "command": "c"}


def test_each_function_has_its_parameters() -> None:
    """By position they are those of pg_cron 1.4 and later."""
    assert arguments("cron.schedule('s', 'c')") == {"schedule": "s", "command": "c"}
    assert arguments("cron.schedule_in_database('n', 's', 'c', 'd', null, false)") == {
        "job_name": "n",
        "schedule": "s",
        "command": "c",
        "database": "d",
        "username": None,
        "active": False,
    }
    assert arguments("cron.alter_job(7, 's', active := 'f'::bool)") == {
        "job_id": 7,
        "schedule": "s",
        "active": False,
    }
    assert arguments("create_queue_worker('n', 'u', 't', 's')") == {
        "name": "n",
        "url": "u",
        "token": "t",
        "schedule": "s",
    }
    assert arguments("reconciler.drop_queue_worker('n')") == {"name": "n"}


@pytest.mark.parametrize(
    ("sql", "parameter"),
    [
        ("cron.unschedule('42')", "job_name"),
        ("cron.unschedule('x'::text)", "job_name"),
        ("cron.unschedule(jobname)", "job_name"),
        ("cron.unschedule('a' || b)", "job_name"),
        ("cron.unschedule(42)", "job_id"),
        ("cron.unschedule('42'::bigint)", "job_id"),
        ("cron.unschedule(jobid)", "job_id"),
        ("cron.unschedule((SELECT jobid FROM cron.job))", "job_id"),
        ("cron.unschedule(job_name => 'x')", "job_name"),
        ("cron.unschedule(job_id => 1)", "job_id"),
    ],
)
def test_unschedule_takes_a_name_or_a_number(sql: str, parameter: str) -> None:
    """A literal without a type is the name, as PostgreSQL has it."""
    assert list(read_call(sql).arguments) == [parameter]


@pytest.mark.parametrize(
    "sql",
    [
        "cron.schedule('a')",
        "cron.schedule('a', 'b', 'c', 'd')",
        "cron.schedule('a', 'b', commands => 'c')",
        "cron.schedule(schedule => 'a', 'b')",
        "cron.schedule('a', schedule => 'b', schedule => 'c')",
        "cron.schedule(VARIADIC ARRAY['a', 'b'])",
        "cron.alter_job()",
        "cron.schedule_in_database('a', 'b', 'c')",
        "create_queue_worker('a', 'b')",
        "cron.schedule('a', 'b'",
    ],
)
def test_what_fits_no_signature_is_unreadable(sql: str) -> None:
    """Too few, too many, unknown or doubled arguments."""
    with pytest.raises(UnreadableError):
        read_call(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "schedule('a', 'b')",
        "net.schedule('a', 'b')",
        "cron.schedule",
        "cron.job('a')",
        "cron.x.schedule('a')",
    ],
)
def test_what_is_no_call_of_these(sql: str) -> None:
    """Other schemas, other functions, and names without parentheses."""
    tokens = read_tokens(sql)
    assert find_call(tokens, 0) is None
    assert not mentions_call(tokens)


def test_calls_inside_of_others_are_noticed() -> None:
    """A statement is about these functions wherever their calls stand."""
    assert mentions_call(read_tokens("SELECT coalesce((SELECT cron.schedule('a', 'b')))"))
    assert mentions_call(read_tokens("x(create_queue_worker(1))"))
    assert not mentions_call(read_tokens("SELECT 'cron.schedule(1)', \"cron.schedule\"(1)"))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("'a' || 'b'", "built with ||"),
        ("format('%s', 1)", "built by format()"),
        ("(SELECT x FROM y)", "the result of a query"),
        ("v_name", "a variable"),
        ("rec.name", "a variable"),
        ("$1", "a parameter"),
        (":'name'", "a parameter"),
        ("'a'::json", "an expression"),
        ("'abc'::char(2)", "an expression"),
        ("interval '1 day'", "an expression"),
        ("1 + 2", "an expression"),
        ("B'01'", "an expression"),
        ("'" + "x" * 64 + "'::name", "cut to 63 bytes"),
    ],
)
def test_what_is_no_constant_says_what_it_is(sql: str, reason: str) -> None:
    """Nothing is worked out that only the database can."""
    with pytest.raises(UnreadableError) as caught:
        read_constant(read_tokens(sql))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'a'", "a"),
        ("(('a'))", "a"),
        ("'a'::text::varchar", "a"),
        ("CAST(('a') AS character varying)", "a"),
        ("NULL", None),
        ("null::text", None),
        ("TRUE", True),
        ("'off'::boolean", False),
        ("bool 't'", True),
        ("42", 42),
        ("-42", -42),
        ("42::bigint", 42),
        ("'a\nb'", "a\nb"),
    ],
)
def test_constants(sql: str, value: object) -> None:
    """Literals with casts and parentheses around them."""
    found = read_constant(read_tokens(sql))
    assert found == value
    assert type(found) is type(value)
