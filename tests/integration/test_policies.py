"""Policies and job states as apply keeps them: copied from the definitions, never behind the plan's back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import LiteralString

import pytest

from tests.declared import Site, job, queue
from tests.integration.test_apply_faults import blocked_apply

pytestmark = pytest.mark.one_server

DUE: LiteralString = "SELECT name, next_due_at FROM reconciler.job_states ORDER BY name"


def test_apply_writes_what_was_declared(site: Site) -> None:
    """Every policy of a managed job arrives as typed columns; a direct job has none."""
    site.apply(
        job(
            "a",
            timeout="90s",
            concurrency="wait",
            catch_up="all",
            on_failure={
                "retries": 4,
                "backoff": {"initial": "1s", "factor": 3, "max": "1m"},
                "jitter": False,
            },
            alert={"after": 2, "on": ["failed", "slow"], "channels": [], "slow": "2.5x", "remind": "4h"},
        ),
        job("plain"),
        job("raw", "VACUUM", mode="direct"),
    )
    rows = site.rows("SELECT to_jsonb(p) - 'digest' FROM reconciler.policies p ORDER BY name")
    assert [row[0]["name"] for row in rows] == ["a", "plain"]
    assert rows[0][0] == {
        "name": "a",
        "timeout": "00:01:30",
        "concurrency": "wait",
        "catch_up": "all",
        "retries": 4,
        "backoff_initial": "00:00:01",
        "backoff_factor": 3,
        "backoff_max": "00:01:00",
        "jitter": False,
        "alert_after": 2,
        "alert_on": ["failed", "slow"],
        "channels": [],
        "slow_limit": None,
        "slow_factor": 2.5,
        "remind": "04:00:00",
        "after": [],
        "zone": "GMT",
    }


def test_the_next_fire_is_known_from_the_apply_on(site: Site) -> None:
    """An active entry has its next fire; an inactive one and a job without entry have none."""
    site.apply(
        job("a", schedule="0 3 * * *"), job("b", schedule="0 4 * * *"), job("off", active=False), queue("q")
    )
    rows = site.rows(
        "SELECT reconciler.next_fire(t.s, now(), 'GMT') FROM (VALUES ('0 3 * * *'), ('0 4 * * *')) AS t (s)"
    )
    assert site.rows(DUE) == [("a", rows[0][0]), ("b", rows[1][0]), ("off", None)]


def test_an_edit_of_the_body_forgets_no_missed_run(site: Site) -> None:
    """The next fire is computed anew when the schedule changes, and only then."""
    site.apply(job("a", schedule="0 3 * * *"))
    site.run("UPDATE reconciler.job_states SET next_due_at = '2020-01-01 03:00Z'")
    site.apply(job("a", "SELECT 2", schedule="0 3 * * *"))
    assert site.rows("SELECT next_due_at < now() FROM reconciler.job_states") == [(True,)]
    site.apply(job("a", "SELECT 2", schedule="0 5 * * *"))
    assert site.rows("SELECT next_due_at > now() FROM reconciler.job_states") == [(True,)]


def test_an_edited_policy_is_drift(site: Site) -> None:
    """A policy that was changed or deleted by hand is shown by plan, and apply puts it back."""
    declared = job("a", timeout="5m")
    site.apply(declared)
    site.run("UPDATE reconciler.policies SET timeout = '1 s'")
    (change,) = site.plan(declared).plan.changes
    assert (change.action, change.reason, [field.path for field in change.fields]) == (
        "update",
        "drifted",
        ["row.timeout"],
    )
    site.apply(declared)
    assert site.rows("SELECT timeout FROM reconciler.policies") == [(timedelta(minutes=5),)]
    site.run("DELETE FROM reconciler.policies")
    assert len(site.plan(declared).plan.changes) == 1
    site.apply(declared)
    assert site.plan(declared).plan.is_empty
    assert site.rows("SELECT timeout FROM reconciler.policies") == [(timedelta(minutes=5),)]


def test_a_job_that_becomes_direct_leaves_nothing_behind(site: Site) -> None:
    """The policies, state, pause and waiting starts of a job go when pg_cron gets it as it is."""
    site.apply(job("a"))
    site.run("SELECT reconciler.request_run('a')")
    site.run("SELECT reconciler.pause_job('a')")
    site.apply(job("a", mode="direct"))
    assert site.rows(
        "SELECT (SELECT count(*) FROM reconciler.policies), (SELECT count(*) FROM reconciler.job_states),"
        " (SELECT count(*) FROM reconciler.starts), (SELECT count(*) FROM reconciler.pauses)"
    ) == [(0, 0, 0, 0)]
    assert site.plan(job("a", mode="direct")).plan.notices == ()


def test_a_slow_apply_expects_no_run_before_its_end(site: Site) -> None:
    """pg_cron sees an entry when the apply commits: what would have been due before that was not missed."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("1.4 has no seconds, and a full minute is too long a test")
    site.apply(queue("q"))
    lock: LiteralString = "LOCK TABLE reconciler.revisions"
    with blocked_apply(site, job("a", schedule="1 second"), queue("q"), lock=lock) as blocked:
        time.sleep(2)
        (released,) = site.rows("SELECT clock_timestamp()")[0]
        blocked.blocker.rollback()
    (due,) = site.rows("SELECT next_due_at FROM reconciler.job_states")[0]
    assert due > released


def test_dependents_are_listed_row_by_row(site: Site) -> None:
    """Who waits for whom follows the declarations, also when they change."""
    site.apply(job("a"), job("b"), job("c", after=["a", "b"]))
    listed: LiteralString = "SELECT after_name, job_name FROM reconciler.dependencies ORDER BY 1, 2"
    assert site.rows(listed) == [("a", "c"), ("b", "c")]
    site.apply(job("a"), job("b"), job("c", after=["b"]))
    assert site.rows(listed) == [("b", "c")]
    site.apply(job("a"), job("b"), job("c"))
    assert site.rows(listed) == []


def test_a_pause_is_shown_and_is_no_drift(site: Site) -> None:
    """Plan tells who paused a job until when and why; there is nothing to change."""
    site.apply(job("a"))
    site.run("SELECT reconciler.pause_job('a', '2099-01-02 03:04Z', 'the vendor is down')")
    plan = site.plan(job("a")).plan
    assert plan.is_empty
    assert [(notice.code, notice.names, notice.message) for notice in plan.notices] == [
        ("paused", ("a",), "paused until 2099-01-02 03:04:00Z by postgres: the vendor is down")
    ]


def test_who_cannot_see_the_zone_takes_it_as_applied(site: Site) -> None:
    """A role without sight of pg_cron's settings neither plans nor writes another zone."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("1.4 has no cron.timezone")
    site.database.server.set_server_settings(cron__timezone="Europe/Oslo")
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    declared = job("a", role="alice")
    site.apply(declared)
    site.run("GRANT ALL ON SCHEMA reconciler TO alice; GRANT ALL ON ALL TABLES IN SCHEMA reconciler TO alice")
    alice = Site(site.database, "alice")
    assert alice.changes(declared) == []
    edited, new = job("a", "SELECT 2", role="alice"), job("b", role="alice")
    alice.apply(edited, new)
    zones: LiteralString = "SELECT name, zone FROM reconciler.policies ORDER BY 1"
    assert site.rows(zones) == [("a", "Europe/Oslo"), ("b", "Europe/Oslo")]
    assert site.changes(edited, new) == []


def test_a_change_of_the_servers_zone_is_drift(site: Site) -> None:
    """When pg_cron reads schedules in another zone, expectations have to follow."""
    if site.database.server.pg_cron < (1, 5, 0):
        pytest.skip("1.4 has no cron.timezone")
    declared = job("a", schedule="0 3 * * *")
    site.apply(declared)
    site.database.server.set_server_settings(cron__timezone="Europe/Oslo")
    assert [field.path for field in site.plan(declared).plan.changes[0].fields] == ["row.zone"]
    site.apply(declared)
    assert site.plan(declared).plan.is_empty
    assert site.rows(
        "SELECT next_due_at = reconciler.next_fire('0 3 * * *', now(), 'Europe/Oslo')"
        " FROM reconciler.job_states"
    ) == [(True,)]
