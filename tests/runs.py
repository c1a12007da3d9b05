"""Start runs beside a test, look at what they left, and let time pass for them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec
    from tests.declared import Site

SKIPPED = "skipped"
OUR_LOCKS: LiteralString = (
    "SELECT count(*) FROM pg_locks l JOIN reconciler.definitions d ON l.locktype = 'advisory'"
    " AND l.classid::bigint = (d.lock_key >> 32) & 4294967295 AND l.objid::bigint = d.lock_key & 4294967295"
)


def apply(site: Site, *specs: Spec, **options: Any) -> int:
    """Apply what is declared, with its policies; return the revision, 0 for none."""
    applied = site.apply(*specs, **options)
    site.run(
        "DELETE FROM reconciler.policies;"
        "INSERT INTO reconciler.policies SELECT d.*, 'GMT' FROM reconciler.declared_policies d;"
        "INSERT INTO reconciler.job_states (name, next_due_at)"
        " SELECT d.name, reconciler.next_fire(d.schedule, clock_timestamp(), 'GMT')"
        "   FROM reconciler.policies p JOIN reconciler.definitions d USING (name)"
        "     ON CONFLICT (name) DO UPDATE SET next_due_at = excluded.next_due_at"
    )
    return applied.revision or 0


def attempt(
    site: Site, statement: LiteralString, *values: object, user: str | None = None
) -> psycopg.Error | None:
    """Execute a statement over a connection that stays open; return what it failed with."""
    try:
        site.database.connect(user).execute(statement, values or None)
    except psycopg.Error as error:
        return error
    return None


def call(
    site: Site, name: str = "a", *, user: str | None = None, trigger: str | None = None
) -> psycopg.Error | None:
    """Run a job over a connection that stays open; return what it failed with."""
    return attempt(site, "CALL reconciler.run_job(%s, %s)", name, trigger, user=user)


def fire(site: Site, name: str = "a") -> psycopg.Error | None:
    """Run a job as its entry would."""
    return call(site, name, trigger="schedule")


def tick(site: Site) -> None:
    """Look after the runs once."""
    site.run("CALL reconciler.tick()")


def runner(site: Site, user: str | None = None) -> None:
    """Carry out all starts of a role that are due, of the superuser's if no other is named."""
    error = attempt(site, "CALL reconciler.runner()", user=user)
    assert error is None, error


def log(site: Site, name: str = "a", *columns: str) -> list[tuple[Any, ...]]:
    """Return columns of a job's runs, oldest first; its status alone as the only one of a tuple."""
    names = sql.SQL(", ").join(sql.Identifier(column) for column in columns or ("status",))
    query = sql.SQL("SELECT {} FROM reconciler.cron_execution_log WHERE job_name = %s ORDER BY id")
    with site.database.server.connect() as conn:
        return conn.execute(query.format(names), [name]).fetchall()


def statuses(site: Site, name: str = "a") -> list[str]:
    """Return how a job's runs ended, oldest first."""
    return [row[0] for row in log(site, name)]


def starts(site: Site) -> list[tuple[str, str, int]]:
    """Return job, trigger and attempt of what is to be started, by its order."""
    return site.rows("SELECT job_name, trigger, attempt FROM reconciler.starts ORDER BY due_at, id")


def alerts(site: Site, name: str = "a") -> list[tuple[str, int, bool]]:
    """Return kind, number of occurrences and whether it is open of each alert of a job, oldest first."""
    return site.rows(
        "SELECT kind, occurrences, resolved_at IS NULL FROM reconciler.alerts"
        " WHERE job_name = %s ORDER BY id",
        name,
    )


def make_due(site: Site) -> None:
    """Let the wait before all that is to be started be over."""
    site.run("UPDATE reconciler.starts SET due_at = clock_timestamp() WHERE due_at < 'infinity'")


def run_retries(site: Site, rounds: int = 10) -> None:
    """Carry out retry after retry, without their waits."""
    for _ in range(rounds):
        make_due(site)
        runner(site)


def hold(gate: int = 1) -> str:
    """Return a body that goes on for as long as `running` with the same gate does."""
    return f"SELECT pg_advisory_xact_lock_shared({gate})"


@contextmanager
def running(
    site: Site, name: str = "a", *, user: str | None = None, trigger: str | None = None, gate: int = 1
) -> Iterator[tuple[int, list[psycopg.Error | None]]]:
    """Run a job beside the test, from when its row says running.

    Yields:
        Its backend, and a list that gets what it failed with.
    """
    outcome: list[psycopg.Error | None] = []
    known = {row[0] for row in log(site, name, "id")}
    thread = threading.Thread(target=lambda: outcome.append(call(site, name, user=user, trigger=trigger)))

    def begun() -> list[int]:
        rows = log(site, name, "id", "status", "backend_pid")
        return [pid for run, status, pid in rows if run not in known and status == "running"]

    with closed(site, gate):
        thread.start()
        wait_until(lambda: len(begun()) == 1, seconds=10, what="the run has begun")
        yield begun()[0], outcome
    thread.join(20)
    assert not thread.is_alive()


@contextmanager
def closed(site: Site, gate: int = 1) -> Iterator[None]:
    """Let the bodies of `hold` wait."""
    with site.database.server.connect() as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", [gate])
        yield


@contextmanager
def beside(
    site: Site, statement: LiteralString, user: str | None = None
) -> Iterator[list[psycopg.Error | None]]:
    """Execute a statement beside the test.

    Yields:
        A list that gets what it failed with, or None, when it is over.
    """
    outcome: list[psycopg.Error | None] = []
    thread = threading.Thread(target=lambda: outcome.append(attempt(site, statement, user=user)))
    thread.start()
    yield outcome
    thread.join(20)
    assert not thread.is_alive()
