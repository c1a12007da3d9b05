"""Poolers in transaction mode, as small as can be: for one client with two backends, and for many clients."""

from __future__ import annotations

import queue
import select
import socket
import threading
from contextlib import contextmanager, suppress
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


@contextmanager
def run_shared_pooler(dsn: str, *, size: int) -> Iterator[str]:
    """Stand between any number of clients and a few backends: each transaction has one of them for itself.

    Args:
        dsn: The server, reached over a socket without a password.
        size: How many backends there are.

    Yields:
        A connection string to the pooler.
    """
    parts = conninfo_to_dict(dsn)
    path = f"{parts['host']}/.s.PGSQL.{parts['port']}"
    idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    startup = b"".join(
        name + b"\0" + value.encode() + b"\0"
        for name, value in ((b"user", str(parts["user"])), (b"database", str(parts["dbname"])))
    )
    greeting = b""
    for _ in range(size):
        backend = socket.socket(socket.AF_UNIX)
        backend.connect(path)
        packet = (196608).to_bytes(4, "big") + startup + b"client_encoding\0utf8\0\0"
        backend.sendall((len(packet) + 4).to_bytes(4, "big") + packet)
        greeting = _read_answer(backend)
        idle.put(backend)
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def accept() -> None:
        while not is_over.is_set():
            if select.select([listener], [], [], 0.05)[0]:
                client, _ = listener.accept()
                threading.Thread(target=_share, args=(client, greeting, idle), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
    finally:
        is_over.set()
        thread.join()
        listener.close()
        while not idle.empty():
            idle.get().close()


def _share(client: socket.socket, greeting: bytes, idle: queue.SimpleQueue[socket.socket]) -> None:
    """Serve one client: take a backend for as long as one of its transactions is open."""
    with client, suppress(OSError):
        size = int.from_bytes(_read(client, 4), "big")
        if _read(client, size - 4)[:4] != (196608).to_bytes(4, "big"):
            return  # wants to cancel something: nobody hears it here
        client.sendall(greeting)
        while select.select([client], [], [])[0]:
            backend = idle.get()
            try:
                is_at_end = _pass_transaction(client, backend)
            finally:
                idle.put(backend)
            if is_at_end:
                return


def _pass_transaction(client: socket.socket, backend: socket.socket) -> bool:
    """Pass messages both ways until all questions are answered and no transaction is open.

    Returns:
        Whether the client goes.
    """
    asked = 0
    while True:
        for one in select.select([client, backend], [], [])[0]:
            head = _read(one, 5)
            message = head + _read(one, int.from_bytes(head[1:], "big") - 4)
            if one is client:
                if head[:1] == b"X":
                    return True
                asked += head[:1] in {b"Q", b"S", b"F"}
                backend.sendall(message)
                continue
            client.sendall(message)
            if head[:1] == b"Z":
                asked -= 1
                if asked == 0 and message[-1:] == b"I":
                    return False
