"""Claimed jobs out of thin air, and one try of each, without a database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reconciler.database.claims import ClaimedJob
from reconciler.runtime.attempts import attempt
from reconciler.runtime.handlers import Handlers, Job
from reconciler.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.runtime.attempts import Outcome

DUE = datetime(2026, 12, 1, 8, tzinfo=UTC)


def make_job(handler: str = "work.do", payload: object = None, *, timeout: float = 60, **fields: Any) -> Job:
    """Make a job as a claim hands it out.

    Args:
        handler: The name of what does it.
        payload: Its payload; an empty object if it is None.
        timeout: Seconds that it may take.
        **fields: Of the claimed job.
    """
    usual: dict[str, Any] = {
        "id": 12,
        "token": 3,
        "attempt": 2,
        "max_attempts": 5,
        "priority": 0,
        "run_at": DUE,
        "lease": 30.0,
        "type": "custom",
        "job_name": None,
        "ordering_key": None,
        "unique_key": None,
        "queue": "default",
        "created_at": DUE,
    }
    text = json.dumps({} if payload is None else payload)
    return Job(ClaimedJob(handler=handler, payload=text, timeout=timeout, **{**usual, **fields}))


async def try_once(
    function: Callable[..., Any], payload: object = None, *, job: Job | None = None, **fields: Any
) -> Outcome:
    """Try a job once whose handler is a function.

    Args:
        function: The handler.
        payload: The job's.
        job: In place of one with the payload.
        **fields: Of the job.
    """
    handlers = Handlers()
    handlers.register(function, "work.do")
    threads = Threads(2)
    try:
        return await attempt(job or make_job(payload=payload, **fields), handlers, threads)
    finally:
        threads.close()
