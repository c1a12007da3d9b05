"""Retiring what is no longer declared, bringing it back, and deleting it when its grace is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.errors import RefusedError, StalePlanError
from tests.declared import LATER, Site, after, channel, job, once, queue, request, worker
from tests.servers import wait_until

if TYPE_CHECKING:
    from reconciler.core.plan import Plan
    from tests.servers import Database

GRACE = timedelta(days=7)
RETIRING: dict[str, Any] = {"prune": "confirm", "grace": GRACE}


def end_grace(site: Site) -> None:
    """Let every grace be over."""
    site.run("UPDATE reconciler.definitions SET retired_until = now() WHERE retired_until IS NOT NULL")


def list_notices(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    """List codes and names of the notices."""
    return [(notice.code, notice.names) for notice in plan.notices]


def test_an_entry_stands_still_for_its_grace_and_goes_then(site: Site) -> None:
    """After consent the entry is inactive and keeps its jobid; when it is over it goes without a word."""
    site.apply(job("a"), job("b"))
    entry = site.entry("b")
    with pytest.raises(RefusedError, match="the plan retires 1, and this target asks for consent"):
        site.apply(job("a"), **RETIRING)
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    assert site.entry("b") == entry | {"active": False}
    ((until, is_week, active),) = site.rows(
        "SELECT retired_until, retired_until - retired_at = '7 days', active FROM reconciler.definitions"
        " WHERE name = 'b'"
    )
    assert (is_week, active) == (True, False)
    assert timedelta(days=6) < until - datetime.now(UTC) < timedelta(days=8)
    planned = site.plan(job("a"), **RETIRING).plan
    assert planned.changes == ()
    assert list_notices(planned) == [("in_grace", ("b",))]
    end_grace(site)
    assert site.changes(job("a"), **RETIRING) == [("delete", "b", "removed")]
    site.apply(job("a"), **RETIRING)
    assert site.rows("SELECT jobname FROM cron.job") == [("a",)]
    assert site.rows("SELECT name FROM reconciler.definitions") == [("a",)]


def test_what_is_declared_again_goes_on_where_it_was(site: Site) -> None:
    """In its grace a job that is declared again is restored: the same jobid, and edits of it arrive."""
    site.apply(job("a"), job("b"))
    entry = site.entry("b")
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    assert site.changes(job("a"), job("b"), **RETIRING) == [("update", "b", "restored")]
    site.apply(job("a"), job("b", "SELECT 2"), **RETIRING)
    assert site.entry("b") == entry
    assert (
        site.rows("SELECT retired_at, retired_until, active FROM reconciler.definitions")
        == [(None, None, True)] * 2
    )
    assert site.changes(job("a"), job("b", "SELECT 2"), **RETIRING) == []


def test_a_retired_thing_can_get_another_name(site: Site) -> None:
    """A rename of it works as of any, and ends its grace."""
    site.apply(job("a"), job("b"))
    entry = site.entry("b")
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    site.apply(job("a"), job("c", renamed_from="b"), **RETIRING)
    assert (site.entry("c")["jobid"], site.entry("c")["active"]) == (entry["jobid"], True)
    assert site.rows("SELECT count(*) FROM reconciler.definitions WHERE retired_at IS NOT NULL") == [(0,)]


def test_what_stirs_in_its_grace_is_stopped_again(site: Site) -> None:
    """Switched on by hand it is retired again, keeps its date, and needs no other consent."""
    site.apply(job("a"), job("b"))
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    entry = site.entry("b")
    until = site.rows("SELECT retired_until FROM reconciler.definitions WHERE name = 'b'")
    site.run("SELECT cron.alter_job(jobid, schedule := '1 1 1 1 *') FROM cron.job WHERE jobname = 'b'")
    assert site.changes(job("a"), **RETIRING) == []  # it stands still, and goes as it is
    entry["schedule"] = "1 1 1 1 *"
    site.run("SELECT cron.alter_job(jobid, active := true) FROM cron.job WHERE jobname = 'b'")
    assert site.changes(job("a"), **RETIRING) == [("retire", "b", "drifted")]
    site.apply(job("a"), **RETIRING)
    assert site.entry("b") == entry
    assert site.rows("SELECT retired_until FROM reconciler.definitions WHERE name = 'b'") == until


def test_one_time_work_is_held_in_its_grace(site: Site) -> None:
    """A one-time job that waits is held, runs again once restored, and is cancelled after the grace."""
    query: LiteralString = "SELECT job_name, active, status FROM reconciler.jobs ORDER BY 1"
    site.apply(job("a"), once("o"), once("p"))
    site.apply(job("a"), allow_deletes=2, **RETIRING)
    assert site.rows(query) == [("o", False, "pending"), ("p", False, "pending")]
    site.run("UPDATE reconciler.jobs SET active = true WHERE job_name = 'o'")
    assert site.changes(job("a"), **RETIRING) == [("retire", "o", "drifted")]
    site.apply(job("a"), **RETIRING)
    site.apply(job("a"), once("o"), **RETIRING)
    assert site.rows(query) == [("o", True, "pending"), ("p", False, "pending")]
    end_grace(site)
    site.apply(job("a"), once("o"), **RETIRING)
    assert site.rows(query) == [("o", True, "pending"), ("p", False, "cancelled")]


def test_every_kind_can_be_retired_restored_and_deleted(site: Site) -> None:
    """Direct jobs, dependants, workers, queues and channels go through their grace as jobs do."""
    specs = (
        job("direct", mode="direct"),
        after("follower", "a"),
        worker("w", queue="q"),
        queue("q"),
        channel("c"),
        once("o", LATER),
    )
    site.apply(job("a"), *specs)
    before = site.everything()["cron.job"]
    site.apply(job("a"), allow_deletes=6, **RETIRING)
    assert site.changes(job("a"), **RETIRING) == []
    site.apply(job("a"), *specs, **RETIRING)
    assert sorted(row[2] for row in site.everything()["cron.job"]) == sorted(row[2] for row in before)
    assert site.changes(job("a"), *specs, **RETIRING) == []
    site.apply(job("a"), allow_deletes=6, **RETIRING)
    end_grace(site)
    site.apply(job("a"), **RETIRING)
    assert site.rows("SELECT name FROM reconciler.definitions") == [("a",)]


def test_a_queue_in_use_is_kept(site: Site) -> None:
    """A queue with jobs that wait is neither retired nor deleted; plan counts them, up to a thousand."""
    site.apply(job("a"), queue("q"))
    site.run("SELECT reconciler.enqueue('work.do', queue => 'q') FROM generate_series(1, 3)")
    policies: list[dict[str, Any]] = [RETIRING, {"prune": "auto"}]
    for policy in policies:
        planned = site.plan(job("a"), **policy).plan
        assert planned.changes == ()
        assert [notice.message[:50] for notice in planned.notices] == [
            "no longer declared, and kept: 3 waiting; it goes o"
        ]
    site.run("SELECT reconciler.enqueue('work.do', queue => 'q') FROM generate_series(1, 1000)")
    (notice,) = site.plan(job("a"), **RETIRING).plan.notices
    assert "1,000 or more waiting" in notice.message
    site.run("UPDATE reconciler.jobs SET status = 'cancelled', completed_at = now()")
    assert site.changes(job("a"), **RETIRING) == [("retire", "q", "removed")]


def test_a_queue_that_another_owner_needs_is_kept(site: Site) -> None:
    """What jobs of other owners refer to stays, and the notice names them."""
    site.apply(job("a"), queue("q"))
    site.apply(job("theirs", handler="work.do", queue="q"), owner="other")
    planned = site.plan(job("a"), **RETIRING).plan
    assert planned.changes == ()
    assert "other owners refer to it (job theirs of other)" in planned.notices[0].message


def test_nothing_of_what_is_retired_starts(site: Site) -> None:
    """Requests are refused, starts that wait are skipped, and dependants that are retired are not woken."""
    site.apply(job("a"), after("b", "a"), job("c"))
    site.run("SELECT reconciler.request_run('c')")
    site.apply(job("a"), allow_deletes=2, **RETIRING)
    with pytest.raises(Exception, match="the job c is retired until"):
        site.run("SELECT reconciler.request_run('c')")
    with pytest.raises(Exception, match="the job c is retired until"):
        site.run("CALL reconciler.run_job('c')")
    site.run("CALL reconciler.run_job('a')")
    site.run("CALL reconciler.runner()")
    assert site.rows(
        "SELECT job_name, status, left(error_message, 13) FROM reconciler.cron_execution_log ORDER BY 1"
    ) == [("a", "succeeded", None), ("c", "skipped", "retired until")]
    assert site.rows("SELECT * FROM reconciler.starts") == []


def test_one_time_work_that_waits_for_another_try_waits_on(site: Site) -> None:
    """Its start is put off while it is retired, and carried out once it is restored."""
    work = once("o", sql="SELECT 1")
    site.apply(job("a"), work)
    site.run("UPDATE reconciler.jobs SET status = 'running' WHERE job_name = 'o'")
    site.run(
        "INSERT INTO reconciler.starts (job_name, trigger, due_at, attempt, queued_job_id)"
        " SELECT 'o', 'retry', now(), 2, id FROM reconciler.jobs"
    )
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    site.run("CALL reconciler.runner()")
    assert site.rows("SELECT due_at > now() FROM reconciler.starts") == [(True,)]
    site.apply(job("a"), work, **RETIRING)
    site.run("UPDATE reconciler.starts SET due_at = now()")
    site.run("CALL reconciler.runner()")
    assert site.rows("SELECT status FROM reconciler.jobs") == [("completed",)]


def test_alerts_of_what_is_retired_are_closed(site: Site) -> None:
    """Nobody is reminded of what nobody declares any more; a missed run is not looked for."""
    site.apply(job("a"), job("b"))
    site.run("UPDATE reconciler.job_states SET next_due_at = now() - interval '1 day' WHERE name = 'b'")
    site.apply(job("a"), allow_deletes=1, **RETIRING)
    site.run(
        "INSERT INTO reconciler.alerts (job_name, kind, message, channels)"
        " VALUES ('a', 'failed', 'm', '{}'), ('b', 'failed', 'm', '{}')"
    )
    site.run("CALL reconciler.tick()")
    assert site.rows("SELECT job_name FROM reconciler.alerts WHERE resolved_at IS NULL") == [("a",)]
    assert site.rows("SELECT next_due_at, missed_runs FROM reconciler.job_states WHERE name = 'b'") == [
        (None, 0)
    ]


def test_a_role_that_may_not_stop_entries_is_told(database: Database) -> None:
    """Retiring is beyond a role that may call cron.schedule alone; others make it anew."""
    alice = Site(database, "alice")
    alice.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    alice.run(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO alice', current_database()); END $$"
    )
    alice.apply(job("a"), job("b"))
    (change,) = alice.plan(job("a"), **RETIRING).plan.beyond_rights
    assert (change.action, change.name) == ("retire", "b")
    alice.run("GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO alice")
    alice.apply(job("a"), allow_deletes=1, **RETIRING)
    assert alice.entry("b")["active"] is False
    assert alice.rows("SELECT jobid FROM reconciler.definitions WHERE name = 'b'") == [
        (alice.entry("b")["jobid"],)
    ]
    assert alice.changes(job("a"), **RETIRING) == []


def test_no_deletion_comes_between_plan_and_apply(site: Site) -> None:
    """What was shown as in its grace, or in use, is not deleted because that ended meanwhile."""
    site.apply(job("a"), job("b"))
    site.apply(job("a", "SELECT 2"), allow_deletes=1, **RETIRING)
    wanted = request(job("a"), **RETIRING)
    with connect(site.dsn) as conn:
        shown = plan_target(conn, wanted)
        assert [change.name for change in shown.plan.changes] == ["a"]
        time_until = (
            "UPDATE reconciler.definitions SET retired_until = now() + interval '1 second' WHERE name = 'b'"
        )
        site.run(time_until)
        shown = plan_target(conn, wanted)
        wait_until(
            lambda: site.changes(job("a"), **RETIRING)[-1] == ("delete", "b", "removed"),
            seconds=10,
            what="the end of the grace",
        )
        with pytest.raises(StalePlanError, match="what it takes away"):
            apply_target(conn, wanted, expected=shown.fingerprints(), shown=shown)
