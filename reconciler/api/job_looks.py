"""Looks at declared jobs that several routes need: pages of them, one of them, one as a spec file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

import psycopg

from reconciler.core.imports.entries import declare_entry
from reconciler.core.names import find_nearest, is_name
from reconciler.core.state import Entry
from reconciler.database.job_pages import (
    count_jobs,
    find_job,
    list_job_names,
    read_declaration,
    read_job_page,
    read_named_page,
)
from reconciler.database.observe import observe_facts
from reconciler.loader.written_specs import make_declaration, render_sections

from .declared_models import JobDetails, JobList, make_job_details, make_scheduled
from .own_jobs import make_etag
from .paging import decode_cursor, encode_cursor
from .problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.database.job_pages import JobDeclaration, ListedJob
    from reconciler.database.status import State

    from .context import Service

_ZONE_AGE: Final = 30.0
_PATIENCE: Final = 10.0
_COUNT_AGE: Final = 2.0


def find_zone(service: Service) -> str:
    """Find in which zone pg_cron reads schedules; call it without a connection.

    Args:
        service: Of the request.

    Returns:
        What was so half a minute ago at the most.

    Raises:
        DatabaseError: It cannot be read.
    """

    def read() -> str:
        with service.connections.connection() as conn:
            return observe_facts(conn).timezone

    return service.answers.find("zone", read, max_age=_ZONE_AGE, patience=_PATIENCE, stale=300.0).value


def list_page(service: Service, *, limit: int, cursor: str | None, **options: Any) -> JobList:
    """List a page of jobs.

    Args:
        service: Of the request.
        limit: Jobs at the most.
        cursor: As it came.
        **options: Of `read_job_page`.

    Raises:
        ProblemError: 422; the cursor is none.
        DatabaseError: They cannot be read.
    """
    place = None if cursor is None else decode_cursor(cursor, str, int)
    if place is not None and None in place:
        raise ProblemError(422, "query.cursor: there is no such place in this list", "send it as it came")
    zone = find_zone(service)
    after = None if place is None else (place[0], place[1])
    if options.get("query") or options.get("state"):
        with service.connections.connection() as conn:
            page = read_job_page(conn, zone=zone, limit=limit, after=after, **options)
        total, counts = page.total, page.counts
    else:
        named = {key: value for key, value in options.items() if key not in ("query", "state")}
        with service.connections.connection() as conn:
            page = read_named_page(conn, zone=zone, limit=limit, after=after, **named)
        total, counts = _count(service, **named)
    return JobList(
        items=[make_scheduled(job) for job in page.jobs],
        next_cursor=None if page.next is None else encode_cursor(page.next),
        total=total,
        counts=dict(counts),
        hides_entries=page.is_hiding,
    )


def _count(service: Service, **options: Any) -> tuple[int, Mapping[State, int]]:
    """Count jobs, all of which have to be looked at: once in a moment for all who ask for the same."""

    def read() -> tuple[int, Mapping[State, int]]:
        with service.connections.connection() as conn:
            return count_jobs(conn, **options)

    if options.get("owner") is not None:  # anybody may make up any number of them
        return read()
    name = f"jobs {options.get('kind')} {options.get('own')}"
    return service.answers.find(name, read, max_age=_COUNT_AGE, patience=_PATIENCE, stale=30.0).value


def look_at(conn: psycopg.Connection[Any], name: str, *, zone: str) -> ListedJob:
    """Find a job, worker or entry.

    Args:
        conn: To the target.
        name: Its name, or pg_cron's number of its entry.
        zone: In which pg_cron reads schedules.

    Raises:
        ProblemError: 404, with the nearest right name.
    """
    return find_job(conn, name, zone=zone) or refuse_unknown(conn, name)


def refuse_unknown(conn: psycopg.Connection[Any], name: str) -> NoReturn:
    """Say that there is no such job.

    Args:
        conn: To the target.
        name: As it was asked for.

    Raises:
        ProblemError: 404, with the nearest right name.
    """
    nearest = find_nearest(name, list_job_names(conn))
    remedy = f"did you mean {nearest}?" if nearest else "GET /api/v1/cron/jobs lists them"
    raise ProblemError(404, f"there is no job {name}", remedy)


def refuse_undeclared(job: ListedJob) -> None:
    """Refuse what can only be done with what is declared.

    Args:
        job: As it was found.

    Raises:
        ProblemError: 409; nobody declared it.
    """
    if job.kind == "entry":
        raise ProblemError(
            409,
            f"{job.name or 'the entry'} (jobid {job.jobid}) is an entry of cron.job that nobody declared",
            "take it over first: reconciler import writes it into a file",
        )


def describe(
    service: Service, conn: psycopg.Connection[Any], job: ListedJob, *, zone: str
) -> tuple[JobDetails, str | None]:
    """Describe a job with everything that is known of it.

    Args:
        service: Of the request.
        conn: To the target.
        job: As it was found.
        zone: In which pg_cron reads schedules.

    Returns:
        The document, and its ETag; None where nothing is declared.
    """
    declared = read_declaration(conn, job)
    details = make_job_details(job, declared, zone=zone, now=service.now())
    return details, None if declared.document is None else make_etag(declared.document)


def render_spec(conn: psycopg.Connection[Any], job: ListedJob) -> str:
    """Render a job as a spec file.

    Args:
        conn: To the target.
        job: As it was found.

    Returns:
        YAML from which the same job comes.

    Raises:
        ProblemError: 409; it cannot be declared, since its name is none, or its entry cannot be seen.
    """
    declared = read_declaration(conn, job)
    if declared.document is not None:
        return render_sections({f"{job.kind}s": {job.name: make_declaration(json.loads(declared.document))}})
    if not is_name(job.name):
        raise ProblemError(
            409,
            f"the entry with the jobid {job.jobid} cannot be declared: "
            + ("it has no name" if not job.name else f"{job.name} is no name that files can have"),
            "schedule it again under a name of lower-case letters, digits, dots, underscores and hyphens",
        )
    entry = _make_entry(job, declared)
    return render_sections(
        {"jobs": {job.name: declare_entry(entry, role=declared.caller, database=declared.home)}}
    )


def _make_entry(job: ListedJob, declared: JobDeclaration) -> Entry:
    return Entry(
        name=job.name,
        schedule=job.schedule or "",
        command=declared.command or "",
        database=declared.database or "",
        username=declared.username or "",
        active=job.active is True,
        jobid=job.jobid,
    )
