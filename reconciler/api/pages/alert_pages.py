"""What somebody has to hear of, and who was told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import Query, Response

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.problems import ProblemError
from reconciler.database.alerts import list_alerts

from .page_answers import PageRouter
from .visits import VisitDep

router: Final = PageRouter()


@router.get("/alerts")
def show_alerts(
    visit: VisitDep,
    job: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """Show alerts with their messages: those that are open, or all."""
    before = None
    if cursor:
        opened_at, alert_id = decode_cursor(cursor, datetime, int)
        if opened_at is None or alert_id is None:
            raise ProblemError(422, "there is no such place in this list", "begin at its first page")
        before = (opened_at, alert_id)
    limit = visit.service.limits.page
    name = job.replace("\0", "")
    with visit.connection() as conn:
        found = list_alerts(
            conn, everything=state == "all", limit=limit + 1, before=before, job_name=name or None
        )
    shown = found[:limit]
    last = shown[-1] if len(found) > limit else None
    return visit.show(
        "alerts.html",
        seen=(found, name, state, cursor),
        alerts=shown,
        job_name=name,
        shows_all=state == "all",
        is_first=before is None,
        next_cursor="" if last is None else encode_cursor([last.opened_at, last.id]),
    )
