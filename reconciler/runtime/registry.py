"""Jobs that a program registers itself, instead of or beside files: declared, planned and applied like those.

Makes of Python values what a spec file would hold; how that is checked and applied `declared_jobs` knows.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.config import Policy, Runtime, Target
from reconciler.core.durations import render_duration
from reconciler.core.identity import REGISTRY
from reconciler.core.names import RESERVED_OWNERS
from reconciler.core.specs import Place
from reconciler.database import control, registrations
from reconciler.database.runs import has_runtime, require_runtime
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.sources import name_path

from .declared_jobs import DeclaredJobs
from .execution import handle_cron_trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psycopg

    from reconciler.database.executions import Trigger
    from reconciler.database.registrations import ExecutionResult, ScheduledJob

_RUNTIME: Final = Runtime()
_sleep: Final = time.sleep
_OURS: Final = frozenset({"sql", "http", "handler", "targets", "overrides"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handler:
    """A function of this process, and what it is called with."""

    function: Callable[..., Any]
    payload: Mapping[str, Any] = field(default_factory=dict)


class Registry:
    """Registers, lists, starts and cancels the jobs of one owner.

    Registered jobs are declared like those of spec files and are applied at once. They have an owner of their
    own: jobs of another owner are never changed, and a job that is not registered any more stays until it is
    cancelled.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        owner: str = "app",
        *,
        role: str = "",
        runtime: Runtime | None = _RUNTIME,
        patience: float = 10.0,
    ) -> None:
        """Make a registry; nothing is sent.

        Args:
            conn: To the target, without an open transaction; to it alone while a method works.
            owner: Whose jobs these are; not that of any spec files.
            role: The role that runs jobs which name none; "" is the connected one.
            runtime: The entries that carry out policies, declared where no other owner has done so; None for
                none.
            patience: Seconds to try again while another apply works: several processes of one program
                register their jobs at once when they start.

        Raises:
            ConfigError: The owner is the one of workers that are made in SQL, or of jobs of the service.
        """
        if owner in RESERVED_OWNERS:
            raise ConfigError(
                f"{owner!r} is the owner of {RESERVED_OWNERS[owner]}", remedy="choose another owner"
            )
        self._conn = conn
        self._owner = owner
        self._jobs = DeclaredJobs(
            conn,
            owner=owner,
            target=Target(name=REGISTRY, role=role, policy=Policy(prune="never"), runtime=runtime),
            actor=owner,
            patience=patience,
            sleep=_sleep,
        )
        self._handlers: dict[str, _Handler] = {}

    def register_job(
        self,
        name: str,
        schedule: str,
        handler_or_sql: Callable[..., Any] | str,
        *,
        handler: str = "",
        **policies: Any,
    ) -> bool:
        """Register a job, or change one that is registered.

        Args:
            name: Unique among all resources of the target.
            schedule: In pg_cron's grammar; "" where another trigger is among the policies, such as `daily`.
            handler_or_sql: SQL for the database; or a function, for which a job is put on its queue at each
                time. `run_registered` calls the function here.
            handler: The dotted name of the function; left out, that of its module and its own.
            **policies: Any other key of a job in a spec file, such as `timeout` or `on_failure`; durations
                may be `timedelta`.

        Returns:
            Whether anything was changed.

        Raises:
            InvalidInputError: It is no valid job; nothing was changed.
            RefusedError: The name belongs to another owner, or to an entry that nobody declared.
            DatabaseError: It could not be applied.
        """
        place = _find_caller()
        declared: dict[str, Any] = {key: _make_plain(value) for key, value in policies.items()}
        wrong = sorted(_OURS & declared.keys())
        if wrong:
            raise InvalidInputError([f"{place}: job {name}: {wrong[0]} does not go with register_job"])
        if schedule:
            declared["schedule"] = schedule
        if isinstance(handler_or_sql, str):
            declared["sql"] = handler_or_sql
        else:
            declared["handler"] = handler or _name_function(handler_or_sql)
        try:
            spec = self._jobs.make_spec(name, declared, place)
        except InvalidInputError as error:
            raise InvalidInputError([f"{place}: {problem}" for problem in error.problems]) from None
        applied = self._jobs.apply(spec)
        if not isinstance(handler_or_sql, str):
            self._handlers[name] = _Handler(function=handler_or_sql, payload=declared.get("payload", {}))
        return applied.revision is not None

    def trigger_job(self, name: str) -> int:
        """Ask for a run now; a runner of the job's role starts it.

        Args:
            name: Of a managed job, of whatever owner.

        Returns:
            The request's id: the run will have it as `start_id`. Asking again before it began is asking once.

        Raises:
            DatabaseError: There is no such job, or the role may not control it.
        """
        with self._jobs.working(), self._conn.transaction():
            require_runtime(self._conn)
            return control.request_run(self._conn, name)

    def cancel_job(self, name: str) -> bool:
        """Unschedule a job of this owner and remove its definition; a run that goes on ends by itself.

        Args:
            name: Of the job.

        Returns:
            False where nobody declared it.

        Raises:
            RefusedError: It belongs to another owner, is protected, or others wait for it.
            DatabaseError: It could not be removed.
        """
        removed = self._jobs.remove(name)
        self._handlers.pop(name, None)
        return removed

    def list_scheduled_jobs(self, *, everybody: bool = False) -> tuple[ScheduledJob, ...]:
        """List the jobs of this owner, registered by this process or another.

        Args:
            everybody: Those of all owners.

        Returns:
            Sorted by name; none where nothing was applied yet.

        Raises:
            DatabaseError: They could not be read.
        """
        with self._jobs.working(), self._conn.transaction():
            if not has_runtime(self._conn):
                return ()
            return registrations.list_scheduled_jobs(self._conn, None if everybody else self._owner)

    def get_last_execution_result(self, name: str) -> ExecutionResult | None:
        """Read how the last run of a job went that is over and was not skipped.

        Args:
            name: Of any job, declared or not.

        Returns:
            The result; None where there is none.

        Raises:
            DatabaseError: It could not be read.
        """
        with self._jobs.working(), self._conn.transaction():
            if not has_runtime(self._conn):
                return None
            return registrations.read_last_result(self._conn, name)

    def run_registered(self, name: str, *, trigger: Trigger = "schedule") -> Any:
        """Call the function that this process registered for a job, under its lock and with its log.

        Args:
            name: Of the job.
            trigger: Why; `schedule` for a cron of one's own.

        Returns:
            What the function returned, given the declared payload as keywords; None when it was skipped.

        Raises:
            ConfigError: This process registered no function under that name.
            DatabaseError: As `locked_execution` does; what the function raises comes out as it is.
        """
        known = self._handlers.get(name)
        if known is None:
            raise ConfigError(
                f"this process registered no function for the job {name}",
                remedy="call register_job with the function first",
            )
        return handle_cron_trigger(self._conn, name, lambda: known.function(**known.payload), trigger=trigger)


def _make_plain(value: Any) -> Any:
    """Make of a Python value what a spec file would hold."""
    if isinstance(value, timedelta):
        return render_duration(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _make_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_make_plain(item) for item in value]
    return sorted(value) if isinstance(value, set | frozenset) else value


def _name_function(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    return f"{module}.{name}" if module and name else repr(function)


def _find_caller() -> Place:
    """Find who called into this package: what it calls itself is nobody's place."""
    own = f"{__package__}."
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(own):
        frame = frame.f_back
    if frame is None:
        return Place(path="unknown", line=1, column=1)
    return Place(path=name_path(Path(frame.f_code.co_filename)), line=frame.f_lineno, column=1)
