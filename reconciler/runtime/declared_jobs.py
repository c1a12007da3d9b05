"""Jobs that are declared one at a time, without a file: checked as those of files are, and applied at once.

What a program registers and what the service takes goes this way. Knows the loader's checks, and takes
declarations as Python values where the loader takes files.
"""

from __future__ import annotations

import json
import math
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from reconciler.core.config import Config
from reconciler.core.specs import SECTIONS, JobSpec, Place
from reconciler.database import registrations
from reconciler.database.apply import apply_target
from reconciler.database.connect import translate
from reconciler.database.launcher import remind_launcher
from reconciler.database.observe import observe, observe_facts
from reconciler.database.sessions import read_state, require_idle
from reconciler.database.statements import Request
from reconciler.errors import ApplyLockError, InvalidInputError, StalePlanError
from reconciler.loader.builder import SpecBuilder
from reconciler.loader.declarations import Declaration
from reconciler.loader.policies import find_violation_problems
from reconciler.loader.references import find_reference_problems, find_reserved_names
from reconciler.loader.schema_check import Definition, find_schema_faults
from reconciler.loader.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reconciler.core.config import Target
    from reconciler.core.specs import Kind, Spec
    from reconciler.core.state import Definition as AppliedDefinition
    from reconciler.core.state import ObservedState
    from reconciler.database.apply import Applied, Planned

_Result = TypeVar("_Result")
_DEEPEST: Final = 50
_NOWHERE: Final = Place(path="", line=1, column=1)
_SECTION: Final = {kind: section for section, kind in SECTIONS.items()}
# There are no variables without a file: `${` stands for itself.
_FILE: Final = Definition(schema="jobs", takes_variables=False)


class DeclaredJobs:
    """Declares, changes and removes jobs of one owner; all other jobs of that owner stay as they are."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        *,
        owner: str,
        target: Target,
        actor: str,
        patience: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make it; nothing is sent.

        Args:
            conn: To the target, without an open transaction; to it alone while a method works.
            owner: Whose jobs these are.
            target: The target; its policy never prunes.
            actor: Who asks, for the revisions.
            patience: Seconds to try again while another apply works.
            sleep: Waits for pg_cron's launcher, where the schema was made.
        """
        self._conn = conn
        self._owner = owner
        self._target = target
        self._actor = actor
        self._patience = patience
        self._sleep = sleep

    def make_spec(self, name: str, declared: dict[str, Any], place: Place) -> JobSpec:
        """Make the spec of a job, checked as a job of a spec file is.

        Args:
            name: Of the job.
            declared: What is declared of it, as JSON has it.
            place: Where.

        Returns:
            The spec.

        Raises:
            InvalidInputError: Everything that is wrong, without its place.
            DatabaseError: What it may refer to could not be read.
        """
        return self.make_spec_for(name, declared, place, self.observe().definitions)

    def make_spec_for(
        self,
        name: str,
        declared: dict[str, Any],
        place: Place,
        definitions: Mapping[str, AppliedDefinition],
    ) -> JobSpec:
        """Make the spec of a job as `make_spec` does, where it is known what it may refer to.

        Args:
            name: Of the job.
            declared: What is declared of it, as JSON has it.
            place: Where.
            definitions: What is declared on the target already, by name.

        Returns:
            The spec.

        Raises:
            InvalidInputError: Everything that is wrong, without its place.
        """
        return _make_spec(name, declared, place, self._target, definitions)

    def observe(self) -> ObservedState:
        """Observe the target.

        Raises:
            DatabaseError: It could not be read.
        """
        with self.working():
            return observe(self._conn).state

    def apply(self, spec: Spec, *, require: Callable[[Planned], None] | None = None) -> Applied:
        """Apply a job or another resource; where that made the schema, see to it that pg_cron hears of it.

        Args:
            spec: Of what is declared.
            require: Looks at the plan before anything is changed, while no other apply can work; what it
                raises comes out.

        Returns:
            What was done.

        Raises:
            RefusedError: The name belongs to another owner, or to an entry that nobody declared.
            DatabaseError: It could not be applied.
        """
        request = self._request(spec)
        applied = self._insist(lambda: apply_target(self._conn, request, require=require))
        if applied.migrations:
            with self.working(), self._conn.transaction():
                remind_launcher(self._conn, observe_facts(self._conn).rights, sleep=self._sleep)
        return applied

    def remove(self, name: str, *, require: Callable[[AppliedDefinition], None] | None = None) -> bool:
        """Unschedule a job and remove its definition; a run that goes on ends by itself.

        Args:
            name: Of the job.
            require: Looks at its definition before anything is changed, as that of `apply` does.

        Returns:
            False where nobody declared it.

        Raises:
            RefusedError: It belongs to another owner, is protected, or others wait for it.
            DatabaseError: It could not be removed.
        """
        request = self._request()
        return self._insist(lambda: registrations.remove_job(self._conn, name, request, require=require))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let errors of psycopg out as ours, and refuse to work inside of the caller's transaction."""
        state = read_state(self._conn)
        require_idle(state)
        try:
            yield
        except psycopg.Error as error:
            lost = read_state(self._conn).transaction == "closed"
            raise translate(error, state.where, lost=lost) from error

    def _request(self, *specs: Spec) -> Request:
        return Request(specs=specs, owner=self._owner, target=self._target, actor=self._actor)

    def _insist(self, act: Callable[[], _Result]) -> _Result:
        """Do something again while another apply is in its way; each try is one transaction."""
        give_up_at = time.monotonic() + self._patience
        while True:
            try:
                with self.working():
                    return act()
            except (ApplyLockError, StalePlanError):
                if time.monotonic() >= give_up_at:
                    raise
            # Not all at the same time again.
            time.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - nothing secret depends on it


def _make_spec(
    name: str,
    declared: dict[str, Any],
    place: Place,
    target: Target,
    definitions: Mapping[str, AppliedDefinition],
) -> JobSpec:
    messages = list(dict.fromkeys([*_find_odd_values(name, "name"), *_find_odd_values(declared, "")]))
    if not messages:
        faults = find_schema_faults(_FILE, {"jobs": {name: declared}})
        messages = [fault.message for fault in faults]
    if not messages:
        own = _declare("job", name, declared, place, target)
        builder = SpecBuilder(_make_config(target), target)
        spec = builder.build(own)
        others = [
            _declare(other.kind, other.name, json.loads(other.document), _NOWHERE, target)
            for other in definitions.values()
            if other.name != name
        ]
        known = {problem.message for problem in find_reference_problems(others, {}, {})}
        problems = [
            *find_reserved_names([own]),
            *builder.problems,
            *(one for one in find_reference_problems([*others, own], {}, {}) if one.message not in known),
            *(() if spec is None else find_violation_problems([spec], [own], target)),
        ]
        messages = [problem.message for problem in problems]
        if not messages and isinstance(spec, JobSpec):
            return spec
    raise InvalidInputError(list(dict.fromkeys(messages)))


def _find_odd_values(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    """Find what a file cannot hold, and PostgreSQL does not take."""
    where = path or "the job"
    if depth > _DEEPEST:
        yield f"{where.split('.')[0]}: it is nested deeper than {_DEEPEST} levels"
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{where}: it holds a character that PostgreSQL does not take, NUL or half a surrogate"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where}: it is no number that JSON has"
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _find_odd_values(key, f"a key of {where}", depth)
            yield from _find_odd_values(child, f"{path}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _find_odd_values(child, f"{path}.{number}", depth + 1)


def _declare(kind: Kind, name: str, value: dict[str, Any], place: Place, target: Target) -> Declaration:
    return Declaration(
        kind=kind,
        name=name,
        place=place,
        source=Source(path=place.path),
        section=_SECTION[kind],
        own=value,
        value=value,
        target=target.name,
    )


def _make_config(target: Target) -> Config:
    return Config(
        path="", owner="", jobs=(), targets={target.name: target}, default_target=target.name, secrets={}
    )
