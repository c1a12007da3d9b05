"""Give values of a spec their one canonical form, so that equal meaning is equal text; knows no place.

The schema was checked before: these functions meet the right types, but texts may still be wrong.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.declared_times import DAYS
from reconciler.core.durations import find_interval_fault, parse_duration, parse_rate, render_duration
from reconciler.core.times.month_days import read_month_day, render_month_day

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OMIT: Final = object()
"""Stands for a key that the document leaves out."""

_SHORTEST_LEASE: Final = timedelta(seconds=1)
_TIME: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_MULTIPLE: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?x", re.ASCII)
_SHORTEST_SPREAD: Final = timedelta(minutes=2)
_LONGEST_SPREAD: Final = timedelta(hours=24)


class UnreadableError(ValueError):
    """A value that cannot be read.

    Attributes:
        path: Where it is below the value that was given.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@lru_cache(maxsize=4096)
def canonical_duration(text: str) -> str:
    """Spell a duration canonically.

    Args:
        text: For instance `90s`.

    Returns:
        For instance `1m30s`.

    Raises:
        ValueError: The text is no duration.
    """
    return render_duration(parse_duration(text))


def _slow(text: str) -> str:
    if _MULTIPLE.fullmatch(text) is None:
        return canonical_duration(text)
    multiple = Decimal(text[:-1])
    if multiple <= 1:
        raise ValueError(f"{text!r} is not slower than usual: write more than 1x, such as 3x")
    return f"{multiple.normalize():f}x"


def _lease(text: str) -> str:
    if parse_duration(text) < _SHORTEST_LEASE:
        raise ValueError(
            f"{text!r} is too short for a lease, which is renewed again and again: write 1s or more"
        )
    return canonical_duration(text)


def _rate(text: str) -> str:
    rate = parse_rate(text)
    return f"{rate.count}/{render_duration(rate.per)}"


def _time(text: str) -> str:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time of day: write hours and minutes, such as 02:30")
    return f"{int(found[1]):02d}:{found[2]}"


def _every(text: str) -> str:
    fault = find_interval_fault(parse_duration(text))
    if fault:
        raise ValueError(f"every {text}: {fault}")
    return canonical_duration(text)


def _spread(text: str) -> str:
    spread = parse_duration(text)
    if spread % timedelta(minutes=1) or not _SHORTEST_SPREAD <= spread <= _LONGEST_SPREAD:
        raise ValueError(f"{text!r} is no spread: write whole minutes, from 2m to 24h")
    return canonical_duration(text)


def _month_day(value: Any) -> int | str:
    return render_month_day(read_month_day(value))


def _number(value: Any) -> Any:
    """Spell 3.0 as 3: JSON Schema takes both for a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_order(value: list[Any]) -> list[Any]:
    return sorted(set(value))


def _names_or_omit(value: list[str]) -> Any:
    return sorted(set(value)) or OMIT


def _mapping(rules: Mapping[str, Callable[[Any], Any]]) -> Callable[[dict[str, Any]], Any]:
    def canonical(value: dict[str, Any]) -> dict[str, Any]:
        return apply_rules(value, rules)

    return canonical


def apply_rules(value: dict[str, Any], rules: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Give each key of a mapping its canonical value.

    Args:
        value: The mapping.
        rules: What is done to which key; others stay.

    Returns:
        A new mapping.

    Raises:
        UnreadableError: A value is wrong; its path begins with the key.
    """
    result: dict[str, Any] = {}
    for key, item in value.items():
        rule = rules.get(key)
        if rule is None:
            result[key] = item
            continue
        try:
            new = rule(item)
        except UnreadableError as fault:
            raise UnreadableError(str(fault), (key, *fault.path)) from fault
        except ValueError as error:
            raise UnreadableError(str(error), (key,)) from error
        if new is not OMIT:
            result[key] = new
    return result


def _omit(_value: Any) -> Any:
    return OMIT


def _without(default: Any) -> Callable[[Any], Any]:
    def canonical(value: Any) -> Any:
        return OMIT if value == default else value

    return canonical


def _weekdays(value: list[str]) -> list[str]:
    return [day for day in DAYS if day in value]


def _url(value: str) -> str:
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no address: it begins with http:// or https://")
    return value


def _expect(value: Any) -> Any:
    return value if isinstance(value, str) else _in_order([_number(status) for status in value])


_LIFE: Final[dict[str, Callable[[Any], Any]]] = {
    "targets": _omit,
    "overrides": _omit,
    "renamed_from": _omit,
    "protect": _without(False),
    "labels": lambda value: value or OMIT,
}
_BACKOFF: Final = _mapping({"initial": canonical_duration, "max": canonical_duration, "factor": _number})

RULES: Final[dict[str, dict[str, Callable[[Any], Any]]]] = {
    "job": {
        **_LIFE,
        "every": _every,
        "daily": _time,
        "weekly": _mapping({"on": _weekdays, "at": _time}),
        "monthly": _mapping({"day": _month_day, "at": _time}),
        "spread": _spread,
        "http": _mapping({"url": _url, "timeout": canonical_duration, "expect": _expect}),
        "mode": _without("managed"),
        "timeout": canonical_duration,
        "concurrency": _without("skip"),
        "on_failure": _mapping({"retries": _number, "backoff": _BACKOFF}),
        "alert": _mapping(
            {
                "after": _number,
                "channels": _in_order,
                "on": _in_order,
                "slow": _slow,
                "remind": canonical_duration,
            }
        ),
        "after": _names_or_omit,
        "active": _without(True),
    },
    "queue": {
        **_LIFE,
        "mode": _without("standard"),
        "max_attempts": _number,
        "backoff": _BACKOFF,
        "concurrency": _number,
        "rate": _rate,
        "retention": canonical_duration,
        "keep_failed": canonical_duration,
        "lease": _lease,
        "timeout": canonical_duration,
        "held_by": _in_order,
    },
    "worker": {
        **_LIFE,
        "url": _url,
        "limit": _number,
        "timeout": canonical_duration,
        "active": _without(True),
    },
    "channel": {**_LIFE, "deliver": _without("process")},
}
"""What is done to which key of which kind."""
