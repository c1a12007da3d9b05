"""The address that a push worker calls; `reconciler.make_run_url` has the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_USUAL = {"queue": "default", "status": "pending", "limit": 1}


def read_query(url: str) -> dict[str, str]:
    """Read what an address says of itself after the question mark.

    Args:
        url: Of a run endpoint.

    Returns:
        The last value of each key, as it stands there.
    """
    query = url.partition("#")[0].partition("?")[2]
    parts = (part.partition("=") for part in query.split("&"))
    return {key: value for key, sign, value in parts if sign}


def find_contradictions(declared: Mapping[str, Any]) -> dict[str, str]:
    """Find what a worker asks for twice, and not alike.

    Args:
        declared: The worker's declaration.

    Returns:
        What the address says, by the key that says something else.
    """
    asked = read_query(declared["url"])
    return {
        key: asked[key]
        for key in _USUAL
        if key in asked and key in declared and str(declared[key]) != asked[key]
    }


def make_run_url(declared: Mapping[str, Any]) -> str:
    """Make the address that a worker calls.

    Args:
        declared: The worker's declaration.

    Returns:
        Its url with queue, status and limit, where it does not have them already.
    """
    url: str = declared["url"].partition("#")[0]
    asked = read_query(url)
    for key, usual in _USUAL.items():
        if key not in asked:
            separator = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
            url += f"{separator}{key}={declared.get(key, usual)}"
    return url
