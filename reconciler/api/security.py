"""Who calls, and what they may: bearer tokens with scopes, and the headers that keep browsers safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.concurrency import run_in_threadpool

from .context import Service, ServiceDep
from .problems import ProblemError

Scope = Literal["read", "trigger", "write", "run"]

_bearer = HTTPBearer(auto_error=False, description="A token of `reconciler token create`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    Attributes:
        token_id: The public half of the token; it may be told.
        name: What the token was made for.
        scopes: What it opens.
    """

    token_id: str
    name: str
    scopes: frozenset[str]


def find_caller(service: Service, token: str) -> Caller | None:
    """Find who a token belongs to; asks the database, so call it in a thread.

    Args:
        service: Of the request.
        token: As it was sent.

    Returns:
        The caller; None for a token that is unknown, expired or revoked.
    """
    raise NotImplementedError


async def authenticate(
    scopes: SecurityScopes,
    request: Request,
    service: ServiceDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Let a request in that brings a token with the scopes that its route asks for.

    Raises:
        ProblemError: 401 without a right token, 403 without the scope.
    """
    challenge = 'Bearer realm="reconciler"'
    remedy = "send the header Authorization: Bearer, with a token of reconciler token create"
    if credentials is None:
        raise ProblemError(401, "the request brings no token", remedy, {"WWW-Authenticate": challenge})
    caller = await run_in_threadpool(find_caller, service, credentials.credentials)
    if caller is None:
        raise ProblemError(
            401,
            "the token is unknown, expired or revoked",
            remedy,
            {"WWW-Authenticate": f'{challenge}, error="invalid_token"'},
        )
    missing = [scope for scope in scopes.scopes if scope not in caller.scopes]
    if missing:
        raise ProblemError(
            403,
            f"the token {caller.name} lacks the scope {missing[0]}",
            f"make one with reconciler token create --scope {missing[0]}",
            {"WWW-Authenticate": f'{challenge}, error="insufficient_scope", scope="{missing[0]}"'},
        )
    request.state.caller = caller
    return caller


Reader = Annotated[Caller, Security(authenticate, scopes=["read"])]
"""Who may look."""
Trigger = Annotated[Caller, Security(authenticate, scopes=["trigger"])]
"""Who may start, pause, resume and cancel runs."""
Writer = Annotated[Caller, Security(authenticate, scopes=["write"])]
"""Who may make, change and delete jobs of the owner `api`, and put, retry and cancel queued jobs."""
