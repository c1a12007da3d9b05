"""A small model of a target: cron.job as pg_cron 1.6 treats it, and the definitions, all in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.state import Definition, Entry, ObservedState, RowDrift
from tests.core_builders import OWNER, make_definition

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.core.changes import Change
    from reconciler.core.facts import Facts
    from reconciler.core.steps import AlterEntry, ScheduleEntry, Steps


@dataclass(slots=True, kw_only=True)
class Model:
    """A target: cron.job as pg_cron 1.6 treats it, and the rows of the schema reconciler.

    Attributes:
        facts: With the rights, each of which is enforced.
        definitions: By name.
        entries: By jobid.
        rows: Drifted rows by name.
        settled: One-time jobs that ran.
        free: Jobids of the entries that are nobody's.
        last: The last jobid that was given.
        now: By its clock; None where nothing has a grace.
        grace: Of what is retired.
    """

    facts: Facts
    definitions: dict[str, Definition] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    rows: dict[str, RowDrift] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    free: set[int] = field(default_factory=set)
    last: int = 0
    now: datetime | None = None
    grace: timedelta = timedelta()

    def copy(self) -> Model:
        """Return one like it, which goes its own way."""
        return replace(
            self,
            definitions=dict(self.definitions),
            entries=dict(self.entries),
            rows=dict(self.rows),
            free=set(self.free),
        )

    def holds(self, name: str, username: str) -> bool:
        """Tell whether pg_cron's key is taken."""
        return self.find(name, username) is not None

    def find(self, name: str, username: str) -> Entry | None:
        """Find an entry by pg_cron's key."""
        found = [entry for entry in self.entries.values() if (entry.name, entry.username) == (name, username)]
        assert len(found) < 2
        return found[0] if found else None

    def add(self, entry: Entry) -> int:
        """Insert a row, whoever does it."""
        assert not self.holds(entry.name, entry.username)
        self.last += 1
        self.entries[self.last] = replace(entry, jobid=self.last)
        return self.last

    def observe(self) -> ObservedState:
        """Read what the connected role may see."""
        rights, role = self.facts.rights, self.facts.role
        visible = {
            jobid: entry
            for jobid, entry in self.entries.items()
            if rights.use_cron and (rights.sees_all or entry.username == role)
        }
        return ObservedState(
            facts=self.facts,
            definitions=dict(self.definitions),
            entries=visible,
            drifted_rows=dict(self.rows),
            settled=self.settled,
            now=self.now,
        )

    def execute(self, steps: Steps, *, owner: str = OWNER) -> None:
        """Execute the steps of an owner in their order, and fail wherever PostgreSQL would."""
        rights = self.facts.rights
        assert rights.use_cron or not (steps.unschedule or steps.rename or steps.alter or steps.schedule)
        for jobid in steps.unschedule:
            self._check_owner(jobid)
            del self.entries[jobid]
        for rename in steps.rename:
            assert rights.update_entries
            self._check_owner(rename.jobid)
            self._put(replace(self.entries[rename.jobid], name=rename.name))
        for alter in steps.alter:
            self._alter(alter)
        for schedule in steps.schedule:
            self._schedule(schedule)
        for change in steps.changes:
            self._forget(change)
        for change in steps.changes:
            self._define(change, steps.unschedule, owner)

    def _check_owner(self, jobid: int) -> None:
        assert self.facts.rights.superuser or self.entries[jobid].username == self.facts.role

    def _put(self, entry: Entry) -> None:
        found = self.find(entry.name, entry.username)
        assert found is None or found.jobid == entry.jobid, "duplicate key"
        assert entry.jobid is not None
        self.entries[entry.jobid] = entry

    def _alter(self, step: AlterEntry) -> None:
        assert self.facts.rights.alter_job
        assert step.username is None or self.facts.rights.superuser
        self._check_owner(step.jobid)
        columns = {
            name: getattr(step, name)
            for name in ("schedule", "command", "database", "username", "active")
            if getattr(step, name) is not None
        }
        assert columns, "no updates specified"
        self._put(replace(self.entries[step.jobid], **columns))

    def _schedule(self, step: ScheduleEntry) -> None:
        rights = self.facts.rights
        assert rights.schedule if step.plain else rights.schedule_in_database
        assert step.username is None or (rights.superuser and not step.plain)
        entry = replace(step.entry, username=step.username or self.facts.role)
        if step.plain:
            entry = replace(entry, database=self.facts.database, active=True)
        found = self.find(entry.name, entry.username)
        if found is None:
            self.add(entry)
        else:
            self._put(replace(entry, jobid=found.jobid, active=found.active))

    def _forget(self, change: Change) -> None:
        for name in {change.name, change.renamed_from} - {""}:
            self.rows.pop(name, None)
        if change.action == "delete":
            del self.definitions[change.name]
        elif change.renamed_from:
            del self.definitions[change.renamed_from]
            if change.renamed_from in self.settled:
                self.settled = self.settled - {change.renamed_from} | {change.name}

    def _define(self, change: Change, replaced: tuple[int, ...], owner: str) -> None:
        if change.after is None:
            return
        entry = change.after.entry
        if entry is not None:
            before = None if change.before is None else change.before.entry
            kept = before is not None and before.jobid not in replaced
            source = before if kept else self.find(entry.name, entry.username)
            assert source is not None
            entry = replace(entry, jobid=source.jobid)
        until, is_intact = None, True
        if change.action == "retire":
            # The document is not written, and stays as it was edited by hand.
            assert self.now is not None
            until = change.retired_until or self.now + self.grace
            is_intact = self.definitions[change.name].intact
        self.definitions[change.name] = make_definition(
            change.name,
            kind=change.kind,
            owner=owner,
            intact=is_intact,
            retired_until=until,
            document=change.after.document,
            entry=entry,
            protect=change.protect,
            source=change.source,
        )
