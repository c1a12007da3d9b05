"""What stands before every route: limits, headers that keep browsers safe, the refusal of other sites.

Knows no route and no token. Plain ASGI: what it wraps may stream.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from reconciler.core.endpoint_requests import Problem
from reconciler.core.request_rates import Rate
from reconciler.runtime.endpoint_answers import make_too_long

from .problems import make_response, make_unforeseen
from .visitors import Visitors, find_address, render_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .context import Limits

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
)
"""What a page may do: load what lies beside it, and send forms there."""
DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"

# As ASGI has them, since every answer gets them: names in lower case, in bytes.
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    # no-referrer would make browsers hide where our own forms come from.
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cache-control", b"no-store"),
)
_DATA_HEADERS: Final = (*_HEADERS, (b"content-security-policy", DATA_POLICY.encode()))
_PAGE_HEADERS: Final = (*_HEADERS, (b"content-security-policy", PAGE_POLICY.encode()))
_TRANSPORT: Final = ((b"strict-transport-security", b"max-age=31536000"),)
_READING: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """Lets requests through to an application.

    Args:
        app: The application.
        limits: What one caller may ask for.
        hosts: Names by which the service may be called; any where there is none.
        body_limits: Bytes of a body, for paths that have a limit of their own.
        sign_ins: Paths to which a token is sent by a form.
        clock: Seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        hosts: frozenset[str] = frozenset(),
        body_limits: Mapping[str, int] | None = None,
        sign_ins: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._max_body = limits.max_body
        self._patience = limits.body_time
        self._body_limits = body_limits or {}
        self._sign_ins = sign_ins
        self._hosts = frozenset(host.lower() for host in hosts)
        self._visitors = Visitors(
            rate=Rate(per_second=limits.rate, burst=limits.burst),
            failures=Rate(per_second=limits.failed_rate, burst=limits.failed_burst),
            clock=clock,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _read_headers(scope)
        scope["state"] = state = dict(scope.get("state", {}))
        state["request_id"] = _find_request_id(headers)
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        most = self._body_limits.get(path, self._max_body)
        signs_in = path in self._sign_ins and scope["method"] not in _READING
        visit = _Visit(scope, receive, send, headers, self._visitors, most, self._patience, signs_in=signs_in)
        refusal = self._refuse(scope, headers, most, signs_in=signs_in)
        if refusal is not None:
            await make_response(refusal)(scope, receive, visit.send)
            return
        try:
            await self._app(scope, visit.receive, visit.send)
        except Exception as error:
            if visit.is_started:
                raise
            await make_unforeseen(error)(scope, receive, visit.send)

    def _refuse(
        self, scope: Scope, headers: Mapping[str, str], most: int, *, signs_in: bool
    ) -> Problem | None:
        host = headers.get("host", "")
        if self._hosts and _strip_port(host) not in self._hosts:
            return Problem(
                status=400,
                detail="the service is not called by this name",
                remedy="call it by one of the names that it was started with",
            )
        address, authorization = find_address(scope.get("client")), headers.get("authorization", "")
        wait = self._visitors.count(address, authorization, signs_in=signs_in)
        if wait:
            return Problem(
                status=429,
                detail="there are too many requests, or too many with tokens that are no good",
                remedy="come again later, and less often",
                headers={"Retry-After": render_wait(wait)},
            )
        if scope["method"] not in _READING and not _is_own_site(headers, host):
            return Problem(
                status=403,
                detail="a page of another site sent this request",
                remedy="send it from the service's own pages, or from a program",
            )
        length = headers.get("content-length", "")
        return make_too_long(most) if length.isdecimal() and int(length) > most else None


class _Visit:
    """One request on its way: what is read of it, and what is answered."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        visitors: Visitors,
        most: int,
        patience: float,
        *,
        signs_in: bool,
    ) -> None:
        self.is_started = False
        self._signs_in = signs_in
        self._scope = scope
        self._receive = receive
        self._send = send
        self._visitors = visitors
        self._most = most
        self._length = 0
        self._refusal: Problem | None = None
        self._patience = patience
        self._deadline = 0.0
        self._is_read = False
        self._authorization = headers.get("authorization", "")
        self._digest = None
        if "idempotency-key" in headers:
            self._digest = scope["state"]["body_digest"] = sha256()

    async def receive(self) -> Message:
        """Give the next part of the body to the application, as long as it is not too long, or too slow."""
        message = await (self._receive() if self._is_read else self._receive_soon())
        part = message.get("body", b"")
        self._length += len(part)
        if self._length > self._most:
            self._refuse(make_too_long(self._most))
        if self._digest is not None:
            self._digest.update(part)
        return message

    async def _receive_soon(self) -> Message:
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._patience
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._refuse(
                Problem(
                    status=408,
                    detail=f"the body did not come within {self._patience:g} seconds",
                    remedy="send it at once",
                    headers={"Connection": "close"},
                )
            )
        self._is_read = not message.get("more_body", False)
        return message

    def _refuse(self, problem: Problem) -> NoReturn:
        self._refusal = problem
        raise HTTPException(problem.status)

    async def send(self, message: Message) -> None:
        """Send what the application answers, with what every answer has."""
        refusal = self._refusal
        if refusal is not None and not self.is_started:
            # Whatever the application makes of a body that ends in the middle.
            self._refusal = None
            await make_response(refusal)(self._scope, self._receive, self.send)
            self._refusal = refusal
            return
        if refusal is not None and message["type"] == "http.response.body":
            return
        if message["type"] == "http.response.start":
            self.is_started = True
            self._note(message["status"])
            _add_headers(self._scope, message)
        await self._send(message)

    def _note(self, status: int) -> None:
        if not (self._authorization or self._signs_in):
            return
        state = self._scope["state"]
        caller = state.get("caller")
        address = find_address(self._scope.get("client"))
        # The run endpoint has tokens of its own, which say no more than that they are good.
        name = state.get("visitor", "") if caller is None else caller.token_id
        self._visitors.note(address, self._authorization, status=status, name=name)


def _add_headers(scope: Scope, message: Message) -> None:
    """Add what the application has not said itself."""
    said = {name.lower(): value for name, value in message.get("headers", ())}
    is_page = said.get(b"content-type", b"").startswith(b"text/html")
    wanted: tuple[tuple[bytes, bytes], ...] = _PAGE_HEADERS if is_page else _DATA_HEADERS
    if scope.get("scheme") == "https":
        wanted += _TRANSPORT
    message["headers"] = [
        *message.get("headers", ()),
        *(header for header in wanted if header[0] not in said),
        (b"x-request-id", scope["state"]["request_id"].encode()),
    ]


def _read_headers(scope: Scope) -> dict[str, str]:
    """Read the headers once; of those that come twice the first, as the application does."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _is_own_site(headers: Mapping[str, str], host: str) -> bool:
    """Tell whether a request comes from no page, or from one of ours; browsers alone send these headers."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or _read_host(origin) == host.lower()


def _read_host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _strip_port(host: str) -> str:
    return re.sub(r":\d*$", "", host.lower())


def _find_request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
