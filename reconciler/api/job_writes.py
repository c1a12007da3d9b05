"""What routes do to declared jobs: create, change, delete, ask for a run. Each is written down.

Routes differ in their paths and bodies alone; what becomes of a job lies here, and in `own_jobs`.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from fastapi import Request
from starlette.responses import Response

from reconciler.core.state import Definition
from reconciler.database.control import request_run
from reconciler.database.job_pages import ListedJob, read_declaration
from reconciler.database.runs import require_runtime

from .audit import Reply, carry_out
from .callers import Caller
from .context import Service
from .declared_models import Started
from .job_looks import describe, find_zone, look_at, refuse_undeclared, refuse_unknown
from .own_jobs import OwnJobs, read_new_spec, require_match, require_owned
from .problems import ProblemError

PATH: Final = "/api/v1/cron/jobs"


def find_name(service: Service, name: str) -> str:
    """Find the name of a job that is to be changed; 404 where there is none, 409 where nobody declared it."""
    zone = find_zone(service)
    with service.connections.connection() as conn:
        job = look_at(conn, name, zone=zone)
    refuse_undeclared(job)
    return job.name


def put_spec(
    service: Service,
    caller: Caller,
    request: Request,
    name: object,
    declared: dict[str, Any],
    *,
    may_change: bool,
    may_create: bool = True,
    if_match: str | None = None,
) -> Response:
    """Create or change a job.

    Args:
        service: Of the request.
        caller: Who asks.
        request: As it came.
        name: Of the job.
        declared: What stands below it in a spec file.
        may_change: Whether it may be there already.
        may_create: Whether it may be missing.
        if_match: The header of that name.

    Returns:
        201 with the job and its place where it is new, else 200.
    """
    new = read_new_spec(service, name, declared)
    zone = find_zone(service)
    is_new = True

    def require(definition: Definition | None) -> None:
        nonlocal is_new
        is_new = definition is None
        if definition is None:
            if not may_create:
                raise ProblemError(404, f"there is no job {new.name} any more", "create it with POST")
            return
        require_owned(definition)
        if not may_change:
            raise ProblemError(
                409, f"there is a job {new.name} already", f"change it with PUT {PATH}/{new.name}"
            )
        require_match(definition, if_match)

    def act(conn: psycopg.Connection[Any]) -> Reply:
        OwnJobs(service, caller, conn).put(new, require=require)
        details, etag = describe(service, conn, look_at(conn, new.name, zone=zone), zone=zone)
        headers = {"ETag": etag or "", **({"Location": f"{PATH}/{new.name}"} if is_new else {})}
        return Reply(status=201 if is_new else 200, document=details, headers=headers)

    action = "job.change" if not may_create else "job.create"
    return carry_out(service, request, caller, action=action, subject=new.name, act=act, is_atomic=False)


def remove_spec(
    service: Service, caller: Caller, request: Request, name: str, *, if_match: str | None = None
) -> Response:
    """Delete a job.

    Args:
        service: Of the request.
        caller: Who asks.
        request: As it came.
        name: Of the job.
        if_match: The header of that name.

    Returns:
        204.
    """

    def require(definition: Definition | None) -> None:
        if definition is not None:
            require_owned(definition)
            require_match(definition, if_match)

    def act(conn: psycopg.Connection[Any]) -> Reply:
        if not OwnJobs(service, caller, conn).remove(name, require=require):
            refuse_unknown(conn, name)
        return Reply(status=204)

    return carry_out(service, request, caller, action="job.delete", subject=name, act=act, is_atomic=False)


def ask_for_run(service: Service, caller: Caller, request: Request, name: str) -> Response:
    """Ask for a run.

    Args:
        service: Of the request.
        caller: Who asks.
        request: As it came.
        name: Of the job.

    Returns:
        202 with what the run will bear.
    """
    zone = find_zone(service)

    def act(conn: psycopg.Connection[Any]) -> Reply:
        job = look_at_managed(conn, name, zone)
        if job.retired_until is not None:
            raise ProblemError(
                409, f"{job.name} is retired: nobody declares it any more", "declare it again, or restore it"
            )
        return Reply(status=202, document=Started(name=job.name, start_id=request_run(conn, job.name)))

    return carry_out(service, request, caller, action="job.trigger", subject=name, act=act)


def look_at_managed(conn: psycopg.Connection[Any], name: str, zone: str) -> ListedJob:
    """Find a job that can be run now, paused and resumed.

    Args:
        conn: To the target.
        name: Its name, or pg_cron's number of its entry.
        zone: In which pg_cron reads schedules.

    Raises:
        ProblemError: 404, or 409 for what nobody declared, or is handed to pg_cron as it is.
    """
    require_runtime(conn)
    job = look_at(conn, name, zone=zone)
    refuse_undeclared(job)
    if read_declaration(conn, job).mode == "direct":
        raise ProblemError(
            409,
            f"{job.name} is handed to pg_cron as it is (mode: direct)",
            "only managed jobs can be run now, paused and resumed",
        )
    return job
