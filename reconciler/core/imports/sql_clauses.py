"""Split SQL queries into their clauses; knows not what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.sql_calls import mentions_call, split_commas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.imports.sql_tokens import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """A query in its clauses; `rest` names a clause that is there and is not read."""

    items: Sequence[Sequence[Token]]
    into: Sequence[Token] = ()
    source: Sequence[Token] = ()
    where: Sequence[Token] = ()
    rest: str = ""


_CLAUSES: Final = frozenset(
    {"into", "from", "where", "group", "having", "window", "union", "intersect", "except", "order", "limit"}
    | {"offset", "fetch", "for"}
)
_HARMLESS: Final = frozenset({"order", "for"})


def read_select(tokens: Sequence[Token]) -> Select:
    """Split a query into its clauses.

    Args:
        tokens: From SELECT or PERFORM on.

    Returns:
        The clauses, without the words that begin them.
    """
    parts: dict[str, Sequence[Token]] = {}
    clause, begin, depth, rest = "select", 1, 0, ""
    for place in range(1, len(tokens) + 1):
        token = tokens[place] if place < len(tokens) else None
        if token is not None:
            depth += token.is_mark("(", "[") - token.is_mark(")", "]")
            if depth or not token.is_word(*_CLAUSES) or tokens[place - 1].is_word("distinct"):
                continue
        if clause in parts:
            rest = rest or clause
        parts[clause] = tokens[begin:place]
        if token is not None:
            clause, begin = token.value, place + 1
    into: Sequence[Token] = [one for one in parts.get("into", ()) if not one.is_word("strict")]
    if not parts["select"]:
        into, parts["select"] = _split_targets(into)
    harmless = {name for name in _HARMLESS & parts.keys() if not mentions_call(parts[name])}
    unread = parts.keys() - {"select", "into", "from", "where"} - harmless
    # LIMIT comes last, since those that ask may take it lightly where it is the only one.
    first = min(unread - {"limit"}, default=rest)
    return Select(
        items=split_commas(parts["select"]),
        into=into,
        source=parts.get("from", ()),
        where=parts.get("where", ()),
        rest=first or ("limit" if "limit" in unread else ""),
    )


def _split_targets(tokens: Sequence[Token]) -> tuple[Sequence[Token], Sequence[Token]]:
    """Split what follows SELECT INTO: the variables, and the items that PL/pgSQL lets stand behind them."""
    place = 1
    while place < len(tokens) and tokens[place].is_mark(".", ","):
        place += 2
    return tokens[:place], tokens[place:]


def read_job_alias(source: Sequence[Token]) -> str:
    """Say what cron.job is called in a FROM clause.

    Args:
        source: The clause.

    Returns:
        The alias, or `job`; "" where the clause is not cron.job alone.
    """
    if len(source) < 3 or not (source[0].is_name("cron") and source[2].is_name("job")):
        return ""
    rest = source[4:] if source[3:4] and source[3].is_word("as") else source[3:]
    if not rest:
        return "job"
    return rest[0].value if len(rest) == 1 and rest[0].kind in {"word", "name"} else ""
