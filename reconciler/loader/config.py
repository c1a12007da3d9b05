"""Find and read `reconciler.yaml`; resolve the environment of the one target that is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from reconciler.core.config import Config, Policy, Runtime, Secret, Target
from reconciler.core.durations import find_interval_fault, parse_duration
from reconciler.core.names import RESERVED_OWNERS, find_nearest
from reconciler.core.times.dialects import parse_version
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.policies import find_policy_faults, make_governance
from reconciler.loader.problems import Problem, render_problems
from reconciler.loader.schema_check import Definition, find_schema_faults
from reconciler.loader.sources import name_path, read_source
from reconciler.loader.target_defaults import find_place, merge_defaults
from reconciler.loader.variables import VariableError, insert_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.policies import Governance
    from reconciler.loader.sources import Source

CONFIG_NAME: Final = "reconciler.yaml"
"""The file's name."""

_MINUTE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)

_STORES: Final[tuple[Literal["env", "file", "vault"], ...]] = ("env", "file", "vault")


def find_config(folder: Path) -> Path:
    """Find the configuration that holds for a folder.

    Args:
        folder: Where the person is.

    Returns:
        `reconciler.yaml` of the folder or of the nearest folder above it.

    Raises:
        ConfigError: There is none.
    """
    start = folder.absolute()
    for candidate in (start, *start.parents):
        path = candidate / CONFIG_NAME
        if path.is_file():
            return path
    raise ConfigError(
        f"there is no {CONFIG_NAME} in {start} or in any folder above it",
        remedy="`reconciler init` writes one",
    )


def load_config(path: Path) -> Config:
    """Load a configuration.

    Args:
        path: The file.

    Returns:
        The configuration; texts of targets keep their `${env:…}`, which matter to the target used alone.

    Raises:
        ConfigError: There is no such file.
        InvalidInputError: Every problem of the file, each with its place.
    """
    if not path.exists():
        raise ConfigError(f"there is no {name_path(path)}", remedy="`reconciler init` writes one")
    source = read_source(path)
    problems = list(source.problems)
    if not problems:
        value: Any = {} if source.value is None else source.value
        for fault in find_schema_faults(Definition(schema="config"), value):
            place = source.place_of(fault.path, at_key=fault.at_key)
            problems.append(source.make_problem(place, fault.message))
    if not problems:
        source.value = merge_defaults(source.value)
        problems += _find_problems(source)
    if problems:
        raise InvalidInputError(render_problems(problems))
    return _make_config(path, source)


def resolve_target(config: Config, name: str | None, *, environment: Mapping[str, str]) -> Target:
    """Choose a target and insert the environment's variables into its texts.

    Args:
        config: The configuration.
        name: The target; None for the default one.
        environment: The environment's variables.

    Returns:
        The target, ready for use.

    Raises:
        ConfigError: No such target, no default, or a variable that is not set; the message names the target,
            the variable and the place.
    """
    known = ", ".join(sorted(config.targets))
    chosen = config.default_target if name is None else name
    if not chosen:
        raise ConfigError(
            f"{name_path(Path(config.path))} has several targets and no default_target",
            remedy=f"name one with --target: {known}",
        )
    target = config.targets.get(chosen)
    if target is None:
        nearest = find_nearest(chosen, config.targets)
        raise ConfigError(
            f"there is no target {chosen!r} in {name_path(Path(config.path))}",
            remedy=f"did you mean {nearest!r}?" if nearest else f"known are {known}",
        )

    def resolve(text: str, *path: str) -> str:
        try:
            return insert_variables(text, environment, prefix="env", target=chosen)
        except VariableError as error:
            place = find_place(read_source(Path(config.path)), ("targets", chosen, *path))
            raise ConfigError(
                f"{place}: {error}, and {'.'.join(path)} of target {chosen!r} needs it",
                remedy="set it in the environment, or choose another target with --target",
            ) from None

    return replace(
        target,
        dsn=resolve(target.dsn, "dsn"),
        role=resolve(target.role, "role"),
        variables={key: resolve(text, "vars", key) for key, text in target.variables.items()},
    )


class _Anything(Mapping[str, str]):
    """A mapping in which every name is set: to check how references are written."""

    def __getitem__(self, key: str) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _find_problems(source: Source) -> list[Problem]:
    value = source.value
    problems: list[Problem] = []

    def complain(message: str, *path: str | int) -> None:
        place = find_place(source, path)
        # What the defaults say wrong is one problem, not one for each target.
        is_shared = place != source.place_of(path)
        if not is_shared or all(problem.place != place for problem in problems):
            problems.append(source.make_problem(place, message))

    reserved = RESERVED_OWNERS.get(value["owner"])
    if reserved is not None:
        complain(f"owner: {value['owner']!r} is the owner of {reserved}: choose another", "owner")
    default = value.get("default_target")
    if default is not None and default not in value["targets"]:
        nearest = find_nearest(default, value["targets"])
        remedy = (
            f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(sorted(value['targets']))}"
        )
        complain(f"default_target: unknown target {default!r}; {remedy}", "default_target")
    for path, text in _walk(value, ()):
        if "${" not in text:
            continue
        if path[0] != "targets" or path[2] not in {"dsn", "role", "vars"}:
            complain(f"{path[-1]}: ${{…}} is read in dsn, role and vars of targets only: write it out", *path)
            continue
        try:
            insert_variables(text, _Anything(), prefix="env", target="")
        except VariableError as error:
            complain(f"{path[-1]} of target {path[1]}: {error}", *path)
    for name, target in value["targets"].items():
        if target.get("stage") == "authoritative" and target.get("prune", "never") == "never":
            fault = "authoritative deletes what nobody declared, and prune: never deletes nothing"
            complain(f"stage of target {name}: {fault}: write prune: confirm", "targets", name, "stage")
        if fault := _find_duration_fault("grace", target["grace"]) if "grace" in target else "":
            complain(f"grace of target {name}: {fault}", "targets", name, "grace")
        runtime = target.get("runtime")
        for key, text in runtime.items() if isinstance(runtime, dict) else ():
            fault = _find_duration_fault(key, text) if key != "runners" else ""
            if fault:
                complain(f"runtime.{key} of target {name}: {fault}", "targets", name, "runtime", key)
    for path, fault in find_policy_faults(value):
        complain(fault, *path)
    return problems


def _find_duration_fault(key: str, text: str) -> str:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        return str(error)
    is_pace = not find_interval_fault(duration) and (duration < _MINUTE or not _LONGEST_PAUSE % duration)
    if key == "every" and not is_pace:
        return f"{text!r} is neither 1s to 59s nor a divisor of 60 minutes: write 15s or 5m, for instance"
    return ""


def _walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _walk(child, (*path, key))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _walk(child, (*path, number))


def _make_config(path: Path, source: Source) -> Config:
    value = source.value
    jobs = value.get("jobs", "jobs.d")
    targets = {
        name: _make_target(name, target, make_governance(source, name))
        for name, target in sorted(value["targets"].items())
    }
    secrets: dict[str, Secret] = {}
    for name, secret in sorted(value.get("secrets", {}).items()):
        for store in _STORES:
            if store in secret:
                secrets[name] = Secret(name=name, store=store, key=secret[store])
    return Config(
        path=str(path),
        owner=value["owner"],
        jobs=(jobs,) if isinstance(jobs, str) else tuple(jobs),
        targets=targets,
        default_target=value.get("default_target", next(iter(targets)) if len(targets) == 1 else ""),
        secrets=secrets,
    )


def _make_target(name: str, value: dict[str, Any], governance: Governance) -> Target:
    limits = value.get("limits", {})
    usual = Policy()
    return Target(
        name=name,
        dsn=value.get("dsn", ""),
        variables=dict(sorted(value.get("vars", {}).items())),
        role=value.get("role", ""),
        pg_cron=parse_version(value["pg_cron"]) if "pg_cron" in value else None,
        policy=Policy(
            prune=value.get("prune", usual.prune),
            max_deletes=int(limits.get("deletes", usual.max_deletes)),
            max_delete_share=float(limits.get("delete_share", usual.max_delete_share)),
            stage=value.get("stage", usual.stage),
            grace=parse_duration(value["grace"]) if "grace" in value else usual.grace,
        ),
        runtime=_make_runtime(value.get("runtime", {})),
        governance=governance,
        wave=int(value.get("wave", 0)),
    )


def _make_runtime(value: dict[str, Any] | bool) -> Runtime | None:
    if isinstance(value, bool):
        return Runtime() if value else None
    durations = {key: parse_duration(text) for key, text in value.items() if key != "runners"}
    return Runtime(**durations, runners=int(value.get("runners", Runtime().runners)))
