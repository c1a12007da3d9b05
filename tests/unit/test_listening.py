"""The socket that the service listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from reconciler.cli.listening import listen
from reconciler.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_do_not_wait_for_acknowledgements(host: str) -> None:
    """A connection sends what it has at once: an answer of two parts would take 40 ms longer."""

    async def look() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("socket")
            found.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(host, 0)
        async with await asyncio.start_server(answer, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            delay = await found
            writer.close()
        return delay

    assert asyncio.run(look()) != 0


def test_a_port_that_is_taken_is_told() -> None:
    """Where, and what to do."""
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port"),
    ):
        listen("127.0.0.1", first.getsockname()[1])
