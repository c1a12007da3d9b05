"""What an operator sees of a job that a worker does: from the request to its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_operating import check, find_running, log, started, write
from tests.queued import claim_one, complete

if TYPE_CHECKING:
    from tests.conftest import Cli
    from tests.servers import Database

JOBS = """\
jobs:
  mail:
    schedule: "0 0 29 2 *"
    handler: mail.send
    queue: outreach
queues:
  outreach: {}
"""


@pytest.fixture
def project(cli: Cli, database: Database) -> Cli:
    """A folder with one job for workers, applied."""
    write(cli, database, jobs=JOBS)
    applied = cli("apply", "--yes", env={"HOOK": "sesame-canary"})
    assert applied.exit_code == 0, applied
    assert "no worker" not in applied.stdout + applied.stderr
    return cli


def test_followed_to_the_end_of_its_work(project: Cli, database: Database) -> None:
    """To run it and wait is to wait for the worker; meanwhile every command says where it stands."""
    with started(project, "run", "mail", "--here") as process:
        run = find_running(database, "mail")
        check(project("status", "mail"), 0, "queued for")
        check(project("runs", "mail"), 0, "waits on outreach")
        check(project("runs", "--id", str(run)), 0, "waits", "queued job 1 waits on outreach")
        [row] = json.loads(project("runs", "--json").stdout)
        assert (row["status"], row["note"]) == ("running", "queued job 1 waits on outreach")
        check(project("status", "mail"), 0, "queued for")
        worker = database.connect()
        claimed = claim_one(worker, "outreach")
        check(project("status", "mail"), 0, "running for")
        complete(worker, [claimed])
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"Run {run}: queued job 1 waits on outreach." in output
    assert f"Run {run}: succeeded" in output
    check(project("runs", "--id", str(run)), 0, "job 1 of the jobs table")


def test_cancelled_before_and_while_a_worker_does_it(project: Cli, database: Database) -> None:
    """What waits is cancelled at once; what runs is told to end."""
    worker = database.connect()
    worker.execute("CALL reconciler.run_job('mail')")
    first = find_running(database, "mail")
    check(project("cancel", str(first)), 0, f"Cancelled run {first} of mail: no worker had begun with it.")
    assert log(database, "mail") == [(first, "cancelled")]
    worker.execute("CALL reconciler.run_job('mail')")
    second = find_running(database, "mail")
    claim_one(worker, "outreach")
    check(project("cancel", str(second)), 0, f"Told run {second} of mail to end.")
    check(project("cancel", str(first)), 0, "is over already: cancelled")
