"""A client that sends requests at a constant rate, whatever becomes of those before, in a process of its own.

Each request has its time; how long it took counts from then on, also where it had to wait for a connection or
for the client itself. So an answer that holds up others is not counted once, but as often as it hurts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

_MOST: Final = 256


class _Connection(asyncio.Protocol):
    """One kept connection: sends one request at a time and reads its answer."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: Any = None
        self._buffer = bytearray()
        self._due = 0.0
        self._left = -1
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._run.take_back(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._buffer.clear()
        self._left = -1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._left < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            place = head.find(b"content-length:")
            self._status = int(head[9:12])
            self._left = end + 4 + int(head[place + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= self._left:
            self._run.note(self._status, self._due)
            self._run.take_back(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self._run.lose(self, self._due)


class _Run:
    """One measurement.

    Args:
        requests: What is sent, in turn.
        rate: Requests a second.
        seconds: For how long.
    """

    def __init__(self, requests: list[bytes], *, rate: float, seconds: float) -> None:
        self._requests = requests
        self._rate = rate
        self._count = round(rate * seconds)
        self._idle: list[_Connection] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._open = 0
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}
        self._left = self._count
        self._all = asyncio.Event()

    async def go(self, host: str, port: int) -> None:
        """Send everything, and wait for the answers."""
        loop = asyncio.get_running_loop()
        for _ in range(32):
            await loop.create_connection(lambda: _Connection(self), host, port)
            self._open += 1
        begin = loop.time() + 0.05
        for number in range(self._count):
            due = begin + number / self._rate
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 50 == 0:
                await asyncio.sleep(0)
            self._send(self._requests[number % len(self._requests)], due)
            if not self._idle and self._waiting and self._open < _MOST:
                self._open += 1
                task = loop.create_task(loop.create_connection(lambda: _Connection(self), host, port))
                task.add_done_callback(lambda done: done.exception())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all.wait(), 30)
        if self._left:
            self.errors["without an answer"] = self._left

    def _send(self, request: bytes, due: float) -> None:
        if self._idle:
            self._idle.pop().send(request, due)
        else:
            self._waiting.append((request, due))

    def take_back(self, connection: _Connection) -> None:
        """Use a connection again."""
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def note(self, status: int, due: float) -> None:
        """Note an answer."""
        if status == 200:
            self.latencies.append(asyncio.get_running_loop().time() - due)
        else:
            self.errors[str(status)] = self.errors.get(str(status), 0) + 1
        self._left -= 1
        if not self._left:
            self._all.set()

    def lose(self, connection: _Connection, _due: float) -> None:
        """Note that a connection is gone."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)


def main() -> None:
    """Read what is to be done from stdin as JSON, do it, and print what was measured."""
    wish = json.load(sys.stdin)
    head = (
        f"Host: {wish['host']}\r\nAuthorization: Bearer {wish['token']}\r\nAccept: application/json\r\n\r\n"
    )
    requests = [f"GET {path} HTTP/1.1\r\n{head}".encode() for path in wish["paths"]]
    run = _Run(requests, rate=wish["rate"], seconds=wish["seconds"])
    gc.disable()
    used = time.process_time()
    asyncio.run(run.go(wish["host"], wish["port"]))
    json.dump(
        {
            "latencies": sorted(run.latencies),
            "errors": run.errors,
            "cpu": time.process_time() - used,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
