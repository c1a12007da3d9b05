"""The service: one ASGI application with the REST API, the run endpoint, the dashboard and the metrics.

Puts the parts together and decides nothing; `reconciler serve` serves it, another application may mount it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from reconciler import __version__
from reconciler.errors import ConfigError

try:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute
except ImportError as error:
    raise ConfigError(
        f"the package {error.name} is not installed", remedy='pip install "reconciler[serve]"'
    ) from None

from reconciler.runtime.thread_connections import ThreadConnections

from . import (
    alerts_routes,
    calls_routes,
    cron_routes,
    health_routes,
    jobs_routes,
    metrics_routes,
    plans_routes,
    queues_routes,
    revisions_routes,
    runs_routes,
    scheduler_routes,
)
from .context import Service
from .guard import Guard
from .metrics import Metrics
from .pages import page_routes
from .prefixes import PREFIX, OtherPrefix, read_prefix
from .problems import COMMON_PROBLEMS, OPEN_PROBLEMS, handle_problems
from .request_watch import RequestWatch
from .run_route import make_run_access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reconciler.runtime.run_endpoint import RunEndpoint

_ROUTERS: Final = (
    cron_routes.router,
    scheduler_routes.router,
    jobs_routes.router,
    runs_routes.router,
    queues_routes.router,
    revisions_routes.router,
    alerts_routes.router,
    plans_routes.router,
    calls_routes.router,
    health_routes.router,
    metrics_routes.router,
    page_routes.router,
)

_JOBS_PATH: Final = "/api/jobs"
_RUN_PATH: Final = "/api/jobs/run"
_SIGN_IN_PATH: Final = "/login"


def make_service_app(
    service: Service, *, endpoint: RunEndpoint | None = None, grace: float = 25.0, prefix: str = PREFIX
) -> FastAPI:
    """Make the ASGI application of the service.

    At the end of its lifespan it sees the jobs that run to their end and closes its connections; an
    application that mounts it calls `app.state.aclose()` at its own end.

    Args:
        service: What requests work with.
        endpoint: The run endpoint; None where no handlers are here.
        grace: Seconds that jobs which run get at the end, before they are interrupted and given back.
        prefix: Below which the API is besides `/api`; "" for the run endpoint alone.

    Returns:
        The application.

    Raises:
        ConfigError: Paths cannot begin with the prefix.
    """
    other = read_prefix(prefix)

    async def aclose() -> None:
        if endpoint is not None:
            await endpoint.aclose(grace=grace)
        service.connections.close()

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        yield
        await aclose()

    app = FastAPI(
        title="reconciler",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=live,
        redirect_slashes=False,
        generate_unique_id_function=_name_operation,
    )
    app.state.service = service
    app.state.endpoint = endpoint
    app.state.aclose = aclose
    app.state.metrics = Metrics(service)
    handle_problems(app)
    own_limits = {_JOBS_PATH: jobs_routes.MAX_BODY}
    if endpoint is not None:
        # The tokens of the API open it, too, besides its own ones.
        endpoint.authorize = endpoint.authorize or make_run_access(service)
        own_limits[_RUN_PATH] = endpoint.max_body
    app.add_middleware(
        Guard,
        limits=service.limits,
        hosts=service.hosts,
        body_limits=own_limits,
        sign_ins=frozenset({_SIGN_IN_PATH}),
    )
    # Around the guard: what that turns away is counted, too.
    app.add_middleware(RequestWatch, metrics=app.state.metrics.requests)
    if other != PREFIX:
        app.add_middleware(OtherPrefix, prefix=other)
    app.include_router(health_routes.probes, responses=OPEN_PROBLEMS)
    for router in _ROUTERS:
        app.include_router(router, responses=COMMON_PROBLEMS)
    return app


def describe_service() -> dict[str, Any]:
    """Describe the service as OpenAPI does; asks no database.

    Returns:
        The document, as `GET /api/v1/openapi.json` answers it.
    """
    return make_service_app(Service(connections=ThreadConnections(""))).openapi()


def _name_operation(route: APIRoute) -> str:
    """Name an operation for whoever makes a client of the document; the name of its function is for good."""
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name
