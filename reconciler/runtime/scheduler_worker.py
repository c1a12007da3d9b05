"""The worker of a scheduler: in a thread with an event loop of its own, or as a task of the caller's loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .handlers import Handlers


class SchedulerWorker:
    """Starts and stops the worker that does a scheduler's jobs here, if one is wanted."""

    def __init__(self, dsn: str, handlers: Handlers, queue: str, concurrency: int) -> None:
        """Start nothing yet."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    async def start_async(self) -> None: ...
    async def stop_async(self) -> None: ...
