"""Named queries: SQL lives in `sql/queries/`, one file for each module that uses it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, LiteralString

from reconciler.resources import read_resource

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def load_queries(module: str) -> Mapping[str, LiteralString]:
    """Load the queries of one file.

    Args:
        module: The file's name without `.sql`.

    Returns:
        The texts by name. They count as literals: they come from our own files and hold nobody's values.
    """
    parts = _NAME.split(read_resource("sql", "queries", f"{module}.sql"))
    return {name: text.strip().removesuffix(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def join_queries(module: str, *names: str) -> LiteralString:
    """Make one query of several parts.

    Args:
        module: As for `load_queries`.
        *names: Of the parts, in their order.
    """
    queries = load_queries(module)
    return "\n".join([queries[name] for name in names])
