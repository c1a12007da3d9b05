"""Put foreign texts into Markdown so that they stay texts: none of them links, mentions, closes or commands.

Made for comments on GitHub and GitLab. There are three safe places, and no fourth: a code span, a fence
longer than any run of backticks in it, and words that are plain by a list of what is allowed. Knows no plan.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICKS: Final = re.compile(r"`+")
_PLAIN: Final = re.compile(r"(?!.*(?i:www))\(?(?:[A-Za-z]+(?:['-][A-Za-z]+)*|[0-9]{1,6})\)?[,;:.!?]?")
"""A word without anything that Markdown or a forge reads: no dot inside, none of @ # ! ~ & / _ * < [ `.

Not even `www.` at the end of a sentence: GitHub's Markdown makes a link of it.
"""
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
# Letters and marks without a shape of their own: fillers, joiners, variation selectors.
_SHAPELESS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    *map(chr, range(0x180B, 0x1810)),
    *map(chr, range(0xFE00, 0xFE10)),
    *map(chr, range(0xE0100, 0xE01F0)),
}


def reveal(text: str) -> str:
    """Write out what cannot be seen: controls, zero-width and direction characters, odd blanks.

    Args:
        text: Anything, lone surrogates included.

    Returns:
        The text with each of them as `<U+200B>`; blanks, tabs and line feeds stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_seen(character) else f"<U+{ord(character):04X}>" for character in text)


def _is_seen(character: str) -> bool:
    if character in " \t\n":
        return True
    return unicodedata.category(character) not in _HIDDEN and character not in _SHAPELESS


def measure(text: str) -> int:
    """Measure a text as strictly as any forge does.

    Args:
        text: Without lone surrogates.

    Returns:
        UTF-16 code units: characters, those beyond the basic plane twice.
    """
    return len(text) + sum(character > "\uffff" for character in text)


def shorten(text: str, most: int) -> str:
    """Cut a long text, and say so.

    Args:
        text: To cut.
        most: Characters to keep.

    Returns:
        At most so many characters, and how many there are more.
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"


def span(text: str, most: int = 300) -> str:
    """Write a text as a code span, in which nothing is read.

    Args:
        text: Anything.
        most: Characters to keep.

    Returns:
        The span on one line; `(none)` for a text of blanks.
    """
    line = shorten(" ".join(reveal(text).split()), most)
    if not line:
        return "(none)"
    ticks = "`" * (1 + _longest_run(line))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def prose(text: str, most: int = 600) -> str:
    """Write a sentence: its plain words as they are, everything else as code spans.

    Args:
        text: Anything; it must not stand at the beginning of a line.
        most: Characters to keep.

    Returns:
        One line.
    """
    parts: list[str] = []
    odd: list[str] = []
    for word in shorten(" ".join(reveal(text).split()), most).split(" "):
        if _PLAIN.fullmatch(word):
            if odd:
                parts.append(span(" ".join(odd), most * 2))
                odd = []
            parts.append(word)
        else:
            odd.append(word)
    if odd:
        parts.append(span(" ".join(odd), most * 2))
    return " ".join(parts)


def fence(lines: Iterable[str], *, language: str = "diff") -> str:
    """Write lines as a fenced block.

    Args:
        lines: Each without a line feed. Each has to begin with a sign or a blank of ours: GitLab once took a
            line that begins with a slash for a command, whatever the length of the fence around it.
        language: For the colours.

    Returns:
        The block, its fence longer than any run of backticks in it.
    """
    text = "\n".join(lines)
    ticks = "`" * max(3, 1 + _longest_run(text))
    return f"{ticks}{language}\n{text}\n{ticks}"


def fold(title: str, text: str, block: str) -> str:
    """Fold a block under a title.

    Args:
        title: Foreign text, shown as code: in this place GitHub and GitLab read HTML alone.
        text: Our own words behind it.
        block: Markdown.

    Returns:
        A block that opens with a click.
    """
    name = html.escape(shorten(" ".join(reveal(title).split()), 200))
    return f"<details><summary><code>{name}</code> {html.escape(text)}</summary>\n\n{block}\n\n</details>"


def _longest_run(text: str) -> int:
    return max((len(run) for run in _TICKS.findall(text)), default=0)
