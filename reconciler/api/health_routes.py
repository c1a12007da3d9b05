"""Whether the service lives and can serve, for probes without a token; and how the target fares."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from reconciler import __version__
from reconciler.database.status import State, TickState

from .context import ServiceDep
from .problems import ProblemError
from .security import Reader
from .status_reading import LauncherState, find_faults, read_overview

router: Final = APIRouter(tags=["health"])
probes: Final = APIRouter(tags=["health"])
"""Those that need no token."""


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
    version: str = __version__


class Ready(BaseModel):
    """The service can serve."""

    status: Literal["ready"] = "ready"
    warnings: list[str] = Field(description="What is wrong with the target, and does not hinder the service")


class Status(BaseModel):
    """How the target fares."""

    target: str = Field(description="Its name in reconciler.yaml; empty where the service knows none")
    now: datetime = Field(description="By the clock of the database")
    postgresql: str
    pg_cron: str = Field(description="The lowest version that it can be")
    timezone: str = Field(description="In which pg_cron reads schedules")
    launcher: LauncherState
    tick: TickState
    tick_age_seconds: float | None = Field(description="Since it last began; null where that is not known")
    jobs: dict[State, int] = Field(
        description="Jobs, workers and entries that nobody declared in each state, without the tool's own"
    )
    deliveries_waiting: int


@probes.get("/health", operation_id="health_probe", summary="Tell that the process lives")
@probes.get("/api/v1/health", operation_id="health", summary="Tell that the process lives")
async def show_health() -> Alive:
    """Tell that the process lives; asks no database and needs no token."""
    return Alive()


@probes.get("/ready", operation_id="ready_probe", summary="Tell whether requests can be served")
@probes.get("/api/v1/ready", operation_id="ready", summary="Tell whether requests can be served")
async def show_ready(service: ServiceDep) -> Ready:
    """Tell whether requests can be served; needs no token.

    503 where the database does not answer within two seconds, is a standby, lacks pg_cron or the schema of
    this release, or lets the role read nothing. That nothing starts its jobs, that it is a copy that nobody
    has claimed, or that its schema is of a later release, is a warning: people have to see it here.
    """
    faults = await find_faults(service)
    if any(fault.severity == "error" for fault in faults):
        raise ProblemError(
            503,
            "; ".join(fault.message for fault in faults),
            "; ".join(dict.fromkeys(fault.remedy for fault in faults)),
            {"Retry-After": "5"},
        )
    return Ready(warnings=[fault.message for fault in faults])


@router.get("/api/v1/status", summary="Show how the target fares")
def show_status(_: Reader, service: ServiceDep) -> Status:
    """Show how the target fares: launcher, tick and jobs in each state."""
    overview = read_overview(service)
    values = asdict(overview)
    return Status(
        target=service.target,
        now=values.pop("now").astimezone(UTC),
        jobs=values.pop("counts"),
        tick_age_seconds=values.pop("tick_age"),
        **values,
    )
