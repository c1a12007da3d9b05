"""Lay defaults, a resource and its overrides over each other, and keep where each key came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.loader.schema_words import BODIES, TRIGGERS

if TYPE_CHECKING:
    from reconciler.core.specs import Kind, Place
    from reconciler.loader.problems import Problem
    from reconciler.loader.sources import Source

_CHOICES = (frozenset(TRIGGERS), frozenset(BODIES))


@dataclass(slots=True, kw_only=True)
class Declaration:
    """One resource as a file declares it, for one target.

    Attributes:
        kind: Its kind.
        name: Its name.
        place: Where its name was written.
        source: The file.
        section: The section of the file that holds it.
        own: What stands under its name. Shared with the file: never changed.
        value: All of its keys with defaults and overrides. Never changed in place.
        layers: Keys that do not come from `own`: the path before the key.
        target: The target's name.
        is_broken: Its variables could not be inserted.
        has_variables: The file holds `${` somewhere.
    """

    kind: Kind
    name: str
    place: Place
    source: Source
    section: str
    own: dict[str, Any]
    target: str
    value: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    has_variables: bool = False
    is_broken: bool = False

    @property
    def label(self) -> str:
        """The resource for people, for instance `job x`."""
        return f"{self.kind} {self.name}"

    def rank_of(self, key: str) -> int:
        """Say how near to the resource and target a key was written.

        Args:
            key: A key of `value`.

        Returns:
            0 in the defaults, 1 under the name, 2 in the overrides.
        """
        layer = self.layers.get(key)
        if layer is None:
            return 1
        return 0 if layer[0] == "defaults" else 2

    def path_of(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Give the path in the file of a path in `value`.

        Args:
            path: Keys and numbers from the resource.

        Returns:
            Keys and numbers from the top of the file.
        """
        own = (self.section, self.name)
        if not path:
            return own
        if path[0] == "labels":
            for layer in ((*own, "overrides", self.target), own, ("defaults",)):
                if self.source.places().has((*layer, *path)):
                    return (*layer, *path)
        return (*self.layers.get(str(path[0]), own), *path)

    def make_problem(self, path: tuple[str | int, ...], message: str, *, at_key: bool = False) -> Problem:
        """Make a problem at one of the values.

        Args:
            path: Keys and numbers from the resource; none for the name itself.
            message: What is wrong and what to do.
            at_key: Point at the key, not at its value.

        Returns:
            The problem with its place and line.
        """
        if not path:
            return self.source.make_problem(self.place, message)
        place = self.source.place_of(self.path_of(path), at_key=at_key)
        return self.source.make_problem(place, message)


def merge(declaration: Declaration, defaults: dict[str, Any]) -> None:
    """Fill in `value` and `layers`.

    A trigger in an override takes the place of whatever trigger was there, a body likewise; labels are
    merged; all else is replaced whole.

    Args:
        declaration: With `own` and `target`.
        defaults: Of the file; empty for all but jobs.
    """
    own = declaration.own
    overrides = own.get("overrides")
    override = overrides.get(declaration.target) if overrides else None
    if not defaults and not override:
        declaration.value = own
        return
    layers = declaration.layers
    value = dict(defaults)
    for key in defaults:
        if key not in own:
            layers[key] = ("defaults",)
    value.update(own)
    if override:
        for choice in _CHOICES:
            if not choice.isdisjoint(override):
                for key in choice.intersection(value):
                    del value[key]
        value.update(override)
        for key in override:
            layers[key] = (declaration.section, declaration.name, "overrides", declaration.target)
    labels = [layer["labels"] for layer in (defaults, own, override or {}) if "labels" in layer]
    if len(labels) > 1:
        value["labels"] = {name: text for layer in labels for name, text in layer.items()}
    declaration.value = value
