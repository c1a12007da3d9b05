"""The command `serve`: the service as a process of its own.

Finds tokens, handlers, files and database, starts and stops the HTTP server; answers come from
`reconciler.api`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options
from reconciler.errors import ConfigError, MigrationError, ReconcilerError, RightsError

if TYPE_CHECKING:
    from datetime import timedelta

    import psycopg

    from reconciler.cli.session import Session
    from reconciler.core.hidden import Hidden
    from reconciler.runtime.handlers import Handlers

_VARIABLE = "RECONCILER_RUN_TOKEN"
_SHORT = 16
_NO_TLS = "tokens can be read on the way, unless what stands in front speaks it"
_SCHEMA = frozenset({"schema_missing", "schema_older", "schema_newer"})


@click.command()
@target_options
@click.option(
    "--app", "app", metavar="MODULE[:NAME]", help="Where handlers are; without it no jobs are done."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any.")
@click.option(
    "--hostname",
    "hostnames",
    multiple=True,
    metavar="NAME",
    help="A name it may be called by; several [any].",
)
@click.option(
    "--forwarded-allow-ips",
    "proxies",
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-For and -Proto are believed, with commas between them [none].",
)
@click.option(
    "--connections", default=10, show_default=True, type=click.IntRange(1, 1000), help="To the database."
)
@click.option(
    "--rate", default=1000.0, show_default=True, type=click.FloatRange(0.1), help="Requests/s a caller."
)
@click.option(
    "--max-body", default=1024 * 1024, show_default=True, type=click.IntRange(1024), help="Bytes of a body."
)
@click.option(
    "--metrics-per-job",
    default=1000,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Up to so many jobs, /metrics tells of each.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST",
    help="A host that jobs made through the API may call although its address is private; several.",
)
@click.option(
    "--token-secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help=f"A secret of reconciler.yaml that is a token of the run endpoint; several [${_VARIABLE}].",
)
@click.option(
    "--concurrency", default=20, show_default=True, type=click.IntRange(1, 1000), help="Jobs at once."
)
@click.option(
    "--max-limit", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Jobs a call."
)
@click.option("--budget", type=read_duration, metavar="DURATION", help="How long a call begins jobs [25s].")
@click.option(
    "--grace", type=read_duration, metavar="DURATION", help="How long jobs may take at the end [25s]."
)
@click.option(
    "--prefix", default="/api", show_default=True, help="What paths of the API may begin with, too."
)
def serve(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    app: str | None,
    host: str,
    port: int,
    hostnames: tuple[str, ...],
    proxies: str | None,
    connections: int,
    rate: float,
    max_body: int,
    metrics_per_job: int,
    allowed_hosts: tuple[str, ...],
    secrets: tuple[str, ...],
    concurrency: int,
    max_limit: int,
    budget: timedelta | None,
    grace: timedelta | None,
    prefix: str,
) -> int:
    """Serve the API, the dashboard and the metrics; with --app also the run endpoint, which does jobs."""
    _require_packages()
    from reconciler.api import Limits, make_service
    from reconciler.api.prefixes import read_prefix
    from reconciler.cli.listening import is_loopback, listen, name_address, serve_app
    from reconciler.core.endpoint_requests import RunRules
    from reconciler.runtime.tracing import exporting

    click.get_current_context().with_resource(exporting(os.environ, service="reconciler-service"))
    prefix = read_prefix(prefix)
    session = _find_session(config_path, target_name, dsn, is_needed=bool(secrets))
    found = session.find_dsn() if session is not None else dsn or ""
    tokens = _check_target(session, found, secrets, has_handlers=app is not None)
    patience = 25.0 if grace is None else grace.total_seconds()
    made = make_service(
        found,
        config=None if session is None else session.config.path,
        target=None if session is None else session.target.name,
        environment=os.environ,
        handlers=None if app is None else _load_handlers(app),
        run_tokens=tokens,
        rules=RunRules(max_limit=max_limit, **({} if budget is None else {"budget": budget})),
        concurrency=concurrency,
        connections=connections,
        limits=Limits(
            rate=rate, burst=max(1, round(2 * rate)), max_body=max_body, metrics_per_job=metrics_per_job
        ),
        hosts=hostnames,
        allowed_hosts=allowed_hosts,
        grace=patience,
        prefix=prefix,
    )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with listen(host, port) as listener:
        where = f"http://{name_address(listener)}" + ("/" if app is None else f"{prefix}/jobs/run")
        if not is_loopback(listener):
            click.echo(f"Listening on {host} without TLS: {_NO_TLS}.", err=True)
        asyncio.run(serve_app(made, listener, grace=patience, where=where, proxies=proxies))
    return exits.DONE


def _require_packages() -> None:
    """Say which package is missing; the service's own are an extra."""
    try:
        import uvicorn  # noqa: F401

        from reconciler.api import service  # noqa: F401
    except ImportError as error:
        if (error.name or "").startswith("reconciler"):
            raise
        raise ConfigError(
            f"the package {error.name} is not installed", remedy='pip install "reconciler[serve]"'
        ) from None


def _find_session(
    config_path: Path | None, target_name: str | None, dsn: str | None, *, is_needed: bool
) -> Session | None:
    """Find configuration and target; a machine that has the dsn needs none, and uses one that is there."""
    from reconciler.loader.config import find_config

    if dsn is None or config_path is not None or target_name is not None or is_needed:
        return open_session(config_path, target_name, dsn)
    try:
        path = find_config(Path.cwd())
    except ConfigError:
        return None
    try:
        return open_session(path, None, dsn)
    except ReconcilerError as error:
        click.echo(f"Serving without spec files: {error.message}", err=True)
        return None


def _load_handlers(app: str) -> Handlers:
    from reconciler.runtime.handlers import load_handlers

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does
    return load_handlers(app)


def _check_target(
    session: Session | None, dsn: str, secrets: tuple[str, ...], *, has_handlers: bool
) -> list[Hidden]:
    """See at the start, and not at the first request, what cannot be served; find the tokens."""
    from reconciler.database.connect import connect

    with connect(dsn) as conn:
        tokens = _find_tokens(session, conn, secrets) if has_handlers else []
        if has_handlers:
            _check_work(conn)
        _check_schema(conn, is_alone=not has_handlers)
        if has_handlers and not tokens and not _has_run_token(conn):
            raise ConfigError(
                "the run endpoint has no token, so nobody could run jobs",
                remedy=f"set {_VARIABLE}, name a secret of reconciler.yaml with --token-secret, or make a "
                "token of the API: reconciler token create NAME --scope run",
            )
    if any(len(token.reveal()) < _SHORT for token in tokens):
        click.echo("A token is short enough to be guessed: take 32 random characters.", err=True)
    return tokens


def _find_tokens(session: Session | None, conn: psycopg.Connection, secrets: tuple[str, ...]) -> list[Hidden]:
    """Find the tokens: each text may hold several, with blanks or line ends between them."""
    from reconciler.core.hidden import Hidden
    from reconciler.runtime.secret_values import SecretStores

    texts = [Hidden(os.environ.get(_VARIABLE, ""))]
    if secrets and session is not None:
        stores = SecretStores(config=session.config, environment=os.environ)
        texts = [stores.resolve(name, conn) for name in secrets]
    return [Hidden(token) for text in texts for token in text.reveal().split()]


def _check_work(conn: psycopg.Connection) -> None:
    """See whether the role may claim jobs."""
    import psycopg

    from reconciler.database.claims import reread_settings
    from reconciler.runtime.links import explain_refusal

    try:
        reread_settings(conn, ["default"])
    except psycopg.errors.ProgrammingError as error:
        raise explain_refusal(error, f"{conn.info.dbname} on {conn.info.host}") from error


def _check_schema(conn: psycopg.Connection, *, is_alone: bool) -> None:
    """See whether the API can answer; where the run endpoint can, a role that may do no more is only told."""
    from reconciler.database.readiness import find_unready

    for fault in find_unready(conn):
        if fault.code in _SCHEMA:
            raise MigrationError(f"cannot serve: {fault.message}", remedy=fault.remedy)
        if fault.code == "rights" and is_alone:
            raise RightsError(f"cannot serve: {fault.message}", remedy=fault.remedy)
        what = "Not ready" if fault.severity == "error" else "Warning"
        click.echo(f"{what}: {fault.message} ({fault.remedy}).", err=True)


def _has_run_token(conn: psycopg.Connection) -> bool:
    """Tell whether some token of the API lets run jobs; a role that may not list them is believed."""
    from datetime import UTC, datetime

    import psycopg

    from reconciler.core.api_tokens import find_state
    from reconciler.database.api_tokens import list_tokens

    try:
        tokens = list_tokens(conn)
    except psycopg.errors.InsufficientPrivilege:
        return True
    now = datetime.now(UTC)
    return any("run" in token.scopes and find_state(token, now) == "good" for token in tokens)
