"""One stretch of work of a pull worker: its parts, from the first claim to the last end written down.

Three connections of the event loop: one claims, one ends, one listens. One more is the thread's that keeps
the leases.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from reconciler.errors import ReconcilerError

from .attempts import Failed, Returned, describe_lateness
from .claiming import Claimer
from .consumers import Consumers
from .finishing import Finisher, Tally
from .heartbeat import Heartbeat
from .listening import Listener
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.database.claims import QueueSettings

    from .handlers import Handlers, Job
    from .links import Link, Outages

_log: Final = logging.getLogger("reconciler.worker")
_LOOK_EVERY: Final = 0.25
_STEP: Final = 0.02
# How long a coroutine may go on after it was told that its time is over, before it is left behind.
_LEAVE_AFTER: Final = 5.0
# The same for one that is told that the worker stops.
_STOP_AFTER: Final = 1.0
# How long the last messages to the server may take.
_END_LIMIT: Final = 10.0
_LEAVE_LIMIT: Final = 2.0


class Shift:
    """The parts of a worker, in the running event loop.

    Args:
        dsn: From `complete_dsn`.
        outages: Who tells of lost connections.
        worker: The worker's id.
        handlers: That do the jobs.
        queues: That it serves.
        settings: Of the queues.
        concurrency: How many jobs go on at once.
        poll: Seconds after which a queue is looked at without a reason.
        drain: Whether it is over when there is nothing left to do.
        tally: Where it counts.
    """

    def __init__(
        self,
        dsn: str,
        outages: Outages,
        *,
        worker: str,
        handlers: Handlers,
        queues: Sequence[str],
        settings: Sequence[QueueSettings],
        links: Sequence[Link],
        concurrency: int,
        poll: float,
        drain: bool,
        tally: Tally,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._concurrency = concurrency
        self._stopping: asyncio.Future[None] = self._loop.create_future()
        self._is_hurried = False
        self._held: dict[int, Job] = {}
        self._threads = Threads(concurrency)
        self._finisher = Finisher(links[1], self._held, tally, self._note_sent)
        self._consumers = Consumers(
            handlers,
            self._threads,
            concurrency=concurrency,
            on_end=self._finisher.add,
            on_low=self._note_low,
        )
        self._claimer = Claimer(
            links[0],
            worker=worker,
            queues=queues,
            concurrency=concurrency,
            poll=poll,
            drain=drain,
            consumers=self._consumers,
            finisher=self._finisher,
            held=self._held,
            tally=tally,
        )
        self._claimer.note_settings(settings)
        self._heartbeat = Heartbeat(
            dsn,
            outages,
            worker=worker,
            queues=queues,
            concurrency=concurrency,
            held=self._held,
            on_lost=self._in_loop(self._lose),
            on_cancel=self._in_loop(self._cancel),
            on_settings=self._in_loop(self._claimer.note_settings),
        )
        self._listener = Listener(
            links[2],
            on_work=self._claimer.wake,
            on_cancel=lambda job_id: self._cancel(self._held.get(job_id), ""),
        )
        self._is_listening = not links[2].is_pooled

    @property
    def running(self) -> int:
        """Return how many jobs go on."""
        return len(self._consumers.running)

    @property
    def waiting(self) -> int:
        """Return how many jobs were claimed and have not begun."""
        return self._consumers.waiting

    def stop(self, *, now: bool) -> None:
        """Begin to stop.

        Args:
            now: Do not wait for what runs.
        """
        self._is_hurried = self._is_hurried or now
        if not self._stopping.done():
            self._stopping.set_result(None)

    async def work(self, grace: float) -> None:
        """Work until it is stopped, or drained.

        Args:
            grace: Seconds that jobs may go on after a stop.

        Raises:
            ReconcilerError: Too many handlers hang.
            psycopg.Error: The server refuses something.
        """
        self._heartbeat.start()
        self._consumers.start()
        claimer = asyncio.create_task(self._claimer.run(), name="reconciler-claimer")
        finisher = asyncio.create_task(self._finisher.run(), name="reconciler-finisher")
        others = [asyncio.create_task(self._watch(), name="reconciler-watch")]
        if self._is_listening:
            others.append(asyncio.create_task(self._listener.run(), name="reconciler-listener"))
        try:
            await self._wait(claimer, finisher, *others)
        except BaseException:
            self._is_hurried = True
            raise
        finally:
            await self._end(claimer, finisher, grace)
            for task in (finisher, *others):
                task.cancel()
            # What went wrong first is raised; the others have no more to say.
            await asyncio.gather(claimer, finisher, *others, return_exceptions=True)

    async def _wait(self, *tasks: asyncio.Future[None]) -> None:
        """Wait until somebody stops it, nothing is left, or something goes wrong."""
        futures = [self._stopping, self._consumers.failure, *tasks]
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()

    async def _end(self, claimer: asyncio.Task[None], finisher: asyncio.Task[None], grace: float) -> None:
        """Give back what has not begun, finish what runs, write everything down, and go."""
        self._claimer.stop()
        await asyncio.wait([claimer], timeout=_END_LIMIT)
        for job in self._consumers.take_back():
            self._finisher.add(job, Returned())
        self._consumers.close()
        await self._wait_for_jobs(grace)
        await _wait_until(lambda: not self._finisher.unsent or finisher.done(), _END_LIMIT)
        if self._finisher.unsent:
            _log.error(
                "what became of %d jobs was not written down: they are done again after their leases",
                self._finisher.unsent,
            )
        claimer.cancel()
        self._consumers.cancel()
        self._heartbeat.stop()
        self._threads.close()
        await _wait_until(lambda: not self._heartbeat.is_alive(), _LEAVE_LIMIT)

    async def _wait_for_jobs(self, grace: float) -> None:
        await _wait_until(lambda: self._is_hurried or not self._consumers.running, grace)
        rest = self._consumers.running
        if not rest:
            return
        _log.warning("%d jobs are given back in the middle: they did not end in time", len(rest))
        for job in rest:
            job.stop("stopping", "the worker stops")
        await _wait_until(lambda: not self._consumers.running, _STOP_AFTER)
        for seat in list(self._consumers.seats):
            if seat.job is not None:
                self._finisher.add(seat.job, Returned())
                self._consumers.leave(seat)

    async def _watch(self) -> None:
        """Leave handlers behind that do not end although their time is over, as long as they are few."""
        consumers, threads = self._consumers, self._threads
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.perf_counter()
            for seat in list(consumers.seats):
                job = seat.job
                if job is None or not job.is_late or now - seat.began < job.claimed.timeout + _LEAVE_AFTER:
                    continue
                _log.error("%s does not end although its time is over: it is left behind", job)
                consumers.leave(seat)
                self._finisher.add(job, Failed(error=describe_lateness(job)))
            hanging = consumers.left + threads.hanging
            if hanging >= max(self._concurrency, 2):
                raise ReconcilerError(
                    f"{hanging} handlers hang beyond their time, and only the end of the process ends them",
                    remedy="give their calls limits of their own, or their jobs more time, and start again",
                )

    def _note_low(self) -> None:
        self._claimer.nudge()

    def _note_sent(self, jobs: Sequence[Job]) -> None:
        self._claimer.note_sent(jobs)

    def _lose(self, jobs: Sequence[Job]) -> None:
        running = set(map(id, self._consumers.running))
        for job in jobs:
            # What has ended meanwhile, or was given back, is not lost.
            if id(job) in running or self._consumers.is_waiting(job):
                _log.warning("%s is ours no more: its lease was over", job)
                job.stop("lost", "the lease was over")

    def _cancel(self, job: Job | None, by: str) -> None:
        if job is not None and self._held.get(job.id) is job:
            job.stop("cancelled", f"cancelled by {by}" if by else "")

    def _in_loop(self, function: Callable[..., object]) -> Callable[..., object]:
        """Let a function be called from another thread."""

        def call(*values: object) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(function, *values)

        return call


async def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, or the time is over."""
    over_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > over_at:
            return
        await asyncio.sleep(_STEP)
