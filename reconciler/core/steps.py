"""Decide how each change reaches cron.job, given what the connected role may do there.

pg_cron's functions differ in what they touch: `schedule` on a name that exists keeps `active` and, before
1.6.3, the database; `alter_job` keeps the jobid and changes what it is given; nothing renames. So an entry is
created with `schedule_in_database` and changed with `alter_job`; the other ways are for roles that may call
neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler.core.changes import Change, Obstacle
from reconciler.core.matching import entry_key, wanted_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.facts import Facts
    from reconciler.core.matching import Key
    from reconciler.core.state import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntry:
    """Create an entry, or with `plain` also update one that exists.

    Attributes:
        entry: What to create.
        username: As whom; None for the connected role: any other value needs a superuser, even one's own
            name.
        plain: Use `cron.schedule`, which every role may call.
    """

    entry: Entry
    username: str | None
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterEntry:
    """Change an entry and keep its jobid; what is None stays."""

    jobid: int
    schedule: str | None
    command: str | None
    database: str | None
    username: str | None
    active: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameEntry:
    """Rename an entry by UPDATE: no function of pg_cron can."""

    jobid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Everything that an apply does, in the order in which it does it.

    Attributes:
        unschedule: Jobids that go.
        rename: Entries that get another name, one after the other: where entries swap their names, one of
            them is first renamed to something else and so stands here twice.
        alter: Entries that change in place.
        schedule: Entries that are made.
        changes: The changes whose definitions are written or deleted.
    """

    unschedule: tuple[int, ...]
    rename: tuple[RenameEntry, ...]
    alter: tuple[AlterEntry, ...]
    schedule: tuple[ScheduleEntry, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How one change reaches cron.job."""

    unschedule: int | None = None
    rename: RenameEntry | None = None
    alter: AlterEntry | None = None
    schedule: ScheduleEntry | None = None
    obstacle: Obstacle | None = None


def find_obstacles(changes: Iterable[Change], facts: Facts) -> tuple[Change, ...]:
    """Mark the changes that the connected role cannot make.

    Args:
        changes: From `diff`.
        facts: With the role's rights.

    Returns:
        The same changes in the same order; those beyond the role's rights carry an obstacle.
    """
    marked = []
    unhindered = facts.rights.has_all
    for change in changes:
        obstacle = change.obstacle
        if obstacle is None and not unhindered:
            obstacle = _find_way(change, facts).obstacle
        marked.append(change if obstacle is change.obstacle else replace(change, obstacle=obstacle))
    while stuck := _find_stuck(marked):
        marked = [replace(change, obstacle=stuck.get(change.name, change.obstacle)) for change in marked]
    return tuple(marked)


def _find_stuck(changes: Iterable[Change]) -> dict[str, Obstacle]:
    """Find the changes to a name and role that an entry holds whose own change cannot be made."""
    changes = tuple(changes)
    holders = {
        entry_key(change.before.entry): change
        for change in changes
        if change.obstacle and change.before is not None and change.before.entry is not None
    }
    stuck: dict[str, Obstacle] = {}
    if not holders:
        return stuck
    for change in changes:
        in_the_way = [holders[key] for key in sorted(wanted_keys(change)) if key in holders]
        if in_the_way and change.obstacle is None:
            stuck[change.name] = Obstacle(
                kind="rights",
                why=f"the entry that {in_the_way[0].name} has now is in the way of {change.name}, and cannot "
                "be changed",
                remedy=f"see {in_the_way[0].name}",
            )
    return stuck


def make_steps(changes: Iterable[Change], facts: Facts) -> Steps:
    """Make the steps of an apply.

    Args:
        changes: From a plan; those with an obstacle are left out.
        facts: With the role's rights.

    Returns:
        The steps.
    """
    possible = tuple(change for change in find_obstacles(changes, facts) if change.obstacle is None)
    ways = [_find_way(change, facts) for change in possible]
    names = {
        change.before.entry.jobid: entry_key(change.before.entry)
        for change in possible
        if change.before is not None and change.before.entry is not None
    }
    renames = [way.rename for way in ways if way.rename is not None]
    return Steps(
        unschedule=tuple(way.unschedule for way in ways if way.unschedule is not None),
        rename=_order_renames({rename: names[rename.jobid] for rename in renames}),
        alter=tuple(way.alter for way in ways if way.alter is not None),
        schedule=tuple(way.schedule for way in ways if way.schedule is not None),
        changes=possible,
    )


def _find_way(change: Change, facts: Facts) -> _Way:
    before = None if change.before is None else change.before.entry
    after = None if change.after is None else change.after.entry
    if before is None and after is None:
        return _Way()
    if before is not None and after is not None and after.same(before):
        return _Way()
    obstacle = _find_rights_obstacle(change.name, before, after, facts)
    if obstacle is not None:
        return _Way(obstacle=obstacle)
    if before is None:
        assert after is not None  # noqa: S101 - decided above
        return _create(after, facts)
    if after is None:
        return _Way(unschedule=before.jobid)
    return _update(before, after, facts)


def _order_renames(renames: Mapping[RenameEntry, Key]) -> tuple[RenameEntry, ...]:
    """Put first what makes room for another; the key of cron.job is checked at each single rename.

    Args:
        renames: With the key that each entry holds now.

    Returns:
        In an order that works; a circle is opened by a name that no resource can have.
    """
    ordered = []
    waiting = dict(renames)
    while waiting:
        held = set(waiting.values())
        ready = [rename for rename, (_, role) in waiting.items() if (rename.name, role) not in held]
        ordered.extend(ready)
        for rename in ready:
            del waiting[rename]
        if not ready:
            rename, (_, role) = next(iter(waiting.items()))
            aside = RenameEntry(jobid=rename.jobid, name=f"~{rename.jobid}")
            ordered.append(aside)
            waiting[rename] = (aside.name, role)
    return tuple(ordered)


def _find_rights_obstacle(
    name: str, before: Entry | None, after: Entry | None, facts: Facts
) -> Obstacle | None:
    rights = facts.rights
    if not (rights.use_cron and rights.schedule):
        grant = (
            "EXECUTE ON FUNCTION cron.schedule(text, text, text)"
            if rights.use_cron
            else "USAGE ON SCHEMA cron"
        )
        return Obstacle(
            kind="rights",
            why=f"the role {facts.role} may not use pg_cron",
            remedy=f'as an administrator: GRANT {grant} TO "{facts.role}"',
        )
    if rights.superuser:
        return None
    roles = sorted({entry.username for entry in (before, after) if entry is not None})
    if roles == [facts.role]:
        return None
    if len(roles) > 1:
        why = (
            f"the entry {name} goes from one role to another ({', '.join(roles)}): only a superuser may do so"
        )
        return Obstacle(kind="rights", why=why, remedy="connect as a superuser")
    return Obstacle(
        kind="rights",
        why=f"the entry {name} runs as {roles[0]}, and only a superuser may schedule for another role",
        remedy=f"connect as {roles[0]}, or as a superuser",
    )


def _create(after: Entry, facts: Facts) -> _Way:
    username = None if after.username == facts.role else after.username
    if facts.rights.schedule_in_database:
        return _Way(schedule=ScheduleEntry(entry=after, username=username, plain=False))
    grant = f'as an administrator: GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO "{facts.role}"'
    if not after.active:
        why = f"the role {facts.role} may only call cron.schedule, which makes active entries alone"
        return _Way(obstacle=Obstacle(kind="rights", why=why, remedy=grant))
    if username is not None:
        why = f"cron.schedule, all that the role {facts.role} may call, makes entries of its own alone"
        return _Way(obstacle=Obstacle(kind="rights", why=why, remedy=grant))
    if after.database != facts.database:
        why = f"the role {facts.role} may only call cron.schedule, which schedules for {facts.database} alone"
        return _Way(obstacle=Obstacle(kind="rights", why=why, remedy=grant))
    return _Way(schedule=ScheduleEntry(entry=after, username=None, plain=True))


def _update(before: Entry, after: Entry, facts: Facts) -> _Way:
    assert before.jobid is not None  # noqa: S101 - an observed entry has one
    rename = None
    if after.name != before.name:
        if not facts.rights.update_entries:
            return _replace(before, after, facts)
        rename = RenameEntry(jobid=before.jobid, name=after.name)
    if replace(before, name=after.name).same(after):
        return _Way(rename=rename)
    if facts.rights.alter_job:
        alter = AlterEntry(
            jobid=before.jobid,
            schedule=None if after.schedule == before.schedule else after.schedule,
            command=None if after.command == before.command else after.command,
            database=None if after.database == before.database else after.database,
            username=None if after.username == before.username else after.username,
            active=None if after.active == before.active else after.active,
        )
        return _Way(rename=rename, alter=alter)
    kept = replace(before, name=after.name, schedule=after.schedule, command=after.command)
    if kept.same(after) and (after.database, after.username) == (facts.database, facts.role):
        return _Way(rename=rename, schedule=ScheduleEntry(entry=after, username=None, plain=True))
    return _replace(before, after, facts)


def _replace(before: Entry, after: Entry, facts: Facts) -> _Way:
    """Unschedule and schedule anew: pg_cron's own history of the entry is cut, ours is not."""
    way = _create(after, facts)
    return way if way.obstacle else replace(way, unschedule=before.jobid)
