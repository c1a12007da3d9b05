"""The JSON Schemas: sound, complete, described, and read alike by both validators."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.names import is_name
from reconciler.loader.schema_check import Definition, SchemaName, _slow, find_schema_faults, is_valid
from reconciler.loader.schema_words import BODIES, TRIGGERS, suggest_name
from reconciler.loader.yaml_reader import read_yaml
from reconciler.resources import read_resource

_ROOT = Path(__file__).parents[2]
_FULL = read_yaml((_ROOT / "tests/data/specs/good/full.yaml").read_text(encoding="utf-8")).value
_CONFIG = read_yaml((_ROOT / "tests/data/specs/reconciler.yaml").read_text(encoding="utf-8")).value
_SCHEMAS: list[SchemaName] = ["jobs", "config"]
_WRONG = [
    None, True, 0, -1, 1.0, 1.5, 10**6, "", "x", "30s", "30s\n",
    "٣s", "${var:x}", "A b", "last", "2xx", "10:00",
    "https://a b",
    "2026-12-01T08:00:00Z", "2026-12-01", "24:00", "Second Tue",
    {"from": "01:00"}, [{"on": ["mon"]}], [], ["a"], ["a", "a"], [200], {}, {"secret": "a"}, {"a": "b"},
    {"at": "01:00"}, "x" * 64,
]  # fmt: skip


def _schema(name: SchemaName) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(read_resource("schemas", f"{name}.schema.json"))
    return schema


def _objects(schema: Any) -> list[dict[str, Any]]:
    found = []
    if isinstance(schema, dict):
        found.append(schema)
        for child in schema.values():
            found += _objects(child)
    elif isinstance(schema, list):
        for child in schema:
            found += _objects(child)
    return found


@pytest.mark.parametrize("name", _SCHEMAS)
def test_a_schema_is_sound(name: SchemaName) -> None:
    """Both schemas fit draft 2020-12, and their own examples fit them."""
    schema = _schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"]
    assert schema["title"]
    for example in schema["examples"]:
        assert find_schema_faults(Definition(schema=name), example) == []


@pytest.mark.parametrize("name", _SCHEMAS)
def test_every_key_is_described_for_editors(name: SchemaName) -> None:
    """Each property says what it is for, itself or by what it refers to."""
    schema = _schema(name)

    def is_described(prop: dict[str, Any]) -> bool:
        if "description" in prop:
            return True
        target: Any = schema
        for step in prop.get("$ref", "").split("/")[1:]:
            target = target[step]
        return target is not schema and is_described(target)

    silent = [
        key
        for part in _objects(schema)
        for key, prop in part.get("properties", {}).items()
        if isinstance(prop, dict) and not is_described(prop)
    ]
    assert silent == []


@pytest.mark.parametrize("name", _SCHEMAS)
def test_every_pattern_has_words(name: SchemaName) -> None:
    """A value that does not match is answered in words, never with the pattern."""
    for part in _objects(_schema(name)):
        if isinstance(part.get("pattern"), str):
            assert part["patternErrorMessage"]


@pytest.mark.parametrize("kind", ["job", "queue", "worker", "channel"])
def test_overrides_take_every_key_but_the_four_of_the_resource(kind: str) -> None:
    """Overrides hold what a resource holds, without targets, overrides and renamed_from."""
    definitions = _schema("jobs")["$defs"]
    own = set(definitions[kind]["properties"])
    assert own - set(definitions[f"{kind}Override"]["properties"]) == {"targets", "overrides", "renamed_from"}


def test_defaults_take_what_jobs_can_share() -> None:
    """Defaults hold every job key but those that make a job what it is."""
    definitions = _schema("jobs")["$defs"]
    missing = set(definitions["job"]["properties"]) - set(definitions["defaults"]["properties"])
    alone = {"payload", "description", "after", "renamed_from", "overrides", "protect"}
    assert missing == {*TRIGGERS, *BODIES, *alone, "ambiguous", "nonexistent"}


def test_the_full_example_has_every_key() -> None:
    """The example with every key is complete, so that other tests that build on it are too."""
    definitions = _schema("jobs")["$defs"]
    for kind in ("job", "queue", "worker", "channel"):
        used = {key for one in _FULL[f"{kind}s"].values() for key in one} | set(_FULL["defaults"])
        assert set(definitions[kind]["properties"]) <= used
    assert set(definitions["defaults"]["properties"]) == set(_FULL["defaults"])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, child in value.items():
            found += _paths(child, (*path, key))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            found += _paths(child, (*path, number))
    return found


@st.composite
def _mutants(draw: st.DrawFn, document: Any) -> Any:
    """A valid document with one to three changes: a value replaced, removed, renamed or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(changed)[1:] or [()]))
        if not path:
            break
        parent = changed
        for step in path[:-1]:
            parent = parent[step]
        match draw(st.sampled_from(["replace", "remove", "rename", "add"])):
            case "remove":
                del parent[path[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["x", "My_Job", "${var:x}", "on", "a\n", "sql", "a b"]))] = (
                    parent.pop(path[-1])
                )
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["every", "sql", "timeout", "x", "labels"]))] = copy.deepcopy(
                    draw(st.sampled_from(_WRONG))
                )
            case _:
                parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(_WRONG)))
    return changed


@settings(max_examples=300)
@given(_mutants(_FULL))
def test_both_validators_agree_on_spec_files(document: Any) -> None:
    """What the fast validator accepts the explaining one accepts, and the other way round."""
    definition = Definition(schema="jobs")
    accepted = is_valid(definition, document)
    assert accepted == _slow(definition).is_valid(document)
    faults = find_schema_faults(definition, document)
    assert accepted == (not faults)
    assert all("does not fit the schema" not in fault.message for fault in faults)


@given(_mutants(_CONFIG))
def test_both_validators_agree_on_configurations(document: Any) -> None:
    """The same for reconciler.yaml."""
    definition = Definition(schema="config")
    accepted = is_valid(definition, document)
    assert accepted == _slow(definition).is_valid(document)
    assert accepted == (not find_schema_faults(definition, document))


@given(st.text(max_size=70))
def test_the_schema_and_the_code_agree_on_names(name: str) -> None:
    """A key is a name by the schema exactly when `is_name` says so, and a suggested name is one."""
    assert is_valid(Definition(schema="jobs"), {"queues": {name: {}}}) == is_name(name)
    better = suggest_name(name)
    assert not better or is_name(better)


@given(st.from_regex(r"\A[a-z0-9._-]{0,66}\Z"))
def test_the_schema_and_the_code_agree_on_likely_names(name: str) -> None:
    """The same for texts of the right letters, up to and over the limit of bytes."""
    assert is_valid(Definition(schema="jobs"), {"queues": {name: {}}}) == is_name(name)
