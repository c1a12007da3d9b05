"""Many targets at once: which are meant, whose turn comes when, what became of each, and what they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from reconciler.core.canonical import digest, render_canonical
from reconciler.core.names import find_nearest, list_some
from reconciler.core.policies import fits_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reconciler.core.changes import Action, Change, FieldChange, Snapshot
    from reconciler.core.config import Target
    from reconciler.core.plan import Plan

Result = Literal[
    "done",
    "incomplete",
    "changes",
    "no changes",
    "drift",
    "no drift",
    "refused",
    "stale",
    "locked",
    "failed",
    "not reached",
]
"""What became of one target. incomplete: the role's rights were not enough for some of the changes."""

WORST_FIRST: Final = (1, 4, 5, 6, 7, 3, 0)
"""Exit codes from the worst on: error, refused, stale, locked, drift, changes, done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one target.

    Attributes:
        target: The target's name.
        wave: When its turn came.
        result: In a word.
        code: The exit code that a command on this target alone would have.
        key: Of the plan, by `make_plan_key`; "" where it did not come to one.
        counts: The planned changes by action, without those that there are none of.
        consent: The code of the deletions among them; "" without any.
        revision: That was written; None for none.
        migrations: Names of those that ran.
        secrets: Names of those that were brought.
        seconds: That it took.
        error: What went wrong; "" where nothing did.
        remedy: What to do about it; "" where the error says so.
    """

    target: str
    wave: int
    result: Result
    code: int = 0
    key: str = ""
    counts: Mapping[Action, int] = field(default_factory=dict)
    consent: str = ""
    revision: int | None = None
    migrations: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Targets on which the same is to be done.

    Attributes:
        targets: Their names, in the order of the outcomes.
        key: Of their plans.
    """

    targets: tuple[str, ...]
    key: str


def has_pattern(names: Sequence[str]) -> bool:
    """Tell whether a choice of targets is that of a fleet: several, or a pattern, however many it fits."""
    return len(names) > 1 or any("*" in name for name in names)


def choose_targets(patterns: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Choose targets.

    Args:
        patterns: Names and patterns; `*` stands for any characters.
        names: Of the targets that there are.

    Returns:
        Those that one of the patterns fits, by name.

    Raises:
        ValueError: A pattern fits none; the message says which, and what is near.
    """
    known = sorted(names)
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = [name for name in known if fits_text(pattern, name)]
        if not fitting:
            nearest = find_nearest(pattern.replace("*", ""), known)
            near = f"did you mean {nearest!r}?" if nearest else f"known are {list_some(known, 8)}"
            raise ValueError(f"no target fits {pattern!r}; {near}")
        chosen.update(fitting)
    return tuple(sorted(chosen))


def order_waves(targets: Iterable[Target]) -> tuple[tuple[str, ...], ...]:
    """Put targets into waves.

    Args:
        targets: The chosen ones.

    Returns:
        Names by name, wave by wave; numbers that no target has are left out.
    """
    waves: dict[int, list[str]] = {}
    for target in targets:
        waves.setdefault(target.wave, []).append(target.name)
    return tuple(tuple(sorted(waves[number])) for number in sorted(waves))


def pick_worst(codes: Iterable[int]) -> int:
    """Pick the one exit code of many targets.

    Args:
        codes: Of each of them; all known to `WORST_FIRST`.

    Returns:
        The worst; 0 where there are none.
    """
    return min(codes, key=WORST_FIRST.index, default=0)


def make_plan_key(plan: Plan, *, database: str, role: str) -> str:
    """Make what two plans share that do the same.

    Args:
        plan: Of one target.
        database: That is connected.
        role: That is connected.

    Returns:
        A digest. Job ids, lines of files, the times of runs to come, the wording of notices and findings, and
        the names of the two that are each target's own do not count.
    """
    own = {"database": database, "username": role}
    value = [
        [_list_change(change, own) for change in plan.changes],
        [[one.code, list(one.names)] for one in plan.notices],
        [[one.code, one.severity] for one in plan.findings],
        [list(plan.kept), list(plan.migrations), plan.resources, plan.closed is None],
    ]
    return digest(render_canonical(value))


def group_plans(outcomes: Iterable[Outcome]) -> tuple[Group, ...]:
    """Put targets on which the same is to be done together.

    Args:
        outcomes: In the order of output; those without a plan are left out.

    Returns:
        The largest groups first, then in the order of the outcomes.
    """
    members: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.key:
            members.setdefault(outcome.key, []).append(outcome.target)
    groups = [Group(targets=tuple(names), key=key) for key, names in members.items()]
    return tuple(sorted(groups, key=lambda group: -len(group.targets)))


def _list_change(change: Change, own: Mapping[str, str]) -> list[object]:
    obstacle = change.obstacle
    return [
        *(change.action, change.kind, change.name, change.reason, change.renamed_from, change.protect),
        *(_list_side(change.before, own), _list_side(change.after, own)),
        [_list_field(field, own) for field in change.fields],
        None if obstacle is None else [obstacle.kind, obstacle.why],
    ]


def _list_side(side: Snapshot | None, own: Mapping[str, str]) -> list[object] | None:
    if side is None:
        return None
    fields = {} if side.entry is None else side.entry.fields()
    return [side.document, {key: None if own.get(key) == value else value for key, value in fields.items()}]


def _list_field(field: FieldChange, own: Mapping[str, str]) -> list[object]:
    mine = own.get(field.path.removeprefix("entry."))
    sides = (None if mine is not None and side == mine else side for side in (field.before, field.after))
    return [field.path, *sides]
