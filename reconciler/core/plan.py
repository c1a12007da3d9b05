"""A plan: ordered changes with their reasons, what hinders them, and the fingerprints they hold for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.change_times import Timeline
from reconciler.core.changes import ACTIONS, Action, Change, Obstacle
from reconciler.core.diff import diff
from reconciler.core.herd_notices import find_herd_notices
from reconciler.core.retirement import find_retirement_notices, find_undeclared, render_instant
from reconciler.core.selection import make_selection_notice, refuse_loose, widen
from reconciler.core.service_jobs import find_service_notices
from reconciler.core.stages import find_unmanaged, is_held, make_held_notice
from reconciler.core.state import Notice
from reconciler.core.steps import find_obstacles
from reconciler.core.time_notices import find_time_notices, refuse_past

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.change_times import ChangeTimes
    from reconciler.core.config import Policy, Prune
    from reconciler.core.preflight import Finding
    from reconciler.core.state import DesiredState, Entry, ObservedState


_CODE_LENGTH = 6
"""Hexadecimal digits: enough that another list is not taken for the one that was seen, and few to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """What a plan holds for.

    Attributes:
        desired: Of everything declared.
        observed: Of everything on the target that the plan looked at.
    """

    desired: str
    observed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an apply would do.

    Attributes:
        target: The target's name.
        owner: Whose resources these are.
        changes: In the order of output.
        kept: Names that are no longer declared and stay, because the target's policy is prune: never.
        notices: What a reviewer has to know.
        findings: Dangers that the target is in.
        migrations: Names of the migrations that an apply would run first.
        resources: How many resources are declared.
        owned: How many resources of this owner the target holds.
        times: What the changes do in time, by the resource's name; none for a change that does nothing there.
        closed: Why nothing may be applied at the moment; None where it may.
        is_elsewhere: Whether that is because the database is not the target, so that not even nothing is
            applied.
        held: Changes that the target's stage leaves out.
    """

    target: str
    owner: str
    changes: tuple[Change, ...]
    kept: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    findings: tuple[Finding, ...] = ()
    migrations: tuple[str, ...] = ()
    resources: int = 0
    owned: int = 0
    times: Mapping[str, ChangeTimes] = field(default_factory=dict)
    closed: Obstacle | None = None
    is_elsewhere: bool = False
    held: tuple[Change, ...] = ()

    @property
    def pending(self) -> tuple[Change, ...]:
        """The changes that alter what runs or what is stored; an adoption only marks it as ours."""
        return tuple(change for change in self.changes if change.action != "adopt")

    @property
    def is_empty(self) -> bool:
        """Whether the target is as declared; adoptions and migrations of our own schema do not count."""
        return not self.pending

    @property
    def deletions(self) -> tuple[Change, ...]:
        """The changes that take something away and need consent."""
        return tuple(change for change in self.changes if change.needs_consent)

    @property
    def consent(self) -> str:
        """The code by which a person consents to exactly these deletions: `3-9f2c1a`; "" without any."""
        names = sorted([change.kind, change.name] for change in self.deletions)
        code = digest(render_canonical([self.target, self.owner, names]))
        return f"{len(names)}-{code[:_CODE_LENGTH]}" if names else ""

    @property
    def unmanaged(self) -> tuple[Change, ...]:
        """The deletions of entries that nobody declared."""
        return tuple(change for change in self.changes if change.reason == "unmanaged")

    @property
    def refused(self) -> tuple[Change, ...]:
        """The changes because of which nothing is applied."""
        return tuple(
            change for change in self.changes if change.obstacle and change.obstacle.kind == "refused"
        )

    @property
    def beyond_rights(self) -> tuple[Change, ...]:
        """The changes that the connected role cannot make; the others are applied without them."""
        return tuple(
            change for change in self.changes if change.obstacle and change.obstacle.kind == "rights"
        )

    def count(self) -> dict[Action, int]:
        """Count the changes by action, every action included."""
        counts = dict.fromkeys(ACTIONS, 0)
        for change in self.changes:
            counts[change.action] += 1
        return counts


def make_plan(
    desired: DesiredState,
    observed: ObservedState,
    *,
    target: str,
    policy: Policy,
    findings: Sequence[Finding] = (),
    migrations: Sequence[str] = (),
    adopt: Collection[str] = (),
) -> Plan:
    """Make the plan of one target.

    Args:
        desired: What is declared.
        observed: What the target holds.
        target: The target's name.
        policy: What may be taken away.
        findings: Dangers that were found.
        migrations: Names of the migrations to run first.
        adopt: Names of entries that nobody owns and that may be taken over.

    Returns:
        The plan, with an obstacle on every change that cannot or must not be made.
    """
    prune: Prune = "never" if desired.unselected is not None else policy.prune
    changes = diff(desired, observed, prune=prune, grace=policy.grace, adopt=adopt)
    held = tuple(change for change in changes if is_held(change, policy.stage))
    scope: list[Notice] = []
    if held:
        # Anew, since what is left out makes no room for others.
        changes = diff(desired, observed, prune=prune, grace=policy.grace, adopt=adopt, stage=policy.stage)
        absent = {one.name: desired.resources[one.name] for one in held if one.name in desired.resources}
        changes = refuse_loose(changes, absent, observed, remedy="this stage leaves those out: see the notes")
        scope.append(make_held_notice(held))
    if policy.stage == "authoritative" and desired.unselected is None:
        changes += find_unmanaged(desired, observed, changes)
    changes = find_obstacles(refuse_past(changes, observed), observed.facts)
    gone = find_undeclared(widen(desired), observed) if prune == "never" else ()
    if desired.unselected is not None:
        changes = refuse_loose(
            changes, desired.unselected, observed, remedy="select these too, or plan without a selection"
        )
        scope.append(make_selection_notice(desired, gone))
        gone = ()
    return Plan(
        target=target,
        owner=desired.owner,
        changes=changes,
        kept=tuple(sorted(definition.name for definition in gone)),
        notices=(
            *scope,
            *desired.notices,
            *_find_doubles(desired, observed),
            *_find_settled(desired, observed),
            *_find_pauses(desired, observed),
            *(
                find_retirement_notices(desired, observed, prune=policy.prune)
                if desired.unselected is None
                else ()
            ),
            *find_service_notices(desired, observed),
            *find_time_notices(desired, observed),
            *find_herd_notices(desired, observed, changes),
        ),
        findings=tuple(findings),
        migrations=tuple(migrations),
        resources=len(desired.resources),
        owned=sum(definition.owner == desired.owner for definition in observed.definitions.values()),
        times={} if observed.now is None else _make_timeline((*changes, *held), observed, observed.now),
        held=held,
    )


def _make_timeline(changes: Sequence[Change], observed: ObservedState, now: datetime) -> Timeline:
    return Timeline(
        changes={change.name: change for change in changes},
        facts=observed.facts,
        server_zone=observed.facts.timezone,
        now=now,
        running=observed.running,
    )


def find_refusal(plan: Plan, policy: Policy, *, allow_deletes: int | str | None) -> Obstacle | None:
    """Find what forbids to apply a plan as a whole.

    Args:
        plan: As shown to the person.
        policy: The target's.
        allow_deletes: How many deletions the person consented to, or the code of their list; None
            for none named.

    Returns:
        The first thing in the way, or None.
    """
    if plan.closed is not None and (plan.changes or plan.migrations or plan.is_elsewhere):
        return plan.closed
    refused = [change.obstacle for change in plan.refused if change.obstacle]
    if refused:
        others = f" (and {len(refused) - 1} more refused)" if len(refused) > 1 else ""
        return replace(refused[0], why=refused[0].why + others)
    count, what = len(plan.deletions), _describe_deletions(plan)
    if not count or allow_deletes in (count, plan.consent):
        return None
    consent = f"look at them, then apply with --allow-deletes {plan.consent}"
    if isinstance(allow_deletes, str):
        why = f"{what}, and the consent {allow_deletes} is for another list of deletions"
        return Obstacle(kind="refused", why=why, remedy=consent)
    if allow_deletes is not None:
        why = f"{what}, the consent is for {allow_deletes}"
        return Obstacle(kind="refused", why=why, remedy=consent)
    if plan.unmanaged:
        why = f"{what}, {len(plan.unmanaged)} of which nobody declared (stage: authoritative)"
        return Obstacle(kind="refused", why=why, remedy=f"take them over: reconciler import; or {consent}")
    if policy.prune == "confirm":
        why = f"{what}, and this target asks for consent (prune: confirm)"
        return Obstacle(kind="refused", why=why, remedy=consent)
    if count > policy.max_deletes:
        why = f"{what}, more than limits.deletes ({policy.max_deletes})"
        return Obstacle(kind="refused", why=why, remedy=consent)
    if count > policy.max_delete_share * plan.owned:
        why = (
            f"{what} of the {plan.owned} resources of {plan.owner}, more than "
            f"limits.delete_share ({policy.max_delete_share:g})"
        )
        return Obstacle(kind="refused", why=why, remedy=consent)
    return None


def _describe_deletions(plan: Plan) -> str:
    retired = sum(change.action == "retire" for change in plan.deletions)
    deleted = len(plan.deletions) - retired
    parts = [f"{verb} {count}" for verb, count in (("retires", retired), ("deletes", deleted)) if count]
    return f"the plan {' and '.join(parts)}"


def make_fingerprints(
    desired: DesiredState, observed: ObservedState, *, unmanaged: Sequence[Change] = ()
) -> Fingerprints:
    """Make the fingerprints of the two states that a plan compares.

    Entries that are neither ours nor named like ours are left out: they may come and go.

    Args:
        desired: What is declared.
        observed: What the target holds.
        unmanaged: The deletions of entries that nobody declared.

    Returns:
        Both fingerprints.
    """
    strangers = [[_list_entry(change.before.entry)] for change in unmanaged if change.before is not None]
    return Fingerprints(
        desired=digest(render_canonical([desired.owner, *_list_desired(desired)])),
        observed=digest(render_canonical([*_list_observed(desired, observed), *strangers])),
    )


def _list_entry(entry: Entry | None) -> list[Any] | None:
    if entry is None:
        return None
    return [
        *(entry.jobid, entry.name, entry.schedule, entry.command),
        *(entry.database, entry.username, entry.active),
    ]


def _list_desired(desired: DesiredState) -> Iterator[list[Any]]:
    for name in sorted(desired.resources):
        resource = desired.resources[name]
        yield [
            *(name, resource.kind, resource.once, resource.protect, resource.renamed_from),
            *(resource.document, _list_entry(resource.entry)),
        ]


def _list_observed(desired: DesiredState, observed: ObservedState) -> Iterator[list[Any]]:
    owned_jobids = set()
    names = set(desired.resources)
    for name in sorted(observed.definitions):
        definition = observed.definitions[name]
        if definition.owner != desired.owner and name not in desired.resources:
            continue
        names.add(name)
        yield [
            *(name, definition.kind, definition.owner, definition.intact, definition.protect),
            *(definition.document, _list_entry(definition.entry)),
            *(() if definition.retired_until is None else (render_instant(definition.retired_until),)),
        ]
        if definition.entry is not None:
            owned_jobids.add(definition.entry.jobid)
    for jobid in sorted(observed.entries):
        entry = observed.entries[jobid]
        if jobid in owned_jobids or entry.name in names:
            yield [_list_entry(entry)]
    for name in sorted(names & observed.drifted_rows.keys()):
        row = observed.drifted_rows[name]
        yield [name, row.observed, row.applied]
    yield sorted(names & observed.settled)


def _find_doubles(desired: DesiredState, observed: ObservedState) -> Iterator[Notice]:
    """Say which names stand in cron.job under more than one role: pg_cron's key is name and role."""
    roles: dict[str, list[str]] = {}
    for entry in observed.entries.values():
        if entry.name in desired.resources:
            roles.setdefault(entry.name, []).append(entry.username)
    for name in sorted(name for name, usernames in roles.items() if len(usernames) > 1):
        yield Notice(
            code="double_name",
            message=f"cron.job holds {len(roles[name])} entries of this name, under the roles "
            f"{', '.join(sorted(roles[name]))}: each of them fires; unschedule those that nobody declared",
            names=(name,),
        )


def _find_settled(desired: DesiredState, observed: ObservedState) -> Iterator[Notice]:
    """Say which one-time jobs were declared anew after they ran: nothing makes them run again."""
    names = []
    for name in sorted(observed.settled & desired.resources.keys()):
        resource, definition = desired.resources[name], observed.definitions.get(name)
        if resource.once and (definition is None or definition.document != resource.document):
            names.append(name)
    if names:
        yield Notice(
            code="settled",
            message="these one-time jobs run or have run, so that what is declared now is not applied; "
            "declare them under another name to run them again",
            names=tuple(names),
        )


def _find_pauses(desired: DesiredState, observed: ObservedState) -> Iterator[Notice]:
    """Say which jobs skip their runs for a while; that is nobody's drift."""
    for name in sorted(observed.pauses.keys() & desired.resources.keys()):
        pause = observed.pauses[name]
        until = "" if pause.until is None else f" until {pause.until.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        why = f": {pause.reason}" if pause.reason else ""
        yield Notice(code="paused", message=f"paused{until} by {pause.paused_by}{why}", names=(name,))
