"""The worker of a scheduler: in a thread with an event loop of its own, or as a task of the caller's loop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from reconciler.errors import ReconcilerError

from .worker import Worker

if TYPE_CHECKING:
    from .handlers import Handlers

_log: Final = logging.getLogger("reconciler.scheduler")
_inside: Final[ContextVar[SchedulerWorker | None]] = ContextVar("inside", default=None)
"""Whose job calls; handlers have a copy of the worker's context, in threads as well."""


class SchedulerWorker:
    """Starts and stops the worker that does a scheduler's jobs here, if one is wanted."""

    def __init__(self, dsn: str, handlers: Handlers, queue: str, concurrency: int) -> None:
        """Start nothing yet.

        Args:
            dsn: Where the queue is.
            handlers: That do its jobs.
            queue: The scheduler's.
            concurrency: How many jobs are done at once; 0 for no worker.
        """
        self._dsn = dsn
        self._handlers = handlers
        self._queue = queue
        self._concurrency = concurrency
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_working(self) -> bool:
        """Whether jobs are done here."""
        is_alive = self._thread is not None and self._thread.is_alive()
        return is_alive or (self._task is not None and not self._task.done())

    def start(self) -> None:
        """Start a thread, unless the worker works already."""
        if self._concurrency and not self.is_working:
            worker = self._make()
            # A program that comes to its end does not wait for jobs to come, but lets those end that run.
            self._thread = threading.Thread(
                target=self._run, args=[worker], name="reconciler-scheduler", daemon=True
            )
            atexit.register(self.stop)
            self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for what runs; within a job of its own, without waiting."""
        atexit.unregister(self.stop)
        thread, self._thread = self._thread, None
        if self._worker is not None:
            self._worker.stop()
        if thread is not None and _inside.get() is not self:
            thread.join()

    async def start_async(self) -> None:
        """Start a task in the running event loop, unless the worker works already."""
        if self._concurrency and not self.is_working:
            self._task = asyncio.create_task(self._run_async(self._make()))

    async def stop_async(self) -> None:
        """Stop, and wait for what runs; within a job of its own, without waiting."""
        task, self._task = self._task, None
        await asyncio.to_thread(self.stop)
        if task is not None and _inside.get() is not self:
            await asyncio.wait([task])

    def _make(self) -> Worker:
        self._worker = Worker(self._dsn, self._handlers, [self._queue], concurrency=self._concurrency)
        return self._worker

    def _run(self, worker: Worker) -> None:
        _inside.set(self)
        try:
            worker.run(signals=False)
        except ReconcilerError as error:
            _log.error("no more jobs of the queue %s are done here: %s", self._queue, error)

    async def _run_async(self, worker: Worker) -> None:
        _inside.set(self)
        try:
            await worker.run_async()
        except ReconcilerError as error:
            _log.error("no more jobs of the queue %s are done here: %s", self._queue, error)
