"""The spec files that a long-lived process knows: read anew when one of them changed."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from reconciler.errors import ConfigError
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.sources import find_files
from reconciler.loader.specs import load_specs

from .plans import make_plan_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec
    from reconciler.database.statements import Request

_SETTLED: Final = 2_000_000_000
"""Nanoseconds after which a file that is written again has another time: FAT counts by two seconds."""

_State: TypeAlias = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    config: Config
    target: Target
    specs: tuple[Spec, ...]
    state: _State
    is_settled: bool


class WatchedSpecFiles:
    """Configuration, target and specs, for threads.

    What is read is what the files hold: a change is seen by the times, sizes and numbers of the files, and by
    which there are.

    Args:
        path: The configuration.
        target_name: The target; None takes the default one.
        environment: Variables that the configuration names, and in which secrets are.
        dsn: Where the target is, whatever the configuration says; None takes that.
        clock: Nanoseconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        target_name: str | None = None,
        *,
        environment: Mapping[str, str],
        dsn: str | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        # The working directory may change; `jobs` starts from the folder of the file.
        self._path = path.absolute()
        self._target_name = target_name
        self._environment = environment
        self._dsn = dsn
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._first_dsn: str | None = None

    def load(self) -> tuple[Config, Target, tuple[Spec, ...]]:
        """Load configuration, target and specs as the files are now.

        Returns:
            The three of them; whoever calls changes nothing in them.

        Raises:
            InvalidInputError: Every problem of the files, each with its place.
            ConfigError: There is no configuration or no such target, a variable is not set, or the target is
                no longer where it was when this began.
        """
        with self._lock:
            loaded = self._loaded
            if loaded is None or not loaded.is_settled or loaded.state != self._look(loaded.config):
                self._loaded = None  # what was good is not told again when it is no longer
                self._loaded = loaded = self._load()
            return loaded.config, loaded.target, loaded.specs

    def make_request(self) -> Request:
        """Make the request of a plan, as the command line does; secrets are fetched each time.

        Returns:
            The request of everything that is declared.

        Raises:
            InvalidInputError: As `load`.
            ConfigError: As `load`.
        """
        config, target, specs = self.load()
        return make_plan_request(config, target, specs, environment=self._environment)

    def find_target(self) -> Target:
        """Find the target, without the specs.

        Returns:
            The target as the configuration has it now.

        Raises:
            InvalidInputError: Every problem of the configuration.
            ConfigError: As `load`.
        """
        return self._resolve(self._load_config())

    def _resolve(self, config: Config) -> Target:
        target = resolve_target(config, self._target_name, environment=self._environment)
        if self._first_dsn is None:
            self._first_dsn = target.dsn
        if target.dsn != self._first_dsn:
            raise ConfigError(
                f"the dsn of the target {target.name} changed since this process began",
                remedy="start it anew: it is still connected to where the target was",
            )
        return target

    def _load_config(self) -> Config:
        config = load_config(self._path)
        return config if self._dsn is None else config.with_dsn(self._dsn)

    def _load(self) -> _Loaded:
        now = self._clock()
        config = self._load_config()
        # Before the files are read: what changes meanwhile is seen the next time.
        state = self._look(config)
        target = self._resolve(config)
        return _Loaded(
            config=config,
            target=target,
            specs=load_specs(config, target),
            state=state,
            is_settled=all(max(times) < now - _SETTLED for _, *times, _, _ in state),
        )

    def _look(self, config: Config) -> _State:
        return tuple(map(_describe, self._list(config)))

    def _list(self, config: Config) -> Iterable[Path]:
        yield self._path
        for pattern in config.jobs:
            yield from sorted(find_files(self._path.parent, pattern)[0])


def _describe(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - it is done for each file at each look
    except OSError:
        return str(path), 0, 0, 0, 0
    return str(path), found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
