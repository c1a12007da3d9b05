"""What a change changes, as lines that are removed and added: made of the JSON of a plan; pure."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_DIFF_LINES: Final = 4_000
_IN_PLACE: Final = frozenset({"update", "retire", "release"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some lines of one change.

    Attributes:
        lines: Each begins with `- `, `+ `, two blanks, or `@@`.
        title: The path of a long text; "" for the plain fields.
        words: How many lines differ, in words; "" for the plain fields.
    """

    lines: Sequence[str]
    title: str = ""
    words: str = ""


def list_parts(change: Mapping[str, Any]) -> Iterator[Part]:
    """List what differs: plain fields together, each long text for itself.

    Args:
        change: Of the JSON of a plan; one of a revision is like it.

    Yields:
        The plain fields first, without a title; their part may be empty.
    """
    if change["action"] == "adopt":
        return
    if change["action"] in _IN_PLACE:
        values = [(field["path"], field["before"], field["after"]) for field in change["fields"]]
    else:
        is_new = change["action"] == "create"
        flat = _flatten(change["after" if is_new else "before"] or {})
        values = [(path, None, value) if is_new else (path, value, None) for path, value in flat]
    texts = [value for value in values if _is_text(value[1]) or _is_text(value[2])]
    lines: list[str] = []
    for path, before, after in values:
        if _is_text(before) or _is_text(after):
            continue
        lines += [
            f"{sign} {_show_field(path, value)}"
            for sign, value in (("-", before), ("+", after))
            if value is not None
        ]
    yield Part(lines=lines)
    for path, before, after in texts:
        yield _diff_text(path, before, after)


def _flatten(snapshot: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a resource is declared as, and its entry; what says nothing new is left out."""
    spec, entry = snapshot.get("spec") or {}, snapshot.get("entry") or {}
    yield from spec.items()
    for key, value in entry.items():
        if key == "name" or (key == "active" and value) or value in (spec.get("sql"), spec.get(key)):
            continue
        yield f"entry.{key}", value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value.strip("\n")


def _show_field(path: str, value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"{path}: {line}".replace("\n", " ")  # a key of a payload may hold anything


def _diff_text(path: str, before: Any, after: Any) -> Part:
    old, new = _split(before), _split(after)
    if len(old) + len(new) > _DIFF_LINES:
        return Part(
            title=path,
            words=f"{len(old)} lines before, {len(new)} after",
            lines=["  too long to compare here"],
        )
    if not old or not new:
        sign, lines = ("+", new) if new else ("-", old)
        return Part(title=path, words=count_lines(len(lines)), lines=[f"{sign} {line}" for line in lines])
    lines = [
        line if line.startswith("@@") else f"{line[0]} {line[1:]}"
        for line in list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:]
    ]
    if not lines:
        lines = ["  only the line feed at the end differs"]
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return Part(title=path, words=f"{count_lines(added)} added, {removed} removed", lines=lines)


def _split(value: Any) -> list[str]:
    if value is None:
        return []
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.removesuffix("\n").split("\n")


def count_lines(lines: int) -> str:
    """Spell how many lines there are."""
    return f"{lines} line{'' if lines == 1 else 's'}"
