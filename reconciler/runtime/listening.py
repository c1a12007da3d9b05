"""Hear from the database that there is work, or that a running job is to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import AsyncConnection

    from .links import Link

_CHANNELS: Final = ("LISTEN reconciler_jobs", "LISTEN reconciler_cancel")


class Listener:
    """Listens as long as it is let, over a connection of its own.

    Args:
        link: Its connection.
        on_work: Called with the name of a queue that has work; with None when news may have been missed.
        on_cancel: Called with the id of a job that is to end.
    """

    def __init__(
        self,
        link: Link,
        *,
        on_work: Callable[[str | None], object],
        on_cancel: Callable[[int], object],
    ) -> None:
        self._link = link
        self._on_work = on_work
        self._on_cancel = on_cancel
        self._lost: asyncio.Future[BaseException] | None = None

    async def run(self) -> None:
        """Listen until the task is cancelled."""
        while True:
            try:
                conn = await self._link.use(self._listen)
                # Nobody was there to hear what was said before.
                self._on_work(None)
                error = await self._serve(conn)
            except psycopg.Error as refusal:
                error = refusal
            await self._link.lose(error)

    @staticmethod
    async def _listen(conn: AsyncConnection[Any]) -> AsyncConnection[Any]:
        for command in _CHANNELS:
            await conn.execute(command)
        return conn

    async def _serve(self, conn: AsyncConnection[Any]) -> BaseException:
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[BaseException] = loop.create_future()

        def hear() -> None:
            # What was said while a command ran was kept by no one: so it is read here, straight from libpq.
            try:
                conn.pgconn.consume_input()
                while (notify := conn.pgconn.notifies()) is not None:
                    self._tell(notify.relname, notify.extra.decode())
            except (psycopg.Error, OSError) as error:
                loop.remove_reader(fileno)
                if not lost.done():
                    lost.set_result(error)

        fileno = conn.fileno()
        loop.add_reader(fileno, hear)
        try:
            return await lost
        finally:
            loop.remove_reader(fileno)

    def _tell(self, channel: bytes, text: str) -> None:
        if channel == b"reconciler_jobs":
            self._on_work(text)
        elif text.isdecimal():
            self._on_cancel(int(text))
