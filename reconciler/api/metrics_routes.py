"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from .metrics import Metrics
from .security import Reader

router: Final = APIRouter(tags=["metrics"])


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
def tell_metrics(request: Request, caller: Reader) -> Response:  # noqa: ARG001 - asking is what lets it in
    """Tell metrics; OpenMetrics where Accept asks for it. The database is read every ten seconds at most."""
    metrics: Metrics = request.app.state.metrics
    body, media_type = metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=media_type, headers={"Cache-Control": "no-store"})
