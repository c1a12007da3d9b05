"""Answers that take long: made once for all who ask at the same time, and kept for a moment.

Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from reconciler.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Kept(Generic[_Value]):
    """An answer that was made.

    Attributes:
        value: The answer.
        age: Seconds since it was begun to be made.
    """

    value: _Value
    age: float


@dataclass(frozen=True, slots=True)
class _Made:
    value: Any
    began: float


class SharedAnswers:
    """Answers by name, for threads.

    Each is made in a thread of its own, so that nobody waits for longer than they want, and nothing piles up
    behind a database that does not answer.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._made: dict[str, _Made] = {}
        self._pending: dict[str, Future[_Made]] = {}

    def find(
        self,
        name: str,
        make: Callable[[], _Value],
        *,
        max_age: float,
        patience: float,
        stale: float = 0.0,
    ) -> Kept[_Value]:
        """Find an answer, and make it where there is none that is young enough.

        Args:
            name: Of the answer; always with the same `make`.
            make: Makes it; what it raises, all hear who wait for it.
            max_age: Seconds for which one is kept.
            patience: Seconds to wait for it.
            stale: Seconds up to which one is told to those who come while somebody else waits for a new one.

        Returns:
            The answer and its age.

        Raises:
            BusyError: It takes longer than `patience`; it is made to its end all the same.
        """
        found = self._look(name, make, max_age=max_age, stale=stale)
        if isinstance(found, Kept):
            return found
        wait([found], timeout=patience)
        return self._take(found, patience)

    async def find_async(
        self, name: str, make: Callable[[], _Value], *, max_age: float, patience: float
    ) -> Kept[_Value]:
        """Do the same where no thread is to wait.

        Args:
            name: As there.
            make: As there; it runs in a thread of its own here as well.
            max_age: As there.
            patience: As there.

        Returns:
            As there.

        Raises:
            BusyError: As there.
        """
        found = self._look(name, make, max_age=max_age, stale=0)
        if isinstance(found, Kept):
            return found
        await asyncio.wait([asyncio.wrap_future(found)], timeout=patience)
        return self._take(found, patience)

    def _look(
        self, name: str, make: Callable[[], _Value], *, max_age: float, stale: float
    ) -> Kept[_Value] | Future[_Made]:
        """Look for an answer that is there, or for the one that is being made, and begin one otherwise."""
        with self._lock:
            made = self._made.get(name)
            age = self._clock() - made.began if made is not None else float("inf")
            pending = self._pending.get(name)
            if made is not None and (age <= max_age or (pending is not None and age <= stale)):
                return Kept(cast("_Value", made.value), age)
            return self._begin(name, make) if pending is None else pending

    def _take(self, pending: Future[_Made], patience: float) -> Kept[Any]:
        if not pending.done():
            raise BusyError(f"no answer within {patience:g} s", remedy="call again: it goes on being made")
        made = pending.result()
        return Kept(made.value, self._clock() - made.began)

    def _begin(self, name: str, make: Callable[[], object]) -> Future[_Made]:
        pending: Future[_Made] = Future()
        pending.set_running_or_notify_cancel()  # who waits no longer does not end it for all
        self._pending[name] = pending

        def work() -> None:
            began = self._clock()
            try:
                made = _Made(make(), began)
            except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
                self._end(name, None)
                pending.set_exception(error)
            else:
                self._end(name, made)
                pending.set_result(made)

        # One that hangs does not hold up the end of the process.
        try:
            threading.Thread(target=work, name=f"reconciler-{name}", daemon=True).start()
        except RuntimeError as error:
            del self._pending[name]
            raise BusyError(
                f"this process can start no more threads: {error}", remedy="call again"
            ) from error
        return pending

    def _end(self, name: str, made: _Made | None) -> None:
        with self._lock:
            del self._pending[name]
            if made is not None:
                self._made[name] = made
