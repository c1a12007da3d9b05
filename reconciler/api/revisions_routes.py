"""Revisions: what was applied, when, by whom."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from reconciler.core.changes import Action, Reason
from reconciler.core.plan_documents import render_change
from reconciler.core.specs import Kind
from reconciler.database.history import list_fields, list_revisions, read_revision

from .context import ServiceDep
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .problems import PROBLEMS, ProblemError
from .security import Reader
from .values import LARGEST_ID, Instant, Json, Text

router: Final = APIRouter(prefix="/api/v1/revisions", tags=["revisions"])


class Revision(BaseModel):
    """An apply that changed something."""

    revision: Annotated[int, Field(description="Its number")]
    owner: Annotated[str, Field(description="Whose resources it changed")]
    target: str
    applied_at: Instant
    applied_by: Annotated[str, Field(description="The role that applied it")]
    actor: Annotated[str | None, Field(description="Who asked for it")]
    commit: Annotated[str | None, Field(description="The commit of the files")]
    release: str
    rollback_to: Annotated[int | None, Field(description="The revision that it went back to")]
    restored: Annotated[list[str], Field(description="What it brought back")]
    emergency: Annotated[str | None, Field(description="Why it was applied against a policy")]
    transferred_to: str | None
    transferred_from: str | None
    counts: Annotated[dict[Action, int], Field(description="How many changes of each kind it made")]
    names: Annotated[list[str], Field(description="What it changed, in the order of its changes")]


class Side(BaseModel):
    """A resource before or after a change."""

    spec: Annotated[Json, Field(description="As it was declared; null where it was not")]
    entry: Annotated[dict[str, Json] | None, Field(description="Its row of cron.job; null without one")]


class FieldChange(BaseModel):
    """One field that differs."""

    path: Annotated[str, Field(examples=["entry.schedule"])]
    before: Json
    after: Json


class Change(BaseModel):
    """What was changed of one resource."""

    action: Action
    kind: Kind
    name: str
    reason: Reason
    source: Annotated[str, Field(description="Where it was declared, as path:line")]
    renamed_from: str | None
    retired_until: Annotated[Instant | None, Field(description="When its grace ends, or ended")] = None
    before: Side | None
    after: Side | None
    fields: list[FieldChange]


class RevisionDetails(Revision):
    """An apply with its changes."""

    changes: list[Change]


@router.get("", summary="List revisions, the newest first")
def list_all(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    owner: Annotated[Text | None, Query(description="Only of this owner; left out, of everybody")] = None,
    cursor: Cursor = None,
) -> Page[Revision]:
    """List what was applied."""
    before = None if cursor is None else decode_cursor(cursor, int)[0]
    with service.connections.connection() as conn:
        found = list_revisions(conn, owner=owner, limit=limit + 1, before=before)
    items = [Revision(**list_fields(head)) for head in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor([items[-1].revision]) if len(found) > limit else None)


@router.get("/{number}", responses={404: PROBLEMS[404]}, summary="Show a revision")
def show_revision(
    service: ServiceDep, _: Reader, number: Annotated[int, Path(ge=1, le=LARGEST_ID)]
) -> RevisionDetails:
    """Show a revision with its changes, field by field, as its plan showed them."""
    with service.connections.connection() as conn:
        found = read_revision(conn, number)
    if found is None:
        raise ProblemError(404, f"there is no revision {number}", "GET /api/v1/revisions lists them")
    return RevisionDetails(
        **list_fields(found),
        changes=[Change(**render_change(change, None)) for change in found.read_changes()],
    )
