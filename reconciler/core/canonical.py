"""One text for one value: the JSON by which states are compared, stored and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def render_canonical(value: Any) -> str:
    """Render a JSON value as its canonical text.

    Args:
        value: Anything that JSON can hold; no NaN and no infinity.

    Returns:
        Sorted keys, no blanks, characters as they are.

    Raises:
        ValueError: The value holds NaN or an infinity.
        TypeError: The value holds what JSON cannot.
    """
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hexadecimal.

    Args:
        text: Any text.

    Returns:
        64 characters.
    """
    return hashlib.sha256(text.encode()).hexdigest()
