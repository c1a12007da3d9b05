"""Find the place of a value in a YAML text again; used only when there is something to report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from yaml import YAMLError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Path: TypeAlias = "Sequence[str | int]"


@dataclass(slots=True, kw_only=True)
class Node:
    """A value and where it is.

    Attributes:
        line: From 1.
        column: From 1.
        keys: Line and column of each key, the first where one comes twice; a mapping only.
        children: The values, by key or by number from 0.
    """

    line: int
    column: int
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    children: dict[str | int, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A key that comes a second time.

    Attributes:
        key: The key.
        line: Of the second one, from 1.
        column: Of the second one, from 1.
        first_line: Of the first one, from 1.
    """

    key: str
    line: int
    column: int
    first_line: int


class Places:
    """The places of all values of one text.

    Attributes:
        root: The whole document; None when it is empty.
        duplicates: Keys that come twice, in their order.
    """

    def __init__(self, text: str) -> None:
        self.root: Node | None = None
        self.duplicates: list[Duplicate] = []
        with suppress(YAMLError):  # a broken text has places up to where it breaks
            self._walk(CParser(text))

    def _walk(self, parser: CParser) -> None:
        anchors: dict[str, Node] = {}
        stack: list[tuple[Node, bool]] = []
        key: str | None = None
        next_event: Callable[[], Any] = parser.get_event
        while (event := next_event()) is not None:
            if isinstance(event, CollectionEndEvent):
                stack.pop()
                key = None
                continue
            if not isinstance(event, ScalarEvent | AliasEvent | MappingStartEvent | SequenceStartEvent):
                continue
            mark: Any = event.start_mark
            line, column = mark.line + 1, mark.column + 1
            if isinstance(event, ScalarEvent) and stack and stack[-1][1] and key is None:
                key = event.value
                self._note_key(stack[-1][0], key, line, column)
                continue
            node = Node(line=line, column=column)
            if isinstance(event, AliasEvent):
                if event.anchor in anchors:
                    node.keys, node.children = anchors[event.anchor].keys, anchors[event.anchor].children
            elif event.anchor is not None:
                anchors[event.anchor] = node
            if stack:
                parent, is_mapping = stack[-1]
                parent.children[(key or "") if is_mapping else len(parent.children)] = node
                key = None
            elif self.root is None:
                self.root = node
            if isinstance(event, MappingStartEvent | SequenceStartEvent):
                stack.append((node, isinstance(event, MappingStartEvent)))

    def _note_key(self, node: Node, key: str, line: int, column: int) -> None:
        if key in node.keys:
            first = node.keys[key][0]
            self.duplicates.append(Duplicate(key=key, line=line, column=column, first_line=first))
        else:
            node.keys[key] = (line, column)

    def find(self, path: Iterable[str | int]) -> tuple[int, int]:
        """Find a value.

        Args:
            path: Keys and numbers from 0, from the top.

        Returns:
            Line and column, from 1, of the value, or of the nearest value around it.
        """
        node = self.root
        if node is None:
            return 1, 1
        for step in path:
            if step not in node.children:
                break
            node = node.children[step]
        return node.line, node.column

    def has(self, path: Path) -> bool:
        """Tell whether there is such a value.

        Args:
            path: Keys and numbers from 0, from the top.

        Returns:
            True when there is.
        """
        node = self.root
        for step in path:
            node = None if node is None else node.children.get(step)
        return node is not None

    def find_key(self, path: Path) -> tuple[int, int]:
        """Find a key.

        Args:
            path: Keys and numbers from the top; the last one is the key.

        Returns:
            Line and column, from 1, of the key, or of the nearest value around it.
        """
        node = self.root
        if node is None or not path:
            return self.find(path)
        for step in path[:-1]:
            if step not in node.children:
                return node.line, node.column
            node = node.children[step]
        last = path[-1]
        if isinstance(last, str) and last in node.keys:
            return node.keys[last]
        return self.find(path)
