"""What a policy of `reconciler.yaml` says, as data, and which resources it is about; pure.

A policy holds for specs or for changes. `spec_policies` and `change_policies` judge by them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reconciler.core.specs import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import timedelta

    from reconciler.core.change_windows import ChangeWindows
    from reconciler.core.specs import Blackout, Place

Level = Literal["refuse", "warn"]
Verb = Literal["create", "update", "delete"]
Required = Literal["description", "timeout", "alert", "role", "protect"]

SUBJECTS: Final[Mapping[str, frozenset[Kind]]] = {
    "require.labels": frozenset(KINDS),
    "require.description": frozenset(KINDS),
    "require.protect": frozenset(KINDS),
    "require.timeout": frozenset({"job"}),
    "require.alert": frozenset({"job"}),
    "require.role": frozenset({"job", "worker"}),
    "forbid.mode": frozenset({"job"}),
    "forbid.body": frozenset({"job"}),
    "forbid.database": frozenset({"job"}),
    "forbid.role": frozenset({"job", "worker"}),
    "forbid.url": frozenset({"job", "worker"}),
    "limit.runs_per_hour": frozenset({"job", "worker"}),
    "limit.timeout": frozenset({"job", "queue", "worker"}),
    "limit.retries": frozenset({"job", "queue"}),
}
"""Each key by which a policy judges specs, and the kinds that it says something of."""

_URL: Final = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]+?)\.?(?::(\d*|\*))?", re.ASCII)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_STEP_UP: Final = re.compile(r"[/\\](?:\.|%2e){2}(?:[/\\]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which resources a policy is about: those that all of it fits.

    Attributes:
        kinds: Of these kinds; () for any.
        names: With a name that one of these patterns fits; () for any.
        labels: With each of these labels, whose text the pattern fits.
    """

    kinds: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def fits(self, kind: Kind, names: Iterable[str], labels: Iterable[Mapping[str, str]]) -> bool:
        """Tell whether a resource is one of these.

        Args:
            kind: Of the resource.
            names: That it has, or had before a change.
            labels: That it has, and that it had before a change.

        Returns:
            True when kind, one of the names and one of the sets of labels fit.
        """
        return (
            (not self.kinds or kind in self.kinds)
            and (not self.names or any(fits_any(self.names, name) for name in names))
            and (not self.labels or any(self._fits_labels(one) for one in labels))
        )

    def _fits_labels(self, labels: Mapping[str, str]) -> bool:
        return all(name in labels and fits_text(pattern, labels[name]) for name, pattern in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecPolicy:
    """What specs must have, must not have, or have at the most.

    Attributes:
        name: Of the policy.
        because: Why there is one, for people.
        place: Where it was written.
        level: refuse: specs that break it are a problem. warn: plan and validate say so.
        match: Which resources it is about.
        labels: Names of labels that they need.
        needs: Keys that they need.
        modes: Of jobs, forbidden.
        bodies: Kinds of bodies, forbidden.
        roles: Patterns of roles, forbidden.
        databases: Patterns of databases, forbidden.
        bad_urls: Patterns of addresses, forbidden.
        good_urls: Patterns of the only addresses that are not; () forbids none.
        runs_per_hour: The most runs by the clock in any sixty minutes; None for no limit.
        timeout: The longest time limit; None for no limit.
        retries: The most retries; None for no limit.
    """

    name: str
    because: str
    place: Place
    level: Level = "refuse"
    match: Match = field(default_factory=Match)
    labels: tuple[str, ...] = ()
    needs: tuple[Required, ...] = ()
    modes: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    bad_urls: tuple[str, ...] = ()
    good_urls: tuple[str, ...] = ()
    runs_per_hour: int | None = None
    timeout: timedelta | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePolicy:
    """Changes that are forbidden, at some times or always.

    Attributes:
        name: Of the policy.
        because: Why there is one, for people.
        place: Where it was written.
        level: refuse: nothing of the plan is applied. warn: plan and apply say so.
        match: Which resources it is about.
        verbs: Which changes of them.
        window: When they are forbidden; None for always.
        timezone: In which the window is meant.
    """

    name: str
    because: str
    place: Place
    level: Level = "refuse"
    match: Match = field(default_factory=Match)
    verbs: tuple[Verb, ...] = ()
    window: Blackout | None = None
    timezone: str = "UTC"


Policy: TypeAlias = SpecPolicy | ChangePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """All rules that hold for one target.

    Attributes:
        specs: Policies on specs.
        changes: Policies on changes.
        windows: When an apply is allowed.
    """

    specs: tuple[SpecPolicy, ...] = ()
    changes: tuple[ChangePolicy, ...] = ()
    windows: ChangeWindows | None = None


def describe_policy(policy: Policy) -> str:
    """Name a policy, its place and its reason, as each message about it ends.

    Args:
        policy: Any.

    Returns:
        For instance `policy named-teams (reconciler.yaml:9:5): Somebody has to be called`.
    """
    return f"policy {policy.name} ({policy.place}): {policy.because}"


def fits_any(patterns: Collection[str], text: str) -> bool:
    """Tell whether one of some patterns fits a text."""
    return any(fits_text(pattern, text) for pattern in patterns)


def fits_text(pattern: str, text: str) -> bool:
    """Tell whether a pattern fits a whole text.

    Args:
        pattern: `*` stands for any characters, also none; all else for itself.
        text: The text.

    Returns:
        True when it does.
    """
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    *middle, last = others
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    position, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def fits_url(pattern: str, url: str) -> bool | None:
    """Tell whether a pattern fits an address, part by part: a `*` in the host stays in the host.

    Args:
        pattern: An address with `*`. Without a port it is about the scheme's own; without a path, about any.
        url: The address.

    Returns:
        None where programs could read the address differently: who would allow it should not.
    """
    wanted, given = _URL.fullmatch(pattern), _URL.fullmatch(url)
    if wanted is None or given is None:
        return None
    # What stands before the @ is a login: https://good.example@evil.example/ goes to evil.example.
    login, _, place = given[2].rpartition("@")
    hosts = _HOST.fullmatch(wanted[2].lower()), _HOST.fullmatch(place.lower())
    if hosts[0] is None or hosts[1] is None or "\\" in given[2] or "@" in login:
        return None
    scheme = wanted[1].lower()
    port, given_port = (found[2] or _DEFAULT_PORTS[scheme] for found in hosts if found)
    path = wanted[3]
    if path not in {"", "/*", "*"} and _STEP_UP.search(re.split(r"[?#]", given[3])[0]):
        return None
    return (
        scheme == given[1].lower()
        and fits_text(hosts[0][1], hosts[1][1])
        and fits_text(port, given_port)
        and (not path or fits_text(path, given[3] or "/"))
    )
