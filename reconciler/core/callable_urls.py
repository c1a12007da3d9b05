"""Which addresses a job may call that somebody makes over HTTP: none that lead into a private network.

Pure: it judges a URL as written, and addresses that others looked up. The rules are narrower than those of
URLs (RFC 3986): what two programs could read as two hosts is no URL here. Special networks are those of the
IANA's registries for IPv4 and IPv6, with addresses on which clouds answer.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[/?#].*)?", re.DOTALL
)
_AUTHORITY: Final = re.compile(
    r"(?P<host>\[(?P<literal>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
)
_ODD: Final = re.compile(r"[^\x21-\x7e]|[\\^`{|}<>\"]")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_LONGEST_HOST: Final = 253
_LARGEST_PORT: Final = 65535
# Python's own list differs from release to release, and holds nothing of what clouds do.
_CLOSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's own services
        # Only 2000::/3 is given out; within it:
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
_GIVEN_OUT: Final = ipaddress.ip_network("2000::/3")
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenUrlError(ValueError):
    """A URL that may not be called; its arguments are what is wrong and what to do."""

    @property
    def reason(self) -> str:
        """What is wrong."""
        return str(self.args[0])

    @property
    def remedy(self) -> str:
        """What to do."""
        return str(self.args[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledHost:
    """Whom a URL calls.

    Attributes:
        name: In small letters, without a dot at the end; an IPv6 address without brackets.
        address: Where it is one already; None for a name.
        port: That is called.
        is_allowed: Whether it may be called wherever it leads.
    """

    name: str
    address: Address | None
    port: int
    is_allowed: bool


def read_called_host(url: str, allowed: Collection[str] = ()) -> CalledHost:
    """Read whom a URL calls, and refuse what can be refused without looking the name up.

    Args:
        url: As written.
        allowed: Hosts that may be called wherever they lead: `host` or `host:port`, in any case.

    Returns:
        The host. What it resolves to is still to be judged, unless it is allowed.

    Raises:
        ForbiddenUrlError: It is no plain http or https URL, or its host may not be called.
    """
    if _ODD.search(url):
        raise ForbiddenUrlError(
            "it holds a character that does not belong into a URL", "write it in ASCII, with %-escapes"
        )
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in {"http", "https"}:
        raise ForbiddenUrlError("it is no http or https URL", "write https://host/path")
    if "@" in parts["authority"]:
        raise ForbiddenUrlError("it holds a user or a password before the host", "leave them out")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise ForbiddenUrlError("its host cannot be read", "write a plain host name, and a port where needed")
    port = int(authority["port"] or (443 if parts["scheme"].lower() == "https" else 80))
    if not 1 <= port <= _LARGEST_PORT:
        raise ForbiddenUrlError(f"there is no port {port}", "write one from 1 to 65535")
    literal = authority["literal"]
    name = _read_literal(literal) if literal is not None else _read_name(authority["host"])
    is_allowed = not {name, f"{name}:{port}"}.isdisjoint(one.lower() for one in allowed)
    address = _read_address(name)
    if not is_allowed:
        if name == "localhost" or name.endswith(".localhost"):
            raise _refuse(name, "is this machine")
        if address is not None:
            judge_addresses(name, [address])
    return CalledHost(name=name, address=address, port=port, is_allowed=is_allowed)


def judge_addresses(name: str, addresses: Iterable[str | Address]) -> None:
    """Judge what a host resolves to.

    Args:
        name: Of the host.
        addresses: All of them.

    Raises:
        ForbiddenUrlError: There is none, or one of them is private, special, or cannot be read.
    """
    known = [_read_address(one.partition("%")[0]) if isinstance(one, str) else one for one in addresses]
    if not known:
        raise ForbiddenUrlError(f"{name} does not resolve", "look at its spelling")
    for address in known:
        if address is None or not is_public(address):
            raise _refuse(name, "leads to an address that is not public")


def is_public(address: Address) -> bool:
    """Tell whether an address is of the public internet.

    Args:
        address: Any; what is an IPv4 address in an IPv6 one is judged as that.

    Returns:
        False for private, loopback, link-local, shared, multicast, reserved, translated and tunnelled ones.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GIVEN_OUT:
            return False
    return address.is_global and not any(
        address in network for network in _CLOSED if network.version == address.version
    )


def _refuse(name: str, why: str) -> ForbiddenUrlError:
    return ForbiddenUrlError(
        f"the host {name} {why}",
        "call a public host; the operator of the service can allow others by name",
    )


def _read_literal(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ForbiddenUrlError(f"[{text}] is no IPv6 address", "write a host name") from None


def _read_name(text: str) -> str:
    """Read a host name, or an IPv4 address in its one usual spelling."""
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not all(labels) or len(name) > _LONGEST_HOST or any(len(label) > 63 for label in labels):
        raise ForbiddenUrlError(f"{text[:60]} is no host name", "write a plain host name")
    # 2130706433, 0x7f.1, 0177.0.0.1: what ends in a number some read as an address, and others as a name.
    if _NUMBER.fullmatch(labels[-1]) and _read_address(name) is None:
        raise ForbiddenUrlError(
            f"{text[:60]} is an address in an unusual spelling", "write four numbers from 0 to 255"
        )
    return name


def _read_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
