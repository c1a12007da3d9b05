"""Find what cannot run in a SQL body, by its words; knows no database and does not parse SQL.

Reasons: a managed body runs inside a procedure (no VACUUM, no transaction control), the libpq mode of pg_cron
never ends when a job copies to its client (seen in 1.6.5, in the source from 1.4.2 on), and psql's commands
are no SQL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Mode

# One pass over everything in which words are no SQL: comments, texts, quoted names, dollar quotes.
_OPAQUE: Final = re.compile(
    r"""--[^\n]*
    | \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
    | '(?:[^']|'')*(?:'|\Z)
    | "(?:[^"]|"")*(?:"|\Z)
    | (?<![A-Za-z0-9_])\$([A-Za-z_][A-Za-z0-9_]*)?\$.*?(?:\$(?(1)\1)\$|\Z)
    | /\*""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_FIRST: Final = re.compile(r"\s*([A-Za-z]+)")
_SUSPECT: Final = frozenset(
    "vacuum create drop alter reindex begin commit rollback start end abort savepoint release prepare".split()  # noqa: SIM905
)
_META: Final = re.compile(r"^[ \t]*\\", re.MULTILINE)
_COPY: Final = re.compile(r"(?:\A|;)\s*copy\b[^;]*?\b(?:to\s+stdout|from\s+stdin)\b", re.IGNORECASE)
_NEEDS_DIRECT: Final = re.compile(
    r"\s*(vacuum\b|create\s+database\b|drop\s+database\b|alter\s+system\b|create\s+tablespace\b|drop\s+tablespace\b|"
    r"reindex\b(?=[^;]*\bconcurrently\b)|reindex\s+(?:\([^)]*\)\s*)?(?:database|system)\b|"
    r"create\s+(?:unique\s+)?index\s+concurrently\b|drop\s+index\s+concurrently\b)",
    re.IGNORECASE,
)
_TRANSACTION: Final = re.compile(
    r"\s*(begin|commit|rollback|start\s+transaction|end|abort|savepoint|release|prepare\s+transaction)\b",
    re.IGNORECASE,
)
_ROUTINE: Final = re.compile(r"\s*create\s+(?:or\s+replace\s+)?(?:function|procedure)\b", re.IGNORECASE)
_MARK: Final = re.compile(r"[();]|(?<![\w$])(?:begin\s+atomic|case|end)(?![\w$])", re.IGNORECASE)


def find_sql_fault(text: str, mode: Mode) -> str:
    """Say why a SQL body cannot run.

    Args:
        text: The body.
        mode: managed runs inside a procedure; direct is a command of its own.

    Returns:
        What is wrong and what to do; "" when nothing is known to be.
    """
    first = _FIRST.match(text)
    lower = text.lower()
    if first is not None and first[1].lower() not in _SUSPECT and "\\" not in text and "copy" not in lower:
        return ""
    plain = strip_sql(text)
    if not plain.strip(" \t\r\n;"):
        return "sql holds no statement: write one, or leave the job out"
    if _META.search(plain):
        return "a line that begins with a backslash is a command of psql, not SQL: leave it out"
    copying = _COPY.search(plain)
    if copying:
        return (
            "COPY to STDOUT or from STDIN has nobody to talk to, and stops pg_cron: copy to a file or a table"
        )
    if mode == "direct":
        return ""
    found = _NEEDS_DIRECT.match(plain)
    if found:
        words = " ".join(found[1].upper().split())
        if words.startswith("REINDEX") and "CONCURRENTLY" not in words:
            words = "This REINDEX"
        return f"{words} cannot run inside a transaction: it needs mode: direct"
    found = _TRANSACTION.match(plain)
    if found:
        words = " ".join(found[1].upper().split())
        return f"{words} cannot stand here: a run is one transaction already; leave it out"
    return ""


def strip_sql(text: str) -> str:
    """Blank out whatever is no SQL word.

    Args:
        text: SQL.

    Returns:
        The text with a blank for each comment, and for each text, quoted name and dollar quote an `''`.
    """
    parts: list[str] = []
    position = 0
    for start, end in _find_opaque(text):
        parts.append(text[position:start])
        parts.append(" " if text.startswith(("--", "/*"), start) else "''")
        position = end
    parts.append(text[position:])
    return "".join(parts)


def split_statements(text: str) -> tuple[str, ...]:
    """Split SQL into its statements, after the rules of PostgreSQL's own psql.

    A semicolon ends a statement unless it stands in a text, a name, a comment, parentheses (CREATE RULE) or
    the body of a routine in standard SQL (BEGIN ATOMIC).

    Args:
        text: SQL.

    Returns:
        The statements as they are written, without their semicolons; none that holds nothing but comments.
    """
    opaque = list(_find_opaque(text))
    plain = _blank(text, opaque)
    # What holds nothing but comments is no statement, but a quoted text may be part of one.
    words = _blank(text, [span for span in opaque if text.startswith(("--", "/*"), span[0])])
    statements = []
    begin = depth = blocks = 0
    for mark in [*_MARK.finditer(plain), None]:
        what = mark[0].lower() if mark else ";"
        end = mark.start() if mark else len(text)
        if what == "(":
            depth += 1
        elif what == ")":
            depth = max(depth - 1, 0)
        elif what.startswith("begin"):
            blocks += _ROUTINE.match(plain, begin) is not None
        elif what == "case":
            blocks += blocks > 0
        elif what == "end":
            blocks -= blocks > 0
        elif mark is None or not (depth or blocks):
            if words[begin:end].strip():
                statements.append(text[begin:end].strip())
            begin, depth, blocks = end + 1, 0, 0
    return tuple(statements)


def _find_opaque(text: str) -> Iterator[tuple[int, int]]:
    """Find where words are no SQL: from where to where."""
    position = 0
    while (match := _OPAQUE.search(text, position)) is not None:
        position = match.end() if match[0] != "/*" else _skip_comment(text, match.end())
        yield match.start(), position


def _blank(text: str, spans: list[tuple[int, int]]) -> str:
    """Put blanks in the place of some parts, so that all others stay where they are."""
    parts: list[str] = []
    position = 0
    for start, end in spans:
        parts += (text[position:start], " " * (end - start))
        position = end
    return "".join([*parts, text[position:]])


def _skip_comment(text: str, position: int) -> int:
    """Skip a comment; PostgreSQL nests them."""
    depth = 1
    for match in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)
