"""Say what each version of pg_cron reads; knows nothing of connections or of how a version is found out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# `\dx` prints "1.4-1" for the binary 1.4.2: the number after the dash counts upgrade scripts, not features.
_VERSION: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4})|-[0-9]{1,4})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one pg_cron binary reads.

    Attributes:
        version: The lowest version it can be, as (major, minor, patch).
        seconds: `30 seconds` is taken (1.5.0 and later).
        last_day: `$` is taken as day of month (1.6.0 and later).
        step_limit: Steps larger than the field are refused (1.6.5 and later).
        yearly_runs: `@yearly` and `@annually` run (before 1.6.0; later ones take them and never run them).
        long_names: Job names over 63 bytes are kept whole (1.5.0 and later).
    """

    version: tuple[int, int, int]
    seconds: bool
    last_day: bool
    step_limit: bool
    yearly_runs: bool
    long_names: bool


ANY_DIALECT: Final = Dialect(
    version=(1, 3, 0), seconds=True, last_day=True, step_limit=False, yearly_runs=False, long_names=True
)
"""For checks without a target: every form that some version takes, none that some version misreads."""


def dialect_for(version: tuple[int, int, int]) -> Dialect:
    """Give the dialect of one pg_cron version.

    Args:
        version: The lowest version that the binary can be. The extension's version is not enough:
            `1.6` stands for the binaries 1.6.1 to 1.6.7.

    Returns:
        Its dialect, after pg_cron's sources of 1.4.2, 1.5.2, 1.6.0 and 1.6.5.
    """
    return Dialect(
        version=version,
        seconds=version >= (1, 5, 0),
        last_day=version >= (1, 6, 0),
        step_limit=version >= (1, 6, 5),
        yearly_runs=version < (1, 6, 0),
        long_names=version >= (1, 5, 0),
    )


def parse_version(text: str) -> tuple[int, int, int]:
    """Read a version as people and the catalog write it.

    Args:
        text: `1.4`, `1.6.5`, or `1.4-1` as the catalog has it for 1.4.2.

    Returns:
        Major, minor and patch; a patch that is not given is 0.

    Raises:
        ValueError: The text is no version.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        message = (
            f"{text!r} is no pg_cron version: write two or three numbers with dots, such as 1.6 or 1.6.5"
        )
        raise ValueError(message)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def format_version(version: tuple[int, int, int]) -> str:
    """Write a version as people do.

    Args:
        version: Major, minor and patch.

    Returns:
        `1.5` for (1, 5, 0), `1.6.5` for (1, 6, 5).
    """
    return ".".join(str(part) for part in (version if version[2] else version[:2]))


def describe_lack(feature: str, version: str, dialect: Dialect) -> str:
    """Say which pg_cron has a feature that this one lacks.

    Args:
        feature: What is wanted.
        version: The first version that has it.
        dialect: What the target's pg_cron reads.

    Returns:
        One clause.
    """
    return f"{feature} needs pg_cron {version} or later, this target has {format_version(dialect.version)}"
