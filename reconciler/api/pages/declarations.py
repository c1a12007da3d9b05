"""Declarations as people wrote them: canonical JSON to YAML, in the order in which one thinks of a job."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import yaml

_ORDER: Final = (
    *("description", "schedule", "every", "daily", "weekly", "monthly", "once", "after", "timezone"),
    *(
        "spread",
        "ambiguous",
        "nonexistent",
        "start_at",
        "end_at",
        "blackout",
        "sql",
        "http",
        "handler",
        "url",
    ),
    *("queue", "payload", "mode", "timeout", "concurrency", "on_failure", "alert"),
)
"""What comes first; the rest follows by name."""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(?: [A-Za-z0-9_-]+)*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and quotes what could be read as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else style)


_Dumper.add_representer(str, _represent_text)


def render_declaration(kind: str, name: str, document: str) -> str:
    """Render what was declared as it would stand in a spec file.

    Args:
        kind: Of the resource.
        name: Of the resource.
        document: Canonical JSON; it holds names of secrets, never a secret.

    Returns:
        YAML, below the section of its kind.
    """
    declared: dict[str, Any] = json.loads(document)
    ordered = {key: declared[key] for key in _ORDER if key in declared}
    whole: dict[str, Any] = {f"{kind}s": {name: {**ordered, **declared}}}
    text: str = yaml.dump(
        whole, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return text
