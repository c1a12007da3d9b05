"""Migrations of the schema `reconciler`: forward only, checksummed, never edited once landed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, LiteralString

from reconciler.core.canonical import digest
from reconciler.errors import ApplyLockError, MigrationError, RightsError
from reconciler.resources import read_resource, resource_root

from .observe import observe_within, require_pg_cron
from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from reconciler.core.facts import Facts

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

AFTER_MIGRATIONS = ("put_zone", "put_all_timings", "put_job_states")
"""Queries of `apply.sql` that complete what a migration made of an earlier release's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of the schema.

    Attributes:
        number: From 1, without gaps.
        name: The file's name without its ending.
        text: The SQL.
        checksum: SHA-256 of the text, in hexadecimal.
    """

    number: int
    name: str
    text: LiteralString
    checksum: str


@cache
def load_migrations() -> tuple[Migration, ...]:
    """Load the migrations of this release, in order."""
    names = sorted(
        path.name for path in (resource_root() / "sql" / "migrations").iterdir() if _FILE.fullmatch(path.name)
    )
    migrations = []
    for name in names:
        text = read_resource("sql", "migrations", name)
        migrations.append(
            Migration(
                number=int(name[:4]),
                name=name.removesuffix(".sql"),
                text=text,
                checksum=digest(text),
            )
        )
    return tuple(migrations)


def find_pending(applied: Mapping[int, str]) -> tuple[Migration, ...]:
    """Find the migrations that a target lacks.

    Args:
        applied: Checksums of those it has, by number.

    Returns:
        Those that it lacks, in order.

    Raises:
        MigrationError: The target has one that this release does not know, or another text of one.
    """
    known = {migration.number: migration for migration in load_migrations()}
    for number, checksum in sorted(applied.items()):
        migration = known.get(number)
        if migration is None:
            raise MigrationError(
                f"the target has migration {number:04d}, which this release does not know",
                remedy="a newer release has been here: upgrade reconciler",
            )
        if migration.checksum != checksum:
            raise MigrationError(
                f"migration {migration.name} differs from the one that was applied to the target",
                remedy="use the release that the target was migrated with, or a later one",
            )
    return tuple(migration for number, migration in sorted(known.items()) if number not in applied)


def apply_migrations(conn: psycopg.Connection, facts: Facts) -> tuple[Migration, ...]:
    """Bring the schema up to this release; call it inside a transaction.

    Args:
        conn: In a transaction.
        facts: Of the target, with the migrations it has.

    Returns:
        Those that were applied now.

    Raises:
        MigrationError: The target does not fit this release.
        RightsError: The role may not create the schema.
    """
    pending = find_pending(facts.migrations)
    if pending and not facts.migrations and not facts.rights.create_schema:
        raise RightsError(
            f"the role {facts.role} may not create the schema reconciler in {facts.database}",
            remedy=f'as an administrator: GRANT CREATE ON DATABASE "{facts.database}" TO "{facts.role}", '
            "or run reconciler migrate as an administrator",
        )
    if pending:
        # The bodies were tested with the release: checking them again takes half of the time.
        conn.execute("SET LOCAL check_function_bodies = off")
    for migration in pending:
        conn.execute(migration.text)
        conn.execute(
            "INSERT INTO reconciler.migrations (number, name, checksum) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.checksum),
        )
    if pending:
        for name in AFTER_MIGRATIONS:
            conn.execute(load_queries("apply")[name], {"zone": facts.known_timezone})
    return pending


def take_apply_lock(conn: psycopg.Connection) -> None:
    """Take the lock that lets one apply or migrate work at a time, until the transaction ends.

    Args:
        conn: In a transaction.

    Raises:
        ApplyLockError: Another one holds it.
    """
    row = conn.execute(load_queries("apply")["try_apply_lock"]).fetchone()
    if row is None or not row[0]:
        raise ApplyLockError(
            "another apply or migrate is working on this target",
            remedy="wait until it has finished, then plan again",
        )


def migrate_target(conn: psycopg.Connection) -> tuple[str, ...]:
    """Bring a target's schema up to this release, in one transaction.

    Args:
        conn: In autocommit mode.

    Returns:
        Names of the migrations that were applied now.

    Raises:
        ApplyLockError: An apply is at work.
        PgCronMissingError: The extension is not in the target database.
        MigrationError: The target does not fit this release.
        RightsError: The role may not create the schema.
    """
    with conn.transaction():
        take_apply_lock(conn)
        facts = observe_within(conn).state.facts
        require_pg_cron(facts)
        return tuple(migration.name for migration in apply_migrations(conn, facts))
