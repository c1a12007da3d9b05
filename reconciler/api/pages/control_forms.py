"""Forms that start, pause, resume and cancel: through the functions of the API, and written down alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Form, Request, Response

from reconciler.api.audit import Reply, carry_out
from reconciler.api.problems import ProblemError
from reconciler.core.durations import parse_duration
from reconciler.core.names import is_name
from reconciler.database.control import (
    cancel_run,
    find_managed_jobs,
    find_runs,
    pause_jobs,
    request_run,
    resume_jobs,
)
from reconciler.errors import ConfigError

from .job_pages import find_applied
from .page_answers import PageRouter, raise_unknown
from .visits import Submission, Visit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    import psycopg

router: Final = PageRouter()

_LONGEST: Final = 500


@router.post("/jobs/{name}/run")
def run_job(visit: Submission, name: str) -> Response:
    """Ask for a run."""
    start_id = _carry_out(
        visit, "job.trigger", name, lambda conn: request_run(conn, _find(visit.request, conn, name))
    )
    return visit.redirect(f"/jobs/{name}?told=asked-{start_id}")


@router.post("/jobs/{name}/pause")
def pause_job(
    visit: Submission,
    name: str,
    duration: Annotated[str, Form(max_length=20)] = "",
    reason: Annotated[str, Form(max_length=_LONGEST)] = "",
) -> Response:
    """Pause a job, for a while or until somebody resumes it."""
    length = _read_length(duration)
    why = " ".join(reason.replace("\0", "").split())

    def pause(conn: psycopg.Connection[Any]) -> object:
        found = _find(visit.request, conn, name)
        return pause_jobs(conn, [found], duration=length, reason=why)[found]

    _carry_out(visit, "job.pause", name, pause)
    return visit.redirect(f"/jobs/{name}?told=paused")


@router.post("/jobs/{name}/resume")
def resume_job(visit: Submission, name: str) -> Response:
    """Resume a job."""

    def resume(conn: psycopg.Connection[Any]) -> bool:
        found = _find(visit.request, conn, name)
        return resume_jobs(conn, [found])[found]

    was_paused = _carry_out(visit, "job.resume", name, resume)
    return visit.redirect(f"/jobs/{name}?told={'resumed' if was_paused else 'unpaused'}")


@router.post("/runs/{run_id}/cancel")
def cancel(visit: Submission, run_id: str) -> Response:
    """Tell a run to end."""
    if not (run_id.isascii() and run_id.isdigit() and len(run_id) <= 18):
        raise_unknown(visit.request)

    def tell(conn: psycopg.Connection[Any]) -> str:
        try:
            find_runs(conn, [int(run_id)])
        except ConfigError as error:
            raise ProblemError(404, error.message, "old runs are cleared away") from error
        return cancel_run(conn, int(run_id))

    outcome = _carry_out(visit, "run.cancel", run_id, tell)
    told = outcome if outcome in ("cancelling", "cancelled") else "over"
    return visit.redirect(f"/runs/{run_id}?told={told}")


def _carry_out(
    visit: Visit, action: str, subject: str, act: Callable[[psycopg.Connection[Any]], object]
) -> object:
    """Do it where the viewer's token may, and return what came of it."""
    visit.require("trigger")
    outcome: list[object] = []

    def work(conn: psycopg.Connection[Any]) -> Reply:
        outcome.append(act(conn))
        return Reply(document={"outcome": str(outcome[0])})

    carry_out(visit.service, visit.request, visit.viewer.caller, action=action, subject=subject, act=work)
    return outcome[0]


def _find(request: Request, conn: psycopg.Connection[Any], name: str) -> str:
    """Make sure that there is such a job, and that it is managed."""
    if not is_name(name):
        raise_unknown(request)
    job = find_applied(conn, name)
    try:
        find_managed_jobs(conn, [job.name])
    except ConfigError as error:
        raise ProblemError(409, error.message, error.remedy) from error
    return job.name


def _read_length(text: str) -> timedelta | None:
    """Read how long a pause lasts; None for until somebody resumes the job."""
    if not text.strip():
        return None
    try:
        return parse_duration(text.strip())
    except ValueError as error:
        raise ProblemError(
            422, f"{text!r} is no duration", "go back and write one such as 30m, 2h or 7d, or nothing"
        ) from error
