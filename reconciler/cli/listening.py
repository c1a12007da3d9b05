"""The HTTP server of `serve`: its socket, and its end in order. Knows no route."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import AbstractContextManager, nullcontext
from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from reconciler.runtime.run_endpoint import RunEndpoint

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Args:
        host: A name or an address of this machine.
        port: 0 takes any.

    Returns:
        The socket.

    Raises:
        ConfigError: Somebody else listens there, or it is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            remedy="give another --port or --host, or end what listens there",
        ) from error
    # Made anew, so that it knows its protocol: asyncio turns TCP_NODELAY on for what it knows to be TCP, and
    # without that each answer waits 40 ms for the acknowledgement of its head.
    return socket.socket(fileno=made.detach())


def name_address(listener: socket.socket) -> str:
    """Name where a socket listens, as in a URL.

    Args:
        listener: The socket.
    """
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether a socket is reached from this machine alone.

    Args:
        listener: The socket.
    """
    return ip_address(listener.getsockname()[0]).is_loopback


async def serve_app(
    app: FastAPI, listener: socket.socket, *, grace: float, where: str, proxies: str | None
) -> None:
    """Serve until a signal comes, and see to it that what runs then ends in order.

    Args:
        app: The service.
        listener: Where.
        grace: Seconds that jobs which run get at the end.
        where: What is told to people.
        proxies: Addresses whose word on who calls is taken; None for none.
    """
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
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies,
        timeout_graceful_shutdown=round(grace) + 10,
    )
    server = Server(config)
    ends: list[asyncio.Task[None]] = []
    is_ending = False
    endpoint: RunEndpoint | None = app.state.endpoint
    what = "requests" if endpoint is None else "jobs"

    def end(number: int) -> None:
        nonlocal is_ending
        if is_ending:
            for other in _SIGNALS:
                loop.remove_signal_handler(other)
        click.echo(f"{signal.Signals(number).name}: ends when the {what} that run are over.", err=True)
        if endpoint is not None:
            ends.append(asyncio.create_task(endpoint.aclose(grace=0 if is_ending else grace)))
        elif is_ending:
            server.force_exit = True
        is_ending = server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, end, number)
    await server.serve(sockets=[listener])
    await asyncio.gather(*ends)
