"""Lists in pages: where a page begins is told by the last item of the one before, in every list alike."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from .context import Limits, ServiceDep
from .problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

_Item = TypeVar("_Item")
_LONGEST: Final = 1000
_LARGEST: Final = 2**63 - 1
_REMEDY: Final = "send next_cursor of the page before as it came, or no cursor for the first page"


class Page(BaseModel, Generic[_Item]):
    """One page of a list."""

    items: list[_Item]
    next_cursor: Annotated[
        str | None, Field(description="Send it as `cursor` to get the next page; null on the last one.")
    ] = None


def encode_cursor(values: Sequence[str | int | datetime | None]) -> str:
    """Encode where the next page begins.

    Args:
        values: Of the last item of this page, in the order in which the list is sorted; instants aware.

    Returns:
        A text for callers to send back, which says nothing to them.
    """
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, *kinds: type[str | int | datetime]) -> list[Any]:
    """Decode where a page begins.

    Args:
        text: As the caller sent it.
        *kinds: What each value has to be: `str`, `int` (that a bigint holds) or `datetime` (aware). None is
            taken for each of them. Without kinds, texts, numbers and None in any number.

    Returns:
        The values.

    Raises:
        ProblemError: 422; no page ended with this cursor.
    """
    try:
        values = _read_list(text)
        return [_read(value, kind) for value, kind in zip(values, kinds or [None] * len(values), strict=True)]
    except (ValueError, RecursionError):
        raise ProblemError(422, "query.cursor: there is no such place in this list", _REMEDY) from None


def _read_list(text: str) -> list[Any]:
    padded = (text + "=" * (-len(text) % 4)).encode("ascii")
    values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(values, list):
        raise ValueError(text)  # noqa: TRY004 - one error for all that is no cursor
    return values


def _read(value: object, kind: type[str | int | datetime] | None) -> str | int | datetime | None:
    """Read one value; what PostgreSQL cannot take is a ValueError."""
    if value is None:
        return None
    if isinstance(value, str) and kind in (str, datetime, None):
        value.encode()  # a lone surrogate is no UTF-8
        if "\0" in value:
            raise ValueError(value)
        if kind is not datetime:
            return value
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError(value)
        return at
    # A bool is an int of Python's.
    if type(value) is int and kind in (int, None) and -_LARGEST <= value <= _LARGEST:
        return value
    raise ValueError(value)


def read_limit(
    service: ServiceDep,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            description="Items of a page at the most; left out, the service's own choice.",
            json_schema_extra={"maximum": Limits().max_page},
        ),
    ] = None,
) -> int:
    """Read how many items a caller wants on a page.

    Raises:
        ProblemError: 422; it is more than the service gives.
    """
    most = service.limits.max_page
    if limit is None:
        return min(service.limits.page, most)
    if limit > most:
        raise ProblemError(
            422, f"query.limit: there are {most} items on a page at the most", f"send limit={most} or less"
        )
    return limit


PageLimit = Annotated[int, Depends(read_limit)]
"""The query's `limit`, within the service's bounds."""

Cursor = Annotated[
    str | None,
    Query(max_length=_LONGEST, description="`next_cursor` of the page before; left out, the first page."),
]
"""The query's `cursor`, still to be decoded; a route gives it the default None."""
