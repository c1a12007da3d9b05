"""Tell which entries a query of cron.job finds, and whether a condition holds, after a history; pure.

What depends on anything but the entries that the history made is `UNKNOWN`. pg_cron itself is taken for
granted: without it there were no calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.cron_history import CURRENT, History, Key
from reconciler.core.imports.sql_calls import UnreadableError, find_close, read_constant, split_commas
from reconciler.core.imports.sql_clauses import Select, read_job_alias, read_select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reconciler.core.imports.cron_history import Made
    from reconciler.core.imports.sql_tokens import Token


class Special(Enum):
    """Values that are no constants.

    Attributes:
        UNKNOWN: Cannot be told from the text.
        CURRENT: The role or the database of whoever runs the statement.
    """

    UNKNOWN = "unknown"
    CURRENT = "current"


UNKNOWN: Final = Special.UNKNOWN


@dataclass(frozen=True, slots=True)
class JobId:
    """The number of an entry, which only the database knows; as a record it has all columns."""

    key: Key


Value = str | bool | int | JobId | Special | None
Truth = bool | Special | None
Bound = JobId | bool | int | None
"""What a variable may hold that is read; texts are not, since people mean them to vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What names mean where an expression stands.

    Attributes:
        history: The entries at that time.
        role: Who runs it, see `Made.role`.
        variables: Of PL/pgSQL, as far as they are entries, numbers of them, or conditions; None is a NULL.
        row: The entry of the row that is looked at.
        alias: What the table of that row is called.
    """

    history: History
    role: str
    variables: Mapping[str, Bound] = field(default_factory=dict)
    row: Key | None = None
    alias: str = "job"


_COMPARISONS: Final[Mapping[str, Callable[[int], bool]]] = {
    "=": lambda sign: sign == 0,
    "<>": lambda sign: sign != 0,
    "!=": lambda sign: sign != 0,
    "<": lambda sign: sign < 0,
    ">": lambda sign: sign > 0,
    "<=": lambda sign: sign <= 0,
    ">=": lambda sign: sign >= 0,
}
_PRESENT: Final = {"pg_extension": ("extname", "pg_cron"), "pg_namespace": ("nspname", "cron")}


def find_rows(select: Select, scope: Scope) -> list[tuple[Key, Truth]] | None:
    """Find the entries that a query of cron.job gives.

    Args:
        select: The query.
        scope: Where it stands.

    Returns:
        The keys in order of their making, each with True, or UNKNOWN where it may be one of them; an entry
        that is only perhaps there counts as one. None where the query cannot be read.
    """
    alias = read_job_alias(select.source)
    if not alias or select.rest:
        return None
    rows: list[tuple[Key, Truth]] = []
    for key in scope.history.entries:
        truth: Truth = True
        if select.where:
            truth = evaluate(select.where, replace(scope, row=key, alias=alias))
        if truth:
            rows.append((key, truth))
    return rows


def are_sure(rows: Sequence[tuple[Key, Truth]] | None, scope: Scope) -> bool:
    """Tell whether just these rows are there.

    Args:
        rows: What `find_rows` found.
        scope: Where it looked.

    Returns:
        False where one of them is only perhaps there, or only perhaps one of them.
    """
    return rows is not None and all(
        truth is True and not scope.history.entries[key].perhaps for key, truth in rows
    )


def assume(tokens: Sequence[Token], scope: Scope, *, holds: bool) -> History:
    """Say what is known of the entries where a condition holds, or does not.

    Args:
        tokens: A condition that is UNKNOWN.
        scope: Where it stands.
        holds: Which of both.

    Returns:
        The history; an entry that is only perhaps there is so for sure, or is not, where the condition is
        that there is just this entry.
    """
    tokens = _strip_parentheses(tokens)
    if tokens and tokens[0].is_word("not"):
        return assume(tokens[1:], scope, holds=not holds)
    if len(tokens) < 4 or not tokens[0].is_word("exists") or not tokens[2].is_word("select"):
        return scope.history
    rows = find_rows(replace(read_select(tokens[2:-1]), rest=""), scope) or []
    if len(rows) != 1 or rows[0][1] is not True:
        return scope.history
    key = rows[0][0]
    if not holds:
        return scope.history.remove(key)
    return scope.history.change(key, replace(scope.history.entries[key], perhaps=()))


def evaluate(tokens: Sequence[Token], scope: Scope) -> Truth:
    """Tell whether a condition holds.

    Args:
        tokens: The condition.
        scope: Where it stands.

    Returns:
        True, False, None for NULL, or UNKNOWN.
    """
    tokens = _strip_parentheses(tokens)
    if not tokens or any(token.is_word("case", "between") for token in tokens):
        return UNKNOWN
    for word, decisive in (("or", True), ("and", False)):
        parts = _split_words(tokens, word)
        if len(parts) > 1:
            return _combine([evaluate(part, scope) for part in parts], decisive=decisive)
    if tokens[0].is_word("not"):
        truth = evaluate(tokens[1:], scope)
        return truth if truth is None or truth is UNKNOWN else not truth
    if tokens[0].is_word("exists") and len(tokens) > 1 and tokens[1].is_mark("("):
        return _exists(tokens[2:-1], scope) if _closes_last(tokens, 1) else UNKNOWN
    return _evaluate_predicate(tokens, scope)


def _strip_parentheses(tokens: Sequence[Token]) -> Sequence[Token]:
    while len(tokens) > 1 and tokens[0].is_mark("(") and not tokens[1].is_word("select"):
        if not _closes_last(tokens, 0):
            break
        tokens = tokens[1:-1]
    return tokens


def _closes_last(tokens: Sequence[Token], start: int) -> bool:
    """Tell whether a parenthesis is closed by the last token."""
    try:
        return find_close(tokens, start) == len(tokens)
    except UnreadableError:
        return False


def _split_words(tokens: Sequence[Token], word: str) -> list[Sequence[Token]]:
    parts: list[Sequence[Token]] = []
    depth = begin = 0
    for place, token in enumerate(tokens):
        depth += token.is_mark("(", "[") - token.is_mark(")", "]")
        if depth == 0 and token.is_word(word):
            parts.append(tokens[begin:place])
            begin = place + 1
    return [*parts, tokens[begin:]]


def _combine(truths: Sequence[Truth], *, decisive: bool) -> Truth:
    if any(truth is decisive for truth in truths):
        return decisive
    if UNKNOWN in truths:
        return UNKNOWN
    return None if None in truths else not decisive


def _exists(tokens: Sequence[Token], scope: Scope) -> Truth:
    if not tokens or not tokens[0].is_word("select"):
        return UNKNOWN
    select = read_select(tokens)
    present = _PRESENT.get(select.source[-1].value if select.source else "")
    if present is not None and not select.rest and len(select.where) == 3:
        column, sign, name = select.where
        if column.is_name(present[0]) and sign.is_mark("=") and name.value == present[1]:
            return True
    rows = find_rows(replace(select, rest="" if select.rest == "limit" else select.rest), scope)
    if rows is None:
        return UNKNOWN
    sure = [UNKNOWN if scope.history.entries[key].perhaps else truth for key, truth in rows]
    return _combine(sure, decisive=True)


def _evaluate_predicate(tokens: Sequence[Token], scope: Scope) -> Truth:
    depth = 0
    for place, token in enumerate(tokens):
        depth += token.is_mark("(", "[") - token.is_mark(")", "]")
        if depth or not place:
            continue
        rest = tokens[place + 1 :]
        if token.is_word("is"):
            return _is_null(tokens[:place], rest, scope)
        if token.is_word("in", "like", "ilike"):
            negated = tokens[place - 1].is_word("not")
            truth = _match(read_value(tokens[: place - negated], scope), token.value, rest, scope)
            return (not truth) if negated and isinstance(truth, bool) else truth
        if token.is_mark(*_COMPARISONS):
            left = read_value(tokens[:place], scope)
            if token.is_mark("=") and rest[:1] and rest[0].is_word("any"):
                return _match(left, "any", rest[1:], scope)
            return _compare(left, read_value(rest, scope), token.value)
    value = read_value(tokens, scope)
    return value if value is None or isinstance(value, bool) else UNKNOWN


def _is_null(operand: Sequence[Token], rest: Sequence[Token], scope: Scope) -> Truth:
    words = [token.value for token in rest]
    value = read_value(operand, scope)
    if value is UNKNOWN or words not in (["null"], ["not", "null"]):
        return UNKNOWN
    return (value is None) == (words == ["null"])


def _match(value: Value, how: str, rest: Sequence[Token], scope: Scope) -> Truth:
    if how in {"like", "ilike"}:
        pattern = read_value(rest, scope)
        if not isinstance(value, str) or not isinstance(pattern, str) or "\\" in pattern:
            return None if value is None else UNKNOWN
        parts = {"%": ".*", "_": "."}
        expression = "".join(parts.get(sign) or re.escape(sign) for sign in pattern)
        flags = re.DOTALL | (re.IGNORECASE if how == "ilike" else 0)
        return re.fullmatch(expression, value, flags) is not None
    inner = rest[1:-1]
    if how == "any":
        is_array = len(inner) > 2 and inner[0].is_word("array") and inner[1].is_mark("[")
        if not is_array or not inner[-1].is_mark("]"):
            return UNKNOWN
        inner = inner[2:-1]
    if inner and inner[0].is_word("select"):
        return UNKNOWN
    truths = [_compare(value, read_value(item, scope), "=") for item in split_commas(inner)]
    return _combine(truths, decisive=True)


def _compare(left: Value, right: Value, sign: str) -> Truth:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    if left is None or right is None:
        return None
    holds = _COMPARISONS[sign]
    if left == right and type(left) is type(right):
        return holds(0)
    if isinstance(left, str) and isinstance(right, str):
        # In which order texts stand is a matter of the database's collation.
        return holds(1) if sign in {"=", "<>", "!="} else UNKNOWN
    if isinstance(left, int) and isinstance(right, int):
        return holds((left > right) - (left < right))
    return UNKNOWN


def read_value(tokens: Sequence[Token], scope: Scope) -> Value:
    """Read an operand: a constant, a column of the row, a variable, or a query of one value.

    Args:
        tokens: The operand.
        scope: Where it stands.

    Returns:
        Its value, or UNKNOWN.
    """
    try:
        return read_constant(tokens)
    except UnreadableError:
        pass
    if len(tokens) > 2 and tokens[-2].is_mark("::"):
        return read_value(tokens[:-2], scope)
    words = [token.value for token in tokens]
    if words in (["current_user"], ["session_user"], ["user"]):
        return scope.role or Special.CURRENT
    if words == ["current_database", "(", ")"]:
        return Special.CURRENT
    if len(tokens) > 1 and tokens[0].is_mark("(") and tokens[1].is_word("select"):
        return _read_scalar(tokens[1:-1], scope) if _closes_last(tokens, 0) else UNKNOWN
    if len(tokens) in {1, 3} and all(token.kind in {"word", "name"} for token in tokens[::2]):
        return _read_name(words, scope)
    return UNKNOWN


def read_any(tokens: Sequence[Token], scope: Scope) -> Value:
    """Read what a variable is given: an operand or a condition.

    Args:
        tokens: All of it.
        scope: Where it stands.

    Returns:
        Its value, or UNKNOWN.
    """
    value = read_value(tokens, scope)
    return evaluate(tokens, scope) if value is UNKNOWN else value


def _read_name(words: Sequence[str], scope: Scope) -> Value:
    column = words[-1]
    if len(words) == 1 and column in scope.variables:
        return scope.variables[column]
    if scope.row is not None and (len(words) == 1 or words[0] == scope.alias):
        return _read_column(scope.history.entries[scope.row], scope.row, column)
    if len(words) == 3 and words[1] == "." and words[0] in scope.variables:
        record = scope.variables[words[0]]
        if not isinstance(record, JobId):
            return None if record is None else UNKNOWN
        made = scope.history.entries.get(record.key)
        if made is None:
            return record if column == "jobid" else UNKNOWN
        return _read_column(made, record.key, column)
    return UNKNOWN


def _read_column(made: Made, key: Key, column: str) -> Value:
    if column == "jobid":
        return JobId(key)
    if column == "jobname":
        return made.name
    if made.doubt or made.kind == "worker":
        return UNKNOWN
    if column in {"schedule", "command"}:
        return made.schedule if column == "schedule" else made.command
    if column == "active":
        return UNKNOWN if made.active is None else made.active
    if column in {"database", "username"}:
        value = made.database if column == "database" else made.role
        return Special.CURRENT if value == CURRENT else value
    return UNKNOWN


def _read_scalar(tokens: Sequence[Token], scope: Scope) -> Value:
    """Read the one value of a query of cron.job, or the number of its rows."""
    select = read_select(tokens)
    only_one = select.rest == "limit"
    rows = find_rows(replace(select, rest="" if only_one else select.rest), scope)
    if rows is None or len(select.items) != 1 or not are_sure(rows, scope):
        return UNKNOWN
    words = [token.value for token in select.items[0]]
    if words[:2] == ["count", "("] and words[-1] == ")" and "distinct" not in words and not only_one:
        return len(rows)
    if len(rows) > 1:
        return UNKNOWN
    if not rows:
        return None
    if words == ["*"]:
        return JobId(rows[0][0])
    inner = replace(scope, row=rows[0][0], alias=read_job_alias(select.source))
    return read_value(select.items[0], inner)
