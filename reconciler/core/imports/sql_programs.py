"""Work out what DO statements in PL/pgSQL do to the entries of cron.job; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reconciler.core.imports.cron_calls import MissingJobError
from reconciler.core.imports.cron_history import Source
from reconciler.core.imports.sql_blocks import Block, BlockError, Choice, Loop, Plain, read_block
from reconciler.core.imports.sql_calls import UnreadableError, find_call, mentions_call
from reconciler.core.imports.sql_clauses import read_select
from reconciler.core.imports.sql_effects import mentions_text, run_call, writes_jobs
from reconciler.core.imports.sql_queries import (
    UNKNOWN,
    JobId,
    assume,
    evaluate,
    find_rows,
    read_any,
)
from reconciler.core.imports.sql_tokens import SqlTextError, read_statements, read_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.core.imports.cron_history import History, Key
    from reconciler.core.imports.sql_blocks import Node
    from reconciler.core.imports.sql_queries import Truth, Value
    from reconciler.core.imports.sql_tokens import Token
    from reconciler.core.imports.sql_ways import Ways

_QUIET: Final = frozenset({"notice", "warning", "info", "log", "debug"})
_LEAVING: Final = frozenset({"exit", "continue", "return"})
_MISSING: Final = frozenset({"others", "internal_error", "XX000"})
_RAISED: Final = frozenset({"others", "raise_exception", "P0001"})
_AT_RUN_TIME: Final = "the statement is put together when it runs"


class _RaisedError(Exception):
    """RAISE EXCEPTION was reached."""


class _Program:
    """One DO statement; `run` replays a statement of SQL."""

    def __init__(self, ways: Ways, run: Callable[[Sequence[Token]], None]) -> None:
        self.ways = ways
        self.run = run
        self.ended: list[tuple[History, Source]] = []
        self.raised: list[list[Source]] = []

    def run_block(self, block: Block) -> bool:
        """Run a block; return whether it returned."""
        for declaration in block.declarations:
            self._declare(declaration)
        if not block.handlers:
            return self.run_nodes(block.body)
        ways, saved, was_in_handler = self.ways, self.ways.save(), self.ways.in_handler
        ways.in_handler = True
        self.raised.append([])
        returned = False
        try:
            returned = self.run_nodes(block.body)
        except (MissingJobError, _RaisedError) as error:
            handler = _find_handler(block, error)
            if handler is None:
                raise
            ways.restore(saved)
            ways.in_handler = was_in_handler
            returned = self.run_nodes(handler)
        finally:
            ways.in_handler = was_in_handler
            others = self.raised.pop()
        for source in others:
            ways.join(saved.history, ways.variables, source)
        return returned

    def run_nodes(self, nodes: Sequence[Node]) -> bool:
        """Run statements one by one; return whether one of them was RETURN."""
        for node in nodes:
            match node:
                case Plain():
                    returned = self._run_plain(node.tokens)
                case Choice():
                    returned = self._choose(node, 0)
                case Loop():
                    returned = self._run_loop(node)
                case _:
                    returned = self.run_block(node)
            if returned:
                return True
        return False

    # ------------------------------------------------------------------------------------ conditions

    def _choose(self, node: Choice, number: int) -> bool:
        if number == len(node.branches):
            return self.run_nodes(node.otherwise)
        condition, body = node.branches[number]
        truth: Truth = evaluate(condition, self.ways.scope())
        if mentions_call(condition):
            self.ways.leave(self.ways.at(node.head), "calls in a condition are not read")
            truth = UNKNOWN
        if truth is not UNKNOWN:
            return self.run_nodes(body) if truth else self._choose(node, number + 1)
        return self._go_both_ways(node, number)

    def _go_both_ways(self, node: Choice, number: int) -> bool:
        """Follow a branch and what comes instead of it, and join those ways that go on."""
        condition, body = node.branches[number]
        ways = self.ways
        source = ways.at(condition or node.head)
        scope, variables = ways.scope(), dict(ways.variables)
        ways.history = assume(condition, scope, holds=True)
        goes_on = self._try_way(lambda: self.run_nodes(body), source)
        after, after_variables = ways.history, ways.variables
        ways.history, ways.variables = assume(condition, scope, holds=False), variables
        other_goes_on = self._try_way(lambda: self._choose(node, number + 1), source)
        if goes_on and other_goes_on:
            other, other_variables = ways.history, ways.variables
            ways.history, ways.variables = after, after_variables
            ways.join(other, other_variables, source)
        elif goes_on:
            ways.history, ways.variables = after, after_variables
        return not (goes_on or other_goes_on)

    def _try_way(self, way: Callable[[], bool], source: Source) -> bool:
        """Follow a way; return whether it goes on behind. One that fails was not taken, unless caught."""
        try:
            returned = way()
        except (_RaisedError, MissingJobError):
            if self.raised:
                self.raised[-1].append(source)
            return False
        if returned:
            self.ended.append((self.ways.history, source))
        return not returned

    # ----------------------------------------------------------------------------------------- loops

    def _run_loop(self, node: Loop) -> bool:
        rows = self._find_loop_rows(node)
        source = self.ways.at(node.head or node.opening)
        if rows is None:
            history, variables = self.ways.history, dict(self.ways.variables)
            self.ways.bind(node.head[1:2], UNKNOWN)
            if self._try_way(lambda: self.run_nodes(node.body), source):
                self.ways.join(history, variables, source)
            else:
                self.ways.history, self.ways.variables = history, variables
            return False
        variable = node.head[1:2]
        for key, truth in rows:
            self.ways.bind(variable, JobId(key))
            self.ways.run_if(truth, lambda: self.run_nodes(node.body), source)
        self.ways.bind(variable, UNKNOWN)
        return False

    def _find_loop_rows(self, node: Loop) -> list[tuple[Key, Truth]] | None:
        """Find what a loop over a query of cron.job goes through; None for any other loop."""
        head = node.head
        if len(head) < 4 or not head[0].is_word("for") or not head[2].is_word("in") or _may_leave(node.body):
            return None
        query = head[4:-1] if head[3].is_mark("(") and head[-1].is_mark(")") else head[3:]
        if not query or not query[0].is_word("select"):
            return None
        select = read_select(query)
        names = {token.value for item in select.items for token in item}
        return find_rows(select, self.ways.scope()) if names & {"jobid", "jobname", "*"} else None

    # ------------------------------------------------------------------------------------ statements

    def _run_plain(self, tokens: Sequence[Token]) -> bool:
        if not tokens:
            return False
        first, ways = tokens[0], self.ways
        if first.is_word("return"):
            return True
        if first.is_word("raise"):
            if not (len(tokens) > 1 and tokens[1].is_word(*_QUIET)):
                raise _RaisedError
        elif first.is_word("execute"):
            self._execute(tokens)
        elif len(tokens) > 1 and tokens[1].is_mark(":=", "="):
            ways.bind(tokens[:1], self._evaluate(tokens[2:]))
        elif first.is_word("get", "fetch"):
            for token in tokens[1:]:
                ways.bind([token], UNKNOWN)
        elif first.is_word("commit", "rollback"):
            ways.leave(
                ways.at(tokens), "a transaction that ends in the middle of a DO statement is not followed"
            )
        else:
            ways.variables.pop("found", None)
            self.run(tokens)
        return False

    def _execute(self, tokens: Sequence[Token]) -> None:
        """Run dynamic SQL that is one literal; any other may be anything."""
        ways = self.ways
        for place, token in enumerate(tokens):
            if token.is_word("into"):
                ways.bind(tokens[place + 1 : place + 2], UNKNOWN)
        if len(tokens) == 2 and tokens[1].kind == "text":
            for statement in read_statements(tokens[1].value, line=tokens[1].line):
                self.run(statement)
        elif mentions_text(tokens) or mentions_call(tokens):
            ways.leave(ways.at(tokens), _AT_RUN_TIME)

    def _declare(self, tokens: Sequence[Token]) -> None:
        """Declare a variable; without a value it is NULL."""
        value: Value = None
        for place, token in enumerate(tokens):
            if token.is_mark(":=", "=") or token.is_word("default"):
                value = self._evaluate(tokens[place + 1 :])
                break
        self.ways.bind(tokens[:1], value)

    def _evaluate(self, tokens: Sequence[Token]) -> Value:
        if not mentions_call(tokens):
            return read_any(tokens, self.ways.scope())
        reason = "the call is part of an expression"
        try:
            call = find_call(tokens, 0)
            if call is not None and call.end == len(tokens):
                return run_call(self.ways, call)
        except UnreadableError as error:
            reason = str(error)
        self.ways.leave(self.ways.at(tokens), reason)
        return UNKNOWN


def run_do(ways: Ways, tokens: Sequence[Token], run: Callable[[Sequence[Token]], None]) -> None:
    """Work out a DO statement.

    Args:
        ways: What is known; changed.
        tokens: All of it.
        run: Replays a statement of SQL.
    """
    texts = [token for token in tokens if token.kind == "text"]
    languages = [tokens[place + 1].value for place, one in enumerate(tokens[:-1]) if one.is_word("language")]
    if not texts:
        return
    body = next((token for token in texts if token.value not in languages), texts[0])
    try:
        program = read_tokens(body.value, line=body.line)
    except SqlTextError as error:
        ways.leave(Source(ways.path, error.line), error.reason)
        return
    if not (mentions_call(program) or mentions_text([body]) or writes_jobs(program)):
        return
    if languages and languages[0] != "plpgsql":
        ways.leave(ways.at(tokens), f"programs in {languages[0]} are not read")
        return
    before, ways.variables = ways.variables, {}
    saved = ways.save()
    running = _Program(ways, run)
    try:
        running.run_block(read_block(program))
        for history, source in running.ended:
            ways.join(history, ways.variables, source)
    except BlockError as error:
        ways.restore(saved)
        ways.leave(ways.at(tokens), f"its body cannot be read as PL/pgSQL: {error}")
    except (_RaisedError, MissingJobError):
        ways.restore(saved)
        ways.leave(ways.at(tokens), "it fails on what these files made: is a file missing?")
    ways.variables = before


def _find_handler(block: Block, error: Exception) -> Sequence[Node] | None:
    """Find the handler of an error; pg_cron's own has the code of internal errors."""
    catching = _MISSING if isinstance(error, MissingJobError) else _RAISED
    for condition, body in block.handlers:
        if not catching.isdisjoint(token.value for token in condition):
            return body
    return None


def _may_leave(nodes: Sequence[Node]) -> bool:
    """Tell whether a loop may end before its rows do."""
    for node in nodes:
        match node:
            case Plain():
                if node.tokens and node.tokens[0].is_word(*_LEAVING):
                    return True
            case Choice():
                bodies = [*(body for _, body in node.branches), node.otherwise]
                if any(_may_leave(body) for body in bodies):
                    return True
            case Loop():
                if _may_leave(node.body):
                    return True
            case _:
                if _may_leave(node.body) or any(_may_leave(body) for _, body in node.handlers):
                    return True
    return False
