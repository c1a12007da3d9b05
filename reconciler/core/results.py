"""What a handler returns, as JSON that PostgreSQL can keep, or a note why it is not kept; pure."""

from __future__ import annotations

import json
from typing import Any, Final

from .payloads import find_payload_faults

LIMIT: Final = 4 * 1024 * 1024
"""Characters of JSON that are kept of one result."""
_FAULTS: Final = 3
_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def encode_result(value: Any) -> tuple[str | None, str | None]:
    """Encode what a handler returned.

    The work is done, so a result that cannot be kept is no failure: doing it again would be worse.

    Args:
        value: Anything.

    Returns:
        The JSON text, None for None, and a note for people where it is not kept, else None.
    """
    if value is None:
        return None, None
    kind = type(value)
    if kind is bool or (kind is int and -(2**63) <= value < 2**63):
        return _encode(value), None
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError):
        return None, _explain(value) or "the result was not kept: JSON cannot hold it"
    if len(text) > LIMIT:
        return None, f"the result was not kept: it takes {len(text) / 2**20:.1f} MB as JSON, the most is 4 MB"
    # NUL and halves of surrogate pairs, which jsonb refuses, and what may be one of them.
    if ("\\u0000" in text or "\\ud" in text or len(text) > 1000) and (note := _explain(value)):
        return None, note
    return text, None


def _explain(value: Any) -> str | None:
    faults = []
    for fault in find_payload_faults(value, "the result"):
        faults.append(fault)
        if len(faults) == _FAULTS:
            break
    return f"the result was not kept: {'; '.join(faults)}" if faults else None
