"""The endpoints of the users' own job services, as they listed them, called on ours.

Everything is real: pg_cron, the extension http, the service on a socket.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.runtime import Fail, Handlers
from reconciler.runtime.run_endpoint import RunEndpoint
from tests.calling import Client, Reply, serve
from tests.declared import Site
from tests.runs import fire, log
from tests.served import Served
from tests.servers import LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Database

# Where the extension http is installed.
pytestmark = pytest.mark.parametrize(
    "database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name)
)
BASE = "https://app.relay.club"
TOKEN = "123ABC"
WORKERS: LiteralString = """
SELECT create_queue_worker('worker-outreach-1', 'https://app.relay.club/api/jobs/run?queue=outreach',
    '123ABC', '* * * * *');
SELECT create_queue_worker('worker-outreach-failed-1',
    'https://app.relay.club/api/jobs/run?queue=outreach&status=failed', '123ABC', '* * * * *')
"""
DUE = "2020-01-01T00:00:00Z"


class Relay:
    """The application: the service, with its handlers in the same process.

    Attributes:
        site: Its database.
        sent: What its handler sent.
        is_mail_down: Whether sending fails for good.
    """

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site = site
        self.sent: list[str] = []
        self.is_mail_down = False
        handlers = Handlers()
        handlers.register(self.send, "send_email")
        served = Served(site, endpoint=RunEndpoint(site.dsn, handlers, tokens=TOKEN))
        self._port = stack.enter_context(serve(served.app)).port
        self._token = served.token("read", "write", "run")

    async def send(self, to: str) -> dict[str, str]:
        """Send a mail."""
        if self.is_mail_down:
            raise Fail("the mail server is down")
        self.sent.append(to)
        return {"sent_to": to}

    def call(self, call: str, body: dict[str, Any] | None = None, *, token: str | None = None) -> Reply:
        """Call the API as it stands in a list: method and path."""
        method, path = call.split()
        client = Client(port=self._port, token=token or self._token, prefix="")
        content = None if body is None else json.dumps(body).encode()
        return client.call(method, path, content, Content_Type="application/json")

    def put(self, to: str, **job: Any) -> int:
        """Put a mail that is to be sent."""
        reply = self.call("POST /api/jobs", {"name": "send_email", "payload": {"to": to}, **job})
        assert (reply.status, reply.document["created"]) == (201, True)
        return int(reply.document["id"])

    def status(self, job: int) -> str:
        """Ask how a job fares."""
        return str(self.call(f"GET /api/jobs/{job}").document["status"])

    def list(self, status: str) -> list[int]:
        """List the jobs of a status."""
        return [job["id"] for job in self.call(f"GET /api/jobs?status={status}").document["items"]]

    def make_workers(self) -> None:
        """Make workers that only the test fires, whenever the minute is full."""
        conn = self.site.database.connect()
        conn.execute("SET search_path = public, reconciler")
        conn.execute(WORKERS.replace(BASE, f"http://127.0.0.1:{self._port}").encode())
        self.site.run("UPDATE cron.job SET active = false WHERE schedule = '* * * * *'")


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """The application, and its database with both extensions."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    site.apply()
    with ExitStack() as stack:
        yield Relay(site, stack)


def test_the_endpoints_of_queued_jobs(relay: Relay) -> None:
    """POST /api/jobs, GET /api/jobs/[id], POST /api/jobs/run with queue, status, limit; a worker calls it."""
    body = {"name": "send_email", "run_at": DUE, "payload": {"to": "ann"}, "queue": "outreach"}
    ann = relay.call("POST /api/jobs", body).document["id"]
    bob, eve = relay.put("bob", queue="outreach"), relay.put("eve")

    shown = relay.call(f"GET /api/jobs/{ann}").document
    assert (shown["name"], shown["run_at"], shown["payload"], shown["queue"], shown["status"]) == (
        *("send_email", DUE, {"to": "ann"}, "outreach"),
        "pending",
    )

    # `limit` defaults to 1, `queue` to default, `status` to pending.
    assert relay.call("POST /api/jobs/run?queue=outreach").document["counts"]["completed"] == 1
    assert (relay.status(ann), relay.status(bob), relay.status(eve)) == ("completed", "pending", "pending")
    relay.is_mail_down = True
    assert relay.call("POST /api/jobs/run?queue=outreach&status=pending&limit=10").statuses == ["failed"]
    relay.is_mail_down = False
    assert relay.call("POST /api/jobs/run?queue=outreach&status=pending&limit=10").statuses == []
    assert relay.call("POST /api/jobs/run?queue=outreach&status=failed&limit=10").statuses == ["completed"]
    assert relay.call("POST /api/jobs/run").statuses == ["completed"]
    assert relay.sent == ["ann", "bob", "eve"]

    # select create_queue_worker(name, url, token, schedule): the same call, with the token of the endpoint.
    relay.make_workers()
    dan = relay.put("dan", queue="outreach")
    relay.is_mail_down = True
    assert fire(relay.site, "worker-outreach-1") is None
    assert relay.status(dan) == "failed"
    relay.is_mail_down = False
    assert fire(relay.site, "worker-outreach-failed-1") is None
    assert relay.call(f"GET /api/jobs/{dan}").document["result"] == {"sent_to": "dan"}
    for worker in ("worker-outreach-1", "worker-outreach-failed-1"):
        assert log(relay.site, worker, "status", "response_status") == [("succeeded", 200)]

    # The token of the endpoint does jobs, and nothing else.
    assert relay.call(f"GET /api/jobs/{dan}", token=TOKEN).status == 401


def test_the_calls_of_the_job_scheduler(relay: Relay) -> None:
    """get_job, get_jobs_by_status (scheduled, running, completed, failed, cancelled), retry_job, cancel."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    scheduled, other = relay.put("ann", run_at=later), relay.put("bob", run_at=later)
    done = relay.put("eve")
    relay.call("POST /api/jobs/run")
    relay.is_mail_down = True
    failed = relay.put("dan")
    relay.call("POST /api/jobs/run")

    assert relay.list("scheduled") == [other, scheduled]
    assert relay.list("running") == []
    assert relay.list("completed") == [done]
    assert relay.list("failed") == [failed]
    assert relay.list("cancelled") == []

    assert relay.call(f"POST /api/jobs/{other}/cancel").document == {"id": other, "status": "cancelled"}
    assert relay.call(f"DELETE /api/jobs/{scheduled}").document["status"] == "cancelled"
    assert relay.list("cancelled") == [other, scheduled]
    assert relay.call(f"POST /api/jobs/{done}/cancel").status == 409

    relay.is_mail_down = False
    assert relay.call(f"POST /api/jobs/{failed}/retry").document == {"id": failed, "status": "pending"}
    assert relay.call("POST /api/jobs/run").statuses == ["completed"]
    assert relay.call(f"POST /api/jobs/{other}/retry", {"run_at": later}).status == 200
    assert relay.list("scheduled") == [other]
    assert relay.call(f"POST /api/jobs/{failed}/retry").status == 409
