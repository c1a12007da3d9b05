"""Forms that change something: each does what the API's route does, and is noted alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Form, Response
from pydantic import ValidationError

from reconciler.api import cron_routes, jobs_routes, runs_routes
from reconciler.api.cron_routes import PauseBody
from reconciler.api.job_writes import ask_for_run
from reconciler.api.problems import ProblemError
from reconciler.core.names import is_name

from .page_answers import PageRouter, raise_unknown
from .queue_pages import read_job_id
from .visits import Submission

if TYPE_CHECKING:
    from .visits import Visit

router: Final = PageRouter()

_LONGEST: Final = 500


@router.post("/jobs/{name}/run")
def run_job(visit: Submission, name: str) -> Response:
    """Ask for a run."""
    _check(visit, is_known=is_name(name))
    said = _read(ask_for_run(visit.service, visit.viewer.caller, visit.request, name))
    return visit.redirect(f"/jobs/{name}?told=asked-{said['start_id']}")


@router.post("/jobs/{name}/pause")
def pause_job(
    visit: Submission,
    name: str,
    duration: Annotated[str, Form(max_length=20)] = "",
    reason: Annotated[str, Form(max_length=_LONGEST)] = "",
) -> Response:
    """Pause a job, for a while or until somebody resumes it."""
    _check(visit, is_known=is_name(name))
    try:
        body = PauseBody(duration=duration.strip() or None, reason=" ".join(reason.replace("\0", "").split()))
    except ValidationError as error:
        raise ProblemError(
            422, f"{duration!r} is no duration", "go back and write one such as 30m, 2h or 7d, or nothing"
        ) from error
    cron_routes.make_pause(visit.service, visit.viewer.caller, visit.request, name, body)
    return visit.redirect(f"/jobs/{name}?told=paused")


@router.post("/jobs/{name}/resume")
def resume_job(visit: Submission, name: str) -> Response:
    """Resume a job."""
    _check(visit, is_known=is_name(name))
    said = _read(cron_routes.resume_job(visit.service, visit.viewer.caller, visit.request, name))
    return visit.redirect(f"/jobs/{name}?told={'resumed' if said['was_paused'] else 'unpaused'}")


@router.post("/runs/{run_id}/cancel")
def cancel(visit: Submission, run_id: str) -> Response:
    """Tell a run to end."""
    _check(visit, is_known=run_id.isascii() and run_id.isdigit() and len(run_id) <= 18)
    try:
        said = _read(runs_routes.cancel(visit.service, visit.viewer.caller, visit.request, run_id))
    except ProblemError as error:
        if error.problem.status != 409:
            raise
        return visit.redirect(f"/runs/{run_id}?told=over")
    return visit.redirect(f"/runs/{run_id}?told={said['status']}")


@router.post("/queued/{job_id}/retry")
def retry_queued(visit: Submission, job_id: str) -> Response:
    """Let a dead or cancelled queued job begin anew."""
    visit.require("write")
    number = read_job_id(visit.request, job_id)
    jobs_routes.begin_anew(visit.service, visit.viewer.caller, visit.request, number)
    return visit.redirect(f"/queued/{number}?told=pending")


@router.post("/queued/{job_id}/cancel")
def cancel_queued(visit: Submission, job_id: str) -> Response:
    """Cancel a queued job, or tell the worker that does it."""
    visit.require("write")
    number = read_job_id(visit.request, job_id)
    said = _read(jobs_routes.cancel(visit.service, visit.viewer.caller, visit.request, number))
    return visit.redirect(f"/queued/{number}?told={said['status']}")


def _check(visit: Visit, *, is_known: bool) -> None:
    visit.require("trigger")
    if not is_known:
        raise_unknown(visit.request)


def _read(answer: Response) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(bytes(answer.body))
    return said
