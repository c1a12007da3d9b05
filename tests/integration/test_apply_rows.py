"""Applying what is no entry of cron.job: queues, workers and one-time jobs; and healing hand edits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.declared import LATER, Site, channel, job, once, queue, worker
from tests.servers import wait_until

if TYPE_CHECKING:
    from reconciler.core.specs import Spec


def test_a_queue_becomes_a_row(site: Site) -> None:
    """A queue's row holds what is declared, and the documented values for the rest; a change reaches it."""
    site.apply(
        queue("plain"),
        queue(
            "full",
            mode="blocking",
            max_attempts=7,
            backoff={"initial": "10s", "factor": 1.5, "max": "2h"},
            concurrency=20,
            rate="100/1m",
            retention="30d",
            lease="2m",
            timeout="3h",
            keep_failed="90d",
            held_by=["failed"],
        ),
    )
    query: LiteralString = "SELECT * FROM reconciler.queues ORDER BY name"
    full, plain = site.rows(query)
    assert [str(value) for value in full[1:]] == [
        *("blocking", "7", "0:00:10", "1.5", "2:00:00", "20", "100", "0:01:00", "30 days, 0:00:00"),
        *("0:02:00", "3:00:00", "90 days, 0:00:00", "['failed']"),
    ]
    assert [str(value) for value in plain[1:]] == [
        *("standard", "5", "0:00:30", "2", "1:00:00", "None", "None", "None", "7 days, 0:00:00"),
        *("0:00:30", "1:00:00", "30 days, 0:00:00", "['retry']"),
    ]
    site.apply(queue("plain", max_attempts=1), prune="auto")
    assert site.rows("SELECT name, max_attempts FROM reconciler.queues") == [("plain", 1)]


def test_a_worker_becomes_a_row(site: Site) -> None:
    """A worker's row holds what is declared; no entry is made where no request can be sent."""
    site.apply(worker("w", token={"secret": "key"}, queue="q", status="failed", limit=10, timeout="5s"))
    assert site.rows("SELECT * FROM reconciler.workers") == [
        ("w", "q", "https://app.test/run", "key", "failed", 10, timedelta(seconds=5))
    ]
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]


def test_a_one_time_job_waits_as_a_row(site: Site) -> None:
    """A one-time job is one pending row; moved while it waits, the same row moves."""
    site.apply(once("o", payload={"n": 1}))
    (row,) = site.rows("SELECT id, job_name, run_at, status, handler, queue, payload FROM reconciler.jobs")
    assert row[1:] == ("o", LATER, "pending", "work.do", "default", {"n": 1})
    moved = LATER + timedelta(days=1)
    site.apply(once("o", moved, queue="mail"))
    assert site.rows("SELECT id, run_at, queue, payload FROM reconciler.jobs") == [
        (row[0], moved, "mail", {})
    ]


def test_a_one_time_job_has_its_tries_and_its_limit(site: Site) -> None:
    """Where they are declared with its handler the row has them, and follows; else its queue decides."""
    tries: LiteralString = "SELECT max_attempts, timeout FROM reconciler.jobs"
    site.apply(once("o", timeout="5m", on_failure={"retries": 2}))
    assert site.rows(tries) == [(3, timedelta(minutes=5))]
    site.apply(once("o", on_failure={"retries": 0}))
    assert site.rows(tries) == [(1, None)]
    site.apply(once("o"))
    assert site.rows(tries) == [(None, None)]
    site.apply(once("o", sql="SELECT 1", timeout="5m", on_failure={"retries": 2}))
    assert site.rows(tries) == [(None, None)]


def test_a_removed_one_time_job_is_cancelled(site: Site) -> None:
    """A one-time job that still waits is cancelled with its declaration, and may be declared anew."""
    site.apply(once("o"), job("a"))
    site.apply(job("a"), prune="auto")
    assert site.rows("SELECT status, completed_at IS NOT NULL FROM reconciler.jobs") == [("cancelled", True)]
    site.apply(once("o"), job("a"))
    assert site.rows("SELECT status FROM reconciler.jobs ORDER BY id") == [("cancelled",), ("pending",)]


@pytest.mark.parametrize("status", ["running", "completed", "failed", "cancelled"])
def test_a_one_time_job_that_began_is_not_touched(site: Site, status: str) -> None:
    """Running or settled, its row stays as it is when its declaration changes, goes, and comes back."""
    site.apply(once("o"), job("a"))
    site.run("UPDATE reconciler.jobs SET status = %s", status)
    before = site.rows("SELECT xmin::text, * FROM reconciler.jobs")
    site.apply(once("o", LATER + timedelta(days=1)), job("a"))
    assert site.rows("SELECT xmin::text, * FROM reconciler.jobs") == before
    assert site.changes(once("o", LATER + timedelta(days=1)), job("a")) == []
    site.apply(once("o", LATER + timedelta(days=2), protect=True), job("a"))
    assert site.rows("SELECT protect FROM reconciler.definitions WHERE name = 'o'") == [(True,)]
    assert site.rows("SELECT xmin::text, * FROM reconciler.jobs") == before
    site.apply(once("o"), job("a"))
    site.apply(job("a"), prune="auto")
    assert site.rows("SELECT xmin::text, * FROM reconciler.jobs") == before
    site.apply(once("o"), job("a"))
    assert site.rows("SELECT xmin::text, * FROM reconciler.jobs") == before


def test_a_one_time_job_that_ran_and_was_cleared_away_stays_away(site: Site) -> None:
    """A row that retention took after its run does not come back."""
    site.apply()
    due_at = datetime.now(UTC) + timedelta(seconds=2)
    past = once("o", due_at)
    site.apply(past)
    site.run("UPDATE reconciler.jobs SET status = 'completed'")
    site.run("DELETE FROM reconciler.jobs")
    wait_until(lambda: datetime.now(UTC) > due_at, seconds=9, what="its time has come")
    assert site.changes(past) == []
    site.apply(past, job("a"))
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (once("x"), job("x")),
        (job("x"), once("x")),
        (queue("x"), job("x")),
        (job("x"), queue("x")),
        (worker("x"), queue("x")),
        (once("x"), channel("x")),
    ],
    ids=lambda spec: spec.kind + ("" if "once" not in spec.document else "-once"),
)
def test_a_resource_may_become_another_kind(site: Site, before: Spec, after: Spec) -> None:
    """A name that is declared as something else leaves nothing of its old kind that waits or fires."""
    site.apply(before)
    site.apply(after)
    assert site.changes(after) == []
    count = site.rows(
        "SELECT (SELECT count(*) FROM cron.job), (SELECT count(*) FROM reconciler.queues),"
        " (SELECT count(*) FROM reconciler.workers),"
        " (SELECT count(*) FROM reconciler.jobs WHERE status = 'pending')"
    )
    is_once = "once" in after.document
    expected = (after.kind == "job" and not is_once, after.kind == "queue", after.kind == "worker", is_once)
    assert count == [tuple(int(one) for one in expected)]


def test_a_resource_of_another_kind_leaves_nothing_after_a_hand_edit(site: Site) -> None:
    """What it was is known from its rows, not from a spec that somebody may have edited."""
    site.apply(once("x"), queue("y"))
    site.run("UPDATE reconciler.definitions SET spec = '{}', kind = 'job'")
    site.apply(job("x"), job("y"))
    assert site.changes(job("x"), job("y")) == []
    assert site.rows("SELECT status FROM reconciler.jobs") == [("cancelled",)]
    assert site.rows("SELECT count(*) FROM reconciler.queues") == [(0,)]


def test_a_one_time_job_may_be_renamed_while_it_waits(site: Site) -> None:
    """The waiting row goes on under the new name; there is never a second one."""
    site.apply(once("o"))
    before = site.rows("SELECT id FROM reconciler.jobs")
    site.apply(once("p", renamed_from="o"))
    assert site.rows("SELECT id FROM reconciler.jobs WHERE job_name = 'p'") == before
    assert site.changes(once("p", renamed_from="o")) == []


def test_a_rename_to_the_name_of_a_one_time_job_that_ran_is_no_error(site: Site) -> None:
    """Where a one-time job of the new name ran already, nothing runs again under it, and apply converges."""
    site.apply(once("o"), once("p"))
    site.run("UPDATE reconciler.jobs SET status = 'completed' WHERE job_name = 'p'")
    site.apply(once("o"), prune="auto")
    wanted = once("p", renamed_from="o")
    site.apply(wanted, prune="auto")
    assert site.changes(wanted, prune="auto") == []
    rows = site.rows("SELECT job_name, status FROM reconciler.jobs WHERE once ORDER BY id")
    assert rows == [("p", "completed")]


HAND_EDITS: dict[str, LiteralString] = {
    "schedule": "UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = 'a'",
    "command": "UPDATE cron.job SET command = 'SELECT 666' WHERE jobname = 'a'",
    "switched off": "SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'a'",
    "database": "UPDATE cron.job SET database = 'template1' WHERE jobname = 'a'",
    "role": "UPDATE cron.job SET username = 'other' WHERE jobname = 'a'",
    "name": "UPDATE cron.job SET jobname = 'A' WHERE jobname = 'a'",
    "name and schedule": "UPDATE cron.job SET jobname = 'A', schedule = '1 1 1 1 *' WHERE jobname = 'a'",
    "no name": "UPDATE cron.job SET jobname = NULL WHERE jobname = 'a'",
    "unscheduled": "SELECT cron.unschedule('a')",
    "all unscheduled": "DELETE FROM cron.job",
    "scheduled again": "SELECT cron.unschedule('a'); SELECT cron.schedule('a', '2 2 2 2 *', 'SELECT 3')",
    "scheduled again alike": "SELECT cron.unschedule('a');"
    " SELECT cron.schedule('a', '0 0 29 2 *', 'CALL reconciler.run_job(''a'')')",
    "spec": """UPDATE reconciler.definitions SET spec = '{"schedule":"0 0 29 2 *","sql":"x"}'
        WHERE name = 'a'""",
    "spec reordered": """UPDATE reconciler.definitions SET spec = '{"sql":"SELECT 1","schedule":"0 0 29 2 *"}'
        WHERE name = 'a'""",
    "digest": "UPDATE reconciler.definitions SET digest = '' WHERE name = 'a'",
    "protect": "UPDATE reconciler.definitions SET protect = true WHERE name = 'a'",
    "definition gone": "DELETE FROM reconciler.definitions WHERE name = 'a'",
    "queue": "UPDATE reconciler.queues SET max_attempts = 99",
    "queue gone": "DELETE FROM reconciler.queues",
    "worker": "UPDATE reconciler.workers SET url = 'https://evil.test'",
    "worker gone": "DELETE FROM reconciler.workers",
    "one-time job": "UPDATE reconciler.jobs SET run_at = '2098-01-01Z', payload = '[1]'",
    "one-time job gone": "DELETE FROM reconciler.jobs",
    "one-time job off": "UPDATE reconciler.jobs SET active = false",
}


@pytest.mark.parametrize("edit", HAND_EDITS)
def test_a_hand_edit_is_drift_and_is_healed(site: Site, edit: str) -> None:
    """What somebody changed behind our back is planned as drift, put back, and the next plan is empty."""
    specs: list[Spec] = [
        job("a"),
        job("b"),
        queue("q", rate="10/1s"),
        worker("w"),
        once("o", payload={"deep": [1]}),
    ]
    site.apply(*specs)
    site.run("CREATE ROLE other LOGIN")
    query: LiteralString = (
        "SELECT jobname::text, schedule, command, database, username::text, active, NULL FROM cron.job"
        " UNION ALL SELECT name, spec::text, digest, kind, owner, protect, lock_key"
        " FROM reconciler.definitions"
        " UNION ALL SELECT q::text, '', '', '', '', true, NULL FROM reconciler.queues q"
        " UNION ALL SELECT w::text, '', '', '', '', true, NULL FROM reconciler.workers w"
        " UNION ALL SELECT job_name, run_at::text, payload::text, handler, queue, active, NULL"
        " FROM reconciler.jobs ORDER BY 1, 2"
    )
    before = site.rows(query)
    jobid = site.entry("a")["jobid"]
    site.run(HAND_EDITS[edit])
    changes = site.changes(*specs)
    reasons = {"definition gone": {"adopted"}, "protect": {"edited"}, "digest": {"drifted"}}
    assert {reason for _, _, reason in changes} == reasons.get(edit, {"drifted"})
    site.apply(*specs)
    assert site.rows(query) == before
    assert site.changes(*specs) == []
    if "scheduled" not in edit:
        assert site.entry("a")["jobid"] == jobid
