"""Count how many jobs of a queue were finished, minute by minute and hour by hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import psycopg

MOST_COUNTED = 1_000_000
"""So many of the newest finished jobs of a queue are counted: what lies before them is not known."""
_MINUTES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What was finished in a minute or an hour.

    Attributes:
        at: Its begin, in UTC.
        finished: Jobs that were completed or cancelled; None where nobody counted them.
        failed: Jobs that were given up; likewise.
    """

    at: datetime
    finished: int | None
    failed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """How quick a queue was; the last span of each list is the present one, so it is not over yet.

    Attributes:
        minutes: The last 60 minutes of the clock.
        hours: The last 24 hours of the clock, in UTC.
    """

    minutes: tuple[Span, ...]
    hours: tuple[Span, ...]


def read_throughput(conn: psycopg.Connection, queue: str, *, most: int = MOST_COUNTED) -> Throughput:
    """Count the finished jobs of a queue that are kept, by the clock of the server.

    A million of them takes about a third of a second, along the indexes and without the rows.

    Args:
        conn: To the target.
        queue: Which; of one that is not there nothing was finished.
        most: How many of the newest are counted.

    Returns:
        Minutes and hours, the oldest first.
    """
    with conn.cursor(row_factory=class_row(Span)) as cursor:
        query = load_queries("throughput")["read_throughput"]
        pieces = cursor.execute(query, {"queue": queue, "most": most}).fetchall()
    pieces = [_at(piece.at.astimezone(UTC), [piece]) for piece in pieces]
    hours = groupby(pieces, key=lambda piece: piece.at.replace(minute=0))
    return Throughput(
        minutes=tuple(pieces[-_MINUTES:]), hours=tuple(_at(at, tuple(parts)) for at, parts in hours)
    )


def _at(at: datetime, parts: Iterable[Span]) -> Span:
    """Put pieces together; what is not known of one is not known of the whole."""
    counts = [(part.finished, part.failed) for part in parts]
    finished = [one for one, _ in counts if one is not None]
    failed = [one for _, one in counts if one is not None]
    is_known = len(finished) == len(counts)
    return Span(at=at, finished=sum(finished) if is_known else None, failed=sum(failed) if is_known else None)
