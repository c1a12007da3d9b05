"""The ASGI application: paths, and the way of a call from the web framework to the run endpoint and back.

Decides nothing: what a call means, and what it is answered, lies in `reconciler.runtime.run_endpoint`.
Further parts of the application are further lists of routes.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from reconciler.core.endpoint_requests import Problem, RunRules
from reconciler.errors import ConfigError
from reconciler.runtime.http_messages import Call, make_problem_answer
from reconciler.runtime.run_endpoint import RunEndpoint

try:
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError:
    raise ConfigError(
        "the package starlette is not installed", remedy='pip install "reconciler[serve]"'
    ) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from starlette.types import Receive, Scope, Send

    from reconciler.core.hidden import Hidden
    from reconciler.runtime.handlers import Handlers
    from reconciler.runtime.http_messages import Answer
    from reconciler.runtime.shared_connections import Connections

_GRACE: Final = 25.0


def make_app(
    database: str | Connections,
    handlers: Handlers,
    *,
    tokens: str | Hidden | Iterable[str | Hidden],
    prefix: str = "/api",
    rules: RunRules | None = None,
    concurrency: int = 20,
    max_body: int = 8 * 1024 * 1024,
    grace: float = _GRACE,
) -> Starlette:
    """Make an ASGI application with the run endpoint: to serve, or to mount in another one.

    It answers `POST {prefix}/jobs/run`, `POST {prefix}/jobs` and `GET {prefix}/jobs/{id}`. At the end of its
    lifespan it sees the jobs that run to their end; an application that mounts it calls
    `app.state.endpoint.aclose()` at its own end.

    Args:
        database: A connection string, or an `AsyncConnectionPool` of psycopg_pool that you open and close.
        handlers: What does the jobs.
        tokens: Each of them opens it; two while a new one replaces an old one.
        prefix: What its paths begin with, below where it is mounted; "" for nothing.
        rules: What one call may ask for.
        concurrency: How many jobs are done at once.
        max_body: Bytes of a body at the most.
        grace: Seconds that jobs which run get at the end, before they are interrupted and given back.

    Returns:
        The application; `state.endpoint` is what answers.

    Raises:
        ConfigError: There is no token, or the connection string is none.
    """
    endpoint = RunEndpoint(
        database, handlers, tokens=tokens, rules=rules, concurrency=concurrency, max_body=max_body
    )

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        yield
        await endpoint.aclose(grace=grace)

    app = Starlette(
        routes=make_run_routes(endpoint, prefix.rstrip("/")),
        lifespan=live,
        exception_handlers={404: _answer_unknown_path},
    )
    app.router.redirect_slashes = False
    app.state.endpoint = endpoint
    return app


class _Path:
    """One path, with every method: which ones are right the run endpoint says, when it knows who asks."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive, send))
        await make_response(answer)(scope, receive, send)


def make_run_routes(endpoint: RunEndpoint, prefix: str) -> list[Route]:
    """Make the routes of the run endpoint, the narrowest first.

    Args:
        endpoint: What answers.
        prefix: What their paths begin with.
    """

    async def run(request: Request) -> Answer:
        return await endpoint.answer_run(make_call(request))

    async def enqueue(request: Request) -> Answer:
        call = make_call(request)
        refusal = await endpoint.refuse(call)
        if refusal is not None:
            return refusal
        body = await _read_body(request, endpoint.max_body)
        if body is None:
            return endpoint.refuse_body()
        return await endpoint.answer_enqueue(replace(call, body=body))

    async def show(request: Request) -> Answer:
        return await endpoint.answer_job(make_call(request), request.path_params["id"])

    return [
        Route(f"{prefix}/jobs/run", _Path(run)),
        Route(f"{prefix}/jobs", _Path(enqueue)),
        Route(f"{prefix}/jobs/{{id}}", _Path(show)),
    ]


def make_call(request: Request) -> Call:
    """Make the call of the run endpoint that a request is; its body is left where it is.

    Args:
        request: As it came.
    """
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    query = request.scope["query_string"].decode("latin-1")
    return Call(method=request.method, query=query, headers=headers)


async def _read_body(request: Request, most: int) -> bytes | None:
    """Read a body; None when it is longer than it may be, whatever its head says."""
    parts: list[bytes] = []
    length = 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > most:
                return None
            parts.append(part)
    except ClientDisconnect:
        return b""  # nobody hears the answer
    return b"".join(parts)


def make_response(answer: Answer) -> Response:
    """Make the response of an answer of the run endpoint.

    Args:
        answer: Any.
    """
    return Response(answer.body, status_code=answer.status, headers=dict(answer.headers))


def _answer_unknown_path(request: Request, _: Exception) -> Response:
    problem = Problem(
        status=404,
        detail=f"there is nothing at {request.url.path[:200]}",
        remedy="call POST jobs/run, POST jobs or GET jobs/{id}, below the prefix of this application",
    )
    return make_response(make_problem_answer(problem))
