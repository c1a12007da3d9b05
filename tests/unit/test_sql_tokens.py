"""PostgreSQL's lexical rules: what is a literal, a name, a comment, and where a statement ends."""

from __future__ import annotations

import pytest

from reconciler.core.imports.excerpts import render_command, render_tokens
from reconciler.core.imports.sql_tokens import SqlTextError, read_statements, read_tokens


def texts(sql: str) -> list[str]:
    """Give the contents of all literals."""
    return [token.value for token in read_tokens(sql) if token.kind == "text"]


def values(sql: str) -> list[str]:
    """Give the values of all tokens."""
    return [token.value for token in read_tokens(sql)]


@pytest.mark.parametrize(
    ("sql", "content"),
    [
        ("'a''b'", "a'b"),
        (r"'a\n'", r"a\n"),
        (r"E'a\nb\t\'\\\q'", "a\nb\t'\\q"),
        (r"e'it''s'", "it's"),
        (r"E'\x41\101\u00e4\U0001F600'", "AAä😀"),
        (r"E'\uD83D\uDE00'", "😀"),
        (r"E'\xc3\xa4\303\244'", "ää"),
        ("N'a'", "a"),
        (r"U&'d\0061t\+000061 \\'", r"data " + "\\"),
        ("U&'d!0061t!!' UESCAPE '!'", "dat!"),
        (r"U&'\D83D\DE00'", "😀"),
        ("'a'\n  'b'", "ab"),
        ("'a' -- why\n  -- not\n'b'", "ab"),
        (r"E'a\t'" + "\n" + r"'\n'", "a\t\n"),
        ("$$it's $1 \\ $a$ $$", "it's $1 \\ $a$ "),
        ("$a$ $$x$$ $b$ $a$", " $$x$$ $b$ "),
        ("$ä_1$x$ä_1$", "x"),
        ("$$$$", ""),
    ],
)
def test_a_literal_is_read_as_postgresql_reads_it(sql: str, content: str) -> None:
    """Escapes, doubled quotes, dollar quotes, and literals that go on in the next line."""
    assert texts(sql) == [content]


@pytest.mark.parametrize(
    ("sql", "contents"),
    [
        ("'a' 'b'", ["a", "b"]),
        ("'a' /* \n */ 'b'", ["a", "b"]),
        ("a$$b$$", []),
        ("$1$2", []),
        ("-- 'no'\n'yes'", ["yes"]),
        ("/* 'no' /* 'no' */ 'no' */ 'yes'", ["yes"]),
        ("'a'::text, 'b'", ["a", "b"]),
        ("\"it's\" 'yes'", ["yes"]),
        ("x-- 'no'", []),
        ("1/* 'no' */", []),
        ("@-/* 'no' */'yes'", ["yes"]),
    ],
)
def test_what_is_a_literal_and_what_is_none(sql: str, contents: list[str]) -> None:
    """Comments nest, names with dollars begin no quotes, literals on one line stay apart."""
    assert texts(sql) == contents


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a=>-1", ["a", "=>", "-", "1"]),
        ("a:=b::c", ["a", ":=", "b", "::", "c"]),
        ("1..10", ["1", "..", "10"]),
        ("a=-1", ["a", "=", "-", "1"]),
        ("a@-1", ["a", "@-", "1"]),
        ("1.5e-3", ["1.5", "e", "-", "3"]),
        ('SELECT Ä"B""c"', ["select", "Ä", 'B"c']),
        ("U&\"d\\0061\" E 'x'", ["da", "e", "x"]),
        ("$12,b'01'", ["$12", ",", "b'01'"]),
    ],
)
def test_other_tokens(sql: str, expected: list[str]) -> None:
    """Operators end as in PostgreSQL, words fold their ASCII letters only, names keep theirs."""
    assert values(sql) == expected


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("a\n'b", 2),
        ("$$a", 1),
        ("$a$ $$", 1),
        ("\n\n/* /* */", 3),
        ('"a', 1),
        (r"E'\'", 1),
        (r"E'\xff'", 1),
        (r"E'\u0000'", 1),
        (r"E'\U00110000'", 1),
        (r"U&'\D83D'", 1),
    ],
)
def test_what_postgresql_cannot_read_is_an_error_with_its_line(sql: str, line: int) -> None:
    """Quotes that are not closed, and escapes that are no characters."""
    with pytest.raises(SqlTextError) as caught:
        read_tokens(sql)
    assert caught.value.line == line


def test_tokens_know_their_lines() -> None:
    """Also behind literals and comments of several lines."""
    lines = [(token.value[:1], token.line) for token in read_tokens("a\n'\n\n' b /*\n*/ c\n\nd", line=5)]
    assert lines == [("a", 5), ("\n", 6), ("b", 8), ("c", 9), ("d", 11)]


def statements(script: str) -> list[str]:
    """Give the statements of a script, each in one line."""
    return [render_tokens(tokens, limit=1000) for tokens in read_statements(script)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("a;;b;", ["a", "b"]),
        ("a (;) b; c", ["a (;) b", "c"]),
        ("select ';'; b", ["select ';'", "b"]),
        ("copy t from stdin;\nit's; data\n\\.\nb", ["copy t from stdin", "b"]),
        (
            "COPY t (a, b) FROM stdin WITH (format csv);\n'\n\\.\r\nb;",
            ["copy t (a, b) from stdin with (format csv)", "b"],
        ),
        ("copy t from stdin;\nno end's", ["copy t from stdin"]),
        ("copy t from 'stdin'; b", ["copy t from 'stdin'", "b"]),
        ("\\copy t from stdin\nit's\n\\.\nb", ["\\copy", "b"]),
        ("\\echo it's\nb", ["\\echo", "b"]),
        ("select 1 \\gexec\nb", ["select 1 \\gexec", "b"]),
        ("a \\echo it's\n b; c", ["\\echo", "a b", "c"]),
        ("select 1 \\; select 2; b", ["select 1", "select 2", "b"]),
        ("a \\r\nb", ["\\r", "b"]),
        (
            "create function f() begin atomic select case when a then 1 end; select 2; end; b",
            ["create function f() begin atomic select case when a then 1 end; select 2; end", "b"],
        ),
        ("begin; end; b", ["begin", "end", "b"]),
        ("do $$ begin; end $$; b", ["do 'begin; end'", "b"]),
        ("-- only a comment\n", []),
    ],
)
def test_scripts_are_cut_as_psql_cuts_them(script: str, expected: list[str]) -> None:
    """Parentheses, routines in standard SQL, data behind COPY, and psql's own commands."""
    assert [" ".join(one.split()) for one in statements(script)] == expected


def test_excerpts_are_short_and_show_no_tokens() -> None:
    """Long literals and those that may be secret are left out, and so is all of create_queue_worker."""
    tokens = read_tokens(
        "SELECT f('plain', 'Bearer abc', '"
        + "x" * 70
        + "', 'postgres://u:pw@h'), create_queue_worker('a', 'b')"
    )
    assert render_tokens(tokens, limit=200) == (
        "select f('plain', '...', '...', '...'), create_queue_worker('...', '...')"
    )
    assert len(render_tokens(read_tokens("a " * 100))) <= 100


@pytest.mark.parametrize(
    "command",
    [
        "curl -H 'Authorization: Bearer CANARY' x",
        "curl -H 'Authorization: Basic CANARY' x",
        "curl -H 'X-Api-Key: CANARY' x",
        "curl -u me:CANARY x",
        "curl --user me:CANARY x",
        "psql postgres://me:CANARY@host/db",
        "PGPASSWORD=CANARY psql",
        "PGPASSWORD='CAN ARY CANARY' psql",
        "backup --password=CANARY",
        "curl 'https://a.test/?api_key=CANARY&b=1'",
        "psql -c \"SELECT create_queue_worker('a', 'b', 'CANARY')\"",
        "curl -b 'cookie: CANARY'",
    ],
)
def test_commands_are_shown_without_secrets(command: str) -> None:
    """Whatever looks like a password or token is not printed."""
    shown = render_command(command)
    assert "CANARY" not in shown
    assert "***" in shown
