"""What of a handler's result is kept."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Any

import pytest

from reconciler.core.results import LIMIT, encode_result


class _Level(IntEnum):
    HIGH = 2


@pytest.mark.parametrize(
    "value", [True, 7, -(2**62), 2**70, 1.5, "é\n", [], {"a": [None, {"b": 1}]}, "x" * 2000, "\\u0000"]
)
def test_what_json_can_hold_is_kept(value: Any) -> None:
    """It reads back as it was."""
    text, note = encode_result(value)
    assert note is None
    assert text is not None
    assert json.loads(text) == value


def test_none_is_no_result() -> None:
    """A handler that returns nothing leaves nothing."""
    assert encode_result(None) == (None, None)


def test_a_number_with_a_name_is_a_number() -> None:
    """As json.dumps does it."""
    assert encode_result(_Level.HIGH)[0] == "2"


_SELF: list[Any] = []
_SELF.append(_SELF)


class _Number(int):
    """A number that cannot be measured."""

    def bit_length(self) -> int:
        raise KeyError


class _Odd(dict[str, int]):
    """A dictionary that can be read once."""

    def __init__(self) -> None:
        super().__init__(a=1)
        self.reads = 0

    def items(self) -> Any:
        self.reads += 1
        if self.reads == 1:
            raise KeyError
        return super().items()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": object()}, "the result.a is of the class object, which JSON cannot hold"),
        (float("nan"), "the result is nan"),
        ("\0", "NUL"),
        ({"\ud800": 1}, "surrogates"),
        (_SELF, "holds itself"),
        ("x" * (LIMIT + 1), "it takes 4.0 MB as JSON, the most is 4 MB"),
        (10**5000, "too many digits"),
        ([_Number(7)] * 600, "it cannot be looked at"),
        (_Odd(), "JSON cannot hold it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_leaves_a_note(value: Any, why: str) -> None:
    """The note says what it was; only the first faults are told."""
    text, note = encode_result(value)
    assert text is None
    assert note is not None
    assert note.startswith("the result was not kept: ")
    assert why in note


def test_no_more_than_three_faults_are_told() -> None:
    """A list of a thousand of them is not for people."""
    note = encode_result([object()] * 9)[1]
    assert note is not None
    assert note.count("of the class object") == 3
