"""Processes: people's own Python under lock and log, delivery of alerts, the local PostgreSQL.

Knows nothing of commands and prints nothing. What people use is exported here, and loaded when it is first
asked for: a command that only wants the local server does not wait for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from .registry import Registry

__all__ = [
    "ExecutionResult",
    "Registry",
    "Run",
    "ScheduledJob",
    "acquire_execution_lock",
    "handle_cron_trigger",
    "handle_cron_trigger_async",
    "locked_execution",
    "locked_execution_async",
    "log_execution",
    "notify_on_failure",
    "release_execution_lock",
]

_ELSEWHERE: Final = {
    "ExecutionResult": "reconciler.database.registrations",
    "Registry": "reconciler.runtime.registry",
    "Run": "reconciler.database.executions",
    "ScheduledJob": "reconciler.database.registrations",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "reconciler.runtime.execution")), name)
    globals()[name] = value
    return value
