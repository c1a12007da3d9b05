"""The commands `jobs list|show|retry|cancel`: what is on the queues, for people and for programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site, queue
from tests.queued import claim_one, complete, enqueue, fail, look

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


def read(shell: Cli, *arguments: str) -> Any:
    """Run a command that shows JSON, and read it."""
    result = shell(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def bury(conn: Connection, count: int = 1, name: str = "default") -> list[int]:
    """Queue jobs and let them die."""
    found = []
    for _ in range(count):
        found.append(enqueue(conn, name))
        fail(conn, claim_one(conn, name), "no such\naddress", final=True)
    return found


def test_jobs_are_listed(shell: Cli, conn: Connection) -> None:
    """The newest first, each on a line, with what matters most of it."""
    assert shell("jobs", "list").stdout == "No jobs yet.\n"
    [dead] = bury(conn)
    enqueue(conn, "mail", after=3600)
    lines = shell("jobs", "list").stdout.splitlines()
    assert lines[0].split() == ["job", "queue", "handler", "status", "when", "tries", "error"]
    assert re.fullmatch(r"\d+ +mail     work\.do  scheduled  [0-9-]{10} [0-9:]{8}Z  0", lines[1])
    assert re.fullmatch(
        rf"{dead} +default  work\.do  failed     [0-9-]{{10}} [0-9:]{{8}}Z  1      no such \.\.\.", lines[2]
    )
    assert len(lines) == 3


def test_jobs_are_listed_by_what_is_asked(shell: Cli, site: Site, conn: Connection) -> None:
    """Status, queue, handler, declared job; as many as are wanted."""
    first, second, third = enqueue(conn), enqueue(conn, "mail"), enqueue(conn, after=3600)
    site.run("UPDATE reconciler.jobs SET handler = 'b', job_name = 'nightly' WHERE id = %s", second)

    def ids(*arguments: str) -> list[int]:
        return [job["id"] for job in read(shell, "jobs", "list", *arguments)]

    assert ids() == [third, second, first]
    assert ids("--status", "scheduled") == [third]
    assert ids("--queue", "mail") == [second]
    assert ids("--handler", "work.do", "--limit", "1") == [third]
    assert ids("--job", "nightly", "--status", "pending") == [second]
    assert ids("--status", "failed") == []
    assert shell("jobs", "list", "--status", "failed").stdout == "No such jobs.\n"
    assert shell("jobs", "list", "--status", "dead").exit_code == 2


def test_the_json_of_a_job_has_everything(shell: Cli, conn: Connection) -> None:
    """Instants after RFC 3339, durations in seconds; show adds what the queue says."""
    job = enqueue(conn, payload={"to": "anna"}, unique_key="u", timeout=90)
    complete(conn, [claim_one(conn)], [{"sent": 1}])
    [listed] = read(shell, "jobs", "list")
    assert set(listed) == {
        *(
            "id",
            "queue",
            "handler",
            "type",
            "status",
            "scheduled",
            "active",
            "run_at",
            "priority",
            "attempts",
        ),
        *("max_attempts", "losses", "unique_key", "ordering_key", "timeout_seconds", "job_name", "run_id"),
        *("worker", "lease_until", "cancelled_by", "created_at", "started_at", "completed_at", "payload"),
        *("result", "last_error"),
    }
    assert (listed["id"], listed["status"], listed["timeout_seconds"]) == (job, "completed", 90)
    assert (listed["payload"], listed["result"], listed["max_attempts"]) == (
        {"to": "anna"},
        {"sent": 1},
        None,
    )
    shown = read(shell, "jobs", "show", str(job))
    assert shown == {**listed, "max_attempts": 5, "held_by": None}


def test_one_job_is_shown_with_its_whole_story(shell: Cli, site: Site, conn: Connection) -> None:
    """What it is called with, how often it was tried, why it failed."""
    site.apply(queue("mail", max_attempts=7, timeout="5m"))
    job = enqueue(conn, "mail", payload={"to": "anna", "n": [1]}, unique_key="u", priority=3)
    fail(conn, claim_one(conn, "mail", worker="host:12"), "no such\naddress", final=True)
    text = shell("jobs", "show", str(job)).stdout
    assert text.startswith(f"Job {job} on mail: failed in ")
    for line in (
        "  handler   work.do",
        "  tries     1 of 7",
        "  timeout   5m 00s",
        "  priority  3",
        "  unique    u",
        "  worker    host:12",
        '  payload   {\n              "n": [',
        "  error     no such\n            address",
    ):
        assert line in text
    site.run("UPDATE reconciler.jobs SET run_id = 9, job_name = 'nightly' WHERE id = %s", job)
    text = shell("jobs", "show", str(job)).stdout
    assert "  declared  by nightly" in text
    assert "  run       9 (reconciler runs --id 9)" in text


def test_a_job_that_waits_says_what_for(shell: Cli, conn: Connection) -> None:
    """Its time, a worker, or another job of its order."""
    later = enqueue(conn, after=7200)
    assert re.match(
        rf"Job {later} on default: scheduled, due in [12]h", shell("jobs", "show", str(later)).stdout
    )
    first, second = enqueue(conn, "blocking"), enqueue(conn, "blocking")
    assert shell("jobs", "show", str(first)).stdout.startswith(f"Job {first} on blocking: pending, due for ")
    claimed = claim_one(conn, "blocking")
    text = shell("jobs", "show", str(first)).stdout
    assert text.startswith(f"Job {first} on blocking: running for ")
    assert "  lease     until " in text
    assert (
        f"  held by   job {first}, which runs; 1 job waits behind it"
        in shell("jobs", "show", str(second)).stdout
    )
    fail(conn, claimed, retry_in=60)
    text = shell("jobs", "show", str(second)).stdout
    assert f"  held by   job {first}, which waits for its next try, until " in text
    assert "held by" not in shell("jobs", "show", str(first)).stdout
    held = read(shell, "jobs", "show", str(second))["held_by"]
    assert (held["job_id"], held["why"], held["waiting"]) == (first, "retry", 1)


def test_what_a_job_holds_is_harmless_for_a_terminal(shell: Cli, site: Site, conn: Connection) -> None:
    """Control characters are written out."""
    job = enqueue(conn, payload={"a": "\x1b[31m"})
    site.run("UPDATE reconciler.jobs SET last_error = E'\\x1b]0;x', handler = E'\\x1b[1m' WHERE id = %s", job)
    for command in (["jobs", "list"], ["jobs", "show", str(job)]):
        assert "\x1b" not in shell(*command).stdout


def test_dead_jobs_begin_anew(shell: Cli, conn: Connection) -> None:
    """All that are named; those that are neither dead nor cancelled stay as they are."""
    dead = bury(conn, 2)
    waits = enqueue(conn)
    done = enqueue(conn, "mail")
    complete(conn, [claim_one(conn, "mail")])
    result = shell("jobs", "retry", *map(str, (*dead, waits, done)))
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            *(f"Job {job} is pending." for job in (*dead, waits)),
            f"Job {done} is completed, and stays so: dead and cancelled ones are tried again.",
        ],
    )
    assert [look(conn, job)["status"] for job in dead] == ["pending", "pending"]


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_where_one_job_is_unknown_none_is_touched(shell: Cli, conn: Connection, command: str) -> None:
    """It is named."""
    job = bury(conn)[0] if command == "retry" else enqueue(conn)
    before = look(conn, job)
    result = shell("jobs", command, str(job), "998", "999", *(["--yes"] if command == "cancel" else []))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no queued job 998, 999 on the target" in result.stderr
    assert look(conn, job) == before
    result = shell("jobs", "show", "999")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no queued job 999 on the target" in result.stderr


def test_all_dead_jobs_of_a_queue_begin_anew(shell: Cli, conn: Connection) -> None:
    """Bit by bit and on another queue, where that is said."""
    dead = bury(conn, 3)
    bury(conn, 1, "other")
    result = shell(
        "jobs", "retry", "--all", "--queue", "default", "--limit", "2", "--every", "1h", "--to-queue", "slow"
    )
    assert (result.exit_code, result.stdout) == (0, "2 dead jobs of default are pending on slow.\n")
    assert [look(conn, job)["queue"] for job in dead] == ["slow", "slow", "default"]
    assert [job["scheduled"] for job in read(shell, "jobs", "list", "--queue", "slow")] == [True, False]
    assert (
        shell("jobs", "retry", "--all", "--queue", "default").stdout == "1 dead job of default is pending.\n"
    )
    assert shell("jobs", "retry", "--all", "--queue", "default").stdout == (
        "No dead jobs of default could be tried again.\n"
    )


def test_a_taken_unique_key_is_told(shell: Cli, conn: Connection) -> None:
    """With what to do about it."""
    dead = enqueue(conn, unique_key="k")
    fail(conn, claim_one(conn), final=True)
    enqueue(conn, unique_key="k")
    result = shell("jobs", "retry", str(dead))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has the same unique_key k" in result.stderr
    assert "Wait until that one is finished, or cancel it." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retry"], "name the jobs by their IDs, or give --all with --queue"),
        (["retry", "1", "--all"], "name the jobs by their IDs, or give --all with --queue"),
        (["retry", "--all"], "--all takes the dead jobs of one queue: give --queue too"),
        (["retry", "1", "--to-queue", "x"], "go with --all"),
        (["retry", "x"], "'x' is not a valid integer"),
        (["cancel"], "Missing argument 'ID...'"),
        (["cancel", "1", "2"], "there is no terminal to ask on; give --yes to cancel several jobs"),
        (["show", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_told(shell: Cli, arguments: list[str], words: str) -> None:
    """Exit code 2, and nothing is done."""
    result = shell("jobs", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_jobs_are_cancelled(shell: Cli, conn: Connection) -> None:
    """One at once, several with --yes; each says what became of it."""
    waits, runs, done = enqueue(conn, after=60), enqueue(conn), enqueue(conn, "mail")
    claim_one(conn)
    complete(conn, [claim_one(conn, "mail")])
    assert shell("jobs", "cancel", str(waits)).stdout == f"Job {waits} is cancelled.\n"
    result = shell("jobs", "cancel", str(runs), str(done), "--yes")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [f"Told the worker of job {runs} to end it.", f"Job {done} is over already: completed."],
    )
    assert look(conn, runs)["cancelled_by"] == "postgres"
