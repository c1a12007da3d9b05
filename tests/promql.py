"""Read which metrics and labels an expression of PromQL asks for; enough of the language for our own."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"(?<![\w$:])([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w$:.\[])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")
_MATCHER = re.compile(r"\s*([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*\"\"\s*(?:,|$)")
_WORDS = frozenset(("and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on", "ignoring"))
_UNITS = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an expression asks for.

    Attributes:
        labels: Of each metric, by its name: those that it is selected by.
        grouped: Labels that series are grouped or joined by.
    """

    labels: dict[str, set[str]]
    grouped: set[str]


def read_expression(text: str) -> Wanted:
    """Read an expression.

    Args:
        text: In PromQL; variables of Grafana begin with a dollar sign.

    Raises:
        ValueError: A selector cannot be read.
    """
    text = _UNITS.sub("", _STRING.sub('""', text))
    labels: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(text):
        found = labels.setdefault(name, set())
        rest = matchers
        while rest.strip():
            matched = _MATCHER.match(rest)
            if matched is None:
                raise ValueError(f"{matchers!r} in {text!r} cannot be read")
            found.add(matched[1])
            rest = rest[matched.end() :]
    grouped = {
        label.strip() for _, names in _GROUPING.findall(text) for label in names.split(",") if label.strip()
    }
    bare = _GROUPING.sub(" ", _SELECTOR.sub(" ", text))
    for name in _NAME.findall(bare):
        if name.lower() not in _WORDS and not re.fullmatch(r"[0-9.]+\w*", name):
            labels.setdefault(name, set())
    return Wanted(labels=labels, grouped=grouped)
