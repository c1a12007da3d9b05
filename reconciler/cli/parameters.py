"""Read the values of options: durations and instants, written as in spec files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.core.durations import parse_duration

if TYPE_CHECKING:
    from datetime import timedelta


def read_duration(value: str) -> timedelta:
    """Read a duration.

    Args:
        value: Such as `90s` or `1h30m`.

    Returns:
        The duration.

    Raises:
        click.BadParameter: It is none; the message says how one is written.
    """
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def read_instant(value: str) -> datetime:
    """Read an instant with its offset.

    Args:
        value: Such as `2026-12-01T08:00Z`.

    Returns:
        The instant in UTC.

    Raises:
        click.BadParameter: It is none; the message says how one is written.
    """
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(
        f"{value!r} is no instant: write date, time and offset, such as 2026-12-01T08:00Z"
    )
