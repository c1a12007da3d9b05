"""Plan and drift as the service tells them: made of the files and the target, at most every few seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from reconciler.core.plan_documents import make_value
from reconciler.database.apply import plan_target
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.runtime.plans import keep_drift, refuse_problems

from .context import Service, SpecFiles
from .problems import ProblemError

MAX_AGE: Final = 5.0
"""Seconds for which a plan is told again, however many ask."""
_STALE: Final = 30.0
_PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReading:
    """What an apply would change now, and what of it somebody changed behind the files' back.

    Attributes:
        value: As `reconciler plan --no-check --format json`; None where there are problems.
        drift: As `reconciler drift --format json`; None where there are problems.
        at: When it was found, aware.
        problems: What is wrong with the files, each with its place.
        age: Seconds since then.
    """

    value: dict[str, Any] | None
    drift: dict[str, Any] | None
    at: datetime
    problems: tuple[str, ...] = ()
    age: float = 0.0


def read_plan(service: Service) -> PlanReading:
    """Read what an apply of the files would change; call it in a thread.

    Args:
        service: Of the request.

    Returns:
        Plan and drift, at most `MAX_AGE` old unless somebody else waits for new ones.

    Raises:
        ProblemError: 404: the service knows no files.
        DatabaseError: The target cannot be read.
    """
    if service.files is None:
        raise ProblemError(
            404,
            "this service knows no spec files",
            "start reconciler serve where reconciler.yaml is, or name it with --config",
        )
    kept = service.answers.find(
        "plan",
        partial(_plan, service, service.files),
        max_age=MAX_AGE,
        patience=_PATIENCE,
        stale=_STALE,
    )
    return replace(kept.value, age=kept.age)


def _plan(service: Service, files: SpecFiles) -> PlanReading:
    try:
        request = files.make_request()
        with service.connections.connection() as conn:
            planned = plan_target(conn, request)
            at = planned.observed.now or service.now()
        refuse_problems(planned)
    except InvalidInputError as error:
        return PlanReading(value=None, drift=None, at=service.now(), problems=error.problems)
    except ConfigError as error:
        return PlanReading(value=None, drift=None, at=service.now(), problems=(str(error),))
    drift = keep_drift(planned)
    return PlanReading(
        value=make_value(planned.plan, planned.fingerprints()),
        drift=make_value(drift.plan, drift.fingerprints()),
        at=at,
    )
