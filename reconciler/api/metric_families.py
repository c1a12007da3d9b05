"""From a reading of the database to families of metrics; decides nothing but what is left out."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from .metric_table import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from prometheus_client.core import Metric

    from reconciler.database.metrics import JobCounts, OwnerCounts, Reading
    from reconciler.database.queue_health import QueueHealth
    from reconciler.runtime.run_tally import Distribution, RunTally

    from .drift_watch import DriftLook

_ALERTS: Final = ("failed", "missed", "slow", "lost", "drift")


class Families:
    """Collects values by metric."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """Add a value.

        Args:
            name: Of a gauge or counter of the table.
            value: The value; None leaves it out.
            *labels: The labels' values in the order of the table.
        """
        if value is not None:
            self._find(name).add_metric(labels, value)

    def add_instant(self, name: str, at: datetime | None, *labels: str) -> None:
        """Add an instant in seconds since 1970.

        Args:
            name: As in `add`.
            at: The instant; None leaves it out.
            *labels: As in `add`.
        """
        self.add(name, None if at is None else at.timestamp(), *labels)

    def add_distribution(self, name: str, found: Distribution, *labels: str) -> None:
        """Add how values are spread.

        Args:
            name: Of a histogram of the table.
            found: The values.
            *labels: As in `add`.
        """
        buckets = [
            ("+Inf" if bound == inf else str(float(bound)), count) for bound, count in found.list_buckets()
        ]
        self._find(name).add_metric(labels, buckets, found.total)

    def __iter__(self) -> Iterator[Metric]:
        """Yield the families in the order of the table; those without a value are left out."""
        return (self._found[name] for name in METRICS if name in self._found)

    def _find(self, name: str) -> Any:
        if name not in self._found:
            kind, labels, text = METRICS[name]
            make = {
                "gauge": GaugeMetricFamily,
                "counter": CounterMetricFamily,
                "histogram": HistogramMetricFamily,
            }[kind]
            self._found[name] = make(name.removesuffix("_total"), text, labels=labels)
        return self._found[name]


def add_reading(families: Families, reading: Reading, tally: RunTally, *, most: int) -> None:
    """Add what a reading found.

    Args:
        families: Where.
        reading: Of the database.
        tally: Of runs.
        most: How many queues are told of one by one; with more of them they are added up.
    """
    _add_server(families, reading)
    for owner in reading.owners:
        _add_owner(families, owner)
    _add_runs(families, reading, tally)
    families.add("reconciler_per_job_series", reading.jobs is not None)
    for job in reading.jobs or ():
        _add_job(families, job)
    _add_rest(families, reading)
    _add_queues(families, reading.queues, most)


def add_drift(families: Families, look: DriftLook) -> None:
    """Add what the last plan found.

    Args:
        families: Where.
        look: The last one.
    """
    families.add("reconciler_plan_up", look.is_good)
    if look.is_good:
        families.add_instant("reconciler_plan_timestamp_seconds", look.at)
        families.add("reconciler_drifted_resources", look.drifted)
        families.add("reconciler_planned_changes", look.changes)


def _add_server(families: Families, reading: Reading) -> None:
    server, summary = reading.server, reading.summary
    families.add_instant("reconciler_read_timestamp_seconds", server.now)
    families.add("reconciler_schema_version", server.schema_version)
    families.add("reconciler_launcher_alive", server.has_launcher)
    if summary is not None:
        families.add("reconciler_tick_entries", summary.ticks)
        families.add("reconciler_tick_age_seconds", summary.tick_age)
    families.add("reconciler_dead_tuples", server.dead_open, "jobs_open")
    families.add("reconciler_dead_tuples", server.dead_finished, "jobs_finished")
    families.add("reconciler_oldest_xmin_age", server.xmin_age)
    families.add("reconciler_oldest_transaction_age_seconds", server.transaction_age)


def _add_owner(families: Families, one: OwnerCounts) -> None:
    for kind, count in (
        ("job", one.jobs),
        ("worker", one.workers),
        ("queue", one.queues),
        ("channel", one.channels),
    ):
        families.add("reconciler_definitions", count, one.owner, kind)
    families.add("reconciler_revision", one.revision, one.owner)
    families.add_instant("reconciler_revision_timestamp_seconds", one.applied_at, one.owner)
    families.add("reconciler_jobs_paused", one.paused, one.owner)
    families.add("reconciler_jobs_failing", one.failing, one.owner)
    families.add("reconciler_jobs_overdue", one.overdue, one.owner)


def _add_runs(families: Families, reading: Reading, tally: RunTally) -> None:
    running, overtime = Counter[str](), Counter[str]()
    running.update({one.owner: 0 for one in reading.owners})
    for run in reading.running:
        running[run.owner] += 1
        overtime[run.owner] += run.is_overdue
    for owner, count in running.items():
        families.add("reconciler_runs_running", count, owner)
        families.add("reconciler_runs_overtime", overtime[owner], owner)
    for (owner, status), count in tally.endings.items():
        families.add("reconciler_runs_total", count, owner, status)
    for owner, count in tally.missed.items():
        families.add("reconciler_missed_runs_total", count, owner)
    for name, distributions in (
        ("reconciler_run_duration_seconds", tally.durations),
        ("reconciler_run_lateness_seconds", tally.latenesses),
    ):
        for owner, found in distributions.items():
            families.add_distribution(name, found, owner)
    if reading.jobs is not None:
        # Programs may run under any name; only what is declared is told of one by one.
        for labels, count in Counter((run.owner, run.name) for run in reading.running if run.owner).items():
            families.add("reconciler_job_running", count, *labels)


def _add_job(families: Families, job: JobCounts) -> None:
    labels = (job.owner, job.name)
    families.add("reconciler_job_runs_total", job.total_runs, *labels)
    families.add("reconciler_job_failed_runs_total", job.failed_runs, *labels)
    families.add("reconciler_job_missed_runs_total", job.missed_runs, *labels)
    families.add("reconciler_job_consecutive_failures", job.failures, *labels)
    families.add_instant("reconciler_job_last_run_timestamp_seconds", job.last_run_at, *labels)
    families.add_instant("reconciler_job_last_success_timestamp_seconds", job.last_succeeded_at, *labels)
    families.add("reconciler_job_last_duration_seconds", job.last_duration, *labels)
    families.add("reconciler_job_overdue_seconds", job.overdue, *labels)
    families.add("reconciler_job_paused", job.is_paused, *labels)


def _add_rest(families: Families, reading: Reading) -> None:
    rest = reading.rest
    for kind in (*_ALERTS, *sorted(rest.alerts.keys() - set(_ALERTS))):
        families.add("reconciler_alerts_open", rest.alerts.get(kind, 0), kind)
    families.add("reconciler_deliveries_waiting", rest.deliveries_waiting)
    families.add("reconciler_deliveries_age_seconds", rest.deliveries_age)
    families.add("reconciler_starts_waiting", rest.starts_waiting)
    families.add("reconciler_starts_age_seconds", rest.starts_age)
    families.add("reconciler_workers_alive", rest.workers_alive)
    families.add("reconciler_worker_slots", rest.worker_slots)
    families.add("reconciler_claims_held", rest.claims_held)
    families.add("reconciler_claims_expired", rest.claims_expired)


def _add_queues(families: Families, queues: Sequence[QueueHealth], most: int) -> None:
    """Add the queues; programs may make up any number of names, and then all are one, without a name."""
    groups = {one.queue: [one] for one in queues} if len(queues) <= most else {"": list(queues)}
    for name, found in groups.items():
        for status, count in (
            ("waiting", sum(one.waiting for one in found)),
            ("scheduled", sum(one.scheduled for one in found)),
            ("running", sum(one.running for one in found)),
            ("failed", sum(one.failed for one in found)),
        ):
            families.add("reconciler_queue_jobs", count, name, status)
        ages = [one.oldest_age.total_seconds() for one in found if one.oldest_age is not None]
        families.add("reconciler_queue_oldest_age_seconds", max(ages, default=0.0), name)
        families.add(
            "reconciler_queue_completed_last_minute", sum(one.completed_last_minute for one in found), name
        )
        families.add("reconciler_queue_workers", sum(one.workers for one in found), name)
        families.add("reconciler_queue_blocked", any(one.blocked_by for one in found), name)
