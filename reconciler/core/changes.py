"""A change is data: what differs, why, what hinders it. It can be printed, saved, compared and refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.core.specs import Kind
    from reconciler.core.state import Entry

Action = Literal["create", "update", "adopt", "retire", "delete", "release"]
Reason = Literal[
    "declared",
    "edited",
    "drifted",
    "both",
    "removed",
    "renamed",
    "adopted",
    "restored",
    "unmanaged",
    "released",
    "transferred",
]

ACTIONS: tuple[Action, ...] = ("create", "update", "adopt", "retire", "delete", "release")
"""Every action in the order in which changes are shown: what is taken away comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs.

    Attributes:
        path: Where it is, for instance `entry.schedule` or `spec.on_failure.retries`.
        before: Its value now; None when it is not there.
        after: Its declared value; None when it is to go.
    """

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A resource on one side of a change.

    Attributes:
        document: Canonical JSON of the spec; "" where there is none.
        entry: Its row of cron.job; None where there is none.
    """

    document: str
    entry: Entry | None

    def to_json(self) -> dict[str, Any]:
        """Return the two sides as one JSON value; the jobid is left out, it is no part of the declaration."""
        return {
            "spec": json.loads(self.document) if self.document else None,
            "entry": None if self.entry is None else self.entry.fields(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What hinders a change.

    Attributes:
        kind: refused, by a protection, a limit or another owner: nothing of the plan is applied. rights: the
            connected role cannot do it: the rest of the plan is.
        why: What is in the way.
        remedy: What to do.
    """

    kind: Literal["refused", "rights"]
    why: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between what is declared and what the target holds.

    Attributes:
        action: create, update, delete; adopt: mark as ours what is already as declared; retire: let it stand
            still until its grace is over; release: mark it as ours no more.
        kind: Of the resource.
        name: Of the resource.
        reason: declared, edited (the files changed it), drifted (the database changed it), both, removed,
            renamed, adopted, restored (declared again, or brought back, in its grace), unmanaged (nobody
            declared it), released, transferred (to another owner, or by one).
        before: What the target holds; None for create.
        after: What is declared; None for delete.
        fields: What differs, sorted by path; only for update, retire and release.
        source: Where it is declared, or was, as `path:line`.
        once: Whether it is a one-time job, a row of the jobs table.
        renamed_from: The name it had; "" if none.
        protect: Whether it is to be safe from pruning.
        obstacle: What hinders it; None if nothing does.
        retired_until: When its grace ends, or ended, by what the target holds; None where it is not retired.
    """

    action: Action
    kind: Kind
    name: str
    reason: Reason
    before: Snapshot | None
    after: Snapshot | None
    fields: tuple[FieldChange, ...] = ()
    source: str = ""
    once: bool = False
    renamed_from: str = ""
    protect: bool = False
    obstacle: Obstacle | None = None
    retired_until: datetime | None = None

    @property
    def needs_consent(self) -> bool:
        """Whether it takes something away to which nobody consented: a grace was consented to as it began."""
        return self.action in {"retire", "delete"} and self.retired_until is None
