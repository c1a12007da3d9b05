"""A local HTTP server that stands for a notification service: it records what it gets and answers as told."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The service while it runs.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        answers: What each path answers, by its name; 200 for all others. None is no answer until `release`.
        received: Path and body of each request, when it came in.
        release: Ends the wait of those that get no answer.
    """

    port: int
    answers: dict[str, int | None] = field(default_factory=dict)
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def address(self, path: str, options: str = "") -> str:
        """Return the notification address of a path."""
        return f"json://127.0.0.1:{self.port}/{path}{options}"

    def count(self, path: str) -> int:
        """Return how many requests a path got."""
        return len(self.get(path))

    def get(self, path: str) -> list[dict[str, Any]]:
        """Return the bodies that a path got."""
        return [body for where, body in list(self.received) if where == path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    endpoint: Endpoint

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that was killed is no fault of the service."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Record the request and answer."""
        endpoint = self.server.endpoint  # type: ignore[attr-defined] # the server is always ours
        path = self.path.strip("/").partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        endpoint.received.append((path, json.loads(body)))
        status = endpoint.answers.get(path, 200)
        if status is None:
            endpoint.release.wait(30)
            status = 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the parent's argument
        """Log nothing."""


@contextmanager
def run_endpoint() -> Iterator[Endpoint]:
    """Run the service.

    Yields:
        It.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.endpoint = Endpoint(port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.endpoint
    finally:
        server.endpoint.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
