"""Show SQL and shell commands to people in one short line, without passwords and tokens; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.imports.sql_tokens import Token

_SECRET: Final = re.compile(
    r"bearer|authori[sz]ation|api_?-?key|passw|secret|token|cookie|eyJ|://[^/\s]*:[^/\s]*@", re.IGNORECASE
)
_LONG: Final = 60


_HIDDEN: Final = (
    (re.compile(r"(authorization:|cookie:|x-[\w-]*:)[^'\"]+", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"(\bbearer\s+)[^\s'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(://[^\s:@/]*:)[^\s@/]*@"), r"\1***@"),
    (
        re.compile(
            r"(\b\w*(?:passw|secret|token|api[_-]?key|key|pwd|signature)\w*\s*[=:]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s&'\"]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"(\s(?:-u|--user|-b|--cookie|--proxy-user|--oauth2-bearer)[ =]?)\S+"), r"\1***"),
    (re.compile(r"\beyJ[\w.-]+"), "***"),
    (re.compile(r"(create_queue_worker\s*\().*", re.IGNORECASE), r"\1***"),
)


def render_command(text: str, *, limit: int = 100) -> str:
    """Write a shell command in one short line, for people.

    Args:
        text: As it was written.
        limit: The longest line.

    Returns:
        The line, with `***` for what may be a password or token.
    """
    line = " ".join(text.split())
    for pattern, shown in _HIDDEN:
        line = pattern.sub(shown, line)
    return line if len(line) <= limit else line[: limit - 4].rstrip() + " ..."


def render_tokens(tokens: Sequence[Token], *, limit: int = 100) -> str:
    """Write tokens in one short line, for people.

    Args:
        tokens: As they were cut from one text.
        limit: The longest line.

    Returns:
        The line. Long literals, and those that may hold a password or token, are shown as `'...'`.
    """
    parts: list[str] = []
    end = tokens[0].start if tokens else 0
    is_secret = False
    for token in tokens:
        is_secret = is_secret or token.is_name("create_queue_worker")
        if token.start > end and parts:
            parts.append(" ")
        parts.append(_render(token, hides=is_secret))
        end = token.end
    line = "".join(parts)
    return line if len(line) <= limit else line[: limit - 4].rstrip() + " ..."


def _render(token: Token, *, hides: bool) -> str:
    if token.kind == "name":
        return '"' + token.value.replace('"', '""') + '"'
    if token.kind == "meta":
        return "\\" + (token.value.split() or [""])[0]
    if token.kind != "text":
        return token.value
    value = " ".join(token.value.split())
    if hides or len(value) > _LONG or may_be_secret(value):
        return "'...'"
    return "'" + value.replace("'", "''") + "'"


def may_be_secret(text: str) -> bool:
    """Tell whether a text may hold a password or token, by the words in it.

    Args:
        text: Any.

    Returns:
        True where it is better not shown.
    """
    return _SECRET.search(text) is not None
