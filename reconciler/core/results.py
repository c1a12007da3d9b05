"""What a handler returns, as JSON that PostgreSQL can keep, or a note why it is not kept; pure."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Final

from .payloads import find_payload_faults

LIMIT: Final = 4 * 1024 * 1024
"""Characters of JSON that are kept of one result."""
_FAULTS: Final = 3
_LONG: Final = 1000
_NOT_KEPT: Final = "the result was not kept"
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
    except Exception:  # noqa: BLE001 - classes of other people may raise anything while they are looked at
        return None, _explain(value) or f"{_NOT_KEPT}: JSON cannot hold it"
    if len(text) > LIMIT:
        return None, f"{_NOT_KEPT}: it takes {len(text) / 2**20:.1f} MB as JSON, the most is 4 MB"
    # NUL and halves of surrogate pairs, which jsonb refuses, and what is nested too deeply for it.
    if ("\\u0000" in text or "\\ud" in text or len(text) > _LONG) and (note := _explain(value)):
        return None, note
    return text, None


def _explain(value: Any) -> str | None:
    try:
        faults = list(islice(find_payload_faults(value, "the result"), _FAULTS))
    except Exception:  # noqa: BLE001 - the same
        return f"{_NOT_KEPT}: it cannot be looked at"
    return f"{_NOT_KEPT}: {'; '.join(faults)}" if faults else None
