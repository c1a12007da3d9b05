"""Resources as declared: jobs, queues, workers and channels, typed and immutable.

A spec keeps as fields what decisions are made of; `document` is the canonical JSON of everything declared,
with defaults, variables and overrides already resolved. Documents are what is stored, compared and executed.
They leave out what was not declared, so that a new release with a new default changes no definition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

Kind = Literal["job", "queue", "worker", "channel"]
Mode = Literal["managed", "direct"]
Ambiguous = Literal["", "first", "last", "both"]
Nonexistent = Literal["", "next", "skip"]

KINDS: tuple[Kind, ...] = ("channel", "queue", "job", "worker")
"""Every kind, in the order in which changes are shown and made: what is referred to comes first."""

SECTIONS: dict[str, Kind] = {"jobs": "job", "queues": "queue", "workers": "worker", "channels": "channel"}
"""The sections of a spec file and the kind of what they hold."""

BLOCKING_QUEUE = "blocking"
"""The queue that is blocking by its name."""

BUILT_IN_QUEUES = frozenset({"default", BLOCKING_QUEUE})
"""Queues that exist without being declared."""

WORKER_PATIENCE = timedelta(seconds=30)
"""How long a worker waits for the answer where its declaration does not say."""

_RUNTIME_KEYS = frozenset({"alert", "after"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something was written.

    Attributes:
        path: The file, as the person named it.
        line: From 1.
        column: From 1.
    """

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`schedule:` in pg_cron's own grammar."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """`every:` an interval."""

    interval: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """`daily:` at one local time."""

    hour: int
    minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """`weekly:` on some days at one local time.

    Attributes:
        days: Days of the week, 0 is Sunday, sorted.
        hour: 0 to 23.
        minute: 0 to 59.
    """

    days: tuple[int, ...]
    hour: int
    minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NthWeekday:
    """One weekday of a month, such as its second Tuesday.

    Attributes:
        weekday: 0 is Sunday.
        nth: 1 to 5, or -1 for the last one.
    """

    weekday: int
    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """`monthly:` on one day at one local time.

    Attributes:
        day: 1 to 31, "last", or a weekday; a month without that day is left out.
        hour: 0 to 23.
        minute: 0 to 59.
    """

    day: int | Literal["last"] | NthWeekday
    hour: int
    minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """`once:` at one instant, aware."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """`after:` alone: whenever all of those jobs have succeeded anew."""


Trigger: TypeAlias = Schedule | Every | Daily | Weekly | Monthly | Once | Succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackout:
    """A window in which no run starts, on the clocks of the job's zone.

    Attributes:
        first: The first date on which it begins; None for no limit.
        last: The last date on which it begins; None for no limit.
        days: The days of the week on which it begins, 0 is Sunday; () for each.
        start: When it begins, in minutes of the day.
        end: When it is over, 0 to 1440; not after `start` means on the next day. 0 and 1440 are a whole day.
    """

    first: date | None = None
    last: date | None = None
    days: tuple[int, ...] = ()
    start: int = 0
    end: int = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlBody:
    """`sql:`, executed in the database."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpBody:
    """`http:`, a request sent from the database.

    Attributes:
        url: Where it is sent.
        secret: The name of the secret that is its token; "" for none.
    """

    url: str
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerBody:
    """`handler:`, a named function done by a worker, through a queue."""

    handler: str
    queue: str


Body: TypeAlias = SqlBody | HttpBody | HandlerBody


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job.

    Attributes:
        name: Unique among all resources of a target.
        place: Where its name was written.
        document: Canonical JSON of all that was declared.
        trigger: When it runs.
        body: What it does.
        timezone: The zone of its local times; "" is the zone of pg_cron.
        start_at: No run starts before, aware; None for no limit.
        end_at: No run starts then or later, aware; None for no limit.
        blackout: Windows in which no run starts.
        spread: Its runs are put off by a part of this that only its name decides.
        ambiguous: Which run of a local time that comes twice is wanted: first, last or both; "" as usual.
        nonexistent: What becomes of a local time that the clocks skip: next, which is the first moment after
            it, or skip; "" as usual.
        mode: managed runs under our lock and log, direct is handed to pg_cron as it is.
        role: The role that runs it; "" is the target's.
        database: The database in which it runs; "" is the target's.
        active: Whether it fires.
        protect: Whether it is safe from pruning, also after it vanished from the files.
        after: Names of jobs that must have succeeded first.
        needs_runtime: Whether it asks for more than its entry alone can do, see `needs_runtime`.
        renamed_from: The name it had; "" if none.
    """

    name: str
    place: Place
    document: str
    trigger: Trigger
    body: Body
    timezone: str = ""
    start_at: datetime | None = None
    end_at: datetime | None = None
    blackout: tuple[Blackout, ...] = ()
    spread: timedelta = timedelta(0)
    ambiguous: Ambiguous = ""
    nonexistent: Nonexistent = ""
    mode: Mode = "managed"
    role: str = ""
    database: str = ""
    active: bool = True
    protect: bool = False
    after: tuple[str, ...] = ()
    needs_runtime: bool = False
    renamed_from: str = ""
    kind: Literal["job"] = field(default="job", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue; its limits are in the document."""

    name: str
    place: Place
    document: str
    protect: bool = False
    renamed_from: str = ""
    kind: Literal["queue"] = field(default="queue", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A push worker: a cron entry that calls a run endpoint.

    Attributes:
        name: Unique among all resources of a target.
        place: Where its name was written.
        document: Canonical JSON of all that was declared.
        schedule: When it calls, in pg_cron's grammar.
        queue: Whose jobs it asks for.
        timeout: How long it waits for the answer.
        secret: The name of the secret that is its token; "" for none.
        role: The role that runs it; "" is the target's.
        active: Whether it fires.
        protect: Whether it is safe from pruning.
        renamed_from: The name it had; "" if none.
    """

    name: str
    place: Place
    document: str
    schedule: str
    queue: str
    timeout: timedelta = WORKER_PATIENCE
    secret: str = ""
    role: str = ""
    active: bool = True
    protect: bool = False
    renamed_from: str = ""
    kind: Literal["worker"] = field(default="worker", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A channel for alerts.

    Attributes:
        name: Unique among all resources of a target.
        place: Where its name was written.
        document: Canonical JSON of all that was declared.
        secret: The name of the secret that is its address.
        deliver: Who sends: a process of ours, or the database itself.
        protect: Whether it is safe from pruning.
        renamed_from: The name it had; "" if none.
    """

    name: str
    place: Place
    document: str
    secret: str = ""
    deliver: Literal["process", "database"] = "process"
    protect: bool = False
    renamed_from: str = ""
    kind: Literal["channel"] = field(default="channel", init=False)


Spec: TypeAlias = JobSpec | QueueSpec | WorkerSpec | ChannelSpec


def needs_runtime(declared: Mapping[str, Any]) -> bool:
    """Tell whether a job asks for more than its entry alone can do.

    Args:
        declared: The job's declaration.

    Returns:
        True for a timeout, retries, an alert, missed starts to make up for, jobs to wait for, and SQL or a
        request at one time only: the tool's own entries carry them out. What a handler does its worker limits
        and tries again, but a start that waits for it is put off.
    """
    if not _RUNTIME_KEYS.isdisjoint(declared) or declared.get("catch_up", "none") != "none":
        return True
    if "handler" in declared:
        return declared.get("concurrency") == "wait"
    return "timeout" in declared or "once" in declared or declared.get("on_failure", {}).get("retries", 0) > 0


def order_specs(specs: Sequence[Spec]) -> tuple[Spec, ...]:
    """Sort specs by kind, what is referred to first, then by name.

    Args:
        specs: In any order.

    Returns:
        In the one order that output uses.
    """
    return tuple(sorted(specs, key=lambda spec: (KINDS.index(spec.kind), spec.name)))
