"""What was applied: the list of revisions, and one with all that it changed."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query, Request, Response

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.problems import ProblemError
from reconciler.api.values import LARGEST_ID
from reconciler.core.plan_documents import render_change
from reconciler.database.history import Head, list_revisions, read_revision

from .page_answers import PageRouter, raise_unknown
from .visits import VisitDep

router: Final = PageRouter()


@router.get("/revisions")
def show_revisions(visit: VisitDep, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """Show what was applied, the newest first."""
    before = decode_cursor(cursor, int)[0] if cursor else None
    limit = visit.service.limits.page
    with visit.connection() as conn:
        found = list_revisions(conn, owner=None, limit=limit + 1, before=before)
    shown = found[:limit]
    return visit.show(
        "revisions.html",
        seen=[one.id for one in found],
        revisions=shown,
        pairs=_list_pairs,
        is_first=before is None,
        next_cursor=encode_cursor([shown[-1].id]) if len(found) > limit else "",
    )


def _list_pairs(head: Head) -> list[tuple[str, list[str]]]:
    """List what was done, each action with the names of what it was done to."""
    done: dict[str, list[str]] = {}
    for action, name in zip(head.actions, head.names, strict=True):
        done.setdefault(action, []).append(name)
    return list(done.items())


@router.get("/revisions/{number}")
def show_revision(request: Request, visit: VisitDep, number: str) -> Response:
    """Show one revision with its changes, as its plan showed them."""
    if not (number.isascii() and number.isdigit() and len(number) < 20 and int(number) <= LARGEST_ID):
        raise_unknown(request)
    with visit.connection() as conn:
        found = read_revision(conn, int(number))
    if found is None:
        raise ProblemError(
            404, f"there is no revision {number} on this target", "the list of revisions has them all"
        )
    return visit.show(
        "revision.html",
        live=False,
        revision=found,
        changes=[render_change(change, None) for change in found.read_changes()],
    )
