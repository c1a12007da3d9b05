"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, SecurityScopes
from starlette.responses import Response

from reconciler.errors import ConnectError

from .callers import Caller
from .context import ServiceDep
from .metrics import Metrics
from .security import authenticate, bearer

router: Final = APIRouter(tags=["metrics"])
GRACE: Final = 3600.0
"""Seconds for which a token that was good opens the metrics while no database can be asked about it."""


async def authenticate_scraper(
    scopes: SecurityScopes,
    request: Request,
    service: ServiceDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Let in who may read; also while the database is away, which is what a scrape is to tell then.

    Raises:
        ProblemError: As `authenticate`.
        ConnectError: The database is away, and the token was not used lately.
    """
    try:
        return await authenticate(scopes, request, service, credentials)
    except ConnectError:
        assert credentials is not None  # noqa: S101 - the database is not asked about no token
        known = service.known_callers.find(credentials.credentials, service.now(), within=GRACE)
        if known is None or not known.scopes.issuperset(scopes.scopes):
            raise
        return known


Scraper = Annotated[Caller, Security(authenticate_scraper, scopes=["read"])]
"""Who may scrape."""


@router.get("/metrics", include_in_schema=False)
@router.get(
    "/api/v1/metrics",
    summary="Tell metrics in Prometheus' text format",
    response_class=Response,
    responses={
        200: {
            "description": "The metrics; reconciler_up is 0 where the database cannot be read.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def tell_metrics(request: Request, caller: Scraper) -> Response:  # noqa: ARG001 - asking is what lets it in
    """Tell metrics; OpenMetrics where Accept asks for it. The database is read every ten seconds at most."""
    metrics: Metrics = request.app.state.metrics
    body, media_type = metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=media_type, headers={"Cache-Control": "no-store"})
