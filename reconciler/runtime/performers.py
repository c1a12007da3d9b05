"""Does claimed jobs for calls from outside: keeps their leases, and writes down how each ended."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from reconciler.database import claims
from reconciler.errors import ConnectError, ReconcilerError

from .attempts import Cancelled, Completed, Failed, Returned, Snoozed, attempt, describe_lateness
from .drains import JobReport
from .endpoint_answers import render_cause
from .handlers import Job
from .lease_keeping import LeaseKeeper
from .shared_connections import borrow, read_dsn
from .slots import Slots
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import AsyncConnection

    from reconciler.database.claims import ClaimedJob

    from .attempts import Outcome
    from .handlers import Handlers
    from .shared_connections import Connections

_log: Final = logging.getLogger("reconciler.run_endpoint")
_RESCUE_EVERY: Final = 10.0
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 5.0
# How long a coroutine may go on after it was told that its time is over, and after it was told to stop.
_LEAVE_AFTER: Final = 5.0
_STOP_AFTER: Final = 1.0


class Performer:
    """Claims and does jobs. For one event loop.

    Args:
        connections: To the database.
        handlers: What does the jobs.
        concurrency: How many are done at once.

    Attributes:
        slots: The places for jobs.
        is_stopping: Whether no more jobs are to be claimed.
    """

    def __init__(self, connections: Connections, handlers: Handlers, *, concurrency: int) -> None:
        self.slots = Slots(concurrency)
        self.is_stopping = False
        self._connections = connections
        self._handlers = handlers
        self._threads = Threads(concurrency)
        self._name = f"endpoint-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._jobs: dict[tuple[int, int], Job] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interruption: asyncio.Future[None] | None = None
        self._left: set[asyncio.Task[Outcome]] = set()
        self._rescue_at = 0.0
        self._concurrency = concurrency
        self._keeper = LeaseKeeper(
            self._name,
            on_lost=self._in_loop(lambda job: job.stop("lost", "its lease was over")),
            on_cancel=self._in_loop(lambda job, by: job.stop("cancelled", f"cancelled by {by}")),
        )

    @property
    def hanging(self) -> int:
        """Return how many handlers were left behind and go on still."""
        return self._threads.hanging + len(self._left)

    async def claim(self, queue: str, most: int, status: str) -> Sequence[ClaimedJob]:
        """Claim jobs, those first that come first; their leases are kept from now on.

        Args:
            queue: Whose.
            most: How many at the most.
            status: pending or failed.

        Raises:
            ReconcilerError: It could not be done.
        """
        if self.hanging >= max(self._concurrency, 2):
            raise ReconcilerError(
                f"{self.hanging} handlers hang beyond their time, and only the end of the process ends them",
                remedy="give their calls limits of their own, or their jobs more time, and start it again",
            )
        loop = self._loop = asyncio.get_running_loop()
        async with borrow(self._connections) as conn:
            if loop.time() >= self._rescue_at:
                self._rescue_at = loop.time() + _RESCUE_EVERY
                await claims.rescue_jobs_async(conn)
            found = await claims.claim_jobs(conn, queue=queue, worker=self._name, limit=most, status=status)
            dsn = read_dsn(conn)
        jobs = {(job.id, job.token): Job(job) for job in found}
        self._jobs.update(jobs)
        self._keeper.keep(dsn, list(jobs.values()))
        return found

    async def perform(self, claimed: ClaimedJob) -> JobReport:
        """Do a job and write down how it ended.

        Args:
            claimed: By `claim`.

        Returns:
            What became of it.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        job = self._jobs[claimed.id, claimed.token]
        try:
            outcome = await self._attempt(job)
            status = await self._write_down(claimed, outcome)
        finally:
            self._forget(claimed)
        return JobReport(
            job=claimed,
            status=status,
            seconds=loop.time() - begun,
            result=outcome.result if isinstance(outcome, Completed) else None,
            error=_find_error(outcome),
        )

    async def give_back(self, jobs: Sequence[ClaimedJob]) -> None:
        """Give jobs back that did not begin; at the latest they are free when their lease is over."""
        for job in jobs:
            self._forget(job)
        try:
            async with borrow(self._connections) as conn:
                await claims.return_jobs(conn, jobs)
        except ReconcilerError as error:
            _log.warning("%s jobs were not given back: %s", len(jobs), render_cause(error))

    def stop(self) -> None:
        """Claim no more jobs."""
        self.is_stopping = True
        self.slots.send_away()

    def interrupt(self) -> None:
        """End the jobs that run, and give them back."""
        for job in list(self._jobs.values()):
            job.stop("stopping", "this process ends")
        if self._interruption is not None and not self._interruption.done():
            self._interruption.set_result(None)

    async def aclose(self) -> None:
        """Release what is ours."""
        self._threads.close()
        await asyncio.to_thread(self._keeper.close)

    def _forget(self, claimed: ClaimedJob) -> None:
        job = self._jobs.pop((claimed.id, claimed.token), None)
        if job is not None:
            self._keeper.release(job)

    def _in_loop(self, function: Callable[..., object]) -> Callable[..., None]:
        """Let a function be called from another thread."""

        def call(*values: object) -> None:
            with suppress(RuntimeError):  # the event loop is gone
                assert self._loop is not None  # noqa: S101 - what is kept was claimed
                self._loop.call_soon_threadsafe(function, *values)

        return call

    async def _attempt(self, job: Job) -> Outcome:
        """Try a job; leave a handler behind that does not end although its time is over."""
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(attempt(job, self._handlers, self._threads))
        if self._interruption is None:
            self._interruption = loop.create_future()
        either: list[asyncio.Future[Any]] = [task, self._interruption]
        await asyncio.wait(
            either,
            timeout=job.claimed.timeout + _LEAVE_AFTER,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not task.done() and self._interruption.done():
            await asyncio.wait([task], timeout=_STOP_AFTER)
        if task.done():
            return task.result()
        _log.error("%s does not end although it was told to: it is left behind", job)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return Returned() if self._interruption.done() else Failed(error=describe_lateness(job))

    async def _write_down(self, claimed: ClaimedJob, outcome: Outcome) -> str:
        """Write down how a job ended, again and again while the database is away and the lease may hold.

        Returns:
            What the job is now; lost where it is no longer ours to say.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + max(claimed.lease, 30.0)
        wait = _FIRST_WAIT
        while True:
            try:
                async with borrow(self._connections) as conn:
                    return await _finish(conn, claimed, outcome) or "lost"
            except ConnectError as error:
                if loop.time() + wait > give_up_at:
                    _log.error("the end of job %s was not written down: %s", claimed.id, render_cause(error))
                    return "lost"
            except ReconcilerError as error:
                _log.error("the end of job %s was not written down: %s", claimed.id, render_cause(error))
                if not isinstance(outcome, Completed) or outcome.result is None:
                    return "lost"
                # To do it again would be worse than to lose what it returned.
                outcome = Completed(note=f"its result could not be kept: {render_cause(error)}")
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)


async def _finish(conn: AsyncConnection[Any], claimed: ClaimedJob, outcome: Outcome) -> str | None:
    """Send how a job ended.

    Returns:
        What it is now; None where it is no longer ours.
    """
    jobs = [claimed]
    match outcome:
        case Completed():
            ours = await claims.complete_jobs(conn, jobs, [outcome.result], [outcome.note])
            status = "completed"
        case Failed():
            error = _clean(outcome.error)
            statuses = await claims.fail_jobs(conn, jobs, [error], [outcome.retry_in], [outcome.final])
            return statuses.get(claimed.id)
        case Snoozed():
            ours, status = await claims.snooze_jobs(conn, jobs, [outcome.delay]), "pending"
        case Cancelled():
            ours = await claims.end_cancelled_jobs(conn, jobs, [_clean(outcome.reason)])
            status = "cancelled"
        case Returned():
            ours, status = await claims.return_jobs(conn, jobs), "pending"
    return status if claimed.id in ours else None


def _clean(text: str) -> str:
    """Replace what PostgreSQL cannot keep in a text."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _find_error(outcome: Outcome) -> str | None:
    match outcome:
        case Failed():
            return outcome.error
        case Cancelled():
            return outcome.reason
        case Completed():
            return outcome.note
    return None
