"""Carry calls of pg_cron's functions out on a history instead of a database; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.cron_history import CURRENT, History, Key, Made, Source
from reconciler.core.imports.sql_calls import UnreadableError, find_call, read_constant
from reconciler.core.imports.sql_queries import JobId, Scope, Special, read_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.imports.sql_calls import Call, Constant
    from reconciler.core.imports.sql_queries import Value
    from reconciler.core.imports.sql_tokens import Token

_LABELS: Final = {
    "job_name": "name",
    "job_id": "job id",
    "username": "role",
    "active": "active",
    "url": "address",
}
_IDS: Final = "the database gives job ids out, so that no file says whose it is"
NO_ROLE: Final = (
    "SET LOCAL ROLE stands outside of a transaction: whose job it is depends on what ran the file"
)


class MissingJobError(Exception):
    """A call is about an entry that no file has made, which would be an error in the database."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call leaves.

    Attributes:
        history: The entries after it.
        value: What it returns, as far as a later statement may use it.
    """

    history: History
    value: Value = True


def execute_call(call: Call, scope: Scope, role: str | None, source: Source) -> Outcome:
    """Carry a call out.

    Args:
        call: The call; calls among its arguments are carried out first.
        scope: What its arguments may refer to.
        role: Who makes it; None where that cannot be known.
        source: Where it stands.

    Returns:
        What it leaves. Where all but schedule and command of a job can be read, the job is in doubt.

    Raises:
        UnreadableError: What it does cannot be told from the text.
        MissingJobError: No file made the entry.
    """
    if role is None:
        raise UnreadableError(NO_ROLE)
    match call.function:
        case "schedule" | "schedule_in_database":
            return _schedule(call, scope, role, source)
        case "alter_job":
            return _alter(call, scope, role, source)
        case "create_queue_worker":
            return _create_worker(call, scope, role, source)
        case _:
            return _unschedule(call, scope, role, source)


def _schedule(call: Call, scope: Scope, role: str, source: Source) -> Outcome:
    given = call.arguments
    name: str | None = None
    if "job_name" in given:
        name = _need_text(call, "job_name")
    values = [_read(call, one) for one in ("schedule", "command") if _is_readable(given[one])]
    if name is None and (None in values):
        return Outcome(scope.history, None)  # the form of two arguments is STRICT
    made = Made(
        name=name,
        role=_read_identity(call, "username", "current_user") or role,
        schedule="",
        database=_read_identity(call, "database", "current_database"),
        source=source,
    )
    if "active" in given:
        made = replace(made, active=_read_flag(call))
    try:
        made = replace(made, schedule=_need_text(call, "schedule"), command=_need_text(call, "command"))
    except UnreadableError as error:
        if name is None:
            raise
        history, key = scope.history.put(made)
        return Outcome(history.doubt(key, str(error), active=history.entries[key].active), JobId(key))
    history, key = scope.history.put(made)
    return Outcome(history, JobId(key))


def _alter(call: Call, scope: Scope, role: str, source: Source) -> Outcome:
    key, history = _find_job(call, scope, role, source)
    if key is None:
        raise MissingJobError
    before = history.entries[key]
    made = replace(before, source=source)
    problem = ""
    for column in ("schedule", "command", "database", "username", "active"):
        if column not in call.arguments:
            continue
        try:
            made = _alter_column(made, call, column, role)
        except UnreadableError as error:
            problem = problem or str(error)
            if column == "active":
                made = replace(made, active=None)
            elif column == "username":
                raise
    if before.kind == "worker":
        problem = problem or "it is made with create_queue_worker and changed with cron.alter_job"
    history = history.change(key, made)
    key = (made.name or key[0], made.role)
    if problem:
        history = history.doubt(key, problem, active=made.active)
    return Outcome(history)


def _alter_column(made: Made, call: Call, column: str, role: str) -> Made:
    if column == "active":
        return made if _read(call, "active") is None else replace(made, active=_read_flag(call))
    if column == "username":
        if _is_readable(call.arguments[column]) and _read(call, column) is None:
            return made
        return replace(made, role=_read_identity(call, column, "current_user") or role)
    if column == "database":
        if _is_readable(call.arguments[column]) and _read(call, column) is None:
            return made
        return replace(made, database=_read_identity(call, column, "current_database"))
    if _read(call, column) is None:
        return made
    if column == "schedule":
        return replace(made, schedule=_need_text(call, column))
    return replace(made, command=_need_text(call, column))


def _unschedule(call: Call, scope: Scope, role: str, source: Source) -> Outcome:
    key: Key | None
    history = scope.history
    if "job_id" in call.arguments:
        key, history = _find_job(call, scope, role, source)
        if key is None:
            return Outcome(history, None)
    else:
        parameter = "name" if call.function == "drop_queue_worker" else "job_name"
        value = read_value(call.arguments[parameter], scope)
        if value is None:
            return Outcome(history, None)
        key = (value if isinstance(value, str) else _need_text(call, parameter), role)
    if key not in history.entries:
        raise MissingJobError
    return Outcome(history.remove(key))


def _create_worker(call: Call, scope: Scope, role: str, source: Source) -> Outcome:
    try:
        has_token = read_constant(call.arguments["token"]) not in {None, ""}
    except UnreadableError:
        has_token = True  # whatever it is, the tool names it and never reads it
    made = Made(
        kind="worker",
        name=_need_text(call, "name"),
        role=role,
        schedule="",
        has_token=has_token,
        source=source,
    )
    try:
        made = replace(made, schedule=_need_text(call, "schedule"), url=_need_text(call, "url"))
    except UnreadableError as error:
        history, key = scope.history.put(made)
        return Outcome(history.doubt(key, str(error), active=True), JobId(key))
    history, key = scope.history.put(made)
    return Outcome(history, JobId(key))


def _find_job(call: Call, scope: Scope, role: str, source: Source) -> tuple[Key | None, History]:
    """Find out whose number an argument is; a call that stands there is carried out."""
    tokens = call.arguments["job_id"]
    inner = find_call(tokens, 0)
    if inner is not None and inner.end == len(tokens):
        outcome = execute_call(inner, scope, role, source)
        value, history = outcome.value, outcome.history
    else:
        value, history = read_value(tokens, scope), scope.history
    if isinstance(value, str) and call.function == "unschedule":
        value = JobId((value, role))  # a query of names
    if isinstance(value, JobId):
        if value.key not in history.entries:
            raise MissingJobError
        return value.key, history
    if value is None:
        return None, history
    if isinstance(value, int):
        raise UnreadableError(_IDS)
    raise UnreadableError("which job it is about cannot be told from the text")


def _is_readable(tokens: Sequence[Token]) -> bool:
    try:
        read_constant(tokens)
    except UnreadableError:
        return False
    return True


def _read(call: Call, parameter: str) -> Constant:
    try:
        return read_constant(call.arguments[parameter])
    except UnreadableError as error:
        label = _LABELS.get(parameter, parameter)
        raise UnreadableError(f"its {label} is {error}, which only the database can work out") from None


def _need_text(call: Call, parameter: str) -> str:
    value = _read(call, parameter)
    if isinstance(value, str):
        return value
    label = _LABELS.get(parameter, parameter)
    raise UnreadableError(f"its {label} is {'NULL' if value is None else 'no text'}")


def _read_flag(call: Call) -> bool:
    value = _read(call, "active")
    if isinstance(value, str) and value.strip().lower() in {"true", "false", "t", "f"}:
        value = value.strip().lower() in {"true", "t"}
    if isinstance(value, bool):
        return value
    raise UnreadableError("active is neither true nor false")


def _read_identity(call: Call, parameter: str, current: str) -> str:
    """Read the name of a role or a database; that of whoever calls is `CURRENT`."""
    if parameter not in call.arguments:
        return CURRENT
    tokens = call.arguments[parameter]
    if tokens and tokens[0].is_word(current, "session_user"):
        value = read_value(tokens, Scope(history=History(), role=CURRENT))
        if value is Special.CURRENT:
            return CURRENT
    return CURRENT if _read(call, parameter) is None else _need_text(call, parameter)
