"""Timings that are applied and observed: drift, renames, views, clocks of zones, runs that go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.core.times.clocks import make_clock, read_clock, to_seconds
from reconciler.database.connect import connect
from reconciler.database.observe import observe
from reconciler.database.queries import load_queries
from tests.declared import Site, job, queue
from tests.fires import ZONES, connect_with_schema
from tests.runs import hold, running
from tests.timed import build_job

if TYPE_CHECKING:
    import psycopg

    from reconciler.core.specs import Spec
    from tests.servers import Database


@pytest.fixture
def conn(database: Database) -> psycopg.Connection:
    """A connection to a target with the schema."""
    return connect_with_schema(database)


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database, seen by its superuser."""
    return Site(database)


# --- apply ---


def test_an_edited_timing_is_drift(site: Site) -> None:
    """What somebody edits, deletes or adds is shown by plan, and apply makes it as declared."""
    night = [{"from": "22:00", "to": "06:00"}]
    declared: list[Spec] = [job("a", start_at="2026-01-01T00:00:00Z", blackout=night), job("b"), queue("q")]
    site.apply(*declared)
    before = site.rows("SELECT * FROM reconciler.timings")
    assert len(before) == 1
    for edit in (
        "UPDATE reconciler.timings SET blackout = '[]', zone = 'Asia/Tokyo'",
        "DELETE FROM reconciler.timings",
        "INSERT INTO reconciler.timings (name, end_at) VALUES ('b', '2030-01-01')",
    ):
        site.run(edit)
        (change,) = site.plan(*declared).plan.changes
        assert (change.action, change.reason) == ("update", "drifted")
        if edit.startswith("UPDATE"):
            assert [field.path for field in change.fields][-1] == "row.timezone"
            assert change.fields[-1].before == "Asia/Tokyo"
        site.apply(*declared)
        assert site.rows("SELECT * FROM reconciler.timings") == before
        assert site.plan(*declared).plan.is_empty


def test_drift_of_two_rows_is_shown_together(site: Site) -> None:
    """A job whose policy and whose timing were both edited shows both."""
    declared = job("a", timeout="5m", start_at="2026-01-01T00:00:00Z")
    site.apply(declared)
    site.run("UPDATE reconciler.policies SET timeout = '1 s'")
    site.run("UPDATE reconciler.timings SET start_at = '2027-01-01Z'")
    (change,) = site.plan(declared).plan.changes
    assert [field.path for field in change.fields] == ["row.start_at", "row.timeout"]
    site.apply(declared)
    assert site.plan(declared).plan.is_empty


def test_a_timing_follows_its_job(site: Site) -> None:
    """It is renamed with it, goes when it is no more declared, and with the job."""
    limits = {"start_at": "2026-01-01T00:00:00Z"}
    site.apply(job("a", **limits), job("b", **limits), job("c", **limits), prune="always")
    site.apply(job("z", renamed_from="a", **limits), job("b"), prune="always")
    assert site.rows("SELECT name FROM reconciler.timings") == [("z",)]
    site.apply(queue("z"), prune="always")
    assert site.rows("SELECT count(*) FROM reconciler.timings") == [(0,)]


def test_a_new_timing_is_expected_from_now_on(site: Site) -> None:
    """The next run is computed anew when the timing changes; what was due before is nobody's to begin."""
    early: Any
    late: Any
    early, late = ({"blackout": [{"last": last}]} for last in ("2030-01-01", "2031-01-01"))
    site.apply(job("a", schedule="0 3 * * *", **early))
    assert site.rows("SELECT next_due_at FROM reconciler.job_states") == [
        (datetime(2030, 1, 2, 3, tzinfo=UTC),)
    ]
    site.run("UPDATE reconciler.job_states SET next_due_at = '2020-01-01', fired_at = '2020-01-01'")
    site.apply(job("a", "SELECT 2", schedule="0 3 * * *", **early))
    state: LiteralString = "SELECT next_due_at < now(), fired_at < '2020-01-02' FROM reconciler.job_states"
    assert site.rows(state) == [(True, True)]
    site.apply(job("a", "SELECT 2", schedule="0 3 * * *", **late))
    assert site.rows(
        "SELECT next_due_at, fired_at > now() - interval '1 min' FROM reconciler.job_states"
    ) == [(datetime(2031, 1, 2, 3, tzinfo=UTC), True)]


def test_the_views_tell_when_a_job_is_due(site: Site) -> None:
    """The next run in the health view is the one that is due, also for a role that may read views alone."""
    site.run("CREATE ROLE reader LOGIN")
    limits: Any = {"blackout": [{"last": "2030-01-01"}], "end_at": "2040-01-01T00:00:00Z"}
    site.apply(job("a", schedule="0 3 * * *", **limits))
    site.run("GRANT SELECT ON reconciler.cron_job_health, reconciler.scheduled_jobs TO reader")
    reader = site.database.connect("reader")
    if site.rows("SELECT has_schema_privilege('reader', 'cron', 'USAGE')") == [(False,)]:
        site.run("GRANT USAGE ON SCHEMA cron TO reader")
    site.run("ALTER TABLE cron.job DISABLE ROW LEVEL SECURITY; GRANT SELECT ON cron.job TO reader")
    try:
        row = reader.execute("SELECT next_run_time FROM reconciler.cron_job_health").fetchone()
    finally:
        site.run("ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY")
    assert row == (datetime(2030, 1, 2, 3, tzinfo=UTC),)
    row = reader.execute("SELECT timezone, start_at, end_at FROM reconciler.scheduled_jobs").fetchone()
    assert row == (None, None, datetime(2040, 1, 1, tzinfo=UTC))


def test_the_server_s_zone_decides_who_has_a_timing(site: Site) -> None:
    """After a migration the zone is written, and with it the timings that depend on it."""
    site.apply(job("a"))
    site.run(
        """UPDATE reconciler.definitions SET spec = '{"daily":"02:30","sql":"SELECT 1"}';"""
        "UPDATE reconciler.policies SET zone = 'Europe/Oslo'"
    )
    with connect(site.dsn) as conn:
        for zone, expected in (("Asia/Tokyo", [("30 2 * * *",)]), ("UTC", [])):
            for query in ("put_zone", "put_all_timings", "put_job_states"):
                conn.execute(load_queries("apply")[query], {"zone": zone})
            assert conn.execute("SELECT schedule FROM reconciler.timings").fetchall() == expected


def test_a_change_of_the_server_s_zone_changes_timings(site: Site) -> None:
    """What needs a rule of its own where clocks are set needs none on a server that keeps UTC."""
    server = site.database.server
    if server.pg_cron < (1, 5, 0):
        pytest.skip("1.4 has no cron.timezone")
    rules: LiteralString = "SELECT schedule FROM reconciler.timings"
    nightly = build_job("a", daily="02:30")
    for zone, expected in (
        ("Europe/Oslo", [("30 2 * * *",)]),
        ("UTC", []),
        ("Asia/Tokyo", [("30 2 * * *",)]),
    ):
        server.set_server_settings(cron__timezone=zone)
        site.apply(nightly)
        assert site.rows(rules) == expected
        assert site.plan(nightly).plan.is_empty


# --- observe ---


def test_the_clocks_of_zones_are_observed(conn: psycopg.Connection) -> None:
    """Offsets of each zone that the server knows for twelve years, before there is a schema too."""
    conn.execute("DROP SCHEMA reconciler CASCADE")
    clocks = observe(conn, (*ZONES, "Mars/Olympus", "", "CET")).state.clocks
    assert set(clocks) == {*ZONES, "CET"}
    year = datetime.now(UTC).year
    for zone, changes in clocks.items():
        assert changes[0][0] == datetime(year - 1, 1, 1, tzinfo=UTC)
        mine, known = make_clock(changes), read_clock("Europe/Brussels" if zone == "CET" else zone)
        first, last = (to_seconds(datetime(number, 1, 1, tzinfo=UTC)) for number in (year - 1, year + 11))
        assert mine.changes == tuple(at for at in known.changes if first < at < last)
        assert all(mine.offset_at(at) == known.offset_at(at) for at in (first, *mine.changes, last - 1))
    assert len(clocks["Europe/Oslo"]) == 25


def test_runs_that_go_on_are_observed(site: Site) -> None:
    """Each with its number and its beginning; and the database's clock."""
    site.apply(job("a", hold()), job("b"))
    with running(site) as run:
        with connect(site.dsn) as conn:
            state = observe(conn).state
        (seen,) = state.running["a"]
        assert seen.run_id == run.run
        assert state.now is not None
        assert abs(state.now - seen.run_at) < timedelta(seconds=10)
        assert list(state.running) == ["a"]


def test_who_may_not_read_the_log_plans_without_it(site: Site) -> None:
    """A role without a right on the log sees no runs, and is not stopped by it."""
    site.run("CREATE ROLE planner LOGIN")
    site.apply(job("a", hold()))
    site.run(
        "GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO planner;"
        "REVOKE SELECT ON reconciler.cron_execution_log FROM planner"
    )
    with running(site):
        assert observe(site.database.connect("planner")).state.running == {}
