"""One call's share of a queue: claim up to so many jobs, do them, and note how each ended.

A job is claimed when there is a place for it, so that what is claimed begins at once. What has begun comes to
its end, although nobody may wait for it any longer. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.errors import ReconcilerError

from .endpoint_answers import render_cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.endpoint_requests import RunRequest
    from reconciler.database.claims import ClaimedJob

    from .performers import Performer

_log: Final = logging.getLogger("reconciler.run_endpoint")
_LOOK_EVERY: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How one try of a job ended, or that it goes on.

    Attributes:
        job: As it was claimed.
        status: What the job is now: completed, failed (dead), cancelled, pending (another try, or put off),
            running; lost where somebody else has it by now.
        seconds: How long it took, or has taken so far.
        result: What the handler returned, as a JSON text.
        error: Why it failed.
    """

    job: ClaimedJob
    status: str
    seconds: float
    result: str | None = None
    error: str | None = None


class Drain:
    """The jobs of one call.

    Args:
        performer: Does them.
        request: Which, how many, and in which time they may begin.

    Attributes:
        wanted: How many it may still claim.
        reports: Of those that have ended, in the order of their ends.
        error: Why no more jobs could be claimed.
    """

    def __init__(self, performer: Performer, request: RunRequest) -> None:
        self.request = request
        self.wanted = request.limit
        self.reports: list[JobReport] = []
        self.error: ReconcilerError | None = None
        self._performer = performer
        self._loop = asyncio.get_running_loop()
        self._end_at = self._loop.time() + request.budget.total_seconds()
        self._running: dict[asyncio.Task[JobReport], tuple[ClaimedJob, float]] = {}
        self._held: deque[ClaimedJob] = deque()
        self._is_left = False

    def leave(self) -> None:
        """Claim no more jobs: nobody waits for them."""
        self._is_left = True

    def make_reports(self) -> list[JobReport]:
        """Report all jobs that have begun, those that go on as well."""
        now = self._loop.time()
        going = [
            JobReport(job=job, status="running", seconds=now - begun) for job, begun in self._running.values()
        ]
        return [*self.reports, *going]

    async def carry_out(self) -> None:
        """Claim and do jobs until there are enough, no more, or no time; raise nothing."""
        is_empty = False
        while True:
            if not self._may_begin():
                self.wanted = 0
                await self._give_back()
            elif self._held or (self.wanted and not is_empty):
                places = await self._take_places()
                if places:
                    is_empty = not await self._begin(places)
                    continue
                if not self._running:
                    continue  # the time is over, or everything ends
            if not self._running:
                return
            # What waits for a place here is looked at now and then: it is to go back in time.
            timeout = _LOOK_EVERY if self._held else None
            await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            self._collect()
            is_empty = False

    def _may_begin(self) -> bool:
        return (
            self.error is None
            and not self._is_left
            and not self._performer.is_stopping
            and self._loop.time() < self._end_at
        )

    async def _take_places(self) -> int:
        seconds = 0.0 if self._running else self._end_at - self._loop.time()
        return await self._performer.slots.take(len(self._held) or self.wanted, seconds=seconds)

    async def _begin(self, places: int) -> bool:
        """Fill places that were taken; return whether there may be more to do at once."""
        is_found = True
        if not self._held and self._may_begin():
            is_found = await self._claim(places)
        # The claim may have taken all the time that there was.
        count = min(places, len(self._held)) if self._may_begin() else 0
        begin = [self._held.popleft() for _ in range(count)]
        self._performer.slots.give(places - len(begin))
        for job in begin:
            task = asyncio.create_task(self._performer.perform(job))
            task.add_done_callback(lambda _: self._performer.slots.give(1))
            self._running[task] = (job, self._loop.time())
        return is_found

    async def _claim(self, places: int) -> bool:
        request = self.request
        # A dead job that fails again is dead again: a second claim would find it once more.
        most = places if request.status == "pending" else self.wanted
        try:
            claimed = await self._performer.claim(request.queue, most, request.status)
        except ReconcilerError as error:
            _log.error("no jobs of the queue %s were claimed: %s", request.queue, render_cause(error))
            self.error = error
            return False
        self.wanted = self.wanted - len(claimed) if request.status == "pending" else 0
        self._held.extend(claimed)
        return len(claimed) >= most

    def _collect(self) -> None:
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            self.reports.append(task.result())

    async def _give_back(self) -> None:
        jobs: Sequence[ClaimedJob] = list(self._held)
        self._held.clear()
        if jobs:
            await self._performer.give_back(jobs)
