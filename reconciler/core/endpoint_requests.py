"""Requests to the run endpoint, read into types; and problems, as an answer tells them.

Knows no HTTP library and no database: a query, headers and a body come in as texts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

from .durations import parse_duration
from .names import find_nearest
from .queued_jobs import NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_RUN_KEYS: Final = ("queue", "status", "limit", "timeout", "wait")
_JOB_KEYS: Final = (
    *("name", "handler", "run_at", "payload", "queue", "priority", "unique_key", "ordering_key"),
    *("max_attempts", "timeout", "type"),
)
_LARGEST: Final = 2**31 - 1
_MOST_DIGITS: Final = 1000
"""Of a number in JSON; Python itself takes no more than 4300."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request is not answered as asked, after RFC 9457.

    Attributes:
        status: The HTTP status.
        detail: What is wrong, for people.
        remedy: What to do.
        headers: What the answer's head says besides.
    """

    status: int
    detail: str
    remedy: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """What one call may ask for.

    Attributes:
        max_limit: Jobs at the most.
        budget: The time in which jobs may begin, where a call that waits names none.
        max_budget: The longest time that a call may name, and that of a call that does not wait.
    """

    max_limit: int = 1000
    budget: timedelta = timedelta(seconds=25)
    max_budget: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Which jobs are to be done.

    Attributes:
        queue: Whose jobs.
        status: Those that wait, or those that were given up.
        limit: How many at the most.
        budget: In which time they have to begin; then the answer comes, whatever still runs.
        is_waiting: Whether the caller waits for the results.
    """

    queue: str
    status: Literal["pending", "failed"]
    limit: int
    budget: timedelta
    is_waiting: bool


class _BadValueError(Exception):
    """A value that cannot be taken; its arguments are what and what to do."""


def parse_run_request(
    query: Sequence[tuple[str, str]] | None, prefer: Iterable[str], rules: RunRules
) -> RunRequest | Problem:
    """Parse what a call wants to be run.

    `queue=failed` without a status means the failed jobs of the default queue.

    Args:
        query: Names and values; None for a query that cannot be read.
        prefer: The values of the header Prefer (RFC 7240): `respond-async` does not wait.
        rules: What may be asked for.

    Returns:
        The request, or what is wrong with it.
    """
    try:
        values = _read_query(query)
        queue, asked = values.get("queue", "default"), values.get("status")
        status = _read_status("pending" if asked is None else asked)
        if queue == "failed" and asked != "pending":
            queue, status = "default", "failed"
        is_waiting = _read_wait(values.get("wait"), prefer)
        return RunRequest(
            queue=_read_name("queue", queue),
            status=status,
            limit=_read_limit(values.get("limit", "1"), rules),
            budget=_read_budget(values.get("timeout"), rules, is_waiting=is_waiting),
            is_waiting=is_waiting,
        )
    except _BadValueError as error:
        return _make_bad_request(error)


def parse_new_job(body: bytes) -> NewJob | Problem:
    """Parse the job that a call wants to be queued.

    Args:
        body: A JSON object with `name` or `handler`, and the other arguments of `enqueue`. A `run_at` without
            an offset is in UTC.

    Returns:
        The job, or what is wrong with the body.
    """
    try:
        values = _read_object(body)
        given = [key for key in ("name", "handler") if values.get(key) is not None]
        if len(given) != 1:
            raise _BadValueError(  # noqa: TRY301 - one place turns it into a problem
                "the job has " + ("no name" if not given else "a name and a handler, which are the same"),
                'send {"name": "mail.welcome"}: the handler that is to do it',
            )
        options = {key: _READ[key](key, value) for key, value in values.items() if value is not None}
        handler = options.pop(given[0])
        return NewJob(handler=handler, **options)
    except _BadValueError as error:
        return _make_bad_request(error)


def parse_instant(text: str) -> datetime:
    """Parse an instant.

    Args:
        text: In ISO 8601; without an offset it is in UTC.

    Returns:
        The instant, in UTC.

    Raises:
        ValueError: It is none.
    """
    at = datetime.fromisoformat(text)
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def parse_json(text: bytes) -> Any:
    """Parse JSON as its standard has it: in UTF-8, without NaN and numbers that are infinite.

    Args:
        text: As it came.

    Returns:
        What stands there.

    Raises:
        ValueError: It is no JSON, has a number that nothing holds, or is nested too deeply.
    """
    try:
        return json.loads(
            text.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_read_finite_float,
            parse_int=_read_whole,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _make_bad_request(error: _BadValueError) -> Problem:
    detail, remedy = error.args
    return Problem(status=400, detail=detail, remedy=remedy)


def _read_query(query: Sequence[tuple[str, str]] | None) -> dict[str, str]:
    if query is None:
        raise _BadValueError("the query cannot be read", f"send {_list(_RUN_KEYS)}, in UTF-8")
    values: dict[str, str] = {}
    for key, value in query:
        _check_key(key, _RUN_KEYS, "parameter")
        if key in values:
            raise _BadValueError(f"the parameter {key} stands there twice", "send it once")
        values[key] = value
    return values


def _read_status(value: str) -> Literal["pending", "failed"]:
    if value == "pending":
        return "pending"
    if value == "failed":
        return "failed"
    raise _BadValueError(f"status={value} is none that can be run", "send status=pending or status=failed")


def _read_limit(value: str, rules: RunRules) -> int:
    if value.isascii() and value.isdigit() and 1 <= int(value[:12]) <= rules.max_limit:
        return int(value)
    raise _BadValueError(
        f"limit={value[:30]} is no number of jobs from 1 to {rules.max_limit}",
        "send a smaller one, more often or from more workers"
        if value.isdigit() and value.strip("0")
        else "send limit=1",
    )


def _read_budget(value: str | None, rules: RunRules, *, is_waiting: bool) -> timedelta:
    if value is None:
        return min(rules.budget, rules.max_budget) if is_waiting else rules.max_budget
    remedy = f"send timeout=20s, or any time up to {rules.max_budget.total_seconds():.0f}s"
    try:
        budget = parse_duration(f"{value}s" if value.isdigit() else value)
    except ValueError:
        raise _BadValueError(f"timeout={value[:30]} is no time", remedy) from None
    if budget > rules.max_budget:
        raise _BadValueError(f"timeout={value} is too long", remedy)
    return budget


def _read_wait(value: str | None, prefer: Iterable[str]) -> bool:
    if value is None:
        preferences = {part.strip().lower() for line in prefer for part in line.split(",")}
        return "respond-async" not in preferences
    if value in ("true", "false"):
        return value == "true"
    raise _BadValueError(
        f"wait={value[:30]} is neither true nor false", "send wait=false to get a 202 at once"
    )


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        values = parse_json(body)
    except ValueError as error:
        raise _BadValueError(f"the body is no JSON: {error}", "send one JSON object in UTF-8") from None
    if not isinstance(values, dict):
        raise _BadValueError("the body is no JSON object", 'send {"name": …, "payload": {…}}')
    for key in values:
        _check_key(key, _JOB_KEYS, "key")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read_finite_float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:30]} is too large a number")
    return value


def _read_whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:30]}… is too large a number")
    return int(text)


def _check_key(key: str, known: tuple[str, ...], what: str) -> None:
    if key not in known:
        nearest = find_nearest(key, known)
        hint = f"did you mean {nearest}?" if nearest else f"known are {_list(known)}"
        raise _BadValueError(f"there is no {what} {key[:60]}", hint)


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)


def _read_name(key: str, value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 200 and "\0" not in value:
        return value
    raise _BadValueError(f"{key} is no text of 1 to 200 characters", f"send another {key}, or none")


def _read_instant(key: str, value: object) -> datetime:
    remedy = f'send {{"{key}": "2026-12-01T08:00:00Z"}}'
    if not isinstance(value, str):
        raise _BadValueError(f"{key} is no instant", remedy)
    try:
        return parse_instant(value)
    except ValueError:
        raise _BadValueError(f"{key} {value[:40]} is no instant in ISO 8601", remedy) from None


def _read_number(key: str, value: object) -> int:
    least = 1 if key == "max_attempts" else -_LARGEST
    number = _find_whole(value)
    if number is not None and least <= number <= _LARGEST:
        return number
    raise _BadValueError(
        f"{key} is no whole number" + (" from 1 on" if least == 1 else ""), f"send a {key} of 3"
    )


def _find_whole(value: object) -> int | None:
    """Find the whole number that a value is; to JSON 2.0 is one, and true is not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_time(key: str, value: object) -> timedelta:
    seconds = _find_whole(value)
    try:
        return parse_duration(str(value) if seconds is None else f"{seconds}s")
    except ValueError:
        raise _BadValueError(f"{key} is no time", f'send {{"{key}": "90s"}}') from None


_READ: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "payload": lambda _, value: value,
    "run_at": _read_instant,
    "priority": _read_number,
    "max_attempts": _read_number,
    "timeout": _read_time,
    **dict.fromkeys(("name", "handler", "queue", "unique_key", "ordering_key", "type"), _read_name),
}
