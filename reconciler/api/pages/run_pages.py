"""The page of one run: everything that is known of it, and the tries that it belongs to."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Query, Request, Response

from reconciler.api.problems import ProblemError
from reconciler.database.runs import list_attempts, list_starts, read_direct_run, read_run

from .page_answers import PageRouter, raise_unknown
from .visits import VisitDep

router: Final = PageRouter()

_ID: Final = re.compile(r"(c?)([0-9]{1,18})")
_TOLD: Final = ("cancelling", "cancelled", "lost", "over")


@router.get("/runs/{run_id}")
def show_run(
    request: Request, visit: VisitDep, run_id: str, told: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """Show everything of one run; the ids of runs that pg_cron alone has a record of begin with c."""
    match = _ID.fullmatch(run_id)
    if match is None or not run_id.isascii():
        raise_unknown(request)
    is_direct, number = bool(match[1]), int(match[2])
    with visit.connection() as conn:
        run = read_direct_run(conn, number) if is_direct else read_run(conn, number)
        if run is None:
            raise ProblemError(
                404,
                f"there is no run {run_id} on this target",
                "old ones are cleared away; its job lists those left",
            )
        attempts = [run] if is_direct else list_attempts(conn, run)
        waiting = [] if is_direct else list_starts(conn, run)
    return visit.show(
        "run.html",
        seen=(run, attempts, waiting, told),
        run=run,
        run_id=run_id,
        attempts=attempts,
        waiting=waiting,
        told=told if told in _TOLD else "",
        can_cancel=visit.viewer.may_trigger and not is_direct and run.status == "running",
    )
