"""Observing a target: read-only, one snapshot, a fixed number of queries, and clear words when it cannot."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.observe import observe
from reconciler.errors import ConnectError, DatabaseError, PgCronMissingError, RightsError
from tests.declared import Site, job, once, queue, request, worker
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from reconciler.core.specs import Spec
    from tests.servers import Database


def count_statements(conn: psycopg.Connection, action: Callable[[], object], path: Path) -> int:
    """Count the statements that the client sends while it does something."""
    with path.open("w") as file:
        conn.pgconn.trace(file.fileno())
        action()
        conn.pgconn.untrace()
    sent = re.findall(r"^[^\t]+\tF\t\d+\t(\w+)", path.read_text(errors="replace"), flags=re.MULTILINE)
    return sum(message in {"Query", "Execute"} for message in sent)  # a Flush may or may not be there


def make_jobs(count: int) -> list[Spec]:
    """Declare jobs."""
    return [job(f"job-{number:03}", f"SELECT {number}") for number in range(count)]


def test_a_role_that_may_only_read_can_plan(database: Database) -> None:
    """A role without any right to write sees the same state and the same plan as a superuser."""
    site = Site(database)
    specs: list[Spec] = [job("a"), queue("q"), worker("w"), once("o")]
    site.apply(*specs, role="postgres")
    site.run("CREATE ROLE reader LOGIN BYPASSRLS IN ROLE pg_read_all_settings, pg_read_all_stats")
    site.run("GRANT USAGE ON SCHEMA cron TO reader")
    site.run("GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader")
    planned = Site(database, "reader").plan(*specs, role="postgres")
    as_superuser = site.plan(*specs, role="postgres")
    assert planned.plan.changes == ()
    assert planned.observed.entries == as_superuser.observed.entries
    assert planned.observed.definitions == as_superuser.observed.definitions
    assert planned.observed.facts.settings == as_superuser.observed.facts.settings
    assert planned.observed.facts.launcher_running is True


def test_a_server_that_takes_no_writes_can_be_planned_but_not_applied(database: Database) -> None:
    """On a read-only server plan works, and apply names the server and says to connect to the primary."""
    Site(database).apply(job("a"))
    dsn = make_conninfo(database.dsn, options="-c default_transaction_read_only=on")
    with connect(dsn) as conn:
        assert len(plan_target(conn, request(job("b"))).plan.changes) == 1
    with pytest.raises(DatabaseError) as caught, connect(dsn) as conn:
        apply_target(conn, request(job("b")))
    assert "primary" in caught.value.remedy


def test_one_snapshot(database: Database) -> None:
    """What is committed while an observation is under way is in none of its parts."""
    site = Site(database)
    site.apply(job("a"))
    blocker = database.connect(autocommit=False)
    blocker.execute("LOCK TABLE reconciler.migrations IN ACCESS EXCLUSIVE MODE")
    found: list[int] = []

    def look() -> None:
        with connect(database.dsn) as conn:
            found.append(len(observe(conn).state.entries))

    thread = threading.Thread(target=look)
    thread.start()
    wait_until(
        lambda: site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)],
        seconds=10,
        what="the observation waits",
    )
    site.run("SELECT cron.schedule('late', '0 0 29 2 *', 'SELECT 1')")
    blocker.rollback()
    thread.join(10)
    assert found == [1]


def test_the_number_of_queries_is_fixed(database: Database, tmp_path: Path) -> None:
    """Observing, planning and applying 300 jobs takes as many statements as one job takes."""
    counts = []
    for number in (1, 300):
        database.server.clean()
        with connect(database.dsn) as conn:
            small = request(*make_jobs(number), queue("q"))
            large = request(*make_jobs(number * 2), queue("q"))
            apply_target(conn, request(queue("q")))
            counts.append(
                [
                    count_statements(conn, lambda: apply_target(conn, small), tmp_path / "create"),  # noqa: B023
                    count_statements(conn, lambda: plan_target(conn, small), tmp_path / "plan"),  # noqa: B023
                    count_statements(conn, lambda: apply_target(conn, large), tmp_path / "grow"),  # noqa: B023
                ]
            )
            row = conn.execute("SELECT count(*) FROM cron.job").fetchone()
            assert row == (number * 2,)
    assert counts[0] == counts[1]
    assert counts[0][1] <= 20


def test_pg_cron_in_another_database_is_named(database: Database) -> None:
    """In a database without pg_cron, the message names the one that has it."""
    site = Site(database)
    site.run("CREATE DATABASE elsewhere")
    home = site.rows("SELECT current_database()")[0][0]
    with (
        pytest.raises(PgCronMissingError, match="elsewhere") as caught,
        connect(database.dsn_for("postgres", database="elsewhere")) as conn,
    ):
        plan_target(conn, request(job("a")))
    assert f"database {home}" in caught.value.remedy


def test_a_missing_extension_is_told_with_its_remedy(database: Database) -> None:
    """Where the extension is not created, plan and apply say how to create it, and create nothing."""
    site = Site(database)
    site.run("DROP EXTENSION pg_cron CASCADE")
    with pytest.raises(PgCronMissingError) as caught:
        site.plan(job("a"))
    assert "CREATE EXTENSION pg_cron" in caught.value.remedy
    with pytest.raises(PgCronMissingError):
        site.apply(job("a"))
    assert site.rows("SELECT to_regnamespace('reconciler'), to_regnamespace('cron')") == [(None, None)]


def test_a_role_that_may_not_read_our_schema_is_told_the_grant(database: Database) -> None:
    """A schema that the role may not read is never taken for an empty one; the grant that is named helps."""
    site = Site(database)
    site.apply(job("a"), role="postgres")
    site.run("CREATE ROLE reader LOGIN BYPASSRLS")
    site.run("GRANT USAGE ON SCHEMA cron TO reader")
    with pytest.raises(RightsError, match="reader") as caught:
        Site(database, "reader").plan(job("a"))
    assert "GRANT" in caught.value.remedy
    site.run(
        "GRANT USAGE ON SCHEMA reconciler TO reader;"
        " GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader"
    )
    assert Site(database, "reader").changes(job("a"), role="postgres") == []


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"user": "nobody"}, "database and the user"),
        ({"database": "nowhere"}, "database and the user"),
        ({"password": "wrong"}, "user and password"),
    ],
)
def test_a_wrong_dsn_says_what_to_check(database: Database, changes: dict[str, str], remedy: str) -> None:
    """Wrong user, wrong database and wrong password are each told, without the password."""
    site = Site(database)
    site.run("CREATE ROLE alice LOGIN PASSWORD 'right'")
    dsn = database.dsn_for(
        **{"user": "postgres", **changes} if "password" not in changes else {"user": "alice", **changes}
    )
    with pytest.raises(ConnectError) as caught, connect(dsn):
        pass
    assert remedy in caught.value.remedy
    assert "wrong" not in str(caught.value)


def test_no_server_says_what_to_check() -> None:
    """Where nobody listens, host and port are what to check."""
    with pytest.raises(ConnectError) as caught, connect("postgresql://anna:secret@127.0.0.1:1/app"):
        pass
    assert "host and port" in caught.value.remedy
    assert "secret" not in str(caught.value)


def test_an_unusable_schema_of_our_name_is_told(database: Database) -> None:
    """A foreign, empty schema named reconciler stops the apply with its name, and stays as it is."""
    site = Site(database)
    site.run("CREATE SCHEMA reconciler")
    with pytest.raises(DatabaseError, match="reconciler"):
        site.apply(job("a"))
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]
