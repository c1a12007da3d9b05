"""Processes: people's own Python under lock and log, delivery of alerts, the local PostgreSQL.

Knows nothing of commands and prints nothing. What people use is exported here, and loaded when it is first
asked for: a command that only wants the local server does not wait for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from reconciler.core.endpoint_requests import RunRules
    from reconciler.core.queued_jobs import Enqueued, NewJob, QueuedJob
    from reconciler.core.scheduler_jobs import (
        JobStatus,
        JobType,
        SchedulerConfig,
        SchedulerJob,
        TriggerType,
    )
    from reconciler.database.executions import Run
    from reconciler.database.registrations import ExecutionResult, ScheduledJob

    from .execution import (
        acquire_execution_lock,
        handle_cron_trigger,
        handle_cron_trigger_async,
        locked_execution,
        locked_execution_async,
        log_execution,
        notify_on_failure,
        release_execution_lock,
    )
    from .handlers import Fail, Handlers, Job, Retry, Snooze, handler, load_handlers
    from .jobs import (
        cancel_job,
        cancel_job_async,
        enqueue,
        enqueue_async,
        enqueue_many,
        enqueue_many_async,
        get_job,
        get_job_async,
        get_jobs_by_status,
        get_jobs_by_status_async,
        list_jobs,
        retry_job,
        retry_job_async,
        retry_jobs,
        retry_jobs_async,
    )
    from .registry import Registry
    from .run_endpoint import RunEndpoint, handle_run_request, handle_run_request_async
    from .scheduler import Scheduler
    from .worker import Worker

__all__ = [
    "Enqueued",
    "ExecutionResult",
    "Fail",
    "Handlers",
    "Job",
    "JobStatus",
    "JobType",
    "NewJob",
    "QueuedJob",
    "Registry",
    "Retry",
    "Run",
    "RunEndpoint",
    "RunRules",
    "ScheduledJob",
    "Scheduler",
    "SchedulerConfig",
    "SchedulerJob",
    "Snooze",
    "TriggerType",
    "Worker",
    "acquire_execution_lock",
    "cancel_job",
    "cancel_job_async",
    "enqueue",
    "enqueue_async",
    "enqueue_many",
    "enqueue_many_async",
    "get_job",
    "get_job_async",
    "get_jobs_by_status",
    "get_jobs_by_status_async",
    "handle_cron_trigger",
    "handle_cron_trigger_async",
    "handle_run_request",
    "handle_run_request_async",
    "handler",
    "list_jobs",
    "load_handlers",
    "locked_execution",
    "locked_execution_async",
    "log_execution",
    "notify_on_failure",
    "release_execution_lock",
    "retry_job",
    "retry_job_async",
    "retry_jobs",
    "retry_jobs_async",
]

_ELSEWHERE: Final = {
    **dict.fromkeys(("Enqueued", "NewJob", "QueuedJob"), "reconciler.core.queued_jobs"),
    **dict.fromkeys(
        ("JobStatus", "JobType", "SchedulerConfig", "SchedulerJob", "TriggerType"),
        "reconciler.core.scheduler_jobs",
    ),
    **dict.fromkeys(
        (
            "cancel_job",
            "cancel_job_async",
            "enqueue",
            "enqueue_async",
            "enqueue_many",
            "enqueue_many_async",
            "get_job",
            "get_job_async",
            "get_jobs_by_status",
            "get_jobs_by_status_async",
            "list_jobs",
            "retry_job",
            "retry_job_async",
            "retry_jobs",
            "retry_jobs_async",
        ),
        "reconciler.runtime.jobs",
    ),
    **dict.fromkeys(
        ("Fail", "Handlers", "Job", "Retry", "Snooze", "handler", "load_handlers"),
        "reconciler.runtime.handlers",
    ),
    **dict.fromkeys(
        ("RunEndpoint", "handle_run_request", "handle_run_request_async"), "reconciler.runtime.run_endpoint"
    ),
    "ExecutionResult": "reconciler.database.registrations",
    "Registry": "reconciler.runtime.registry",
    "Run": "reconciler.database.executions",
    "RunRules": "reconciler.core.endpoint_requests",
    "ScheduledJob": "reconciler.database.registrations",
    "Scheduler": "reconciler.runtime.scheduler",
    "Worker": "reconciler.runtime.worker",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "reconciler.runtime.execution")), name)
    globals()[name] = value
    return value
