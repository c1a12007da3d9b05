"""Threads for functions that block: as many as are needed up to a limit, and replaced when one hangs.

Python cannot end a thread. What takes too long is left behind: nobody waits for it, another thread takes its
place, and the process does not wait for it at its end. Used from one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNTER: Final = iter(range(1, 2**63))


class AbandonedError(Exception):
    """A call was left behind."""


class Work:
    """One call in a thread.

    Attributes:
        future: Its result.
        is_begun: Whether a thread has it.
        is_abandoned: Whether nobody waits for it any more.
    """

    __slots__ = ("function", "future", "is_abandoned", "is_begun")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future
        self.is_begun = False
        self.is_abandoned = False


class Threads:
    """Calls functions in threads of its own.

    Args:
        size: How many calls may go on at once, besides those left behind; more wait for their turn.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()  # between a thread that takes a call and who leaves it behind
        self._threads = 0
        self._busy = 0
        self._hanging = 0

    @property
    def hanging(self) -> int:
        """Return how many calls were left behind and go on still."""
        return self._hanging

    def start(self, function: Callable[[], Any]) -> Work:
        """Call a function in a thread.

        Args:
            function: Without arguments.

        Returns:
            The call.
        """
        work = Work(function, asyncio.get_running_loop().create_future())
        self._busy += 1
        if self._busy > self._threads and self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"reconciler-job-{next(_COUNTER)}", daemon=True).start()
        self._queue.put(work)
        return work

    def abandon(self, work: Work) -> None:
        """Leave a call behind.

        Args:
            work: Who waits for it gets `AbandonedError`.
        """
        with self._lock:
            if work.is_abandoned:
                return
            work.is_abandoned = True
        self._busy -= 1
        if work.is_begun:
            self._threads -= 1
            self._hanging += 1
        if not work.future.done():
            work.future.set_exception(AbandonedError())
            work.future.exception()  # nobody may be waiting

    def close(self) -> None:
        """Let idle threads end; those that are at work end after it."""
        for _ in range(self._threads + self._hanging):
            self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            with self._lock:
                if work.is_abandoned:
                    continue
                work.is_begun = True
            result, error = None, None
            try:
                result = work.function()
            except BaseException as raised:  # noqa: BLE001 - goes to who waits for it
                error = raised
            is_over = work.is_abandoned
            with contextlib.suppress(RuntimeError):  # the event loop is gone
                work.future.get_loop().call_soon_threadsafe(self._settle, work, result, error, is_over)
            # Nothing of this job is to live on in a thread that waits for the next one.
            del work, result, error
            if is_over:
                return

    def _settle(self, work: Work, result: Any, error: BaseException | None, is_over: bool) -> None:
        if work.is_abandoned:
            self._hanging -= 1
            if not is_over:
                self._threads += 1  # it was left behind just when it came back
            return
        self._busy -= 1
        if work.future.done():
            return
        if error is None:
            work.future.set_result(result)
        elif isinstance(error, StopIteration):
            work.future.set_exception(RuntimeError("the handler raised StopIteration"))
        else:
            work.future.set_exception(error)
