from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.canonical import render_canonical
from reconciler.core.fields import diff_fields


def _diff(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(change.path, change.before, change.after) for change in diff_fields("spec", before, after)]


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (0, False), (1, 1.0), (1, "1"), ([1], [True]), ([1], [1.0]), ([], {}), ("", False)],
)
def test_values_of_different_types_differ(before: Any, after: Any) -> None:
    """What is written differently in JSON is different, also where Python calls it equal."""
    assert _diff({"x": before}, {"x": after}) == [("spec.x", before, after)]
    assert [change[0] for change in _diff({"n": {"x": before}}, {"n": {"x": after}})]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "a", [1, [2]], {"a": {"b": [1]}}])
def test_equal_values_do_not_differ(value: Any) -> None:
    """A value compared with itself gives nothing."""
    assert _diff({"x": value}, {"x": value}) == []


def test_an_absent_side_is_none() -> None:
    """What appears has no value before, what goes has none after."""
    assert _diff({"gone": 1}, {"new": 2}) == [("spec.gone", 1, None), ("spec.new", None, 2)]


def test_null_and_absent_look_alike() -> None:
    """A field change knows None only: a null that goes is no difference that could be shown."""
    assert _diff({"x": None}, {}) == []


def test_a_list_is_one_field() -> None:
    """Lists at the top are compared and shown as a whole."""
    assert _diff({"after": ["a", "b"]}, {"after": ["b"]}) == [("spec.after", ["a", "b"], ["b"])]


def test_nested_objects_are_compared_by_path() -> None:
    """Below the top every single value has its path, sorted."""
    before = {"alert": {"on": ["failed", "slow"], "after": 1, "old": True, "same": 0}}
    after = {"alert": {"on": ["failed", "missed"], "after": True, "new": None, "more": {"a": 1}, "same": 0}}
    assert _diff(before, after) == [
        ("spec.alert.after", 1, True),
        ("spec.alert.more", None, {"a": 1}),
        ("spec.alert.new", None, None),
        ("spec.alert.old", True, None),
        ("spec.alert.on[1]", "slow", "missed"),
    ]


def test_keys_that_begin_with_two_underscores_are_seen() -> None:
    """A payload's keys are the user's own; none of them is private."""
    assert _diff({"p": {"__v": 1}}, {"p": {"__v": 2}}) == [("spec.p.__v", 1, 2)]


def test_objects_with_little_in_common_are_still_compared_by_path() -> None:
    """A field's path does not hang on how much else changed."""
    before, after = {"p": {"a": 1, "b": 2, "c": 3, "d": 4}}, {"p": {"a": 9, "w": 1, "x": 2, "y": 3}}
    assert ("spec.p.a", 1, 9) in _diff(before, after)


def test_deepdiff_is_loaded_for_nested_objects_alone() -> None:
    """A plan of flat specs does not pay for an import that takes longer than the plan."""
    code = (
        "import sys; from reconciler.core.fields import diff_fields;"
        "diff_fields('s', {'a': [1], 'b': 1}, {'a': [2], 'b': {'c': 1}});"
        "print('deepdiff' in sys.modules);"
        "diff_fields('s', {'b': {'c': 1}}, {'b': {'c': 2}});"
        "print('deepdiff' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


_VALUES = st.recursive(
    st.integers(-2, 2) | st.booleans() | st.sampled_from([0.0, 1.0, "", "1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3)


@given(_OBJECTS, _OBJECTS)
def test_there_are_field_changes_exactly_where_documents_differ(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Without nulls, no difference is missed and none is made up, and the paths are sorted."""
    changes = diff_fields("spec", before, after)
    assert bool(changes) == (render_canonical(before) != render_canonical(after))
    assert [change.path for change in changes] == sorted(change.path for change in changes)
    assert all(change.path.startswith("spec.") for change in changes)
