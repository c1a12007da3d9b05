"""Read policies and windows of `reconciler.yaml`, and check specs by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reconciler.core.change_windows import ChangeWindows, Freeze
from reconciler.core.declared_times import make_blackouts
from reconciler.core.durations import parse_duration
from reconciler.core.names import find_nearest
from reconciler.core.policies import SUBJECTS, ChangePolicy, Governance, Match, Policy, SpecPolicy
from reconciler.core.spec_policies import SpecJudge
from reconciler.loader.blackout_windows import canonical_window
from reconciler.loader.canonical_values import UnreadableError
from reconciler.loader.job_times import find_zone_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reconciler.core.config import Target
    from reconciler.core.specs import Blackout, Spec
    from reconciler.loader.declarations import Declaration
    from reconciler.loader.problems import Problem
    from reconciler.loader.sources import Source

_Path = tuple[str | int, ...]

_TIMES: Final = ("from", "to", "on", "first", "last")
_PARTS: Final = ("require", "forbid", "limit")
_LEVELS: Final = ("description", "timeout", "alert", "role", "protect")


def find_policy_faults(value: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """Find what is wrong with the policies and windows of a configuration.

    Args:
        value: The configuration, which fits the schema.

    Yields:
        Where it is, and what is wrong with what to do.
    """
    seen: set[str] = set()
    for number, policy in enumerate(value.get("policies") or ()):
        path: _Path = ("policies", number)
        name = policy["name"]
        if name in seen:
            yield (*path, "name"), f"there are two policies {name!r}: choose another name"
        seen.add(name)
        for index, target in enumerate(policy.get("targets", ())):
            if target not in value["targets"]:
                nearest = find_nearest(target, value["targets"])
                known = ", ".join(sorted(value["targets"]))
                remedy = f"did you mean {nearest!r}?" if nearest else f"known are {known}"
                yield (*path, "targets", index), f"policy {name}: unknown target {target!r}; {remedy}"
        find = _find_change_faults if "changes" in policy else _find_spec_faults
        for inner, fault in find(policy):
            yield (*path, *inner), f"policy {name}: {fault}"
    for name, target in value["targets"].items():
        apply = target.get("windows", {}).get("apply", {})
        for inner, fault in _find_window_faults(apply):
            yield ("targets", name, "windows", "apply", *inner), f"windows.apply of target {name}: {fault}"


def _find_change_faults(policy: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    for part in ("require", "limit"):
        if part in policy:
            yield (part,), f"{part} is about specs, and changes about changes: make two policies of it"
    forbid = policy.get("forbid", False)
    if forbid is False:
        yield (), "it forbids nothing: write forbid: true, or the times at which changes are forbidden"
    elif isinstance(forbid, dict):
        for key in forbid:
            if key not in _TIMES:
                yield (
                    ("forbid", key),
                    f"{key} is about specs, and changes about changes: make two policies of it",
                )
        yield from _find_time_faults(_pick_times(forbid), ("forbid",))
    elif "timezone" in policy:
        yield ("timezone",), "what is always forbidden needs no timezone: leave it out"
    yield from _find_zone_faults(policy)


def _find_spec_faults(policy: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    if "timezone" in policy:
        yield ("timezone",), "timezone goes with changes only: leave it out, or add changes"
    if not any(policy.get(part) for part in _PARTS):
        yield (), "it demands nothing: write require, forbid or limit"
    forbid = policy.get("forbid", {})
    if isinstance(forbid, bool):
        yield ("forbid",), "forbid: true goes with changes only: say what is forbidden, or add changes"
        forbid = {}
    kinds = _list(policy.get("match", {}).get("kind", ()))
    for part, keys in (
        ("require", policy.get("require", {})),
        ("forbid", forbid),
        ("limit", policy.get("limit", {})),
    ):
        for key in keys:
            if part == "forbid" and key in _TIMES:
                yield (part, key), f"{key} goes with changes only: leave it out, or add changes"
                continue
            concerned = SUBJECTS[f"{part}.{key}"]
            if kinds and concerned.isdisjoint(kinds):
                whose = " and ".join(f"{kind}s" for kind in sorted(concerned))
                yield (part, key), f"{part}.{key} is about {whose}, which match.kind leaves out"
    if "timeout" in policy.get("limit", {}):
        try:
            parse_duration(policy["limit"]["timeout"])
        except ValueError as error:
            yield ("limit", "timeout"), f"limit.timeout: {error}"


def _find_window_faults(apply: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    if apply and not ("allow" in apply or "freeze" in apply):
        yield (), "it says nothing: write allow or freeze"
    for part in ("allow", "freeze"):
        for number, window in enumerate(apply.get(part, ())):
            times = _pick_times(window)
            if not times:
                yield (part, number), f"{part}[{number}] says no time: write from and to, on, first or last"
            yield from _find_time_faults(times, (part, number))
    yield from _find_zone_faults(apply)


def _find_time_faults(times: dict[str, Any], path: _Path) -> Iterator[tuple[_Path, str]]:
    try:
        canonical_window(times)
    except UnreadableError as error:
        yield (*path, *error.path[1:]), str(error)


def _find_zone_faults(holder: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    fault = find_zone_fault(holder["timezone"]) if "timezone" in holder else ""
    if fault:
        yield ("timezone",), fault


def make_governance(source: Source, target: str) -> Governance:
    """Make the rules of one target.

    Args:
        source: The configuration, which has no faults.
        target: The target's name.

    Returns:
        Policies sorted by name, and windows.
    """
    value = source.value
    policies = [
        _make_policy(source, number, policy)
        for number, policy in enumerate(value.get("policies") or ())
        if target in policy.get("targets", (target,))
    ]
    policies.sort(key=lambda policy: policy.name)
    apply = value["targets"][target].get("windows", {}).get("apply")
    return Governance(
        specs=tuple(policy for policy in policies if isinstance(policy, SpecPolicy)),
        changes=tuple(policy for policy in policies if isinstance(policy, ChangePolicy)),
        windows=None if apply is None else _make_windows(apply),
    )


def _make_policy(source: Source, number: int, value: Mapping[str, Any]) -> Policy:
    match = value.get("match", {})
    shared: dict[str, Any] = {
        "name": value["name"],
        "because": value["because"],
        "place": source.place_of(("policies", number)),
        "level": value.get("level", "refuse"),
        "match": Match(
            kinds=_list(match.get("kind", ())),
            names=_list(match.get("names", ())),
            labels=tuple(sorted(match.get("labels", {}).items())),
        ),
    }
    forbid = value.get("forbid", {})
    if "changes" in value:
        return ChangePolicy(
            **shared,
            verbs=tuple(value["changes"]),
            window=None if forbid is True else _make_window(forbid),
            timezone=value.get("timezone", "UTC"),
        )
    require, limit, url = value.get("require", {}), value.get("limit", {}), forbid.get("url", {})
    return SpecPolicy(
        **shared,
        labels=_list(require.get("labels", ())),
        needs=tuple(key for key in _LEVELS if require.get(key)),
        modes=_list(forbid.get("mode", ())),
        bodies=_list(forbid.get("body", ())),
        roles=_list(forbid.get("role", ())),
        databases=_list(forbid.get("database", ())),
        bad_urls=_list(url.get("matching", ())),
        good_urls=_list(url.get("not_matching", ())),
        runs_per_hour=limit.get("runs_per_hour"),
        timeout=parse_duration(limit["timeout"]) if "timeout" in limit else None,
        retries=limit.get("retries"),
    )


def _make_windows(apply: Mapping[str, Any]) -> ChangeWindows:
    return ChangeWindows(
        allow=tuple(_make_window(window) for window in apply.get("allow", ())),
        freezes=tuple(
            Freeze(window=_make_window(freeze), because=freeze.get("because", ""))
            for freeze in apply.get("freeze", ())
        ),
        timezone=apply.get("timezone", "UTC"),
    )


def _make_window(value: Mapping[str, Any]) -> Blackout:
    return make_blackouts([canonical_window(_pick_times(value))])[0]


def _pick_times(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[key] for key in _TIMES if key in value}


def _list(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def find_violation_problems(
    specs: Sequence[Spec], declarations: Sequence[Declaration], target: Target
) -> list[Problem]:
    """Find the specs that the policies of a target refuse.

    Args:
        specs: Sound ones.
        declarations: What they were made of, among others.
        target: With its policies.

    Returns:
        A problem for each violation, at its key; those of the level warn are left out.
    """
    policies = [policy for policy in target.governance.specs if policy.level == "refuse"]
    violations = SpecJudge(policies, role=target.role).judge(specs)
    if not violations:
        return []
    by_name = {one.name: one for one in declarations}
    return [
        by_name[violation.spec.name].make_problem(violation.path, violation.message)
        for violation in violations
    ]
