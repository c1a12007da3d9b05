"""Answers to browsers: what goes wrong is a page with its remedy, and who is not signed in may do so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from reconciler.api.problems import ProblemError, explain
from reconciler.core.endpoint_requests import Problem
from reconciler.errors import ReconcilerError
from reconciler.runtime.endpoint_answers import render_cause

from .rendering import render
from .sessions import SignInError, find_root

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_log: Final = logging.getLogger("reconciler.service")


class PageRoute(APIRoute):
    """A route for browsers: whatever goes wrong on the way is a page, and who is not signed in may do so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make what answers a request."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await answer(request)
            except SignInError as error:
                return ask_to_sign_in(request, error.reason)
            except Exception as error:  # noqa: BLE001 - each is a page, as each is a problem to programs
                return make_error_page(request, _explain(error))

        return handle


class PageRouter(APIRouter):
    """Routes for browsers, which no description of the API names."""

    def __init__(self) -> None:
        super().__init__(include_in_schema=False, route_class=PageRoute)


def raise_unknown(request: Request) -> NoReturn:
    """Say that there is no such page.

    Raises:
        ProblemError: 404.
    """
    raise ProblemError(
        404, f"there is nothing at {request.url.path[:200]}", "the list of jobs leads to everything"
    )


def make_error_page(request: Request, problem: Problem) -> Response:
    """Make the page of a problem.

    Args:
        request: That met it.
        problem: What went wrong, and what to do.
    """
    if request.headers.get("hx-request") == "true":
        # What looks for news keeps what it shows; the script says that it is old.
        return Response(status_code=problem.status, headers=dict(problem.headers))
    html = render("problem.html", root=find_root(request), problem=problem)
    return HTMLResponse(html, status_code=problem.status, headers=dict(problem.headers))


def ask_to_sign_in(request: Request, reason: str) -> Response:
    """Send a browser to the page where one signs in, and from there back to where it was.

    Args:
        request: Of nobody that is signed in.
        reason: As `SignInError` has it.
    """
    root = find_root(request)
    path = request.url.path.removeprefix(root) + (f"?{request.url.query}" if request.url.query else "")
    headers = request.headers
    if (
        reason == "none"
        and headers.get("sec-fetch-site") in ("cross-site", "same-site")
        and headers.get("sec-fetch-mode") == "navigate"
        and request.method == "GET"
    ):
        # A link on another site, such as in an alert: browsers send the cookie only with the next step.
        return HTMLResponse(render("again.html", root=root, address=root + path))
    query = {"next": path} if request.method == "GET" and path != "/" else {}
    if reason != "none":
        query["why"] = reason
    address = f"{root}/login" + (f"?{urlencode(query)}" if query else "")
    if headers.get("hx-request") == "true":
        # The path of a fragment is that of its page.
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def _explain(error: Exception) -> Problem:
    match error:
        case ProblemError():
            return error.problem
        case ReconcilerError():
            problem = explain(error)
            if problem.status >= 500:
                _log.error("%s", render_cause(error))
            return problem
        case RequestValidationError():
            said = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()[:5])
            return Problem(status=422, detail=said, remedy="go back, and send another value")
        case HTTPException():
            return Problem(
                status=error.status_code,
                detail=str(error.detail),
                remedy="the list of jobs leads to everything",
            )
    _log.error("a page failed", exc_info=error)
    return Problem(status=500, detail="this is a fault of the service", remedy="see the log of this process")
