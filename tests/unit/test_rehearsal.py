"""What a dry run reads from plans and statements."""

from __future__ import annotations

import pytest

from reconciler.database.rehearsal import count_rows, name_command

ACTUAL = "(cost=0.00..1.00 rows=9 width=0) (actual time=0.010..0.010 rows={} loops={})"


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        ([], None),
        (["Seq Scan on t  " + ACTUAL.format(3, 1)], 3),
        # PostgreSQL 18 writes a mean with two digits.
        (["Seq Scan on t  " + ACTUAL.format("2.33", 3)], 7),
        (["Result  (cost=0.00..0.01 rows=1 width=4) (never executed)"], None),
        (["Delete on t  " + ACTUAL.format(0, 1), "  ->  Seq Scan on t  " + ACTUAL.format(5, 1)], 5),
        # A query in front of the change is no part of what it touched.
        (
            [
                "Insert on t  " + ACTUAL.format(0, 1),
                "  CTE gone",
                "    ->  Delete on s  " + ACTUAL.format(8, 1),
                "          ->  Seq Scan on s  " + ACTUAL.format(8, 1),
                "  ->  CTE Scan on gone  " + ACTUAL.format(2, 1),
            ],
            2,
        ),
        # PostgreSQL 13 has one node below for each partition.
        (
            [
                "Update on t  " + ACTUAL.format(0, 1),
                "  ->  Seq Scan on t1  " + ACTUAL.format(1, 1),
                "  ->  Seq Scan on t2  " + ACTUAL.format(2, 1),
            ],
            3,
        ),
        (
            [
                "Insert on t  " + ACTUAL.format(0, 1),
                "  Conflict Resolution: NOTHING",
                "  Conflict Arbiter Indexes: t_pkey",
                "  Tuples Inserted: 4",
                "  Conflicting Tuples: 6",
                "  ->  Seq Scan on s  " + ACTUAL.format(10, 1),
            ],
            4,
        ),
        (
            [
                "Insert on t  " + ACTUAL.format(0, 1),
                "  Conflict Resolution: UPDATE",
                "  Tuples Inserted: 4",
                "  Conflicting Tuples: 6",
                "  ->  Seq Scan on s  " + ACTUAL.format(10, 1),
            ],
            10,
        ),
        (
            [
                "Merge on t  " + ACTUAL.format(0, 1),
                "  Tuples: inserted=1 updated=2 deleted=3 skipped=4",
                "  ->  Seq Scan on s  " + ACTUAL.format(10, 1),
            ],
            6,
        ),
    ],
)
def test_counting_rows(plan: list[str], rows: int | None) -> None:
    """A plan tells how many rows its statement gave or changed."""
    assert count_rows(plan) == rows


@pytest.mark.parametrize(
    ("statement", "plan", "command"),
    [
        ("update t set a = 1", ["Update on t  "], "UPDATE"),
        ("WITH x AS (SELECT 1) DELETE FROM t", ["Delete on t  "], "DELETE"),
        ("(SELECT 1)", ["Result"], "SELECT"),
        ("create unlogged table t ()", [], "CREATE TABLE"),
        ("-- why\nCREATE OR REPLACE TEMP VIEW v AS SELECT 1", [], "CREATE VIEW"),
        ("TRUNCATE t", [], "TRUNCATE"),
        ("do $$ begin end $$", [], "DO"),
        ("", [], "statement"),
    ],
)
def test_naming_commands(statement: str, plan: list[str], command: str) -> None:
    """A statement is called by its first words, or by what its plan does."""
    assert name_command(statement, plan) == command
