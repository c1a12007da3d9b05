"""The strict reading of YAML: values, faults and places."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.loader.yaml_places import Places
from reconciler.loader.yaml_reader import DEPTH_LIMIT, read_yaml

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


def _read(text: str) -> Any:
    reading = read_yaml(text)
    assert reading.faults == []
    assert not reading.has_duplicates
    return reading.value


def _fault(text: str) -> str:
    (fault,) = read_yaml(text).faults
    return f"{fault.line}:{fault.column}: {fault.message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("No", "No"), ("10:30", "10:30"), ("02:30", "02:30"),
        ("1_000", "1_000"),
        ("2026-12-01T08:00:00Z", "2026-12-01T08:00:00Z"), ("2026-12-01", "2026-12-01"), ("0b11", "0b11"),
        ("true", True), ("FALSE", False), ("tRue", "tRue"), ("null", None), ("~", None), ("", None),
        ("nULL", "nULL"),
        ("12", 12), ("-12", -12), ("+12", 12), ("012", 12), ("0o14", 12), ("0xfF", 255), ("0x", "0x"),
        ("08", 8),
        ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-1.5E-1", -0.15),
        ("1.2.3", "1.2.3"), ("-", None),
        ("9223372036854775807", 2**63 - 1), ('"12"', "12"), ("'true'", "true"), ("|\n  5", "5"), ("-x", "-x"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    """A plain scalar is a number, a boolean or null by the core schema of YAML 1.2, and else text."""
    expected = [None] if text == "-" else value
    assert _read(text) == expected
    assert type(_read(text)) is type(expected)


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", ".nan", "1e999", "9223372036854775808", "9" * 5000, "0x" + "f" * 17]
)
def test_numbers_that_cannot_be_kept_are_refused(text: str) -> None:
    """A number that JSON or 64 bits cannot hold is refused with its place."""
    assert _fault(f"a: {text}").startswith("1:4: ")
    assert "quote it" in _fault(f"a: {text}")


def test_names_keep_their_place() -> None:
    """Each key of the second level has its line and column, and no other key has."""
    reading = read_yaml('# top\njobs:\n  a: {b: {c: 1}}\n  "on": 1\nqueues: {q: {}}\nlist:\n  - x: 1\n')
    assert reading.names == {("jobs", "a"): (3, 3), ("jobs", "on"): (4, 3), ("queues", "q"): (5, 10)}


def test_every_duplicate_key_is_found_with_the_first_line() -> None:
    """Keys that come twice are found at any depth, also a third time, and the first line is named."""
    text = "a: 1\nb:\n  - {x: 1, x: 2}\na: 2\na: 3\n"
    assert read_yaml(text).has_duplicates
    found = [(one.key, one.line, one.column, one.first_line) for one in Places(text).duplicates]
    assert found == [("x", 3, 12, 3), ("a", 4, 1, 1), ("a", 5, 1, 1)]


def test_faults_that_do_not_end_the_reading_are_all_reported() -> None:
    """Tags, merge keys, wrong keys and wrong numbers are reported together."""
    faults = read_yaml("a: !x 1\n<<: {}\n1: 2\ntrue: 1\nb: .nan\nc: *d\n").faults
    assert [(fault.line, fault.column) for fault in faults] == [
        (1, 4),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 4),
        (6, 4),
    ]


def test_a_quoted_merge_key_is_a_key() -> None:
    """Only the plain sign << is refused."""
    assert _read('"<<": 1') == {"<<": 1}


def test_an_alias_shares_its_value() -> None:
    """Anchors and aliases are read, of scalars and of containers."""
    assert _read("a: &x [1, &y 2]\nb: *x\nc: *y\n") == {"a": [1, 2], "b": [1, 2], "c": 2}


def test_an_alias_of_a_finished_neighbour_is_no_recursion() -> None:
    """An equal value that is still open does not count as the alias's own."""
    assert _read("a: &x []\nb: &y [*x]\n") == {"a": [], "b": [[]]}


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: [*a]}", "&a {b: &b [1, *a]}"])
def test_an_alias_inside_of_itself_is_refused(text: str) -> None:
    """A value cannot hold itself."""
    assert "would never end" in _fault(text)


def test_nested_aliases_are_bounded_in_number() -> None:
    """A billion laughs are refused quickly; a hundred thousand are read."""

    def laughs(levels: int) -> str:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
        return "\n".join(lines)

    assert read_yaml(laughs(4)).faults == []
    assert "more than 1,000,000 values" in _fault(laughs(9))


def test_aliases_of_long_texts_are_bounded() -> None:
    """A long text counts as several values."""
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]"
    assert "more than 1,000,000 values" in _fault(text)


def test_nesting_is_bounded() -> None:
    """Up to 64 levels are read, more are refused, also by way of aliases."""
    assert read_yaml("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT).faults == []
    assert "deeper than 64" in _fault("[" * (DEPTH_LIMIT + 1) + "]" * (DEPTH_LIMIT + 1))
    inner = "[" * 40 + "1" + "]" * 40
    assert "deeper than 64" in _fault(f"a: &a {inner}\nb: {'[' * 40}*a{']' * 40}")


def test_several_documents_are_refused_and_one_with_marks_is_not() -> None:
    """One document may have its marks; a second one is refused at its start."""
    assert _read("---\na: 1\n...\n") == {"a": 1}
    assert _fault("a: 1\n---\nb: 1\n").startswith("2:1: a second document")


@pytest.mark.parametrize("text", ["? [a]\n: 1", "{{a: 1}: 2}", "a: &a b\n*a : 1\n", ": 1"])
def test_keys_are_plain_text(text: str) -> None:
    """A list, a mapping, an alias or nothing cannot be a key."""
    assert read_yaml(text).faults


def test_line_breaks_of_other_versions_are_refused() -> None:
    """U+2028 is a line break for YAML 1.1 and none for 1.2, so it may stand in no file."""
    assert _fault("a: 1\nb: x\u2028y\n").startswith("2:5: the character U+2028")
    assert _read('a: "x\\u2028y"') == {"a": "x\u2028y"}


@given(_VALUES)
def test_json_is_read(value: object) -> None:
    """JSON is YAML: it comes back equal, when characters that YAML does not take are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    escaped = re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text
    )
    assert json.dumps(_read(escaped)) == json.dumps(value)


@given(_VALUES)
def test_what_was_written_is_read(value: object) -> None:
    """What a general writer writes in its block style comes back equal, but for the types of its scalars."""
    text = yaml.safe_dump(value, sort_keys=False)
    reading = read_yaml(text)
    if not reading.faults:
        again = yaml.load(text, Loader=yaml.CBaseLoader)
        assert json.dumps(_as_texts(reading.value)) == json.dumps(_as_texts(again))


def _as_texts(value: Any) -> Any:
    """Forget the types of scalars: the shape is compared, and texts that are no number, boolean or null."""
    if isinstance(value, dict):
        return {key: _as_texts(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_as_texts(child) for child in value]
    if not isinstance(value, str):
        return "scalar"
    return "scalar" if not value or value[0] in "~nNtTfF-+.0123456789" else value


@settings(max_examples=400)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"%@`#?,<~1.\n\t \u2028\x00é\ufeff\\"), max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Any text gives a value or faults within the text, and never an exception."""
    reading = read_yaml(text)
    places = Places(text)
    for fault in reading.faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert fault.message
    if not reading.faults:
        assert reading.has_duplicates == bool(places.duplicates)


def _nodes(node: yaml.Node, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], int, int]]:
    found = [(path, node.start_mark.line + 1, node.start_mark.column + 1)]
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            found += _nodes(child, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            found += _nodes(child, (*path, number))
    return found


@given(_VALUES, st.booleans())
def test_every_value_is_located(value: object, flow: bool) -> None:
    """The place of every value is the one that a full parser gives."""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=flow)
    reading = read_yaml(text)
    if reading.faults:
        return
    root = yaml.compose(text)
    assert root is not None
    for path, line, column in _nodes(root, ()):
        assert Places(text).find(path) == (line, column)


def test_a_missing_value_is_located_at_what_is_around_it() -> None:
    """A path that leads nowhere ends at the nearest value."""
    text = "jobs:\n  a: {b: 1}\n"
    assert Places(text).find(("jobs", "a", "x", 3)) == (2, 6)
    assert Places("").find(("a",)) == (1, 1)


def test_values_below_an_alias_are_located_at_the_anchor() -> None:
    """The alias has its own place; what it stands for is found where it was written."""
    text = "a: &x\n  b: 1\nc: *x\n"
    assert Places(text).find(("c",)) == (3, 4)
    assert Places(text).find(("c", "b")) == (2, 6)
    assert Places(text).find_key(("c", "b")) == (2, 3)
