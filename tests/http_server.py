"""A real HTTP server on this machine, in threads: it records each request and answers as told."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a path answers.

    Attributes:
        status: The HTTP status.
        body: The text.
        seconds: How long it takes, at the most until the server ends.
        headers: More headers.
    """

    status: int = 200
    body: str = "fine"
    seconds: float = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it came in.

    Attributes:
        method: GET, POST, ...
        path: With what follows a question mark.
        headers: By name in small letters.
        body: As text.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """The server while it runs.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        answers: What each path answers; all others get the default answer.
        received: All requests, in the order in which they came.
        is_over: Set when the server ends.
    """

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/") -> str:
        """Return the address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


class QuietHandler(BaseHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the parent's argument
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    state: Any

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that gave up, or was killed, is no fault of the server."""


@contextmanager
def serve(
    handler: type[QuietHandler], make_state: Callable[[int], State], end: Callable[[State], None]
) -> Iterator[State]:
    """Run a server in threads.

    Args:
        handler: Answers requests; it finds the state at its `server.state`.
        make_state: Makes the state of a server that listens on this port.
        end: Ends the wait of requests that are not answered yet.

    Yields:
        The state.
    """
    server = _Server(("127.0.0.1", 0), handler)
    state = server.state = make_state(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        end(state)
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(QuietHandler):
    def answer(self) -> None:
        """Record the request and answer."""
        state = self.server.state  # type: ignore[attr-defined] # the server is always ours
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        state.received.append(Received(method=self.command, path=self.path, headers=headers, body=body))
        answer = state.answers.get(self.path.partition("?")[0], Answer())
        state.is_over.wait(answer.seconds)
        text = answer.body.encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the parent's names


def run_http_server() -> AbstractContextManager[HttpServer]:
    """Run the server that records each request.

    Returns:
        What gives it while it runs.
    """
    return serve(_Handler, lambda port: HttpServer(port=port), lambda server: server.is_over.set())
