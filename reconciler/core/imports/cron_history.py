"""What cron.job holds after a history of calls, and what of it cannot be known; pure.

It behaves as pg_cron from 1.6.3 on: scheduling a name again changes schedule, command and database, and never
`active`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = tuple[str, str]
"""Name and role of an entry; one without a name has a number that begins with `#` for its name."""

CURRENT = ""
"""The role or the database of whoever ran the statements."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where something was said.

    Attributes:
        path: The file, as the person named it; "" for none.
        line: From 1.
        text: What was said, in one short line.
    """

    path: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An entry that calls have made.

    Attributes:
        kind: A job, or a worker of create_queue_worker.
        name: None for an entry without a name.
        role: Who runs it; `CURRENT` for whoever ran the calls.
        schedule: In pg_cron's grammar.
        source: The call that made it or changed it last.
        command: What it executes; of a worker "".
        database: Where; `CURRENT` for the database of pg_cron.
        active: Whether it fires; None where that cannot be known.
        url: What a worker calls.
        has_token: Whether a worker has a token.
        perhaps: The conditions that decide whether there is such an entry at all; () for sure.
        doubt: Why it cannot be known what it is like; "" where it can.
    """

    kind: Literal["job", "worker"] = "job"
    name: str | None
    role: str
    schedule: str
    source: Source
    command: str = ""
    database: str = CURRENT
    active: bool | None = True
    url: str = ""
    has_token: bool = False
    perhaps: tuple[Source, ...] = ()
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """The entries after some calls; each call gives another one.

    Attributes:
        entries: By name and role.
        counter: How many entries without a name there were.
    """

    entries: Mapping[Key, Made] = field(default_factory=dict)
    counter: int = 0

    def put(self, made: Made) -> tuple[History, Key]:
        """Schedule an entry, or schedule it again.

        Args:
            made: As the call says; `active` holds for a new entry only.

        Returns:
            The history, and the entry's key.
        """
        if made.name is None:
            key = (f"#{self.counter}", made.role)
            return History({**self.entries, key: made}, self.counter + 1), key
        key = (made.name, made.role)
        before = self.entries.get(key)
        if before is not None:
            made = _reschedule(before, made)
        return History({**self.entries, key: made}, self.counter), key

    def change(self, key: Key, made: Made) -> History:
        """Put another entry in the place of one, under its new role."""
        entries = {
            (made.name or key[0], made.role) if one == key else one: each
            for one, each in self.entries.items()
        }
        entries[made.name or key[0], made.role] = made
        return History(entries, self.counter)

    def remove(self, key: Key) -> History:
        """Unschedule an entry, if there is one."""
        return History({one: made for one, made in self.entries.items() if one != key}, self.counter)

    def doubt(self, key: Key, reason: str, *, active: bool | None) -> History:
        """Note that nobody knows any more what an entry is like, until it is scheduled again.

        Args:
            key: Its name and role.
            reason: One clause.
            active: Whether it would fire when it is scheduled again; None for unknown.

        Returns:
            The history.
        """
        made = replace(self.entries[key], doubt=reason, active=active)
        return History({**self.entries, key: made}, self.counter)


def _reschedule(before: Made, made: Made) -> Made:
    """Schedule a name again: `active` stays, and what was in doubt is so no more but for that."""
    if before.kind != made.kind:
        reason = "it is made both with cron.schedule and with create_queue_worker"
        return replace(made, doubt=reason)
    if made.kind == "worker":
        return made  # create_queue_worker activates
    active = before.active
    if before.perhaps and active is not made.active:
        active = None
    reason = "whether it is active depends on what cannot be read" if active is None else ""
    return replace(made, active=active, doubt=reason)


def merge_histories(first: History, second: History, source: Source) -> History:
    """Put two ways together that things may have gone.

    Args:
        first: One.
        second: The other.
        source: Where the ways part, and the text of what decides.

    Returns:
        A history in which entries that both ways have are as they are, those that one way has are perhaps
        there, and those that differ are in doubt.
    """
    entries: dict[Key, Made] = {}
    for key in [*first.entries, *(key for key in second.entries if key not in first.entries)]:
        one, other = first.entries.get(key), second.entries.get(key)
        if one == other and one is not None:
            entries[key] = one
        elif one is None or other is None:
            made = one or other
            assert made is not None  # noqa: S101 - the key is of one of them
            entries[key] = replace(made, perhaps=(*made.perhaps, source))
        else:
            entries[key] = _merge(one, other, source)
    return History(entries, max(first.counter, second.counter))


def _merge(one: Made, other: Made, source: Source) -> Made:
    perhaps = tuple(dict.fromkeys((*one.perhaps, *other.perhaps)))
    plain = replace(one, perhaps=(), source=source), replace(other, perhaps=(), source=source)
    if plain[0] == plain[1]:
        return replace(other, perhaps=perhaps)
    doubt = (
        one.doubt or other.doubt or f"{source}: it depends on a condition that cannot be read ({source.text})"
    )
    return replace(
        other, perhaps=perhaps, doubt=doubt, active=one.active if one.active is other.active else None
    )
