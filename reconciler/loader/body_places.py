"""Find where a part of a SQL body stands in its file; used only when there is something to say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from yaml.nodes import MappingNode, ScalarNode

from reconciler.core.specs import Place
from reconciler.loader.yaml_faults import split_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yaml.nodes import Node


class BodyPlaces:
    """The bodies of spec files; each file is read once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[list[str], dict[tuple[int, int], ScalarNode]]] = {}

    def find(self, place: Place, body: str, offset: int | None) -> Place:
        """Find a character of a body.

        Args:
            place: Of the job's name.
            body: Its SQL.
            offset: Of the character; None for none in particular.

        Returns:
            Its place; that of the job's name where the body is not written there as it is, since variables,
            overrides or defaults made it, and that of the body where its lines are folded.
        """
        if place.path not in self._files:
            self._files[place.path] = _read(place.path)
        lines, bodies = self._files[place.path]
        node = bodies.get((place.line, place.column))
        if node is None or node.value != body or offset is None:
            return place
        start = node.start_mark
        before = body[:offset]
        if node.style == "|":
            number = start.line + 1 + before.count("\n")
            line = body.split("\n")[before.count("\n")]
            column = offset - (before.rfind("\n") + 1)
            if number < len(lines) and lines[number].endswith(line):
                column += len(lines[number]) - len(line)
                return Place(path=place.path, line=number + 1, column=column + 1)
        begin = start.column + (node.style in {'"', "'"})
        if start.line < len(lines) and lines[start.line].startswith(body, begin):
            return Place(path=place.path, line=start.line + 1, column=begin + offset + 1)
        return Place(path=place.path, line=start.line + 1, column=start.column + 1)


def _read(path: str) -> tuple[list[str], dict[tuple[int, int], ScalarNode]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return [], {}
    bodies = {}
    for _, jobs in _list_items(root, "jobs"):
        for key, job in _list_items(jobs):
            for _, body in _list_items(job, "sql"):
                if isinstance(body, ScalarNode):
                    bodies[key.start_mark.line + 1, key.start_mark.column + 1] = body
    return split_lines(text), bodies


def _list_items(node: Node | None, wanted: str = "") -> Iterator[tuple[Node, Node]]:
    if isinstance(node, MappingNode):
        yield from (pair for pair in node.value if wanted in {"", pair[0].value})
