from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.api.paging import decode_cursor, encode_cursor
from reconciler.api.problems import ProblemError

AT = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def test_a_cursor_is_read_back() -> None:
    """What the end of a page said comes back with its types, and needs no quoting in a query."""
    cursor = encode_cursor(["naïve / job?", 2**63 - 1, AT, None])
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert decode_cursor(cursor, str, int, datetime, str) == ["naïve / job?", 2**63 - 1, AT, None]
    assert decode_cursor(encode_cursor(["a", 1])) == ["a", 1]


@pytest.mark.parametrize(
    ("cursor", "kinds"),
    [
        ("", ()),
        ("§", ()),
        ("a", ()),
        ("....", ()),
        (_encode("{}"), ()),
        (_encode('["a"'), ()),
        (_encode("[" * 100_000), ()),
        (_encode("[[1]]"), ()),
        (_encode("[1.5]"), ()),
        (_encode("[NaN]"), ()),
        (_encode('["a"]'), (int,)),
        (_encode("[1]"), (str,)),
        (_encode("[true]"), (int,)),
        (_encode(f"[{2**63}]"), (int,)),
        (_encode('["a", 1]'), (str,)),
        (_encode('["a\\u0000"]'), (str,)),
        (_encode('["\\ud800"]'), (str,)),
        (_encode('["yesterday"]'), (datetime,)),
        (_encode('["2026-03-01T08:00:00"]'), (datetime,)),
    ],
)
def test_a_cursor_that_no_page_ended_with_is_refused(cursor: str, kinds: tuple[Any, ...]) -> None:
    """Whatever is sent, it is a 422 and never reaches the database."""
    with pytest.raises(ProblemError) as raised:
        decode_cursor(cursor, *kinds)
    assert raised.value.problem.status == 422
