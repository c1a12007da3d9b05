"""Jobs over HTTP: list, read, create, change, delete, trigger, pause, resume."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import psycopg
from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from reconciler.core.durations import parse_duration
from reconciler.database.control import pause_jobs, resume_jobs
from reconciler.database.status import State
from reconciler.loader.job_schema import describe_job

from .audit import KEYED, Reply, carry_out
from .bodies import RawBody, describe_body, parse_object, parse_optional
from .callers import Caller
from .context import Service, ServiceDep
from .declared_models import JobDetails, JobList, Paused, Resumed, Started
from .job_looks import describe, find_zone, list_page, look_at, render_spec
from .job_writes import ask_for_run, find_name, look_at_managed, put_spec, remove_spec
from .paging import Cursor, PageLimit
from .problems import PROBLEMS, ProblemError
from .security import Reader, Trigger, Writer
from .values import GivenInstant, Text

router: Final = APIRouter(prefix="/api/v1/cron/jobs", tags=["cron"])

JobName = Annotated[
    str,
    Path(
        alias="id",
        max_length=200,
        pattern=r"^[^\u0000]*$",
        description="Its name, or pg_cron's jobid; a name wins",
        examples=["tidy"],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        pattern=r"^[\x20-\x7e]+$",
        description="The ETag under which it was read; where it is declared otherwise now, nothing is done",
    ),
]
_ETAG: Final = {"ETag": {"description": "Of what is declared; for If-Match", "schema": {"type": "string"}}}


def _make_body(*, needs_name: bool) -> dict[str, Any]:
    schema = describe_job("name")
    if needs_name:
        schema["required"] = ["name"]
        schema["examples"] = [{"name": "tidy", **schema["examples"][0]}]
    return describe_body(schema)


class PauseBody(BaseModel):
    """How long a job is paused, and why; until it is resumed where nothing says for how long."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    until: Annotated[GivenInstant | None, Field(description="When it ends by itself")] = None
    duration: Annotated[
        str | None,
        Field(alias="for", pattern="^([0-9]{1,15}(ms|[wdhms]))+$", description="How long, such as 2h"),
    ] = None
    reason: Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\u0000]*$")] = ""


@router.get("", response_model=JobList, summary="List jobs, by name")
def list_jobs(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    q: Annotated[
        Text | None,
        Query(description="In its name, description or owner, or in a label as key=value; in any case"),
    ] = None,
    owner: Annotated[Text | None, Query(description="Whose; empty for what nobody declared")] = None,
    kind: Literal["job", "worker", "entry"] | None = None,
    state: State | None = None,
    own: Annotated[bool, Query(description="Whether reconciler's own entries are listed")] = False,
    cursor: Cursor = None,
) -> Response:
    """List what runs by the clock or after other jobs: what is declared, and what nobody declared."""
    page = list_page(
        service, limit=limit, query=q, owner=owner, kind=kind, state=state, own=own, cursor=cursor
    )
    # Made of our own models: to check it once more would cost a thread, and half of the time of the answer.
    return Response(page.model_dump_json(), media_type="application/json")


@router.get(
    "/{id}",
    response_model=JobDetails,
    responses={200: {"headers": _ETAG}, 404: PROBLEMS[404]},
    summary="Show a job",
)
def show_job(service: ServiceDep, _: Reader, name: JobName) -> Response:
    """Show what is declared of a job and where, its entry, how it fares, and when it runs next."""
    zone = find_zone(service)
    with service.connections.connection() as conn:
        details, etag = describe(service, conn, look_at(conn, name, zone=zone), zone=zone)
    headers = {"ETag": etag} if etag else {}
    return Response(details.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/{id}/spec",
    response_class=Response,
    responses={
        200: {"content": {"application/yaml": {"schema": {"type": "object"}}}, "description": "A spec file"},
        404: PROBLEMS[404],
        409: PROBLEMS[409],
    },
    summary="Export a job as a spec file",
)
def export_job(service: ServiceDep, _: Reader, name: JobName) -> Response:
    """Export a job as a file for `jobs.d/`: from it the same job comes."""
    zone = find_zone(service)
    with service.connections.connection() as conn:
        text = render_spec(conn, look_at(conn, name, zone=zone))
    return Response(text, media_type="application/yaml")


@router.post(
    "",
    status_code=201,
    response_model=JobDetails,
    responses={
        201: {"headers": {**_ETAG, "Location": {"schema": {"type": "string"}}}},
        409: PROBLEMS[409],
    },
    openapi_extra=_make_body(needs_name=True),
    dependencies=[KEYED],
    summary="Create a job",
)
def create_job(service: ServiceDep, caller: Writer, request: Request, body: RawBody) -> Response:
    """Create a job, as it would stand in a spec file, with its `name`; it is applied at once.

    400 with everything that is wrong with it. The job has the owner `api`.
    """
    declared = parse_object(body)
    name = declared.pop("name", None)
    return put_spec(service, caller, request, name, declared, may_change=False)


@router.put(
    "/{id}",
    response_model=JobDetails,
    responses={
        200: {"headers": _ETAG},
        **{status: PROBLEMS[status] for status in (404, 409, 412)},
    },
    openapi_extra=_make_body(needs_name=False),
    dependencies=[KEYED],
    summary="Change a job",
)
def change_job(
    service: ServiceDep,
    caller: Writer,
    request: Request,
    name: JobName,
    body: RawBody,
    if_match: IfMatch = None,
) -> Response:
    """Declare a job of the owner `api` anew, whole. What the new declaration leaves out is left out."""
    declared = parse_object(body)
    found = find_name(service, name)
    given = declared.pop("name", found)
    if given != found:
        raise ProblemError(
            400,
            f"name: the body calls it {str(given)[:80]!r}, and the path {found}",
            "leave the name out; a job with another name is another job",
        )
    return put_spec(
        service, caller, request, found, declared, may_change=True, may_create=False, if_match=if_match
    )


@router.delete(
    "/{id}",
    status_code=204,
    response_class=Response,
    responses={status: PROBLEMS[status] for status in (404, 409, 412)},
    dependencies=[KEYED],
    summary="Delete a job",
)
def delete_job(
    service: ServiceDep, caller: Writer, request: Request, name: JobName, if_match: IfMatch = None
) -> Response:
    """Unschedule and forget a job of the owner `api`; a run that goes on ends by itself, its log stays."""
    return remove_spec(service, caller, request, find_name(service, name), if_match=if_match)


@router.post(
    "/{id}/trigger",
    status_code=202,
    response_model=Started,
    responses={404: PROBLEMS[404], 409: PROBLEMS[409]},
    dependencies=[KEYED],
    summary="Run a job now",
)
def trigger_job(service: ServiceDep, caller: Trigger, request: Request, name: JobName) -> Response:
    """Ask for a run of a job, of whatever owner; a runner of its role starts it within a minute."""
    return ask_for_run(service, caller, request, name)


@router.post(
    "/{id}/pause",
    response_model=Paused,
    openapi_extra=describe_body(PauseBody.model_json_schema(), required=False),
    responses={404: PROBLEMS[404], 409: PROBLEMS[409]},
    dependencies=[KEYED],
    summary="Pause a job",
)
def pause_job(
    service: ServiceDep, caller: Trigger, request: Request, name: JobName, body: RawBody
) -> Response:
    """Let a job skip its runs; a pause that goes on is replaced."""
    return make_pause(service, caller, request, name, parse_optional(body, PauseBody))


def make_pause(service: Service, caller: Caller, request: Request, name: str, wanted: PauseBody) -> Response:
    """Pause a job, for the API and for pages alike.

    Args:
        service: Of the request.
        caller: Who asks, with the scope for it.
        request: As it came.
        name: Of the job.
        wanted: For how long, and why.
    """
    duration = _read_duration(wanted)
    if wanted.until is not None and wanted.until <= service.now():
        raise ProblemError(422, "body.until: a pause ends in the future", "send a later instant")
    zone = find_zone(service)

    def act(conn: psycopg.Connection[Any]) -> Reply:
        job = look_at_managed(conn, name, zone)
        until = pause_jobs(conn, [job.name], until=wanted.until, duration=duration, reason=wanted.reason)
        return Reply(document=Paused(name=job.name, until=until[job.name]))

    return carry_out(service, request, caller, action="job.pause", subject=name, act=act)


@router.post(
    "/{id}/resume",
    response_model=Resumed,
    responses={404: PROBLEMS[404], 409: PROBLEMS[409]},
    dependencies=[KEYED],
    summary="Resume a job",
)
def resume_job(service: ServiceDep, caller: Trigger, request: Request, name: JobName) -> Response:
    """End a pause; one that is not paused stays so."""
    zone = find_zone(service)

    def act(conn: psycopg.Connection[Any]) -> Reply:
        job = look_at_managed(conn, name, zone)
        return Reply(document=Resumed(name=job.name, was_paused=resume_jobs(conn, [job.name])[job.name]))

    return carry_out(service, request, caller, action="job.resume", subject=name, act=act)


def _read_duration(wanted: PauseBody) -> timedelta | None:
    if wanted.duration is None:
        return None
    if wanted.until is not None:
        raise ProblemError(422, "body: a pause has an end or a length, not both", "send until or for")
    try:
        return parse_duration(wanted.duration)
    except ValueError as error:
        raise ProblemError(422, f"body.for: {error}", "send a length such as 2h") from None
