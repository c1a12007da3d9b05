"""The command `serve`: the run endpoint as a process of its own.

Finds token, handlers and database, starts and stops the HTTP server; answers come from `reconciler.api`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options
from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    import psycopg
    from starlette.applications import Starlette

    from reconciler.cli.session import Session
    from reconciler.core.hidden import Hidden
    from reconciler.runtime.run_endpoint import RunEndpoint

_VARIABLE = "RECONCILER_RUN_TOKEN"
_SHORT = 16
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@target_options
@click.option("--app", "app", required=True, metavar="MODULE[:NAME]", help="Where the handlers are.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any.")
@click.option(
    "--token-secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help=f"A secret of reconciler.yaml that is the token; several while they change [${_VARIABLE}].",
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
@click.option("--prefix", default="/api", show_default=True, help="What all paths begin with.")
def serve(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    app: str,
    host: str,
    port: int,
    secrets: tuple[str, ...],
    concurrency: int,
    max_limit: int,
    budget: timedelta | None,
    grace: timedelta | None,
    prefix: str,
) -> int:
    """Serve the run endpoint, which push workers call: POST /api/jobs/run?queue=&status=&limit=."""
    from datetime import timedelta

    from reconciler.api.app import make_app
    from reconciler.core.endpoint_requests import RunRules
    from reconciler.runtime.handlers import load_handlers
    from reconciler.runtime.tracing import exporting

    click.get_current_context().with_resource(exporting(os.environ, service="reconciler-service"))
    # A machine that only serves, and has its token in the environment, needs no configuration.
    is_bare = dsn is not None and config_path is None and not secrets
    session = None if is_bare else open_session(config_path, target_name, dsn)
    found = dsn if session is None else session.find_dsn()
    tokens = _find_tokens(session, found or "", secrets)
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does
    rules = RunRules(max_limit=max_limit, **({} if budget is None else {"budget": budget}))
    patience = (timedelta(seconds=25) if grace is None else grace).total_seconds()
    made = make_app(
        found or "",
        load_handlers(app),
        tokens=tokens,
        prefix=prefix,
        rules=rules,
        concurrency=concurrency,
        grace=patience,
    )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with _listen(host, port) as listener:
        where = f"http://{_name(listener)}{prefix.rstrip('/')}/jobs/run"
        asyncio.run(_serve(made, listener, grace=patience, where=where))
    return exits.DONE


def _find_tokens(session: Session | None, dsn: str, secrets: tuple[str, ...]) -> list[Hidden]:
    """Find the tokens: each text may hold several, with blanks or line ends between them."""
    from reconciler.core.hidden import Hidden
    from reconciler.database.connect import connect
    from reconciler.runtime.secret_values import SecretStores

    texts = [Hidden(os.environ.get(_VARIABLE, ""))]
    with connect(dsn) as conn:
        _check_rights(conn)
        if secrets and session is not None:
            stores = SecretStores(config=session.config, environment=os.environ)
            texts = [stores.resolve(name, conn) for name in secrets]
    tokens = [Hidden(token) for text in texts for token in text.reveal().split()]
    if not tokens:
        raise ConfigError(
            "the run endpoint has no token, so anybody could run jobs",
            remedy=f"set {_VARIABLE}, or name a secret of reconciler.yaml with --token-secret",
        )
    if min(len(token.reveal()) for token in tokens) < _SHORT:
        click.echo("A token is short enough to be guessed: take 32 random characters.", err=True)
    return tokens


def _check_rights(conn: psycopg.Connection) -> None:
    """See at the start, and not at the first call, whether the role may claim jobs."""
    import psycopg

    from reconciler.database.claims import reread_settings
    from reconciler.runtime.links import explain_refusal

    try:
        reread_settings(conn, ["default"])
    except psycopg.errors.ProgrammingError as error:
        raise explain_refusal(error, f"{conn.info.dbname} on {conn.info.host}") from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            remedy="give another --port or --host, or end what listens there",
        ) from error


def _name(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _serve(app: Starlette, listener: socket.socket, *, grace: float, where: str) -> None:
    """Serve until a signal comes, and see to it that what runs then ends in order."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to us: at the first one no more jobs are claimed."""

        def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override] # ours gives nothing
            return nullcontext()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            click.echo(f"Serving {where}", err=True)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=round(grace) + 10,
    )
    server = Server(config)
    ends: list[asyncio.Task[None]] = []
    endpoint: RunEndpoint = app.state.endpoint

    def end(number: int) -> None:
        if ends:
            for other in _SIGNALS:
                loop.remove_signal_handler(other)
        click.echo(f"{signal.Signals(number).name}: ends when the jobs that run are over.", err=True)
        ends.append(asyncio.create_task(endpoint.aclose(grace=0 if ends else grace)))
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, end, number)
    await server.serve(sockets=[listener])
    await asyncio.gather(*ends)
