"""Desired and observed state: what the specs ask for, and what a target holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from reconciler.core.facts import Facts
    from reconciler.core.specs import Kind, Place

ENTRY_FIELDS = ("name", "schedule", "command", "database", "username", "active")
"""The fields of an entry that are declared; a node's name and port are pg_cron's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of `cron.job`.

    Attributes:
        name: Its jobname.
        schedule: In pg_cron's grammar.
        command: The SQL that pg_cron sends.
        database: Where it is sent.
        username: As whom; "" in a desired entry leaves it to the role that applies.
        active: Whether it fires.
        jobid: pg_cron's number for it; None in a desired entry.
    """

    name: str
    schedule: str
    command: str
    database: str
    username: str
    active: bool
    jobid: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return the declared fields by name, ready for JSON."""
        return {
            "name": self.name,
            "schedule": self.schedule,
            "command": self.command,
            "database": self.database,
            "username": self.username,
            "active": self.active,
        }

    def same(self, other: Entry) -> bool:
        """Tell whether two entries are declared alike, whatever their jobids."""
        return (
            self.schedule == other.schedule
            and self.active == other.active
            and self.command == other.command
            and self.name == other.name
            and self.database == other.database
            and self.username == other.username
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredResource:
    """A resource as the specs ask for it on one target.

    Attributes:
        kind: What it is.
        name: Its name.
        document: Canonical JSON of the spec.
        place: Where it was declared.
        entry: Its row of cron.job; None when it has none.
        once: Whether it is a one-time job: a row of the jobs table.
        protect: Whether it is safe from pruning.
        renamed_from: The name it had; "" if none.
    """

    kind: Kind
    name: str
    document: str
    place: Place
    entry: Entry | None = None
    once: bool = False
    protect: bool = False
    renamed_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that a reviewer has to know though nothing is wrong.

    Attributes:
        code: A stable name.
        message: What is so, and what to do about it.
        names: The resources it is about, sorted.
    """

    code: str
    message: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """All resources of one owner for one target.

    Attributes:
        owner: Whose they are.
        resources: By name, in the order of output.
        notices: What is declared but not executed by this release or on this target.
        unselected: What is declared too and was not selected, by name; None where everything is planned.
    """

    owner: str
    resources: Mapping[str, DesiredResource]
    notices: tuple[Notice, ...] = ()
    unselected: Mapping[str, DesiredResource] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A row of `reconciler.definitions`: the marker of ownership and what was last applied.

    Attributes:
        name: Of the resource.
        kind: Of the resource.
        owner: Whose it is.
        document: The canonical JSON as it stands in the row now.
        intact: Whether the row's document is still the one that was applied.
        entry: The entry as last applied, with its jobid; None when it had none.
        protect: Whether it is safe from pruning.
        source: Where it was declared, as `path:line`.
        retired_until: When it may be deleted, aware; None for what is not retired.
    """

    name: str
    kind: Kind
    owner: str
    document: str
    intact: bool
    entry: Entry | None
    protect: bool
    source: str
    retired_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDrift:
    """A row of queues, workers or jobs that differs from what its definition says.

    Attributes:
        name: Of the resource.
        observed: The row's declared columns; None when the row is missing.
        applied: What they were last set to.
    """

    name: str
    observed: Mapping[str, Any] | None
    applied: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A managed job that skips its runs for a while; no part of what is declared, and no drift.

    Attributes:
        until: When it ends by itself, aware; None when somebody has to resume it.
        reason: Why, as the person said; "" if nothing.
        paused_by: The role that paused it.
    """

    until: datetime | None
    reason: str
    paused_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A run that goes on.

    Attributes:
        run_id: Of the log.
        run_at: When it began, aware.
    """

    run_id: int
    run_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLoad:
    """The jobs of a queue.

    Attributes:
        waiting: That wait, for their time too; counting ends at a thousand.
        running: That are being done; likewise.
        failed: That were given up and can be tried again; likewise.
    """

    waiting: int = 0
    running: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """What a target holds, read in one snapshot.

    Attributes:
        facts: What the server is, has and allows.
        definitions: Every owner's, by name.
        entries: Every visible row of cron.job, by jobid.
        drifted_rows: Rows that were edited behind our back, by name.
        settled: Names of one-time jobs that run or have run: nothing touches them any more.
        pauses: Of managed jobs, by name.
        secrets: Names of those that requests from the database can use; None where the role cannot see them.
        running: Runs that go on, by job; the oldest of very many, and none where the role cannot see the log.
        now: By the database's clock, aware; None where it was not asked.
        clocks: Zones by name, with the instants from which on their clocks are so many seconds ahead of
            UTC; the first is where that begins. Without the zones that the server does not know.
        queues: What each declared queue has to do, by name; those that have nothing may be left out.
    """

    facts: Facts
    definitions: Mapping[str, Definition] = field(default_factory=dict)
    entries: Mapping[int, Entry] = field(default_factory=dict)
    drifted_rows: Mapping[str, RowDrift] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    secrets: frozenset[str] | None = None
    running: Mapping[str, tuple[Running, ...]] = field(default_factory=dict)
    now: datetime | None = None
    clocks: Mapping[str, tuple[tuple[datetime, int], ...]] = field(default_factory=dict)
    queues: Mapping[str, QueueLoad] = field(default_factory=dict)
