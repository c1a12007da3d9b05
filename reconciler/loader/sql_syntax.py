"""Parse SQL bodies without a server, by PostgreSQL's own grammar; needs the package pglast.

Its grammar is that of one version, mostly newer than the target's: what it refuses no server takes, what it
takes an old server may refuse. Names are not looked up.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.body_checks import NO_EFFECT, Remark, find_parameter, say_unbounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.body_checks import Statement

HINT = "The SQL of jobs was not parsed: that takes pglast (pip install 'reconciler[check]'), or --connect."

_CHANGES: Final = {"DeleteStmt": ("Delete", "usingClause"), "UpdateStmt": ("Update", "fromClause")}
_EFFECTS: Final = frozenset(
    {"FuncCall", "RangeVar", "RangeFunction", "SubLink", "A_Expr", "intoClause", "withClause"}
)


def can_parse() -> bool:
    """Tell whether SQL can be parsed here."""
    return find_spec("pglast") is not None


def parse_statement(statement: Statement) -> Remark | None:
    """Parse a statement.

    Args:
        statement: Of a body.

    Returns:
        An error where it is no SQL, a warning where it is hardly meant, or None.
    """
    parameter = find_parameter(statement)
    if parameter:
        return parameter
    from pglast import parser  # noqa: PLC0415 - an extra, and slow to import

    try:
        tree = json.loads(parser.parse_sql_json(statement.text))
    except parser.ParseError as error:
        position = len(statement.text) if error.args[1] is None else error.args[1]
        return _make_error(statement, error.args[0], position)
    parsed = [one["stmt"] for one in tree.get("stmts", ())]
    if any(_is_plpgsql(one) for one in parsed):
        try:
            parser.parse_plpgsql_json(statement.text)
        except parser.ParseError as error:
            return _make_error(statement, f"in the block of DO: {error.args[0]}", 0)
    unbounded = next((say for one in parsed for say in _find_unbounded(one)), "")
    if unbounded or any(_is_idle(one) for one in parsed):
        message = unbounded or NO_EFFECT
        return Remark(name=statement.name, severity="warning", message=message, offset=statement.offset)
    return None


def _make_error(statement: Statement, message: str, position: int) -> Remark:
    return Remark(name=statement.name, severity="error", message=message, offset=statement.offset + position)


def _is_plpgsql(statement: dict[str, Any]) -> bool:
    options = statement.get("DoStmt", {}).get("args")
    if options is None:
        return False
    languages = [
        one["DefElem"]["arg"]["String"]["sval"] for one in options if one["DefElem"]["defname"] == "language"
    ]
    return all(language == "plpgsql" for language in languages)


def _find_unbounded(tree: Any) -> Iterator[str]:
    """Find the changes without a condition, also below WITH."""
    if isinstance(tree, list):
        for value in tree:
            yield from _find_unbounded(value)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in _CHANGES and not {"whereClause", _CHANGES[key][1]} & value.keys():
                yield say_unbounded(_CHANGES[key][0], value["relation"]["relname"])
            yield from _find_unbounded(value)


def _is_idle(statement: dict[str, Any]) -> bool:
    """Tell whether a SELECT only computes: it reads no table, which may be a view, and calls nothing."""
    select = statement.get("SelectStmt")
    return select is not None and not _list_keys(select) & _EFFECTS


def _list_keys(tree: Any) -> set[str]:
    if isinstance(tree, list):
        return set().union(*map(_list_keys, tree))
    if isinstance(tree, dict):
        return set(tree).union(*map(_list_keys, tree.values()))
    return set()
