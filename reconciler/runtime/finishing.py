"""Write down how jobs ended: what ends while a statement is on its way goes with the next one.

What cannot be sent because the server is away is kept, and sent when it is back; the fence of each job keeps
an end that comes too late from counting.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import psycopg

from reconciler.database import claims

from .attempts import Cancelled, Completed, Failed, Returned, Snoozed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import AsyncConnection

    from .attempts import Outcome
    from .handlers import Job
    from .links import Link

_log: Final = logging.getLogger("reconciler.worker")
_MOST: Final = 2000
"""Jobs of one statement."""
_REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.InternalError,
    psycopg.ProgrammingError,
    psycopg.errors.ProgramLimitExceeded,
)
"""Classes of errors that may be about one of the jobs."""
_MOST_TEXT: Final = 16 * 1024 * 1024
"""Characters of results of one statement."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a worker did so far.

    Attributes:
        claimed: Jobs that it took.
        completed: Jobs that are done.
        failed: Tries that failed, also those that are followed by another.
        snoozed: Jobs that were put off.
        cancelled: Jobs that somebody ended.
        returned: Jobs that were given back.
        stale: Ends that came too late: the job was not the worker's any more.
    """

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    snoozed: int = 0
    cancelled: int = 0
    returned: int = 0
    stale: int = 0


class Finisher:
    """Sends ends of jobs, all that there are at a time.

    Args:
        link: Over which.
        held: The jobs that the worker has, by id: those whose ends are written down are taken out.
        tally: Where it counts.
        on_sent: Called with the jobs whose ends were written down.
    """

    def __init__(
        self, link: Link, held: dict[int, Job], tally: Tally, on_sent: Callable[[Sequence[Job]], object]
    ) -> None:
        self._link = link
        self._held = held
        self._tally = tally
        self._on_sent = on_sent
        self._ends: list[tuple[Job, Outcome]] = []
        self._sending: list[tuple[Job, Outcome]] = []
        self._sleeper: asyncio.Future[None] | None = None

    @property
    def unsent(self) -> int:
        """Return how many ends are not written down yet."""
        return len(self._ends) + len(self._sending)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Note how a job ended.

        Args:
            job: The job.
            outcome: How.
        """
        self._ends.append((job, outcome))
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def run(self) -> None:
        """Send ends as they come, until the task is cancelled.

        Raises:
            psycopg.Error: The server refuses all of it.
        """
        while True:
            if not self._ends:
                self._sleeper = asyncio.get_running_loop().create_future()
                await self._sleeper
                self._sleeper = None
            self._sending = _cut(self._ends)
            del self._ends[: len(self._sending)]
            await self._send(self._sending)
            sent, self._sending = self._sending, []
            jobs = [job for job, _ in sent]
            for job in jobs:
                # Nothing but this very claim: the same job may have come back meanwhile.
                if self._held.get(job.claimed[0]) is job:
                    del self._held[job.claimed[0]]
            self._on_sent(jobs)

    async def _send(self, ends: Sequence[tuple[Job, Outcome]]) -> None:
        groups: dict[type, list[tuple[Job, Any]]] = {}
        for end in ends:
            groups.setdefault(type(end[1]), []).append(end)
        for kind, group in groups.items():
            # As everybody locks them: so nobody meets somebody who does it the other way round.
            group.sort(key=_find_id)
            await self._send_group(kind, group)

    async def _send_group(self, kind: type, group: list[tuple[Job, Any]]) -> None:
        is_repeated = False

        async def send(conn: AsyncConnection[Any]) -> set[int]:
            nonlocal is_repeated
            before, is_repeated = is_repeated, True
            ours: set[int] = await _SENDERS[kind](conn, group)
            is_repeated = before
            return ours

        try:
            ours = await self._link.use(send)
        except _REFUSALS as error:
            await self._send_singly(kind, group, error)
            return
        self._count(kind, group, ours, is_repeated=is_repeated)

    async def _send_singly(self, kind: type, group: list[tuple[Job, Any]], error: psycopg.Error) -> None:
        """Send ends one by one of which the server refused some, and those without what it may refuse."""
        if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.UndefinedFunction):
            raise error
        if len(group) > 1:
            for end in group:
                await self._send_group(kind, [end])
            return
        job, outcome = group[0]
        plain = _make_plain(outcome, error)
        if plain is None:
            _log.error("the end of %s cannot be written down: %s", job, error)
            return
        await self._send_group(kind, [(job, plain)])

    def _count(self, kind: type, group: list[tuple[Job, Any]], ours: set[int], *, is_repeated: bool) -> None:
        name = _COUNTERS[kind]
        setattr(self._tally, name, getattr(self._tally, name) + len(ours))
        if len(ours) == len(group):
            return
        late = [job for job, _ in group if job.id not in ours]
        if is_repeated:
            _log.info("%d ends were sent twice, since the connection was lost meanwhile", len(late))
            return
        self._tally.stale += len(late)
        for job in late:
            _log.warning("%s ended too late: its lease was over, and it went to another worker", job)


def _find_id(end: tuple[Job, Any]) -> int:
    return end[0].claimed[0]


def _cut(ends: Sequence[tuple[Job, Outcome]]) -> list[tuple[Job, Outcome]]:
    """Take as many ends from the beginning as go into one statement."""
    size = 0
    for count, (_, outcome) in enumerate(ends[:_MOST]):
        if type(outcome) is Completed and outcome.result is not None:
            size += len(outcome.result)
            if size > _MOST_TEXT and count:
                return list(ends[:count])
    return list(ends[:_MOST])


def _make_plain(outcome: Any, error: psycopg.Error) -> Outcome | None:
    """Leave out of an end what the server may refuse; None where nothing is left to leave out."""
    text = error.diag.message_primary or str(error)
    if isinstance(outcome, Completed) and outcome.result is not None:
        return Completed(note=f"the result was not kept: {text}")
    if isinstance(outcome, Failed) and not outcome.error.isascii():
        return replace(outcome, error=outcome.error.encode("ascii", "backslashreplace").decode("ascii"))
    return None


async def _complete(conn: AsyncConnection[Any], group: list[tuple[Job, Completed]]) -> set[int]:
    jobs = [job.claimed for job, _ in group]
    results = [outcome.result for _, outcome in group]
    notes = [outcome.note for _, outcome in group]
    for job, outcome in group:
        if outcome.note:
            _log.warning("%s: %s", job, outcome.note)
    has_results = any(one is not None for one in results)
    has_notes = any(one is not None for one in notes)
    return await claims.complete_jobs(
        conn, jobs, results if has_results else None, notes if has_notes else None
    )


async def _fail(conn: AsyncConnection[Any], group: list[tuple[Job, Failed]]) -> set[int]:
    statuses = await claims.fail_jobs(
        conn,
        [job.claimed for job, _ in group],
        [outcome.error.replace("\0", "\\0") for _, outcome in group],
        [outcome.retry_in for _, outcome in group],
        [outcome.final for _, outcome in group],
    )
    for job, outcome in group:
        status = statuses.get(job.id)
        if status is not None:
            what = {"pending": "it is tried again", "failed": "it is dead"}.get(status, f"it is {status}")
            reason = outcome.error.partition("\n")[0]
            _log.warning("%s of %d failed, %s: %s", job, job.max_attempts, what, reason)
    return {job_id for job_id, status in statuses.items() if status is not None}


async def _snooze(conn: AsyncConnection[Any], group: list[tuple[Job, Snoozed]]) -> set[int]:
    return await claims.snooze_jobs(
        conn, [job.claimed for job, _ in group], [outcome.delay for _, outcome in group]
    )


async def _give_back(conn: AsyncConnection[Any], group: list[tuple[Job, Returned]]) -> set[int]:
    return await claims.return_jobs(conn, [job.claimed for job, _ in group])


async def _end_cancelled(conn: AsyncConnection[Any], group: list[tuple[Job, Cancelled]]) -> set[int]:
    return await claims.end_cancelled_jobs(
        conn, [job.claimed for job, _ in group], [outcome.reason for _, outcome in group]
    )


_SENDERS: Final[dict[type, Callable[[AsyncConnection[Any], list[tuple[Job, Any]]], Any]]] = {
    Completed: _complete,
    Failed: _fail,
    Snoozed: _snooze,
    Returned: _give_back,
    Cancelled: _end_cancelled,
}
_COUNTERS: Final = {
    Completed: "completed",
    Failed: "failed",
    Snoozed: "snoozed",
    Returned: "returned",
    Cancelled: "cancelled",
}
