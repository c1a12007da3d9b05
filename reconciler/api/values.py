"""Texts, numbers and instants of requests and answers, with what the OpenAPI document says of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, PlainValidator, StringConstraints, WithJsonSchema

from reconciler.core.endpoint_requests import parse_instant

if TYPE_CHECKING:
    from datetime import timedelta

LARGEST_ID: Final = 2**63 - 1
"""Of a bigint."""


def _to_utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _parse_instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("this is no text")  # noqa: TRY004 - what pydantic wants
    try:
        return parse_instant(value)
    except ValueError:
        raise ValueError("this is no instant: write it as 2026-12-01T08:00:00Z") from None


Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\u0000]*$")]
"""A text that is looked for; PostgreSQL knows no NUL."""

Instant = Annotated[datetime, AfterValidator(_to_utc)]
"""An instant of an answer: told in UTC, with a Z."""

GivenInstant = Annotated[
    datetime,
    PlainValidator(_parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant of a request; without an offset it is in UTC."""

Json = Annotated[Any, WithJsonSchema({"description": "Any JSON"})]
"""Whatever JSON holds."""


def count_seconds(duration: timedelta | None) -> float | None:
    """Count the seconds of a duration.

    Args:
        duration: None where there is none.
    """
    return None if duration is None else duration.total_seconds()
