"""Consumers: as many jobs at once as a worker may do, taken from a buffer of claimed ones.

Each consumer is one task for as long as the worker lives. Only one is awake where jobs end without waiting
for anything; one that begins to wait wakes the next. Knows nothing of the database.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from .attempts import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .attempts import Outcome
    from .handlers import Handlers, Job
    from .threads import Threads

_SLICE: Final = 0.005
"""Seconds for which consumers go on without letting the event loop do anything else."""


class Seat:
    """One consumer.

    Attributes:
        job: What it does; None while it has nothing to do.
        began: When that began, by time.perf_counter.
        is_left: Whether another consumer took its place.
    """

    __slots__ = ("_consumers", "began", "has_waited", "is_left", "job")

    def __init__(self, consumers: Consumers) -> None:
        self._consumers = consumers
        self.job: Job | None = None
        self.began = 0.0
        self.has_waited = False
        self.is_left = False

    def wait(self) -> None:
        """Note that the job waits for something: another consumer may go on."""
        self.has_waited = True
        self._consumers.wake_one()


class Consumers:
    """Does the jobs that are put into its buffer.

    Args:
        handlers: That do them.
        threads: For those that are no coroutines.
        concurrency: How many jobs go on at once.
        on_end: Gets each job with how it ended.
        on_low: Called when the buffer gets low, as `low` says.
    """

    def __init__(
        self,
        handlers: Handlers,
        threads: Threads,
        *,
        concurrency: int,
        on_end: Callable[[Job, Outcome], object],
        on_low: Callable[[], object],
    ) -> None:
        self._handlers = handlers
        self._threads = threads
        self._concurrency = concurrency
        self._on_end = on_end
        self._on_low = on_low
        self._jobs: deque[Job] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._seats: list[Seat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._busy = 0
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        self.low = 0
        self.ended = 0
        self.busy_seconds = 0.0

    @property
    def waiting(self) -> int:
        """Return how many jobs are in the buffer."""
        return len(self._jobs)

    @property
    def running(self) -> list[Job]:
        """Return the jobs that go on."""
        return [seat.job for seat in self._seats if seat.job is not None]

    @property
    def free(self) -> int:
        """Return how many more jobs could go on."""
        return len(self._seats) - self._busy

    @property
    def seats(self) -> list[Seat]:
        """Return the consumers that count."""
        return self._seats

    def start(self) -> None:
        """Start the consumers."""
        for _ in range(self._concurrency):
            self._add()

    def put(self, jobs: Iterable[Job]) -> None:
        """Put jobs into the buffer.

        Args:
            jobs: In their order.
        """
        self._jobs.extend(jobs)
        self.wake_one()

    def take_back(self, count: int | None = None) -> list[Job]:
        """Take jobs out of the buffer that have not begun.

        Args:
            count: How many, from the end; None for all.

        Returns:
            The jobs.
        """
        if count is None:
            count = len(self._jobs)
        return [self._jobs.pop() for _ in range(min(count, len(self._jobs)))]

    def is_waiting(self, job: Job) -> bool:
        """Tell whether a job is in the buffer.

        Args:
            job: The job.
        """
        return job in self._jobs

    def wake_one(self) -> None:
        """Wake a consumer that sleeps, where there is something to do."""
        if not self._jobs:
            return
        while self._idle:
            sleeper = self._idle.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                return

    def leave(self, seat: Seat) -> None:
        """Leave a consumer behind whose job does not end, and put another in its place.

        Args:
            seat: Whose job somebody else ends.
        """
        seat.is_left = True
        self.left += 1
        self._busy -= 1
        self._seats.remove(seat)
        self._add()

    def close(self) -> None:
        """Let the consumers end when the buffer is empty."""
        self._is_closed = True
        while self._idle:
            sleeper = self._idle.popleft()
            if not sleeper.done():
                sleeper.set_result(None)

    def cancel(self) -> None:
        """End the consumers, whatever they do."""
        self.close()
        for task in self._tasks:
            task.cancel()

    def _add(self) -> None:
        seat = Seat(self)
        self._seats.append(seat)
        task = asyncio.get_running_loop().create_task(self._consume(seat), name="reconciler-consumer")
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failure.done():
            self.failure.set_exception(error)

    async def _consume(self, seat: Seat) -> None:
        jobs, clock, on_wait = self._jobs, time.perf_counter, seat.wait
        handlers, threads, on_end = self._handlers, self._threads, self._on_end
        now = slice_began = clock()
        while True:
            while not jobs:
                if self._is_closed:
                    return
                self._on_low()
                sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(sleeper)
                await sleeper
                now = slice_began = clock()
            seat.job = job = jobs.popleft()
            seat.began = began = now
            self._busy += 1
            if len(jobs) == self.low:
                self._on_low()
            outcome = await attempt(job, handlers, threads, on_wait=on_wait)
            if seat.is_left:
                self.left -= 1
                return
            seat.job = None
            self._busy -= 1
            now = clock()
            self.ended += 1
            self.busy_seconds += now - began
            on_end(job, outcome)
            if seat.has_waited:
                seat.has_waited = False
                slice_began = now
            elif now - slice_began > _SLICE:
                await asyncio.sleep(0)
                now = slice_began = clock()
