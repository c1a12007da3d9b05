"""Schedule texts for tests: by hand, from the shape of the grammar, and spoilt."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("jan", "feb", "DEC", "Jun", "sun", "Mon", "SAT", "wed", "fri")
FULL_NAMES = (
    "Sunday", "monday", "january", "sept", "tues", "L", "l", "H", "W", "R", "five", "x5", "5x", "LW",
)  # fmt: skip
NUMBERS = (
    "00", "007", "23", "24", "28", "29", "30", "31", "32", "58", "59", "60", "61", "99", "100",
    "2147483589", "2147483646", "2147483647", "2147483648", "4294967295", "4294967296", "4294967297",
    "4294967301", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "18446744073709551617", "9" * 23, "0" * 40 + "5", "9" * 600,
)  # fmt: skip
NOISE = (
    "#2", "~30", ".5", "-9", "/3", "abc", "*", "?", ";", "é", "\r", "$", "%", "+", "-", "/", ",", "#",
    "L", "\x1f",
)  # fmt: skip
SEPARATORS = (*[" "] * 6, "  ", "\t", " \t ", "\n", "\r", "\v", "\f", "\u00a0", "")
WORDS = (
    "reboot", "restart", "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly",
    "Daily", "every", "every_minute", "", "day", "daily2",
)  # fmt: skip
UNITS = (
    "seconds", "seconds", "second", "SECONDS", "Second", "secs", "sec", "s", "secondss", "secon",
    "minute", "second s", "\u017feconds",
)  # fmt: skip
SPOILERS = (*" \t\n*/-,$#@0159sSj~\u00e9?", "")


def any_text(chance: Random) -> str:
    """Make one text of any kind; most are nearly right, so that both answers are common."""
    kind = chance.choice(
        (cron_text, cron_text, cron_text, spoilt_text, spoilt_text, word_text, seconds_text, noise_text)
    )
    return kind(chance)


def sound_text(chance: Random) -> str:
    """Make five fields that mostly have no problem; some dates among them never come."""
    fields = [
        _sound_field(chance, 0, 59),
        _sound_field(chance, 0, 23),
        chance.choice((_sound_field(chance, 1, 31), _sound_field(chance, 1, 31), "$")),
        _sound_field(chance, 1, 12, "jan", "FEB", "apr-jun", "Sep-dec/2"),
        _sound_field(chance, 0, 7, "sun", "MON", "mon-fri", "Tue-sat/2", "5-7"),
    ]
    return chance.choice((" ", " ", "\t")).join(fields)


def _sound_field(chance: Random, low: int, high: int, *more: str) -> str:
    def element() -> str:
        first, last = sorted((chance.randint(low, high), chance.randint(low, high)))
        step = chance.randint(1, high)
        return chance.choice(
            (str(first), f"{first}-{last}", f"{first}-{last}/{step}", f"*/{step}", "*", *more)
        )

    return chance.choice(("*", element(), ",".join(element() for _ in range(chance.randint(1, 3)))))


def cron_text(chance: Random) -> str:
    """Make three to seven fields with odd things between and around them."""
    count = chance.choice((5, 5, 5, 5, 5, 5, 5, 4, 6, 7, 3))
    parts = [chance.choice(("",) * 8 + (" ", "\t", "\n", "# c\n", " \n\t", "#", "@", "\r", "\v"))]
    for place in range(count):
        parts.append(_field(chance, place))
        odd = place == count - 1 or chance.random() < 0.05
        parts.append(chance.choice(SEPARATORS) if odd else " ")
    return "".join(parts)


def _field(chance: Random, place: int) -> str:
    if chance.random() < 0.4:
        return "*"
    if place == 2 and chance.random() < 0.3:
        return chance.choice(("$", "$", "$,15", "15,$", "$5", "1$"))
    text = ",".join(_element(chance, place) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    return text + chance.choice(NOISE) if chance.random() < 0.1 else text


def _element(chance: Random, place: int) -> str:
    first, last, step = (_value(chance, place) for _ in range(3))
    odd = ("$", "L", "?", "", "5-", "-5", "*/", "1-5/", "**", "1#2", f"{first}/{step}")
    usual = (first, first, f"{first}-{last}", f"{first}-{last}/{step}", f"*/{step}")
    return chance.choice(odd) if chance.random() < 0.05 else chance.choice(usual)


def _value(chance: Random, place: int) -> str:
    if chance.random() < 0.08:
        return chance.choice(NAMES + FULL_NAMES + NUMBERS)
    if place > 2 and chance.random() < 0.3:
        return chance.choice(NAMES)
    return str(chance.randint(0, (60, 24, 32, 13, 8)[min(place, 4)]))


def word_text(chance: Random) -> str:
    """Make an @word with things around it."""
    before = chance.choice(("", "", "", " ", "\t", "\n", "#x\n", "\r", "x"))
    after = chance.choice(("", "", "", " ", " foo", "\t* *", "\n", "\r", ",", "\nfoo", "\u00a0"))
    return f"{before}@{chance.choice(WORDS)}{after}"


def seconds_text(chance: Random) -> str:
    """Make something like an interval."""
    number = chance.choice(
        (str(chance.randint(0, 62)), str(chance.randint(0, 62)), chance.choice(NUMBERS), "", "1.5")
    )
    pieces = (
        chance.choice(("", "", "", " ", "\t", "\n", "\v", " " * 1200, "x", "\u00a0")),
        chance.choice(("", "", "", "+", "-", "--")),
        number,
        chance.choice((" ", " ", "", "  ", "\n", "\u00a0")),
        chance.choice(UNITS),
        chance.choice(("", "", "", " ", "\n", " x", "s", "\t\v", "\x1c")),
    )
    return "".join(pieces)


def spoilt_text(chance: Random) -> str:
    """Take a text and put in, take out or exchange a few characters."""
    text = list(chance.choice((cron_text(chance), sound_text(chance), chance.choice(VECTORS))))
    for _ in range(chance.randint(1, 3)):
        place = chance.randint(0, len(text))
        text[place : place + chance.randint(0, 1)] = chance.choice(SPOILERS)
    return "".join(text)


def noise_text(chance: Random) -> str:
    """Make a short text without any shape; never a NUL, which PostgreSQL cannot hold."""
    letters = (chr(chance.choice((chance.randint(1, 127), chance.randint(1, 0xD7FF)))) for _ in range(8))
    return "".join(letters)


def _from_seed(kind: Callable[[Random], str]) -> st.SearchStrategy[str]:
    return st.integers(0, 2**64 - 1).map(lambda seed: kind(Random(seed)))


def short_fields() -> list[str]:
    """Give every text of one to three characters that matter, in each of the five places."""
    return [
        " ".join(["*"] * place + ["".join(field)] + ["*"] * (4 - place))
        for size in (1, 2, 3)
        for field in product("*15-,/$x ", repeat=size)
        for place in range(5)
    ]


VECTORS = (
    "* * * * *", "*/5 * * * *", "0 8 * * 1-5", "15,45 9-17 1 */3 *", "0 0 */2 * 1", "0 0 13 * 5",
    "00 00 01 01 00", "0 0 1 jan *", "0 0 1 JAN-mar *", "0 0 * * sun,Mon", "0 0 * * mon-5",
    "0 0 * * 5-7", "0 0 * * 6-7", "0 0 * * 0-7", "0 0 * * 7", "0 0 * * 8", "60 * * * *", "* 24 * * *",
    "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "0 0 * * 1#2", "0 0 * * mon#2",
    "5~30 * * * *", "5.5 * * * *", "5#x * * * *", "1-5-9 * * * *", "1-10/2/3 * * * *", "*abc * * * *",
    "*-5 * * * *", "** * * * *", "0 0 * * sat-sun", "0 0 * * fri-mon", "0 0 * * 5-1", "0 22-2 * * *",
    "20-10 * * * *", "50-10 * * * *", "0 0 1 11-2 *", "0 0 31 2 *", "0 0 30 feb *", "* * * * * *",
    "*/10 * * * * *", "* * * * * 2027", "0 0 * * 1 foo bar", "4294967296 * * * *", "*/60 * * * *",
    "*/100 * * * *", "0 */24 * * *", "0 0 */32 * *", "0 0 1 */13 *", "0 0 * * */8", "*/59 * * * *",
    "0 0 * * */7", "*/0 * * * *", "1/20 * * * *", "2/3 * * * *", "5- * * * *", "*/ * * * *",
    "1,, * * * *", ", * * * *", "1, 2 * * *", "* * * *", "*", "", " ", "#", "# c\n* * * * *", "# c",
    "\n\n* * * * *", "* * * * *\n", "*\n* * * *", "*\t*\t*\t*\t*", "  * * * * *  ", "* * * * *\r",
    "*\r* * * *", "*\u00a0* * * *", "0 0 $ * *", "0 0 $\t* *", "0 0 $ * 1", "0 0 $,15 * *",
    "0 0 15,$ * *", "0 0 $5 * *", "0 0 $\n* *", "$ * * * *", "0 0 L * *", "0 0 15W * *", "0 0 ? * *",
    "0 0 * * 5L", "0 0 * * Sunday", "0 0 1 january *", "H * * * *", "R * * * *", "@reboot", "@restart",
    "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@Daily",
    "@HOURLY", "@ daily", " @daily", "@daily foo", "@daily\n", "@daily\r", "@every 5m", "@every_minute",
    "30 seconds", "1 second", "1 seconds", "30seconds", "30 SECONDS", " 30 seconds", "30 seconds ",
    "30 second ", "0 seconds", "59 seconds", "60 seconds", "+5 seconds", "-5 seconds",
    "-4294967295 seconds", "4294967297 seconds", "18446744073709551617 seconds", "30 secs", "30 s",
    "1 minute", "5m", "now", "daily", "1-10/2147483647 * * * *", "10-1/2147483647 * * * *",
    "*/2147483647 * * * *", "* * */4294967297 * *", "5é * * * *", "é * * * *", "*" * 999,
    "* * * * *" + " " * 990, "* * * * *" + " " * 991, "* * * * *" + "é" * 495, "* * * * *" + "é" * 496,
    "30" + " " * 1500 + "seconds", "0" * 5000 + "5 seconds",
)  # fmt: skip

ANY_TEXTS = _from_seed(any_text)
SOUND_TEXTS = _from_seed(sound_text)
