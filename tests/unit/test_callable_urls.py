"""Which addresses a job may call that came over HTTP: tricks that lead into a private network are refused."""

from __future__ import annotations

import pytest

from reconciler.core.callable_urls import ForbiddenUrlError, is_public, judge_addresses, read_called_host


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [
        ("https://example.com", "example.com", 443),
        ("http://example.com", "example.com", 80),
        ("HTTPS://Hooks.Example.COM.:8443/a/b?c=d#e", "hooks.example.com", 8443),
        ("https://example.com?x=http://127.0.0.1/@y", "example.com", 443),
        ("https://8.8.8.8/dns", "8.8.8.8", 443),
        ("https://[2606:4700:4700:0:0:0:0:1111]:444/", "2606:4700:4700::1111", 444),
        ("https://my_service.example.com/", "my_service.example.com", 443),
        ("https://xn--bcher-kva.example/%C3%BC", "xn--bcher-kva.example", 443),
        ("https://1e100.net/", "1e100.net", 443),
    ],
)
def test_a_public_host_is_read(url: str, name: str, port: int) -> None:
    """Scheme and host are read whatever their case, and the port that is called."""
    called = read_called_host(url)
    assert (called.name, called.port, called.is_allowed) == (name, port, False)
    assert (called.address is not None) == (name[0] in "82")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        # Other schemes, and what is none.
        ("ftp://example.com/", "no http or https URL"),
        ("file:///etc/passwd", "no http or https URL"),
        ("gopher://127.0.0.1:6379/_x", "no http or https URL"),
        ("//example.com/", "no http or https URL"),
        ("http:/example.com", "no http or https URL"),
        ("http:example.com", "no http or https URL"),
        ("", "no http or https URL"),
        ("http://", "host cannot be read"),
        ("http:///x", "host cannot be read"),
        # Whose host is what.
        ("http://example.com@127.0.0.1/", "a user or a password"),
        ("http://user:secret@example.com/", "a user or a password"),
        ("http://@example.com/", "a user or a password"),
        ("http://127.0.0.1\\@example.com/", "a character"),
        ("http://example.com\\.evil.example/", "a character"),
        ("http://example.com\t/", "a character"),
        ("http://example.com/\r\nHost: x", "a character"),
        ("http://exam ple.com/", "a character"),
        ("http://\u24db\u24deocalhost/", "a character"),
        ("http://127\u30020\u30020\u30021/", "a character"),
        ("http://%6c%6f%63alhost/", "host cannot be read"),
        ("http://127.0.0.1%00.example.com/", "host cannot be read"),
        ("http://example.com:80:90/", "host cannot be read"),
        ("http://example.com:/", "host cannot be read"),
        ("http://example.com:x/", "host cannot be read"),
        ("http://[fe80::1%25eth0]/", "host cannot be read"),
        ("http://::1/", "host cannot be read"),
        ("http://[::1/", "host cannot be read"),
        ("http://[1:2]/", "no IPv6 address"),
        ("http://a..b/", "no host name"),
        ("http://./", "no host name"),
        ("http://" + "a" * 64 + ".example/", "no host name"),
        ("http://" + "a." * 127 + "example/", "no host name"),
        ("http://example.com:0/", "no port 0"),
        ("http://example.com:65536/", "no port 65536"),
        # This machine.
        ("http://localhost/", "is this machine"),
        ("http://LOCALHOST.:8080/", "is this machine"),
        ("http://app.localhost/", "is this machine"),
        # Addresses in unusual spellings.
        ("http://2130706433/", "an unusual spelling"),
        ("http://0x7f000001/", "an unusual spelling"),
        ("http://017700000001/", "an unusual spelling"),
        ("http://0177.0.0.1/", "an unusual spelling"),
        ("http://127.1/", "an unusual spelling"),
        ("http://0x7f.0.0.0x1/", "an unusual spelling"),
        ("http://127.0.0.256/", "an unusual spelling"),
        ("http://0x/", "an unusual spelling"),
        ("http://0/", "an unusual spelling"),
        # Addresses that are not public.
        ("http://127.0.0.1:5432/", "not public"),
        ("http://127.0.0.1./", "not public"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://[::ffff:127.0.0.1]/", "not public"),
        ("http://[::ffff:a9fe:a9fe]/", "not public"),
        ("http://[::]/", "not public"),
        ("http://[fd00:ec2::254]/", "not public"),
    ],
)
def test_what_leads_elsewhere_is_refused_as_written(url: str, reason: str) -> None:
    """Without any look-up; the error says what is wrong and what to do."""
    with pytest.raises(ForbiddenUrlError) as raised:
        read_called_host(url)
    assert reason in raised.value.reason
    assert raised.value.remedy


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.53", "169.254.169.254"),
        *("172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.192", "198.18.0.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16", "203.0.113.9", "192.88.99.1"),
        *("::", "::1", "::7f00:1", "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "100::1"),
        *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1"),
        *("2001:db8::1", "3fff::1", "4000::1", "fe80::1%eth0", "nonsense", ""),
    ],
)  # fmt: skip
def test_special_addresses_are_not_public(address: str) -> None:
    """Whatever a name resolves to is judged; one address that is not public is enough."""
    with pytest.raises(ForbiddenUrlError, match="not public"):
        judge_addresses("evil.example", ["8.8.8.8", address])


def test_public_addresses_are_let_through() -> None:
    """Those of both versions, and IPv4 addresses in IPv6 ones."""
    judge_addresses("example.com", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
    called = read_called_host("https://9.9.9.9/")
    assert called.address is not None
    assert is_public(called.address)


def test_a_name_without_an_address_is_refused() -> None:
    """It may get one later, and nobody would judge that."""
    with pytest.raises(ForbiddenUrlError, match="does not resolve"):
        judge_addresses("nowhere.example", [])


@pytest.mark.parametrize(
    ("url", "allowed", "expected"),
    [
        ("http://localhost:8000/x", "localhost", True),
        ("http://10.0.0.7:9000/", "10.0.0.7:9000", True),
        ("http://[::1]/", "::1", True),
        ("http://App.Internal/", "app.INTERNAL", True),
        ("http://app.internal:81/", "app.internal:80", False),
    ],
)
def test_hosts_may_be_allowed(url: str, allowed: str, expected: bool) -> None:
    """By name, or by name and port, wherever they lead; others at them are none of it."""
    assert read_called_host(url, {allowed}).is_allowed is expected


def test_what_is_allowed_still_has_to_be_a_plain_url() -> None:
    """A user before the host, or another port, is not covered."""
    with pytest.raises(ForbiddenUrlError, match="a user"):
        read_called_host("http://x@localhost/", {"localhost"})
    with pytest.raises(ForbiddenUrlError, match="not public"):
        read_called_host("http://10.0.0.7:22/", {"10.0.0.7:9000"})
