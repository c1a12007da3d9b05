"""Put values into texts: `${var:name}` in specs, `${env:NAME}` in the configuration.

A value is inserted as text and never read again, so that it cannot bring another variable with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from reconciler.core.names import find_nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Prefix = Literal["var", "env"]

_REFERENCE = re.compile(r"(\$?)\$\{(?:([A-Za-z]+):)?([^{}$]*)(\}?)")
# A lone ${ in SQL is not ours; it must not swallow the variable behind it.
_IN_SQL = re.compile(r"(\$?)\$\{(var|env):([^{}$]*)(\}?)")


class VariableError(ValueError):
    """A text refers to what there is not; the message says to what."""


def insert_variables(
    text: str,
    values: Mapping[str, str],
    *,
    prefix: Prefix = "var",
    is_sql: bool = False,
    target: str | None = None,
) -> str:
    """Replace every variable of a text.

    Args:
        text: The text. `$${` stands for a plain `${`; in SQL only before the prefix, since a dollar quote
            there may be followed by a brace.
        values: By name.
        prefix: The kind of variable that may stand here.
        is_sql: Leave `${` alone where no variable of ours follows.
        target: What `${target}` stands for; None where it may not stand.

    Returns:
        The text with the values in it.

    Raises:
        VariableError: An unknown variable, an unknown kind, or a brace that is not closed.
    """

    def replace(match: re.Match[str]) -> str:
        escape, kind, name, end = match.groups()
        if is_sql and kind != prefix:
            return match[0]
        if escape:
            return match[0][1:]
        if target is not None and match[0] == "${target}":
            return target
        return _look_up(match[0], kind, name, end, values, prefix)

    return (_IN_SQL if is_sql else _REFERENCE).sub(replace, text)


def _look_up(
    whole: str, kind: str | None, name: str, end: str, values: Mapping[str, str], prefix: Prefix
) -> str:
    if kind != prefix:
        shown = whole[:40]
        if prefix == "var" and kind == "env":
            raise VariableError(
                f"{shown} cannot stand in a spec: put it into vars of reconciler.yaml, write ${{var:name}}"
            )
        raise VariableError(f"{shown} is no variable: write ${{{prefix}:name}}, or $${{ for a plain ${{")
    if not end:
        raise VariableError(f"{whole[:40]} is not closed: a }} is missing")
    if name in values:
        return values[name]
    if prefix == "env":
        raise VariableError(f"the environment variable {name!r} is not set")
    nearest = find_nearest(name, values)
    remedy = f"did you mean {nearest!r}?" if nearest else "add it to vars of the target in reconciler.yaml"
    raise VariableError(f"unknown variable {name!r}; {remedy}")


def has_reference(value: Any) -> bool:
    """Tell whether any text in a JSON value holds `${`.

    Args:
        value: Any JSON value.

    Returns:
        True when some text, not counting keys, does.
    """
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(has_reference(child) for child in value.values())
    return isinstance(value, list) and any(has_reference(child) for child in value)
