"""Queues as a team has documented them for itself, call by call: workers made in SQL, jobs put over HTTP.

Everything is real: pg_cron, the extension http, the run endpoint on a socket.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.runtime import Fail, Handlers, enqueue, get_job
from tests.calling import Client, serve_endpoint, wait_for
from tests.declared import Site
from tests.queued import statuses
from tests.runs import fire, log, wait_for_pg_cron
from tests.servers import LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.servers import Database

# Where the extension http is installed.
pytestmark = pytest.mark.parametrize(
    "database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name)
)
BASE = "https://app.relay.club"
TOKEN = "123ABC"
WORKERS: LiteralString = """
SELECT create_queue_worker('worker-default-1', 'https://app.relay.club/api/jobs/run', '123ABC', '* * * * *');
SELECT create_queue_worker('worker-default-2', 'https://app.relay.club/api/jobs/run', '123ABC', '* * * * *');
SELECT create_queue_worker('worker-failed-1', 'https://app.relay.club/api/jobs/run?status=failed', '123ABC',
    '* * * * *');
SELECT create_queue_worker('worker-outreach-1', 'https://app.relay.club/api/jobs/run?queue=outreach',
    '123ABC', '* * * * *');
SELECT create_queue_worker('worker-outreach-failed-1',
    'https://app.relay.club/api/jobs/run?queue=outreach&status=failed', '123ABC', '* * * * *');
SELECT create_queue_worker('sequence_send', 'https://app.relay.club/api/jobs/run?queue=sequence_send',
    '123ABC', '* * * * *')
"""
MORE: LiteralString = """
SELECT create_queue_worker('worker-default-2', 'https://app.relay.club/api/jobs/run?limit=3', '123ABC',
    '* * * * *')
"""
EACH_SECOND: LiteralString = """
SELECT create_queue_worker('worker-default-1', 'https://app.relay.club/api/jobs/run', '123ABC', '1 seconds')
"""
WRONG: LiteralString = """
SELECT create_queue_worker('worker-default-1', 'https://app.relay.club/api/jobs/run', '123ABD', '* * * * *')
"""
CLEANUP: LiteralString = (
    "SELECT cron.schedule('cleanup-cron-details', '0 0 * * *',"
    " $$ DELETE FROM cron.job_run_details WHERE end_time < now() - interval '7 days' $$)"
)
NOW = datetime(2020, 1, 1, tzinfo=UTC)


class Relay:
    """The application: its handlers, its endpoint, its database.

    Attributes:
        site: The database.
        client: Calls the endpoint as the application's own code does.
        done: What handlers did.
        is_mail_down: Whether sending fails for good.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.client = Client(port=0)
        self.done: list[str] = []
        self.is_mail_down = False
        self.handlers = Handlers()
        self.handlers.register(self.send, "send_email")
        self.handlers.register(self.import_, "import_contacts")

    async def send(self, to: str) -> dict[str, str]:
        """Send a mail."""
        if self.is_mail_down:
            raise Fail("the mail server is down")
        self.done.append(to)
        return {"sent_to": to}

    async def import_(self, n: int) -> None:
        """Take a moment."""
        self.done.append(f"{n} begins")
        await asyncio.sleep(0.05)
        self.done.append(f"{n} ends")

    def execute(self, statements: LiteralString) -> None:
        """Run documented statements: the address is this machine's, everything else as it stands there."""
        self.connect().execute(statements.replace(BASE, f"http://127.0.0.1:{self.client.port}").encode())

    def make_workers(self, statements: LiteralString = WORKERS) -> None:
        """Make workers that only the test fires, whenever the minute is full."""
        self.execute(statements)
        self.site.run("UPDATE cron.job SET active = false WHERE schedule = '* * * * *'")

    def connect(self) -> psycopg.Connection:
        """Connect as the database is set up for the application."""
        conn = self.site.database.connect()
        conn.execute("SET search_path = public, reconciler")
        return conn

    def job(self, **job: Any) -> int:
        """Put a job as the documentation says."""
        reply = self.client.enqueue(**job)
        assert reply.status == 201, reply.document
        return int(reply.document["id"])

    def status(self, job: int) -> str:
        """Ask how a job fares."""
        return str(self.client.get(job).document["status"])


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """The application, and its database with both extensions."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    site.apply()
    relay = Relay(site)
    with serve_endpoint(site.dsn, relay.handlers, tokens=TOKEN) as client:
        relay.client = Client(port=client.port, token=TOKEN)
        yield relay


def test_the_documented_setup_runs(relay: Relay) -> None:
    """All workers and the clean-up become entries; each worker calls its endpoint and gets a good answer."""
    relay.make_workers()
    relay.execute(CLEANUP)
    entries = relay.site.rows("SELECT jobname::text FROM cron.job WHERE jobname NOT LIKE 'reconciler-%%'")
    names = {name for (name,) in entries} - {"cleanup-cron-details"}
    assert names == {
        *("worker-default-1", "worker-default-2", "worker-failed-1"),
        *("worker-outreach-1", "worker-outreach-failed-1", "sequence_send"),
    }
    for name in names:
        assert fire(relay.site, name) is None
        assert log(relay.site, name, "status", "response_status") == [("succeeded", 200)]


def test_a_job_is_done_by_its_queues_worker(relay: Relay) -> None:
    """A job waits on its queue until that queue's worker fires, and not before its time."""
    relay.make_workers()
    first = relay.job(name="send_email", run_at=NOW.isoformat(), payload={"to": "ann"}, queue="default")
    other = relay.job(name="send_email", run_at=NOW.isoformat(), payload={"to": "bob"}, queue="outreach")
    later = relay.job(name="send_email", run_at="2099-01-01T00:00:00Z", payload={"to": "eve"})
    fire(relay.site, "worker-default-1")
    assert [relay.status(job) for job in (first, other, later)] == ["completed", "pending", "pending"]
    fire(relay.site, "worker-default-2")
    fire(relay.site, "worker-outreach-1")
    assert [relay.status(job) for job in (first, other, later)] == ["completed", "completed", "pending"]
    assert relay.done == ["ann", "bob"]
    assert relay.client.get(first).document["result"] == {"sent_to": "ann"}


def test_failed_jobs_are_rerun_by_their_worker(relay: Relay) -> None:
    """A job that failed stays failed until the worker for failed jobs fires; each queue has its own."""
    relay.make_workers()
    relay.is_mail_down = True
    job = relay.job(name="send_email", payload={"to": "ann"})
    other = relay.job(name="send_email", payload={"to": "bob"}, queue="outreach")
    fire(relay.site, "worker-default-1")
    fire(relay.site, "worker-outreach-1")
    assert relay.client.get(job).document["error"] == "the mail server is down"
    fire(relay.site, "worker-default-1")
    assert [relay.status(job), relay.status(other)] == ["failed", "failed"]
    relay.is_mail_down = False
    fire(relay.site, "worker-failed-1")
    assert [relay.status(job), relay.status(other)] == ["completed", "failed"]
    fire(relay.site, "worker-outreach-failed-1")
    assert relay.status(other) == "completed"


def test_the_queue_failed_is_the_failed_jobs_of_the_default_queue(relay: Relay) -> None:
    """`?queue=failed` is another way to say so."""
    relay.is_mail_down = True
    job = relay.job(name="send_email", payload={"to": "ann"})
    assert relay.client.run().statuses == ["failed"]
    relay.is_mail_down = False
    assert relay.client.run("queue=failed").statuses == ["completed"]
    assert relay.status(job) == "completed"


def test_a_blocking_queue_waits_for_the_job_before(relay: Relay) -> None:
    """Whatever the limit, jobs of the queue `blocking` run one after the other."""
    for n in range(3):
        relay.job(name="import_contacts", payload={"n": n}, queue="blocking")
    assert relay.client.run("queue=blocking&limit=3").statuses == ["completed"] * 3
    assert relay.done == [f"{n} {what}" for n in range(3) for what in ("begins", "ends")]


def test_jobs_are_made_and_looked_at_in_code(relay: Relay) -> None:
    """`createJob()` and `getJob()` are enqueue and get_job."""
    conn = relay.connect()
    job = enqueue(conn, "send_email", {"to": "ann"}, run_at=NOW, queue="sequence_send").id
    relay.make_workers()
    fire(relay.site, "sequence_send")
    found = get_job(conn, job)
    assert found is not None
    assert (found.status, found.result) == ("completed", {"sent_to": "ann"})


def test_a_worker_does_as_many_jobs_as_its_limit(relay: Relay) -> None:
    """The number of workers, or the limit of one, says how many jobs go at each interval."""
    for n in range(6):
        relay.job(name="send_email", payload={"to": str(n)})
    relay.make_workers()
    fire(relay.site, "worker-default-1")
    fire(relay.site, "worker-default-2")
    assert statuses(relay.site) == {"completed": 2, "pending": 4}
    relay.make_workers(MORE)
    fire(relay.site, "worker-default-2")
    assert statuses(relay.site) == {"completed": 5, "pending": 1}


def test_pg_cron_fires_a_worker_until_it_is_unscheduled(relay: Relay) -> None:
    """Nobody but pg_cron calls: the job is done; after cron.unschedule nothing is."""
    job = relay.job(name="send_email", payload={"to": "ann"})
    relay.execute(EACH_SECOND)
    wait_for_pg_cron(relay.site, lambda: relay.status(job) == "completed", what="the job is done")
    relay.execute("SELECT cron.unschedule('worker-default-1')")
    wait_for(lambda: "running" not in [status for (status,) in log(relay.site, "worker-default-1")])
    calls = len(log(relay.site, "worker-default-1"))
    late = relay.job(name="send_email", payload={"to": "bob"})
    asyncio.run(asyncio.sleep(2.5))
    assert (relay.status(late), len(log(relay.site, "worker-default-1"))) == ("pending", calls)
    assert relay.done == ["ann"]


def test_a_worker_with_a_wrong_token_does_nothing(relay: Relay) -> None:
    """Its call is logged as failed, with the status of the answer, and no job is touched."""
    job = relay.job(name="send_email", payload={"to": "ann"})
    relay.make_workers(WRONG)
    assert fire(relay.site, "worker-default-1") is not None
    assert log(relay.site, "worker-default-1", "status", "response_status") == [("failed", 401)]
    assert relay.status(job) == "pending"
