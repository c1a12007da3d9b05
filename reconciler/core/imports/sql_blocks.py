"""Read the structure of PL/pgSQL: blocks, conditions, loops, plain statements; knows not what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.imports.sql_tokens import Token


class BlockError(ValueError):
    """A body that is no PL/pgSQL, or more of it than is read here; the message is one clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A statement without others in it, without its semicolon."""

    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """IF or CASE.

    Attributes:
        branches: Condition and statements of each; no tokens for a condition that compares a value (CASE x).
        otherwise: The statements after ELSE.
        head: The first tokens, to show where it stands.
    """

    branches: Sequence[tuple[Sequence[Token], Sequence[Node]]]
    otherwise: Sequence[Node]
    head: Sequence[Token]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop of any kind.

    Attributes:
        head: What stands before LOOP.
        body: The statements.
        opening: The word LOOP.
    """

    head: Sequence[Token]
    opening: Sequence[Token]
    body: Sequence[Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """BEGIN ... END.

    Attributes:
        declarations: What stands after DECLARE, one by one.
        body: The statements.
        handlers: Condition and statements of each WHEN after EXCEPTION.
        head: The first token.
    """

    declarations: Sequence[Sequence[Token]]
    body: Sequence[Node]
    handlers: Sequence[tuple[Sequence[Token], Sequence[Node]]]
    head: Sequence[Token]


Node = Plain | Choice | Loop | Block
_DEEPEST: Final = 60


def read_block(tokens: Sequence[Token]) -> Block:
    """Read the body of a DO statement.

    Args:
        tokens: All of it.

    Returns:
        Its block.

    Raises:
        BlockError: It is none.
    """
    reader = _Reader(tokens)
    block = reader.read_block()
    if reader.place < len(tokens):
        raise BlockError("something follows its last END")
    return block


class _Reader:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.place = 0
        self._depth = 0

    def read_block(self) -> Block:
        start = self.place
        declarations: list[Sequence[Token]] = []
        self._skip_label()
        while self._take("declare"):
            while not self._at("begin", "declare"):
                declarations.append(self._read_plain())
        self._need("begin")
        body = self._read_statements("exception", "end")
        handlers: list[tuple[Sequence[Token], Sequence[Node]]] = []
        if self._take("exception"):
            while self._take("when"):
                condition = self._read_until("then")
                handlers.append((condition, self._read_statements("when", "end")))
        self._need("end")
        self._finish(";" if self.place < len(self.tokens) else "")
        return Block(
            declarations=declarations, body=body, handlers=handlers, head=self.tokens[start : start + 1]
        )

    def _read_statements(self, *ends: str) -> list[Node]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BlockError("it is nested too deeply")
        nodes: list[Node] = []
        while not self._at(*ends):
            nodes.append(self._read_node())
        self._depth -= 1
        return nodes

    def _read_node(self) -> Node:
        self._skip_label()
        start = self.place
        if self._at("declare", "begin"):
            return self.read_block()
        if self._take("if"):
            return self._read_if(start)
        if self._take("case"):
            return self._read_case(start)
        if self._at("loop", "for", "foreach", "while"):
            head = self._read_until("loop")
            opening = self.tokens[self.place - 1 : self.place]
            body = self._read_statements("end")
            self._need("end")
            self._need("loop")
            self._finish(";")
            return Loop(head=head, body=body, opening=opening)
        return Plain(tokens=self._read_plain())

    def _read_if(self, start: int) -> Choice:
        condition = self._read_until("then")
        head = self.tokens[start : self.place - 1]
        branches: list[tuple[Sequence[Token], Sequence[Node]]] = []
        branches.append((condition, self._read_statements("elsif", "elseif", "else", "end")))
        while self._take("elsif", "elseif"):
            condition = self._read_until("then")
            branches.append((condition, self._read_statements("elsif", "elseif", "else", "end")))
        otherwise = self._read_statements("end") if self._take("else") else []
        self._need("end")
        self._need("if")
        self._finish(";")
        return Choice(branches=branches, otherwise=otherwise, head=head)

    def _read_case(self, start: int) -> Choice:
        operand = self._read_until("when")
        branches: list[tuple[Sequence[Token], Sequence[Node]]] = []
        while True:
            condition = self._read_until("then")
            body = self._read_statements("when", "else", "end")
            branches.append(([] if operand else condition, body))
            if not self._take("when"):
                break
        otherwise = self._read_statements("end") if self._take("else") else []
        self._need("end")
        self._need("case")
        self._finish(";")
        return Choice(branches=branches, otherwise=otherwise, head=self.tokens[start : start + 2])

    def _read_until(self, word: str) -> Sequence[Token]:
        """Read up to a word that stands in no parentheses and in no CASE ... END."""
        start = self.place
        depth = cases = 0
        while self.place < len(self.tokens):
            token = self.tokens[self.place]
            depth += token.is_mark("(", "[") - token.is_mark(")", "]")
            if depth == 0 and cases == 0 and token.is_word(word):
                self.place += 1
                return self.tokens[start : self.place - 1]
            if token.is_mark(";"):
                break
            cases += token.is_word("case") - token.is_word("end")
            self.place += 1
        raise BlockError(f"{word.upper()} is missing")

    def _read_plain(self) -> Sequence[Token]:
        start = self.place
        depth = 0
        while self.place < len(self.tokens):
            token = self.tokens[self.place]
            depth += token.is_mark("(", "[") - token.is_mark(")", "]")
            self.place += 1
            if depth == 0 and token.is_mark(";"):
                return self.tokens[start : self.place - 1]
        raise BlockError("a semicolon is missing")

    def _skip_label(self) -> None:
        tokens = self.tokens[self.place : self.place + 3]
        if len(tokens) == 3 and tokens[0].is_mark("<<") and tokens[2].is_mark(">>"):
            self.place += 3

    def _finish(self, mark: str) -> None:
        """Pass over a label and the semicolon."""
        if mark and self.place < len(self.tokens) and self.tokens[self.place].kind in {"word", "name"}:
            self.place += 1
        if mark and not (self.place < len(self.tokens) and self.tokens[self.place].is_mark(mark)):
            if self.place < len(self.tokens):
                raise BlockError("a semicolon is missing")
            return
        self.place += len(mark)

    def _at(self, *words: str) -> bool:
        if self.place >= len(self.tokens):
            raise BlockError(f"{words[-1].upper()} is missing")
        return self.tokens[self.place].is_word(*words)

    def _take(self, *words: str) -> bool:
        found = self.place < len(self.tokens) and self.tokens[self.place].is_word(*words)
        self.place += found
        return found

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise BlockError(f"{word.upper()} is missing")
