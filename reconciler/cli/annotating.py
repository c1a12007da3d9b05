"""Errors where reviewers see them: annotations of GitHub, a code quality report of GitLab. Reads no file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import click

from reconciler.cli.exits import pick_exit_code
from reconciler.core.markdown import reveal
from reconciler.errors import InvalidInputError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_Function = TypeVar("_Function", bound="Callable[..., int]")

_PLACED: Final = re.compile(r"(.+?):(\d+):(\d+): (.*)", re.DOTALL)
_SHOWN_LINE: Final = re.compile(r"\n {4}[^\n]*\n {4} *\^$")
"""The offending line and the caret below it: whoever sees the annotation sees the line."""
_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})
_NOWHERE: Final = "reconciler.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One problem at its place.

    Attributes:
        path: The file, seen from the top of the repository; "" for a problem of no file.
        line: From 1.
        column: From 1.
        message: What is wrong and what to do; may have several lines.
    """

    path: str
    line: int
    column: int
    message: str


def list_annotations(error: ReconcilerError, environment: Mapping[str, str]) -> Iterator[Annotation]:
    """List what an error says, each problem for itself.

    Args:
        error: That ended a command.
        environment: The variables: forges say where the repository lies.

    Yields:
        The problems in their order.
    """
    texts = error.problems if isinstance(error, InvalidInputError) else (str(error),)
    top = environment.get("GITHUB_WORKSPACE") or environment.get("CI_PROJECT_DIR") or ""
    for text in texts:
        placed = _PLACED.fullmatch(text) if isinstance(error, InvalidInputError) else None
        if placed is None:
            yield Annotation(path="", line=1, column=1, message=reveal(text))
            continue
        yield Annotation(
            path=_find_path(placed[1], top),
            line=int(placed[2]),
            column=int(placed[3]),
            message=reveal(_SHOWN_LINE.sub("", placed[4])),
        )


def _find_path(path: str, top: str) -> str:
    """Name a file as seen from the top of the repository; forges know no other name of it."""
    whole = os.path.realpath(path)
    folder = os.path.join(os.path.realpath(top), "") if top else ""  # noqa: PTH118 - a prefix
    return whole.removeprefix(folder) if folder and whole.startswith(folder) else path


def render_github(annotations: Iterable[Annotation]) -> str:
    """Render workflow commands, which GitHub shows at their lines (ten of a step).

    Args:
        annotations: The problems.

    Returns:
        One line each; nothing in a problem can end its line or begin another command.
    """
    lines = []
    for one in annotations:
        properties = {"file": one.path, "line": str(one.line), "col": str(one.column)} if one.path else {}
        shown = [f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items()]
        lines.append(f"::error {','.join([*shown, 'title=reconciler'])}::{one.message.translate(_DATA)}\n")
    return "".join(lines)


def render_gitlab(annotations: Iterable[Annotation]) -> str:
    """Render a code quality report.

    Args:
        annotations: The problems.

    Returns:
        Indented JSON. Fingerprints are of path and message, not of the line: one that moves is the same.
    """
    seen: dict[tuple[str, str], int] = {}
    report = []
    for one in annotations:
        key = (one.path, one.message)
        seen[key] = seen.get(key, 0) + 1
        report.append(
            {
                "description": one.message,
                "check_name": "reconciler",
                "fingerprint": hashlib.sha256(json.dumps([*key, seen[key]]).encode()).hexdigest(),
                "severity": "major",
                "location": {"path": one.path or _NOWHERE, "lines": {"begin": one.line}},
            }
        )
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def annotate_option(function: _Function) -> _Function:
    """Add the option --annotate, with which errors are shown at their places on GitHub.

    Args:
        function: The command.

    Returns:
        A command that does not raise errors of ours then: it prints them to standard error, and nothing of
        files but the problems, since GitHub reads what a step prints as commands.
    """

    @functools.wraps(function)
    def annotated(*args: object, annotate: str | None, **kwargs: object) -> int:
        try:
            return function(*args, **kwargs)
        except ReconcilerError as error:
            if annotate is None:
                raise
            click.echo(render_github(list_annotations(error, os.environ)), nl=False, err=True)
            return pick_exit_code(error)

    option = click.option(
        "--annotate",
        type=click.Choice(("github",)),
        help="Show problems at their lines there, and not as text.",
    )
    return option(annotated)  # type: ignore[return-value] # click keeps what a decorator gets
