"""Jobs, workers and entries as answers tell them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from reconciler.core.declared_times import read_timing
from reconciler.core.times.occurrences import find_runs
from reconciler.database.status import State

from .paging import Page
from .values import Instant, Json, count_seconds

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.database.job_pages import JobDeclaration, ListedJob

NEXT_RUNS = 5
"""How many runs to come are told."""


class RecentRun(BaseModel):
    """How one of the last runs went."""

    status: str
    duration_seconds: float | None


class ScheduledJob(BaseModel):
    """A job or worker that is declared, or an entry of cron.job that nobody declared."""

    name: Annotated[str, Field(description="Unique among what is declared; an entry may have none")]
    kind: Annotated[
        Literal["job", "worker", "entry"], Field(description="entry: nobody declared it, and yet it runs")
    ]
    owner: Annotated[
        str | None, Field(description="Who declared it: `api` for this service, null for nobody")
    ]
    source: Annotated[str | None, Field(description="Where it is declared, as path:line")]
    description: str | None
    labels: dict[str, str]
    state: State
    jobid: Annotated[int | None, Field(description="pg_cron's number of its entry")]
    schedule: Annotated[
        str | None, Field(description="Of its entry; null where there is none, or it is hidden")
    ]
    active: Annotated[bool | None, Field(description="Whether its entry fires")]
    is_hidden: Annotated[bool, Field(description="Row-level security may hide its entry from the service")]
    timezone: Annotated[str | None, Field(description="Of its local times, where it declares one")]
    after: Annotated[list[str], Field(description="Jobs that have to succeed first")]
    once_at: Instant | None
    next_run_at: Instant | None
    last_status: str | None
    last_run_at: Instant | None
    last_duration_seconds: float | None
    last_error: str | None
    consecutive_failures: int
    running_since: Instant | None
    paused: bool
    paused_until: Instant | None
    pause_reason: str | None
    paused_by: str | None
    retired_until: Annotated[Instant | None, Field(description="No longer declared, and deleted after this")]
    open_alerts: int
    recent_runs: Annotated[list[RecentRun], Field(description="The last twenty, the newest first")]


class JobList(Page[ScheduledJob]):
    """One page of jobs."""

    total: Annotated[
        int, Field(description="How many fit the search, on all pages; may be of two seconds ago")
    ]
    counts: Annotated[
        dict[State, int], Field(description="How many of all are in each state; of the same moment")
    ]
    hides_entries: Annotated[
        bool,
        Field(
            description="Row-level security hides other roles' entries from the service: "
            "the list lacks those that nobody declared"
        ),
    ]


class Entry(BaseModel):
    """The row of cron.job."""

    jobid: int
    schedule: str
    command: str
    database: str
    username: str
    active: bool


class JobDetails(ScheduledJob):
    """A job with what is declared of it."""

    spec: Annotated[
        dict[str, Json] | None, Field(description="What is declared, as in a spec file; null for an entry")
    ]
    mode: Annotated[str, Field(description="managed: under our lock and log; direct: as pg_cron has it")]
    protect: Annotated[bool, Field(description="Whether it is safe from deletion")]
    entry: Annotated[Entry | None, Field(description="null where it has none, or it cannot be seen")]
    next_runs: Annotated[list[Instant], Field(description="The next five, as far as a clock decides them")]


class Started(BaseModel):
    """A run that was asked for."""

    name: str
    start_id: Annotated[
        int, Field(description="The run will bear it; asking again before it began gives the same")
    ]


class Paused(BaseModel):
    """A pause."""

    name: str
    paused: Literal[True] = True
    until: Annotated[Instant | None, Field(description="When it ends by itself; null for when it is resumed")]


class Resumed(BaseModel):
    """The end of a pause."""

    name: str
    paused: Literal[False] = False
    was_paused: bool


def make_scheduled(job: ListedJob) -> ScheduledJob:
    """Make what a list tells of a job.

    Args:
        job: As it was read.
    """
    return ScheduledJob(**_list_values(job))


def make_job_details(job: ListedJob, declared: JobDeclaration, *, zone: str, now: datetime) -> JobDetails:
    """Make everything that is told of one job.

    Args:
        job: As it was read.
        declared: What was declared of it.
        zone: In which pg_cron reads schedules.
        now: The runs to come are later.
    """
    return JobDetails(
        **_list_values(job),
        spec=None if declared.document is None else json.loads(declared.document),
        mode="direct" if job.kind == "entry" else declared.mode,
        protect=declared.protect,
        entry=_make_entry(job, declared),
        next_runs=_find_next_runs(job, declared, zone, now),
    )


def _list_values(job: ListedJob) -> dict[str, Any]:
    return {
        **{key: getattr(job, key) for key in _SAME},
        **{
            key: getattr(job, key) or None
            for key in ("owner", "source", "timezone", "pause_reason", "paused_by")
        },
        "last_duration_seconds": count_seconds(job.last_duration),
        "recent_runs": [
            RecentRun(status=status, duration_seconds=seconds)
            for status, seconds in zip(job.recent_statuses, job.recent_seconds, strict=True)
        ],
    }


_SAME = (
    *("name", "kind", "description", "labels", "state", "jobid", "schedule", "active", "is_hidden", "after"),
    *("once_at", "next_run_at", "last_status", "last_run_at", "last_error", "consecutive_failures"),
    *("running_since", "paused", "paused_until", "retired_until", "open_alerts"),
)


def _make_entry(job: ListedJob, declared: JobDeclaration) -> Entry | None:
    if job.jobid is None or job.schedule is None or declared.command is None:
        return None
    return Entry(
        jobid=job.jobid,
        schedule=job.schedule,
        command=declared.command,
        database=declared.database or "",
        username=declared.username or "",
        active=job.active is True,
    )


def _find_next_runs(job: ListedJob, declared: JobDeclaration, zone: str, now: datetime) -> list[datetime]:
    if job.retired_until is not None or job.active is False or job.is_entry_missing:
        return []
    kind: Literal["job", "worker"] = "worker" if job.kind == "worker" else "job"
    timing = read_timing(
        declared.document or "", job.schedule or "", name=job.name, kind=kind, server_zone=zone
    )
    if timing is None:
        return []
    try:
        return list(find_runs(timing, after=now, count=NEXT_RUNS))
    except ValueError:  # a zone that this machine does not know
        return []
