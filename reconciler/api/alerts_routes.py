"""Alerts: what somebody has to hear of, and who was told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from reconciler.database.alerts import list_alerts

from .context import ServiceDep
from .paging import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from .problems import ProblemError
from .security import Reader
from .values import Instant, Json

router: Final = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])


class Delivery(BaseModel):
    """A message of an alert to one channel."""

    channel: str
    reminder: Annotated[int, Field(description="0 for the first message")]
    status: Literal["pending", "sent", "failed"]
    attempts: int
    due_at: Instant
    last_error: str | None
    sent_at: Instant | None


class Alert(BaseModel):
    """What somebody has to hear of."""

    id: int
    kind: Annotated[str, Field(description="failed, missed, slow, lost, recovered, drift or test")]
    job_name: Annotated[str, Field(description="Of the job; of the channel for a test")]
    run_id: Annotated[str | None, Field(description="The last run that it is about")]
    message: str
    details: dict[str, Json]
    occurrences: int
    opened_at: Instant
    last_seen_at: Instant
    resolved_at: Annotated[Instant | None, Field(description="Null while it is open")]
    deliveries: list[Delivery]


@router.get("", summary="List alerts, the newest first")
def list_all(
    service: ServiceDep,
    _: Reader,
    limit: PageLimit,
    state: Annotated[
        Literal["open", "all"],
        Query(description="open: also those of the last seven days that some channel was not told of"),
    ] = "open",
    cursor: Cursor = None,
) -> Page[Alert]:
    """List alerts with what became of their messages."""
    before = None
    if cursor is not None:
        opened_at, alert_id = decode_cursor(cursor, datetime, int)
        if opened_at is None or alert_id is None:
            raise ProblemError(422, "query.cursor: there is no such place in this list", "send no cursor")
        before = (opened_at, alert_id)
    with service.connections.connection() as conn:
        found = list_alerts(conn, everything=state == "all", limit=limit + 1, before=before)
    items = [
        Alert(
            id=one.id,
            kind=one.kind,
            job_name=one.job_name,
            run_id=None if one.run_id is None else str(one.run_id),
            message=one.message,
            details=one.details,
            occurrences=one.occurrences,
            opened_at=one.opened_at,
            last_seen_at=one.last_seen_at,
            resolved_at=one.resolved_at,
            deliveries=[Delivery(**delivery) for delivery in one.deliveries],
        )
        for one in found[:limit]
    ]
    last = items[-1] if len(found) > limit else None
    return Page(items=items, next_cursor=None if last is None else encode_cursor([last.opened_at, last.id]))
