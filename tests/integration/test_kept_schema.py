"""The schema that is kept from one test to the next: what a test finds must be what the migrations make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.errors import RefusedError
from tests.declared import Site, channel, job, once, queue, worker
from tests.kept_schema import SchemaKeeper

if TYPE_CHECKING:
    from psycopg import Connection

pytestmark = pytest.mark.one_server

# A little is counted by autovacuum, whenever it comes by.
SHAPE: LiteralString = """
    SELECT 'relation', relname::text, concat_ws(' ', relkind, relowner::regrole, relacl, reloptions,
           relrowsecurity, relpersistence, reltuples > 99, pg_get_viewdef(oid),
           obj_description(oid, 'pg_class'))
      FROM pg_class WHERE relnamespace = 'reconciler'::regnamespace AND relkind <> 'i'
    UNION ALL
    SELECT 'column', concat_ws(' ', attrelid::regclass, attnum, attname), concat_ws(' ', attnotnull,
           attidentity, format_type(atttypid, atttypmod), attacl, pg_get_expr(adbin, adrelid),
           col_description(attrelid, attnum))
      FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace = 'reconciler'::regnamespace AND relkind <> 'i' AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
      FROM pg_index JOIN pg_class ON oid = indrelid WHERE relnamespace = 'reconciler'::regnamespace
    UNION ALL
    SELECT 'constraint', concat_ws(' ', conrelid::regclass, conname), pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'reconciler'::regnamespace
    UNION ALL
    SELECT 'trigger', concat_ws(' ', tgrelid::regclass, tgname),
           concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid))
      FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
     WHERE relnamespace = 'reconciler'::regnamespace AND NOT tgisinternal
    UNION ALL
    SELECT 'function', oid::regprocedure::text, concat_ws(' ', proowner::regrole, proacl,
           CASE WHEN prokind <> 'a' THEN pg_get_functiondef(oid) END, obj_description(oid, 'pg_proc'))
      FROM pg_proc WHERE pronamespace = 'reconciler'::regnamespace
    UNION ALL
    SELECT 'schema', nspname::text,
           concat_ws(' ', nspowner::regrole, nspacl, obj_description(oid, 'pg_namespace'))
      FROM pg_namespace WHERE nspname = 'reconciler'
    UNION ALL
    SELECT 'sequence', seqrelid::regclass::text, concat_ws(' ', seqstart, pg_sequence_last_value(seqrelid))
      FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid
     WHERE relnamespace = 'reconciler'::regnamespace
    ORDER BY 1, 2, 3
"""
OID: LiteralString = "SELECT to_regnamespace('reconciler')::oid"
MANY: LiteralString = (
    "INSERT INTO reconciler.cron_execution_log (job_name, role, backend_pid, completed_at, status)"
    " SELECT 'a', 'x', 1, now(), 'lost' FROM generate_series(1, 3000); ANALYZE reconciler.cron_execution_log"
)
NOTE: LiteralString = (
    "CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    "CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION public.note()"
)
APPLIED = (job("a"), queue("q"), worker("w", queue="q"), channel("c"), once("o"))


def read_all(site: Site) -> tuple[list[tuple[Any, ...]], dict[str, list[str]]]:
    """Read the shape of the schema, and its rows without times, keys and numbers of objects."""
    fresh = ("applied_at", "key", "recorded_at", "created_at", "updated_at", "table_oids", "jobid")
    rows = {}
    with site.database.server.connect() as conn:
        for name in site.everything():
            query = f"SELECT (to_jsonb(t) - %s::text[])::text FROM {name} AS t ORDER BY 1".encode()
            rows[name] = [row[0] for row in conn.execute(query, [list(fresh)])]
    return site.rows(SHAPE), {name: rows[name] for name in rows if name != "cron.job"}


def apply_again(site: Site) -> bool:
    """Clean as before the next test and apply; return whether the schema is the one that was there before."""
    before = site.rows(OID)
    site.database.server.clean()
    assert site.rows(OID) == [(None,)]
    site.apply(*APPLIED)
    return site.rows(OID) == before


def test_what_is_brought_back_is_what_migrations_make(site: Site) -> None:
    """Objects, privileges, comments, sequences and rows are the same, whether made now or kept."""
    site.database.server.schema = SchemaKeeper()
    made = site.apply(*APPLIED)
    shape, rows = read_all(site)
    assert apply_again(site)
    assert read_all(site) == (shape, rows)
    site.database.server.clean()
    again = site.apply(*APPLIED)
    assert (again.migrations, again.revision) == (made.migrations, made.revision)


def test_nothing_is_seen_of_what_is_kept(site: Site) -> None:
    """No schema but those of a new database is listed; and a failed apply leaves it so."""
    site.apply(*APPLIED)
    for _ in range(2):
        site.database.server.clean()
        assert site.everything().keys() == {"cron.job"}
        assert site.rows("SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1") == [
            ("cron",),
            ("information_schema",),
            ("public",),
        ]
        with pytest.raises(RefusedError):
            site.apply(job("a", "SELECT", schedule="no schedule"))
        assert site.rows(OID) == [(None,)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reconciler.run_key SET key = 'x'",
        "DELETE FROM reconciler.run_key; DELETE FROM reconciler.migrations",
        "UPDATE reconciler.definitions SET owner = 'somebody'",
        "SELECT setval('reconciler.jobs_id_seq', 70, false)",
        "SELECT nextval('reconciler.jobs_id_seq')",
        "VACUUM",
        MANY,
        "SELECT reconciler.enqueue('h', payload => to_jsonb(repeat(gen_random_uuid()::text, 999)))",
        "GRANT USAGE ON SCHEMA reconciler TO alice",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA reconciler GRANT SELECT ON TABLES TO alice",
    ],
)
def test_rows_and_what_is_counted_of_them_are_as_new(site: Site, statement: LiteralString) -> None:
    """Whatever a test does to the rows, the next one finds those of a new schema."""
    site.apply(*APPLIED)
    expected = read_all(site)
    site.run("CREATE ROLE alice")
    site.run(statement)
    assert apply_again(site)
    assert read_all(site) == expected


@pytest.mark.one_server
@pytest.mark.parametrize(
    "statement",
    [
        "GRANT SELECT ON reconciler.jobs TO alice",
        "REVOKE ALL ON SCHEMA reconciler FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION reconciler.enqueue_many TO alice",
        "GRANT SELECT (id) ON reconciler.jobs TO alice",
        "ALTER SCHEMA reconciler OWNER TO alice",
        "ALTER TABLE reconciler.pauses OWNER TO alice",
        "ALTER FUNCTION reconciler.read_duration COST 7",
        "CREATE FUNCTION reconciler.more() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE TABLE reconciler.more ()",
        "CREATE TYPE reconciler.more AS ENUM ()",
        "CREATE INDEX ON reconciler.jobs_open (created_at)",
        "DROP INDEX reconciler.jobs_ready_idx",
        "ALTER TABLE reconciler.pauses ADD COLUMN more int",
        "ALTER TABLE reconciler.pauses ALTER COLUMN reason SET DEFAULT 'x'",
        "ALTER TABLE reconciler.pauses ADD CHECK (job_name <> 'x')",
        "ALTER TABLE reconciler.pauses SET (fillfactor = 50)",
        "ALTER TABLE reconciler.policies DISABLE TRIGGER ALL",
        "ALTER TABLE reconciler.run_key DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY more ON reconciler.pauses",
        "CREATE RULE more AS ON DELETE TO reconciler.pauses DO INSTEAD NOTHING",
        "CREATE STATISTICS reconciler.more ON job_name, reason FROM reconciler.pauses",
        "CREATE TRIGGER more BEFORE DELETE ON reconciler.pauses EXECUTE FUNCTION reconciler.mark_edited()",
        "CREATE OR REPLACE VIEW reconciler.declared_workers AS TABLE reconciler.declared_workers",
        "ALTER SEQUENCE reconciler.jobs_id_seq INCREMENT 3",
        "COMMENT ON TABLE reconciler.pauses IS 'more'",
        "ANALYZE",
        "DROP SCHEMA reconciler CASCADE; CREATE SCHEMA reconciler",
        "DROP EXTENSION pg_cron CASCADE",
    ],
)
def test_a_changed_schema_is_made_anew(site: Site, statement: LiteralString) -> None:
    """Whatever a test does to the objects, the next one finds a schema that the migrations made just now."""
    site.apply(*APPLIED)
    expected = read_all(site)
    site.run("CREATE ROLE alice")
    site.run(statement)
    assert not apply_again(site)
    assert read_all(site) == expected


@pytest.mark.one_server
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE alice; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO alice",
        "CREATE FUNCTION public.now(text) RETURNS text LANGUAGE sql RETURN 1",
        "CREATE OPERATOR public.= (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = jsonb_exists)",
        "ALTER ROLE postgres SET search_path = public, pg_catalog",
        NOTE,
        "DROP EXTENSION pg_cron; CREATE EXTENSION pg_cron",
    ],
)
def test_migrations_run_where_they_would_meet_something_else(site: Site, statement: LiteralString) -> None:
    """Nothing is brought back where migrations could come out otherwise, or where it was damaged since."""
    site.apply(*APPLIED)
    before = site.rows(OID)
    site.database.server.clean()
    site.run(statement)
    site.apply(*APPLIED)
    assert site.rows(OID) != before


def test_another_role_makes_its_own(site: Site) -> None:
    """What a superuser made is not handed to a role that would own what its migrations make."""
    site.apply(*APPLIED)
    site.database.server.clean()
    site.run(
        "CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice; GRANT CREATE ON DATABASE app TO alice"
    )
    Site(site.database, "alice").apply(job("a"))
    owner: LiteralString = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'reconciler'"
    assert site.rows(owner) == [("alice",)]


@pytest.mark.migrates
def test_only_these_tables_have_rows_after_the_migrations(site: Site) -> None:
    """Whoever lets a migration write another row decides here whether it may be kept from test to test."""
    site.apply()

    def count(conn: Connection[Any], name: str) -> bool:
        return conn.execute(f"SELECT FROM {name} LIMIT 1".encode()).rowcount == 1

    with site.database.server.connect() as conn:
        filled = {name.removeprefix("reconciler.") for name in site.everything() if count(conn, name)}
    assert filled - {"cron.job", "definitions", "policies", "revisions"} == {
        "migrations",
        "run_key",
        "identity",
    }
