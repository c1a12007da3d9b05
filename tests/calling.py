"""Serve an ASGI application on a real socket, and call it."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

from reconciler.api.app import make_app
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

    from reconciler.runtime.handlers import Handlers

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
        self, method: str, path: str, body: bytes | None = None, *, timeout: float = 30, **headers: str
    ) -> Reply:
        """Send a request and wait for the answer."""
        sent = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            conn.request(method, self.prefix + path, body=body, headers=sent)
            response = conn.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=found, body=response.read())
        finally:
            conn.close()

    def run(self, query: str = "", **headers: str) -> Reply:
        """Call the run endpoint as a push worker does."""
        path = f"/jobs/run?{query}" if query else "/jobs/run"
        return self.call("POST", path, b"{}", **{"Content_Type": "application/json", **headers})

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
