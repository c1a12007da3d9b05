"""Read one strict YAML document from text; knows no file and no schema.

The values are built from libyaml's events, which takes a third of the time of a general loader. Only names of
resources keep their place; `yaml_places` finds every other one again when a problem has to be shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from yaml import YAMLError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from reconciler.loader.yaml_faults import describe_breaks, describe_yaml_error
from reconciler.loader.yaml_scalars import NUMERIC, WORDS, resolve_scalar

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH_LIMIT = 64
"""Levels of nesting; a payload of more is a mistake, and readers of JSON have limits too."""

NODE_LIMIT = 1_000_000
"""Values of a document when all of its aliases are written out: a small file can name billions."""

_SPECIAL = frozenset({*WORDS, "<<"})

Value: TypeAlias = Any
Names: TypeAlias = dict[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFault:
    """What is wrong with a document.

    Attributes:
        line: From 1.
        column: From 1.
        message: What is wrong and what to write.
    """

    line: int
    column: int
    message: str


@dataclass(slots=True, kw_only=True)
class Reading:
    """What was read.

    Attributes:
        value: Dictionaries with text as keys, lists, text, numbers, booleans and None. Aliases share their
            value: never change it. Not to be used when there are faults.
        names: Line and column, from 1, of each key of the second level, by section and name.
        faults: What is wrong; after broken syntax nothing more is looked for.
        has_duplicates: Some key comes twice in one mapping; `yaml_places` says where.
    """

    value: Value = None
    names: Names = field(default_factory=dict)
    faults: list[YamlFault] = field(default_factory=list)
    has_duplicates: bool = False


def read_yaml(text: str) -> Reading:
    """Read a document.

    Args:
        text: The whole file, without a byte order mark.

    Returns:
        The value, or what is wrong.
    """
    reading = Reading()
    fault = describe_breaks(text)
    if fault is not None:
        reading.faults.append(YamlFault(line=fault[0], column=fault[1], message=fault[2]))
        return reading
    builder = _Builder(reading)
    try:
        builder.build(CParser(text))
    except _StopError:
        pass
    except YAMLError as error:
        line, column, message = describe_yaml_error(error, text)
        reading.faults.append(YamlFault(line=line, column=column, message=message))
    return reading


class _StopError(Exception):
    """A fault after which the rest of the document means nothing."""


class _Builder:
    """The state of one reading: containers that are open, anchors, and faults."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.anchors: dict[str, Value] = {}
        self.open: list[Value] = []

    def build(self, parser: CParser) -> None:
        """Build the value from a parser's events."""
        value = self._build_all(parser)
        if self.anchors and not self.reading.faults:
            self._check_expansion(value)
        self.reading.value = value

    def _build_all(self, parser: CParser) -> Value:  # noqa: PLR0912, PLR0915 - one hot loop: calls would double its time
        next_event: Callable[[], Any] = parser.get_event
        stack: list[tuple[Value, str | None]] = []
        names = self.reading.names
        special, numeric = _SPECIAL, NUMERIC
        root: Value = None
        documents = 0
        container: Value = None
        key: str | None = None
        in_mapping = False
        while (event := next_event()) is not None:
            kind = event.__class__
            if kind is ScalarEvent:
                value: Value = event.value
                if in_mapping and key is None:
                    if (
                        event.tag is not None
                        or event.anchor is not None
                        or (not event.style and (value in special or value[0] in numeric))
                    ):
                        self._check_key(event)
                    if value in container:
                        self.reading.has_duplicates = True
                    elif len(stack) == 2:
                        mark = event.start_mark
                        names[(stack[1][1] or "", value)] = (mark.line + 1, mark.column + 1)
                    container[value] = None
                    key = value
                    continue
                if not event.style and (value in special or value[0] in numeric):
                    value = self._resolve(event)
                if event.tag is not None:
                    self._refuse_tag(event)
                if event.anchor is not None:
                    self.anchors[event.anchor] = value
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                value = {} if kind is MappingStartEvent else []
                self._check_start(event, len(stack), in_mapping=in_mapping, key=key)
                if event.anchor is not None:
                    self.anchors[event.anchor] = value
                    self.open.append(value)
                if in_mapping:
                    container[key] = value
                elif container is not None:
                    container.append(value)
                else:
                    root = value
                stack.append((container, key))
                container, key, in_mapping = value, None, kind is MappingStartEvent
                continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                if self.open and self.open[-1] is container:
                    self.open.pop()
                container, _ = stack.pop()
                key, in_mapping = None, container.__class__ is dict
                continue
            elif kind is AliasEvent:
                value = self._find_alias(event)
                if in_mapping and key is None:
                    self._stop(event, "an alias cannot be a key: write the key out")
            else:
                if kind is DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self._stop(event, "a second document begins here: put it into a file of its own")
                continue
            if in_mapping:
                container[key] = value
                key = None
            elif container is not None:
                container.append(value)
            else:
                root = value
        return root

    def _fault(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.reading.faults.append(YamlFault(line=mark.line + 1, column=mark.column + 1, message=message))

    def _stop(self, event: Any, message: str) -> None:
        self._fault(event, message)
        raise _StopError

    def _refuse_tag(self, event: Any) -> None:
        self._fault(
            event,
            f"tags such as {_spell_tag(event.tag)} are not read: leave it out, quote a value that is a text",
        )

    def _check_key(self, event: Any) -> None:
        if event.tag is not None:
            self._refuse_tag(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = event.value
        if event.style:
            return
        if event.value == "<<":
            self._fault(event, "merge keys (<<) are not read: write what jobs share under defaults:")
        elif not event.value:
            self._fault(event, "a key is missing before the colon")
        else:
            value = self._resolve(event)
            if not isinstance(value, str):
                self._fault(event, f'the key {event.value} is no text: write "{event.value}"')

    def _resolve(self, event: Any) -> Value:
        try:
            return resolve_scalar(event.value)
        except ValueError as error:
            self._fault(event, str(error))
            return None

    def _check_start(self, event: Any, depth: int, *, in_mapping: bool, key: str | None) -> None:
        if depth >= DEPTH_LIMIT:
            self._stop(event, f"this is nested deeper than {DEPTH_LIMIT} levels: flatten it")
        if in_mapping and key is None:
            self._stop(event, "a list or mapping cannot be a key: keys are text")
        if event.tag is not None:
            self._refuse_tag(event)

    def _find_alias(self, event: Any) -> Value:
        name = event.anchor
        if name not in self.anchors:
            self._fault(
                event, f"*{name} is an alias, and there is no anchor &{name}: if it is a text, quote it"
            )
            return None
        value = self.anchors[name]
        if any(value is parent for parent in self.open):
            self._stop(event, f"*{name} stands inside of &{name}, which would never end")
        return value

    def _check_expansion(self, root: Value) -> None:
        """Refuse a document whose aliases, written out, make it huge or deep. Each value is measured once."""
        sizes: dict[int, tuple[int, int]] = {}
        pending = [root]
        while pending:
            value = pending[-1]
            children = _children(value)
            unmeasured = [child for child in children if id(child) not in sizes and _children(child)]
            if unmeasured:
                pending.extend(unmeasured)
                continue
            pending.pop()
            measures = [sizes[id(child)] if _children(child) else (_weigh(child), 0) for child in children]
            count = 1 + sum(size for size, _ in measures)
            sizes[id(value)] = (count, 1 + max((height for _, height in measures), default=0))
        count, height = sizes[id(root)]
        fault = ""
        if count > NODE_LIMIT:
            fault = f"written out, the aliases of this file are more than {NODE_LIMIT:,} values: write fewer"
        elif height > DEPTH_LIMIT + 1:
            fault = f"written out, the aliases of this file nest deeper than {DEPTH_LIMIT} levels: flatten it"
        if fault:
            self.reading.faults.append(YamlFault(line=1, column=1, message=fault))


def _children(value: Value) -> list[Value]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _weigh(value: Value) -> int:
    """Count a scalar; a long text counts as several, so that aliases of it are bounded too."""
    return 1 + len(value) // 64 if isinstance(value, str) else 1


def _spell_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
