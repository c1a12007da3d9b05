from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.canonical import digest, render_canonical

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_the_text_reads_back_as_the_same_value(value: object) -> None:
    """Nothing is lost, and one value has one text."""
    text = render_canonical(value)
    assert json.loads(text) == value
    assert render_canonical(json.loads(text)) == text


def test_keys_are_sorted_at_every_depth_and_blanks_left_out() -> None:
    """The order in which a file was written does not show."""
    assert render_canonical({"b": {"z": 1, "a": [1, True]}, "a": "å"}) == '{"a":"å","b":{"a":[1,true],"z":1}}'


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), ({1, 2}, TypeError)])
def test_what_json_cannot_hold_is_refused(value: object, error: type[Exception]) -> None:
    """No NaN and no foreign type slips into what is stored."""
    with pytest.raises(error):
        render_canonical(value)


def test_a_digest_is_the_sha256_of_the_utf8_bytes() -> None:
    """PostgreSQL computes the same over the stored text."""
    assert digest("å") == hashlib.sha256(b"\xc3\xa5").hexdigest()
