"""Reminding pg_cron's launcher: one harmless write, after a pause."""

from __future__ import annotations

from typing import LiteralString

from reconciler.database.launcher import PAUSE_SECONDS, remind_launcher
from reconciler.database.observe import observe_facts
from tests.declared import Site, job, once

ENTRIES: LiteralString = "SELECT to_jsonb(j) FROM cron.job j ORDER BY jobid"
VERSIONS: LiteralString = "SELECT jobid, xmin::text FROM cron.job ORDER BY jobid"


def test_one_entry_is_written_and_none_is_changed(site: Site) -> None:
    """After a second that the launcher needs, a write of ours makes it look, and says nothing new."""
    site.apply(job("a"), job("b", active=False))
    entries, versions = site.rows(ENTRIES), site.rows(VERSIONS)
    pauses: list[float] = []
    conn = site.database.connect()
    assert remind_launcher(conn, observe_facts(conn).rights, sleep=pauses.append)
    assert pauses == [PAUSE_SECONDS]
    assert PAUSE_SECONDS > 1
    assert site.rows(ENTRIES) == entries
    assert [before == after for before, after in zip(versions, site.rows(VERSIONS), strict=True)] == [
        False,
        True,
    ]


def test_without_entries_there_is_nothing_to_write(site: Site) -> None:
    """What others scheduled is left alone."""
    site.run("SELECT cron.schedule('theirs', '* * * * *', 'SELECT 1')")
    site.apply(once("a"))
    versions = site.rows(VERSIONS)
    conn = site.database.connect()
    assert not remind_launcher(conn, observe_facts(conn).rights, sleep=lambda _: None)
    assert site.rows(VERSIONS) == versions


def test_a_role_that_may_not_alter_entries_leaves_it(site: Site) -> None:
    """Nothing is tried, and nobody waits."""
    site.run(
        "CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice; GRANT CREATE ON DATABASE app TO alice"
    )
    Site(site.database, "alice").apply(job("a"))
    conn = site.database.connect("alice")
    pauses: list[float] = []
    assert not remind_launcher(conn, observe_facts(conn).rights, sleep=pauses.append)
    assert pauses == []
