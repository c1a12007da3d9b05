"""The schema of one job as the service takes it: nothing in it refers to files, or to anything outside."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from reconciler.loader.schema_check import Definition, read_schema

_ABOUT_FILES: Final = frozenset({"targets", "overrides", "renamed_from"})
"""Keys of a job that mean something in files alone."""
_UNKNOWN_WORDS: Final = frozenset({"patternErrorMessage", "$comment"})

_REQUESTS: Final = [{"url": "https://example.com/hooks/reminders", "expect": "2xx", "timeout": "20s"}]


def describe_job(*names: str) -> dict[str, Any]:
    """Describe what a job looks like.

    Args:
        *names: Keys that hold its name.

    Returns:
        A JSON Schema without references, without what means something in files alone, and without secrets;
        the caller's own.
    """
    schema = read_schema(Definition(schema="jobs", takes_variables=False))
    definitions = schema["$defs"]
    job: dict[str, Any] = _inline(definitions["job"], definitions)
    name = {**_inline(definitions["name"], definitions), "description": "Of the job; unique on the target."}
    properties = {key: value for key, value in job["properties"].items() if key not in _ABOUT_FILES}
    job["properties"] = {**dict.fromkeys(names, name), **properties}
    http = properties["http"]
    del http["properties"]["token"]
    http["examples"] = _REQUESTS
    return job


def _inline(value: Any, definitions: dict[str, Any]) -> Any:
    """Put what is referred to in the place of each reference."""
    if isinstance(value, list):
        return [_inline(child, definitions) for child in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        name = value["$ref"].removeprefix("#/$defs/")
        # A job holds no jobs but in its overrides, which are left out.
        if name == "jobOverride":
            return {}
        rest = {key: child for key, child in value.items() if key != "$ref"}
        return _inline({**deepcopy(definitions[name]), **rest}, definitions)
    return {key: _inline(child, definitions) for key, child in value.items() if key not in _UNKNOWN_WORDS}
