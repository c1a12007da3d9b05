"""Runs, the newest first, and one with everything that is known of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

import psycopg
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from reconciler.core.durations import parse_duration
from reconciler.core.endpoint_requests import parse_instant
from reconciler.database.control import cancel_run, find_runs
from reconciler.database.runs import (
    RunPosition,
    RunStatus,
    list_attempts,
    list_starts,
    may_read_cron,
    read_direct_run,
    read_run,
    read_run_page,
)
from reconciler.errors import ConfigError

from .audit import KEYED, Reply, carry_out
from .context import ServiceDep
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .problems import PROBLEMS, ProblemError
from .run_models import Run, RunDetails, make_details, make_run
from .security import Reader, Trigger
from .values import LARGEST_ID, Text

router: Final = APIRouter(prefix="/api/v1/runs", tags=["runs"])

RunId = Annotated[
    str,
    Path(
        alias="id",
        pattern="^c?[0-9]{1,19}$",
        description="Of the run; it begins with a c where pg_cron alone has a record of it",
        examples=["1"],
    ),
]


_ENDED: Final = {"cancelling": 202, "cancelled": 200, "lost": 200}


class RunState(BaseModel):
    """How a run stands after what was asked."""

    id: str
    status: Literal["cancelling", "cancelled", "lost"]


@router.get("", summary="List runs, the newest first")
def list_runs(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    name: Annotated[Text | None, Query(description="Only of this job; left out, of all but our own")] = None,
    status: Annotated[list[RunStatus] | None, Query(description="Only these; can be repeated")] = None,
    since: Annotated[
        str | None,
        Query(
            description="Only what began so long ago (2h), or since then (2026-12-01T08:00:00Z)",
            json_schema_extra={
                "anyOf": [
                    {"type": "string", "pattern": "^[1-9][0-9]{0,2}(s|m|h|d)$"},
                    {"type": "string", "format": "date-time"},
                ]
            },
        ),
    ] = None,
    cursor: Cursor = None,
) -> Page[Run]:
    """List runs of managed jobs, and of direct ones as far as pg_cron's records may be read.

    Of those records the newest 20,000 are looked at. A cursor goes on with the same `name`.
    """
    place = None
    if cursor is not None:
        log_at, log_id, cron_id = decode_cursor(cursor, datetime, int, int)
        place = RunPosition(log_at=log_at, log_id=log_id, cron_id=cron_id)
    began = _read_since(since)
    with service.connections.connection() as conn:
        page = read_run_page(
            conn,
            name=name,
            statuses=status or (),
            since=began,
            limit=limit,
            use_cron=may_read_cron(conn),
            after=place,
        )
    following = page.next
    return Page(
        items=[make_run(run) for run in page.runs],
        next_cursor=None
        if following is None
        else encode_cursor([following.log_at, following.log_id, following.cron_id]),
    )


@router.get("/{id}", responses={404: PROBLEMS[404]}, summary="Show a run")
def show_run(service: ServiceDep, _: Reader, run_id: RunId) -> RunDetails:
    """Show everything that is known of a run: its error with all the server said, and its tries."""
    number = _read_id(run_id)
    with service.connections.connection() as conn:
        if run_id.startswith("c"):
            run = read_direct_run(conn, number) if may_read_cron(conn) else None
        else:
            run = read_run(conn, number)
        if run is None:
            raise _make_unknown(run_id)
        if run.source == "pg_cron":
            return make_details(run, [run], [])
        return make_details(run, list_attempts(conn, run), list_starts(conn, run))


@router.post(
    "/{id}/cancel",
    status_code=202,
    response_model=RunState,
    responses={
        200: {"model": RunState, "description": "It had not begun, or its process is gone: it is over"},
        404: PROBLEMS[404],
        409: PROBLEMS[409],
    },
    summary="Cancel a run",
    dependencies=[KEYED],
)
def cancel(service: ServiceDep, caller: Trigger, request: Request, run_id: RunId) -> Response:
    """Tell a run to end. 409 with its status where it is over, and for what pg_cron alone has a record of."""
    number = _read_id(run_id)

    def act(conn: psycopg.Connection) -> Reply:
        if run_id.startswith("c"):
            raise ProblemError(
                409,
                f"run {run_id} is of a direct job, which pg_cron alone runs",
                "as its role or an administrator: SELECT pg_cancel_backend(…) with its backend_pid",
            )
        try:
            _, before = find_runs(conn, [number])[number]
        except ConfigError:
            raise _make_unknown(run_id) from None
        status = cancel_run(conn, number)
        if before != "running" or status not in _ENDED:
            raise ProblemError(
                409, f"run {run_id} is {status}, and stays so", "what is over is not cancelled"
            )
        return Reply(status=_ENDED[status], document={"id": run_id, "status": status})

    return carry_out(service, request, caller, action="run.cancel", subject=run_id, act=act)


def _read_id(run_id: str) -> int:
    number = int(run_id.removeprefix("c"))
    if number > LARGEST_ID:
        raise _make_unknown(run_id)
    return number


def _make_unknown(run_id: str) -> ProblemError:
    return ProblemError(404, f"there is no run {run_id}", "old runs are cleared away in time")


def _read_since(text: str | None) -> timedelta | datetime | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_instant(text)
    except ValueError:
        raise ProblemError(
            422,
            f"query.since: {text[:40]} is neither a duration nor an instant",
            "send since=2h or since=2026-12-01T08:00:00Z",
        ) from None
