"""`reconciler serve` as a process, and clients that send no HTTP, take their time, or go away."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import pytest

from tests.calling import Client, wait_for
from tests.declared import Site
from tests.queued import fill
from tests.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Database

pytestmark = pytest.mark.one_server

HEAD: Final = b"HTTP/1.1\r\nHost: a\r\n"
NO_HTTP: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"\0" * 5000,
    b"GET\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /" + b"a" * 100_000,
    # Heads that are too long, in one line or in many.
    b"GET /ready " + HEAD + b"X-Bomb: " + b"a" * 200_000,
    b"GET /ready " + HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(20_000)),
    b"GET /ready HTTP/1.1\r\n\r\n",
    b"GET /ready " + HEAD + b"Host: b\r\n\r\n",
    b"GET /ready " + HEAD + b"No colon\r\n\r\n",
    b"GET /ready " + HEAD + b"X: a\0b\r\n\r\n",
    # Bodies whose length is told in two ways, or in none that is one.
    b"POST /api/jobs " + HEAD + b"Content-Length: -1\r\n\r\n",
    b"POST /api/jobs " + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /api/jobs " + HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    b"POST /api/jobs " + HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/jobs " + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n",
)
"""What no server may take for a request that is right."""


class Server:
    """A service without handlers, as a process.

    Attributes:
        site: Its database.
        token: With the scopes read and write.
        told: What it said.
    """

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.token = Served(site).token("read", "write")
        self.told: list[str] = []
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "serve", "--dsn", site.dsn, "--port", "0", "--grace", "1s"],
            cwd=folder,
            env=outside,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: any(line.startswith("Serving http://") for line in self.told))
        self.port = int(self.told[-1].rpartition(":")[2].strip("/"))

    def open(self, sent: bytes) -> socket.socket:
        """Open a connection, and send something."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        made.sendall(sent)
        return made

    def begin(self, path: str, length: int) -> bytes:
        """Return the head of a POST with a token."""
        words = f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {self.token}"
        return "\r\n".join([*words, f"Content-Length: {length}", "", ""]).encode()

    def check(self) -> None:
        """Make sure that it goes on, has no traceback to tell, and keeps no connection busy."""
        client = Client(port=self.port, token=self.token)
        assert client.call("GET", "/v1/health").status == 200
        assert client.call("GET", "/jobs?limit=1").status == 200
        wait_for(
            lambda: (
                self.site.rows(
                    "SELECT FROM pg_stat_activity WHERE application_name = 'reconciler service'"
                    " AND state <> 'idle'"
                )
                == []
            )
        )
        assert self.process.poll() is None
        assert not [line for line in self.told if "Traceback" in line or "failed" in line]

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.told.extend(line.rstrip() for line in lines)


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[Server]:
    """The service."""
    site = Site(database)
    site.apply()
    made = Server(site, tmp_path)
    yield made
    made.check()
    made.end()


def read_all(conn: socket.socket) -> bytes:
    """Read until the server closes the connection; a reset is an end, too."""
    found = b""
    try:
        while part := conn.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_what_is_no_http_is_refused(server: Server) -> None:
    """With a 4xx or without a word, and the connection is closed; also behind a request that was right."""
    for sent in NO_HTTP:
        try:
            with server.open(sent) as conn:
                answer = read_all(conn)
        except (ConnectionResetError, BrokenPipeError):
            continue
        assert answer[:10] in {b"", b"HTTP/1.1 4"}, (sent[:80], answer[:200])
    with server.open(b"GET /health " + HEAD + b"\r\n" + b"\x00garbage\r\n\r\n") as conn:
        first, _, rest = read_all(conn).partition(b'"}')
    assert (first[:12], rest[:12]) == (b"HTTP/1.1 200", b"HTTP/1.1 400")


def test_who_takes_long_holds_up_nobody(server: Server) -> None:
    """More clients than there are threads and connections send half a head or body, and then the rest."""
    body = json.dumps({"name": "work.do"}).encode()
    waiting = [server.open(server.begin("/api/jobs", len(body)) + body[:9]) for _ in range(60)]
    waiting += [server.open(server.begin("/api/jobs", len(body))[:40]) for _ in range(60)]
    waiting += [server.open(b"") for _ in range(60)]
    server.check()
    for conn in waiting[:60]:
        for number in range(9, len(body)):
            conn.sendall(body[number : number + 1])
        assert conn.recv(12) == b"HTTP/1.1 201"
    for conn in waiting:
        conn.close()
    assert server.site.rows("SELECT count(*) FROM reconciler.jobs") == [(60,)]


def test_who_goes_away_costs_nothing(server: Server) -> None:
    """In the middle of the body, then nothing is done; or of an answer of which he reads the first bytes."""
    with server.site.database.session() as conn:
        fill(conn, 600)
        conn.execute("UPDATE reconciler.jobs SET payload = jsonb_build_object('a', repeat('x', 5000))")
    body = json.dumps({"name": "late"}).encode()
    question = f"GET /api/jobs?limit=500 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    for _ in range(30):
        for sent in (server.begin("/api/jobs", len(body)) + body[:9], question.encode()):
            made = server.open(sent)
            if sent.startswith(b"GET"):
                assert made.recv(12) == b"HTTP/1.1 200"
            # Closes by a reset, as where a machine goes down.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.close()
    server.check()
    assert server.site.rows("SELECT count(*) FROM reconciler.jobs WHERE handler = 'late'") == [(0,)]
