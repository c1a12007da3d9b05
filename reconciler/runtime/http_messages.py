"""A call over HTTP and its answer as plain values; knows no web framework and no platform."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.endpoint_requests import Problem

_MOST: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What came in.

    Attributes:
        method: In capitals.
        query: What follows the question mark, as it was sent.
        headers: By name, in any case; several of one name with commas between them.
        body: As it was sent.
    """

    method: str = "POST"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def read_query(self) -> list[tuple[str, str]] | None:
        """Read the query's parameters.

        Returns:
            Name and value of each; None where it is not in UTF-8, or holds too many.
        """
        try:
            return parse_qsl(self.query, keep_blank_values=True, errors="strict", max_num_fields=_MOST)
        except ValueError:
            return None

    def find_header(self, name: str) -> str | None:
        """Find a header, whatever the case of its name.

        Args:
            name: In small letters.

        Returns:
            Its value.
        """
        return next((value for key, value in self.headers.items() if key.lower() == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes out.

    Attributes:
        status: The HTTP status.
        headers: By name.
        body: JSON in UTF-8.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as a value."""
        return json.loads(self.body)


def make_answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer of a document.

    Args:
        document: What JSON can hold.
        status: The HTTP status.
        headers: More headers.

    Returns:
        The answer, which nobody on its way keeps.
    """
    return _make(document, "application/json", status, headers or {})


def make_problem_answer(problem: Problem) -> Answer:
    """Make an answer of a problem, after RFC 9457.

    Args:
        problem: Why the call is not answered as asked.

    Returns:
        The answer; `remedy` says what to do.
    """
    document = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "remedy": problem.remedy,
    }
    return _make(document, "application/problem+json", problem.status, problem.headers)


def _make(document: object, content_type: str, status: int, headers: Mapping[str, str]) -> Answer:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(
        status=status,
        headers={"Content-Type": content_type, "Cache-Control": "no-store", **headers},
        body=body,
    )
