"""Lay `target_defaults` of `reconciler.yaml` under each target; knows no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reconciler.core.specs import Place
    from reconciler.loader.sources import Source

KEY: Final = "target_defaults"
"""Where they stand."""


def merge_defaults(value: Mapping[str, Any]) -> dict[str, Any]:
    """Give every target what it does not say itself.

    Args:
        value: A configuration that fits the schema.

    Returns:
        The same without defaults: `vars` are put together, the nearer text wins; all else is replaced whole.
    """
    merged = {key: child for key, child in value.items() if key != KEY}
    defaults = value.get(KEY)
    if defaults:
        merged["targets"] = {name: _lay(defaults, own) for name, own in value["targets"].items()}
    return merged


def _lay(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    target = {**defaults, **own}
    if "vars" in target:
        target["vars"] = {**defaults.get("vars", {}), **own.get("vars", {})}
    return target


def find_place(source: Source, path: Sequence[str | int]) -> Place:
    """Give the place of a value that stands with a target or with the defaults.

    Args:
        source: The file.
        path: Keys and numbers from the top, in the merged value.

    Returns:
        Where it was written; of the nearest value around it when there is none.
    """
    places = source.places()
    shared = (KEY, *path[2:])
    if path[:1] == ("targets",) and len(path) > 2 and not places.has(tuple(path)) and places.has(shared):
        return source.place_of(shared)
    return source.place_of(path)
