"""How often somebody calls: a good token, or an address. Lives in the event loop, so needs no lock."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from reconciler.core.request_rates import Bucket, Rate, find_wait, take_one

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST: Final = 10_000


class Visitors:
    """Counts requests; of too many visitors the one is forgotten who came least lately.

    Args:
        rate: Of a token, and of an address for what comes without a good token.
        failures: Of an address, for tokens that are no good.
        clock: Seconds of a clock that nobody sets.
        most: How many of each sort are remembered.
    """

    def __init__(
        self,
        *,
        rate: Rate,
        failures: Rate,
        clock: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._requests = _Buckets(rate, clock, most)
        self._failures = _Buckets(failures, clock, most)
        self._names: OrderedDict[bytes, str] = OrderedDict()
        self._most = most

    def count(self, address: str, authorization: str, *, signs_in: bool = False) -> float:
        """Count a request that comes in.

        Args:
            address: Of the client.
            authorization: The header of that name; "" for none.
            signs_in: Whether it brings a token in another way.

        Returns:
            0, or the seconds after which it may come again.
        """
        name = self._names.get(_make_key(authorization)) if authorization else None
        if name is not None:
            return self._requests.take(f"token {name}")
        if (authorization or signs_in) and (wait := self._failures.find_wait(address)):
            return wait
        return self._requests.take(address)

    def note(self, address: str, authorization: str, *, status: int, name: str) -> None:
        """Note what became of a request that brings a token.

        Args:
            address: Of the client.
            authorization: The header of that name; "" for none.
            status: What was answered.
            name: Whose token it is, where it was found good; else "".
        """
        key = _make_key(authorization)
        if name and authorization:
            self._names[key] = name
            self._names.move_to_end(key)
            if len(self._names) > self._most:
                self._names.popitem(last=False)
        elif status == 401:
            self._names.pop(key, None)
            self._failures.take(address)


class _Buckets:
    def __init__(self, rate: Rate, clock: Callable[[], float], most: int) -> None:
        self._rate = rate
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def find_wait(self, key: str) -> float:
        return find_wait(self._buckets.get(key), self._rate, self._clock())

    def take(self, key: str) -> float:
        wait = self.find_wait(key)
        if not wait:
            self._buckets[key] = take_one(self._buckets.get(key), self._rate, self._clock())
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return wait


def find_address(client: tuple[str, int] | None) -> str:
    """Find by what to count a client.

    Args:
        client: Address and port; None for a socket of this machine.

    Returns:
        The address; of IPv6 the network of 64 bits, since a client has all of that.
    """
    if client is None:
        return "local"
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(ipaddress.IPv6Network((int(address), 64), strict=False) if mapped is None else mapped)


def render_wait(seconds: float) -> str:
    """Render a wait for the header Retry-After: whole seconds, at least one."""
    return str(max(math.ceil(seconds), 1))


def _make_key(authorization: str) -> bytes:
    return sha256(authorization.encode("utf-8", "surrogatepass")).digest()
