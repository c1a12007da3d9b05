from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from reconciler.core.hidden import Hidden

CANARY = "s3cr3t-canary"


def test_it_is_revealed_on_request_only() -> None:
    """The value comes out of reveal, and out of nothing else that prints."""
    hidden = Hidden(CANARY)
    assert hidden.reveal() == CANARY
    assert [repr(hidden), str(hidden), f"{hidden}", f"{hidden!s:>3}", f"{[hidden]}"] == [
        "***",
        "***",
        "***",
        "***",
        "[***]",
    ]


def test_it_is_not_written_to_json_or_pickle() -> None:
    """Neither JSON nor a pickle takes it, and their errors do not show it."""
    for write in (json.dumps, pickle.dumps):
        with pytest.raises(TypeError) as caught:
            write(Hidden(CANARY))
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_copy_is_the_same_and_hidden() -> None:
    """Copies of what holds it, such as by dataclasses.asdict, hold it hidden too."""
    hidden = Hidden(CANARY)
    assert copy.deepcopy([hidden])[0] is hidden
    assert copy.copy(hidden) is hidden


def test_equal_values_are_equal() -> None:
    """Two of the same value are one in a set; a plain text of that value is something else."""
    assert {Hidden("a"), Hidden("a"), Hidden("b")} == {Hidden("b"), Hidden("a")}
    assert Hidden("a") != "a"
