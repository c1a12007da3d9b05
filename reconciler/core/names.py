"""Names of resources, and the nearest right word for a wrong one."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAME_LIMIT = 63
"""Bytes of a name. pg_cron 1.3 and 1.4 cut longer ones silently, so that two can collide."""

OWN_PREFIX = "reconciler-"
"""What the names of the tool's own entries begin with, and nobody else's."""

SQL_OWNER = "sql"
"""The owner of workers that `reconciler.create_queue_worker` made, and of nothing else."""

API_OWNER = "api"
"""The owner of jobs that were made through the service."""

RESERVED_OWNERS: Mapping[str, str] = {
    SQL_OWNER: "workers that are made in SQL",
    API_OWNER: "jobs that are made through the service",
}
"""Owners that no files and no program can have, and whose they are."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Tell whether a text can name a resource.

    Args:
        text: The candidate.

    Returns:
        True for 1 to 63 lower-case letters, digits, dots, underscores and hyphens that begin and end with a
        letter or digit.
    """
    return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


def list_some(names: Sequence[str], most: int) -> str:
    """List the first of many names, and count the rest.

    Args:
        names: Any number.
        most: How many are named.

    Returns:
        For instance `a, b and 3 more`.
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def find_nearest(word: str, words: Iterable[str]) -> str:
    """Find the word that a person most likely meant.

    Args:
        word: What was written.
        words: What could have been written.

    Returns:
        The nearest of `words`, or "" when none is near.
    """
    return next(iter(difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.6)), "")
