"""How many jobs a process does at once; knows nothing of jobs. For one event loop."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """So many places, which are handed out several at a time, to those first who came first.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[tuple[int, asyncio.Future[int]]] = deque()

    async def take(self, most: int, *, seconds: float) -> int:
        """Take places.

        Args:
            most: How many, where there are as many.
            seconds: How long to wait where there is none; nothing or less for not at all.

        Returns:
            How many were taken; none when the time is over, or everybody was sent away.
        """
        if self._free:
            return self._hand_out(most)
        if seconds <= 0:
            return 0
        mine: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((most, mine))
        try:
            await asyncio.wait([mine], timeout=seconds)
        except asyncio.CancelledError:
            if mine.done():
                self.give(mine.result())
            raise
        finally:
            if not mine.done():
                self._waiting.remove((most, mine))
        return mine.result() if mine.done() else 0

    def give(self, count: int) -> None:
        """Give places back.

        Args:
            count: How many.
        """
        self._free += count
        while self._free and self._waiting:
            most, theirs = self._waiting.popleft()
            theirs.set_result(self._hand_out(most))

    def send_away(self) -> None:
        """Let everybody who waits go without."""
        while self._waiting:
            self._waiting.popleft()[1].set_result(0)

    def _hand_out(self, most: int) -> int:
        taken = min(most, self._free)
        self._free -= taken
        return taken
