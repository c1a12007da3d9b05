"""Sees every request go by: counts it, takes its time, and makes it a span of a trace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from reconciler.runtime import tracing

from .metric_table import METRICS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds up to which requests are counted together."""
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestMetrics:
    """Counts requests.

    Args:
        registry: Where they are told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        counted, timed, going = (
            "reconciler_http_requests_total",
            "reconciler_http_request_duration_seconds",
            "reconciler_http_requests_in_progress",
        )
        self._counted = Counter(counted, METRICS[counted].text, METRICS[counted].labels, registry=registry)
        self._timed = Histogram(
            timed, METRICS[timed].text, METRICS[timed].labels, registry=registry, buckets=BUCKETS
        )
        self.going = Gauge(going, METRICS[going].text, registry=registry)

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            method: As it was sent.
            route: The template of its path; "" for a path that nothing answers to.
            status: Of the answer.
            seconds: How long that took.
        """
        known = method if method in _METHODS else "other"
        self._counted.labels(known, route, str(status)).inc()
        self._timed.labels(known, route).observe(seconds)


class RequestWatch:
    """An ASGI middleware that watches all requests of an application.

    Args:
        app: What answers.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what is answered for an error that nobody caught

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        self._metrics.going.inc()
        try:
            with tracing.request_span(
                scope["method"], scope["path"], scope.get("scheme", "http"), scope["headers"]
            ) as span:
                try:
                    await self._app(scope, receive, note)
                finally:
                    route = find_route(scope)
                    span.end_request(scope["method"], route, status)
        finally:
            self._metrics.going.dec()
            self._metrics.note(scope["method"], route, status, time.perf_counter() - began)


def find_route(scope: Scope) -> str:
    """Find the template of the path that answered a request.

    Args:
        scope: After the request was answered.

    Returns:
        For instance `/api/v1/cron/jobs/{id}`; "" where nothing answers to the path.
    """
    return str(getattr(scope.get("route"), "path", ""))
