"""Calls of the SQL functions by which workers claim queued jobs, end them, and keep their leases.

Knows neither handlers nor when to call. Arrays travel as texts: a thousand numbers cost nothing that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


class ClaimedJob(NamedTuple):
    """A job as a claim hands it out.

    Attributes:
        id: Of the job.
        token: The proof of this claim; who has an older one is told that he is late.
        handler: The name of what does it.
        payload: As JSON text.
        attempt: Which try this is, from 1.
        max_attempts: How many tries it gets.
        priority: Higher ones are done first.
        run_at: When it was due, aware.
        timeout: Seconds that the try may take.
        lease: Seconds after which it is anybody's again, unless it is renewed.
        type: As it was queued.
        job_name: The declared job that it comes from.
        ordering_key: Jobs with the same one are done one at a time.
        unique_key: No other open job of the queue has it.
        queue: The queue.
        created_at: When it was queued, aware.
    """

    id: int
    token: int
    handler: str
    payload: str
    attempt: int
    max_attempts: int
    priority: int
    run_at: datetime
    timeout: float
    lease: float
    type: str
    job_name: str | None
    ordering_key: str | None
    unique_key: str | None
    queue: str
    created_at: datetime
