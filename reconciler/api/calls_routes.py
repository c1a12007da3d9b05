"""The audit: every write that was asked of the service."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from reconciler.database.api_calls import list_calls

from .context import ServiceDep
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .security import Reader
from .values import Instant

router = APIRouter(prefix="/api/v1", tags=["service"])


class Call(BaseModel, from_attributes=True):
    """A write that was asked for."""

    id: int
    at: Instant
    ended_at: Instant | None = Field(description="Null while it goes on, and where it was cut off.")
    token_id: str
    caller: str = Field(description="What the token was made for.")
    action: str
    subject: str
    method: str
    path: str
    idempotency_key: str | None
    status: int | None


@router.get("/calls", name="list_calls", summary="List what was asked to be written, the newest first")
def list_all(service: ServiceDep, _: Reader, limit: PageLimit, cursor: Cursor = None) -> Page[Call]:
    """List the calls of the last 90 days that wrote, or tried to."""
    before = None if cursor is None else decode_cursor(cursor, int)[0]
    with service.connections.connection() as conn:
        found = list_calls(conn, before=before, limit=limit + 1)
    has_more = len(found) > limit
    items = [Call.model_validate(call) for call in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor([items[-1].id]) if has_more else None)
