"""The schema `reconciler` kept from one test to the next: to make it anew takes longer than most tests.

The first apply on a server makes it by the migrations. After a test it is emptied and put away under a name
that nothing looks for, but only if all of its objects, owners and privileges are the very ones that the
migrations made; else it is dropped. The next first apply of a superuser brings it back in place of the
migrations' statements, in its own transaction, and does all else as ever: a rollback hides it again. Whatever
would make migrations do something else makes them really run, and so does the marker `migrates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from reconciler.database.migrate import AFTER_MIGRATIONS, apply_migrations, find_pending
from reconciler.database.queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from reconciler.core.facts import Facts
    from reconciler.database.migrate import Migration

HIDDEN = "pg_reconciler_kept"
"""A system schema by its name, as the temporary ones: what lists schemas leaves it out."""

_FOLDER = Path(__file__).parent / "postgres"
_PRISTINE = (_FOLDER / "pristine.sql").read_text()
_EMPTY = (_FOLDER / "empty.sql").read_bytes()

# What would have its way with the objects that migrations make, or with how their text is read.
_PLAIN: LiteralString = """
    SELECT current_user = session_user
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       AND current_setting('search_path') = '"$user", public'
       AND current_setting('default_tablespace') = ''
       AND current_setting('default_table_access_method') = 'heap'
       AND NOT EXISTS (SELECT FROM pg_default_acl)
       AND NOT EXISTS (SELECT FROM pg_event_trigger)
       AND NOT EXISTS (SELECT FROM pg_operator WHERE oid >= 16384)
       AND NOT EXISTS (SELECT FROM pg_cast WHERE oid >= 16384)
       AND NOT EXISTS (
           SELECT FROM pg_proc AS theirs JOIN pg_proc AS same USING (proname)
            WHERE theirs.oid >= 16384 AND same.pronamespace = 'pg_catalog'::regnamespace
              AND theirs.pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^(pg_|cron$)'))
"""
_OBJECTS: LiteralString = """
    SELECT n.nspname = %s
       AND (SELECT count(*) FROM pg_depend
             WHERE refclassid = 'pg_namespace'::regclass AND refobjid = n.oid) = %s
       AND (SELECT string_agg(concat_ws(' ', oid, xmin), ',' ORDER BY oid) FROM pg_extension
             WHERE extname = 'pg_cron') = %s
      FROM pg_namespace AS n WHERE n.oid = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSchema:
    """What the migrations made.

    Attributes:
        oid: Of the schema.
        digest: Of all of its objects.
        objects: How many there are.
        extension: Which pg_cron they were made on.
        migrations: Number, name and checksum of each.
        rows: The rows that migrations leave in other tables, as JSON.
    """

    oid: int
    digest: str
    objects: int
    extension: str
    migrations: tuple[tuple[int, str, str], ...]
    rows: dict[str, str]

    def bring_back(self, conn: Connection[Any], facts: Facts, pending: tuple[Migration, ...]) -> bool:
        """Bring the schema back, as if these migrations had just been applied.

        Args:
            conn: The apply's, in its transaction.
            facts: Of the target.
            pending: What there is to apply.

        Returns:
            False where it does not fit, or is not as it was put away; then nothing was done.
        """
        if tuple((one.number, one.name, one.checksum) for one in pending) != self.migrations:
            return False
        if not self.is_put_away(conn) or not is_plain(conn):
            return False
        conn.execute(
            sql.SQL("ALTER SCHEMA {} RENAME TO reconciler; SET LOCAL check_function_bodies = off").format(
                sql.Identifier(HIDDEN)
            )
        )
        conn.execute(
            "INSERT INTO reconciler.migrations (number, name, checksum)"
            " SELECT * FROM unnest(%s::integer[], %s::text[], %s::text[])",
            [list(column) for column in zip(*self.migrations, strict=True)],
        )
        for name in AFTER_MIGRATIONS:
            conn.execute(load_queries("apply")[name], {"zone": facts.known_timezone})
        return True

    def is_put_away(self, conn: Connection[Any]) -> bool:
        """Tell whether the schema lies as it was put away; for nobody can mean it there, a look is enough."""
        return _fetch(conn, _OBJECTS, [HIDDEN, self.objects, self.extension, self.oid]) == (True,)

    def put_away(self, conn: Connection[Any]) -> bool:
        """Empty the schema and put it away, wherever it is now.

        Args:
            conn: A superuser's, autocommit, on the cleaned database.

        Returns:
            False where it is gone, or no longer what the migrations made.
        """
        try:
            with conn.transaction():
                conn.execute("SELECT set_config('clean.kept', %s, false)", [str(self.oid)])
                conn.execute(_EMPTY)
                if _make_digest(conn, self.oid) != self.digest:
                    return False
                for table, rows in self.rows.items():
                    conn.execute(
                        sql.SQL(
                            "INSERT INTO reconciler.{} OVERRIDING SYSTEM VALUE"
                            " SELECT * FROM json_populate_recordset(NULL::reconciler.{}, %s::json)"
                        ).format(sql.Identifier(table), sql.Identifier(table)),
                        [rows],
                    )
                conn.execute(
                    sql.SQL(
                        "SET LOCAL allow_system_table_mods = on; ALTER SCHEMA reconciler RENAME TO {}"
                    ).format(sql.Identifier(HIDDEN))
                )
        except psycopg.errors.DatabaseError:
            if conn.broken:
                raise
            return False
        return True


def is_plain(conn: Connection[Any]) -> bool:
    """Tell whether migrations would make here what they make in a new database."""
    return _fetch(conn, _PLAIN) == (True,)


def note_schema(conn: Connection[Any], ran: tuple[Migration, ...]) -> KeptSchema:
    """Note what the migrations made; call it right after them, in their transaction."""
    row = _fetch(
        conn,
        "SELECT n.oid::bigint, (SELECT count(*) FROM pg_depend"
        "  WHERE refclassid = 'pg_namespace'::regclass AND refobjid = n.oid),"
        " (SELECT string_agg(concat_ws(' ', oid, xmin), ',' ORDER BY oid) FROM pg_extension"
        "  WHERE extname = 'pg_cron')"
        " FROM pg_namespace AS n WHERE nspname = 'reconciler'",
    )
    assert row is not None
    return KeptSchema(
        oid=row[0],
        digest=_make_digest(conn, row[0]),
        objects=row[1],
        extension=row[2],
        migrations=tuple((one.number, one.name, one.checksum) for one in ran),
        rows=_read_rows(conn, row[0]),
    )


class SchemaKeeper:
    """Keeps the schema of one server."""

    def __init__(self) -> None:
        self._kept: KeptSchema | None = None

    @property
    def oid(self) -> int:
        """Return the number of the schema that is kept; 0 for none."""
        return 0 if self._kept is None else self._kept.oid

    def apply_migrations(self, conn: Connection[Any], facts: Facts) -> tuple[Migration, ...]:
        """Do what the product's function does, or bring back what it made before."""
        pending = find_pending(facts.migrations)
        if facts.migrations or not pending or not facts.rights.create_schema:
            return apply_migrations(conn, facts)
        if self._kept is not None and self._kept.bring_back(conn, facts, pending):
            return pending
        plain = is_plain(conn)
        ran = apply_migrations(conn, facts)
        if plain and (self._kept is None or not self._kept.is_put_away(conn)):
            self._kept = note_schema(conn, ran)
        return ran

    def clean(self, conn: Connection[Any]) -> None:
        """Put the schema away for the next test; drop whatever else bears its names.

        Args:
            conn: A superuser's, autocommit, on a database that is clean but for these schemas.
        """
        if self._kept is not None and not (self._kept.is_put_away(conn) or self._kept.put_away(conn)):
            self._kept = None
        if self._kept is None:
            drop: LiteralString = "DROP SCHEMA IF EXISTS reconciler, {} CASCADE"
            conn.execute(sql.SQL(drop).format(sql.Identifier(HIDDEN)))


def _fetch(
    conn: Connection[Any], query: LiteralString, values: Sequence[object] = ()
) -> tuple[Any, ...] | None:
    """Fetch one row, whatever rows the connection makes for its owner."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, values or None).fetchone()


def _make_digest(conn: Connection[Any], oid: int) -> str:
    row = _fetch(conn, _PRISTINE.replace("{oid}", str(oid)))
    assert row is not None
    return str(row[0])


def _read_rows(conn: Connection[Any], oid: int) -> dict[str, str]:
    """Read the rows of the schema, as JSON by table; not those of `migrations`, which each apply writes."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        tables = cursor.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = %s AND relkind = 'r'"
            " AND relname <> 'migrations' AND pg_relation_size(oid) > 0",
            [oid],
        ).fetchall()
        rows = {}
        for (table,) in tables:
            query = sql.SQL("SELECT json_agg(t)::text FROM reconciler.{} AS t").format(sql.Identifier(table))
            row = cursor.execute(query).fetchone()
            if row is not None and row[0] is not None:
                rows[table] = row[0]
    return rows
