"""Show problems of files to people: where, what, the line itself. Knows no format of the files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.loader.yaml_faults import split_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.core.specs import Place

# A connection string with its password may stand in a line that is shown for something else.
_PASSWORD = re.compile(r"(://[^:/@\s]*:|\bpassword\s*=\s*)([^@\s,}\"']+)")
_WIDTH = 160
_BEFORE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        place: Where.
        message: What is wrong and what to do.
        line_text: The offending line; "" where there is none to show.
    """

    place: Place
    message: str
    line_text: str = ""


def render_problem(problem: Problem) -> str:
    """Render a problem for people.

    Args:
        problem: The problem.

    Returns:
        `path:line:column: message`; below it the line and a caret under the column, when there is a line.
    """
    head = f"{problem.place}: {problem.message}"
    if not problem.line_text.strip():
        return head
    column = min(max(problem.place.column, 1), len(problem.line_text) + 1)
    # A line of thousands of characters is shown around its column only.
    start = max(0, column - 1 - _BEFORE) if len(problem.line_text) > _WIDTH else 0
    shown = problem.line_text[start : start + _WIDTH]
    shown = _PASSWORD.sub(lambda found: found[1] + "*" * len(found[2]), shown)
    readable = "".join(character if character.isprintable() else " " for character in shown)
    return f"{head}\n    {readable.rstrip()}\n    {' ' * (column - 1 - start)}^"


def render_problems(problems: Iterable[Problem]) -> list[str]:
    """Render problems in the order of their places, each once.

    Args:
        problems: In any order.

    Returns:
        What `InvalidInputError` takes.
    """
    ordered = sorted(
        set(problems), key=lambda one: (one.place.path, one.place.line, one.place.column, one.message)
    )
    return [render_problem(problem) for problem in ordered]


def describe_place(place: Place, message: str) -> str:
    """Render a problem whose line is read from its file.

    Args:
        place: Where.
        message: What is wrong and what to do.

    Returns:
        As `render_problem` does; without the line when the file cannot be read.
    """
    try:
        text = Path(place.path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        text = ""
    return render_problem(Problem(place=place, message=message, line_text=pick_line(text, place.line)))


def pick_line(text: str, line: int) -> str:
    """Pick one line of a text.

    Args:
        text: The file.
        line: From 1.

    Returns:
        The line without its end; "" when there is none.
    """
    lines = split_lines(text)
    return lines[line - 1] if 0 < line <= len(lines) else ""
