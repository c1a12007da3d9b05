"""What stands before every route, without a database: a small application behind it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from reconciler.api.callers import Caller
from reconciler.api.context import Limits
from reconciler.api.guard import DATA_POLICY, PAGE_POLICY, Guard
from reconciler.api.problems import ProblemError, handle_problems
from reconciler.api.visitors import Visitors, find_address
from reconciler.core.request_rates import Rate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(kw_only=True)
class Guarded:
    """An application behind a guard.

    Attributes:
        now: What the guard's clock shows.
        bodies: What the application read.
        client: The address that calls.
    """

    now: float = 0.0
    bodies: list[bytes] = field(default_factory=list)
    client: tuple[str, int] = ("192.0.2.1", 5000)
    app: FastAPI = field(default_factory=FastAPI)

    def guard(self, *, limits: Limits | None = None, hosts: frozenset[str] = frozenset()) -> Guarded:
        """Make the application."""
        handle_problems(self.app)
        self.app.add_middleware(
            Guard,
            limits=limits or Limits(max_body=10),
            hosts=hosts,
            body_limits={"/own": 20},
            sign_ins=frozenset({"/login"}),
            clock=lambda: self.now,
        )

        @self.app.post("/own")
        @self.app.post("/")
        async def read(request: Request) -> Response:
            self.bodies.append(await request.body())
            return PlainTextResponse("read")

        @self.app.get("/")
        async def look(request: Request) -> Response:
            sent = request.headers.get("authorization", "")
            if sent.startswith("Bearer good"):
                request.state.caller = Caller(token_id=sent[-1], name="x", scopes=frozenset())
            elif sent == "Bearer run":
                request.state.visitor = "run endpoint"
            elif sent:
                raise ProblemError(401, "no", "no")
            return PlainTextResponse("fine", headers={"Referrer-Policy": "no-referrer"})

        @self.app.post("/login")
        async def sign_in() -> Response:
            return PlainTextResponse("no", status_code=401)

        @self.app.get("/page")
        async def page() -> Response:
            return HTMLResponse("<p>")

        @self.app.get("/fail")
        async def fail() -> Response:
            raise ZeroDivisionError("secret")

        @self.app.get("/break")
        async def break_off() -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"one"
                raise ZeroDivisionError

            return StreamingResponse(parts())

        return self

    def __call__(self, method: str = "GET", path: str = "/", **options: Any) -> httpx.Response:
        """Send one request."""
        transport = httpx.ASGITransport(self.app, client=self.client, raise_app_exceptions=False)
        base = options.pop("base_url", "http://testserver")

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@pytest.fixture
def guarded() -> Guarded:
    """An application behind a guard that lets ten bytes in."""
    return Guarded().guard()


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    """Send a body without saying how long it is."""
    for part in parts:
        yield part


def test_a_body_is_read_up_to_its_limit(guarded: Guarded) -> None:
    """With and without a Content-Length, one byte more is too much, and nothing of it is used."""
    assert guarded("POST", content=b"1234567890").status_code == 200
    assert guarded("POST", content=stream(b"12345", b"67890")).status_code == 200
    assert guarded.bodies == [b"1234567890"] * 2
    for too_long in (b"12345678901", stream(b"12345", b"678901"), stream(b"x" * 10_000)):
        answer = guarded("POST", content=too_long)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "the body is longer than 10 bytes"
    assert len(guarded.bodies) == 2
    # One that says how long it is is not read at all, wherever it goes.
    assert guarded("POST", "/nothing", content=b"12345678901").status_code == 413


def test_a_path_may_have_its_own_limit(guarded: Guarded) -> None:
    """The run endpoint has."""
    assert guarded("POST", "/own", content=b"x" * 20).status_code == 200
    assert guarded("POST", "/own", content=b"x" * 21).status_code == 413


@pytest.mark.parametrize("path", ["/", "/page", "/fail", "/nothing"])
def test_every_answer_has_the_headers(guarded: Guarded, path: str) -> None:
    """Also errors that nobody foresaw, whose reason is not told."""
    answer = guarded(path=path)
    assert answer.headers["content-security-policy"] == (PAGE_POLICY if path == "/page" else DATA_POLICY)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == ("no-referrer" if path == "/" else "same-origin")
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "camera=()" in answer.headers["permissions-policy"]
    assert "strict-transport-security" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert "secret" not in answer.text


def test_over_https_browsers_are_told_to_stay_there(guarded: Guarded) -> None:
    """For a year."""
    answer = guarded(base_url="https://testserver")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_an_error_in_the_middle_of_an_answer_breaks_it_off(guarded: Guarded) -> None:
    """What was begun cannot become a problem."""
    assert guarded(path="/break").content in (b"", b"one")
    assert guarded(path="/fail").status_code == 500


def test_each_request_has_an_id(guarded: Guarded) -> None:
    """The caller's, where that is one; else one of ours."""
    assert guarded(headers={"X-Request-Id": "deploy-17"}).headers["x-request-id"] == "deploy-17"
    given = guarded(headers={"X-Request-Id": "a" * 65}).headers["x-request-id"]
    assert len(given) == 16
    assert given != guarded().headers["x-request-id"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[testserver"}, 403),
        # A proxy may call us by another name than the browser does: the browser knows better.
        ({"Origin": "https://jobs.test", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_sites_may_not_write(guarded: Guarded, headers: dict[str, str], status: int) -> None:
    """A browser tells where a request comes from; programs say nothing."""
    assert guarded("POST", headers=headers).status_code == status
    assert guarded(headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("jobs.test", 200), ("JOBS.test:8000", 200), ("evil.test", 400), ("", 400)]
)
def test_the_service_may_answer_to_its_names_alone(host: str, status: int) -> None:
    """A name that somebody else points here is refused."""
    guarded = Guarded().guard(hosts=frozenset({"jobs.test"}))
    assert guarded(headers={"Host": host}).status_code == status


def test_who_sends_too_much_waits() -> None:
    """A burst, then as many as the rate allows; the answer says when to come again."""
    guarded = Guarded().guard(limits=Limits(rate=0.5, burst=3))
    assert [guarded().status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = guarded()
    assert answer.headers["retry-after"] == "2"
    assert json.loads(answer.content)["status"] == 429
    guarded.client = ("192.0.2.2", 5000)
    assert guarded().status_code == 200
    guarded.client, guarded.now = ("192.0.2.1", 6000), 2.0
    assert [guarded().status_code for _ in range(2)] == [200, 429]


def test_each_good_token_is_counted_for_itself() -> None:
    """Wherever it comes from; only the first request with it is counted to the address."""
    guarded = Guarded().guard(limits=Limits(rate=0.5, burst=3))
    one, two = ({"Authorization": f"Bearer good {name}"} for name in "12")
    assert [guarded(headers=one).status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    assert guarded(headers=two).status_code == 200
    guarded.client = ("192.0.2.2", 5000)
    assert guarded(headers=one).status_code == 429


def test_tokens_that_are_no_good_are_refused_soon() -> None:
    """Without being looked up; one that was good before, and pages without a token, are answered still."""
    guarded = Guarded().guard(limits=Limits(failed_rate=0.5, failed_burst=2))
    good = {"Authorization": "Bearer good 1"}
    assert guarded(headers=good).status_code == 200
    bad = [guarded(headers={"Authorization": f"Bearer bad {n}"}) for n in range(4)]
    assert [answer.status_code for answer in bad] == [401, 401, 429, 429]
    assert bad[-1].headers["retry-after"] == "2"
    assert guarded(headers=good).status_code == 200
    assert guarded().status_code == 200
    assert guarded("POST", "/login").status_code == 429
    guarded.now = 2.0
    assert guarded(headers={"Authorization": "Bearer bad 9"}).status_code == 401


def test_a_form_that_brings_tokens_is_no_way_around() -> None:
    """Wrong ones there count as those in a header do; a token of the run endpoint goes on being let in."""
    guarded = Guarded().guard(limits=Limits(failed_rate=0.5, failed_burst=2))
    assert guarded(headers={"Authorization": "Bearer run"}).status_code == 200
    assert [guarded("POST", "/login").status_code for _ in range(3)] == [401, 401, 429]
    assert guarded(headers={"Authorization": "Bearer good 1"}).status_code == 429
    assert guarded(headers={"Authorization": "Bearer run"}).status_code == 200
    assert guarded(path="/page").status_code == 200


def test_a_token_that_was_revoked_counts_to_its_address_again() -> None:
    """The first 401 ends what it had for itself."""
    rate = Rate(per_second=1, burst=1)
    visitors = Visitors(rate=rate, failures=Rate(per_second=1, burst=5), clock=lambda: 0.0)
    assert visitors.count("a", "Bearer 1") == 0
    visitors.note("a", "Bearer 1", status=200, name="1")
    assert visitors.count("a", "Bearer 1") == 0
    visitors.note("a", "Bearer 1", status=401, name="")
    assert visitors.count("a", "Bearer 1") == 1


def test_only_so_many_visitors_are_remembered() -> None:
    """Memory has a limit, whoever comes: the one who came least lately is forgotten."""
    rate = Rate(per_second=1, burst=1)
    visitors = Visitors(rate=rate, failures=rate, clock=lambda: 0.0, most=2)
    for address in "abc":
        assert visitors.count(address, "") == 0
        visitors.note(address, f"Bearer {address}", status=200, name=address)
    assert visitors.count("c", "") == 1
    assert visitors.count("a", "") == 0
    assert len(visitors._requests._buckets) == len(visitors._names) == 2


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_its_address(host: str, address: str) -> None:
    """Of IPv6 its network, all of whose addresses it has."""
    assert find_address((host, 1)) == address
    assert find_address(None) == "local"
