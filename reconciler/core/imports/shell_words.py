"""Cut a shell command into words, as far as it needs no shell to know what they are; pure.

The rules are those of POSIX sh, which cron calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACED: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REDIRECTION: Final = re.compile(r"[0-9]*(?:>>|>&|>\||<<|<&|<>|>|<)|&>>?")
_OPERATOR: Final = re.compile(r"\|\||&&|;;|[|&;()]|\n")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")


class ShellError(ValueError):
    """A command that only a shell can make sense of; the message is one clause."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command.

    Attributes:
        text: After quotes are removed and variables put in; an unknown variable stays as `$NAME`.
        unknown: The variables in it that are not known.
        operator: Whether it is one, such as `|`, and not quoted.
    """

    text: str
    unknown: tuple[str, ...] = ()
    operator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A simple command.

    Attributes:
        words: Its name and its arguments.
        variables: Set for it alone.
        folder: Where it was told to run; "" for anywhere.
        stdin: The file that it reads; "" for none.
        said: What `echo` before a pipe says to it; None for nothing.
    """

    words: Sequence[Word]
    variables: Mapping[str, Word] = field(default_factory=dict)
    folder: str = ""
    stdin: str = ""
    said: Word | None = None


def read_command(text: str, variables: Mapping[str, str]) -> Command:
    """Read a command line that is one simple command, maybe behind `cd DIR &&` or `echo TEXT |`.

    Where its output goes is passed over.

    Args:
        text: The line.
        variables: Whose values are known.

    Returns:
        The command.

    Raises:
        ShellError: It is more than that.
    """
    parts: list[list[Word]] = [[]]
    operators: list[str] = []
    for word in split_words(text, variables):
        if word.operator and _OPERATOR.fullmatch(word.text):
            operators.append(word.text)
            parts.append([])
        else:
            parts[-1].append(word)
    if operators and operators[-1] in {";", "\n"} and not parts[-1]:
        operators.pop()
        parts.pop()
    folder, said = "", None
    while operators and [word.text for word in parts[0][:1]] == ["cd"] and operators[0] in {"&&", ";"}:
        if len(parts[0]) != 2 or parts[0][1].unknown:
            raise ShellError("where it runs is up to the shell")
        folder = parts[0][1].text
        operators, parts = operators[1:], parts[1:]
    if operators == ["|"] and parts[0] and parts[0][0].text in {"echo", "printf"}:
        said = _read_said(parts[0])
        operators, parts = [], parts[1:]
    if operators:
        raise ShellError(f"it is more than one command ({operators[0].strip() or 'two lines'})")
    return _read_simple(parts[0], folder, said)


def _read_said(words: Sequence[Word]) -> Word:
    if (
        len(words) != 2
        or "\\" in words[1].text
        or "%" in words[1].text
        or any(word.operator for word in words)
    ):
        raise ShellError("what it says to the next command is up to the shell")
    return words[1]


def _read_simple(words: Sequence[Word], folder: str, said: Word | None) -> Command:
    kept: list[Word] = []
    assigned: dict[str, Word] = {}
    stdin = ""
    place = 0
    while place < len(words):
        word = words[place]
        if word.operator:
            if place + 1 == len(words) or "<<" in word.text or "<>" in word.text:
                raise ShellError(f"the shell reads on after {word.text}")
            if word.text in {"<", "0<"}:
                stdin = words[place + 1].text
            place += 2
            continue
        found = _ASSIGNMENT.match(word.text) if not kept else None
        if found:
            assigned[found[1]] = Word(word.text[found.end() :], word.unknown)
        else:
            kept.append(word)
        place += 1
    if not kept:
        raise ShellError("it runs no command")
    return Command(words=kept, variables=assigned, folder=folder, stdin=stdin, said=said)


def split_words(text: str, variables: Mapping[str, str]) -> list[Word]:
    """Split a command line into words and operators.

    Args:
        text: The line.
        variables: Whose values are known.

    Returns:
        All of them.

    Raises:
        ShellError: A quote is not closed, or the shell would run something to know a word.
    """
    return _Splitter(text, variables).split()


class _Splitter:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.text = text
        self.variables = variables
        self.place = 0
        self.words: list[Word] = []
        self._parts: list[str] = []
        self._unknown: list[str] = []
        self._has_word = False

    def split(self) -> list[Word]:
        while self.place < len(self.text):
            self._step()
        self._end_word()
        return self.words

    def _step(self) -> None:
        text, place = self.text, self.place
        sign = text[place]
        if not self._has_word and sign == "#":
            end = text.find("\n", place)
            self.place = len(text) if end < 0 else end
        elif not self._has_word and (found := _REDIRECTION.match(text, place)):
            self._add_operator(found[0])
        elif sign in "<>":
            self._end_word()
        elif (found := _OPERATOR.match(text, place)) and not text.startswith("&>", place):
            self._end_word()
            self._add_operator(found[0])
        elif sign in "& \t\r":
            self._end_word()
            self.place += sign != "&"
        elif sign == "'":
            end = self._find_end("'", place + 1)
            self._add(text[place + 1 : end], end + 1)
        elif sign == '"':
            self._read_double()
        elif sign == "\\":
            following = text[place + 1 : place + 2]
            self._add("" if following == "\n" else following, place + 2)
        elif sign == "$":
            self._read_variable()
        elif sign == "`":
            raise ShellError("the shell runs another command first (`)")
        else:
            self._add(sign, place + 1)

    def _read_double(self) -> None:
        self._add("", self.place + 1)
        text = self.text
        while not text.startswith('"', self.place):
            sign = text[self.place : self.place + 1]
            if not sign:
                raise ShellError("a quote is not closed")
            if sign == "\\" and text[self.place + 1 : self.place + 2] in {"$", "`", '"', "\\"}:
                self._add(text[self.place + 1], self.place + 2)
            elif sign == "$":
                self._read_variable()
            elif sign == "`":
                raise ShellError("the shell runs another command first (`)")
            else:
                self._add(sign, self.place + 1)
        self.place += 1

    def _read_variable(self) -> None:
        text, place = self.text, self.place + 1
        found = _BRACED.match(text, place) or _NAME.match(text, place)
        if found is None:
            following = text[place : place + 1]
            if following and (following in "({'\"`@*#?-!$" or following.isdigit()) and following not in "\"'":
                what = {"(": "runs another command first", "{": "works a variable out"}.get(following)
                raise ShellError(f"the shell {what or 'puts something in'} (${following})")
            if following == "'":
                raise ShellError("$'' means something else to each shell")
            self._add("$", place)
            return
        name = found[1] if found.re is _BRACED else found[0]
        value = self.variables.get(name)
        if value is None:
            self._unknown.append(name)
        self._add(f"${name}" if value is None else value, found.end())

    def _find_end(self, sign: str, start: int) -> int:
        end = self.text.find(sign, start)
        if end < 0:
            raise ShellError("a quote is not closed")
        return end

    def _add(self, text: str, place: int) -> None:
        self._parts.append(text)
        self._has_word = True
        self.place = place

    def _add_operator(self, text: str) -> None:
        self.words.append(Word(text, operator=True))
        self.place += len(text)

    def _end_word(self) -> None:
        if self._has_word:
            self.words.append(Word("".join(self._parts), tuple(self._unknown)))
        self._parts, self._unknown, self._has_word = [], [], False
