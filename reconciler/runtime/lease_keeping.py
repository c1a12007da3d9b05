"""Keep the leases of jobs that calls have claimed: from a thread that is there as long as there are any.

A handler that holds up the event loop must not lose its job, so nothing here waits for the event loop. Unlike
a worker's heartbeat it serves whatever queues are asked for, and does nothing while nothing is done.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg

from reconciler.database import claims

from .links import complete_dsn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection

    from .handlers import Job

_log: Final = logging.getLogger("reconciler.run_endpoint")
_RETRY_AFTER: Final = 1.0


class LeaseKeeper:
    """Renews leases at a third of the shortest one.

    Args:
        worker: Who claims the jobs.
        on_lost: Called in the thread with a job that is somebody else's by now.
        on_cancel: Called in the thread with a job that is to end, and who wants it.
    """

    def __init__(
        self, worker: str, *, on_lost: Callable[[Job], object], on_cancel: Callable[[Job, str], object]
    ) -> None:
        self._worker = worker
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._condition = threading.Condition()
        self._jobs: dict[tuple[int, int], Job] = {}
        self._thread: threading.Thread | None = None
        self._is_over = False
        self._dsn = ""

    def keep(self, dsn: str, jobs: Sequence[Job]) -> None:
        """Keep jobs from now on.

        Args:
            dsn: Where they are.
            jobs: Just claimed.
        """
        with self._condition:
            self._dsn = dsn
            self._jobs.update({(job.claimed.id, job.claimed.token): job for job in jobs})
            if self._jobs and self._thread is None and not self._is_over:
                self._thread = threading.Thread(target=self._run, name="reconciler-leases", daemon=True)
                self._thread.start()
            self._condition.notify()

    def release(self, job: Job) -> None:
        """Keep a job no longer.

        Args:
            job: Whose end was written down, or that was given back.
        """
        with self._condition:
            self._jobs.pop((job.claimed.id, job.claimed.token), None)

    def close(self) -> None:
        """Keep nothing any more, and let the thread end."""
        with self._condition:
            self._is_over = True
            self._jobs.clear()
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join(5)

    def _run(self) -> None:
        conn: Connection | None = None
        renewed_at = time.monotonic()
        try:
            while jobs := self._wait(renewed_at):
                try:
                    if conn is None or conn.closed:
                        conn = psycopg.connect(
                            complete_dsn(self._dsn), autocommit=True, prepare_threshold=None
                        )
                    self._renew(conn, jobs)
                except (psycopg.Error, OSError) as error:
                    _log.warning("the leases of %d jobs were not renewed: %s", len(jobs), _flatten(error))
                    time.sleep(_RETRY_AFTER)
                else:
                    renewed_at = time.monotonic()
        finally:
            if conn is not None:
                conn.close()

    def _wait(self, renewed_at: float) -> list[Job]:
        """Wait until leases are to be renewed.

        Returns:
            The jobs; none when there are none, and then the thread is to end.
        """
        with self._condition:
            while self._jobs:
                every = min(job.claimed.lease for job in self._jobs.values()) / 3
                left = renewed_at + every - time.monotonic()
                if left <= 0:
                    return list(self._jobs.values())
                self._condition.wait(left)
            self._thread = None
            return []

    def _renew(self, conn: Connection, jobs: Sequence[Job]) -> None:
        ours = claims.renew_leases(conn, worker=self._worker, jobs=[job.claimed for job in jobs])
        for job in jobs:
            with self._condition:
                is_kept = (job.claimed.id, job.claimed.token) in self._jobs
            if not is_kept:
                continue  # it has ended meanwhile
            if job.id not in ours:
                self._on_lost(job)
            elif by := ours[job.id]:
                self._on_cancel(job, by)


def _flatten(error: BaseException) -> str:
    return " ".join(str(error).split())
