"""The JSON Schema of plans as one value without references, for documents that hold other schemas besides."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from reconciler.resources import read_resource


@cache
def load_plan_schema() -> dict[str, Any]:
    """Load `schemas/plan.schema.json`; whoever calls changes nothing in it.

    Returns:
        The schema, with each `$ref` replaced by what it names.
    """
    schema = json.loads(read_resource("schemas", "plan.schema.json"))
    definitions = schema.pop("$defs")

    def insert(value: Any) -> Any:
        if isinstance(value, list):
            return [insert(one) for one in value]
        if not isinstance(value, dict):
            return value
        own = {key: insert(one) for key, one in value.items() if key != "$ref"}
        if "$ref" not in value:
            return own
        # What stands beside a reference holds as well, and says it more closely.
        return {**insert(definitions[value["$ref"].removeprefix("#/$defs/")]), **own}

    return {key: insert(one) for key, one in schema.items() if key not in {"$schema", "$id"}}
