"""What somebody changed behind the files' back, and what an apply of the files would change."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Response

from reconciler.api.plan_reading import read_plan

from .page_answers import PageRouter
from .visits import VisitDep

router: Final = PageRouter()

_MOST: Final = 200
"""Changes that are shown; the rest is counted."""


@router.get("/drift")
def show_drift(visit: VisitDep) -> Response:
    """Show drift, and below it the rest of the plan."""
    with visit.connection():
        pass  # who looks hears first of a database that is away
    if visit.service.files is None:
        return visit.show("drift.html", seen="no files", reading=None, drift=[], rest=[], more=0)
    reading = read_plan(visit.service)
    drift: list[dict[str, Any]] = [] if reading.drift is None else reading.drift["changes"]
    changes = [] if reading.value is None else reading.value["changes"]
    drifting = {change["name"] for change in drift if change["reason"] != "both"}
    rest = [change for change in changes if change["name"] not in drifting]
    return visit.show(
        "drift.html",
        seen=(reading.value, reading.drift, reading.problems),
        reading=reading,
        drift=drift[:_MOST],
        rest=rest[:_MOST],
        more=max(len(drift) - _MOST, 0) + max(len(rest) - _MOST, 0),
    )
