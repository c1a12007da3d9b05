"""Keep the leases of a worker's jobs, from a thread and over a connection of its own.

A handler that blocks the event loop must not lose its job, so nothing here waits for the event loop. Jobs of
workers that are gone are rescued on the way.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import psycopg

from reconciler.database import claims

from .links import find_wait, is_momentary, is_outage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection

    from reconciler.database.claims import QueueSettings

    from .handlers import Job
    from .links import Outages

_log: Final = logging.getLogger("reconciler.worker")
_MOST: Final = 1000
"""Jobs of one statement."""


class Heartbeat(threading.Thread):
    """Renews, rescues, and says that the worker lives.

    Args:
        dsn: From `complete_dsn`.
        outages: Who tells of losses.
        worker: The worker's id.
        queues: That it serves.
        concurrency: How many jobs it does at once.
        held: The jobs that it has, by id; changed by others meanwhile.
        on_lost: Called in this thread with jobs that are not the worker's any more.
        on_cancel: Called in this thread with a job that is to end and who wants it.
        on_settings: Called in this thread with what was read of the queues.
    """

    def __init__(
        self,
        dsn: str,
        outages: Outages,
        *,
        worker: str,
        queues: Sequence[str],
        concurrency: int,
        held: dict[int, Job],
        on_lost: Callable[[Sequence[Job]], object],
        on_cancel: Callable[[Job, str], object],
        on_settings: Callable[[Sequence[QueueSettings]], object],
    ) -> None:
        super().__init__(name="reconciler-heartbeat", daemon=True)
        self._dsn = dsn
        self._outages = outages
        self._worker = worker
        self._queues = queues
        self._concurrency = concurrency
        self._held = held
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._on_settings = on_settings
        self._is_over = threading.Event()
        self._conn: Connection[Any] | None = None
        self._every = 1.0

    def stop(self) -> None:
        """Let it say goodbye and end."""
        self._is_over.set()

    def run(self) -> None:
        """Renew until it is stopped."""
        losses = 0
        while not self._is_over.is_set():
            try:
                self._beat()
            except (psycopg.Error, OSError) as error:
                if is_momentary(error):
                    _log.debug("another try: %s", error)
                elif isinstance(error, psycopg.Error) and not is_outage(error, self._conn):
                    _log.error("the leases cannot be renewed: %s", error)
                else:
                    self._outages.begin(error)
                    self._close()
                losses += 1
                self._is_over.wait(min(find_wait(losses), self._every))
            except Exception:  # noqa: BLE001 - see below
                # Whatever it is: without this thread all jobs are lost one after the other.
                _log.exception("the leases cannot be renewed")
                self._is_over.wait(self._every)
            else:
                losses = 0
                self._is_over.wait(self._every)
        self._leave()

    def _beat(self) -> None:
        conn = self._connect()
        settings = claims.reread_settings(conn, self._queues)
        self._every = min(one.lease for one in settings) / 3
        self._on_settings(settings)
        self._report(conn)
        jobs = list(self._held.values())
        for start in range(0, len(jobs), _MOST):
            part = jobs[start : start + _MOST]
            ours = claims.renew_leases(conn, worker=self._worker, jobs=[job.claimed for job in part])
            lost = [job for job in part if job.id not in ours]
            if lost:
                self._on_lost(lost)
            for job in part:
                if by := ours.get(job.id):
                    self._on_cancel(job, by)
        if rescued := claims.rescue_jobs(conn):
            _log.warning("%d jobs of workers that are gone were rescued", rescued)
        self._outages.end()

    def _report(self, conn: Connection[Any], *, is_leaving: bool = False) -> None:
        claims.report_worker(
            conn,
            worker=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._queues,
            concurrency=self._concurrency,
            is_leaving=is_leaving,
        )

    def _leave(self) -> None:
        try:
            if self._conn is not None and not self._conn.closed:
                self._report(self._conn, is_leaving=True)
        except (psycopg.Error, OSError) as error:
            _log.debug("no goodbye: %s", error)
        self._close()

    def _connect(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(self._dsn, autocommit=True)
            self._conn.prepare_threshold = None
        return self._conn

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
