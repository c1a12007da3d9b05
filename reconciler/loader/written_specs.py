"""Write declarations as a spec file, which our reader reads back to the same values, to the letter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from reconciler.core.imports.results import escape_sql, escape_text

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_LINE: Final = "# yaml-language-server: $schema=../schemas/jobs.schema.json\n"
"""What a spec file begins with, for editors."""

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z_-]*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_FIRST: Final = (
    "description",
    "schedule",
    "every",
    "daily",
    "weekly",
    "monthly",
    "once",
    "after",
    "timezone",
)


class _Dumper(yaml.SafeDumper):
    """Writes every text so that YAML 1.1 and 1.2 read it alike: plain words, blocks, or quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else '"'
    if "\n" in text.strip("\n"):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def render_sections(sections: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Render sections of a spec file.

    Args:
        sections: Declarations by name, as they stand below `jobs:`, `workers:`, and so on.

    Returns:
        YAML; sections without a declaration are left out.
    """
    return "\n".join(
        yaml.dump(
            {section: {name: dict(one) for name, one in declared.items()}},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=100_000,
        )
        for section, declared in sections.items()
        if declared
    )


def make_declaration(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Make of what is stored what a spec file has to say so that the same comes of it.

    Args:
        stored: The document of a resource.

    Returns:
        What stands below its name: when it runs comes first, and nothing is read as a variable.
    """
    ordered = {key: stored[key] for key in _FIRST if key in stored} | dict(stored)
    return {
        key: escape_sql(value) if key == "sql" and isinstance(value, str) else _escape(value)
        for key, value in ordered.items()
    }


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, dict):
        return {key: _escape(child) for key, child in value.items()}
    return [_escape(child) for child in value] if isinstance(value, list) else value
