"""Queued jobs as requests bring them and answers tell them; what they mean is read and made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from reconciler.core.queued_jobs import JobStatus
from reconciler.runtime.endpoint_answers import render_job

from .values import GivenInstant, Instant, Json

if TYPE_CHECKING:
    from reconciler.database.jobs import ListedJob

_LARGEST = 2**31 - 1
# PostgreSQL's ten years, of 360 days each.
_LONGEST = 3600 * 86400
_Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\u0000]*$")]
_BLANKS = r"\u0000\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_Name = Annotated[_Word, Field(pattern=rf"^[^\u0000]*[^{_BLANKS}][^\u0000]*$")]
_Time = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}(ms|s|m|h|d)$", examples=["90s"])]

AskedStatus = Literal["scheduled", "pending", "running", "completed", "failed", "cancelled"]
"""What can be asked for: `scheduled` are those of the pending ones that are not due yet."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewJobOptions(_Body):
    """What can be said of a job besides its name; all of it may be null, and left out."""

    payload: Annotated[Json, Field(description="Any JSON; an object's keys become arguments")] = None
    run_at: Annotated[GivenInstant | None, Field(description="When it is due; without an offset in UTC")] = (
        None
    )
    queue: Annotated[_Name | None, Field(description="`default` where it is left out")] = None
    priority: Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)] | None = None
    unique_key: Annotated[_Word | None, Field(description="At most one open job of a queue has it")] = None
    ordering_key: Annotated[_Word | None, Field(description="Jobs with the same one are done in order")] = (
        None
    )
    max_attempts: Annotated[int, Field(ge=1, le=_LARGEST)] | None = None
    timeout: Annotated[
        _Time | Annotated[int, Field(ge=1, le=_LONGEST)] | None,
        Field(description="Of one try; a number is seconds"),
    ] = None
    type: Annotated[_Name | None, Field(description="A word of your own")] = None


class NamedJob(NewJobOptions):
    """A job, by the name of the handler that is to do it."""

    name: _Name


class HandlerJob(NewJobOptions):
    """The same, with another word for the name."""

    handler: _Name


class PutJob(BaseModel):
    """What became of a job that was put."""

    id: Annotated[int, Field(description="Of the job; of the open one that has its unique key")]
    created: bool


class Job(BaseModel):
    """A queued job."""

    id: int
    name: Annotated[str | None, Field(description="The handler; null for declared one-time SQL and HTTP")]
    queue: str
    type: str
    status: JobStatus
    run_at: Instant
    payload: Json
    result: Json
    error: str | None
    attempts: int
    max_attempts: Annotated[int | None, Field(description="Null: as its queue says")]
    priority: int
    unique_key: str | None
    ordering_key: str | None
    created_at: Instant
    started_at: Instant | None
    completed_at: Instant | None


class JobOfList(Job):
    """A queued job as a list tells it: without a payload and a result that are longer than 8 KiB."""

    payload_omitted: bool
    result_omitted: bool


class RetryBody(_Body):
    """How a job is to begin anew."""

    run_at: Annotated[GivenInstant | None, Field(description="When it is due; left out, now")] = None


class JobState(BaseModel):
    """How a job stands after what was asked."""

    id: int
    status: Annotated[
        Literal["pending", "cancelled", "cancelling"],
        Field(description="`cancelling`: it runs, and its worker is told to end it"),
    ]


def make_listed(listed: ListedJob) -> JobOfList:
    """Make the model of a job in a list.

    Args:
        listed: As it was read.
    """
    return JobOfList(
        **render_job(listed.job),
        payload_omitted=listed.payload_omitted,
        result_omitted=listed.result_omitted,
    )
