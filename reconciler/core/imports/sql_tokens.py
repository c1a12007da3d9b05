"""Cut SQL into tokens and statements by the lexical rules of PostgreSQL and psql; knows not what they mean.

The rules are those of PostgreSQL's scan.l and psqlscan.l from release 15 on, with standard_conforming_strings
on, as it is by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TokenKind = Literal["word", "name", "text", "number", "parameter", "bits", "mark", "meta"]

_BLANK: Final = re.compile(r"(?:[ \t\n\r\f\v]+|--[^\n\r]*)+")
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_LETTER: Final = r"A-Za-z_\u0080-\U0010ffff"
_WORD: Final = re.compile(rf"[{_LETTER}][{_LETTER}0-9$]*")
_NUMBER: Final = re.compile(
    r"(?:[0-9][0-9A-Za-z_]*(?:\.(?!\.)[0-9_]*)?|\.[0-9][0-9_]*)(?:(?<=[eE])[+-][0-9]+)?"
)
_PARAMETER: Final = re.compile(r"\$[0-9]+")
_DOLLAR: Final = re.compile(rf"\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$")
_QUOTED: Final = re.compile(r"(?:[^']|'')*+'")
_ESCAPED: Final = re.compile(r"(?:[^'\\]|''|\\.)*+'", re.DOTALL)
_QUOTED_NAME: Final = re.compile(r'(?:[^"]|"")++"')
# A literal goes on in the next one where a line ends between them; comments of the other kind part them.
_GOES_ON: Final = re.compile(r"(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'")
_UESCAPE: Final = re.compile(
    r"(?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*uescape(?:[ \t\n\r\f\v])*'([^'])'", re.IGNORECASE
)
_OPERATOR: Final = re.compile(r"[~!@#^&|`?+\-*/%<>=]+")
_FREE_SIGNS: Final = frozenset("~!@#%^&|`?")
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{1,3})|(.))|('')", re.DOTALL
)
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ASCII_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
# psql's commands that send what stands before them.
_SENDING: Final = re.compile(r"(?:g|gx|gdesc|gexec|gset|bind|watch|crosstabview|parse)(?:\s|\(|$)")
_DATA_END: Final = re.compile(r"^\\\.[ \t]*\r?$", re.MULTILINE)


class SqlTextError(ValueError):
    """A text that PostgreSQL cannot read either.

    Attributes:
        line: Where, from 1.
        reason: One clause.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token.

    Attributes:
        kind: word: a key word or a name without quotes. name: one with quotes. text: a literal. bits: B'' and
            X''. mark: everything between them. meta: a command of psql, to the end of its line.
        value: A word in lower case, as PostgreSQL folds it; the content of a name or literal.
        line: Where it begins, and the content of a literal too, from 1.
        start: Offset of its first character in the text that was cut.
        end: Offset after its last.
    """

    kind: TokenKind
    value: str
    line: int
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        """Tell whether it is one of these words, in lower case and without quotes."""
        return self.kind == "word" and self.value in words

    def is_mark(self, *marks: str) -> bool:
        """Tell whether it is one of these marks."""
        return self.kind == "mark" and self.value in marks

    def is_name(self, name: str) -> bool:
        """Tell whether it is this name, quoted or not."""
        return self.kind in {"word", "name"} and self.value == name


class _Cutter:
    """Cuts one text; `is_script` is True for what psql reads, False for the body of a routine."""

    def __init__(self, text: str, line: int, *, is_script: bool) -> None:
        self.text = text
        self.is_script = is_script
        self.place = 0
        self._line = line
        self._counted = 0

    def line_at(self, place: int) -> int:
        """Return the line of an offset that is not before those asked for."""
        self._line += self.text.count("\n", self._counted, place)
        self._counted = max(self._counted, place)
        return self._line

    def cut(self) -> Token | None:
        """Cut off the next token; None at the end."""
        self._skip_blanks()
        text, start = self.text, self.place
        if start >= len(text):
            return None
        sign = text[start]
        line = self.line_at(start)
        if sign == "'":
            return self._cut_text(start, start + 1, line)
        if sign in "eEnNbBxXuU" and (found := self._cut_prefixed(start, line)) is not None:
            return found
        if sign == '"':
            end = self._match(_QUOTED_NAME, start + 1, line, "a name in double quotes is not closed")
            return self._make("name", text[start + 1 : end - 1].replace('""', '"'), line, start, end)
        if sign == "$" and (opening := _DOLLAR.match(text, start)) is not None:
            close = text.find(opening[0], opening.end())
            if close < 0:
                raise SqlTextError(line, f"the quote {opening[0]} is not closed")
            end = close + len(opening[0])
            return self._make("text", text[opening.end() : close], line, start, end)
        if (word := _WORD.match(text, start)) is not None:
            return self._make("word", word[0].translate(_ASCII_LOWER), line, start, word.end())
        if (number := _NUMBER.match(text, start)) is not None:
            return self._make("number", number[0], line, start, number.end())
        if (parameter := _PARAMETER.match(text, start)) is not None:
            return self._make("parameter", parameter[0], line, start, parameter.end())
        if sign == "\\" and self.is_script:
            if text.startswith("\\;", start):
                return self._make("mark", ";", line, start, start + 2)
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            return self._make("meta", text[start + 1 : end].strip(), line, start, end)
        return self._cut_mark(start, line)

    def _skip_blanks(self) -> None:
        text = self.text
        while True:
            blank = _BLANK.match(text, self.place)
            if blank is not None:
                self.place = blank.end()
            if not text.startswith("/*", self.place):
                return
            depth, place, line = 1, self.place + 2, self.line_at(self.place)
            while depth:
                edge = _COMMENT_EDGE.search(text, place)
                if edge is None:
                    raise SqlTextError(line, "a comment is not closed")
                depth += 1 if edge[0] == "/*" else -1
                place = edge.end()
            self.place = place

    def _cut_prefixed(self, start: int, line: int) -> Token | None:
        """Cut E'', N'', B'', X'', U&'' and U&""; None where it is an ordinary word."""
        text, sign = self.text, self.text[start].lower()
        if sign == "u":
            if text.startswith("&'", start + 1):
                return self._cut_text(start, start + 3, line, prefix="u")
            if text.startswith('&"', start + 1):
                end = self._match(_QUOTED_NAME, start + 3, line, "a name in double quotes is not closed")
                raw = text[start + 3 : end - 1].replace('""', '"')
                return self._cut_unicode("name", raw, line, start, end)
            return None
        if not text.startswith("'", start + 1):
            return None
        if sign in "bx":
            end = self._match(_QUOTED, start + 2, line, "a literal is not closed")
            return self._make("bits", text[start:end], line, start, end)
        return self._cut_text(start, start + 2, line, prefix=sign)

    def _cut_text(self, start: int, inside: int, line: int, prefix: str = "") -> Token:
        pattern = _ESCAPED if prefix == "e" else _QUOTED
        raw: list[str] = []
        while True:
            end = self._match(pattern, inside, line, "a literal is not closed")
            raw.append(self.text[inside : end - 1])
            following = _GOES_ON.match(self.text, end)
            if following is None:
                break
            inside = following.end()
        content = "".join(raw)
        if prefix == "u":
            return self._cut_unicode("text", content.replace("''", "'"), line, start, end)
        value = _read_escapes(content, line) if prefix == "e" else content.replace("''", "'")
        return self._make("text", value, line, start, end)

    def _cut_unicode(self, kind: TokenKind, raw: str, line: int, start: int, end: int) -> Token:
        escape = "\\"
        clause = _UESCAPE.match(self.text, end)
        if clause is not None:
            escape, end = clause[1], clause.end()
        return self._make(kind, _read_unicode(raw, escape, line), line, start, end)

    def _cut_mark(self, start: int, line: int) -> Token:
        text = self.text
        for pair in ("::", ":=", ".."):
            if text.startswith(pair, start):
                return self._make("mark", pair, line, start, start + 2)
        operator = _OPERATOR.match(text, start)
        if operator is None:
            return self._make("mark", text[start], line, start, start + 1)
        signs = operator[0]
        for edge in ("--", "/*"):
            if edge in signs[1:]:
                signs = signs[: signs.index(edge, 1)]
        if len(signs) > 1 and not _FREE_SIGNS.intersection(signs):
            signs = signs.rstrip("+-") or signs[0]
        return self._make("mark", signs, line, start, start + len(signs))

    def _match(self, pattern: re.Pattern[str], start: int, line: int, reason: str) -> int:
        found = pattern.match(self.text, start)
        if found is None:
            raise SqlTextError(line, reason)
        return found.end()

    def _make(self, kind: TokenKind, value: str, line: int, start: int, end: int) -> Token:
        self.place = end
        return Token(kind=kind, value=value, line=line, start=start, end=end)


def _read_escapes(raw: str, line: int) -> str:
    """Read what E'' means; octal and hexadecimal escapes are bytes, of which several make one character."""

    def encode(match: re.Match[str]) -> str:
        two, four, eight, octal, letter, quotes = match.groups()
        if quotes:
            return "'"
        if letter is not None:
            return _LETTERS.get(letter, letter)
        if four or eight:
            return chr(int(four or eight, 16)) if int(four or eight, 16) <= 0x10FFFF else "\0"
        # A byte travels as half of a surrogate pair until all are put together.
        byte = int(two, 16) if two else int(octal, 8) & 0xFF
        return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)

    return _join_bytes(_ESCAPE.sub(encode, raw), line)


def _join_bytes(text: str, line: int) -> str:
    try:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        value = whole.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        value = "\0"
    if "\0" in value:
        raise SqlTextError(line, "a literal holds an escape that is no character")
    return value


def _read_unicode(raw: str, escape: str, line: int) -> str:
    sign = re.escape(escape)
    pattern = re.compile(rf"{sign}(?:\+([0-9A-Fa-f]{{6}})|([0-9A-Fa-f]{{4}})|({sign})|(.?))", re.DOTALL)

    def replace(match: re.Match[str]) -> str:
        long, short, itself, _ = match.groups()
        if itself:
            return escape
        code = int(long or short or "0", 16)
        return chr(code) if code <= 0x10FFFF else "\0"

    return _join_bytes(pattern.sub(replace, raw), line)


def read_tokens(text: str, *, line: int = 1) -> tuple[Token, ...]:
    """Cut a text without psql's commands: the body of a routine, or a command of pg_cron.

    Args:
        text: SQL or PL/pgSQL.
        line: The line on which it begins.

    Returns:
        All tokens, without blanks and comments.

    Raises:
        SqlTextError: A quote or a comment is not closed, or a literal cannot be read.
    """
    cutter = _Cutter(text, line, is_script=False)
    return tuple(iter(cutter.cut, None))


def read_statements(text: str, *, line: int = 1) -> Iterator[tuple[Token, ...]]:
    """Cut a script into statements, as psql does.

    A semicolon ends a statement unless it stands in parentheses or in the body of a routine in standard SQL
    (BEGIN ATOMIC). Data behind COPY FROM STDIN are passed over.

    Args:
        text: The script.
        line: The line on which it begins.

    Yields:
        The tokens of each statement, without the semicolon. One that a command of psql sends (`gexec`) ends
        with that command; other commands of psql stand alone.

    Raises:
        SqlTextError: As with `read_tokens`; statements before that place were given already.
    """
    cutter = _Cutter(text, line, is_script=True)
    held: list[Token] = []
    depth = blocks = 0
    while (token := cutter.cut()) is not None:
        if token.kind == "meta":
            if _SENDING.match(token.value):
                yield (*held, token)
                held, depth, blocks = [], 0, 0
            else:
                if token.value.partition(" ")[0] in {"r", "reset"}:
                    held, depth, blocks = [], 0, 0
                yield (token,)
            if token.value.startswith("copy") and _reads_data(token.value.lower().split()):
                _skip_data(cutter)
            continue
        if token.is_mark(";") and not depth and not blocks:
            if held:
                yield tuple(held)
            if held and _reads_data([one.value for one in held if one.kind == "word"]):
                _skip_data(cutter)
            held = []
            continue
        depth = max(depth + token.is_mark("(") - token.is_mark(")"), 0)
        blocks = _count_blocks(token, held, blocks)
        held.append(token)
    if held:
        yield tuple(held)


def _count_blocks(token: Token, held: Sequence[Token], blocks: int) -> int:
    """Follow BEGIN ATOMIC ... END in a routine, in which CASE ... END may stand."""
    if not held or not held[0].is_word("create"):
        return blocks
    if token.is_word("atomic") and held[-1].is_word("begin"):
        return blocks + 1
    if blocks and token.is_word("case"):
        return blocks + 1
    return blocks - 1 if blocks and token.is_word("end") else blocks


def _reads_data(words: Sequence[str]) -> bool:
    if not words or words[0] not in {"copy", "\\copy"}:
        return False
    return any(pair in {("from", "stdin"), ("from", "pstdin")} for pair in pairwise(words))


def _skip_data(cutter: _Cutter) -> None:
    line_end = cutter.text.find("\n", cutter.place)
    found = _DATA_END.search(cutter.text, line_end + 1) if line_end >= 0 else None
    cutter.place = found.end() if found else len(cutter.text)
