"""Scheduler jobs: register, list, trigger, ask how the last run went, cancel."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from reconciler.database.job_pages import read_declaration
from reconciler.database.registrations import ExecutionResult, read_last_result
from reconciler.database.status import State
from reconciler.loader.job_schema import describe_job

from .audit import KEYED
from .bodies import RawBody, describe_body, parse_object
from .context import ServiceDep
from .declared_models import JobDetails, JobList, Started
from .job_looks import find_zone, list_page, look_at
from .job_writes import ask_for_run, find_name, put_spec, remove_spec
from .paging import Cursor, PageLimit
from .problems import PROBLEMS, ProblemError
from .security import Reader, Trigger, Writer
from .values import Instant, Text, count_seconds

router: Final = APIRouter(prefix="/api/v1/scheduler/jobs", tags=["scheduler"])

JobName = Annotated[
    str, Path(alias="jobName", max_length=200, pattern=r"^[^\u0000]*$", examples=["expiry-check"])
]
_SPELLINGS: Final = {
    "name": ("jobName", "job_name", "name"),
    "schedule": ("cronExpression", "cron_expression", "schedule"),
}


class LastResult(BaseModel):
    """How the last run went that is over and was not skipped."""

    name: Annotated[str, Field(description="Of the job")]
    run_id: Annotated[str, Field(description="As /api/v1/runs has it")]
    status: Annotated[str, Field(description="succeeded, failed, timed_out, cancelled or lost")]
    run_at: Instant
    completed_at: Instant | None
    duration_seconds: float | None
    error: str | None
    rows: Annotated[int | None, Field(description="Changed by its last statement")]
    attempt: int
    trigger: Annotated[str, Field(description="schedule, manual, retry, dependency or catch_up")]


def _make_body() -> dict[str, Any]:
    """Describe the body: a job as in a spec file; its name and its schedule have two more spellings."""
    names, schedules = _SPELLINGS["name"], _SPELLINGS["schedule"]
    schema = describe_job(*names)
    properties = schema["properties"]
    properties |= dict.fromkeys(schedules[:2], properties["schedule"])
    triggers = next(one for one in schema["allOf"] if one.get("title") == "trigger")["oneOf"]
    for alternative in triggers:
        if "not" in alternative:
            alternative["not"]["anyOf"] += [{"required": [key]} for key in schedules[:2]]
    triggers += [{"required": [key]} for key in schedules[:2]]
    schema["allOf"].append({"title": "name", "oneOf": [{"required": [key]} for key in names]})
    schema["examples"] = [
        {"jobName": "expiry-check", "cronExpression": "30 2 * * *", "handler": "certification.expiry"}
    ]
    return describe_body(schema)


@router.get("", summary="List all registered scheduler jobs")
def list_jobs(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    q: Annotated[Text | None, Query(description="In its name, description or owner, or in a label")] = None,
    owner: Annotated[
        Text | None, Query(description="Whose; `api` for those that were registered here")
    ] = None,
    state: State | None = None,
    cursor: Cursor = None,
) -> JobList:
    """List the jobs of all owners: those that were registered here, by programs, and by files."""
    return list_page(service, limit=limit, query=q, owner=owner, kind="job", state=state, cursor=cursor)


@router.post(
    "",
    status_code=201,
    response_model=JobDetails,
    responses={
        200: {"model": JobDetails, "description": "It was there, and is as sent now"},
        409: PROBLEMS[409],
    },
    openapi_extra=_make_body(),
    dependencies=[KEYED],
    summary="Register a new scheduler job",
)
def register_job(service: ServiceDep, caller: Writer, request: Request, body: RawBody) -> Response:
    """Register a job, or declare one anew that was registered here: registering twice is registering once.

    `jobName` (or `job_name`, `name`), `cronExpression` (or `cron_expression`, `schedule`, or another trigger
    of spec files), `handler` or `sql` or `http`, `payload`, and any other key of a job in a spec file.
    """
    declared = parse_object(body)
    values: dict[str, Any] = {}
    for key, spellings in _SPELLINGS.items():
        given = [spelling for spelling in spellings if spelling in declared]
        if len(given) > 1:
            raise ProblemError(400, f"{' and '.join(given)} are the same", f"send {given[0]} alone")
        if given:
            values[key] = declared.pop(given[0])
    name = values.pop("name", None)
    return put_spec(service, caller, request, name, {**values, **declared}, may_change=True)


@router.post(
    "/{jobName}/trigger",
    status_code=202,
    response_model=Started,
    responses={404: PROBLEMS[404], 409: PROBLEMS[409]},
    dependencies=[KEYED],
    summary="Manually trigger a registered job immediately",
)
def trigger_job(service: ServiceDep, caller: Trigger, request: Request, name: JobName) -> Response:
    """Ask for a run of a job, of whatever owner; a runner of its role starts it within a minute."""
    return ask_for_run(service, caller, request, name)


@router.get(
    "/{jobName}/last-result",
    responses={404: PROBLEMS[404]},
    summary="Get the result of the most recent execution of a job",
)
def show_last_result(service: ServiceDep, _: Reader, name: JobName) -> LastResult:
    """Show how the last run went that is over and was not skipped; 404 where there is none yet."""
    zone = find_zone(service)
    with service.connections.connection() as conn:
        job = look_at(conn, name, zone=zone)
        result = read_last_result(conn, job.name) if job.kind != "entry" else None
        if result is None:
            raise ProblemError(
                404,
                f"no run of {job.name or name} is over yet",
                f"POST /api/v1/scheduler/jobs/{job.name}/trigger runs it now",
            )
        is_direct = read_declaration(conn, job).mode == "direct"
        return _make_result(job.name, result, is_direct=is_direct)


@router.delete(
    "/{jobName}",
    status_code=204,
    response_class=Response,
    responses={status: PROBLEMS[status] for status in (404, 409)},
    dependencies=[KEYED],
    summary="Cancel and deregister a scheduler job",
)
def cancel_job(service: ServiceDep, caller: Writer, request: Request, name: JobName) -> Response:
    """Unschedule and forget a job that was registered here; a run that goes on ends by itself."""
    return remove_spec(service, caller, request, find_name(service, name))


def _make_result(name: str, result: ExecutionResult, *, is_direct: bool) -> LastResult:
    return LastResult(
        name=name,
        run_id=f"{'c' if is_direct else ''}{result.run_id}",
        status=result.status,
        run_at=result.run_at,
        completed_at=result.completed_at,
        duration_seconds=count_seconds(result.duration),
        error=result.error,
        rows=result.rows,
        attempt=result.attempt,
        trigger=result.trigger,
    )
