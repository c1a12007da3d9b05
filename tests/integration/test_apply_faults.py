"""Applying when something goes wrong: the state before or after, never between, and the right words."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from reconciler.errors import (
    ApplyLockError,
    ConnectError,
    DatabaseError,
    MigrationError,
    ReconcilerError,
    StalePlanError,
)
from tests.declared import Site, job, once, queue, worker
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec

TAKE_LOCK: LiteralString = "SELECT pg_advisory_lock(7411530208936421)"
OLD: list[Spec] = [
    job("altered"),
    job("before-rename"),
    job("deleted"),
    queue("q"),
    queue("gone"),
    worker("w"),
    once("o"),
]
NEW: list[Spec] = [
    job("altered", schedule="1 0 29 2 *"),
    job("renamed", renamed_from="before-rename"),
    job("created"),
    queue("q", max_attempts=1),
    queue("new"),
    worker("w", limit=2),
    worker("new-worker"),
    once("o", queue="q"),
    once("new-once"),
]
"""Together with OLD, every kind of step of an apply."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """An apply that waits.

    Attributes:
        pid: Its backend.
        blocker: The session that it waits for, in a transaction.
        outcome: Gets what it returned or raised, when the waiting is over.
    """

    pid: int
    blocker: psycopg.Connection
    outcome: list[object]


@contextmanager
def blocked_apply(site: Site, *specs: Spec, lock: LiteralString) -> Iterator[Blocked]:
    """Hold an apply in the middle: it waits for a lock of another session until the block ends."""
    outcome: list[object] = []

    def apply() -> None:
        try:
            outcome.append(site.apply(*specs, prune="auto"))
        except ReconcilerError as error:
            outcome.append(error)

    blocker = site.database.connect(autocommit=False)
    blocker.execute(lock)
    thread = threading.Thread(target=apply)
    thread.start()
    waiting: LiteralString = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'reconciler' AND wait_event_type = 'Lock'"
    )
    try:
        wait_until(lambda: len(site.rows(waiting)) == 1, seconds=10, what="the apply waits")
        yield Blocked(site.rows(waiting)[0][0], blocker, outcome)
    finally:
        blocker.close()
        thread.join(20)
        assert not thread.is_alive()


LOCK_QUEUE: LiteralString = "SELECT FROM reconciler.queues WHERE name = 'q' FOR UPDATE"
"""Holds up an apply of NEW when cron.job is written already."""


def test_a_second_apply_is_told_to_wait(site: Site) -> None:
    """While another apply holds the lock, an apply changes nothing and says so; afterwards it works."""
    holder = site.database.connect()
    holder.execute(TAKE_LOCK)
    with pytest.raises(ApplyLockError) as caught:
        site.apply(job("a"))
    assert "wait" in caught.value.remedy
    assert site.rows("SELECT to_regnamespace('reconciler')") == [(None,)]
    holder.close()
    wait_until(
        lambda: site.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)],
        seconds=5,
        what="the lock is free",
    )
    site.apply(job("a"))


def test_a_plan_needs_no_lock(site: Site) -> None:
    """Planning goes on while somebody applies."""
    site.apply(*OLD)
    with blocked_apply(site, *NEW, lock=LOCK_QUEUE):
        assert site.changes(*OLD) == []


def test_two_applies_that_race_leave_one_of_both_states(site: Site) -> None:
    """Of applies at the same moment each is whole or not at all, and the losers get a clear error."""
    sides: list[list[Spec]] = [
        [job(name, f"SELECT {number}", schedule=f"{number} 0 29 2 *") for name in ("a", "b", "c", "d")]
        for number in (1, 2)
    ]

    def attempt(side: int) -> str:
        try:
            site.apply(*sides[side])
        except (ApplyLockError, StalePlanError) as error:
            return type(error).__name__
        return "done"

    for _ in range(8):
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(attempt, (0, 1)))
        assert "done" in outcomes
        left = site.rows(
            "SELECT DISTINCT j.schedule, d.schedule, d.spec ->> 'sql' FROM reconciler.definitions d"
            " JOIN cron.job j USING (jobid)"
        )
        assert len(left) == 1
        assert left[0][0] == left[0][1]
        assert site.rows("SELECT count(*) FROM cron.job") == [(4,)]


def test_an_apply_whose_snapshot_is_older_than_the_last_apply_fails(site: Site) -> None:
    """The lock alone does not order snapshots: two revisions can never follow the same one."""
    site.apply(job("a"))
    site.apply(job("b"))
    with pytest.raises(psycopg.errors.UniqueViolation):
        site.run(
            "INSERT INTO reconciler.revisions (previous, owner, target, release, summary, changes)"
            " VALUES (1, 'x', 'x', '', '{}', '[]')"
        )


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cron.job SET command = 'SELECT 666' WHERE jobname = 'altered'",
        "SELECT cron.unschedule('altered')",
        "SELECT cron.unschedule('deleted')",
        "UPDATE cron.job SET command = 'SELECT 666' WHERE jobname = 'deleted'",
        "SELECT cron.schedule('created', '1 1 1 1 *', 'SELECT 666')",
        "UPDATE reconciler.definitions SET owner = 'kitchen' WHERE name = 'altered'",
        "DELETE FROM reconciler.definitions WHERE name = 'deleted'",
        "UPDATE reconciler.jobs SET status = 'running'",
        """INSERT INTO reconciler.definitions (name, kind, owner, spec, digest, lock_key)
        VALUES ('created', 'queue', 'kitchen', '{}', '', 1)""",
    ],
)
def test_a_change_during_the_apply_rolls_it_back(site: Site, change: LiteralString) -> None:
    """What another session commits after the apply has looked is not overwritten: the plan is stale."""
    site.apply(*OLD)
    # It has looked, but nothing has been written when the other session comes.
    with blocked_apply(site, *NEW, lock="LOCK TABLE cron.job IN SHARE MODE") as blocked:
        blocked.blocker.execute(change)
        blocked.blocker.commit()
        before = site.everything()
    assert isinstance(blocked.outcome[0], StalePlanError), blocked.outcome[0]
    assert "plan again" in blocked.outcome[0].remedy
    assert site.everything() == before


def test_a_killed_backend_leaves_the_state_before(site: Site) -> None:
    """When its backend is terminated in the middle, the connection was lost, and nothing changed."""
    site.apply(*OLD)
    before = site.everything()
    with blocked_apply(site, *NEW, lock=LOCK_QUEUE) as blocked:
        site.run("SELECT pg_terminate_backend(%s, 5000)", blocked.pid)
    assert isinstance(blocked.outcome[0], ConnectError)
    assert "apply again" in blocked.outcome[0].remedy
    assert site.everything() == before
    site.apply(*NEW, prune="auto")
    assert site.changes(*NEW, prune="auto") == []


def test_a_cancelled_apply_leaves_the_state_before(site: Site) -> None:
    """A statement that an administrator cancels rolls everything back."""
    site.apply(*OLD)
    before = site.everything()
    with blocked_apply(site, *NEW, lock=LOCK_QUEUE) as blocked:
        site.run("SELECT pg_cancel_backend(%s)", blocked.pid)
    assert isinstance(blocked.outcome[0], DatabaseError)
    assert site.everything() == before


def test_a_crashed_server_leaves_the_state_before(site: Site) -> None:
    """After a crash in the middle of an apply the server comes back as before, and an apply works."""
    site.apply(*OLD)
    before = {name: [row[2] for row in rows] for name, rows in site.everything().items()}
    site.run("CHECKPOINT")  # the test servers commit without waiting for the disk
    server = site.database.server
    with blocked_apply(site, *NEW, lock=LOCK_QUEUE) as blocked:
        server.stop(immediate=True)
    assert isinstance(blocked.outcome[0], ConnectError)
    with pytest.raises(ConnectError, match="cannot connect"):
        site.plan(*NEW)
    server.start()
    assert {name: [row[2] for row in rows] for name, rows in site.everything().items()} == before
    site.apply(*NEW, prune="auto")
    assert site.changes(*NEW, prune="auto") == []


@pytest.mark.migrates
def test_a_failure_of_the_first_apply_takes_the_migrations_back(site: Site) -> None:
    """When the first apply fails after it made our schema, neither the schema nor an entry is left."""
    site.run(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE ''the disk is on fire''; END';"
        "CREATE TRIGGER fail BEFORE INSERT ON cron.job FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
    try:
        with pytest.raises(DatabaseError, match="the disk is on fire") as caught:
            site.apply(job("a"))
    finally:
        site.run("DROP FUNCTION public.fail CASCADE")
    assert "nothing was changed" in caught.value.remedy
    assert site.rows("SELECT to_regnamespace('reconciler'), (SELECT count(*) FROM cron.job)") == [(None, 0)]


BREAKPOINT: LiteralString = """
CREATE SEQUENCE public.events;
CREATE TABLE public.break_at AS SELECT 0 AS event;
CREATE FUNCTION public.count_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'reconciler'
       AND nextval('public.events') = (SELECT event FROM public.break_at) THEN
        IF TG_ARGV[0] = 'kill' THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(5);
        END IF;
        RAISE 'broken here';
    END IF;
    RETURN NULL;
END $$;
GRANT ALL ON SEQUENCE public.events TO PUBLIC;
"""


@pytest.mark.parametrize(
    ("way", "grace"), [("error", timedelta()), ("kill", timedelta()), ("error", timedelta(days=7))]
)
def test_a_crash_at_any_statement_leaves_the_state_before(site: Site, way: str, grace: timedelta) -> None:
    """Broken off before or after any of its writes, an apply has changed nothing, and can be repeated."""

    def attempt(event: int) -> DatabaseError | None:
        site.run("UPDATE public.break_at SET event = %s", event)
        site.run("SELECT setval('public.events', 1, false)")
        try:
            site.apply(*NEW, prune="auto", grace=grace)
        except DatabaseError as error:
            return error
        return None

    site.apply(*OLD)
    site.run(BREAKPOINT)
    tables = [
        "cron.job",
        *(f"reconciler.{name}" for name in ("revisions", "definitions", "queues", "workers", "jobs")),
        *(f"reconciler.{name}" for name in ("policies", "timings", "job_states")),
    ]
    for table in tables:
        for moment in ("BEFORE", "AFTER"):
            with site.database.server.connect() as conn:
                conn.execute(
                    f"CREATE TRIGGER event_{moment} {moment} INSERT OR UPDATE OR DELETE ON {table}"
                    f" EXECUTE FUNCTION public.count_event('{way}')".encode()
                )
    try:
        before = site.everything()
        event = 1
        while error := attempt(event):
            assert isinstance(error, ConnectError) if way == "kill" else "broken here" in str(error)
            assert site.everything() == before
            event += 1
        assert event > 25
        assert site.changes(*NEW, prune="auto", grace=grace) == []
    finally:
        site.run("DROP FUNCTION public.count_event CASCADE")


def test_an_entry_that_comes_out_otherwise_is_rolled_back(site: Site) -> None:
    """When something rewrites what was applied, the apply tells the difference and takes all back."""
    site.apply(job("a"))
    before = site.everything()
    site.run(
        "CREATE FUNCTION public.rewrite() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.schedule = ''9 9 9 9 *''; RETURN NEW; END';"
        "CREATE TRIGGER rewrite BEFORE INSERT OR UPDATE ON cron.job FOR EACH ROW"
        " EXECUTE FUNCTION public.rewrite()"
    )
    try:
        for specs in ([job("a"), job("b")], [job("a", schedule="1 0 29 2 *")]):
            with pytest.raises(DatabaseError, match="9 9 9 9"):
                site.apply(*specs)
            assert site.everything() == before
    finally:
        site.run("DROP FUNCTION public.rewrite CASCADE")


def test_a_swallowed_write_is_noticed(site: Site) -> None:
    """When a trigger swallows what was written, nothing is committed as if it were there."""
    site.apply(job("a"), queue("q"))
    before = site.everything()
    site.run(
        "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE UPDATE ON reconciler.queues FOR EACH ROW"
        " EXECUTE FUNCTION public.swallow()"
    )
    with pytest.raises(DatabaseError, match="not as declared"):
        site.apply(job("a", schedule="1 0 29 2 *"), queue("q", max_attempts=9))
    site.run("DROP FUNCTION public.swallow CASCADE")
    assert site.everything() == before


def test_a_refusal_of_pg_cron_is_told(site: Site) -> None:
    """What pg_cron itself refuses is told in its words, and nothing is changed."""
    with pytest.raises(DatabaseError, match="no-such-database") as caught:
        site.apply(job("a"), job("b", mode="direct", database="no-such-database"))
    assert not isinstance(caught.value, StalePlanError)
    with pytest.raises(DatabaseError, match="nobody"):
        site.apply(job("a"), job("b", role="nobody"))
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]


def test_a_lock_of_another_database_does_not_hinder(site: Site) -> None:
    """Locks of other names and keys are not taken for ours."""
    holder = site.database.connect()
    holder.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(7411530208936420)")
    site.apply(job("a"))


def test_a_newer_schema_is_refused(site: Site) -> None:
    """A target that a newer release migrated is neither planned nor applied."""
    site.apply(job("a"))
    site.run("INSERT INTO reconciler.migrations (number, name, checksum) VALUES (9999, 'future', 'x')")
    before = site.everything()
    for act in (site.plan, site.apply):
        with pytest.raises(MigrationError, match="9999") as caught:
            act(job("a", "SELECT 2"))
        assert "upgrade" in caught.value.remedy
    assert site.everything() == before
