"""Find calls of pg_cron's functions and of create_queue_worker in SQL, and read their arguments; pure.

The signatures are those of pg_cron 1.4 and later, which has had the same ones since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reconciler.core.imports.sql_tokens import Token

Constant = str | bool | int | None


class UnreadableError(ValueError):
    """SQL whose effect cannot be told from its text; the message is one clause for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of one of the functions.

    Attributes:
        function: Its name, without a schema.
        arguments: The tokens of each argument that was given, by the name of its parameter.
        tokens: All of the call.
        end: The index behind its closing parenthesis, among the tokens in which it was found.
    """

    function: str
    arguments: Mapping[str, Sequence[Token]]
    tokens: Sequence[Token]
    end: int


_SIGNATURES: Final[Mapping[str, tuple[tuple[tuple[str, ...], int], ...]]] = {
    "schedule": ((("schedule", "command"), 2), (("job_name", "schedule", "command"), 3)),
    "schedule_in_database": ((("job_name", "schedule", "command", "database", "username", "active"), 4),),
    "alter_job": ((("job_id", "schedule", "command", "database", "username", "active"), 1),),
    "unschedule": ((("job_id",), 1), (("job_name",), 1)),
    "create_queue_worker": ((("name", "url", "token", "schedule"), 4),),
    "drop_queue_worker": ((("name",), 1),),
}
"""Each function's signatures: names of all parameters, and how many have to be given."""

CRON: Final = frozenset({"schedule", "schedule_in_database", "alter_job", "unschedule"})
WORKERS: Final = frozenset({"create_queue_worker", "drop_queue_worker"})

_TEXT_TYPES: Final = frozenset({"text", "varchar", "name", "character varying"})
_NUMBER_TYPES: Final = frozenset({"int", "integer", "bigint", "int4", "int8", "smallint", "int2"})
_BOOLEANS: Final = {
    **dict.fromkeys(("t", "true", "y", "yes", "on", "1"), True),
    **dict.fromkeys(("f", "false", "n", "no", "off", "0"), False),
}
_NAME_LIMIT: Final = 63


def find_call(tokens: Sequence[Token], start: int) -> Call | None:
    """Find the call that begins with a token.

    Args:
        tokens: Of one statement.
        start: The index where its name, or the schema before it, would begin.

    Returns:
        The call; None where no call of these functions begins there.

    Raises:
        UnreadableError: Its arguments fit none of the signatures.
    """
    name_at = start
    if _is_dot(tokens, start + 1):
        name_at = start + 2
    if start and tokens[start - 1].is_mark("."):
        return None
    if name_at + 1 >= len(tokens) or not tokens[name_at + 1].is_mark("("):
        return None
    name = tokens[name_at]
    if name.kind not in {"word", "name"} or not _is_ours(tokens[start], name, is_bare=name_at == start):
        return None
    end = find_close(tokens, name_at + 1)
    arguments = _bind(name.value, split_commas(tokens[name_at + 2 : end - 1]))
    return Call(function=name.value, arguments=arguments, tokens=tokens[start:end], end=end)


def _is_ours(schema: Token, name: Token, *, is_bare: bool) -> bool:
    if name.value in WORKERS:
        return True  # people keep a function of this name where they like
    return name.value in CRON and not is_bare and schema.is_name("cron")


def _is_dot(tokens: Sequence[Token], place: int) -> bool:
    return place < len(tokens) and tokens[place].is_mark(".")


def mentions_call(tokens: Sequence[Token]) -> bool:
    """Tell whether tokens hold a call of these functions, readable or not.

    Args:
        tokens: Any.

    Returns:
        True where there is a name of one with a parenthesis.
    """
    for place, token in enumerate(tokens):
        if token.kind not in {"word", "name"} or not tokens[place + 1 : place + 2]:
            continue
        if not tokens[place + 1].is_mark("("):
            continue
        if token.value in WORKERS:
            return True
        if token.value in CRON and place > 1 and tokens[place - 1].is_mark("."):
            return tokens[place - 2].is_name("cron")
    return False


def find_close(tokens: Sequence[Token], start: int) -> int:
    """Find where a parenthesis is closed.

    Args:
        tokens: Of one statement.
        start: The index of the opening parenthesis.

    Returns:
        The index behind the closing one.

    Raises:
        UnreadableError: There is none.
    """
    depth = 0
    for place in range(start, len(tokens)):
        depth += tokens[place].is_mark("(", "[") - tokens[place].is_mark(")", "]")
        if depth == 0:
            return place + 1
    raise UnreadableError("a parenthesis is not closed")


def split_commas(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Split a list at its commas.

    Args:
        tokens: What stands between the parentheses.

    Returns:
        The tokens of each item; none for an empty list.
    """
    items: list[Sequence[Token]] = []
    depth = begin = 0
    for place, token in enumerate(tokens):
        depth += token.is_mark("(", "[") - token.is_mark(")", "]")
        if token.is_mark(",") and depth == 0:
            items.append(tokens[begin:place])
            begin = place + 1
    return [*items, tokens[begin:]] if tokens else []


def _bind(function: str, items: Sequence[Sequence[Token]]) -> dict[str, Sequence[Token]]:
    """Give each argument the name of its parameter."""
    positional: list[Sequence[Token]] = []
    named: dict[str, Sequence[Token]] = {}
    for item in items:
        if len(item) > 1 and item[1].is_mark("=>", ":="):
            if item[0].value in named:
                raise UnreadableError(f"cron.{function} is given {item[0].value} twice")
            named[item[0].value] = item[2:]
        elif named or not item or item[0].is_word("variadic"):
            raise UnreadableError(f"the arguments of {function} cannot be told apart")
        else:
            positional.append(item)
    count = len(positional) + len(named)
    for parameters, least in _choose_signatures(function, positional):
        rest = parameters[len(positional) :]
        if least <= count <= len(parameters) and named.keys() <= set(rest):
            bound = dict(zip(parameters, positional, strict=False)) | named
            if set(parameters[:least]) <= bound.keys():
                return bound
    raise UnreadableError(f"{function} takes no such arguments")


def _choose_signatures(
    function: str, positional: Sequence[Sequence[Token]]
) -> Sequence[tuple[tuple[str, ...], int]]:
    signatures = _SIGNATURES[function]
    if function == "unschedule" and positional and _is_text(positional[0]):
        return signatures[1:]  # of a literal without a type PostgreSQL prefers the text
    return signatures


def _is_text(tokens: Sequence[Token]) -> bool:
    try:
        return isinstance(read_constant(tokens), str)
    except UnreadableError:
        return tokens[-1].is_name("jobname") or any(token.is_mark("||") for token in tokens)


def read_constant(tokens: Sequence[Token]) -> Constant:
    """Read a constant: a literal, NULL, TRUE, FALSE or a number, with casts and parentheses around it.

    Args:
        tokens: Of one argument.

    Returns:
        Its value.

    Raises:
        UnreadableError: It is none.
    """
    while len(tokens) > 1 and tokens[0].is_mark("(") and find_close(tokens, 0) == len(tokens):
        tokens = tokens[1:-1]
    if not tokens:
        raise UnreadableError("missing")
    if len(tokens) == 1:
        return _read_single(tokens)
    kind, operand = _strip_cast(tokens)
    if operand is not None:
        return _convert(read_constant(operand), kind, tokens)
    if len(tokens) == 2 and tokens[1].kind == "text" and tokens[0].kind in {"word", "name"}:
        return _convert(tokens[1].value, tokens[0].value, tokens)
    if len(tokens) == 2 and tokens[0].is_mark("-", "+") and tokens[1].kind == "number":
        number = read_constant(tokens[1:])
        return -number if isinstance(number, int) and tokens[0].is_mark("-") else number
    raise UnreadableError(describe_expression(tokens))


def _read_single(tokens: Sequence[Token]) -> Constant:
    token = tokens[0]
    if token.kind == "text":
        return token.value
    if token.kind == "number" and token.value.isdigit():
        return int(token.value)
    if token.is_word("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[token.value]
    raise UnreadableError(describe_expression(tokens))


def _strip_cast(tokens: Sequence[Token]) -> tuple[str, Sequence[Token] | None]:
    """Split off a cast around the whole: the type, and what is cast; None where there is none."""
    if tokens[0].is_word("cast") and tokens[1].is_mark("(") and find_close(tokens, 1) == len(tokens):
        inner = tokens[2:-1]
        places = [place for place, token in enumerate(inner) if token.is_word("as")]
        return (_join(inner[places[-1] + 1 :]), inner[: places[-1]]) if places else ("", None)
    depth = 0
    for place in range(len(tokens) - 1, 0, -1):
        depth += tokens[place].is_mark(")", "]") - tokens[place].is_mark("(", "[")
        if depth == 0 and tokens[place].is_mark("::"):
            return _join(tokens[place + 1 :]), tokens[:place]
        if depth == 0 and tokens[place].kind == "mark" and not tokens[place].is_mark(".", "(", "["):
            break
    return "", None


def _join(tokens: Sequence[Token]) -> str:
    return " ".join(token.value for token in tokens).replace("pg_catalog . ", "")


def _convert(value: Constant, kind: str, tokens: Sequence[Token]) -> Constant:
    if value is None:
        return None
    if isinstance(value, str):
        if kind == "name" and len(value.encode()) > _NAME_LIMIT:
            raise UnreadableError("cut to 63 bytes")
        if kind in _TEXT_TYPES:
            return value
        if kind in {"bool", "boolean"} and value.strip().lower() in _BOOLEANS:
            return _BOOLEANS[value.strip().lower()]
        if kind in _NUMBER_TYPES and value.strip().isdigit():
            return int(value)
    elif isinstance(value, bool):
        if kind in {"bool", "boolean"}:
            return value
    elif kind in _NUMBER_TYPES:
        return value
    raise UnreadableError(describe_expression(tokens))


def describe_expression(tokens: Sequence[Token]) -> str:
    """Say why tokens are no constant.

    Args:
        tokens: Of an argument; at least one.

    Returns:
        One clause that follows "it is": what they are instead.
    """
    if any(token.is_mark("||") for token in tokens):
        return "built with ||"
    if any(token.is_word("select") for token in tokens):
        return "the result of a query"
    if len(tokens) > 1 and tokens[0].kind == "word" and tokens[1].is_mark("("):
        return f"built by {tokens[0].value}()"
    if tokens[0].kind == "parameter" or tokens[0].is_mark(":"):
        return "a parameter"
    if all(token.kind in {"word", "name"} or token.is_mark(".") for token in tokens):
        return "a variable"
    return "an expression"
