"""The service of one database, put together of what people give: a dsn, a configuration, handlers, tokens."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import ConfigError
from reconciler.runtime.run_endpoint import RunEndpoint
from reconciler.runtime.spec_files import WatchedSpecFiles
from reconciler.runtime.thread_connections import ThreadConnections

from .context import Limits, Service
from .prefixes import PREFIX
from .run_route import make_run_access
from .service import make_service_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi import FastAPI

    from reconciler.core.endpoint_requests import RunRules
    from reconciler.core.hidden import Hidden
    from reconciler.runtime.handlers import Handlers


def make_service(
    database: str,
    *,
    config: str | Path | None = None,
    target: str | None = None,
    environment: Mapping[str, str] | None = None,
    handlers: Handlers | None = None,
    run_tokens: str | Hidden | Iterable[str | Hidden] = (),
    rules: RunRules | None = None,
    concurrency: int = 20,
    connections: int = 10,
    limits: Limits | None = None,
    hosts: Iterable[str] = (),
    allowed_hosts: Iterable[str] = (),
    grace: float = 25.0,
    prefix: str = PREFIX,
) -> FastAPI:
    """Make the ASGI application of the service: to serve, or to mount in another one.

    At the end of its lifespan it sees the jobs that run to their end and closes its connections; an
    application that mounts it calls `app.state.aclose()` at its own end.

    Args:
        database: A connection string.
        config: `reconciler.yaml`, for plan and drift; None where the service is to know no files.
        target: Which target of it the database is; None for the default one.
        environment: Variables that the configuration names.
        handlers: What does queued jobs; None for no run endpoint.
        run_tokens: They open the run endpoint, besides the tokens of the API with the scope `run`.
        rules: What one call of the run endpoint may ask for.
        concurrency: How many jobs are done at once.
        connections: How many there are to the database, besides those of the run endpoint.
        limits: What one caller may ask for.
        hosts: Names by which the service may be called; any where there is none.
        allowed_hosts: Hosts that jobs made through the API may call although their addresses are private.
        grace: Seconds that jobs which run get at the end, before they are interrupted and given back.
        prefix: Below which the API is besides `/api`; "" for the run endpoint alone.

    Returns:
        The application.

    Raises:
        ConfigError: The connection string is none, there is no such configuration or target, or a token or
            the prefix is none.
        InvalidInputError: The configuration holds problems.
    """
    files, name = None, ""
    if config is not None:
        files = _watch(Path(config), target, environment or {}, database)
        name = files.find_target().name
    service = Service(
        connections=ThreadConnections(database, most=connections),
        target=name,
        files=files,
        limits=limits or Limits(),
        hosts=frozenset(hosts),
        allowed_hosts=frozenset(allowed_hosts),
    )
    endpoint = None
    if handlers is not None:
        endpoint = RunEndpoint(
            database,
            handlers,
            tokens=run_tokens,
            rules=rules,
            concurrency=concurrency,
            authorize=make_run_access(service),
        )
    return make_service_app(service, endpoint=endpoint, grace=grace, prefix=prefix)


def _watch(path: Path, target: str | None, environment: Mapping[str, str], database: str) -> WatchedSpecFiles:
    """Watch the files of a target that is where they say, or elsewhere."""
    with suppress(ConfigError):  # its own dsn may need a variable that is not set
        files = WatchedSpecFiles(path, target, environment=environment)
        if files.find_target().dsn == database:
            return files
    return WatchedSpecFiles(path, target, environment=environment, dsn=database)
