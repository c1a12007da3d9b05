"""The command `queues`: how deep each queue is, how quick, and what holds it up."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site, queue
from tests.queued import claim, claim_one, complete, enqueue, fail, fill

if TYPE_CHECKING:
    from psycopg import Connection

    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    return site


def test_no_queues_are_told(shell: Cli) -> None:
    """In words, and as an empty list."""
    assert shell("queues").stdout == "No queues: nothing is declared, and nothing was queued.\n"
    assert shell("queues", "--json").stdout == "[]\n"


def test_queues_are_shown(shell: Cli, site: Site, conn: Connection) -> None:
    """Each on a line: depth, age of the oldest, dead ones, rate, workers, and what blocks it."""
    site.apply(queue("mail", concurrency=2))
    fill(conn, 5, "mail")
    batch = claim(conn, "mail")
    complete(conn, batch[:1])
    fail(conn, batch[1], final=True)
    claim(conn, "mail", 1)
    enqueue(conn, "other", after=3600)
    conn.execute("SELECT reconciler.report_worker('w', 'host', 1, '{mail}', 5)")
    lines = shell("queues").stdout.splitlines()
    assert lines[0].split("  ")[0] == "queue"
    assert re.fullmatch(r"mail +standard +2 +[0-9.]+ m?s +0 +1 of 2 +1 +1 +1 +1", lines[1])
    assert re.fullmatch(r"other +standard, undeclared +0 +1 +0 +0 +0 +0 +0", lines[2])
    assert len(lines) == 3


def test_the_json_has_everything(shell: Cli, site: Site, conn: Connection) -> None:
    """Durations in seconds."""
    site.apply(queue("mail", concurrency=2))
    fill(conn, 3, "mail")
    [found] = json.loads(shell("queues", "--json").stdout)
    assert found.pop("oldest_age_seconds") > 0
    assert found == {
        "queue": "mail",
        "mode": "standard",
        "declared": True,
        "waiting": 3,
        "scheduled": 0,
        "running": 0,
        "concurrency": 2,
        "failed": 0,
        "completed_last_minute": 0,
        "completed_last_hour": 0,
        "rate": 0,
        "workers": 0,
        "blocked_by": "no worker",
    }


def test_one_queue_is_shown_with_what_holds_it_up(shell: Cli, conn: Connection) -> None:
    """Job, reason, and how many wait."""
    fill(conn, 3, "blocking", key="")
    head = claim_one(conn, "blocking")
    lines = shell("queues").stdout.splitlines()
    assert lines[1].endswith(f"  job {head.id} (running)")
    text = shell("queues", "blocking").stdout
    assert re.search(rf"\(all\) +2 +job {head.id} +runs +(now|\d+s ago)$", text, re.MULTILINE)
    fail(conn, head, retry_in=60)
    text = shell("queues", "blocking").stdout
    assert re.search(
        rf"\(all\) +2 +job {head.id} +waits for its next try +(now|\d+s ago) +[0-9-]+ [0-9:]+Z", text
    )
    [found] = json.loads(shell("queues", "blocking", "--json").stdout)
    [held] = found["held"]
    assert (held["job_id"], held["why"], held["waiting"], held["ordering_key"]) == (head.id, "retry", 2, "")


def test_a_queue_that_is_not_there_is_told(shell: Cli, site: Site) -> None:
    """With the nearest one that is."""
    site.apply(queue("outreach"))
    result = shell("queues", "outreech")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no queue outreech on the target" in result.stderr
    assert "did you mean outreach?" in result.stderr
