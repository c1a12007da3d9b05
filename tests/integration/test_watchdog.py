"""A tick that stands still is told of from outside, once, and its return too."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from reconciler.database.watchdog import tell_of_tick
from tests.declared import OWNER, Site, channel, job

if TYPE_CHECKING:
    from psycopg import Connection

    from tests.servers import Database

ALERTS: LiteralString = (
    "SELECT a.kind, a.resolved_at IS NULL, d.channel FROM reconciler.alerts a"
    " LEFT JOIN reconciler.alert_deliveries d ON d.alert_id = a.id ORDER BY a.id, d.id"
)


@pytest.fixture
def site(database: Database) -> Site:
    """A target with a tick that was declared ten minutes ago and never ran, and two channels."""
    site = Site(database)
    site.apply(
        job("reconciler-tick", "CALL reconciler.tick()", mode="direct"),
        channel("ops"),
        channel("hook", deliver="database"),
    )
    site.run("UPDATE reconciler.definitions SET updated_at = now() - interval '10 minutes'")
    return site


def test_a_silent_tick_is_told_once(site: Site, conn: Connection) -> None:
    """The channels that a process serves hear of it; looking again tells nobody anew."""
    assert tell_of_tick(conn, owner=OWNER)
    assert tell_of_tick(conn, owner=OWNER)
    assert site.rows(ALERTS) == [("missed", True, "ops")]
    assert "no run of it" in site.rows("SELECT message FROM reconciler.alerts")[0][0]


def test_its_return_is_told_too(site: Site, conn: Connection) -> None:
    """Once the tick has run, the alert is closed and the same channels hear of that."""
    tell_of_tick(conn, owner=OWNER)
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time, end_time)"
        " SELECT jobid, 1000000, 'succeeded', now(), now() FROM cron.job"
    )
    assert not tell_of_tick(conn, owner=OWNER)
    assert site.rows(ALERTS) == [("missed", False, "ops"), ("recovered", False, "ops")]


def test_a_tick_of_another_owner_is_theirs(site: Site, conn: Connection) -> None:
    """Whoever declared the tick has it watched, and nobody else is woken."""
    assert not tell_of_tick(conn, owner="billing")
    assert site.rows(ALERTS) == []


def test_a_tick_that_was_just_declared_gets_its_time(site: Site, conn: Connection) -> None:
    """Nothing is told in the first minutes."""
    site.run("UPDATE reconciler.definitions SET updated_at = now()")
    assert not tell_of_tick(conn, owner=OWNER)
    assert site.rows(ALERTS) == []


def test_a_role_that_only_delivers_leaves_it_to_others(site: Site) -> None:
    """Without the right to open alerts nothing is looked at, and delivering goes on."""
    site.run("CREATE ROLE postman LOGIN; GRANT SELECT ON reconciler.definitions TO postman")
    assert not tell_of_tick(site.database.connect("postman"), owner=OWNER)
    assert site.rows(ALERTS) == []
