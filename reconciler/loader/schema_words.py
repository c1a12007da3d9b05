"""Put the error tree of jsonschema into words for people; knows no file and no place."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from reconciler.core.names import NAME_LIMIT, find_nearest, is_name
from reconciler.core.specs import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


SchemaError: TypeAlias = Any
"""A `jsonschema.ValidationError`, whose attributes have no useful types."""

TRIGGERS = ("schedule", "every", "daily", "weekly", "monthly", "once")
"""The keys of a job that say when it runs."""

BODIES = ("sql", "http", "handler")
"""The keys of a job that say what it does."""

_TYPES = {
    "string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "object": "a mapping", "array": "a list",
}  # fmt: skip
_SYNONYMS = {
    "cron": "schedule", "command": "sql", "query": "sql", "enabled": "active", "tz": "timezone",
    "depends_on": "after", "needs": "after", "retry": "on_failure", "interval": "every", "args": "payload",
    "start_date": "start_at", "end_date": "end_at", "until": "end_at",
}  # fmt: skip
_UNSHARED = frozenset(
    {*TRIGGERS, *BODIES, "payload", "description", "after", "protect", "ambiguous", "nonexistent"}
)
_CONFIG_SECTIONS = {"targets": "target", "secrets": "secret"}
_EMPTY: dict[str, str] = {"object": "write {} or leave it out", "array": "write [] or leave it out"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFault:
    """One way in which a value does not fit.

    Attributes:
        path: Keys and numbers from the top of the value.
        at_key: It is the last key of the path that is wrong, not its value.
        message: What is wrong and what to write.
        is_secret: The line may hold a secret and is not to be shown.
    """

    path: tuple[str | int, ...]
    at_key: bool
    message: str
    is_secret: bool = False


def put_into_words(errors: Iterable[SchemaError], *, config: bool, label: str = "") -> list[SchemaFault]:
    """Put errors into words.

    Args:
        errors: From jsonschema, with our own annotations in the schema.
        config: Whether the value is a configuration; else it is a spec file.
        label: What the value is, where it is not a whole file.

    Returns:
        A fault or more for each error.
    """
    faults: list[SchemaFault] = []
    misspelt: set[tuple[tuple[str | int, ...], str]] = set()
    lacking: list[tuple[str, int, SchemaFault]] = []
    for error in errors:
        path = tuple(error.absolute_path)
        words = _Words(path, config=config, label=label)
        if "propertyNames" in error.absolute_schema_path:
            faults.append(_describe_key(path, error))
        elif error.validator == "additionalProperties":
            for key in sorted(set(error.instance) - set(error.schema.get("properties", ()))):
                nearest = find_nearest(key, error.schema["properties"])
                misspelt |= {(path, nearest), (path, _SYNONYMS.get(key, ""))}
                message = _describe_unknown(key, nearest, error.schema["properties"], words)
                faults.append(SchemaFault(path=(*path, key), at_key=True, message=message))
        elif error.validator == "oneOf":
            if not isinstance(error.instance, dict):
                continue  # its type is another fault
            title = error.schema.get("title", "")
            message = describe_choice(words.whole(), title, error.instance)
            given = _given(title, error.instance)
            where = (*path, given[1]) if len(given) > 1 else path
            lacking.append((title, len(given), SchemaFault(path=where, at_key=True, message=message)))
        else:
            at_key = error.validator in {"required", "dependentRequired", "minProperties", "maxProperties"}
            is_secret = _takes_secret(error) and error.instance is not None
            message = _describe(error, words)
            faults.append(SchemaFault(path=path, at_key=at_key, message=message, is_secret=is_secret))
    for title, count, fault in lacking:
        # A misspelt trigger is not a missing one too.
        choices = (*TRIGGERS, "after") if title == "trigger" else BODIES
        if count or not any((fault.path, choice) in misspelt for choice in choices):
            faults.append(fault)
    return list(dict.fromkeys(faults))


def describe_choice(label: str, title: str, keys: Iterable[str]) -> str:
    """Say that a job has no trigger or body, or several.

    Args:
        label: The job, for instance `job x`.
        title: `trigger` or `body`.
        keys: The keys of the job.

    Returns:
        What is wrong and what to do.
    """
    given = _given(title, keys)
    if not given:
        choices = (*TRIGGERS, "or after") if title == "trigger" else BODIES
        return f"{label} has no {title}: write one of {', '.join(choices)}"
    plural = "triggers" if title == "trigger" else "bodies"
    count = {2: "two", 3: "three"}.get(len(given), str(len(given)))
    return f"{label} has {count} {plural}, {_join(given, 'and')}: keep one"


def _given(title: str, keys: Iterable[str]) -> list[str]:
    """Pick the triggers or bodies from keys, in the order of the keys."""
    return [key for key in keys if key in (TRIGGERS if title == "trigger" else BODIES)]


def suggest_name(text: str) -> str:
    """Spell a name right.

    Args:
        text: What was written.

    Returns:
        The nearest right name; "" when there is none.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("._-")
    return name if is_name(name) else ""


def describe_name(text: str) -> str:
    """Say why a text is no name.

    Args:
        text: What was written.

    Returns:
        What is wrong and what to write.
    """
    size = len(text.encode())
    if size > NAME_LIMIT:
        return f"the name {text!r} has {size} bytes: {NAME_LIMIT} at most, since pg_cron cuts longer ones"
    better = suggest_name(text)
    rule = "lower-case letters, digits, dots, underscores and hyphens, a letter or digit first and last"
    return f"{text!r} is no name ({rule})" + (f": write {better!r}" if better else "")


class _Words:
    """Names for the parts of one value."""

    def __init__(self, path: Sequence[str | int], *, config: bool, label: str) -> None:
        steps = [str(step) if isinstance(step, str) else f"[{step}]" for step in path]
        self.owner = label
        if not label and steps:
            sections = _CONFIG_SECTIONS if config else SECTIONS
            if steps[0] in sections and len(steps) > 1:
                self.owner = f"{sections[steps[0]]} {steps[1]}"
                steps = steps[2:]
            elif steps[0] == "defaults":
                self.owner = "the defaults"
                steps = steps[1:]
        if len(steps) > 1 and steps[0] == "overrides":
            self.owner = f"the overrides for {steps[1]} in {self.owner}"
            steps = steps[2:]
        self.inner = ".".join(steps).replace(".[", "[")

    def whole(self) -> str:
        """Name the value: `timeout of job x`, or `job x`."""
        if not self.inner:
            return self.owner or "the file"
        return f"{self.inner} of {self.owner}" if self.owner else self.inner


def _describe_key(path: tuple[str | int, ...], error: SchemaError) -> SchemaFault:
    key = str(error.instance)
    rule = error.schema.get("patternErrorMessage", "")
    message = describe_name(key) if rule.startswith("a name ") else f"{key!r}: {rule}"
    return SchemaFault(path=(*path, key), at_key=True, message=message)


def _describe_unknown(key: str, nearest: str, known: Mapping[str, Any], words: _Words) -> str:
    place = words.whole()
    if place == "the defaults" and key in _UNSHARED:
        return f"{key!r} cannot be shared in the defaults: write it in each job"
    if key in {"targets", "overrides", "renamed_from"}:
        return f"{key!r} cannot stand in {place}: write it beside them"
    holders = [name for name in sorted(known) if key in known[name].get("properties", ())]
    if holders:
        return f"unknown key {key!r} in {place}; it belongs under {_join(holders, 'or')}"
    nearest = _SYNONYMS.get(key, nearest) if _SYNONYMS.get(key, "") in known else nearest
    remedy = f"; did you mean {nearest!r}?" if nearest else f": known here are {', '.join(sorted(known))}"
    return f"unknown key {key!r} in {place}{remedy}"


def _describe(error: SchemaError, words: _Words) -> str:
    limit = error.validator_value
    name = words.whole()
    shown = _show(error.instance)
    match error.validator:
        case "type":
            return _describe_type(error, name)
        case "enum":
            nearest = find_nearest(str(error.instance), map(str, limit))
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            return f"{name} is {shown}: use {_join(list(map(str, limit)), 'or')}{hint}"
        case "pattern":
            rule = error.schema.get("patternErrorMessage", "it is not written right")
            if rule.startswith("a name "):
                return f"{name}: {describe_name(str(error.instance))}"
            return f"{name} is {shown}: {rule}"
        case "required":
            return f"{name} needs {_join([key for key in limit if key not in error.instance], 'and')}"
        case "dependentRequired":
            given = [key for key in limit if key in error.instance]
            needed = [other for key in given for other in limit[key] if other not in error.instance]
            return f"{name} has {_join(given, 'and')} without {_join(needed, 'and')}: write both or none"
        case "minimum":
            return f"{name} is {shown}: {limit} at least"
        case "maximum":
            return f"{name} is {shown}: {limit} at most"
        case "minLength" | "minItems":
            return f"{name} is empty: give it a value or leave it out"
        case "uniqueItems":
            return f"{name} names something twice: keep one"
        case "minProperties":
            known = list(error.schema.get("properties", ()))
            return f"{name} is empty: it needs {_join(known, 'or') if known else 'one entry at least'}"
        case "maxProperties":
            return f"{name} has {len(error.instance)} entries: keep one"
    return f"{name} does not fit the schema ({error.validator})"


def _describe_type(error: SchemaError, name: str) -> str:
    limit = error.validator_value
    wanted = [limit] if isinstance(limit, str) else list(limit)
    value = error.instance
    if _takes_secret(error):
        return (
            f"{name} must be {{secret: name}}, a name of reconciler.yaml; the value itself never stands here"
        )
    if value is None:
        remedy = _EMPTY.get(wanted[0], "give it a value, or leave it out")
        return f"{name} is empty: {remedy}"
    words = _join([_TYPES[kind] for kind in wanted], "or")
    message = f"{name} is {_show_type(value)}, and must be {words}"
    if "string" in wanted and isinstance(value, bool | int | float):
        return f'{message}: write "{_show(value).strip(chr(39))}" with quotes'
    if isinstance(value, str) and wanted[0] in {"integer", "number", "boolean"}:
        return f"{message}: leave the quotes out"
    return message


def _takes_secret(error: SchemaError) -> bool:
    return error.validator == "type" and "secret" in error.schema.get("properties", {})


def _show_type(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {_show(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _join(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
