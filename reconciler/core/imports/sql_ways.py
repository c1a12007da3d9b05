"""What is known after a part of some SQL scripts, on every way that things may have gone; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.core.imports.cron_history import CURRENT, History, Source, merge_histories
from reconciler.core.imports.excerpts import render_tokens
from reconciler.core.imports.results import LeftPassage, Remark
from reconciler.core.imports.sql_queries import UNKNOWN, Scope, Special

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reconciler.core.imports.cron_history import Key
    from reconciler.core.imports.sql_queries import Bound, Truth, Value
    from reconciler.core.imports.sql_tokens import Token


@dataclass(frozen=True, slots=True)
class Saved:
    """All that a ROLLBACK takes back."""

    history: History
    role: str | None
    left: tuple[LeftPassage, ...]
    remarks: tuple[Remark, ...]


class Ways:
    """What is known so far.

    Attributes:
        history: The entries.
        left: What was not read.
        remarks: What people ought to know.
        variables: Of PL/pgSQL, see `Scope`.
        role: Who runs the statements; None where that cannot be known.
        in_handler: Whether an error would be caught.
        path: The file that is read.
    """

    def __init__(self) -> None:
        self.history = History()
        self.left: tuple[LeftPassage, ...] = ()
        self.remarks: tuple[Remark, ...] = ()
        self.variables: dict[str, Bound] = {}
        self.role: str | None = CURRENT
        self.in_handler = False
        self.path = ""

    def at(self, tokens: Sequence[Token]) -> Source:
        """Give the place of tokens, with their text."""
        return Source(self.path, tokens[0].line if tokens else 1, render_tokens(tokens))

    def leave(self, source: Source, reason: str) -> None:
        """Note what is not read."""
        self.left = (*self.left, LeftPassage(source=source, reason=reason))

    def remark(self, source: Source, message: str) -> None:
        """Note what people ought to know."""
        self.remarks = (*self.remarks, Remark(source=source, message=message))

    def scope(self, row: Key | None = None, alias: str = "job") -> Scope:
        """Say what names mean now."""
        return Scope(
            history=self.history, role=self.role or CURRENT, variables=self.variables, row=row, alias=alias
        )

    def save(self) -> Saved:
        """Remember everything that a ROLLBACK takes back."""
        return Saved(self.history, self.role, self.left, self.remarks)

    def restore(self, saved: Saved) -> None:
        """Take back what came after."""
        self.history, self.role = saved.history, saved.role
        self.left, self.remarks = saved.left, saved.remarks

    def run_if(self, truth: Truth, action: Callable[[], object], source: Source) -> None:
        """Do something under a condition; where that is UNKNOWN, both ways are followed.

        Args:
            truth: Whether the condition holds.
            action: What to do.
            source: Where the condition stands, and its text.
        """
        if truth is not UNKNOWN:
            if truth:
                action()
            return
        history, variables = self.history, dict(self.variables)
        action()
        self.join(history, variables, source)

    def join(self, history: History, variables: Mapping[str, Bound], source: Source) -> None:
        """Let another way that things may have gone come together with the present one.

        Args:
            history: At the end of the other way.
            variables: At the end of the other way.
            source: Where the ways parted, and the text of the condition.
        """
        self.history = merge_histories(history, self.history, source)
        both = self.variables.keys() & variables.keys()
        self.variables = {
            name: self.variables[name] for name in both if self.variables[name] == variables[name]
        }

    def bind(self, names: Sequence[Token], value: Value) -> None:
        """Store a value in a variable; one that cannot be known is forgotten.

        Args:
            names: The variables that a statement writes.
            value: What it writes, where it writes one.
        """
        for name in names:
            self.variables.pop(name.value, None)
        if len(names) == 1 and not isinstance(value, str | Special):
            self.variables[names[0].value] = value
