"""What most commands begin with: options, configuration, target and specs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from reconciler.errors import ConfigError
from reconciler.loader.config import find_config, load_config, resolve_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec

_Function = TypeVar("_Function", bound="Callable[..., object]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One command's view of the world.

    Attributes:
        config: The whole configuration.
        target: The target that was chosen.
        specs: What is declared for it, where that was loaded already; None where it was not.
    """

    config: Config
    target: Target
    specs: tuple[Spec, ...] | None = None

    def load_specs(self, *, may_be_empty: bool = False) -> tuple[Spec, ...]:
        """Load everything that is declared for the target."""
        from reconciler.loader.specs import load_specs

        if self.specs is not None:
            return self.specs
        return load_specs(self.config, self.target, may_be_empty=may_be_empty)

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """Open a connection to the target."""
        from reconciler.database.connect import connect

        with connect(self.find_dsn()) as conn:
            yield conn

    def find_dsn(self) -> str:
        """Find where the target is.

        Returns:
            A connection string; of the private server where the target says `local`.
        """
        dsn = self.target.dsn
        if dsn == "local":
            from reconciler.runtime.local import find_local_dsn

            return find_local_dsn(Path(self.config.path).parent / ".reconciler" / "local")
        if not dsn:
            raise ConfigError(
                f"the target {self.target.name} has no dsn",
                remedy=f"write one in {self.config.path}, such as dsn: ${{env:DATABASE_URL}}, or give --dsn",
            )
        return dsn


config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration [reconciler.yaml here or above].",
)
target_option = click.option(
    "--target", "-t", "target_name", metavar="NAME", help="The target [the default one]."
)
dsn_option = click.option("--dsn", metavar="DSN", help="Connect here instead of to the target's own dsn.")


def target_options(function: _Function) -> _Function:
    """Add the options by which a command finds and reaches its target.

    Args:
        function: The command; it gets `config_path`, `target_name` and `dsn`.

    Returns:
        The same command.
    """
    return config_option(target_option(dsn_option(function)))


def open_session(config_path: Path | None, target_name: str | None, dsn: str | None = None) -> Session:
    """Load the configuration and choose the target.

    Args:
        config_path: Where the configuration is; None looks here and above.
        target_name: Which target; None takes the default one.
        dsn: Where to connect instead.

    Returns:
        The session; nothing was connected to yet.
    """
    config = read_config(config_path, dsn)
    return Session(config=config, target=resolve_target(config, target_name, environment=os.environ))


def read_config(config_path: Path | None, dsn: str | None = None) -> Config:
    """Load the configuration.

    Args:
        config_path: Where it is; None looks here and above.
        dsn: Where to connect instead, whatever the target.

    Returns:
        The configuration.
    """
    config = load_config(config_path or find_config(Path.cwd()))
    return config if dsn is None else config.with_dsn(dsn)
