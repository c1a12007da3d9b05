"""What revisions say: changes as they were applied, who changed a resource last, and the state of then; pure.

A revision keeps each change with both of its sides, so what an owner had after any revision follows from the
first one on. Where revisions do not tell all of it, that is said and nothing is guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.changes import Change, FieldChange, Snapshot
from reconciler.core.declared_times import read_instant
from reconciler.core.fields import diff_snapshots
from reconciler.core.names import OWN_PREFIX
from reconciler.core.specs import Place
from reconciler.core.state import Entry, Notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.specs import Kind
    from reconciler.core.state import DesiredState


class HistoryError(ValueError):
    """The revisions do not tell what has to be known of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One apply that changed something.

    Attributes:
        id: Its number.
        owner: Whose resources it changed.
        changes: What it changed, in the order in which a plan shows it.
    """

    id: int
    owner: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A resource as an owner had it.

    Attributes:
        kind: What it is.
        name: Its name.
        document: Canonical JSON of its spec.
        entry: Its row of cron.job as it was applied; None where it had none.
        source: Where it was declared, as `path:line`.
        identity: The same number for the same resource under whatever name.
        is_retired: Whether it stands still, since nobody declared it any more.
    """

    kind: Kind
    name: str
    document: str
    entry: Entry | None
    source: str
    identity: tuple[int, str]
    is_retired: bool = False

    @property
    def place(self) -> Place:
        """Where it was declared, as far as that is known."""
        path, _, line = self.source.rpartition(":")
        return Place(path=path or self.source, line=int(line) if line.isdecimal() else 1, column=1)

    @property
    def is_own(self) -> bool:
        """Whether it is one of the tool's own entries, which this release and its configuration decide."""
        return self.name.startswith(OWN_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A definition of now, as a restored state has to reckon with it.

    Attributes:
        kind: What it is.
        name: Its name.
        document: What was last applied, or what stands there since somebody edited it.
        digest: Of the document that was applied.
        entry: The entry as last applied; None where there is none.
        source: Where it was declared.
    """

    kind: Kind
    name: str
    document: str
    digest: str
    entry: Entry | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What of a restored state neither specs nor the server decide.

    Attributes:
        revision: After which all was so; None where single resources come back.
        names: Of the single resources that come back; none where all does.
        entries: The entries as they were applied, by name; None where there was none.
        notices: What a reviewer has to know.
    """

    revision: int | None = None
    names: tuple[str, ...] = ()
    entries: Mapping[str, Entry | None] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    @property
    def label(self) -> str:
        """What it is called: `revision 7`, or the names."""
        return ", ".join(self.names) or f"revision {self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The state that a rollback asks for.

    Attributes:
        resources: By name, without the tool's own entries.
        renamed_from: The names of now, by the names of then, where they differ.
        past: What of it neither specs nor the server decide.
    """

    resources: Mapping[str, Held]
    renamed_from: Mapping[str, str]
    past: Past


def read_change(value: Mapping[str, Any]) -> Change:
    """Read a change as a revision keeps it.

    Args:
        value: One of the revision's changes.

    Returns:
        The change, with what differs on its two sides.
    """
    before, after = _read_snapshot(value["before"]), _read_snapshot(value["after"])
    fields: list[FieldChange] = []
    renamed_from = value.get("renamed_from", "")
    if value["action"] in {"update", "retire", "release"} and before is not None and after is not None:
        fields.extend(diff_snapshots(before, after))
        if not renamed_from and value["reason"] == "renamed" and before.entry is not None:
            renamed_from = before.entry.name  # as the first releases kept it
        if renamed_from:
            fields.append(FieldChange(path="name", before=renamed_from, after=value["name"]))
    spec = json.loads((after or before or _NOTHING).document or "{}")
    return Change(
        action=value["action"],
        kind=value["kind"],
        name=value["name"],
        reason=value["reason"],
        before=before,
        after=after,
        fields=tuple(sorted(fields, key=lambda one: one.path)),
        source=value["source"],
        once="once" in spec,
        renamed_from=renamed_from,
        protect=bool(spec.get("protect", False)),
    )


_NOTHING = Snapshot(document="", entry=None)


def _read_snapshot(value: Mapping[str, Any] | None) -> Snapshot | None:
    if value is None:
        return None
    spec, entry = value["spec"], value["entry"]
    return Snapshot(
        document="" if spec is None else render_canonical(spec),
        entry=None if entry is None else Entry(**entry),
    )


def replay(revisions: Iterable[Revision], *, state: Mapping[str, Held] | None = None) -> dict[str, Held]:
    """Follow the revisions of one owner.

    Args:
        revisions: All of them from the first on, or from where `state` ends; the oldest first.
        state: What there was before; None for nothing.

    Returns:
        What the owner has after the last one, by name, with what stands still in its grace.

    Raises:
        HistoryError: A revision does not follow from those before it.
    """
    held = dict(state or {})
    for revision in revisions:
        put: list[Held] = []
        for change in revision.changes:
            if change.reason == "unmanaged":
                continue  # it was nobody's
            if change.action in {"delete", "release"}:
                held.pop(change.name, None)
                continue
            if change.action == "retire":
                if change.name in held:
                    held[change.name] = replace(held[change.name], is_retired=True)
                continue
            if change.after is None or not change.after.document:
                raise HistoryError(f"revision {revision.id} does not say what became of {change.name}")
            source = _find_source(held, change, revision.id)
            old = held.pop(source, None)
            put.append(
                Held(
                    kind=change.kind,
                    name=change.name,
                    document=change.after.document,
                    entry=change.after.entry,
                    source=change.source,
                    identity=(revision.id, change.name) if old is None else old.identity,
                )
            )
        held.update((one.name, one) for one in put)
    return held


def list_live(held: Mapping[str, Held]) -> dict[str, Held]:
    """Leave out what stands still.

    Args:
        held: From `replay`.

    Returns:
        What was declared then.
    """
    return {name: one for name, one in held.items() if not one.is_retired}


def _find_source(held: Mapping[str, Held], change: Change, revision: int) -> str:
    """Find the name that a change begins with."""
    if change.reason != "renamed" or change.name in held:
        return change.name
    if change.renamed_from in held:
        return change.renamed_from
    document = change.before.document if change.before else ""
    found = [one.name for one in held.values() if (one.kind, one.document) == (change.kind, document)]
    if len(found) != 1:
        raise HistoryError(f"revision {revision} does not say which name {change.name} had before")
    return found[0]


def restore(
    revisions: Sequence[Revision], revision: int, present: Mapping[str, Present], *, now: datetime
) -> Restored:
    """Find the state that one owner had after a revision.

    Args:
        revisions: Of this owner, all of them, the oldest first.
        revision: One of theirs.
        present: This owner's definitions of now, by name.
        now: By the database's clock, aware: what was to happen once before it does not come back.

    Returns:
        The state.

    Raises:
        HistoryError: The revisions do not tell all of it.
    """
    until_then = replay(one for one in revisions if one.id <= revision)
    last = replay((one for one in revisions if one.id > revision), state=until_then)
    require_whole(last, present)
    then = list_live(until_then)
    over = {name: one for name, one in then.items() if is_over(one, now)}
    kept = {
        name: Held(
            kind=found.kind,
            name=name,
            document=found.document,
            entry=found.entry,
            source=found.source,
            identity=one.identity,
        )
        for name, one in over.items()
        if (found := present.get(name)) is not None
    }
    wanted = {name: one for name, one in then.items() if name not in over and not one.is_own} | kept
    names = {one.identity: one.name for one in last.values()}
    renamed_from = {
        name: names[one.identity]
        for name, one in wanted.items()
        if names.get(one.identity, name) not in wanted and name not in last
    }
    return Restored(
        resources={name: wanted[name] for name in sorted(wanted)},
        renamed_from=renamed_from,
        past=Past(
            revision=revision,
            entries={name: one.entry for name, one in wanted.items()},
            notices=tuple(_make_notices(revision, over)),
        ),
    )


def require_whole(last: Mapping[str, Held], present: Mapping[str, Present]) -> None:
    """Stop where something was written beside the revisions; what was edited or deleted by hand is drift.

    Args:
        last: What the revisions leave.
        present: The definitions of now, without those that stand still.

    Raises:
        HistoryError: They differ.
    """
    odd = sorted(
        name
        for name, one in present.items()
        if digest(one.document) == one.digest
        and (name not in last or digest(last[name].document) != one.digest)
    )
    if odd:
        raise HistoryError(
            f"the definitions of {', '.join(odd[:8])}{' and others' if len(odd) > 8 else ''} are not as the "
            "revisions left them"
        )


def is_over(held: Held, now: datetime) -> bool:
    """Tell whether a resource was to run once, at a moment that is past.

    Args:
        held: Of the past.
        now: Aware.

    Returns:
        False for whatever recurs.
    """
    at = json.loads(held.document).get("once") if held.kind == "job" else None
    return at is not None and read_instant(at) <= now


def _make_notices(revision: int, over: Mapping[str, Held]) -> Iterator[Notice]:
    yield Notice(
        code="rollback",
        message=f"this restores what was declared after revision {revision}; the files go on to declare what "
        "they do, so that the next apply of them undoes it: put them back too",
    )
    if over:
        yield Notice(
            code="over",
            message="the moment of these one-time jobs is past: what there is of them stays, and the others "
            "do not come back",
            names=tuple(sorted(over)),
        )


def put_back_entries(desired: DesiredState, past: Past) -> DesiredState:
    """Give resources the entries that they had.

    Args:
        desired: As specs and server make it today.
        past: With the entries of then.

    Returns:
        The same state with those entries to the letter; a note says where today's would be others.
    """
    resources = dict(desired.resources)
    others = []
    for name, entry in past.entries.items():
        today = resources[name].entry
        if not _is_alike(today, entry):
            others.append(name)
        resources[name] = replace(resources[name], entry=entry)
    notices = [*past.notices, *desired.notices]
    if others:
        notices.append(
            Notice(
                code="other_entries",
                message="the entries of these come back as they were, which is not what this release would "
                "make of them on this server today: the next apply of the files makes them anew",
                names=tuple(sorted(others)),
            )
        )
    return replace(desired, resources=resources, notices=tuple(notices))


def _is_alike(today: Entry | None, then: Entry | None) -> bool:
    if today is None or then is None:
        return today is then
    return today.same(then if today.username else replace(then, username=""))
