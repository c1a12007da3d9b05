"""Judge SQL bodies by what a server says of their plans; knows no server and executes nothing.

Answers are what EXPLAIN (FORMAT JSON, VERBOSE) or a parser said of one statement. What cannot be told without
executing a statement is said to be unchecked, never to be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reconciler.core.specs import Place

Severity = Literal["error", "warning", "unchecked"]

_NAME: Final = r'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\U0010ffff][\w$]*)'
_BLANK: Final = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*"
_PLANNED: Final = re.compile(
    rf"{_BLANK}(?:\(\s*)*(select|insert|update|delete|merge|values|with|table)\b", re.IGNORECASE
)
_CALL: Final = re.compile(rf"({_NAME})\s*\(")
_CHANGED: Final = re.compile(
    rf"\b(insert\s+into|update|delete\s+from|merge\s+into)\s+(?:only\s+)?(?:{_NAME}\s*\.\s*)?({_NAME})",
    re.IGNORECASE,
)
_MEANT: Final = re.compile(r"\bwhere\s+true\b", re.IGNORECASE)
_EFFECT: Final = re.compile(r"\b(?:into|insert|update|delete|merge)\b", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"(?<![\w$])\$[0-9]+")
_INTO: Final = re.compile(r"\binto\b", re.IGNORECASE)
_ROWS_INTO: Final = re.compile(r"\b(?:insert|merge)\s+into\b", re.IGNORECASE)
_DENIED: Final = re.compile(r"permission denied for (materialized view|foreign table|[a-z]+) (.+)", re.DOTALL)
_QUOTED: Final = re.compile(r'"([^"]+)"')
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*")

_NOT_THERE: Final = frozenset({"42P01", "42703", "42883", "42704", "3F000"})
_WRONG_CLASSES: Final = ("42", "3F", "0A", "21", "22", "54")
_FOREIGN_NODES: Final = frozenset({"Custom Scan", "Foreign Scan"})
_CONDITIONS: Final = (
    *("Filter", "Index Cond", "Recheck Cond", "TID Cond", "Join Filter", "Hash Cond", "Merge Cond"),
    *("One-Time Filter", "Run Condition"),
)
_RELATIONS: Final = frozenset({"table", "view", "materialized view", "foreign table"})
_PRIVILEGES: Final = {
    "insert": "INSERT",
    "update": "SELECT, UPDATE",
    "delete": "SELECT, DELETE",
    "merge": "SELECT, INSERT, UPDATE, DELETE",
}
_NOTICES_SHOWN: Final = 20

NO_EFFECT: Final = (
    "it does nothing: nobody reads the result of this SELECT, and it calls no volatile function"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a body.

    Attributes:
        name: Of the job.
        text: SQL, without its semicolon.
        plain: The same without texts and comments.
        offset: Where it begins in the body, in characters.
        follows_unknown: Whether a statement before it may change what there is, as CREATE or CALL does.
    """

    name: str
    text: str
    plain: str
    offset: int
    follows_unknown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a server did not plan a statement.

    Attributes:
        sqlstate: Its code.
        message: Its words.
        hint: Its hint; "" for none.
        position: Where in the statement, in characters from 0; None where it names no place.
        relation: Which one the role may not use, with its schema; "" where the server did not say.
    """

    sqlstate: str
    message: str
    hint: str = ""
    position: int | None = None
    relation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What is to be said of a body.

    Attributes:
        name: Of the job.
        severity: error, it cannot run; warning, it runs and is hardly meant so; unchecked, nobody knows.
        message: What is so, and what to do.
        offset: Where in the body, in characters; None for the whole of it.
    """

    name: str
    severity: Severity
    message: str
    offset: int | None = None


def place_statements(name: str, body: str, texts: Iterable[tuple[str, str]]) -> tuple[Statement, ...]:
    """Find where the statements of a body begin.

    Args:
        name: Of the job.
        body: Its SQL.
        texts: Its statements in order, each a part of it; with the same without texts and comments.

    Returns:
        The statements.
    """
    statements = []
    position, unknown = 0, False
    for text, plain in texts:
        offset = max(body.find(text, position), position)
        statement = Statement(name=name, text=text, plain=plain, offset=offset, follows_unknown=unknown)
        statements.append(statement)
        position = offset + len(text)
        makes_table = _INTO.search(_ROWS_INTO.sub("", plain))
        unknown = unknown or not is_planned(text) or makes_table is not None
    return tuple(statements)


def is_planned(statement: str) -> bool:
    """Tell whether EXPLAIN takes a statement, so that a server can tell all about it without executing it.

    Args:
        statement: SQL.

    Returns:
        True for SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, and WITH before them.
    """
    return _PLANNED.match(statement) is not None


def find_parameter(statement: Statement) -> Remark | None:
    """Find a parameter; nobody gives a job any, but a server that only plans does not ask for them.

    Args:
        statement: Of a body.

    Returns:
        An error, or None.
    """
    found = _PARAMETER.search(statement.plain)
    if found is None:
        return None
    offset = statement.offset + max(statement.text.find(found[0]), 0)
    message = f"there is no parameter {found[0]}: a job has none"
    return Remark(name=statement.name, severity="error", message=message, offset=offset)


def list_called(text: str) -> frozenset[str]:
    """List the names that stand before a parenthesis.

    Args:
        text: SQL.

    Returns:
        Names of functions, folded as the server does, among words that are none.
    """
    names = (match[1] for match in _CALL.finditer(text))
    return frozenset(name[1:-1].replace('""', '"') if name[0] == '"' else name.lower() for name in names)


def list_called_by_plan(plan: Any) -> frozenset[str]:
    """List the names that stand before a parenthesis in a plan, where views and SQL functions are unfolded.

    Args:
        plan: Its top node, or a part of it.

    Returns:
        As `list_called` does.
    """
    if isinstance(plan, str):
        return list_called(plan)
    values = plan.values() if isinstance(plan, dict) else plan if isinstance(plan, list) else ()
    return frozenset().union(*map(list_called_by_plan, values))


def judge_plan(statement: Statement, plan: dict[str, Any], *, calls: bool) -> str:
    """Say what is hardly meant in a statement, by its plan.

    Args:
        statement: The statement.
        plan: The top node of its plan.
        calls: Whether it calls a volatile function.

    Returns:
        A warning, or "".
    """
    nodes = list(_walk(plan))
    changing = [node for node in nodes if node["Node Type"] == "ModifyTable"]
    for node in changing:
        operation, table = node.get("Operation", ""), node.get("Relation Name", "")
        below = [child for child in node.get("Plans", ()) if _is_outer(child)]
        if below and all(child.get("One-Time Filter") == "false" for child in below):
            return f"{operation.upper()} of {table} never touches a row: its condition is never true"
        is_whole = operation in {"Update", "Delete"} and below and not any(map(_is_limited, below))
        if is_whole and not _MEANT.search(statement.plain):
            return say_unbounded(operation, table)
    if (
        changing
        or _EFFECT.search(statement.plain)
        or any(node["Node Type"] in _FOREIGN_NODES for node in nodes)
    ):
        return ""
    if plan.get("One-Time Filter") == "false":
        return "it does nothing: the condition of this SELECT is never true"
    return "" if calls else NO_EFFECT


def say_unbounded(operation: str, table: str) -> str:
    """Say that a statement changes a whole table.

    Args:
        operation: UPDATE or DELETE.
        table: Its name.

    Returns:
        The warning.
    """
    return (
        f"{operation.upper()} of {table} has no condition: each run does it to all rows; WHERE true says so"
    )


def judge_refusal(statement: Statement, refusal: Refusal, *, role: str, is_complete: bool) -> Remark:
    """Say what it means that a server did not plan a statement.

    Values that no file names are not repeated: a plan is shown to people who may not read them.

    Args:
        statement: The statement.
        refusal: Why.
        role: Who runs it.
        is_complete: Whether the schema reconciler is as this release needs it.

    Returns:
        The remark.
    """
    severity: Severity = "error"
    state, message = refusal.sqlstate, refusal.message
    if state == "57014":
        severity, message = "unchecked", "planning it takes longer than the check waits"
    elif state == "55P03":
        severity, message = "unchecked", f"somebody else has locked what it needs ({message})"
    elif state == "25006":
        severity, message = "unchecked", "a function in it writes as soon as it is planned, so planning ended"
    elif state == "42501":
        remedy = _grant(statement.text, refusal, role)
        message = f"{message}; {remedy}" if remedy else f"{message}: grant it to {quote_name(role)}"
    elif state in _NOT_THERE and statement.follows_unknown:
        severity, message = "unchecked", f"{message}, unless a statement before it makes it"
    elif state in _NOT_THERE and not is_complete and "reconciler" in message:
        severity, message = "unchecked", f"{message} before the first apply of this release"
    elif not state.startswith(_WRONG_CLASSES):
        severity, message = "unchecked", f"the server could not plan it (SQLSTATE {state})"
    elif state.startswith("22") and not all(part in statement.text for part in _QUOTED.findall(message)):
        message = f"a value in it cannot be computed (SQLSTATE {state}); run --dry-run shows which"
    elif refusal.hint:
        message = f"{message} ({refusal.hint})"
    position = 0 if refusal.position is None else min(max(refusal.position, 0), len(statement.text))
    return Remark(name=statement.name, severity=severity, message=message, offset=statement.offset + position)


def find_denied(refusal: Refusal) -> str:
    """Name the relation that a role may not use.

    Args:
        refusal: Why a statement was not planned.

    Returns:
        The relation's name without its schema; "" where it is about something else.
    """
    denied = _DENIED.fullmatch(refusal.message) if refusal.sqlstate == "42501" else None
    return denied[2] if denied and denied[1] in _RELATIONS else ""


def quote_name(name: str) -> str:
    """Quote a name where SQL needs it."""
    escaped = name.replace('"', '""')
    return name if _PLAIN.fullmatch(name) else f'"{escaped}"'


def make_notices(remarks: Sequence[tuple[Remark, Place | None]]) -> tuple[Notice, ...]:
    """Make the notices of a plan.

    Args:
        remarks: With their places in the files, where they have one.

    Returns:
        `body_error`, `body_warning` and `body_unchecked`, in this order; jobs of which the same is to be said
        share one. Of very many the rest is counted.
    """
    notices: list[Notice] = []
    for severity in ("error", "warning", "unchecked"):
        chosen: dict[str, list[str]] = {}
        for remark, place in remarks:
            if remark.severity == severity:
                where = f"{place}: " if place and severity != "unchecked" else ""
                chosen.setdefault(f"{where}{remark.message}", []).append(remark.name)
        shown = list(chosen.items())[:_NOTICES_SHOWN]
        for message, names in shown:
            text = f"not checked: {message}" if severity == "unchecked" else message
            notices.append(Notice(code=f"body_{severity}", message=text, names=tuple(sorted(set(names)))))
        rest = {name for _, names in list(chosen.items())[_NOTICES_SHOWN:] for name in names}
        if rest:
            message = "there is more of this kind; validate --connect shows all of it"
            notices.append(Notice(code=f"body_{severity}", message=message, names=tuple(sorted(rest))))
    return tuple(notices)


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def _is_outer(node: dict[str, Any]) -> bool:
    """Tell whether a node feeds the one above it; others are subqueries and WITH, which limit nothing."""
    return node.get("Parent Relationship") not in {"InitPlan", "SubPlan"}


def _is_limited(node: dict[str, Any]) -> bool:
    """Tell whether a condition stands anywhere between a table and its change."""
    if node["Node Type"] in {*_FOREIGN_NODES, "Limit"} or any(key in node for key in _CONDITIONS):
        return True
    return any(_is_limited(child) for child in node.get("Plans", ()) if _is_outer(child))


def _grant(statement: str, refusal: Refusal, role: str) -> str:
    """Write the GRANT that is missing; "" where the server's words do not tell."""
    denied = _DENIED.fullmatch(refusal.message)
    if denied is None:
        return ""
    kind, name = denied[1], quote_name(denied[2])
    to = f"TO {quote_name(role)}"
    if kind == "schema":
        return f"GRANT USAGE ON SCHEMA {name} {to}"
    qualified = re.search(rf"({_NAME})\s*\.\s*{re.escape(name)}(?![\w$])", statement)
    whole = f"{qualified[1]}.{name}" if qualified else refusal.relation or name
    if kind in {"function", "procedure"}:
        return f"GRANT EXECUTE ON {kind.upper()} {whole} {to}"
    if kind not in _RELATIONS:
        return ""
    words = (match[1].split()[0].lower() for match in _CHANGED.finditer(statement) if match[2] == name)
    rights = next((_PRIVILEGES[word] for word in words), "SELECT")
    return f"GRANT {rights} ON {whole} {to}"
