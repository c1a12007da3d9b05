"""The page of one job: how it fares and why, when it ran and runs, what was declared, who changed it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query, Request, Response

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.problems import ProblemError
from reconciler.core.durations import parse_duration
from reconciler.core.names import is_name
from reconciler.database.control import AppliedJob, find_jobs, find_start
from reconciler.database.history import list_touches
from reconciler.database.job_pages import ListedJob, find_job
from reconciler.database.runs import RunPosition, may_read_cron, read_run_page
from reconciler.errors import ConfigError, DatabaseError
from reconciler.loader.written_specs import make_declaration, render_sections

from .page_answers import PageRouter, raise_unknown
from .schedules import find_outlook
from .visits import VisitDep

if TYPE_CHECKING:
    import psycopg

    from reconciler.database.control import StartState
    from reconciler.database.history import Touch

router: Final = PageRouter()

_RUNS: Final = 50
_TOUCHES: Final = 10
_TOLD: Final = re.compile(r"asked-([0-9]{1,18})|paused|resumed|unpaused")
_PLACE: Final[dict[str, type[str | int | datetime]]] = {"log_at": datetime, "log_id": int, "cron_id": int}
FAILURES: Final = frozenset({"failed", "timed_out", "lost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of a form that was sent from this page.

    Attributes:
        what: asked, paused, resumed, or unpaused where nothing had to be resumed; "" for no form.
        start: Where the request for a run stands.
    """

    what: str
    start: StartState | None = None


@router.get("/jobs/{name}")
def show_job(
    request: Request,
    visit: VisitDep,
    name: str,
    told: Annotated[str, Query(max_length=40)] = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """Show everything of one job."""
    place = _read_place(cursor)
    if not is_name(name):
        raise_unknown(request)
    with visit.connection() as conn:
        job, applied = _find_job(conn, name, zone=visit.zone)
        runs = read_run_page(
            conn,
            name=name,
            statuses=(),
            since=None,
            limit=_RUNS,
            use_cron=may_read_cron(conn),
            after=place,
        )
        touches = _list_touches(conn, name)
        news = _find_told(conn, told)
    failure = next((run for run in runs.runs if run.status in FAILURES), None)
    return visit.show(
        "job.html",
        seen=(job, applied, runs, touches, news),
        job=job,
        applied=applied,
        runs=runs.runs,
        failure=failure,
        time_limit=_find_limit(applied),
        outlook=find_outlook(job, applied, server_zone=visit.zone, now=visit.now),
        yaml=render_sections({f"{applied.kind}s": {name: make_declaration(applied.read())}}),
        touches=touches,
        told=news,
        is_first=place is None,
        next_cursor=encode_cursor([getattr(runs.next, key) for key in _PLACE]) if runs.next else "",
        can_control=visit.viewer.may_trigger and applied.mode != "direct" and job.retired_until is None,
    )


def _find_job(conn: psycopg.Connection[Any], name: str, *, zone: str) -> tuple[ListedJob, AppliedJob]:
    """Find a job or worker: how it fares, and as what it was declared."""
    try:
        (applied,) = find_jobs(conn, [name])
    except ConfigError as error:
        raise ProblemError(404, error.message, error.remedy) from error
    job = find_job(conn, name, zone=zone)
    if job is None:
        raise ProblemError(404, f"there is no job {name} any more", "it went away this moment")
    return job, applied


def _find_limit(applied: AppliedJob) -> timedelta | None:
    try:
        return parse_duration(applied.read()["timeout"])
    except (KeyError, TypeError, ValueError):
        return None


def _read_place(cursor: str) -> RunPosition | None:
    if not cursor:
        return None
    return RunPosition(**dict(zip(_PLACE, decode_cursor(cursor, *_PLACE.values()), strict=True)))


def _list_touches(conn: psycopg.Connection[Any], name: str) -> list[Touch]:
    try:
        return list_touches(conn, name)[:_TOUCHES]
    except DatabaseError:  # made in SQL, of which no revision tells
        return []


def _find_told(conn: psycopg.Connection[Any], told: str) -> Told:
    match = _TOLD.fullmatch(told)
    if match is None:
        return Told(what="")
    if match[1] is None:
        return Told(what=told)
    return Told(what="asked", start=find_start(conn, int(match[1])))
