"""Read plain YAML scalars by the core schema of YAML 1.2; knows no file and no place.

`on`, `yes`, `10:30` and dates are text. Numbers that JSON or PostgreSQL could not give back are refused.
"""

from __future__ import annotations

import re

WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
"""The words that are no text."""

_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER_LIMIT = 1 << 63
_DIGIT_LIMIT = 40

NUMERIC = frozenset("-+.0123456789")
"""The first characters of numbers."""


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """Give the value of a plain scalar.

    Args:
        text: The scalar, as libyaml folded it.

    Returns:
        Text, an integer below 2**63, a finite float, a boolean or None.

    Raises:
        ValueError: A number that cannot be kept as it is; the message says what to write.
    """
    if text in WORDS:
        return WORDS[text]
    if text[0] not in NUMERIC:
        return text
    if _DECIMAL.fullmatch(text):
        return _limit(text, 10)
    if _OCTAL.fullmatch(text):
        return _limit(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return _limit(text[2:], 16)
    if _SPECIAL.fullmatch(text):
        raise ValueError(f"{text} is no number that JSON can hold; quote it if it is a text")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError("this number is too large; quote it if it is a text")
        return number
    return text


def _limit(digits: str, base: int) -> int:
    # int() itself refuses thousands of digits, with another message.
    number = int(digits, base) if len(digits.lstrip("0")) <= _DIGIT_LIMIT else _INTEGER_LIMIT
    if not -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
        raise ValueError("this number does not fit 64 bits; quote it if it is a text")
    return number
