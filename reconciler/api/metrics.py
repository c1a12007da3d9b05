"""What Prometheus is told: a registry for each application, and a collector that reads the database.

However often somebody asks, the database is read once in ten seconds, by one thread; what cannot be read is
not told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from reconciler import __version__
from reconciler.database.metrics import read_metrics
from reconciler.errors import ConnectError, MigrationError, ReconcilerError, RightsError
from reconciler.runtime.endpoint_answers import render_cause
from reconciler.runtime.run_tally import RunTally

from .drift_watch import DriftWatch
from .metric_families import Families, add_drift, add_reading
from .request_watch import RequestMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from reconciler.core.log_positions import LogPosition
    from reconciler.database.metrics import Reading

    from .context import Service

EVERY: Final = 10.0
"""Seconds for which a reading is told again."""
DRIFT_EVERY: Final = 60.0
"""Seconds from one look for drift to the next."""

_log: Final = logging.getLogger("reconciler.service")
_PATIENCE: Final = 5.0
"""Seconds for which a scrape waits while another one reads; Prometheus gives up after ten."""
_OUTCOMES: Final = ("ok", "connect", "rights", "schema", "other")
_PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"


class DatabaseMetrics(Collector):
    """Tells what the database holds.

    Args:
        service: Of the application.
        clock: Seconds of a clock that never goes back.

    Attributes:
        drift: What it knows of drift.
    """

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.drift = DriftWatch(service, every=DRIFT_EVERY, clock=clock)
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._reading: Reading | None = None
        self._seconds = 0.0
        self._position: LogPosition | None = None
        self._tally = RunTally()
        self._outcomes = Counter(dict.fromkeys(_OUTCOMES, 0))
        self._complaint = ""

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance, or the registry would read the database at once."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield what is known; of a database that cannot be read only that."""
        families = Families()
        families.add("reconciler_build_info", 1, __version__)
        if not self._lock.acquire(timeout=_PATIENCE):
            families.add("reconciler_up", 0)  # the database is slow, and others wait for it already
            return iter(families)
        try:
            if self._asked_at is None or self._clock() - self._asked_at >= EVERY:
                self._asked_at = self._clock()
                self._reading = self._read()
            self._add_all(families)
        finally:
            self._lock.release()
        return iter(families)

    def _add_all(self, families: Families) -> None:
        families.add("reconciler_up", self._reading is not None)
        for outcome, count in self._outcomes.items():
            families.add("reconciler_reads_total", count, outcome)
        if self._reading is None:
            return
        families.add("reconciler_read_duration_seconds", self._seconds)
        add_reading(families, self._reading, self._tally, most=self._service.limits.metrics_per_job)
        look = self.drift.find()
        if look is not None:
            add_drift(families, look)

    def _read(self) -> Reading | None:
        began = self._clock()
        try:
            with self._service.connections.connection() as conn:
                reading = read_metrics(
                    conn, per_job=self._service.limits.metrics_per_job, position=self._position
                )
        except ReconcilerError as error:
            self._complain(_judge(error), render_cause(error))
            return None
        except Exception:  # noqa: BLE001 - whatever it is: a scrape tells that there is nothing to tell
            self._outcomes["other"] += 1
            _log.exception("the metrics could not be read")
            return None
        self._complain("ok", "")
        self._position = reading.position
        self._tally.know(one.owner for one in reading.owners)
        self._tally.count(reading.ended)
        self._tally.count_missed(reading.owners)
        self._seconds = self._clock() - began
        return reading

    def _complain(self, outcome: str, why: str) -> None:
        """Count an outcome, and write to the log what is new."""
        self._outcomes[outcome] += 1
        if why != self._complaint:
            _log.warning("the metrics %s", f"could not be read: {why}" if why else "can be read again")
        self._complaint = why


class Metrics:
    """The metrics of one application.

    Args:
        service: Of the application.

    Attributes:
        database: Of the database.
        requests: Of the requests that it answers.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self.database = DatabaseMetrics(service)
        self.requests = RequestMetrics(self._registry)
        self._registry.register(self.database)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Render everything; asks the database, so call it in a thread.

        Args:
            accept: What the client accepts: OpenMetrics where it says so, else Prometheus' own text.

        Returns:
            The text and its media type.
        """
        try:
            encode, media_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is no number
            encode, media_type = generate_latest, _PLAIN
        return encode(self._registry), media_type


def _judge(error: ReconcilerError) -> str:
    match error:
        case ConnectError():
            return "connect"
        case RightsError():
            return "rights"
        case MigrationError():
            return "schema"
    return "other"
