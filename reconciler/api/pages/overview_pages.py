"""The first page: every job, how it fares, when it ran and runs next; the database searches and counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, get_args
from urllib.parse import urlencode

from fastapi import Query, Response

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.status_reading import read_overview
from reconciler.database.job_pages import JobPage, read_job_page
from reconciler.database.owners import list_owners
from reconciler.database.status import State

from .page_answers import PageRouter
from .visits import VisitDep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.api.context import Service

router: Final = PageRouter()

_ORDER: Final[tuple[State, ...]] = (
    *("failing", "missed", "missing", "running", "queued", "paused", "ok"),
    *("inactive", "retired", "no_entry"),
)
"""States as the filters show them: first what somebody has to look at."""
_NOBODY: Final = "-"
_FRESH: Final = 2.0
_PATIENCE: Final = 15.0


@router.get("/")
def show_jobs(
    visit: VisitDep,
    q: Annotated[str, Query(max_length=200)] = "",
    owner: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """Show the jobs that fit, fifty at a time."""
    wanted = next((known for known in get_args(State) if known == state), None)
    after = decode_cursor(cursor, str, int) if cursor else None
    query = q.replace("\0", "").strip()
    is_plain = not (query or owner or cursor or wanted)
    page: JobPage
    if is_plain:
        # What everybody looks at is read once for all who look.
        page = visit.service.answers.find(
            "first jobs", partial(_read_first, visit.service), max_age=_FRESH, patience=_PATIENCE
        ).value
    with visit.connection() as conn:
        owners = list_owners(conn)
        if not is_plain:
            page = read_job_page(
                conn,
                zone=visit.zone,
                query=query,
                owner=_read_owner(owner),
                state=wanted,
                after=(after[0], after[1]) if after else None,
                limit=visit.service.limits.page,
            )
    visit.count_jobs(page.counts)
    chosen = {"q": query, "owner": owner, "state": wanted or ""}
    return visit.show(
        "jobs.html",
        seen=(page, owners, chosen, cursor),
        page=page,
        owners=owners,
        chosen=chosen,
        states=[known for known in _ORDER if page.counts.get(known)],
        all_jobs=sum(page.counts.values()),
        is_first=after is None,
        address=lambda **changes: _make_address(visit.root, chosen, changes),
        next_cursor=encode_cursor(page.next) if page.next else "",
    )


def _read_first(service: Service) -> JobPage:
    zone = read_overview(service).timezone
    with service.connections.connection() as conn:
        return read_job_page(conn, zone=zone, limit=service.limits.page)


def _read_owner(owner: str) -> str | None:
    """Read whose jobs are wanted: a hyphen, which no owner's name is, stands for what nobody declared."""
    return "" if owner == _NOBODY else owner or None


def _make_address(root: str, chosen: Mapping[str, str], changes: Mapping[str, str]) -> str:
    values = {key: value for key, value in {**chosen, **changes}.items() if value}
    return f"{root}/" + (f"?{urlencode(values)}" if values else "")
