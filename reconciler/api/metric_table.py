"""Every metric by name: what kind it is, what its labels are, what it tells. The one list of them."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["gauge", "counter", "histogram"]


class Metric(NamedTuple):
    """A metric.

    Attributes:
        kind: gauge, counter or histogram.
        labels: Their names.
        text: What it tells.
    """

    kind: Kind
    labels: tuple[str, ...]
    text: str


_OWNER: Final = ("owner",)
# Not job: Prometheus gives that label to each target, and would rename ours.
_JOB: Final = ("owner", "job_name")
_QUEUE: Final = ("queue",)
_ROUTE: Final = ("method", "route")

METRICS: Final[dict[str, Metric]] = {
    # Of the reading itself.
    "reconciler_up": Metric(
        "gauge", (), "1 where the database could be read, else 0 and nothing of the database follows"
    ),
    "reconciler_build_info": Metric("gauge", ("version",), "Always 1; the release of this process"),
    "reconciler_reads_total": Metric(
        "counter", ("outcome",), "Readings of the database: ok, connect, rights, schema or other"
    ),
    "reconciler_read_timestamp_seconds": Metric("gauge", (), "When the database was read, by its own clock"),
    "reconciler_read_duration_seconds": Metric("gauge", (), "How long that took"),
    "reconciler_per_job_series": Metric(
        "gauge", (), "1 where jobs are told of one by one, 0 where there are too many of them"
    ),
    "reconciler_schema_version": Metric("gauge", (), "The number of the last migration"),
    # Of the server.
    "reconciler_launcher_alive": Metric(
        "gauge", (), "1 where the launcher of pg_cron lives; absent where the role cannot see that"
    ),
    "reconciler_tick_entries": Metric(
        "gauge", (), "Active entries that call the tick; absent without rights on pg_cron's tables"
    ),
    "reconciler_tick_age_seconds": Metric(
        "gauge", (), "Seconds since the tick last began, 0 while it goes on; absent where unknown"
    ),
    "reconciler_dead_tuples": Metric(
        "gauge", ("table",), "Dead rows of jobs_open and jobs_finished that wait for vacuum"
    ),
    "reconciler_oldest_xmin_age": Metric(
        "gauge",
        (),
        "Transactions since the oldest snapshot that anybody holds; absent without pg_read_all_stats",
    ),
    "reconciler_oldest_transaction_age_seconds": Metric(
        "gauge", (), "Seconds since the oldest open transaction of the database began; absent likewise"
    ),
    # By owner.
    "reconciler_definitions": Metric(
        "gauge", ("owner", "kind"), "What is declared: job, worker, queue, channel"
    ),
    "reconciler_revision": Metric("gauge", _OWNER, "The number of the last revision"),
    "reconciler_revision_timestamp_seconds": Metric("gauge", _OWNER, "When it was applied"),
    "reconciler_jobs_paused": Metric("gauge", _OWNER, "Jobs and workers that somebody paused"),
    "reconciler_jobs_failing": Metric("gauge", _OWNER, "Those that failed last"),
    "reconciler_jobs_overdue": Metric(
        "gauge", _OWNER, "Those that have been due for two minutes without a run in the log"
    ),
    "reconciler_runs_running": Metric("gauge", _OWNER, "Runs that go on, also those that wait for a worker"),
    "reconciler_runs_overtime": Metric("gauge", _OWNER, "Runs that go on although their time limit is over"),
    "reconciler_runs_total": Metric(
        "counter", ("owner", "status"), "Runs that ended since this process looks"
    ),
    "reconciler_missed_runs_total": Metric(
        "counter", _OWNER, "Runs that did not start since this process looks"
    ),
    "reconciler_run_duration_seconds": Metric(
        "histogram", _OWNER, "How long runs took that ended since this process looks"
    ),
    "reconciler_run_lateness_seconds": Metric(
        "histogram", _OWNER, "How late they began, where it is known when they were due"
    ),
    # By job.
    "reconciler_job_runs_total": Metric(
        "counter", _JOB, "Runs that ended since the job was made; absent for mode: direct"
    ),
    "reconciler_job_failed_runs_total": Metric("counter", _JOB, "Those that failed, timed out or got lost"),
    "reconciler_job_missed_runs_total": Metric("counter", _JOB, "Runs that did not start"),
    "reconciler_job_consecutive_failures": Metric("gauge", _JOB, "Failures since the last success"),
    "reconciler_job_last_run_timestamp_seconds": Metric("gauge", _JOB, "When the last run began that ended"),
    "reconciler_job_last_success_timestamp_seconds": Metric(
        "gauge", _JOB, "When the last good run ended; absent where there was none"
    ),
    "reconciler_job_last_duration_seconds": Metric("gauge", _JOB, "How long the last run took"),
    "reconciler_job_overdue_seconds": Metric(
        "gauge", _JOB, "For how long a run has been due that is not in the log; up to a minute is usual"
    ),
    "reconciler_job_paused": Metric("gauge", _JOB, "1 where somebody paused it"),
    "reconciler_job_running": Metric("gauge", _JOB, "Its runs that go on; absent where there are none"),
    # What waits.
    "reconciler_alerts_open": Metric("gauge", ("kind",), "Open alerts: failed, missed, slow, lost, drift"),
    "reconciler_deliveries_waiting": Metric("gauge", (), "Messages of alerts that are due"),
    "reconciler_deliveries_age_seconds": Metric(
        "gauge", (), "Seconds since the oldest of them was due; 0 for none"
    ),
    "reconciler_starts_waiting": Metric(
        "gauge", (), "Retries and other starts that are due and that no runner took yet"
    ),
    "reconciler_starts_age_seconds": Metric(
        "gauge", (), "Seconds since the oldest of them was due; 0 for none"
    ),
    # Queues.
    "reconciler_queue_jobs": Metric(
        "gauge",
        ("queue", "status"),
        "Queued jobs: waiting (due), scheduled (due later), running, failed (dead)",
    ),
    "reconciler_queue_oldest_age_seconds": Metric(
        "gauge", _QUEUE, "For how long the oldest job has been due; 0 for none"
    ),
    "reconciler_queue_completed_last_minute": Metric(
        "gauge", _QUEUE, "Jobs that were completed in the last minute, 100,000 at the most"
    ),
    "reconciler_queue_workers": Metric(
        "gauge", _QUEUE, "Worker processes that were heard of within a minute, and declared workers"
    ),
    "reconciler_queue_blocked": Metric(
        "gauge", _QUEUE, "1 where something holds up jobs that are due: reconciler queues says what"
    ),
    "reconciler_workers_alive": Metric("gauge", (), "Worker processes that were heard of within a minute"),
    "reconciler_worker_slots": Metric("gauge", (), "Jobs that these can do at once"),
    "reconciler_claims_held": Metric("gauge", (), "Queued jobs that somebody does"),
    "reconciler_claims_expired": Metric(
        "gauge", (), "Those of them whose lease is over, so that they will be rescued"
    ),
    # Drift, where the service knows the files.
    "reconciler_plan_up": Metric(
        "gauge", (), "1 where the last plan could be made; absent where the service knows no files"
    ),
    "reconciler_plan_timestamp_seconds": Metric(
        "gauge", (), "When the last plan was made; drift and changes are as of then"
    ),
    "reconciler_drifted_resources": Metric(
        "gauge", (), "Resources that were changed on the target behind the files' back"
    ),
    "reconciler_planned_changes": Metric("gauge", (), "Changes that an apply would make, drift among them"),
    # Of this process as a service.
    "reconciler_http_requests_total": Metric("counter", (*_ROUTE, "status"), "Requests that were answered"),
    "reconciler_http_request_duration_seconds": Metric(
        "histogram", _ROUTE, "How long the answers took, to their last byte"
    ),
    "reconciler_http_requests_in_progress": Metric("gauge", (), "Requests that are being answered"),
}
"""By name, in the order in which they are told."""
