"""Our reading of pg_cron's grammar beside pg_cron itself."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.schedules import ANY_DIALECT, accepts, dialect_for, find_problem
from tests.schedule_texts import VECTORS, any_text, short_fields, sound_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from tests.servers import Database

# cron.schedule() in a subtransaction that is always rolled back, for hundreds of texts in one round trip.
PROBE = """
CREATE FUNCTION pg_temp.takes(texts text[]) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    answers boolean[] := '{}';
    candidate text;
BEGIN
    FOREACH candidate IN ARRAY texts LOOP
        BEGIN
            PERFORM cron.schedule(candidate, 'SELECT 1');
            RAISE EXCEPTION USING ERRCODE = 'RB001';
        EXCEPTION
            WHEN SQLSTATE 'RB001' THEN answers := answers || true;
            WHEN invalid_parameter_value THEN answers := answers || false;
        END;
    END LOOP;
    RETURN answers;
END $$
"""

BESIDE_A_DATABASE = settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def connect_with_probe(database: Database) -> psycopg.Connection:
    """Open a connection that has the probing function."""
    conn = database.connect()
    conn.execute(PROBE)
    return conn


def ask(conn: psycopg.Connection, texts: Iterable[str]) -> dict[str, bool]:
    """Ask pg_cron about each text."""
    distinct = sorted(set(texts))
    row = conn.execute("SELECT pg_temp.takes(%s::text[])", [distinct]).fetchone()
    assert row is not None
    return dict(zip(distinct, row[0], strict=True))


def test_known_texts_are_read_alike(database: Database) -> None:
    """Each text of the list is taken by cron.schedule() exactly where accepts() says so."""
    dialect = dialect_for(database.server.pg_cron)
    taken = ask(connect_with_probe(database), VECTORS)
    assert {text: accepts(text, dialect) for text in taken} == taken
    assert 0 < sum(taken.values()) < len(taken)


def test_every_short_field_is_read_alike(database: Database) -> None:
    """Every field of up to three characters is taken by cron.schedule() exactly where accepts() says so."""
    dialect = dialect_for(database.server.pg_cron)
    taken = ask(connect_with_probe(database), short_fields())
    wrong = [text for text, answer in taken.items() if accepts(text, dialect) is not answer]
    assert wrong == []
    assert len(taken) > 3_000


def test_drawn_texts_are_read_alike(database: Database) -> None:
    """Any text at all is taken by cron.schedule() exactly where accepts() says so."""
    dialect = dialect_for(database.server.pg_cron)
    conn = connect_with_probe(database)
    seen: set[str] = set()

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        chance = Random(seed)
        taken = ask(conn, (any_text(chance) for _ in range(200)))
        seen.update(taken)
        assert [
            (text, answer) for text, answer in taken.items() if accepts(text, dialect) is not answer
        ] == []

    compare()
    assert len(seen) > 3_000


def test_what_we_let_through_is_taken(database: Database) -> None:
    """A schedule in which find_problem() finds nothing is taken, and so is each spelling that it suggests."""
    dialect = dialect_for(database.server.pg_cron)
    conn = connect_with_probe(database)

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        chance = Random(seed)
        texts = [kind(chance) for kind in (any_text, sound_text) for _ in range(100)]
        problems = {text: find_problem(text, dialect) for text in texts}
        good = {problem.suggestion if problem else text for text, problem in problems.items()} - {""}
        refused = [text for text, answer in ask(conn, good).items() if not answer]
        assert refused == []

    compare()


def test_the_union_of_all_versions_holds_each(database: Database) -> None:
    """ANY_DIALECT takes every known text that this pg_cron takes."""
    taken = ask(connect_with_probe(database), VECTORS)
    assert [text for text, answer in taken.items() if answer and not accepts(text, ANY_DIALECT)] == []
