"""The service while its database is away, hangs, cuts connections or has none left."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.runtime.shared_answers import SharedAnswers
from tests.declared import job
from tests.network import network_to
from tests.served import Served, serve
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response

    from tests.declared import Site

pytestmark = pytest.mark.one_server

NEEDS_NONE = {"/health", "/api/v1/health", "/api/v1/plan", "/api/v1/drift"}
"""What asks no database, or no files of this service."""
TELLS_ITSELF = {"/metrics", "/api/v1/metrics"}
"""What tells of the outage in an answer."""
JOBS = "/api/jobs"
CUT = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE application_name = 'reconciler service'"
)
WAITS = (
    "SELECT FROM pg_stat_activity WHERE application_name = 'reconciler service' AND wait_event_type = 'Lock'"
)


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of a database with a job; it keeps no answers."""
    site.apply(job("orders"))
    later = count(step=3600)
    with serve(site, answers=SharedAnswers(lambda: next(later))) as made:
        yield made


def check_away(reply: Response) -> None:
    """See that an answer is the problem of a database that is away, and tells nothing else."""
    assert reply.status_code == 503, (reply.request.url, reply.text)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert int(reply.headers["Retry-After"]) > 0
    for secret in ("postgres", "/tmp", "app on", "5432", "Traceback"):
        assert secret not in reply.text


def call_all(served: Served) -> list[Response]:
    """Call every route that reads and every one that changes something, which takes the least."""
    replies = []
    for path, methods in served.app.openapi()["paths"].items():
        if path in NEEDS_NONE | TELLS_ITSELF:
            continue
        where = re.sub(r"\{\w+\}", "7", path)
        scopes = ("read", "trigger", "write", "run")
        if "get" in methods:
            replies.append(served.get(where, scopes=scopes))
        if "delete" in methods:
            replies.append(served.delete(where, scopes=scopes, headers={"If-Match": '"x"'}))
    replies.append(served.post(JOBS, json={"name": "work.do"}, scopes=scopes))
    assert len(replies) > 10
    return replies


def test_a_server_that_is_away_and_comes_back(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Each route says so at once, and the log once; who comes when it is back finds all as it was."""
    before = [reply.status_code for reply in call_all(served)]
    assert not {500, 503} & set(before), before
    for is_known in (True, False):
        served.site.database.server.stop(immediate=True)
        if not is_known:
            served.service.known_callers._known.clear()
        began = time.monotonic()
        for reply in call_all(served):
            check_away(reply)
        assert time.monotonic() - began < 3
        assert served.get("/health", scopes=()).status_code == 200
        served.site.database.server.start()
        assert served.get("/api/v1/status").status_code == 200
        after = [reply.status_code for reply in call_all(served)]
        assert not {500, 503} & set(after), after
    told = [one.message for one in caplog.records if one.name == "reconciler.service"]
    # The second outage comes before ten seconds are over.
    assert [text.split(" to app")[0] for text in told] == ["cannot connect", "connected", "connected"]


def test_connections_that_are_cut_are_told_once(served: Served) -> None:
    """Cut in the middle of requests: these answer 503; cut between them, nobody hears of it."""
    site, replies = served.site, []
    token = {"Authorization": f"Bearer {served.token('read')}"}
    with site.database.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE reconciler.jobs_open")
        threads = [
            threading.Thread(target=lambda: replies.append(served.client.get(JOBS, headers=token)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(site.rows(WAITS)) == 4, seconds=10, what="all wait")
        site.run(CUT)
        for thread in threads:
            thread.join(10)
    for reply in replies:
        check_away(reply)
    assert len(replies) == 4
    for _ in range(3):
        assert served.get(JOBS).status_code == 200
        site.run(CUT)


def test_all_connections_in_use(served: Served) -> None:
    """Who gets none within the patience is told to come again; probes need none of the requests' threads."""
    connections = served.service.connections
    connections._patience = 0.2
    served.get("/api/v1/status")
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connections.connection())
        reply = served.get(JOBS)
        check_away(reply)
        assert "no time" in reply.json()["detail"]
        assert served.get("/ready", scopes=()).status_code == 503
        assert served.get("/health", scopes=()).status_code == 200
    assert served.get(JOBS).status_code == 200


def test_a_statement_that_hangs(served: Served) -> None:
    """It ends in time, on the server as well, and others are answered meanwhile."""
    served.service.connections._limit = 0.5
    site = served.site
    with site.database.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE reconciler.jobs_open")
        began = time.monotonic()
        reply = served.get(JOBS)
        check_away(reply)
        assert 0.4 < time.monotonic() - began < 5
        assert site.rows(WAITS) == []
        assert served.get("/api/v1/revisions").status_code == 200
    assert served.get(JOBS).status_code == 200


def test_a_server_that_comes_and_goes_under_load(served: Served) -> None:
    """Every answer is right or 503; afterwards each connection can be had."""
    site, is_over = served.site, threading.Event()
    found: list[Response] = []
    served.get("/api/v1/status")
    token = {"Authorization": f"Bearer {served.token('read')}"}

    def call(path: str) -> None:
        while not is_over.is_set():
            found.append(served.client.get(path, headers=token))

    threads = [
        threading.Thread(target=call, args=[path])
        for path in (JOBS, "/api/v1/runs", "/api/v1/status", "/api/v1/queues", "/ready")
    ]
    for thread in threads:
        thread.start()
    for _ in range(3):
        site.database.server.stop(immediate=True)
        time.sleep(0.2)
        site.database.server.start()
        begun = len(found)
        wait_until(
            lambda begun=begun: any(reply.status_code == 200 for reply in found[begun:]),  # type: ignore[misc] # mypy knows no defaults here
            seconds=10,
            what="it answers again",
        )
    is_over.set()
    for thread in threads:
        thread.join(20)
    statuses = {reply.status_code for reply in found}
    assert statuses <= {200, 404, 503}, statuses
    assert {200, 503} <= statuses
    with ExitStack() as stack:
        for _ in range(10):
            conn = stack.enter_context(served.service.connections.connection())
            assert conn.execute("SELECT 1").fetchone() == (1,)


BORROWER = """
import sys, time
from reconciler.errors import ReconcilerError
from reconciler.runtime.thread_connections import ThreadConnections

connections = ThreadConnections(sys.argv[1])
for line in sys.stdin:
    began = time.monotonic()
    try:
        with connections.connection() as conn:
            conn.execute("SELECT 1" if line.strip() == "ask" else line)
        told = "good"
    except ReconcilerError as error:
        told = type(error).__name__
    print(told, round(time.monotonic() - began, 1), flush=True)
"""


def test_a_network_that_swallows_packets(site: Site) -> None:
    """Each request hears of it within the time to connect, and the first one after it is back is answered."""
    parts = conninfo_to_dict(site.database.server.tcp_dsn)
    with network_to("127.0.0.1", int(str(parts["port"]))) as network:
        if network.device is None:
            pytest.skip("packets can be swallowed as root alone, with the program ip")
        host, port = network.address
        dsn = make_conninfo(site.database.server.tcp_dsn, host=host, port=port)
        process = subprocess.Popen(
            [*network.prefix, sys.executable, "-c", BORROWER, dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> tuple[str, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("ask\n")
            process.stdin.flush()
            told, seconds = process.stdout.readline().split()
            return told, float(seconds)

        with process:
            assert ask()[0] == "good"
            network.cut()
            for _ in range(2):  # the connection that is kept, then a new one
                told, seconds = ask()
                assert (told, seconds < 4.5) == ("ConnectError", True), (told, seconds)
            network.mend()
            assert ask()[0] == "good"
            process.stdin.close()
