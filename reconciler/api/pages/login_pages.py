"""Sign in with a token of the API, and sign out."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Form, Query, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from reconciler.api.context import ServiceDep
from reconciler.api.security import find_caller

from .page_answers import PageRouter
from .rendering import render
from .sessions import COOKIE, check_origin, end_session, find_root, set_session
from .visits import Submission

router: Final = PageRouter()

_REASONS: Final = {
    "ended": "Your token was revoked or has expired. Sign in with another one.",
    "scope": "That token may not look at the dashboard: it lacks the scope read.",
    "out": "You are signed out.",
    "wrong": "The token is unknown, expired or revoked.",
}
_LONGEST: Final = 500


@router.get("/login")
def show_login(
    request: Request, service: ServiceDep, why: str = "", next_path: Annotated[str, Query(alias="next")] = "/"
) -> Response:
    """Show where one signs in; why one has to."""
    return _show(request, service.target, why=why, next_path=next_path)


@router.post("/login")
def sign_in(
    request: Request,
    service: ServiceDep,
    token: Annotated[str, Form()] = "",
    next_path: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """Keep the token in the browser, where it may read."""
    check_origin(request)
    given = token.strip()
    caller = find_caller(service, given) if 0 < len(given) <= _LONGEST else None
    if caller is None:
        return _show(request, service.target, why="wrong", next_path=next_path, status=401)
    if "read" not in caller.scopes:
        return _show(request, service.target, why="scope", next_path=next_path, status=403)
    response = RedirectResponse(find_root(request) + _make_safe(next_path), status_code=303)
    set_session(request, response, given)
    return response


@router.post("/logout")
def sign_out(visit: Submission) -> Response:
    """Let the browser forget the token."""
    response = visit.redirect("/login?why=out")
    end_session(visit.request, response)
    return response


def _show(request: Request, target: str, *, why: str, next_path: str, status: int = 200) -> Response:
    html = render(
        "login.html",
        root=find_root(request),
        target=target,
        reason=_REASONS.get(why, ""),
        is_bad=why != "out",
        next_path=_make_safe(next_path),
    )
    response = HTMLResponse(html, status_code=status)
    if why in ("ended", "scope") and COOKIE in request.cookies:
        end_session(request, response)
    return response


def _make_safe(path: str) -> str:
    """Take a path of ours; anything that could lead to another site is the first page."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours and "\\" not in path and len(path) <= _LONGEST else "/"
