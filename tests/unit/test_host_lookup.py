"""Looking names up in a time that is known before."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from reconciler.errors import BusyError
from reconciler.runtime.host_lookup import _MOST, look_up


def test_an_address_is_its_own_answer() -> None:
    """Of both versions, each once."""
    assert look_up("127.0.0.1", 80, timeout=5) == ("127.0.0.1",)
    assert look_up("::1", 80, timeout=5) == ("::1",)


def test_a_name_that_is_none_has_no_addresses() -> None:
    """Nothing that is asked for is an error."""
    assert look_up("a" * 64 + ".invalid", 80, timeout=5) == ()
    assert look_up("no such name", 80, timeout=5) == ()


def test_nobody_waits_for_longer_than_they_want(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no name server answers there are no addresses, and soon nobody else is let in."""
    gate = threading.Event()

    def wait(*_: Any, **__: Any) -> list[Any]:
        gate.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    began = time.monotonic()
    try:
        for _ in range(_MOST):
            assert look_up("slow.example", 80, timeout=0.05) == ()
        with pytest.raises(BusyError, match="too many host names"):
            look_up("slow.example", 80, timeout=0.05)
    finally:
        gate.set()
    assert time.monotonic() - began < 5
    # Their threads end, and others are let in again.
    for _ in range(100):
        try:
            assert look_up("slow.example", 80, timeout=0.05) == ()
            break
        except BusyError:
            continue
    else:
        pytest.fail("nobody is let in again")
