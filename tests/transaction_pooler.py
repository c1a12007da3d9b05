"""A pooler in transaction mode for many clients, with a few backends that take turns."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDLE = b"I"


@contextmanager
def pool_transactions(dsn: str, *, size: int = 3) -> Iterator[str]:
    """Stand between clients and a server that is reached over a socket without a password.

    Args:
        dsn: The server.
        size: How many backends there are for all clients.

    Yields:
        A connection string to the pooler.
    """
    parts = conninfo_to_dict(dsn)
    path = f"{parts['host']}/.s.PGSQL.{parts['port']}"
    backends: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        greeting = b""
        for _ in range(size):
            backend = stack.enter_context(socket.socket(socket.AF_UNIX))
            backend.connect(path)
            backend.sendall(_make_startup(str(parts["user"]), str(parts["dbname"])))
            greeting = _read_answer(backend)
            backends.put(backend)
        threading.Thread(target=_accept, args=(listener, backends, greeting), daemon=True).start()
        port = listener.getsockname()[1]
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, backends: queue.SimpleQueue[socket.socket], greeting: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, backends, greeting), daemon=True).start()


def _serve(client: socket.socket, backends: queue.SimpleQueue[socket.socket], greeting: bytes) -> None:
    """Pass the messages of one client on, up to each end of a round to one backend."""
    with client, contextlib.suppress(OSError):
        _read(client, int.from_bytes(_read(client, 4), "big") - 4)
        # All clients are told of one process, as poolers do that make their own keys.
        client.sendall(greeting)
        backend: socket.socket | None = None
        while True:
            message = _read_message(client)
            if message[:1] == b"X":
                return
            backend = backend or backends.get()
            while message[:1] not in {b"S", b"Q"}:
                backend.sendall(message)
                message = _read_message(client)
            backend.sendall(message)
            answer = _read_answer(backend)
            if answer[-1:] == _IDLE:
                backends.put(backend)
                backend = None
            client.sendall(answer)


def _make_startup(user: str, database: str) -> bytes:
    words = ["user", user, "database", database, "client_encoding", "utf8", "", ""]
    body = (196608).to_bytes(4, "big") + "\0".join(words[:-1]).encode() + b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def _read_answer(backend: socket.socket) -> bytes:
    """Read messages up to ReadyForQuery, whose last byte says whether a transaction is open."""
    answer = b""
    while True:
        message = _read_message(backend)
        # What is told to the session that listened is for nobody here: that client has gone on.
        answer += b"" if message[:1] == b"A" else message
        if message[:1] == b"Z":
            return answer


def _read_message(peer: socket.socket) -> bytes:
    head = _read(peer, 5)
    return head + _read(peer, int.from_bytes(head[1:], "big") - 4)


def _read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise OSError("the other side went away")
        data += more
    return data
