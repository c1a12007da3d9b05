"""Splitting SQL into statements: only a semicolon that ends one counts."""

from __future__ import annotations

import pytest

from reconciler.loader.sql_texts import split_statements

_ATOMIC = (
    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
)


_RULE = "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)"


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        (" SELECT 1 ;\nSELECT 2;\n", ["SELECT 1", "SELECT 2"]),
        ("", []),
        ("-- nothing\n;; /* here; */ ;", []),
        ("'", ["'"]),
        (r"SELECT 'C:\'; SELECT 'b'", [r"SELECT 'C:\'", "SELECT 'b'"]),
        (r"SELECT E'it\'s; x'; SELECT 2", [r"SELECT E'it\'s; x'", "SELECT 2"]),
        ("SELECT 'it''s; x'; SELECT 2", ["SELECT 'it''s; x'", "SELECT 2"]),
        ('SELECT 1 AS "a;b"; SELECT 2', ['SELECT 1 AS "a;b"', "SELECT 2"]),
        ("DO $$ BEGIN PERFORM 1; END $$; SELECT 2", ["DO $$ BEGIN PERFORM 1; END $$", "SELECT 2"]),
        (
            "DO $a$ BEGIN EXECUTE $b$ x; $b$; END $a$; SELECT 2",
            ["DO $a$ BEGIN EXECUTE $b$ x; $b$; END $a$", "SELECT 2"],
        ),
        ("/* a /* b; */ c; */ SELECT 1; SELECT 2", ["/* a /* b; */ c; */ SELECT 1", "SELECT 2"]),
        ("SELECT 1 -- a; b\n; SELECT 2", ["SELECT 1 -- a; b", "SELECT 2"]),
        (f"{_RULE}; SELECT 3", [_RULE, "SELECT 3"]),
        (f"{_ATOMIC}; SELECT 3", [_ATOMIC, "SELECT 3"]),
        ("UPDATE t SET begin = 1; SELECT 2", ["UPDATE t SET begin = 1", "SELECT 2"]),
        ("SELECT CASE WHEN a THEN 1 END; SELECT 2", ["SELECT CASE WHEN a THEN 1 END", "SELECT 2"]),
        ("SELECT (1; SELECT 2", ["SELECT (1; SELECT 2"]),
        ("SELECT 1); SELECT 2", ["SELECT 1)", "SELECT 2"]),
    ],
)
def test_splitting(text: str, statements: list[str]) -> None:
    """A text falls into the statements that PostgreSQL would execute one after the other."""
    assert list(split_statements(text)) == statements
