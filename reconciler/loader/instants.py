"""Read moments as a spec file has them: instants with an offset, local times and dates of a zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_MOMENT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
_OFFSET: Final = re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_SECOND: Final = timedelta(seconds=1)


def is_local(text: str) -> bool:
    """Tell whether a moment needs a zone to be one.

    Args:
        text: As it was written.

    Returns:
        True where it says no offset.
    """
    return _OFFSET.search(text) is None


def read_moment(text: str, zone: tzinfo | None, *, takes_date: bool = False) -> datetime:
    """Read a moment.

    Args:
        text: Date and time, with an offset after RFC 3339 or without. Seconds may be left out.
        zone: Where local times are meant; None for nowhere.
        takes_date: Whether a date alone will do: its first moment.

    Returns:
        The instant in UTC. A local time that comes twice is its first one; one that the clocks skip is the
        first moment after it.

    Raises:
        ValueError: It is none; the message says how one is written.
    """
    found = _MOMENT.fullmatch(text)
    if found is None or not (found[2] or takes_date):
        like = ", or a date" if takes_date else ""
        raise ValueError(
            f"{text!r} is no moment: write date, time and offset, such as 2026-12-01T08:00:00Z, "
            f"or 2026-12-01T08:00 with a timezone{like}"
        )
    day, clock, seconds, offset = found.groups()
    if offset is None and zone is None:
        raise ValueError(
            f"{text!r} is a local time, and there is no timezone: write timezone, such as Europe/Oslo, "
            f"or an offset, such as {day}T{clock or '00:00'}Z"
        )
    second, _, fraction = (seconds or ":00").partition(".")
    offset = "" if offset is None else "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{second}.{fraction:0<6}{offset}")
        return moment.astimezone(UTC) if zone is None or offset else find_instant(moment, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no moment: {error}; write one that exists") from error


def find_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Find the instant at which the clocks of a zone show a time.

    Args:
        wall: What they show, naive.
        zone: The zone.

    Returns:
        The instant in UTC: the first of two, and the first moment after a time that the clocks skip.

    Raises:
        OverflowError: It is outside of the years 1 to 9999.
    """
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    # Both offsets of the gap give instants around the change, which is at a whole second.
    low = wall.replace(tzinfo=zone, fold=1, microsecond=0).astimezone(UTC)
    before = low.astimezone(zone).utcoffset()
    high = instant.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // 2 // _SECOND * _SECOND
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def render_instant(moment: datetime) -> str:
    """Render an instant in its one canonical form.

    Args:
        moment: An instant in UTC.

    Returns:
        For instance `2026-12-01T08:00:00Z`, with six digits more where there is a fraction.
    """
    fraction = f".{moment.microsecond:06d}" if moment.microsecond else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"
