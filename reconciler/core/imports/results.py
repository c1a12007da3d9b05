"""What an import from files gives: declarations, what was left, what people ought to know; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.imports.cron_history import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftPassage:
    """What was not read.

    Attributes:
        source: Where it stands, and its text.
        reason: Why, and what can be done about it.
    """

    source: Source
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a person ought to know of what was read.

    Attributes:
        source: Where it stands.
        message: One clause.
    """

    source: Source
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFiles:
    """What became of files.

    Attributes:
        jobs: Declarations by name, sorted, as they stand below `jobs:` in a spec file.
        workers: The same of workers.
        left: What was not read or cannot be declared, in the order of the files.
        remarks: What people ought to know, in the order of the files.
        secrets: The environment variable that could hold each secret which the declarations name.
    """

    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left: tuple[LeftPassage, ...] = ()
    remarks: tuple[Remark, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)


def escape_sql(text: str) -> str:
    """Keep SQL from being read as a text with variables.

    Args:
        text: To the letter.

    Returns:
        As it stands in a spec file.
    """
    return text.replace("${var:", "$${var:")


def escape_text(text: str) -> str:
    """Keep any other text from being read as one with variables.

    Args:
        text: To the letter.

    Returns:
        As it stands in a spec file.
    """
    return text.replace("${", "$${")


def suggest_variable(name: str) -> str:
    """Suggest an environment variable for the token of a resource.

    Args:
        name: Of the resource.

    Returns:
        A name in capitals.
    """
    variable = re.sub(r"[^A-Z0-9]", "_", name.upper())
    return f"{'WORKER_' if variable[:1].isdigit() else ''}{variable}_TOKEN"
