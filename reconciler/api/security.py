"""Who calls, and what they may: bearer tokens with scopes, and the headers that keep browsers safe."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.concurrency import run_in_threadpool

from reconciler.core.api_tokens import find_state, is_match, parse_token
from reconciler.core.bearer_tokens import make_challenge
from reconciler.database.api_tokens import find_token, note_use

from .callers import Caller
from .context import Service, ServiceDep
from .problems import ProblemError

__all__ = ["Caller", "Reader", "Trigger", "Writer", "authenticate", "bearer", "find_caller"]

bearer = HTTPBearer(auto_error=False, description="A token of `reconciler token create`")
"""What a request brings."""


def find_caller(service: Service, token: str) -> Caller | None:
    """Find who a token belongs to; asks the database now and then, so call it in a thread.

    Args:
        service: Of the request.
        token: As it was sent.

    Returns:
        The caller; None for a token that is unknown, expired or revoked.
    """
    now = service.now()
    known = service.known_callers.find(token, now)
    if known is not None:
        return known
    given = parse_token(token)
    if given is None:
        return None
    with service.connections.connection() as conn:
        kept = find_token(conn, given.id)
        if not is_match(given, kept) or kept is None or find_state(kept, now) != "good":
            service.known_callers.forget(token)
            return None
        note_use(conn, kept, now)
    caller = Caller(
        token_id=kept.id, name=kept.name, scopes=frozenset(kept.scopes), expires_at=kept.expires_at
    )
    service.known_callers.remember(token, caller)
    return caller


async def authenticate(
    scopes: SecurityScopes,
    request: Request,
    service: ServiceDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Let a request in that brings a token with the scopes that its route asks for.

    Raises:
        ProblemError: 401 without a right token, 403 without the scope.
    """
    remedy = "send the header Authorization: Bearer, with a token of reconciler token create"
    if credentials is None:
        raise ProblemError(401, "the request brings no token", remedy, {"WWW-Authenticate": make_challenge()})
    token = credentials.credentials
    caller = service.known_callers.find(token, service.now())
    if caller is None:
        caller = await run_in_threadpool(find_caller, service, token)
    if caller is None:
        raise ProblemError(
            401,
            "the token is unknown, expired or revoked",
            remedy,
            {"WWW-Authenticate": make_challenge("invalid_token")},
        )
    missing = [scope for scope in scopes.scopes if scope not in caller.scopes]
    if missing:
        raise ProblemError(
            403,
            f"the token {caller.name} lacks the scope {missing[0]}",
            f"make one with reconciler token create --scope {missing[0]}",
            {"WWW-Authenticate": make_challenge("insufficient_scope", scope=missing[0])},
        )
    request.state.caller = caller
    return caller


Reader = Annotated[Caller, Security(authenticate, scopes=["read"])]
"""Who may look."""
Trigger = Annotated[Caller, Security(authenticate, scopes=["trigger"])]
"""Who may start, pause, resume and cancel runs."""
Writer = Annotated[Caller, Security(authenticate, scopes=["write"])]
"""Who may make, change and delete jobs of the owner `api`, and put, retry and cancel queued jobs."""
