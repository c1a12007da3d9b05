"""Check what declarations say about each other: names, references, cycles and renames."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from reconciler.core.names import OWN_PREFIX, find_nearest
from reconciler.core.specs import BUILT_IN_QUEUES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reconciler.loader.declarations import Declaration
    from reconciler.loader.problems import Problem

_CYCLE_LIMIT = 20
_SECTION: dict[Kind, str] = {"job": "jobs", "queue": "queues", "worker": "workers", "channel": "channels"}


def find_duplicates(declarations: Iterable[Declaration]) -> list[Problem]:
    """Find names that are declared twice, in whatever kind, file or target.

    Args:
        declarations: Everything that is declared, in the order of files and lines.

    Returns:
        A problem at each later place, which names the first one.
    """
    problems: list[Problem] = []
    first: dict[str, Declaration] = {}
    for declaration in declarations:
        other = first.setdefault(declaration.name, declaration)
        if other is not declaration:
            message = (
                f"the name {declaration.name!r} is taken already, by {other.label} at {other.place}: "
                "rename one (names are unique across files and kinds)"
            )
            problems.append(declaration.make_problem((), message))
    return problems


def find_reserved_names(declarations: Iterable[Declaration]) -> list[Problem]:
    """Find names that are the tool's own.

    Args:
        declarations: Everything that is declared.

    Returns:
        A problem for each.
    """
    message = f"names that begin with {OWN_PREFIX} are the tool's own: choose another"
    return [
        one.make_problem((), f"{one.label}: {message}")
        for one in declarations
        if one.name.startswith(OWN_PREFIX)
    ]


def find_reference_problems(
    declarations: Sequence[Declaration],
    elsewhere: Mapping[str, Declaration],
    doubtful: Mapping[Kind, set[str]] | None,
) -> list[Problem]:
    """Find references to what is not declared, cycles, and renames that cannot be.

    Args:
        declarations: What is declared for one target, with merged values.
        elsewhere: What is declared for other targets only, by name.
        doubtful: Names that are declared with faults, which are reported elsewhere; None when a file could
            not be read, so that nothing can be said to be unknown.

    Returns:
        The problems.
    """
    known: dict[Kind, set[str]] = {kind: set() for kind in _SECTION}
    known["queue"] |= BUILT_IN_QUEUES
    for one in declarations:
        known[one.kind].add(one.name)
    direct = {one.name for one in declarations if one.kind == "job" and one.value.get("mode") == "direct"}
    checker = _References(known, elsewhere, direct)
    if doubtful is not None:
        for kind, names in doubtful.items():
            known[kind] |= names
        for one in declarations:
            if not one.is_broken:
                checker.check(one)
    return [*checker.problems, *_find_cycles(declarations), *_find_renames(declarations, elsewhere)]


class _References:
    def __init__(
        self, known: Mapping[Kind, set[str]], elsewhere: Mapping[str, Declaration], direct: set[str]
    ) -> None:
        self.known = known
        self.elsewhere = elsewhere
        self.direct = direct
        self.problems: list[Problem] = []

    def check(self, one: Declaration) -> None:
        value = one.value
        if "queue" in value:
            self._check_name(one, ("queue",), "queue", value["queue"])
        if one.kind != "job":
            return
        for number, name in enumerate(value.get("after", ())):
            self._check_name(one, ("after", number), "job", name)
            if name in self.direct:
                fault = f"{name} is handed to pg_cron as it is (mode: direct), so nobody sees it succeed"
                self.problems.append(
                    one.make_problem(("after", number), f"{one.label}: {fault}: leave it out")
                )
        for number, name in enumerate(value["alert"].get("channels", ()) if "alert" in value else ()):
            self._check_name(one, ("alert", "channels", number), "channel", name)

    def _check_name(self, one: Declaration, path: tuple[str | int, ...], kind: Kind, name: str) -> None:
        if name in self.known[kind]:
            return
        owner = one.label if one.rank_of(str(path[0])) else "the defaults"
        other = self.elsewhere.get(name)
        nearest = find_nearest(name, self.known[kind])
        if other is not None and other.kind == kind:
            fault = (
                f"{kind} {name!r} is declared for other targets only (at {other.place}), not for {one.target}"
            )
        elif nearest:
            fault = f"unknown {kind} {name!r}; did you mean {nearest!r}?"
        else:
            fault = f"unknown {kind} {name!r}: declare it under {_SECTION[kind]}:"
        self.problems.append(one.make_problem(path, f"{owner}: {fault}"))


def _find_cycles(declarations: Sequence[Declaration]) -> list[Problem]:
    """Find jobs that wait for each other; each job is named in one cycle at the most."""
    by_name = {one.name: one for one in declarations if one.kind == "job"}
    graph = {
        name: sorted(other for other in by_name[name].value.get("after", ()) if other in by_name)
        for name in sorted(by_name)
        if "after" in by_name[name].value
    }
    problems: list[Problem] = []
    while len(problems) < _CYCLE_LIMIT:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # Each node comes before the next one, so "waits for" reads backwards.
            cycle = list(reversed(error.args[1]))[:-1]
            start = cycle.index(min(cycle))
            names = [*cycle[start:], *cycle[:start]]
            shown = " → ".join([*names, names[0]]) if len(names) <= 10 else f"{' → '.join(names[:10])} → …"
            message = f"job {names[0]} would wait for itself: {shown}; leave one of these out of after"
            problems.append(by_name[names[0]].make_problem(("after",), message))
            graph = {
                name: [other for other in others if other not in cycle]
                for name, others in graph.items()
                if name not in cycle
            }
        else:
            break
    return problems


def _find_renames(declarations: Sequence[Declaration], elsewhere: Mapping[str, Declaration]) -> list[Problem]:
    problems: list[Problem] = []
    declared = {one.name: one for one in declarations}
    taken: dict[str, Declaration] = {}
    for one in declarations:
        old = one.value.get("renamed_from")
        if old is None:
            continue
        other = declared.get(old) or elsewhere.get(old)
        if old == one.name:
            fault = "renamed_from is its own name: leave it out"
        elif other is not None:
            fault = (
                f"renamed_from {old!r} is still declared, by {other.label} at {other.place}: leave one out"
            )
        elif old in taken:
            fault = (
                f"renamed_from {old!r} is claimed by {taken[old].label} too, at {taken[old].place}: keep one"
            )
        else:
            taken[old] = one
            continue
        problems.append(one.make_problem(("renamed_from",), f"{one.label}: {fault}"))
    return problems
