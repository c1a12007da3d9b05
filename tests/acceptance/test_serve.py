"""`reconciler serve`: the service and the run endpoint as a process, as people start and stop it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.calling import Client, wait_for
from tests.declared import Site
from tests.queued import enqueue, look, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server


CONFIG = """\
owner: shop
targets:
  test: {{dsn: "{dsn}"}}
secrets:
  run-endpoint: {{env: RUN_TOKEN}}
  next: {{file: next.token}}
"""
HANDLERS = """\
import time
from reconciler.runtime.handlers import Handlers

handlers = Handlers()

@handlers.handler("work.do")
async def do(n=0):
    return n

@handlers.handler("work.slow")
def slow(seconds):
    time.sleep(seconds)
    return "slept"
"""
JOBS = """\
jobs:
  orders: {schedule: "0 1 * * *", sql: SELECT 1}
"""
OLD, NEW = "old-0123456789abcdef", "new-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Shop:
    """A project with handlers, whose schema is on the target."""

    cli: Cli
    site: Site

    @property
    def env(self) -> dict[str, str]:
        """The environment of a server: without tokens of the outside."""
        outside = {
            key: value for key, value in os.environ.items() if not key.startswith(("RECONCILER_", "PG"))
        }
        return {**outside, "RUN_TOKEN": OLD}

    @contextmanager
    def serving(
        self, *args: str, app: Sequence[str] = ("--app", "shop_jobs"), **env: str
    ) -> Iterator[Server]:
        """Serve on any free port, until the end of the block at the latest."""
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "serve", *app, "--port", "0", *args],
            cwd=self.cli.directory,
            env={**self.env, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = Server(process)
        try:
            wait_for(lambda: server.port > 0 or process.poll() is not None)
            yield server
        finally:
            process.kill()
            process.wait()
            server.reader.join(10)


class Server:
    """A server while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[str] = []
        self.port = 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def client(self, token: str | None = OLD) -> Client:
        """Return what calls it."""
        return Client(port=self.port, token=token)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.told.append(line.rstrip())
                if line.startswith("Serving http://"):
                    self.port = int(line.split("/")[2].partition(":")[2])


@pytest.fixture
def shop(cli: Cli, database: Database) -> Shop:
    """Configuration, handlers and schema."""
    site = Site(database)
    site.apply()
    (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=database.dsn))
    (cli.directory / "shop_jobs.py").write_text(HANDLERS)
    (cli.directory / "next.token").write_text(f"{NEW}\n")
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d" / "shop.yaml").write_text(JOBS)
    return Shop(cli, site)


def make_token(shop: Shop, *scopes: str) -> str:
    """Make a token of the API, as people do."""
    options = [part for scope in scopes for part in ("--scope", scope)]
    result = shop.cli("token", "create", "-".join(scopes), *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout.split()[0]


def put(shop: Shop, name: str, **payload: object) -> int:
    """Queue a job of one of the handlers."""
    conn = shop.site.database.connect()
    job = enqueue(conn, payload=payload)
    conn.execute("UPDATE reconciler.jobs SET handler = %s WHERE id = %s", [name, job])
    return job


def test_it_serves_until_it_is_told_to_end(shop: Shop) -> None:
    """Jobs are run by call; SIGTERM ends it at once when nothing runs, with exit code 0."""
    job = put(shop, "work.do", n=7)
    with shop.serving("--token-secret", "run-endpoint") as server:
        assert server.told == [f"Serving http://127.0.0.1:{server.port}/api/jobs/run"]
        assert server.client("wrong").run().status == 401
        assert server.client().run().document["jobs"][0]["result"] == 7
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    assert look(shop.site.database.connect(), job)["status"] == "completed"
    assert "SIGTERM: ends when the jobs that run are over." in server.told
    assert not [line for line in server.told if OLD in line or "Traceback" in line]


def test_the_token_comes_out_of_the_environment(shop: Shop) -> None:
    """RECONCILER_RUN_TOKEN is the token where no secret is named; it may hold two."""
    with shop.serving(RECONCILER_RUN_TOKEN=f"{OLD} {NEW}") as server:
        assert [server.client(token).run().status for token in (OLD, NEW, "", None)] == [200, 200, 401, 401]


def test_it_needs_no_configuration(shop: Shop) -> None:
    """With --dsn and a token in the environment a folder with handlers is enough."""
    (shop.cli.directory / "reconciler.yaml").unlink()
    with shop.serving("--dsn", shop.site.dsn, RECONCILER_RUN_TOKEN=OLD) as server:
        assert server.client().run().status == 200


def test_two_secrets_are_good_while_they_change(shop: Shop) -> None:
    """Each secret that is named opens it, out of whichever store."""
    with shop.serving("--token-secret", "run-endpoint", "--token-secret", "next") as server:
        assert [server.client(token).run().status for token in (OLD, NEW, "x")] == [200, 200, 401]


def test_jobs_that_run_are_finished_first(shop: Shop) -> None:
    """After SIGTERM nothing more is claimed; the call that waits gets its answer, and then it ends."""
    for _ in range(3):
        put(shop, "work.slow", seconds=1.5)
    with (
        shop.serving("--concurrency", "1", RECONCILER_RUN_TOKEN=OLD) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(server.client().run, "limit=3")
        wait_for(lambda: statuses(shop.site).get("running") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert call.result(20).statuses == ["completed"]
        assert server.process.wait(20) == 0
    assert statuses(shop.site) == {"completed": 1, "pending": 2}


@pytest.mark.parametrize("signals", [1, 2])
def test_what_takes_too_long_is_given_back(shop: Shop, signals: int) -> None:
    """When the grace is over, or at the second signal, what runs is given back and told as pending."""
    job = put(shop, "work.slow", seconds=30)
    grace = "1s" if signals == 1 else "20s"
    with shop.serving("--grace", grace, RECONCILER_RUN_TOKEN=OLD) as server, ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.client().run)
        wait_for(lambda: statuses(shop.site) == {"running": 1})
        for _ in range(signals):
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: any("SIGINT" in line for line in server.told))
        assert call.result(15).statuses == ["pending"]
        assert server.process.wait(15) == 0
    found = look(shop.site.database.connect(), job)
    assert (found["status"], found["attempts"]) == ("pending", 0)


@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        ((), {}, "the run endpoint has no token, so nobody could run jobs\n  set RECONCILER_RUN_TOKEN"),
        ((), {"RECONCILER_RUN_TOKEN": " \n"}, "the run endpoint has no token"),
        (("--token-secret", "run-endpoint"), {"RUN_TOKEN": ""}, "the secret run-endpoint has no value"),
        (("--token-secret", "nope"), {}, "there is no secret nope"),
        (("--app", "no_such_module"), {"RECONCILER_RUN_TOKEN": OLD}, "there is no module no_such_module"),
        (("--host", "192.0.2.1"), {"RECONCILER_RUN_TOKEN": OLD}, "cannot listen on 192.0.2.1 port 0"),
        (("--dsn", "host=/nowhere"), {"RECONCILER_RUN_TOKEN": OLD}, "cannot connect to"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(
    shop: Shop, args: tuple[str, ...], env: dict[str, str], told: str
) -> None:
    """It never serves without a token, or what it cannot do; exit code 1, in words."""
    result = shop.cli("serve", "--app", "shop_jobs", "--port", "0", *args, env=env, timeout=20)
    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken_is_said(shop: Shop) -> None:
    """Two servers cannot have one port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = shop.cli("serve", "--app", "shop_jobs", "--port", port, env={"RECONCILER_RUN_TOKEN": OLD})
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in result.stderr


def test_a_target_without_the_schema_is_said(shop: Shop) -> None:
    """The first call would not be a good time for it."""
    shop.site.run("DROP SCHEMA reconciler CASCADE")
    result = shop.cli("serve", "--app", "shop_jobs", env={"RECONCILER_RUN_TOKEN": OLD})
    assert (result.exit_code, "run reconciler migrate" in result.stderr) == (1, True)


def test_a_role_that_may_not_work_is_said(shop: Shop) -> None:
    """So is a role without the right to claim jobs, with the grant that it lacks."""
    shop.site.run("CREATE ROLE runner LOGIN")
    shop.site.run("GRANT USAGE ON SCHEMA reconciler TO runner")
    dsn = shop.site.database.dsn_for("runner")
    result = shop.cli("serve", "--app", "shop_jobs", "--dsn", dsn, env={"RECONCILER_RUN_TOKEN": OLD})
    assert (result.exit_code, "SELECT reconciler.allow_work(" in result.stderr) == (1, True)


def test_a_short_token_is_warned_of(shop: Shop) -> None:
    """It is taken, since the documented examples have short ones, and said to be weak."""
    with shop.serving(RECONCILER_RUN_TOKEN="123ABC") as server:
        assert server.client("123ABC").run().status == 200
        assert "A token is short enough to be guessed: take 32 random characters." in server.told


def test_without_handlers_it_serves_all_but_the_run_endpoint(shop: Shop) -> None:
    """API, dashboard, metrics and probes; who wants jobs to be done is told why they are not."""
    token = make_token(shop, "read", "run")
    with shop.serving(app=()) as server:
        assert server.told == [f"Serving http://127.0.0.1:{server.port}/"]
        client, anybody = server.client(token), server.client(None)
        plan = client.call("GET", "/v1/plan")
        assert plan.document["changes"][0]["name"] == "orders"
        assert client.call("GET", "/v1/status").document["target"] == "test"
        assert (anybody.call("GET", "/v1/ready").status, anybody.call("GET", "/v1/plan").status) == (200, 401)
        reply = client.run()
        assert (reply.status, "it has no handlers" in reply.document["detail"]) == (404, True)
        top = Client(port=server.port, token=token, prefix="")
        assert b"reconciler_up 1" in top.call("GET", "/metrics").body
        assert top.call("GET", "/login").headers["content-type"].startswith("text/html")
        (shop.cli.directory / "jobs.d" / "shop.yaml").write_text(JOBS.replace("orders", "bills"))
        wait_for(lambda: b'"bills"' in client.call("GET", "/v1/plan").body)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    assert "SIGTERM: ends when the requests that run are over." in server.told


def test_a_token_of_the_api_opens_the_run_endpoint(shop: Shop) -> None:
    """With the scope run, and then it needs none of its own; with another scope it does not."""
    run, read = make_token(shop, "run"), make_token(shop, "read")
    put(shop, "work.do", n=7)
    with shop.serving() as server:
        assert [server.client(token).run().status for token in (OLD, read, None)] == [401, 403, 401]
        assert server.client(run).run().document["jobs"][0]["result"] == 7


def test_only_with_a_dsn_it_knows_no_files(shop: Shop) -> None:
    """Where a configuration is found it is used, and one that cannot be used is told and left."""
    token = make_token(shop, "read")
    with shop.serving("--dsn", shop.site.dsn, app=()) as server:
        assert server.client(token).call("GET", "/v1/plan").status == 200
    (shop.cli.directory / "reconciler.yaml").write_text("owner: shop\ntargets: {a: {}, b: {}}")
    with shop.serving("--dsn", shop.site.dsn, app=()) as server:
        assert server.told[0].startswith("Serving without spec files: reconciler.yaml has several targets")
        reply = server.client(token).call("GET", "/v1/plan")
        assert (reply.status, reply.document["detail"]) == (404, "this service knows no spec files")


@pytest.mark.parametrize(("prefix", "path"), [("/internal", "/internal/jobs/run"), ("", "/jobs/run")])
def test_the_run_endpoint_lies_below_another_prefix(shop: Shop, prefix: str, path: str) -> None:
    """As it could before; what is below /api stays there."""
    with shop.serving("--prefix", f"{prefix}/", RECONCILER_RUN_TOKEN=OLD) as server:
        assert server.told == [f"Serving http://127.0.0.1:{server.port}{path}"]
        for one in (path, "/api/jobs/run"):
            assert Client(port=server.port, token=OLD, prefix="").call("POST", one).status == 200
        if prefix:
            found = Client(port=server.port, token=None, prefix="").call("GET", f"{prefix}/v1/openapi.json")
            assert found.status == 200


def test_listening_for_others_without_tls_is_warned_of(shop: Shop) -> None:
    """In one line."""
    with shop.serving("--host", "0.0.0.0", app=()) as server:
        told = [line for line in server.told if "TLS" in line]
        assert server.client(None).call("GET", "/v1/health").status == 200
    assert len(told) == 1


def test_requests_that_run_are_answered_first(shop: Shop) -> None:
    """After SIGTERM nobody is let in any more; who waits for the database gets the answer."""
    token = make_token(shop, "read")
    with shop.serving(app=()) as server, ThreadPoolExecutor(1) as pool:
        with shop.site.database.connect() as holder, holder.transaction():
            holder.execute("LOCK TABLE reconciler.definitions")
            call = pool.submit(server.client(token).call, "GET", "/v1/status")
            wait_for(lambda: shop.site.rows("SELECT FROM pg_locks WHERE NOT granted") != [])
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: any("SIGTERM" in line for line in server.told))
            with pytest.raises(OSError, match=r"refused|reset"):
                wait_for(lambda: server.client(None).call("GET", "/v1/health").status != 200)
        assert call.result(20).status == 200
        assert server.process.wait(20) == 0
    assert not [line for line in server.told if "Traceback" in line]


def test_a_limit_of_the_command_line_holds(shop: Shop) -> None:
    """Requests a second, bytes of a body, and the names by which it may be called."""
    token = make_token(shop, "read", "write")
    options = ("--rate", "1", "--max-body", "2000", "--hostname", "127.0.0.1")
    with shop.serving(*options, app=()) as server:
        client = server.client(token)
        assert client.call("POST", "/v1/cron/jobs", b" " * 3000).status == 413
        assert client.call("GET", "/v1/health", Host="evil.test").status == 400
        statuses = [client.call("GET", "/v1/health").status for _ in range(5)]
        assert 429 in statuses


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_package_that_is_missing_is_said(shop: Shop, package: str) -> None:
    """With the extra that brings it."""
    (shop.cli.directory / f"{package}.py").write_text(f"raise ImportError('no', name='{package}')")
    result = shop.cli("serve", "--port", "0", timeout=20)
    assert (result.exit_code, result.stderr) == (
        1,
        f'Error: the package {package} is not installed\n  pip install "reconciler[serve]"\n',
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--prefix", "internal"), "no path can begin with the prefix 'internal'"),
        (("--prefix", "/a b"), "no path can begin with the prefix"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_an_option_that_is_wrong_is_said(shop: Shop, options: tuple[str, ...], told: str) -> None:
    """In words, before it listens."""
    result = shop.cli("serve", "--port", "0", *options, timeout=20)
    assert (result.exit_code > 0, told in result.stderr) == (True, True)


def test_a_role_that_may_not_read_is_said(shop: Shop) -> None:
    """A role that may do nothing cannot serve; one that may only do jobs serves these, and says so."""
    shop.site.run("CREATE ROLE runner LOGIN; GRANT USAGE ON SCHEMA reconciler TO runner")
    dsn = shop.site.database.dsn_for("runner")
    result = shop.cli("serve", "--port", "0", "--dsn", dsn, timeout=20)
    assert (result.exit_code, "the role of the service lacks a right" in result.stderr) == (1, True)
    shop.site.run("SELECT reconciler.allow_work('runner')")
    with shop.serving("--dsn", dsn, RECONCILER_RUN_TOKEN=OLD) as server:
        assert any(
            line.startswith("Not ready: the role of the service lacks a right") for line in server.told
        )
        assert server.client().run().status == 200
