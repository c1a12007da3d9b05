"""Load every spec file of a configuration into typed specs for one target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reconciler.collector import paused_collector
from reconciler.core.names import find_nearest
from reconciler.core.specs import SECTIONS, Place, order_specs
from reconciler.errors import InvalidInputError
from reconciler.loader.builder import SpecBuilder
from reconciler.loader.declarations import Declaration, merge
from reconciler.loader.policies import find_violation_problems
from reconciler.loader.problems import Problem, pick_line, render_problems
from reconciler.loader.references import (
    find_duplicates,
    find_reference_problems,
    find_reserved_names,
)
from reconciler.loader.schema_check import Definition, find_schema_faults
from reconciler.loader.sources import find_files, name_path, read_source
from reconciler.loader.variables import VariableError, has_reference, insert_variables
from reconciler.loader.yaml_places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Kind, Spec
    from reconciler.loader.sources import Source

SpecFiles: TypeAlias = tuple["Sequence[Source]", "Sequence[Problem]"]
"""The spec files that could be read, which nobody changes any more, and all problems of reading them."""

_WHOLE_FILE = Definition(schema="jobs")


def load_specs(
    config: Config, target: Target, files: SpecFiles | None = None, *, may_be_empty: bool = False
) -> tuple[Spec, ...]:
    """Load the specs of one target.

    Args:
        config: Where the files are, which targets and secrets there are.
        target: The target, resolved: its variables and version of pg_cron are used.
        files: What `load_sources` gave for this configuration, for many targets; None reads the files.
        may_be_empty: Whether it is right that the files declare nothing, since nothing follows from it.

    Returns:
        Every resource that is declared for the target, in the order of output. Files that declare nothing at
        all are a problem; resources that are all limited to other targets are not.

    Raises:
        InvalidInputError: Every problem of every file, each with its place.
    """
    with paused_collector():
        sources, found = load_sources(config) if files is None else files
        problems = list(found)
        declarations = [one for source in sources for one in _read_declarations(source, target)]
        if not (declarations or problems or may_be_empty):
            problems.append(
                _config_problem(
                    config,
                    "no resource is declared in any spec file; nothing is done, since that would delete all",
                )
            )
        problems += find_duplicates(declarations)
        problems += find_reserved_names(declarations)
        for one in declarations:
            problems += _check_targets(one, config)
        wanted = [one for one in declarations if _is_wanted(one, target)]
        specs = _build(wanted, config, target, problems)
        elsewhere = {one.name: one for one in declarations if not _is_wanted(one, target)}
        problems += find_reference_problems(wanted, elsewhere, _find_doubtful(sources))
        problems += find_violation_problems(specs, wanted, target)
        if problems:
            raise InvalidInputError(render_problems(problems))
        return order_specs(specs)


def load_sources(config: Config) -> tuple[list[Source], list[Problem]]:
    """Find and read the spec files, and check each against the schema.

    Args:
        config: Where the files are.

    Returns:
        The files that could be read, in the order of their paths, with what does not fit the schema marked as
        faulty; and all problems.
    """
    folder = Path(config.path).parent
    problems: list[Problem] = []
    found: dict[Path, Path] = {}
    for number, pattern in enumerate(config.jobs):
        files, fault = find_files(folder, pattern)
        if fault:
            problems.append(_config_problem(config, f"jobs: {fault}", number))
        for path in files:
            found.setdefault(path.resolve(), path)
    sources: list[Source] = []
    for path in sorted(found.values(), key=name_path):
        source = read_source(path)
        problems += source.problems
        if source.value is not None:
            problems += _check_schema(source)
        sources.append(source)
    return sources, problems


def _check_schema(source: Source) -> list[Problem]:
    problems: list[Problem] = []
    for fault in find_schema_faults(_WHOLE_FILE, source.value):
        place = source.place_of(fault.path, at_key=fault.at_key)
        if fault.is_secret:
            problems.append(Problem(place=place, message=fault.message))
        else:
            problems.append(source.make_problem(place, fault.message))
        source.faulty.add(fault.path[:2])
    return problems


def _read_declarations(source: Source, target: Target) -> list[Declaration]:
    if source.value is None or () in source.faulty:
        return []
    value = source.value
    is_sound = not any(path[0] == "defaults" for path in source.faulty)
    defaults = value.get("defaults", {}) if is_sound else {}
    has_variables = "${" in source.text
    declarations: list[Declaration] = []
    for section, kind in SECTIONS.items():
        if (section,) in source.faulty:
            continue
        for name, own in value.get(section, {}).items():
            if (section, name) in source.faulty:
                continue
            known = source.names.get((section, name))
            if known is None:  # the section is an alias
                place = source.place_of((section, name), at_key=True)
            else:
                place = Place(path=source.path, line=known[0], column=known[1])
            one = Declaration(
                kind=kind,
                name=name,
                place=place,
                source=source,
                section=section,
                own=own,
                target=target.name,
                has_variables=has_variables,
            )
            merge(one, defaults if kind == "job" else {})
            declarations.append(one)
    declarations.sort(key=lambda one: (one.place.line, one.place.column))
    return declarations


def _find_doubtful(sources: Sequence[Source]) -> dict[Kind, set[str]] | None:
    """Find names that are declared with faults; None when a file could not be read at all."""
    doubtful: dict[Kind, set[str]] = {kind: set() for kind in SECTIONS.values()}
    for source in sources:
        if source.problems:
            return None
        if source.faulty:
            for section, name in source.names:
                if section in SECTIONS:
                    doubtful[SECTIONS[section]].add(name)
    return doubtful


def _is_wanted(one: Declaration, target: Target) -> bool:
    targets = one.value.get("targets")
    return targets is None or target.name in targets


def _check_targets(one: Declaration, config: Config) -> list[Problem]:
    named: list[tuple[tuple[str | int, ...], str, bool]] = []
    if "targets" in one.value:
        named += [(("targets", number), name, False) for number, name in enumerate(one.value["targets"])]
    if "overrides" in one.own:
        named += [(("overrides", name), name, True) for name in one.own["overrides"]]
    problems: list[Problem] = []
    for path, name, at_key in named:
        if name not in config.targets:
            nearest = find_nearest(name, config.targets)
            remedy = (
                f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(sorted(config.targets))}"
            )
            owner = one.label if one.rank_of(str(path[0])) else "the defaults"
            problems.append(
                one.make_problem(path, f"{owner}: unknown target {name!r}; {remedy}", at_key=at_key)
            )
    return problems


def _build(
    wanted: Sequence[Declaration], config: Config, target: Target, problems: list[Problem]
) -> list[Spec]:
    builder = SpecBuilder(config, target)
    specs: list[Spec] = []
    for one in wanted:
        if one.has_variables and has_reference(one.value):
            faults = _insert(one, target)
            if faults:
                problems += faults
                one.is_broken = True
                continue
        spec = builder.build(one)
        if spec is not None:
            specs.append(spec)
    problems += builder.problems
    return specs


def _insert(one: Declaration, target: Target) -> list[Problem]:
    """Insert variables into a declaration's value, and check the result against the schema again."""
    problems: list[Problem] = []

    def walk(value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, str):
            if "${" not in value:
                return value
            try:
                return insert_variables(value, target.variables, is_sql=path == ("sql",))
            except VariableError as error:
                owner = one.label if one.rank_of(str(path[0])) else "the defaults"
                problems.append(one.make_problem(path, f"{owner}: {error}"))
                return value
        if isinstance(value, dict):
            return {key: walk(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [walk(child, (*path, number)) for number, child in enumerate(value)]
        return value

    # Overrides of other targets hold variables of those; the right ones are merged in already.
    kept = {key: value for key, value in one.value.items() if key not in {"overrides", "targets"}}
    value = {key: walk(child, (key,)) for key, child in kept.items()}
    if not problems:
        one.value = value
        for fault in find_schema_faults(Definition(schema="jobs", name=one.kind), value, label=one.label):
            problems.append(one.make_problem(fault.path, fault.message, at_key=fault.at_key))  # noqa: PERF401 - `walk` fills it too
    return problems


def _config_problem(config: Config, message: str, number: int | None = None) -> Problem:
    try:
        text = Path(config.path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        text = ""
    places = Places(text)
    path: tuple[str | int, ...] = ("jobs",)
    if number is not None and places.has(("jobs", number)):
        path = ("jobs", number)
    line, column = places.find(path) if places.has(path) else (1, 1)
    place = Place(path=name_path(Path(config.path)), line=line, column=column)
    return Problem(place=place, message=message, line_text=pick_line(text, line))
