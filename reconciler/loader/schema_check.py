"""Check values against the JSON Schemas of `schemas/`; knows no file and no place, only paths into the value.

Two validators read the same schema file. jsonschema-rs decides, since it is fast; only where it says no,
jsonschema is imported to say why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from reconciler.loader.schema_words import SchemaFault, put_into_words
from reconciler.resources import read_resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jsonschema_rs
    from jsonschema import Draft202012Validator, ValidationError

SchemaName = Literal["jobs", "config"]
_OR_VARIABLE: Final = r"|\\$\\{"
"""What patterns end with where a variable may stand instead, as JSON writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A schema, or one definition of it.

    Attributes:
        schema: The file.
        name: A name below `$defs`; "" is the whole.
        takes_variables: Whether a text may hold `${var:…}` in place of what it is to be.
    """

    schema: SchemaName
    name: str = ""
    takes_variables: bool = True


def is_valid(definition: Definition, value: Any) -> bool:
    """Tell whether a value fits.

    Args:
        definition: What it has to fit.
        value: A JSON value.

    Returns:
        True when it does.
    """
    return _fast(definition).is_valid(value)


def find_schema_faults(definition: Definition, value: Any, *, label: str = "") -> list[SchemaFault]:
    """Say what does not fit.

    Args:
        definition: What the value has to fit.
        value: A JSON value.
        label: What the value is, for instance `job x`, where it is a part of a file; "" where it is a whole.

    Returns:
        Every fault with its path; none when the value fits.
    """
    if is_valid(definition, value):
        return []
    faults = put_into_words(
        _slow(definition).iter_errors(value), config=definition.schema == "config", label=label
    )
    # Both read one schema, so this is not reached; a file that the deciding one refuses is never let through.
    return faults or [SchemaFault(path=(), at_key=False, message="this does not fit the schema")]


@cache
def read_schema(definition: Definition) -> dict[str, Any]:
    """Read a schema.

    Args:
        definition: Which one.

    Returns:
        It, and the same each time: nobody changes it.
    """
    text = read_resource("schemas", f"{definition.schema}.schema.json")
    schema: dict[str, Any] = json.loads(
        text if definition.takes_variables else text.replace(_OR_VARIABLE, "")
    )
    if not definition.name:
        return schema
    return {
        "$schema": schema["$schema"],
        "$defs": schema["$defs"],
        "$ref": f"#/$defs/{definition.name}",
    }


@cache
def _fast(definition: Definition) -> jsonschema_rs.Draft202012Validator:
    import jsonschema_rs  # noqa: PLC0415 - 40 ms, and only commands that read files need it

    return jsonschema_rs.Draft202012Validator(read_schema(definition))


@cache
def _slow(definition: Definition) -> Draft202012Validator:
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415 - only for faults

    def check_pattern(
        _validator: Any, pattern: str, instance: Any, _schema: Any
    ) -> Iterator[ValidationError]:
        # Python's $ also fits before a last line break; that of JSON Schema (ECMA-262) does not.
        strict = re.sub(r"(?<!\\)\$(?=$|[|)])", r"\\Z", pattern)
        if isinstance(instance, str) and re.search(strict, instance) is None:
            yield ValidationError(f"{instance!r} does not match {pattern!r}")

    extend: Any = validators.extend
    extended: type[Draft202012Validator] = extend(Draft202012Validator, {"pattern": check_pattern})
    return extended(read_schema(definition))
