"""Replay SQL scripts on a history of pg_cron's entries, statement by statement; pure.

It is taken for granted that each script was executed without an error, in the given order and on a database
that had no entries. Conditions on nothing but entries are worked out; of any other both ways are followed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.cron_history import CURRENT, History, Source
from reconciler.core.imports.sql_calls import mentions_call
from reconciler.core.imports.sql_effects import (
    find_bare_call,
    mentions_text,
    run_query,
    run_write,
    writes_jobs,
)
from reconciler.core.imports.sql_programs import run_do
from reconciler.core.imports.sql_queries import UNKNOWN
from reconciler.core.imports.sql_tokens import SqlTextError, read_statements
from reconciler.core.imports.sql_ways import Ways

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.imports.sql_tokens import Token
    from reconciler.core.imports.sql_ways import Saved

_FUNCTION: Final = "the body of a function does not run by itself, and calls of it are not followed"
_PSQL_FILES: Final = frozenset({"i", "ir", "include", "include_relative"})


class Replay:
    """The replay of scripts.

    Attributes:
        ways: What is known so far.
    """

    def __init__(self) -> None:
        self.ways = Ways()
        self._saved: list[tuple[str, Saved]] = []
        self._role_before: str | None = CURRENT
        self._has_local_role = False
        self._finds_cron = False
        self._psql_choices: list[Source] = []

    def run_script(self, path: str, text: str) -> None:
        """Replay one file, in a session of its own.

        Args:
            path: As the person named it.
            text: What it holds.
        """
        ways = self.ways
        ways.path, ways.role = path, CURRENT
        self._saved, self._psql_choices = [], []
        self._has_local_role = self._finds_cron = False
        try:
            for tokens in read_statements(text):
                if _turns_backslashes(tokens):
                    reason = "standard_conforming_strings is off: literals mean something else"
                    ways.leave(ways.at(tokens), f"{reason}; nothing from there on was read")
                    break
                self._run_sent(tokens)
        except SqlTextError as error:
            ways.leave(Source(path, error.line), f"{error.reason}; nothing from there on was read")
        if self._saved:
            ways.restore(self._saved[0][1])
            line = text.count("\n", 0, len(text.rstrip())) + 1
            ways.remark(Source(path, line), "it ends in a transaction without COMMIT, which does not count")

    def _run_sent(self, tokens: Sequence[Token]) -> None:
        """Run what psql sends; between its commands if and endif it may not be sent."""
        if tokens[-1].kind == "meta":
            self._run_meta(tokens)
        elif self._psql_choices:
            self.ways.run_if(UNKNOWN, lambda: self.run(tokens), self._psql_choices[-1])
        else:
            self.run(tokens)

    def run(self, tokens: Sequence[Token]) -> None:
        """Replay one statement of SQL.

        Args:
            tokens: All of it, without the semicolon.
        """
        ways = self.ways
        words = [token.value if token.kind == "word" else "" for token in tokens[:4]] + [""] * 4
        if self._run_transaction(words, tokens) or self._run_setting(words, tokens):
            return
        if words[0] == "do":
            self._run_do(tokens)
        elif words[0] == "create" and {"function", "procedure"} & set(words[1:4]):
            if mentions_call(_after_name(tokens)) or mentions_text(tokens):
                ways.leave(ways.at(tokens[: _find_open(tokens)]), _FUNCTION)
        elif words[:2] == ["drop", "extension"] and any(token.is_name("pg_cron") for token in tokens):
            ways.history = History(counter=ways.history.counter)
        elif writes_jobs(tokens):
            run_write(ways, tokens)
        elif words[0] in {"select", "perform"}:
            run_query(ways, tokens)
        elif mentions_call(tokens) and (words[0] != "explain" or "analyze" in words):
            ways.leave(
                ways.at(tokens), "calls are read in SELECT and PERFORM, not in a statement of this kind"
            )
        bare = find_bare_call(tokens, finds_cron=self._finds_cron)
        if bare:
            ways.leave(ways.at(tokens), f"whose {bare} that is depends on the search path: write cron.{bare}")

    def _run_do(self, tokens: Sequence[Token]) -> None:
        """Run a program; in no other transaction it is one."""
        is_alone = not self._saved
        if is_alone:
            self._saved = [("", self.ways.save())]
        run_do(self.ways, tokens, self.run)
        if is_alone:
            self._saved = []
            self._end_local_role()

    def _run_transaction(self, words: Sequence[str], tokens: Sequence[Token]) -> bool:
        match words[0]:
            case "begin" | "start":
                self._saved = self._saved or [("", self.ways.save())]
            case "commit" | "end":
                self._saved = []
                self._end_local_role()
            case "prepare" if words[1] == "transaction":
                self.ways.leave(
                    self.ways.at(tokens), "whether a prepared transaction is committed stands elsewhere"
                )
                self._saved = []
            case "rollback" | "abort":
                self._roll_back(tokens)
            case "savepoint":
                if self._saved:
                    self._saved.append((tokens[-1].value, self.ways.save()))
            case "release":
                place = self._find_savepoint(tokens[-1].value)
                self._saved = self._saved[:place] if place else self._saved
            case _:
                return False
        return True

    def _roll_back(self, tokens: Sequence[Token]) -> None:
        if any(token.is_word("to") for token in tokens):
            place = self._find_savepoint(tokens[-1].value)
            if place:
                self.ways.restore(self._saved[place][1])
                self._saved = self._saved[: place + 1]
        elif self._saved and not any(token.is_word("prepared") for token in tokens):
            self.ways.restore(self._saved[0][1])
            self._saved, self._has_local_role = [], False

    def _find_savepoint(self, name: str) -> int:
        """Find the last savepoint of a name; 0 for none."""
        return max((place for place, (one, _) in enumerate(self._saved) if place and one == name), default=0)

    def _end_local_role(self) -> None:
        if self._has_local_role:
            self.ways.role, self._has_local_role = self._role_before, False

    def _run_setting(self, words: Sequence[str], tokens: Sequence[Token]) -> bool:
        if words[0] not in {"set", "reset"}:
            return False
        names = [token.value for token in tokens[1:] if not (token.is_mark("=") or token.is_word("to"))]
        is_local = names[:1] == ["local"]
        if is_local or (names[:1] == ["session"] and names[1:2] != ["authorization"]):
            names = names[1:]
        if names[:2] == ["session", "authorization"]:
            names = names[1:]
        if names[:1] in (["role"], ["authorization"], ["session_authorization"]):
            role = names[1] if len(names) > 1 and words[0] == "set" else CURRENT
            self._set_role(CURRENT if role in {"none", "default"} else role, is_local=is_local)
        elif names[:1] == ["search_path"]:
            self._finds_cron = "cron" in names
        return True

    def _set_role(self, role: str, *, is_local: bool) -> None:
        if is_local and not self._saved:
            self.ways.role = None  # it counts where the tool that ran the file opened a transaction
            return
        if is_local and not self._has_local_role:
            self._role_before, self._has_local_role = self.ways.role, True
        self.ways.role = role

    def _run_meta(self, tokens: Sequence[Token]) -> None:
        """Follow a command of psql as far as it matters here."""
        name, _, rest = tokens[-1].value.partition(" ")
        source = Source(self.ways.path, tokens[-1].line, f"\\{name} {rest}".strip())
        if name == "if":
            self._psql_choices.append(source)
        elif name == "endif":
            self._psql_choices = self._psql_choices[:-1]
        elif name in _PSQL_FILES:
            self.ways.leave(source, "it reads another file: name that one too")
        elif name in {"c", "connect"}:
            source = replace(source, text=f"\\{name}")
            self.ways.leave(source, "it connects elsewhere, and what follows may be about another database")
        elif name == "gexec" and mentions_text(tokens[:-1]):
            self.ways.leave(self.ways.at(tokens), "the statements are put together when it runs")
        elif len(tokens) > 1 and name not in {"gdesc", "parse", "gexec"}:
            self._run_sent(tokens[:-1])


def _turns_backslashes(tokens: Sequence[Token]) -> bool:
    words = [token.value for token in tokens[:5]]
    return words[0] == "set" and "standard_conforming_strings" in words and words[-1] in {"off", "false", "0"}


def _find_open(tokens: Sequence[Token]) -> int:
    return next((place for place, token in enumerate(tokens) if token.is_mark("(")), len(tokens))


def _after_name(tokens: Sequence[Token]) -> Sequence[Token]:
    """Leave out the name of a routine, which may be that of one of the functions."""
    return tokens[_find_open(tokens) :]
