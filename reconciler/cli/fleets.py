"""Targets that are chosen together: the options for it, and their sessions."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from reconciler.cli.session import Session, config_option, dsn_option
from reconciler.core.fleets import choose_targets, has_pattern, order_waves
from reconciler.errors import ConfigError, InvalidInputError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reconciler.core.specs import Spec

_Function = TypeVar("_Function", bound="Callable[..., object]")

PARALLEL = 4
"""Targets at once."""
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The targets that a person chose, several or by a pattern.

    Attributes:
        config_path: Where the configuration is; None looks here and above.
        patterns: Names and patterns.
        parallel: How many targets are at work at once.
        keep_going: Go on with others where one failed.
    """

    config_path: Path | None
    patterns: tuple[str, ...]
    parallel: int
    keep_going: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Targets whose specs were read, ready to be connected to.

    Attributes:
        waves: Their names, wave by wave.
        numbers: Their waves.
        sessions: With their specs, by target; those that could not be read are left out.
        errors: Why not, by target.
    """

    waves: tuple[tuple[str, ...], ...]
    numbers: Mapping[str, int]
    sessions: Mapping[str, Session]
    errors: Mapping[str, ReconcilerError]

    def find_session(self, name: str) -> Session:
        """Find the session of a target; raises why there is none."""
        if name in self.errors:
            raise self.errors[name]
        return self.sessions[name]


def fleet_options(*, changes: bool) -> Callable[[_Function], _Function]:
    """Make the options of a command that takes one target or many.

    Args:
        changes: Whether it changes targets, so that there are waves, which end where a target fails.

    Returns:
        A decorator in the place of `target_options`: the command gets `fleet` too, a `Choice` or None.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def choosing(
            *args: object,
            config_path: Path | None,
            target_names: tuple[str, ...],
            dsn: str | None,
            parallel: int | None,
            keep_going: bool = False,
            **kwargs: object,
        ) -> object:
            fleet = None
            if has_pattern(target_names):
                if dsn is not None:
                    raise click.UsageError("--dsn leads to one target, and --target names several")
                fleet = Choice(
                    config_path=config_path,
                    patterns=target_names,
                    parallel=parallel or PARALLEL,
                    keep_going=keep_going or not changes,
                )
            elif parallel is not None or keep_going:
                option = "--keep-going" if parallel is None else "--parallel"
                raise click.UsageError(f"{option} goes with several targets: -t a -t b, or -t 'tenant-*'")
            name = target_names[0] if target_names and fleet is None else None
            return function(*args, config_path=config_path, target_name=name, dsn=dsn, fleet=fleet, **kwargs)

        target = click.option(
            "--target",
            "-t",
            "target_names",
            multiple=True,
            metavar="NAME",
            help="The target [the default one]; several, or patterns with *, make a fleet.",
        )
        parallel_option = click.option(
            "--parallel",
            type=click.IntRange(1, _MOST),
            metavar="N",
            help=f"Of several targets, how many at once [{PARALLEL}].",
        )
        keep_option = click.option(
            "--keep-going", is_flag=True, help="Go on with the other targets where one fails."
        )
        options = [config_option, target, dsn_option, parallel_option, *([keep_option] if changes else [])]
        return functools.reduce(lambda inner, option: option(inner), reversed(options), choosing)  # type: ignore[return-value] # click keeps what a decorator gets

    return decorate


def open_fleet(choice: Choice) -> Fleet:
    """Read the configuration and the files, each once, and make the specs of every target.

    Args:
        choice: Of targets.

    Returns:
        The fleet; nothing was connected to yet.

    Raises:
        ConfigError: A pattern fits no target.
        InvalidInputError: Problems of the files that all targets share.
    """
    from reconciler.loader.config import find_config, load_config, resolve_target
    from reconciler.loader.problems import render_problems
    from reconciler.loader.sources import name_path
    from reconciler.loader.specs import load_sources, load_specs

    path = choice.config_path or find_config(Path.cwd())
    config = load_config(path)
    try:
        names = choose_targets(choice.patterns, config.targets)
    except ValueError as error:
        raise ConfigError(f"{name_path(path)}: {error}") from error
    files = load_sources(config)
    if files[1]:
        raise InvalidInputError(render_problems(files[1]))
    sessions: dict[str, Session] = {}
    errors: dict[str, ReconcilerError] = {}
    shared: dict[Spec, Spec] = {}  # most targets have most specs alike
    for name in names:
        try:
            target = resolve_target(config, name, environment=os.environ)
            specs = tuple(shared.setdefault(spec, spec) for spec in load_specs(config, target, files))
        except ReconcilerError as error:
            errors[name] = error
        else:
            sessions[name] = Session(config=config, target=target, specs=specs)
    return Fleet(
        waves=order_waves(config.targets[name] for name in names),
        numbers={name: config.targets[name].wave for name in names},
        sessions=sessions,
        errors=errors,
    )
