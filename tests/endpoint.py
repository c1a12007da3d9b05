"""A local HTTP server that stands for a notification service: it records what it gets and answers as told."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.http_server import QuietHandler, serve

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


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


class _Handler(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        """Record the request and answer."""
        endpoint = self.server.state  # type: ignore[attr-defined] # the server is always ours
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


def run_endpoint() -> AbstractContextManager[Endpoint]:
    """Run the service.

    Returns:
        What gives it while it runs.
    """
    return serve(_Handler, lambda port: Endpoint(port=port), lambda endpoint: endpoint.release.set())
