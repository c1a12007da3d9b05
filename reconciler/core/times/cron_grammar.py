"""Tell which texts `cron.schedule()` takes, bug for bug; knows nothing of what they mean or ought to mean.

The rules are those of pg_cron on x86-64 in a database with the encoding UTF-8. On aarch64, versions up to
1.5.0 keep their return codes in an unsigned char and take far more; nothing of ours should depend on that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from reconciler.core.times.dialects import Dialect

LONGEST: Final = 999
"""The longest cron text in bytes; the seconds form has no limit."""

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class FieldKind(NamedTuple):
    """One of the five fields: what it is called, its bounds, and its names, the first of which is `low`."""

    title: str
    low: int
    high: int
    names: tuple[str, ...] = ()


MINUTE: Final = FieldKind("minute", 0, 59)
HOUR: Final = FieldKind("hour", 0, 23)
DAY: Final = FieldKind("day of month", 1, 31)
MONTH: Final = FieldKind("month", 1, 12, MONTHS)
WEEKDAY: Final = FieldKind("day of week", 0, 7, WEEKDAYS)
FIELDS: Final = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)

_WORDS: Final = frozenset(
    (b"reboot", b"restart", b"yearly", b"annually", b"monthly", b"weekly", b"daily", b"midnight", b"hourly")
)
_PREFIX: Final = re.compile(rb"(?:[ \t]*+(?:#[^\n]*+)?\n)*+[ \t]*+")
_WORD: Final = re.compile(rb"[^ \t\n]*+")
# Possessive, like the C reader, which never goes back: after "-", "/" or "," the next piece has to come.
_RANGE: Final = rb"(?:(?:\*|[0-9A-Za-z]++-[0-9A-Za-z]++)(?:/[0-9A-Za-z]++|(?!/))|[0-9A-Za-z]++(?![-/]))"
_LIST: Final = re.compile(rb"(" + _RANGE + rb"(?:," + _RANGE + rb")*+)(?!,)[^ \t\n]*+[ \t]*+")
_LAST_DAY: Final = re.compile(rb"\$[ \t]++")
_PARTS: Final = re.compile(rb"(?:(\*)|([0-9A-Za-z]++)(?:-([0-9A-Za-z]++))?)(?:/([0-9A-Za-z]++))?")
# sscanf(" %u secon%c%c %c"): C's white space; %u takes a sign.
_SECONDS: Final = re.compile(
    rb"[ \t\n\v\f\r]*+([+-]?)([0-9]++)[ \t\n\v\f\r]*+second(?:s[ \t\n\v\f\r]*+)?", re.IGNORECASE
)

_INT_MAX: Final = 2**31 - 1
_LONG_MAX: Final = 2**63 - 1


def accepts(text: str, dialect: Dialect) -> bool:
    """Tell whether `cron.schedule()` of that pg_cron takes the text.

    Args:
        text: A schedule.
        dialect: What the target's pg_cron reads.

    Returns:
        True exactly where the target stores the job, also where it then misreads the text or never runs it.
        False too for texts that PostgreSQL cannot hold (a NUL, half of a surrogate pair).
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return False
    if b"\0" in data:
        return False
    return _takes_cron(data, dialect) or (dialect.seconds and _takes_seconds(data))


def _takes_seconds(data: bytes) -> bool:
    found = _SECONDS.fullmatch(data)
    if found is None:
        return False
    sign, digits = found.groups()
    number = _to_int(digits, 2**64)
    return 1 <= (-number if sign == b"-" else number) % 2**32 <= 59


def _takes_cron(data: bytes, dialect: Dialect) -> bool:
    if len(data) > LONGEST:
        return False
    place = _end(_PREFIX, data, 0)
    if data[place : place + 1] == b"@":
        return data[place + 1 : _end(_WORD, data, place + 1)] in _WORDS
    for kind in FIELDS:
        if kind is DAY and dialect.last_day and (found := _LAST_DAY.match(data, place)):
            place = found.end()
            continue
        found = _LIST.match(data, place)
        if found is None or not all(_takes_range(part, kind, dialect) for part in found[1].split(b",")):
            return False
        place = found.end()
    return True


def _end(pattern: re.Pattern[bytes], data: bytes, place: int) -> int:
    # The pattern also fits the empty text, so there is always a match.
    found = pattern.match(data, place)
    return found.end() if found else place


def _takes_range(part: bytes, kind: FieldKind, dialect: Dialect) -> bool:
    found = _PARTS.match(part)
    star, first, last, step = found.groups() if found else (None, None, None, None)
    start = kind.low if star else _value(first or b"", kind)
    stop = kind.high if star else _value(last, kind) if last else start
    if not (kind.low <= start <= kind.high and kind.low <= stop <= kind.high):
        return False
    if step is None:
        return True
    width = _value(step, MINUTE)
    if width < 1 or (dialect.step_limit and width > kind.high):
        return False
    # Without the limit the loop's counter overflows and the value then fails its check (seen on 1.4.2;
    # 1.6.0 to 1.6.4 write outside of the bit field instead).
    return start > stop or start + width <= _INT_MAX


def _value(word: bytes, kind: FieldKind) -> int:
    """Read a name or what `atoi` makes of digits on 64 bits; -1, which no field takes, for anything else."""
    name = word.decode("ascii").lower()
    if name in kind.names:
        return kind.names.index(name) + kind.low
    if not word.isdigit():
        return -1
    number = _to_int(word, _LONG_MAX) % 2**32
    return number if number <= _INT_MAX else number - 2**32


def _to_int(digits: bytes, ceiling: int) -> int:
    """Read digits as `strtol` does: what is too large becomes the ceiling, and no length is too much."""
    significant = digits.lstrip(b"0")
    return min(int(significant or b"0"), ceiling) if len(significant) <= 20 else ceiling
