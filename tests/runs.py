"""Start runs beside a test, look at what they left, and let time pass for them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.declared import Site

OUR_LOCKS: LiteralString = (
    "SELECT count(*) FROM pg_locks l JOIN reconciler.definitions d ON l.locktype = 'advisory'"
    " AND l.classid::bigint = (d.lock_key >> 32) & 4294967295 AND l.objid::bigint = d.lock_key & 4294967295"
)
WAITS: LiteralString = (
    "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
)


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
    with site.database.session() as conn:
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


class Beside:
    """A statement that is executed beside the test, over a connection that stays open."""

    def __init__(
        self, site: Site, statement: LiteralString, *values: object, user: str | None = None
    ) -> None:
        """Begin it.

        Args:
            site: Where.
            statement: What.
            *values: Its parameters.
            user: As whom; None for the superuser.
        """
        self._outcome: list[psycopg.Error | None] = []
        self._connection = site.database.connect(user)
        self._thread = threading.Thread(target=self._execute, args=[statement, values])
        self.pid = self._connection.info.backend_pid
        self._thread.start()

    def end(self) -> psycopg.Error | None:
        """Wait for its end; return what it failed with."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "it does not end"
        return self._outcome[0]

    def _execute(self, statement: LiteralString, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(statement, values or None)
        except psycopg.Error as error:
            self._outcome.append(error)
        else:
            self._outcome.append(None)


class Running(Beside):
    """A run that goes on beside the test: the body of `hold` until `end`."""

    def __init__(self, site: Site, name: str, gate: int, *, user: str | None, trigger: str | None) -> None:
        """Begin it, and wait until its row says so and its body waits."""
        self._gate = site.database.connect()
        self._gate.execute("SET lock_timeout = '10s'")
        self._gate.execute("SELECT pg_advisory_lock(%s)", [gate])
        super().__init__(site, "CALL reconciler.run_job(%s, %s)", name, trigger, user=user)
        self.run = 0

        def has_begun() -> bool:
            rows = log(site, name, "id", "status", "backend_pid")
            self.run = next((run for run, *rest in rows if rest == ["running", self.pid]), 0)
            return self.run > 0 and site.rows(WAITS, self.pid) == [(1,)]

        wait_until(has_begun, seconds=10, what="the run has begun")

    def open(self) -> None:
        """Let the body go on."""
        self._gate.close()

    def end(self) -> psycopg.Error | None:
        """Let the body go on, and wait for its end; return what the run failed with."""
        self.open()
        return super().end()


def wait_for_pg_cron(site: Site, condition: Callable[[], bool], *, what: str) -> None:
    """Wait until pg_cron has done something.

    Up to 1.6.7 its launcher forgets that cron.job changed when thousands of other changes to the catalog come
    within its second, as when a test begins; the next change reminds it. Giving up, it tells what it sees.
    """
    touched_at = time.monotonic()

    def look() -> bool:
        nonlocal touched_at
        if time.monotonic() > touched_at + 3:
            site.run("UPDATE cron.job SET active = active")
            site.run(
                "SELECT pg_reload_conf()"
            )  # after DROP EXTENSION it may wait for the old table's changes
            touched_at = time.monotonic()
        return condition()

    wait_until(look, seconds=20, what=what, tell=lambda: describe_pg_cron(site))


def describe_pg_cron(site: Site) -> str:
    """Describe what pg_cron has to do, what it did, whether it lives, and what its server said."""
    seen: dict[str, LiteralString] = {
        "now": "SELECT clock_timestamp()",
        "launcher": "SELECT pid, backend_start, state, wait_event, query FROM pg_stat_activity"
        " WHERE backend_type = 'pg_cron launcher'",
        "its sessions": "SELECT pid, usename, backend_start, state, wait_event, left(query, 80)"
        " FROM pg_stat_activity WHERE application_name = 'pg_cron' OR backend_type = 'pg_cron'",
        "entries": "SELECT to_jsonb(j) FROM cron.job j ORDER BY jobid",
        "its runs": "SELECT to_jsonb(d) FROM cron.job_run_details d ORDER BY runid DESC LIMIT 20",
        "our runs": "SELECT to_jsonb(l) FROM reconciler.cron_execution_log l ORDER BY id DESC LIMIT 20",
    }
    lines = []
    for name, query in seen.items():
        try:
            rows = site.rows(query)
        except psycopg.Error as error:
            rows = [(error,)]
        lines += [f"{name}:", *(f"  {' '.join(str(value) for value in row)}" for row in rows)]
    return "\n".join([*lines, "the server's log:", site.database.server.read_log()])


@contextmanager
def running(
    site: Site, name: str = "a", *, user: str | None = None, trigger: str | None = None, gate: int = 1
) -> Iterator[Running]:
    """Run a job beside the test, from when its row says running.

    Yields:
        The run, which ends at the latest with this.
    """
    run = Running(site, name, gate, user=user, trigger=trigger)
    try:
        yield run
    finally:
        run.end()
