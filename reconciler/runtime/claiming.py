"""Claim jobs for a worker: when, of which queue, and how many.

A queue is looked at when somebody says that it has work, when a claim of it was filled, and now and then
anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.pacing import Pace, count_ahead, count_claim, count_surplus, measure_pace
from reconciler.database import claims

from .attempts import Returned
from .handlers import Job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from reconciler.database.claims import ClaimedJob, QueueSettings

    from .consumers import Consumers
    from .finishing import Finisher, Tally
    from .links import Link

_log: Final = logging.getLogger("reconciler.worker")
# Jobs may be committed after others that are due later.
_MARGIN: Final = timedelta(seconds=0.25)
_FULL_EVERY: Final = 1.0
_MOST_UNSENT: Final = 5000
_LOOK_EVERY: Final = 0.005
_SURPLUS_EVERY: Final = 0.5
_MOST_PRIORITIES: Final = 100


class _Source:
    """A queue, as far as its claims go."""

    __slots__ = ("full_at", "has_order", "is_empty", "is_limited", "is_ready", "name", "poll_at", "since")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ready = True
        # The last look at all of it found nothing.
        self.is_empty = False
        self.is_limited = False
        self.has_order = False
        self.poll_at = 0.0
        self.full_at = 0.0
        # By priority, due time and id of the last job that was claimed.
        self.since: dict[int, tuple[datetime, int]] = {}


class Claimer:
    """Keeps the buffer of a worker filled.

    Args:
        link: Over which it claims.
        worker: The worker's id.
        queues: Which it serves, each in its turn.
        concurrency: How many jobs the worker does at once.
        poll: Seconds after which a queue is looked at without a reason.
        drain: Whether to find out that nothing is left.
        consumers: Whose buffer it is.
        finisher: That must not fall behind.
        held: The jobs that the worker has, by id.
        tally: Where it counts.
    """

    def __init__(
        self,
        link: Link,
        *,
        worker: str,
        queues: Sequence[str],
        concurrency: int,
        poll: float,
        drain: bool,
        consumers: Consumers,
        finisher: Finisher,
        held: dict[int, Job],
        tally: Tally,
    ) -> None:
        self._link = link
        self._worker = worker
        self._concurrency = concurrency
        self._poll = poll
        self._drain = drain
        self._consumers = consumers
        self._finisher = finisher
        self._held = held
        self._tally = tally
        self._sources = {name: _Source(name) for name in queues}
        self._turn = list(self._sources.values())
        self._sleeper: asyncio.Future[None] | None = None
        self._pace = Pace()
        self._looked_at = self._progress_at = time.perf_counter()
        self._ended = 0
        self._busy_seconds = 0.0
        self._is_stopping = False
        self._read_at: datetime | None = None
        self._read = 0.0

    @property
    def is_drained(self) -> bool:
        """Return whether there was nothing left to claim, and nothing is held."""
        return not self._held and all(source.is_empty for source in self._turn)

    def wake(self, queue: str | None = None) -> None:
        """Look at a queue again.

        Args:
            queue: Which; one that is not served is none of ours. None for all.
        """
        for source in self._turn:
            if queue is None or source.name == queue:
                source.is_ready = True
                self.nudge()

    def nudge(self) -> None:
        """Think again about how many jobs to claim."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def note_sent(self, jobs: Sequence[Job]) -> None:
        """Note that ends were written down: where there is an order or a limit, others may begin now.

        Args:
            jobs: Whose ends.
        """
        for source in self._turn:
            if (source.is_limited or source.has_order) and any(
                job.claimed.queue == source.name for job in jobs
            ):
                source.is_ready = True
            if self._drain and not self._held:
                source.is_ready, source.is_empty = True, False
        self.nudge()

    def note_settings(self, settings: Sequence[QueueSettings]) -> None:
        """Note what was read of the queues.

        Args:
            settings: Of those that are served.
        """
        for one in settings:
            self._sources[one.name].is_limited = one.is_limited
            self._read_at, self._read = one.read_at, time.perf_counter()

    def stop(self) -> None:
        """Claim nothing more."""
        self._is_stopping = True
        self.nudge()

    async def run(self) -> None:
        """Claim until somebody stops it, or everything is done where that is wanted.

        Raises:
            psycopg.Error: The server refuses claims.
        """
        while not (self._is_stopping or (self._drain and self.is_drained)):
            now = time.perf_counter()
            for source in self._turn:
                if now >= source.poll_at:
                    source.is_ready = True
            self._look(now)
            ahead = count_ahead(self._pace, concurrency=self._concurrency)
            self._give_surplus_back(now, ahead)
            if self._is_stopping:
                return
            size = self._count(ahead)
            ready = [source for source in self._turn if source.is_ready]
            if not ready or not size:
                await self._sleep(now)
                continue
            # The next claim begins with the next queue.
            self._turn.remove(ready[0])
            self._turn.append(ready[0])
            await self._claim(ready[0], -(-size // len(ready)))

    def _look(self, now: float) -> None:
        """Learn how quickly jobs get done."""
        consumers, elapsed = self._consumers, now - self._looked_at
        ended = consumers.ended - self._ended
        if ended or not consumers.waiting:
            self._progress_at = now
        if elapsed < _LOOK_EVERY and self._pace.duration is not None:
            return
        self._pace = measure_pace(
            self._pace,
            ended=ended,
            busy=consumers.busy_seconds - self._busy_seconds,
            elapsed=elapsed,
            stuck=now - self._progress_at,
        )
        self._ended, self._busy_seconds = consumers.ended, consumers.busy_seconds
        self._looked_at = now

    def _count(self, ahead: int) -> int:
        """Count how many jobs to claim now."""
        consumers = self._consumers
        consumers.low = ahead // 2
        if self._finisher.unsent > _MOST_UNSENT:
            return 0
        return count_claim(free=consumers.free, waiting=consumers.waiting, ahead=ahead)

    async def _claim(self, source: _Source, size: int) -> None:
        began = time.perf_counter()
        is_full = began >= source.full_at

        async def ask(conn: AsyncConnection[Any]) -> list[ClaimedJob]:
            return await claims.claim_jobs(
                conn,
                queue=source.name,
                worker=self._worker,
                limit=size,
                since=None if is_full else source.since,
            )

        source.is_ready = False
        found = await self._link.use(ask)
        now = time.perf_counter()
        source.poll_at = now + self._poll
        if is_full:
            # Where it takes long, over dead rows, it is to be rare.
            source.full_at = now + max(_FULL_EVERY, 10 * (now - began))
            source.is_empty = not found
        if len(found) >= size:
            source.is_ready = True
        elif not is_full:
            # What is left may be older than what was looked at.
            source.poll_at = min(source.poll_at, source.full_at)
            if self._drain:
                source.is_ready, source.full_at = True, 0.0
        if found:
            self._take(source, found)

    def _take(self, source: _Source, found: Sequence[ClaimedJob]) -> None:
        source.is_empty = False
        source.has_order = any(one.ordering_key is not None for one in found)
        if len(source.since) > _MOST_PRIORITIES:
            source.since.clear()
        self._note_place(source, found)
        jobs = [Job(one) for one in found]
        for job in jobs:
            self._held[job.claimed[0]] = job
        self._tally.claimed += len(jobs)
        self._consumers.put(jobs)

    def _note_place(self, source: _Source, found: Sequence[ClaimedJob]) -> None:
        """Note from where on to look next time: what is before is done, or will be found by a full look."""
        if self._read_at is None:
            return
        newest = self._read_at + timedelta(seconds=time.perf_counter() - self._read) - _MARGIN
        # The last of each priority stands.
        for one in found[-1:] if found[0].priority == found[-1].priority else found:
            source.since[one.priority] = min((one.run_at, one.id), (newest, 0))

    def _give_surplus_back(self, now: float, ahead: int) -> None:
        waiting = self._consumers.waiting
        surplus = count_surplus(waiting=waiting, ahead=ahead, waited=now - self._progress_at)
        if surplus:
            _log.info("%d jobs are given back: those before them take long", surplus)
            for job in self._consumers.take_back(surplus):
                self._finisher.add(job, Returned())

    async def _sleep(self, now: float) -> None:
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        due = min((source.poll_at for source in self._turn if not source.is_ready), default=now + self._poll)
        seconds = max(due - now, 0.001)
        if self._consumers.waiting:
            seconds = min(seconds, _SURPLUS_EVERY)
        timer = loop.call_later(seconds, self.nudge)
        try:
            await self._sleeper
        finally:
            timer.cancel()
            self._sleeper = None
