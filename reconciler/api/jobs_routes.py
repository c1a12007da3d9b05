"""Queued jobs: put, read, list, retry, cancel; and the run endpoint, which does them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Path, Query, Request
from psycopg import errors
from starlette.responses import Response

from reconciler.core.endpoint_requests import Problem, parse_new_job
from reconciler.core.queued_jobs import QueuedJob
from reconciler.errors import DatabaseError
from reconciler.runtime.endpoint_answers import render_job
from reconciler.runtime.http_messages import make_problem_answer
from reconciler.runtime.jobs import cancel_job, enqueue_many, get_job, list_job_page, retry_job

from .app import make_call, make_response
from .audit import KEYED, Reply, carry_out
from .bodies import RawBody, describe_body, parse_optional
from .callers import Caller
from .context import Service, ServiceDep
from .job_models import (
    AskedStatus,
    HandlerJob,
    Job,
    JobOfList,
    JobState,
    NamedJob,
    PutJob,
    RetryBody,
    make_listed,
)
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .problems import PROBLEMS, ProblemError
from .run_route import RUN_DOCUMENT, explain_without_handlers
from .security import Reader, Writer
from .values import LARGEST_ID, Text

router: Final = APIRouter(prefix="/api/jobs", tags=["jobs"])

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of a job that is put: its payload may have 4 MB of JSON."""
JobId = Annotated[int, Path(ge=1, le=LARGEST_ID, description="Of the job", examples=[1])]
_OTHERS: Final = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]
_NEW_JOB: Final = describe_body(NamedJob.model_json_schema(), HandlerJob.model_json_schema())


@router.post(
    "",
    summary="Put a job on its queue",
    status_code=201,
    response_model=PutJob,
    responses={200: {"model": PutJob, "description": "An open job has its unique key: that one's id"}},
    openapi_extra=_NEW_JOB,
    dependencies=[KEYED],
)
def put_job(service: ServiceDep, caller: Writer, request: Request, body: RawBody) -> Response:
    """Put a job on its queue.

    Only the name is needed (`handler` is another word for it). Where an open job has its `unique_key`, the
    answer is 200 with that job's id and `"created": false`.
    """
    job = parse_new_job(body)
    if isinstance(job, Problem):
        raise ProblemError(job.status, job.detail, job.remedy)

    def act(conn: psycopg.Connection) -> Reply:
        put = enqueue_many(conn, [job])[0]
        return Reply(status=201 if put.created else 200, document={"id": put.id, "created": put.created})

    return carry_out(service, request, caller, action="queued.put", subject=job.handler, act=act)


@router.get("", summary="List queued jobs, the newest first")
def list_jobs(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    status: Annotated[
        AskedStatus | None, Query(description="Only these; `scheduled`: pending, and not due yet")
    ] = None,
    queue: Annotated[Text | None, Query(description="Only of this queue")] = None,
    handler: Annotated[Text | None, Query(description="Only for this handler")] = None,
    job_name: Annotated[Text | None, Query(description="Only those that come from this declared job")] = None,
    cursor: Cursor = None,
) -> Page[JobOfList]:
    """List queued jobs, open and finished, the newest first."""
    before = None if cursor is None else decode_cursor(cursor, int)[0]
    with service.connections.connection() as conn:
        found = list_job_page(
            conn,
            status=status,
            queue=queue,
            handler=handler,
            job_name=job_name,
            before=before,
            limit=limit + 1,
        )
    items = [make_listed(one) for one in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor([items[-1].id]) if len(found) > limit else None)


@router.post("/run", response_class=Response, **RUN_DOCUMENT)
async def run_jobs(service: ServiceDep, request: Request) -> Response:
    """Claim jobs of a queue, do them, and answer with what became of each.

    Takes the tokens of the run endpoint, and those of the API with the scope `run`.
    """
    endpoint = request.app.state.endpoint
    if endpoint is None:
        problem = await explain_without_handlers(service, request.headers.get("authorization"))
        return make_response(make_problem_answer(problem))
    answer = await endpoint.answer_run(make_call(request))
    if answer.status < 300:
        request.state.visitor = "run endpoint"  # for the guard: its token is good, whichever it is
    return make_response(answer)


# The endpoint says itself which methods it has.
router.add_api_route("/run", run_jobs, methods=_OTHERS, include_in_schema=False)


@router.get("/{id}", responses={404: PROBLEMS[404]}, summary="Show a job")
def show_job(service: ServiceDep, _: Reader, job_id: Annotated[JobId, Path(alias="id")]) -> Job:
    """Show how a job fares, also one that is finished and still kept."""
    with service.connections.connection() as conn:
        return Job(**render_job(_find(conn, job_id)))


@router.post(
    "/{id}/retry",
    responses={404: PROBLEMS[404], 409: PROBLEMS[409]},
    response_model=JobState,
    openapi_extra=describe_body(RetryBody.model_json_schema(), required=False),
    summary="Let a dead or cancelled job begin anew",
    dependencies=[KEYED],
)
def retry(
    service: ServiceDep,
    caller: Writer,
    request: Request,
    job_id: Annotated[JobId, Path(alias="id")],
    body: RawBody,
) -> Response:
    """Let a dead or cancelled job begin anew, with all its attempts.

    409 with its status for any other, and where an open job has its unique key.
    """
    return begin_anew(service, caller, request, job_id, run_at=parse_optional(body, RetryBody).run_at)


def begin_anew(
    service: Service, caller: Caller, request: Request, job_id: int, *, run_at: datetime | None = None
) -> Response:
    """Let a dead or cancelled job begin anew, for the API and for pages alike.

    Args:
        service: Of the request.
        caller: Who asks, with the scope for it.
        request: As it came.
        job_id: Of the job.
        run_at: When it is due; None for now.
    """

    def act(conn: psycopg.Connection) -> Reply:
        job = _find(conn, job_id)
        if job.status not in {"failed", "cancelled"}:
            raise _make_wrong_status(job_id, job.status, "only failed and cancelled jobs begin anew")
        with _conflicts():
            status = retry_job(conn, job_id, run_at=run_at)
        return Reply(document={"id": job_id, "status": status})

    return carry_out(service, request, caller, action="queued.retry", subject=str(job_id), act=act)


def cancel(
    service: ServiceDep, caller: Writer, request: Request, job_id: Annotated[JobId, Path(alias="id")]
) -> Response:
    """Cancel a job that waits or is dead, or tell the worker of one that runs: then it is 202.

    409 with its status for one that is completed. One that is cancelled already stays so.
    """

    def act(conn: psycopg.Connection) -> Reply:
        _find(conn, job_id)
        with _conflicts():
            status = cancel_job(conn, job_id)
        if status not in {"cancelled", "cancelling"}:
            raise _make_wrong_status(job_id, status or "gone", "what is over stays as it is")
        return Reply(status=202 if status == "cancelling" else 200, document={"id": job_id, "status": status})

    return carry_out(service, request, caller, action="queued.cancel", subject=str(job_id), act=act)


_CANCEL: Final[dict[str, Any]] = {
    "responses": {
        202: {"model": JobState, "description": "It runs, and its worker is told"},
        404: PROBLEMS[404],
        409: PROBLEMS[409],
    },
    "response_model": JobState,
    "dependencies": [KEYED],
}
router.add_api_route("/{id}/cancel", cancel, methods=["POST"], summary="Cancel a job", **_CANCEL)
router.add_api_route(
    "/{id}", cancel, methods=["DELETE"], name="delete", summary="Cancel a job, as POST …/cancel", **_CANCEL
)


def _find(conn: psycopg.Connection, job_id: int) -> QueuedJob:
    job = get_job(conn, job_id)
    if job is None:
        raise ProblemError(404, f"there is no job {job_id}", "finished jobs are kept as their queue says")
    return job


def _make_wrong_status(job_id: int, status: str, rule: str) -> ProblemError:
    return ProblemError(409, f"job {job_id} is {status}, and stays so", rule)


@contextmanager
def _conflicts() -> Iterator[None]:
    """Answer what other jobs, or a run, stand in the way of as a conflict: the hint is what to do."""
    try:
        yield
    except DatabaseError as error:
        if isinstance(error.__cause__, errors.UniqueViolation | errors.ObjectNotInPrerequisiteState):
            raise ProblemError(409, error.message, error.remedy) from error
        raise
