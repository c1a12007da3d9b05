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


def read_zone(value: str) -> str:
    """Read the name of a time zone.

    Args:
        value: Such as `Europe/Oslo`.

    Returns:
        The name.

    Raises:
        click.BadParameter: There is no such zone; the message names the nearest.
    """
    from reconciler.loader.job_times import find_zone_fault

    fault = find_zone_fault(value)
    if fault:
        raise click.BadParameter(fault)
    return value


def read_version(value: str) -> tuple[int, int, int]:
    """Read a version of pg_cron.

    Args:
        value: Such as `1.4` or `1.6.5`.

    Returns:
        Major, minor and patch.

    Raises:
        click.BadParameter: It is none; the message says how one is written.
    """
    from reconciler.core.times.dialects import parse_version

    try:
        return parse_version(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
