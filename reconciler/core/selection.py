"""Choose some of the declared resources by name, label and file, and plan nothing for the others; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from reconciler.core.changes import Change, Obstacle
from reconciler.core.names import OWN_PREFIX, find_nearest, list_some
from reconciler.core.policies import fits_text
from reconciler.core.state import DesiredState, Notice
from reconciler.errors import ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from reconciler.core.specs import Kind, Place
    from reconciler.core.state import Definition, DesiredResource, ObservedState

_SHOWN: Final = 8


class Declared(Protocol):
    """What a selection looks at: a spec, or a resource made of one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def document(self) -> str:
        """Canonical JSON of it."""

    @property
    def place(self) -> Place:
        """Where it is declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the declared resources are planned. Each kind of condition has to hold that is given at all.

    Attributes:
        names: Patterns, of which one fits the name.
        labels: Names of labels with patterns, of which one fits the text.
        paths: Files and folders, in one of which it is declared; as places spell them.
    """

    names: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was asked for, so that everything is planned."""
        return not (self.names or self.labels or self.paths)

    def to_json(self) -> dict[str, list[str]]:
        """Return it as a saved plan keeps it."""
        return {
            "only": list(self.names),
            "label": [f"{key}={pattern}" for key, pattern in self.labels],
            "path": list(self.paths),
        }


def read_selection(value: Mapping[str, Sequence[str]] | None) -> Selection:
    """Read what `Selection.to_json` made.

    Args:
        value: Of a saved plan; None where it has none.

    Returns:
        The selection.
    """
    if value is None:
        return Selection()
    return Selection(
        names=tuple(value["only"]),
        labels=tuple((key, pattern) for key, _, pattern in (one.partition("=") for one in value["label"])),
        paths=tuple(value["path"]),
    )


def choose(resources: Collection[Declared], selection: Selection) -> frozenset[str]:
    """Choose resources.

    Args:
        resources: Everything declared for a target.
        selection: Not empty.

    Returns:
        Their names.

    Raises:
        ReconcilerError: One of the conditions fits nothing, or all of them together; the message names what
            comes nearest.
    """
    labels = {one.name: _read_labels(one) for one in resources} if selection.labels else {}
    for pattern in selection.names:
        if not any(fits_text(pattern, one.name) for one in resources):
            raise _make_error(f"--only {pattern}", pattern, (one.name for one in resources))
    for key, pattern in selection.labels:
        if not any(_fits_label(found, key, pattern) for found in labels.values()):
            known = (f"{name}={text}" for found in labels.values() for name, text in found.items())
            raise _make_error(f"--label {key}={pattern}", f"{key}={pattern}", known)
    for path in selection.paths:
        if not any(_is_in(one.place, path) for one in resources):
            raise _make_error(f"--path {path}", path, (one.place.path for one in resources))
    chosen = frozenset(
        one.name
        for one in resources
        if (not selection.names or any(fits_text(pattern, one.name) for pattern in selection.names))
        and (not selection.labels or any(_fits_label(labels[one.name], *label) for label in selection.labels))
        and (not selection.paths or any(_is_in(one.place, path) for path in selection.paths))
    )
    if not chosen:
        raise ReconcilerError(
            "nothing is selected: each of --only, --label and --path fits something, and nothing fits all",
            remedy="leave one of them out",
        )
    return chosen


def narrow(desired: DesiredState, chosen: Collection[str]) -> DesiredState:
    """Keep what was chosen, and the tool's own resources.

    Args:
        desired: Everything declared for a target.
        chosen: Names.

    Returns:
        The state of those, which knows the others as `unselected`.
    """

    def is_kept(name: str) -> bool:
        return name in chosen or name.startswith(OWN_PREFIX)

    notices = []
    for notice in desired.notices:
        names = tuple(name for name in notice.names if is_kept(name))
        if names or not notice.names:
            notices.append(replace(notice, names=names))
    return replace(
        desired,
        resources={name: one for name, one in desired.resources.items() if is_kept(name)},
        unselected={name: one for name, one in desired.resources.items() if not is_kept(name)},
        notices=tuple(notices),
    )


def widen(desired: DesiredState) -> DesiredState:
    """Take back what `narrow` did, but for the notices.

    Args:
        desired: With or without a selection.

    Returns:
        The state of everything declared.
    """
    if desired.unselected is None:
        return desired
    return replace(desired, resources={**desired.resources, **desired.unselected}, unselected=None)


def refuse_loose(
    changes: Sequence[Change], absent: Mapping[str, DesiredResource], observed: ObservedState, *, remedy: str
) -> tuple[Change, ...]:
    """Refuse what refers to resources that are declared, and neither on the target nor made with it.

    Args:
        changes: That are to be made.
        absent: What is declared and not made now, by name.
        observed: What the target holds.
        remedy: What to do about it.

    Returns:
        The same changes in the same order.
    """
    marked = []
    for change in changes:
        loose = sorted(
            {name for kind, name in _list_needed(change) if _is_absent(kind, name, absent, observed)}
        )
        if loose and change.obstacle is None:
            missing = list_some(loose, _SHOWN)
            why = f"{change.kind} {change.name} refers to {missing}, which the target does not have"
            marked.append(replace(change, obstacle=Obstacle(kind="refused", why=why, remedy=remedy)))
        else:
            marked.append(change)
    return tuple(marked)


def make_selection_notice(desired: DesiredState, gone: Sequence[Definition]) -> Notice:
    """Say that only a part is planned.

    Args:
        desired: Narrowed.
        gone: What is no longer declared and stays.

    Returns:
        A notice with the names of what stays.
    """
    assert desired.unselected is not None  # noqa: S101 - the caller asked
    count = sum(not name.startswith(OWN_PREFIX) for name in desired.resources)
    message = f"{count} of {count + len(desired.unselected)} declared resources are selected"
    if gone:
        message += (
            f"; under a selection nothing is deleted or retired: {len(gone)} that "
            f"{'are' if len(gone) > 1 else 'is'} no longer declared {'stay' if len(gone) > 1 else 'stays'}"
        )
    return Notice(code="selected", message=message, names=tuple(sorted(one.name for one in gone)))


def _read_labels(one: Declared) -> dict[str, str]:
    found: dict[str, str] = json.loads(one.document).get("labels", {}) if one.document else {}
    return found


def _fits_label(labels: Mapping[str, str], key: str, pattern: str) -> bool:
    return key in labels and fits_text(pattern, labels[key])


def _is_in(place: Place, path: str) -> bool:
    """Tell whether a place is in a file or folder; below ".", the working directory, paths are relative."""
    if path == ".":
        return not place.path.startswith("/")
    return place.path == path or place.path.startswith(f"{path.rstrip('/')}/")


def _make_error(what: str, wanted: str, known: Iterator[str]) -> ReconcilerError:
    words = sorted(set(known))
    nearest = find_nearest(wanted, words)
    remedy = f"did you mean {nearest}?" if nearest else f"there are {list_some(words, _SHOWN) or 'none'}"
    return ReconcilerError(f"{what} fits nothing that is declared for this target", remedy=remedy)


def list_references(document: str) -> Iterator[tuple[Kind, str]]:
    """List what a resource refers to.

    Args:
        document: Canonical JSON of it.

    Yields:
        Kinds and names.
    """
    declared: dict[str, Any] = json.loads(document)
    yield from (("job", name) for name in declared.get("after", ()))
    yield from (("channel", name) for name in declared.get("alert", {}).get("channels", ()))
    if "queue" in declared:
        yield "queue", declared["queue"]


def _list_needed(change: Change) -> Iterator[tuple[Kind, str]]:
    return list_references((change.after.document if change.after else "") or "{}")


def _is_absent(kind: Kind, name: str, absent: Mapping[str, DesiredResource], observed: ObservedState) -> bool:
    found = observed.definitions.get(name)
    is_there = found is not None and found.kind == kind and found.retired_until is None
    return name in absent and absent[name].kind == kind and not is_there
