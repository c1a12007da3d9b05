"""A pooler in transaction mode, as small as can be: one client, two backends, one after the other."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def run_pooler(dsn: str, *, stay: int = 0) -> Iterator[str]:
    """Stand between one client and a server that is reached over a socket without a password.

    Args:
        dsn: The server.
        stay: How many transactions come to the first backend before that.

    Yields:
        A connection string to the pooler. Each transaction of its client goes to the other of two backends.
    """
    parts = conninfo_to_dict(dsn)
    path = f"{parts['host']}/.s.PGSQL.{parts['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=_serve, args=(listener, path, stay), daemon=True)
        thread.start()
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()


def _serve(listener: socket.socket, path: str, stay: int) -> None:
    try:
        client, _ = listener.accept()
    except OSError:
        return
    with client:
        backends = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        startup = client.recv(65536)
        for backend in backends:
            backend.connect(path)
            backend.sendall(startup)
        client.sendall(_read_answer(backends[0]))
        _read_answer(backends[1])
        chosen = 0
        while data := client.recv(65536):
            backends[chosen].sendall(data)
            if data[:1] == b"X":
                break
            answer = _read_answer(backends[chosen])
            client.sendall(answer)
            if answer[-1:] == b"I":
                chosen = 1 - chosen if stay <= 1 else chosen
                stay -= 1
        for backend in backends:
            backend.close()


def _read_answer(backend: socket.socket) -> bytes:
    """Read messages up to ReadyForQuery, whose last byte says whether a transaction is open."""
    answer = b""
    while True:
        head = _read(backend, 5)
        body = _read(backend, int.from_bytes(head[1:], "big") - 4)
        answer += head + body
        if head[:1] == b"Z":
            return answer


def _read(backend: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = backend.recv(size - len(data))
        if not more:
            raise ConnectionError("the backend went away")
        data += more
    return data
