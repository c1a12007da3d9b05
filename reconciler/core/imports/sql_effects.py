"""Work out what queries with calls, and statements that write cron.job, do to the entries; pure."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.cron_calls import MissingJobError, execute_call
from reconciler.core.imports.sql_calls import CRON, UnreadableError, find_call, mentions_call
from reconciler.core.imports.sql_clauses import read_job_alias, read_select
from reconciler.core.imports.sql_queries import (
    UNKNOWN,
    are_sure,
    assume,
    evaluate,
    find_rows,
    read_any,
    read_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.core.imports.cron_history import Key
    from reconciler.core.imports.sql_calls import Call
    from reconciler.core.imports.sql_clauses import Select
    from reconciler.core.imports.sql_queries import Truth, Value
    from reconciler.core.imports.sql_tokens import Token
    from reconciler.core.imports.sql_ways import Ways

_MENTION: Final = re.compile(
    r'\bcron"?\s*\.\s*"?(?:schedule|schedule_in_database|unschedule|alter_job)\b|create_queue_worker'
    r'|\b(?:update|into|delete\s+from|truncate)\s+"?cron"?\s*\.\s*"?job\b',
    re.IGNORECASE,
)
_WRITING: Final = frozenset({"update", "into", "truncate", "copy"})
_READING: Final = frozenset({"alter", "grant", "revoke", "lock", "comment", "create", "drop"})
_REMOTE: Final = frozenset({"dblink", "dblink_exec", "dblink_send_query"})
_PLACE_ONLY: Final = frozenset({"nodename", "nodeport"})


def mentions_text(tokens: Sequence[Token]) -> bool:
    """Tell whether a literal may be SQL that calls these functions or writes cron.job.

    Args:
        tokens: Any.

    Returns:
        True where some literal has their names.
    """
    return any(token.kind == "text" and _MENTION.search(token.value) for token in tokens)


def run_query(ways: Ways, tokens: Sequence[Token]) -> None:
    """Work out a query: its calls, and which number of an entry it stores with INTO.

    Args:
        ways: What is known; changed.
        tokens: From SELECT or PERFORM on.
    """
    select = read_select(tokens)
    value: Value = UNKNOWN
    if not mentions_call(tokens):
        if any(token.is_word(*_REMOTE) for token in tokens) and mentions_text(tokens):
            ways.leave(ways.at(tokens), "it is executed in another session")
        if select.source:
            rows = find_rows(select, ways.scope())
            if are_sure(rows, ways.scope()):
                ways.variables["found"] = bool(rows)
        if select.into and select.source:
            value = read_value(_without_into(tokens, select), ways.scope())
        elif select.into and select.items:
            value = read_any(select.items[0], ways.scope())
    else:
        try:
            value = _run_calls(ways, select, tokens)
        except UnreadableError as error:
            ways.leave(ways.at(tokens), str(error))
    if select.into:
        ways.bind(select.into, value)


def _without_into(tokens: Sequence[Token], select: Select) -> list[Token]:
    """Put a query into parentheses, as a value."""
    sign = replace(tokens[0], kind="mark", value="(")
    kept = [token for token in tokens if token not in select.into and not token.is_word("into", "strict")]
    return [sign, *kept, replace(sign, value=")")]


def _run_calls(ways: Ways, select: Select, tokens: Sequence[Token]) -> Value:
    if select.rest and select.rest != "limit":
        raise UnreadableError(f"calls in a query with {select.rest.upper()} are not read")
    if mentions_call(select.where):
        raise UnreadableError("calls in a condition are not read")
    if mentions_call(select.source):
        if select.where or any(mentions_call(item) for item in select.items):
            raise UnreadableError("calls in FROM are read where they stand alone")
        return _run_item(ways, select.source, None, "")
    alias = read_job_alias(select.source)
    rows: list[tuple[Key | None, Truth]]
    if not select.source:
        rows = [(None, evaluate(select.where, ways.scope()) if select.where else True)]
    else:
        found = find_rows(replace(select, rest=""), ways.scope())
        if found is None:
            raise UnreadableError("how often it calls depends on rows that only the database has")
        if select.rest and len(found) > 1:
            raise UnreadableError("which rows LIMIT leaves is up to the database")
        rows = list(found)
    source = ways.at(select.where or tokens)
    value: Value = None if select.source and not rows else UNKNOWN
    for row, truth in rows:
        returned: list[Value] = []
        action = partial(_run_items, ways, select, row, alias, returned)
        if truth is UNKNOWN and row is None:
            run_unknown(ways, select.where, action)
        else:
            ways.run_if(truth, action, source)
        if len(rows) == 1 and truth is True and returned:
            value = returned[0]
    return value


def run_unknown(ways: Ways, condition: Sequence[Token], action: Callable[[], object]) -> None:
    """Do something under a condition that is UNKNOWN: follow the way on which it holds, and the other one.

    Args:
        ways: What is known; changed.
        condition: Which.
        action: What to do.
    """
    scope, variables = ways.scope(), dict(ways.variables)
    ways.history = assume(condition, scope, holds=True)
    action()
    ways.join(assume(condition, scope, holds=False), variables, ways.at(condition))


def _run_items(ways: Ways, select: Select, row: Key | None, alias: str, returned: list[Value]) -> None:
    returned.extend(
        _run_item(ways, item, row, alias) if mentions_call(item) else UNKNOWN for item in select.items
    )


def _run_item(ways: Ways, item: Sequence[Token], row: Key | None, alias: str) -> Value:
    """Carry out what one item of a query calls; what cannot be read of it is noted."""
    reason = "the call is part of an expression"
    try:
        call = find_call(item, 0)
        if call is not None and _is_label(item[call.end :]):
            return run_call(ways, call, row, alias)
    except UnreadableError as error:
        reason = str(error)
    ways.leave(ways.at(item), reason)
    return UNKNOWN


def run_call(ways: Ways, call: Call, row: Key | None = None, alias: str = "job") -> Value:
    """Carry a call out.

    Args:
        ways: What is known; changed.
        call: Which.
        row: The entry of the row for which it is made.
        alias: What the table of that row is called.

    Returns:
        What it returns, as far as a later statement may use it.

    Raises:
        UnreadableError: That cannot be told from the text.
        MissingJobError: It fails, and a handler is there for that.
    """
    source = ways.at(call.tokens)
    try:
        outcome = execute_call(call, ways.scope(row, alias), ways.role, source)
    except MissingJobError:
        if ways.in_handler:
            raise
        ways.remark(source, "nothing before it makes that job: is a file missing, or was it made by hand?")
        return UNKNOWN
    ways.history = outcome.history
    return outcome.value


def _is_label(tokens: Sequence[Token]) -> bool:
    """Tell whether what follows a call is a cast, a name for its result, or nothing."""
    if tokens and tokens[0].is_mark("::"):
        tokens = tokens[2:]
    if tokens and tokens[0].is_word("as"):
        tokens = tokens[1:]
    if len(tokens) > 1 and tokens[1].is_mark("(") and tokens[-1].is_mark(")"):
        tokens = tokens[:1]  # names of columns
    return not tokens or (len(tokens) == 1 and tokens[0].kind in {"word", "name"})


def writes_jobs(tokens: Sequence[Token]) -> bool:
    """Tell whether a statement writes cron.job itself.

    Args:
        tokens: All of it.

    Returns:
        True for INSERT, UPDATE, DELETE, TRUNCATE, MERGE and COPY FROM, also inside of WITH.
    """
    for place in range(2, len(tokens) - 1):
        if not (tokens[place].is_mark(".") and tokens[place - 1].is_name("cron")):
            continue
        if not tokens[place + 1].is_name("job") or tokens[0].is_word(*_READING):
            continue
        before = [token.value for token in tokens[: place - 1] if not token.is_word("only")][-2:]
        if before in (["delete", "from"], ["truncate", "table"]):
            return True
        if before and before[-1] in _WRITING:
            return before[-1] != "copy" or any(token.is_word("from") for token in tokens[place:])
    return False


def run_write(ways: Ways, tokens: Sequence[Token]) -> None:
    """Note a statement that writes cron.job; jobs that it surely changes are in doubt.

    Args:
        ways: What is known; changed.
        tokens: All of it.
    """
    source = ways.at(tokens)
    columns = _read_set(tokens)
    if columns and columns <= _PLACE_ONLY:
        ways.remark(source, "where pg_cron connects to is no part of a declaration")
        return
    ways.leave(source, "it writes cron.job past pg_cron's functions, which is not read")
    kind = tokens[0].value
    if kind not in {"update", "delete", "truncate"}:
        return
    wheres = [place for place, token in enumerate(tokens) if token.is_word("where")]
    condition = tokens[wheres[0] + 1 :] if wheres else []
    for key in list(ways.history.entries):
        if not condition or evaluate(condition, ways.scope(key)) is True:
            reason = f"{source} writes cron.job past pg_cron's functions"
            active = None if kind == "update" else True
            ways.history = ways.history.doubt(key, reason, active=active)


def _read_set(tokens: Sequence[Token]) -> set[str]:
    """Name the columns that an UPDATE sets."""
    columns: set[str] = set()
    depth = 0
    for place, token in enumerate(tokens if tokens[0].is_word("update") else ()):
        depth += token.is_mark("(") - token.is_mark(")")
        if depth == 0 and token.is_word("where", "from"):
            break
        if depth == 0 and token.is_mark("="):
            columns.add(tokens[place - 1].value)
    return columns


def find_bare_call(tokens: Sequence[Token], *, finds_cron: bool) -> str:
    """Find a call that may be pg_cron's by the search path.

    Args:
        tokens: Of a statement.
        finds_cron: Whether the search path has the schema cron for sure; without it only those names count
            that nobody else has.

    Returns:
        The function; "" for none.
    """
    names = CRON if finds_cron else CRON - {"schedule", "alter_job"}
    for place, token in enumerate(tokens[:-1]):
        if not token.is_word(*names) or not tokens[place + 1].is_mark("("):
            continue
        if not place or not (tokens[place - 1].is_mark(".") or tokens[place - 1].is_word("function")):
            return token.value
    return ""
