"""What a push worker asks for, by its declaration and by its address."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.run_calls import find_contradictions, make_run_url, read_query


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("https://a.test", {}),
        ("https://a.test?", {}),
        ("https://a.test/queue=x", {}),
        ("https://a.test?queue=x&limit=&bare#status=no", {"queue": "x", "limit": ""}),
        ("https://a.test?queue=x?y&queue=z%20", {"queue": "z%20"}),
    ],
)
def test_an_address_is_read_as_it_stands(url: str, query: dict[str, str]) -> None:
    """What follows the question mark counts, the last value of each key, without decoding."""
    assert read_query(url) == query


@pytest.mark.parametrize(
    ("declared", "url"),
    [
        ({"url": "https://a.test"}, "https://a.test?queue=default&status=pending&limit=1"),
        (
            {"url": "https://a.test", "queue": "mail", "status": "failed", "limit": 9},
            "https://a.test?queue=mail&status=failed&limit=9",
        ),
        ({"url": "https://a.test?x=1#y"}, "https://a.test?x=1&queue=default&status=pending&limit=1"),
        ({"url": "https://a.test?limit=5&queue=mail"}, "https://a.test?limit=5&queue=mail&status=pending"),
        ({"url": "https://a.test?queue=a&status=b&limit=c"}, "https://a.test?queue=a&status=b&limit=c"),
    ],
)
def test_what_is_missing_is_added(declared: dict[str, Any], url: str) -> None:
    """Queue, status and limit are always asked for, each once."""
    assert make_run_url(declared) == url


def test_what_is_asked_twice_has_to_agree() -> None:
    """A declaration that contradicts its own address is found; one that repeats it is not."""
    declared = {"url": "https://a.test?queue=mail&limit=5&status=failed", "queue": "other", "limit": 5}
    assert find_contradictions(declared) == {"queue": "mail"}
