"""Put libyaml's messages about broken YAML into plain words; knows no file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from yaml.error import MarkedYAMLError

if TYPE_CHECKING:
    from yaml import YAMLError

# Characters that YAML does not take, and those that are line breaks for YAML 1.1 and not for YAML 1.2.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_ODD_BREAKS: Final = re.compile("[\x85\u2028\u2029]")
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")

_QUOTE_SCHEDULE: Final = 'an unquoted * begins an alias: quote the value, for instance schedule: "* * * * *"'
_PHRASES: Final = (
    ("did not find expected alphabetic or numeric character", _QUOTE_SCHEDULE),
    (
        "did not find expected '-' indicator",
        "this line does not fit the list above it: indent it as its neighbours",
    ),
    (
        "did not find expected <document start>",
        "nothing may follow here: indent this line as its neighbours",
    ),
    (
        "did not find expected ',' or ']'",
        ("a list that begins with [ is not closed here: a comma or ] is missing, or a value needs quotes"),
    ),
    (
        "did not find expected ',' or '}'",
        (
            "a mapping that begins with { is not closed here: a comma or } is missing, or a value "
            'needs quotes, such as "${var:name}"'
        ),
    ),
    (
        "did not find expected key",
        ("this does not fit the lines above it: indent it as its neighbours, or quote the value before it"),
    ),
    (
        "did not find expected node content",
        "a value is missing here; quote it if it begins with a special sign",
    ),
    (
        "mapping values are not allowed in this context",
        ("a colon with a blank after it cannot stand here: quote the value, or mend the indentation"),
    ),
    (
        "block sequence entries are not allowed in this context",
        "a list cannot begin here: put it on the next line",
    ),
    (
        "found character that cannot start any token",
        "a value cannot begin with this character: quote it; indent with blanks, never with tabs",
    ),
    (
        "found a tab character",
        "indent with blanks, never with tabs",
    ),
    (
        "could not find expected ':'",
        "a colon is missing after this key",
    ),
    (
        "found unexpected end of stream",
        "a quote is opened and never closed",
    ),
    (
        "found unexpected document indicator",
        "a quote is opened and never closed",
    ),
    (
        "found unknown escape character",
        ("a backslash in double quotes needs a known letter after it: write \\\\, or use single quotes"),
    ),
    (
        "did not find expected hexdecimal number",
        "a \\x, \\u or \\U needs its hexadecimal digits after it",
    ),
    (
        "found invalid Unicode character escape code",
        "this escape is half a character: write the character itself, or \\U with its eight digits",
    ),
    (
        "found undefined tag handle",
        "tags are not read: leave it out, quote a value that is a text",
    ),
)


def split_lines(text: str) -> list[str]:
    """Split a text into lines as YAML counts them.

    Args:
        text: The file.

    Returns:
        The lines without their ends; at least one.
    """
    return _LINE_BREAK.split(text)


def describe_breaks(text: str) -> tuple[int, int, str] | None:
    """Find a character that versions of YAML count as a line break or not.

    Args:
        text: The file.

    Returns:
        Line and column, from 1, and what to write; None when there is no such character.
    """
    if text.isascii():
        return None
    found = _ODD_BREAKS.search(text)
    return None if found is None else (*_count(text, found.start()), _describe_character(found[0]))


def describe_yaml_error(error: YAMLError, text: str) -> tuple[int, int, str]:
    """Say what broke the reading.

    Args:
        error: What libyaml raised.
        text: What it read.

    Returns:
        Line and column, from 1, and what is wrong with what to write.
    """
    if not isinstance(error, MarkedYAMLError):
        found = _FORBIDDEN.search(text)
        if found is None:
            return 1, 1, "this is no YAML text"
        return (*_count(text, found.start()), _describe_character(found[0]))
    problem = str(error.problem or "this is no YAML")
    context = str(error.context or "")
    mark = error.problem_mark or error.context_mark
    unclosed = problem.startswith(("found unexpected end", "found unexpected document"))
    if unclosed and error.context_mark is not None:
        mark = error.context_mark
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    if "anchor" in context and "alphabetic" in problem:
        return line, column, "an unquoted & begins an anchor: quote the value"
    character = _pick_character(text, line, column)
    if character == "\t":
        return line, column, "indent with blanks, never with tabs"
    if "cannot start any token" in problem and character:
        return line, column, f"a value cannot begin with {character}: quote it"
    for phrase, plain in _PHRASES:
        if phrase in problem:
            return line, column, plain
    return line, column, " ".join(part for part in (context, problem) if part)


def _pick_character(text: str, line: int, column: int) -> str:
    lines = split_lines(text)
    return lines[line - 1][column - 1 : column] if line <= len(lines) else ""


def _count(text: str, offset: int) -> tuple[int, int]:
    lines = split_lines(text[:offset])
    return len(lines), len(lines[-1]) + 1


def _describe_character(character: str) -> str:
    code = ord(character)
    if code == 0:
        return "the file holds a NUL byte: it is no text, or not UTF-8"
    escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return (
        f'the character U+{code:04X} cannot stand in YAML: leave it out, or write "{escape}" in double quotes'
    )
