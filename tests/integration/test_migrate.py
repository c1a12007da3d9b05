"""Migrating the schema: forward, once, checksummed, all or nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.canonical import digest
from reconciler.database.connect import connect
from reconciler.database.migrate import load_migrations, migrate_target
from reconciler.errors import ApplyLockError, MigrationError, PgCronMissingError, RightsError
from tests.declared import Site, job

if TYPE_CHECKING:
    from reconciler.core.specs import JobSpec

pytestmark = pytest.mark.migrates


def migrate(site: Site) -> tuple[str, ...]:
    """Migrate as the command line does."""
    with connect(site.dsn) as conn:
        return migrate_target(conn)


def test_a_fresh_target_gets_every_migration_once(site: Site) -> None:
    """All migrations run in order, are recorded with their checksums, and never run again."""
    names = tuple(migration.name for migration in load_migrations())
    assert migrate(site) == names
    assert site.rows("SELECT number, name, checksum FROM reconciler.migrations ORDER BY number") == [
        (migration.number, migration.name, migration.checksum) for migration in load_migrations()
    ]
    before = site.everything()
    assert migrate(site) == ()
    assert site.everything() == before


def test_the_numbers_have_no_gaps() -> None:
    """Migrations are numbered from 1 on."""
    numbers = [migration.number for migration in load_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def migrate_to(site: Site, number: int) -> None:
    """Leave the schema as a release left it that knew only the first migrations."""
    for migration in load_migrations()[:number]:
        site.run(migration.text)
        site.run(
            "INSERT INTO reconciler.migrations (number, name, checksum) VALUES (%s, %s, %s)",
            migration.number,
            migration.name,
            migration.checksum,
        )


def test_only_what_is_missing_runs(site: Site) -> None:
    """A target of an older release gets just the later migrations; plan names them, apply runs them."""
    migrate_to(site, 2)
    missing = tuple(migration.name for migration in load_migrations() if migration.number > 2)
    assert site.plan(job("a")).plan.migrations == missing
    assert site.apply(job("a")).migrations == missing
    site.run("CALL reconciler.run_job('a')")


def leave_old_release(site: Site, declared: JobSpec) -> None:
    """Leave what the first release had applied of a job at three in the morning."""
    migrate_to(site, 2)
    site.run("SELECT cron.schedule('a', '0 3 * * *', $$CALL reconciler.run_job('a')$$)")
    site.run(
        "INSERT INTO reconciler.definitions (name, kind, owner, spec, digest, source, lock_key, jobid,"
        " schedule, command, database, username, active)"
        " SELECT 'a', 'job', 'shop', %s, %s, 'jobs.d/shop.yaml:3', reconciler.make_lock_key('a'), jobid,"
        " schedule, command, database, username, active FROM cron.job",
        declared.document,
        digest(declared.document),
    )


def test_jobs_of_an_older_release_get_their_policies(site: Site) -> None:
    """After the migration nothing drifts, policies are as declared, and the next fire is known."""
    declared = job("a", schedule="0 3 * * *", timeout="5m", on_failure={"retries": 2})
    leave_old_release(site, declared)
    planned = site.plan(declared).plan
    assert planned.is_empty
    assert planned.migrations
    site.apply(declared)
    assert site.plan(declared).plan.is_empty
    assert site.rows(
        "SELECT p.timeout, p.retries, s.next_due_at = reconciler.next_fire('0 3 * * *', now(), 'GMT')"
        " FROM reconciler.policies p JOIN reconciler.job_states s USING (name)"
    ) == [(timedelta(minutes=5), 2, True)]


def test_migrations_alone_are_no_change(site: Site) -> None:
    """An apply of nothing still brings the schema up, and writes no revision."""
    planned = site.plan()
    assert planned.plan.is_empty
    assert planned.plan.migrations
    applied = site.apply()
    assert applied.migrations == planned.plan.migrations
    assert applied.revision is None


def test_an_edited_migration_is_refused(site: Site) -> None:
    """A target on which another text of a migration ran is left alone."""
    migrate(site)
    site.run("UPDATE reconciler.migrations SET checksum = 'other' WHERE number = 1")
    with pytest.raises(MigrationError, match=load_migrations()[0].name) as caught:
        migrate(site)
    assert "release" in caught.value.remedy


def test_a_newer_schema_is_refused(site: Site) -> None:
    """A target that a newer release migrated asks for an upgrade."""
    migrate(site)
    site.run("INSERT INTO reconciler.migrations (number, name, checksum) VALUES (9999, 'future', 'x')")
    with pytest.raises(MigrationError, match="9999") as caught:
        migrate(site)
    assert "upgrade" in caught.value.remedy


def test_an_apply_at_work_holds_migrations_up(site: Site) -> None:
    """Migrate and apply take the same lock."""
    site.database.connect().execute("SELECT pg_advisory_lock(7411530208936421)")
    with pytest.raises(ApplyLockError):
        migrate(site)
    assert site.rows("SELECT to_regnamespace('reconciler')") == [(None,)]


def test_a_database_without_pg_cron_is_refused(site: Site) -> None:
    """No schema of ours is made where it would have nothing to do."""
    site.run("DROP EXTENSION pg_cron CASCADE")
    with pytest.raises(PgCronMissingError):
        migrate(site)
    assert site.rows("SELECT to_regnamespace('reconciler')") == [(None,)]


def test_a_role_without_the_right_is_told(site: Site) -> None:
    """A role that may not create schemas is told the grant; nothing is made."""
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    with pytest.raises(RightsError, match="alice") as caught:
        migrate(Site(site.database, "alice"))
    assert "GRANT CREATE ON DATABASE" in caught.value.remedy


def test_a_role_that_does_not_own_the_schema_cannot_migrate_it(site: Site) -> None:
    """Later migrations need the owner; another role is told that a right is missing."""
    migrate(site)
    site.run("DELETE FROM reconciler.migrations WHERE number = 2; CREATE ROLE alice LOGIN")
    site.run("GRANT USAGE ON SCHEMA cron TO alice; GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice")
    before = site.everything()
    with pytest.raises(RightsError):
        migrate(Site(site.database, "alice"))
    assert site.everything() == before


def test_no_function_of_ours_leaves_its_search_path_open(site: Site) -> None:
    """Functions with their owner's rights pin their search_path, and tables are the owner's alone."""
    migrate(site)
    assert (
        site.rows(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'reconciler'::regnamespace AND prosecdef"
            " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
        )
        == []
    )
    site.run("CREATE ROLE anybody")
    assert (
        site.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'reconciler'::regnamespace"
            " AND relkind IN ('r', 'v', 'S')"
            " AND (has_table_privilege('anybody', oid, 'SELECT, INSERT, UPDATE, DELETE'))"
        )
        == []
    )
