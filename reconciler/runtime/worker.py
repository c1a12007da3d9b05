"""The pull worker, for programs and for the command: connects, works until it is stopped. Prints nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import uuid
from typing import TYPE_CHECKING, Final

import psycopg

from reconciler.database import claims
from reconciler.database.connect import describe_dsn
from reconciler.errors import ConnectError

from .finishing import Tally
from .links import Link, Outages, complete_dsn, explain_refusal
from .pooling import is_pooled
from .shift import Shift

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.database.claims import QueueSettings

    from .handlers import Handlers

_log: Final = logging.getLogger("reconciler.worker")


class Worker:
    """Does the jobs of some queues until it is stopped. Can be run once.

    Args:
        dsn: Where the queues are: a libpq connection string or URL. The role needs what
            `reconciler.allow_work` grants.
        handlers: That do the jobs.
        queues: Which are served, each in its turn.
        concurrency: How many jobs go on at once: coroutines in the event loop, other functions in threads.
        poll: Seconds after which the queues are looked at without a reason. Jobs that were queued for later,
            and jobs that wait for those of other workers, may begin so much late.
        grace: Seconds that jobs may go on after a stop.
        drain: Whether to stop when there is nothing left to do.

    Attributes:
        id: Under which the database knows it.
        tally: What it did so far.
        is_pooled: Whether a pooler in transaction mode stands between; known once it works.

    Raises:
        ConfigError: The dsn is no connection string.
        ValueError: There is no queue, or a number is too small.
    """

    def __init__(
        self,
        dsn: str,
        handlers: Handlers,
        queues: Sequence[str] = ("default",),
        *,
        concurrency: int = 10,
        poll: float = 1.0,
        grace: float = 25.0,
        drain: bool = False,
    ) -> None:
        if not queues or isinstance(queues, str) or concurrency < 1 or poll <= 0 or grace < 0:
            raise ValueError("a worker needs names of queues, a concurrency of at least 1, and times")
        self.id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.tally = Tally()
        self.is_pooled = False
        self._dsn = complete_dsn(dsn)
        self._outages = Outages(describe_dsn(dsn))
        self._handlers = handlers
        self._queues = tuple(dict.fromkeys(queues))
        self._concurrency = concurrency
        self._poll = poll
        self._grace = grace
        self._drain = drain
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shift: Shift | None = None
        self._stops = 0

    @property
    def running(self) -> int:
        """Return how many jobs go on."""
        return self._shift.running if self._shift is not None else 0

    @property
    def waiting(self) -> int:
        """Return how many jobs were claimed and have not begun."""
        return self._shift.waiting if self._shift is not None else 0

    def stop(self, *, now: bool = False) -> None:
        """Stop: claim nothing more, give back what has not begun, let the rest finish. From any thread.

        Args:
            now: Do not wait for what runs: coroutines are cancelled, threads are left behind, and their jobs
                given back. So it is with a second call, too.
        """
        with self._lock:
            self._stops += 2 if now else 1
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._pass_stop_on)

    def run(self, *, signals: bool | None = None) -> None:
        """Work until it is stopped.

        Args:
            signals: Whether SIGTERM and SIGINT stop it, a second one at once; None where this is the main
                thread.

        Raises:
            ReconcilerError: It could not begin, the server refuses it, or too many handlers hang.
        """
        if signals is None:
            signals = threading.current_thread() is threading.main_thread()
        loop = asyncio.new_event_loop()
        try:
            if signals:
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, self.stop)
            loop.run_until_complete(self.run_async())
        finally:
            # Not asyncio.run: it would wait for coroutines that do not end.
            if rest := asyncio.all_tasks(loop):
                for task in rest:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(rest, timeout=1))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def run_async(self) -> None:
        """Work in the running event loop until it is stopped; a task that is cancelled stops at once.

        Raises:
            ReconcilerError: As `run` does.
        """
        links = [Link(self._dsn, self._outages) for _ in range(3)]
        try:
            settings = await self._connect(links)
            shift = Shift(
                self._dsn,
                self._outages,
                worker=self.id,
                handlers=self._handlers,
                queues=self._queues,
                settings=settings,
                links=links,
                concurrency=self._concurrency,
                poll=self._poll,
                drain=self._drain,
                tally=self.tally,
            )
            with self._lock:
                self._loop, self._shift = asyncio.get_running_loop(), shift
            self._pass_stop_on()
            await shift.work(self._grace)
        except psycopg.Error as error:
            raise explain_refusal(error, self._outages.where) from error
        finally:
            with self._lock:
                self._loop = None
            for link in links:
                await link.drop()

    async def _connect(self, links: Sequence[Link]) -> Sequence[QueueSettings]:
        """Connect for the first time: what fails now is told, and not tried again."""
        where = self._outages.where
        try:
            conn = await links[0].connect()
            self.is_pooled = await is_pooled(conn, self._dsn)
        except psycopg.OperationalError as error:
            raise ConnectError(
                f"cannot connect to {where}: {str(error).strip()}",
                remedy="check host, port, user and password, and that the server runs",
            ) from error
        if self.is_pooled:
            _log.warning(
                "a pooler in transaction mode stands between: no LISTEN, the queues are looked at every %g s",
                self._poll,
            )
            conn.prepare_threshold = None
            for link in links:
                link.is_pooled = True
        return await claims.read_settings(conn, self._queues)

    def _pass_stop_on(self) -> None:
        if self._shift is not None and self._stops:
            self._shift.stop(now=self._stops > 1)
