"""Serve an ASGI application on a real socket, call it, and have handlers that tell what they did."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

from reconciler.api.app import make_app
from reconciler.runtime.handlers import Fail, Handlers, Job, Retry, Snooze
from tests.queued import enqueue
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection
    from starlette.types import ASGIApp

TOKEN = "123ABC-is-not-to-be-seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: By name in small letters.
        body: As it was sent.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as a value."""
        return json.loads(self.body)

    @property
    def statuses(self) -> list[str]:
        """The statuses of the jobs that were run."""
        return [job["status"] for job in self.document["jobs"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Calls a server on this machine.

    Attributes:
        port: Where it listens.
        token: What it brings; None for nothing.
        prefix: What paths begin with.
    """

    port: int
    token: str | None = TOKEN
    prefix: str = "/api"
    headers: dict[str, str] = field(default_factory=dict)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        **headers: str,
    ) -> Reply:
        """Send a request and wait for the answer."""
        sent = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            is_chunked = "Transfer-Encoding" in sent
            conn.request(method, self.prefix + path, body=body, headers=sent, encode_chunked=is_chunked)
            response = conn.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=found, body=response.read())
        finally:
            conn.close()

    def run(self, query: str = "", **headers: str) -> Reply:
        """Call the run endpoint as a push worker does."""
        path = f"/jobs/run?{query}" if query else "/jobs/run"
        return self.call("POST", path, b"{}", Content_Type="application/json", **headers)

    def enqueue(self, **job: Any) -> Reply:
        """Put a job."""
        return self.call("POST", "/jobs", json.dumps(job).encode())

    def get(self, job_id: object) -> Reply:
        """Ask for a job."""
        return self.call("GET", f"/jobs/{job_id}")


@contextmanager
def serve(app: ASGIApp, *, lifespan: str = "on") -> Iterator[Client]:
    """Serve an application on a free port, in a thread.

    Yields:
        What calls it.
    """
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        access_log=False,
        lifespan=lifespan,  # type: ignore[arg-type] # one of its words
        timeout_graceful_shutdown=20,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), seconds=10, what="the server listens")
        yield Client(port=server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(40)
        assert not thread.is_alive(), "the server does not end"


@contextmanager
def serve_endpoint(dsn: str, handlers: Handlers, **options: Any) -> Iterator[Client]:
    """Serve a run endpoint.

    Yields:
        What calls it.
    """
    with serve(make_app(dsn, handlers, **{"tokens": TOKEN, "grace": 10, **options})) as client:
        yield client


class Work:
    """Handlers, and what they did.

    Attributes:
        done: The payloads of all calls, in the order of their beginnings.
        interrupted: Those of `wait` that were told to end.
        gate: What `wait` and `block` wait for.
    """

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.interrupted: list[int] = []
        self.gate = threading.Event()
        self.handlers = Handlers()
        for name in ("do", "do_sync", "boom", "give_up", "later", "again", "wait", "block", "odd", "show"):
            self.handlers.register(getattr(self, name), f"work.{name}")

    async def do(self, **payload: Any) -> Any:
        """Return the payload."""
        self.done.append(payload)
        return payload

    def do_sync(self, n: int) -> int:
        """Return twice as much, from a thread."""
        assert threading.current_thread().name.startswith("reconciler-job")
        self.done.append(n)
        return 2 * n

    async def boom(self) -> None:
        """Fail."""
        raise ValueError("no such user")

    async def give_up(self) -> None:
        """Fail for good."""
        raise Fail("never")

    async def later(self) -> None:
        """Put it off."""
        raise Snooze(60)

    async def again(self) -> None:
        """Want another try."""
        raise Retry(30, "not yet")

    async def wait(self, n: int = 0) -> int:
        """Wait until the gate is open."""
        self.done.append(n)
        try:
            while not self.gate.is_set():  # noqa: ASYNC110 - the gate is another thread's
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.interrupted.append(n)
            raise
        return n

    def block(self, n: int = 0) -> int:
        """Wait until the gate is open, in a thread."""
        self.done.append(n)
        self.gate.wait(30)
        return n

    async def odd(self) -> object:
        """Return what JSON cannot hold."""
        return object()

    async def show(self, job: Job) -> dict[str, Any]:
        """Return what a job knows of itself."""
        return {"id": job.id, "attempt": job.attempt, "queue": job.queue}


def put(conn: Connection, name: str, queue: str = "default", **options: Any) -> int:
    """Queue a job of one of the handlers; what is no option is payload."""
    known = {"max_attempts", "unique_key", "ordering_key", "timeout", "priority", "after"}
    payload = {key: value for key, value in options.items() if key not in known}
    rest = {key: value for key, value in options.items() if key in known}
    return put_named(conn, f"work.{name}", queue, payload, rest)


def put_named(
    conn: Connection, handler: str, queue: str, payload: dict[str, Any], options: dict[str, Any]
) -> int:
    """Queue a job of a handler."""
    job = enqueue(conn, queue, payload=payload, **options)
    conn.execute("UPDATE reconciler.jobs SET handler = %s WHERE id = %s", [handler, job])
    return job


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    wait_until(condition, seconds=15, what="the jobs are as expected")
