"""Judge the changes of a plan by policies and windows; pure, at a moment that comes in by argument."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.change_windows import find_closure, find_window_end
from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.core.names import OWN_PREFIX
from reconciler.core.policies import describe_policy
from reconciler.core.state import Notice
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.words import describe_instant, describe_window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.core.change_windows import ChangeWindows
    from reconciler.core.policies import ChangePolicy, Governance

_WAY_OUT: Final = "in an emergency with --emergency REASON, which the revision keeps"
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What policies and windows say about the changes of a plan.

    Attributes:
        changes: The same changes in the same order; those that are forbidden carry an obstacle.
        closed: Why nothing may be applied now, whatever it is; None where it may.
        notices: What reviewers should know though it hinders nothing.
    """

    changes: tuple[Change, ...]
    closed: Obstacle | None
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A policy that forbids something now.

    Attributes:
        policy: The policy.
        end: When it does no more; None where it always does.
        reason: The policy, and why it holds now.
    """

    policy: ChangePolicy
    end: datetime | None
    reason: str


def judge_changes(
    changes: Iterable[Change], governance: Governance, *, now: datetime, emergency: str = ""
) -> Verdict:
    """Judge changes.

    Args:
        changes: Of a plan. What has an obstacle is not judged, since it is not made; nor are adoptions and
            the tool's own entries, which nobody declares.
        governance: Of the target.
        now: By the clock of the target, aware.
        emergency: Why windows and forbidden times do not count for once; "" where they do. What is always
            forbidden stays so.

    Returns:
        The verdict, the same in whatever order the policies are.

    Raises:
        ValueError: A zone is not known.
    """
    held = [one for policy in sorted(governance.changes, key=_name) if (one := _find_held(policy, now))]
    judged: list[Change] = []
    warned: dict[str, list[str]] = {}
    passed: dict[str, list[str]] = {}
    for change in changes:
        refusing = []
        for one in held:
            if not _is_about(one.policy, change):
                continue
            if one.policy.level == "warn":
                warned.setdefault(one.reason, []).append(change.name)
            elif emergency and one.end is not None:
                passed.setdefault(one.reason, []).append(change.name)
            else:
                refusing.append(one)
        judged.append(replace(change, obstacle=_refuse(change, refusing)) if refusing else change)
    notices = [
        Notice(
            code="policy", message=f"these changes are better not made; {reason}", names=tuple(sorted(names))
        )
        for reason, names in warned.items()
    ]
    closed = None if governance.windows is None else _find_closed(governance.windows, now)
    if emergency:
        overridden = [*([] if closed is None else [closed.why]), *passed]
        if overridden:
            names = tuple(sorted({name for found in passed.values() for name in found}))
            message = f"in an emergency ({emergency}) this does not count: {'; '.join(overridden)}"
            notices.append(Notice(code="emergency", message=message, names=names))
        return Verdict(changes=tuple(judged), closed=None, notices=tuple(notices))
    if closed is not None:
        notices.append(Notice(code="closed", message=f"{closed.why}; {closed.remedy}"))
    return Verdict(changes=tuple(judged), closed=closed, notices=tuple(notices))


def read_change(value: dict[str, Any]) -> Change:
    """Read a change back from the JSON of a plan, as far as policies look at it.

    Args:
        value: One of `changes`, after `schemas/plan.schema.json`.

    Returns:
        The change, without its fields.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
    """
    obstacle = value["obstacle"]
    return Change(
        action=value["action"],
        kind=value["kind"],
        name=value["name"],
        reason=value["reason"],
        before=_read_snapshot(value["before"]),
        after=_read_snapshot(value["after"]),
        source=value["source"],
        renamed_from=value["renamed_from"] or "",
        obstacle=None if obstacle is None else Obstacle(**obstacle),
    )


def _read_snapshot(value: dict[str, Any] | None) -> Snapshot | None:
    if value is None:
        return None
    return Snapshot(document=json.dumps(value["spec"]) if value["spec"] else "", entry=None)


def _is_about(policy: ChangePolicy, change: Change) -> bool:
    """Tell whether a policy is about a change: a new name or label takes nothing out of its reach."""
    # What is retired stops as what is deleted does.
    verb = "delete" if change.action == "retire" else change.action
    if change.obstacle is not None or verb not in policy.verbs or change.name.startswith(OWN_PREFIX):
        return False
    names = [name for name in (change.name, change.renamed_from) if name]
    labels = [_read_labels(one) for one in (change.before, change.after)] if policy.match.labels else ()
    return policy.match.fits(change.kind, names, labels)


def _read_labels(snapshot: Snapshot | None) -> dict[str, str]:
    if snapshot is None or not snapshot.document:
        return {}
    labels: dict[str, str] = json.loads(snapshot.document).get("labels", {})
    return labels


def _find_held(policy: ChangePolicy, now: datetime) -> _Held | None:
    if policy.window is None:
        return _Held(policy=policy, end=None, reason=describe_policy(policy))
    end = find_window_end(policy.window, policy.timezone, now=now)
    if end is None:
        return None
    when = f"{describe_window(policy.window)} {policy.timezone}"
    reason = f"{describe_policy(policy)} ({when}, and it is {_describe_day(now, policy.timezone)})"
    return _Held(policy=policy, end=end, reason=reason)


def _refuse(change: Change, held: list[_Held]) -> Obstacle:
    reasons = "; ".join(one.reason for one in held)
    lasting = [one.policy.name for one in held if one.end is None]
    if lasting:
        names = " and ".join(lasting)
        remedy = f"leave {change.name} as it is, or change {names} first, in a reviewed step of its own"
    else:
        last = max(held, key=lambda one: one.end or _NEVER)
        later = (
            ""
            if last.end in {None, _NEVER}
            else f"apply at {_describe_day(last.end, last.policy.timezone)} or later, or "
        )
        remedy = f"{later}apply {_WAY_OUT}"
    why = f"{change.action} of {change.kind} {change.name} is forbidden: {reasons}"
    return Obstacle(kind="refused", why=why, remedy=remedy)


def _find_closed(windows: ChangeWindows, now: datetime) -> Obstacle | None:
    closure = find_closure(windows, now=now)
    if closure is None:
        return None
    if closure.opens_at is None:
        remedy = f"it does not open again: change windows in reconciler.yaml, or apply {_WAY_OUT}"
    else:
        opening = _describe_day(closure.opens_at, windows.timezone)
        remedy = f"it opens at {opening}: apply then, or {_WAY_OUT}"
    return Obstacle(kind="refused", why=closure.why, remedy=remedy)


def _describe_day(at: datetime, timezone: str) -> str:
    return f"{at.astimezone(find_zone(timezone)):%a} {describe_instant(at, timezone)}"


def _name(policy: ChangePolicy) -> str:
    return policy.name
