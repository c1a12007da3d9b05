"""Durations and rates as people write them: `30s`, `1h30m`, `100/1m`.

PostgreSQL's interval reads the canonical text too, once blanks stand between its units (`4 w 2 d `): this is
what `reconciler.read_duration` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

_UNITS = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_MILLISECONDS = dict(_UNITS)
_WHOLE = re.compile(r"(?:[0-9]+(?:ms|[wdhms]))+")
_PART = re.compile(r"([0-9]+)(ms|[wdhms])")
_COUNT = re.compile(r"0*[1-9][0-9]{0,8}")
_LONGEST = timedelta(days=3650)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_LONGEST_INTERVAL = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many starts in so much time.

    Attributes:
        count: Starts, at least 1.
        per: The time in which they may happen.
    """

    count: int
    per: timedelta


def parse_duration(text: str) -> timedelta:
    """Parse a duration.

    Args:
        text: Numbers with units, largest first: w, d, h, m, s, ms. For instance `90s` or `1h30m`.

    Returns:
        The duration, longer than nothing and at most ten years.

    Raises:
        ValueError: The text is no such duration; the message says how one is written.
    """
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no duration: write a number and a unit, such as 30s, 5m, 1h30m or 7d")
    parts = _PART.findall(text)
    order = [[unit for unit, _ in _UNITS].index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise ValueError(f"{text!r} is no duration: each unit once, the largest first, such as 1h30m")
    if sum(len(number) for number, _ in parts) > 15:
        raise ValueError(f"{text!r} is longer than ten years")
    # Looked at as a number: what is far too long cannot be a timedelta.
    count = sum(int(number) * _MILLISECONDS[unit] for number, unit in parts)
    if not 0 < count <= _LONGEST // timedelta(milliseconds=1):
        raise ValueError(f"{text!r} is {'longer than ten years' if count else 'no time at all'}")
    return timedelta(milliseconds=count)


def render_duration(duration: timedelta) -> str:
    """Render a duration in its one canonical form.

    Args:
        duration: At least a millisecond; finer parts are dropped.

    Returns:
        A text that `parse_duration` and PostgreSQL's interval both read, such as `1h30m`.
    """
    rest = duration // timedelta(milliseconds=1)
    parts = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def find_interval_fault(interval: timedelta) -> str:
    """Say why a job cannot come in an interval.

    Args:
        interval: The time between two runs.

    Returns:
        What is wrong and what is possible; "" where it can.
    """
    possible = "write 1s to 59s, or whole minutes up to 366d"
    if interval < _SECOND:
        return f"a second is the shortest interval; {possible}"
    if interval > _LONGEST_INTERVAL:
        return f"366 days are the longest interval; {possible}"
    if interval > _MINUTE and interval % _MINUTE:
        return f"above a minute an interval is whole minutes; {possible}"
    if interval % _SECOND:
        return f"below a minute an interval is whole seconds; {possible}"
    return ""


def parse_rate(text: str) -> Rate:
    """Parse a rate.

    Args:
        text: A count, a slash and a duration, for instance `100/1m`.

    Returns:
        The rate.

    Raises:
        ValueError: The text is no rate; the message says how one is written.
    """
    count, slash, per = text.partition("/")
    if not slash or _COUNT.fullmatch(count) is None:
        raise ValueError(f"{text!r} is no rate: write a count, a slash and a duration, such as 100/1m")
    return Rate(count=int(count), per=parse_duration(per))
