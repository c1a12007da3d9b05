"""Does claimed jobs for calls from outside: keeps their leases, and writes down how each ended."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from reconciler.database import endpoint_claims as claims
from reconciler.errors import ConnectError, ReconcilerError

from .attempts import Cancelled, Completed, Failed, Returned, Snoozed, attempt
from .drains import JobReport
from .endpoint_answers import render_cause
from .handlers import Job
from .shared_connections import borrow
from .slots import Slots
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from reconciler.database.claims import ClaimedJob

    from .attempts import Outcome
    from .handlers import Handlers
    from .shared_connections import Connections

_log: Final = logging.getLogger("reconciler.run_endpoint")
_RESCUE_EVERY: Final = 10.0
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 5.0


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
        self._keeper: asyncio.Task[None] | None = None
        self._rescue_at = 0.0

    async def claim(self, queue: str, most: int, status: str) -> Sequence[ClaimedJob]:
        """Claim jobs, those first that come first; their leases are kept from now on.

        Args:
            queue: Whose.
            most: How many at the most.
            status: pending or failed.

        Raises:
            ReconcilerError: It could not be done.
        """
        loop = asyncio.get_running_loop()
        async with borrow(self._connections) as conn:
            if loop.time() >= self._rescue_at:
                self._rescue_at = loop.time() + _RESCUE_EVERY
                await claims.rescue_jobs(conn)
            found = await claims.claim_jobs(conn, queue, self._name, most, status=status)
        for job in found:
            self._jobs[job.id, job.token] = Job(job)
        if self._jobs and self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_leases())
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
            outcome = await attempt(job, self._handlers, self._threads)
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
                await claims.return_jobs(conn, [(job.id, job.token) for job in jobs])
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

    async def aclose(self) -> None:
        """Release what is ours."""
        self._threads.close()
        if self._keeper is not None:
            self._keeper.cancel()

    def _forget(self, claimed: ClaimedJob) -> None:
        self._jobs.pop((claimed.id, claimed.token), None)

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

    async def _keep_leases(self) -> None:
        """Renew the leases of all jobs that are ours at a third of the shortest, while there are any."""
        while self._jobs:
            shortest = min(job.claimed.lease for job in self._jobs.values())
            await asyncio.sleep(shortest / 3)
            held = dict(self._jobs)
            if held:
                await self._renew(held)
        self._keeper = None

    async def _renew(self, held: Mapping[tuple[int, int], Job]) -> None:
        try:
            async with borrow(self._connections) as conn:
                ours = await claims.renew_leases(conn, self._name, list(held))
        except ReconcilerError as error:
            _log.warning("the leases of %s jobs were not renewed: %s", len(held), render_cause(error))
            return
        for key, job in held.items():
            if key not in self._jobs:
                continue  # it has ended meanwhile
            if key[0] not in ours:
                job.stop("lost", "its lease was lost")
            elif ours[key[0]] is not None:
                job.stop("cancelled", f"cancelled by {ours[key[0]]}")


async def _finish(conn: AsyncConnection[Any], claimed: ClaimedJob, outcome: Outcome) -> str | None:
    """Send how a job ended.

    Returns:
        What it is now; None where it is no longer ours.
    """
    job_id, token = claimed.id, claimed.token
    match outcome:
        case Completed():
            is_ours = await claims.complete_job(conn, job_id, token, outcome.result, outcome.note)
            return "completed" if is_ours else None
        case Failed():
            return await claims.fail_job(
                conn, job_id, token, _clean(outcome.error), retry_in=outcome.retry_in, final=outcome.final
            )
        case Snoozed():
            return "pending" if await claims.snooze_job(conn, job_id, token, outcome.delay) else None
        case Cancelled():
            return (
                "cancelled"
                if await claims.end_cancelled_job(conn, job_id, token, _clean(outcome.reason))
                else None
            )
        case Returned():
            return "pending" if await claims.return_jobs(conn, [(job_id, token)]) else None


def _clean(text: str | None) -> str:
    """Replace what PostgreSQL cannot keep in a text."""
    return (text or "").encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _find_error(outcome: Outcome) -> str | None:
    match outcome:
        case Failed():
            return outcome.error
        case Cancelled():
            return outcome.reason
        case Completed():
            return outcome.note
    return None
