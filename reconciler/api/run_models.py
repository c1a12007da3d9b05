"""Runs as answers tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from reconciler.database.runs import RunStatus

from .values import Instant, count_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.database.runs import Run as ReadRun
    from reconciler.database.runs import RunDetails as ReadDetails
    from reconciler.database.runs import WaitingStart as ReadStart


class Run(BaseModel):
    """One execution of a job."""

    id: Annotated[str, Field(description="As paths have it; of what pg_cron alone has a record of, with a c")]
    source: Literal["log", "pg_cron"]
    name: Annotated[str, Field(description="Of the job")]
    run_at: Annotated[Instant | None, Field(description="When it began; null where pg_cron has no time yet")]
    completed_at: Instant | None
    duration_seconds: float | None
    status: RunStatus
    trigger: Annotated[str, Field(description="schedule, manual, retry, dependency or catch_up")]
    attempt: int
    chain_id: Annotated[str | None, Field(description="The first try that it belongs to")]
    rows_affected: int | None
    error_message: Annotated[str | None, Field(description="Why it failed, or why it was skipped")]
    error_sqlstate: str | None
    role: str | None
    backend_pid: int | None
    note: Annotated[str | None, Field(description="Where its queued job stands, while it goes on")]


class WaitingStart(BaseModel):
    """A try that is still to come."""

    trigger: str
    due_at: Instant
    attempt: int


class RunDetails(Run):
    """One execution of a job, with everything that is known of it."""

    error_detail: str | None
    error_context: str | None
    due_at: Annotated[Instant | None, Field(description="The time that it made up for, or was put off from")]
    deadline_at: Instant | None
    stop_reason: Annotated[str | None, Field(description="timed_out or cancelled")]
    stop_at: Instant | None
    stop_by: str | None
    response_status: Annotated[int | None, Field(description="What the endpoint answered")]
    queued_job_id: int | None
    revision: Annotated[int | None, Field(description="What was applied when it ran")]
    start_id: Annotated[int | None, Field(description="The request or start that it came of")]
    attempts: Annotated[list[Run], Field(description="The tries that it belongs to, itself among them")]
    waiting: list[WaitingStart]


def render_run_id(run: ReadRun) -> str:
    """Render the id by which a run can be asked for: `12`, or `c12` for what pg_cron alone has a record of.

    Args:
        run: Of either source.
    """
    return f"{'c' if run.source == 'pg_cron' else ''}{run.id}"


def make_run(run: ReadRun) -> Run:
    """Make the model of a run.

    Args:
        run: As it was read.
    """
    return Run(**_list_fields(run))


def make_details(run: ReadDetails, attempts: Sequence[ReadRun], waiting: Sequence[ReadStart]) -> RunDetails:
    """Make the model of a run with everything.

    Args:
        run: As it was read.
        attempts: The tries that it belongs to.
        waiting: Tries that are still to come.
    """
    own = RunDetails.model_fields.keys() - Run.model_fields.keys() - {"attempts", "waiting"}
    return RunDetails(
        **_list_fields(run),
        **{name: getattr(run, name) for name in own},
        attempts=[make_run(one) for one in attempts],
        waiting=[
            WaitingStart(trigger=one.trigger, due_at=one.due_at, attempt=one.attempt) for one in waiting
        ],
    )


def _list_fields(run: ReadRun) -> dict[str, Any]:
    own = {
        "id": render_run_id(run),
        "duration_seconds": count_seconds(run.duration),
        "chain_id": None if run.chain_id is None else str(run.chain_id),
    }
    same = Run.model_fields.keys() - own.keys()
    return {**own, **{name: getattr(run, name) for name in same}}
