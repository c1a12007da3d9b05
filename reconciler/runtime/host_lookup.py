"""Look up to which addresses a name leads, in a time that is known before; judges nothing."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Final

from reconciler.errors import BusyError

_MOST: Final = 8
_places: Final = threading.BoundedSemaphore(_MOST)


def look_up(name: str, port: int, *, timeout: float) -> tuple[str, ...]:
    """Look a name up, as this machine does.

    Args:
        name: Of the host.
        port: That is to be called.
        timeout: Seconds to wait.

    Returns:
        Its addresses, IPv4 and IPv6; none where there is no such name, or nobody said so in time.

    Raises:
        BusyError: Too many others wait for theirs.
    """
    if not _places.acquire(timeout=timeout):
        raise BusyError("too many host names are being looked up", remedy="call again in a moment")
    answers: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask(name, port))
        finally:
            _places.release()

    # getaddrinfo cannot be told to stop: its thread ends by itself when nobody waits for it any longer.
    threading.Thread(target=ask, name="reconciler-lookup", daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return ()


def _ask(name: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
