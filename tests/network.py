"""A network between a client and a server that can be cut: packets vanish, and neither side is told.

As root on Linux it is a network namespace of its own with a pair of virtual devices. The server listens on
the loopback device alone, so its end of the pair is a relay. Elsewhere the relay is all there is: it falls
silent.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Relay:
    """Passes bytes on between clients and a server, while it is not silent."""

    listener: socket.socket
    server: tuple[str, int]
    is_open: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Take connections until it is over."""
        self.is_open.set()
        while not self.is_over.is_set():
            if select.select([self.listener], [], [], 0.05)[0] and self.is_open.is_set():
                client, _ = self.listener.accept()
                threading.Thread(target=self._join, args=[client], daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.server) as server, suppress(OSError):
            while not self.is_over.is_set():
                for one in select.select([client, server], [], [], 0.05)[0]:
                    self.is_open.wait()
                    data = one.recv(65536)
                    if not data:
                        return
                    (server if one is client else client).sendall(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What lies between.

    Attributes:
        relay: Where clients connect.
        prefix: What comes before the command of a client.
        device: The server's end of the pair of devices; None where the relay falls silent instead.
    """

    relay: Relay
    prefix: tuple[str, ...] = ()
    device: str | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Return where a client reaches the server."""
        host, port = self.relay.listener.getsockname()[:2]
        return str(host), int(port)

    def cut(self) -> None:
        """Let all packets vanish from now on."""
        if self.device is None:
            self.relay.is_open.clear()
        else:
            _ip("link", "set", self.device, "down")

    def mend(self) -> None:
        """Let packets through again."""
        if self.device is None:
            self.relay.is_open.set()
        else:
            _ip("link", "set", self.device, "up")


@contextmanager
def network_to(host: str, port: int) -> Iterator[Network]:
    """Lay a network to a server.

    Yields:
        The network: a namespace where that can be made, else a relay.
    """
    name = f"rc{os.getpid()}"
    net = f"10.213.{os.getpid() % 256}"
    has_space = _make_space(name, net)
    listener = socket.create_server((f"{net}.1" if has_space else "127.0.0.1", 0))
    relay = Relay(listener, (host, port))
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        if has_space:
            yield Network(relay=relay, prefix=("ip", "netns", "exec", name), device=f"{name}a")
        else:
            yield Network(relay=relay)
    finally:
        relay.is_over.set()
        relay.is_open.set()
        thread.join()
        listener.close()
        if has_space:
            _ip("netns", "delete", name)


def _make_space(name: str, net: str) -> bool:
    """Make a namespace with a pair of devices; tell whether this could be done."""
    if shutil.which("ip") is None or os.geteuid() != 0 or not _ip("netns", "add", name):
        return False
    is_made = (
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        and _ip("address", "add", f"{net}.1/30", "dev", f"{name}a")
        and _ip("link", "set", f"{name}a", "up")
        and _ip("-n", name, "address", "add", f"{net}.2/30", "dev", f"{name}b")
        and _ip("-n", name, "link", "set", f"{name}b", "up")
        and _ip("-n", name, "link", "set", "lo", "up")
    )
    if not is_made:
        _ip("netns", "delete", name)
    return is_made


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
