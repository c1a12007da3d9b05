"""Who looks at a page: a token in a cookie, and what keeps other sites from using it; makes no page.

The cookie holds the token itself, so that there is no second secret to keep: whoever revokes the token ends
the session, too. The API never takes the cookie.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Request

from reconciler.api.context import ServiceDep
from reconciler.api.problems import ProblemError
from reconciler.api.security import Caller, find_caller

if TYPE_CHECKING:
    from fastapi import Response

COOKIE: Final = "reconciler_session"
_PURPOSE: Final = b"reconciler dashboard form 1"


class SignInError(Exception):
    """Nobody is signed in.

    Attributes:
        reason: Why, as the sign-in page is told: `none` where no cookie came, `ended` where its token is good
            no more, `scope` where it may not read.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes:
        caller: Whose token it is.
        csrf: What every form has to bring; only a page of ours can know it.
    """

    caller: Caller
    csrf: str = field(repr=False)

    @property
    def may_trigger(self) -> bool:
        """Whether buttons are shown that start, pause, resume and cancel."""
        return "trigger" in self.caller.scopes

    @property
    def may_write(self) -> bool:
        """Whether buttons are shown that retry and cancel queued jobs."""
        return "write" in self.caller.scopes


def find_viewer(request: Request, service: ServiceDep) -> Viewer:
    """Find who looks; asks for the token anew each time.

    Raises:
        SignInError: There is no cookie, or its token opens no page.
    """
    token = request.cookies.get(COOKIE, "")
    if not token:
        raise SignInError("none")
    caller = find_caller(service, token)
    if caller is None:
        raise SignInError("ended")
    if "read" not in caller.scopes:
        raise SignInError("scope")
    return Viewer(caller=caller, csrf=make_form_key(token))


def make_form_key(token: str) -> str:
    """Make what forms bring along, so that no other site can send them.

    Args:
        token: The secret of the session.

    Returns:
        A text of which the token cannot be found.
    """
    return hmac.new(token.encode("utf-8", "surrogatepass"), _PURPOSE, sha256).hexdigest()


def check_form_key(viewer: Viewer, given: str) -> None:
    """Refuse a form that was not made for this session; how long that takes says nothing about the key.

    Raises:
        ProblemError: 403.
    """
    if not hmac.compare_digest(viewer.csrf.encode(), given.encode("utf-8", "surrogatepass")):
        raise ProblemError(
            403,
            "the form was made for another session, or is too old",
            "load the page again and send it anew",
        )


def check_origin(request: Request) -> None:
    """Refuse what another site made the browser send.

    Raises:
        ProblemError: 403.
    """
    # Browsers that do not know the header yet are held off by the cookie (SameSite) and the form's key.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ProblemError(403, "another site sent this form", "open the page here, and send it from there")


def set_session(request: Request, response: Response, token: str) -> None:
    """Keep a token in the browser, for this application alone, until the browser is closed."""
    response.set_cookie(
        COOKIE,
        token,
        path=find_root(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def end_session(request: Request, response: Response) -> None:
    """Let the browser forget the token."""
    response.delete_cookie(
        COOKIE,
        path=find_root(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def find_root(request: Request) -> str:
    """Find below which path the application is mounted; "" for nothing."""
    return str(request.scope.get("root_path", "")).rstrip("/")


ViewerDep = Annotated[Viewer, Depends(find_viewer)]
