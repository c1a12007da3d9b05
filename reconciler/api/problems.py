"""Errors as problem details (RFC 9457): of ours, of the framework, and those that nobody foresaw."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from reconciler.core.endpoint_requests import Problem
from reconciler.errors import (
    ApplyLockError,
    ConnectError,
    ReconcilerError,
    RefusedError,
    RightsError,
    StalePlanError,
)
from reconciler.runtime.endpoint_answers import make_problem, render_cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.routing import BaseRoute

_log: Final = logging.getLogger("reconciler.service")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_MOST: Final = 20
"""Problems of one request that are told."""


class ProblemDocument(BaseModel):
    """Why a request is not answered as asked, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str


def _document(description: str) -> dict[str, Any]:
    schema = ProblemDocument.model_json_schema()
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: _document("The request is malformed"),
    401: _document("No token, or one that is unknown, expired or revoked"),
    403: _document("The token lacks the scope"),
    404: _document("There is no such thing"),
    405: _document("The path knows no such method"),
    408: _document("The body did not come in time"),
    409: _document("Forbidden by how things stand: another owner, a protection, another call"),
    412: _document("It changed since it was read: If-Match differs"),
    413: _document("The body is too long"),
    415: _document("The body is of another type"),
    422: _document("A value is wrong"),
    428: _document("The request has to say what it was made for: If-Match"),
    429: _document("Too many requests; Retry-After says when to come again"),
    500: _document("A fault of the service"),
    503: _document("The database cannot be reached; Retry-After says when to come again"),
}
"""What a route's `responses` tell of problems, by status."""

COMMON_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: PROBLEMS[status] for status in (400, 401, 403, 408, 413, 422, 429, 500, 503)
}
"""Those that every route can answer; `reconciler.api.service` tells of them."""

OPEN_PROBLEMS: Final = {
    status: problem for status, problem in COMMON_PROBLEMS.items() if status not in (401, 403)
}
"""The same of routes that need no token."""


class ProblemError(Exception):
    """A request cannot be answered as asked; raised by routes, and answered as a problem.

    Attributes:
        problem: What is answered.
    """

    def __init__(
        self, status: int, detail: str, remedy: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, detail=detail, remedy=remedy, headers=headers or {})


def render_problem(problem: Problem) -> dict[str, Any]:
    """Render a problem.

    Args:
        problem: What is answered.

    Returns:
        A document for JSON.
    """
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "remedy": problem.remedy,
    }


def make_response(problem: Problem) -> Response:
    """Make the response of a problem.

    Args:
        problem: What is answered.

    Returns:
        A response of the type `application/problem+json`.
    """
    document = render_problem(problem)
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(
        body,
        status_code=problem.status,
        headers={"Content-Type": "application/problem+json", "Cache-Control": "no-store", **problem.headers},
    )


def explain(error: ReconcilerError) -> Problem:
    """Explain an error of ours to who sent the request; where the database is, is not told.

    Args:
        error: Of ours.

    Returns:
        What is answered: 409 for what a protection, another owner or another apply forbids.
    """
    if isinstance(error, RefusedError | StalePlanError | ApplyLockError):
        return Problem(status=409, detail=error.message, remedy=error.remedy)
    if isinstance(error, RightsError):
        return Problem(
            status=500,
            detail="the role of this service lacks a right",
            remedy="reconciler roles makes one that has them; SELECT reconciler.allow_service('…') with its "
            "name lets it find out who calls",
        )
    return make_problem(error)


def handle_problems(app: FastAPI) -> None:
    """Let an application answer every error as a problem.

    Args:
        app: Where the handlers are added.
    """

    @app.exception_handler(ProblemError)
    async def answer_problem(_: Request, error: ProblemError) -> Response:
        return make_response(error.problem)

    @app.exception_handler(ReconcilerError)
    async def answer_ours(_: Request, error: ReconcilerError) -> Response:
        problem = explain(error)
        # Of a database that is away the connections tell, once and not for each request.
        if problem.status >= 500 and not isinstance(error, ConnectError):
            _log.error("%s", render_cause(error))
        return make_response(problem)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(_: Request, error: RequestValidationError) -> Response:
        found = [
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:_MOST]
        ]
        remedy = "send another value; /api/v1/openapi.json says what is expected"
        return make_response(Problem(status=422, detail="; ".join(found), remedy=remedy))

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        detail, remedy = str(error.detail), "see /api/v1/openapi.json"
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {request.url.path[:200]}"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.url.path[:200]} knows no {request.method[:20]}"
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The framework names those of the first route of this path alone.
            headers["Allow"] = ", ".join(_list_methods(request))
        return make_response(Problem(status=error.status_code, detail=detail, remedy=remedy, headers=headers))

    @app.exception_handler(Exception)
    async def answer_unforeseen(_: Request, error: Exception) -> Response:
        return make_unforeseen(error)


def _list_methods(request: Request) -> list[str]:
    """List the methods that the path of a request knows."""
    routes: list[BaseRoute] = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def make_unforeseen(error: Exception) -> Response:
    """Make the response to an error that nobody foresaw; only the log tells what it is.

    Args:
        error: Any.

    Returns:
        A response with status 500.
    """
    _log.error("a request failed", exc_info=error)
    return make_response(
        Problem(status=500, detail="this is a fault of the service", remedy="see the log of this process")
    )
