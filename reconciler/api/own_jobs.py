"""Jobs that are made through the service: declared, changed and removed, each in one apply.

They have an owner of their own. What another owner declared is changed where it is declared, and what nobody
declared is first to be adopted; the answers say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors

from reconciler.core.callable_urls import ForbiddenUrlError, judge_addresses, read_called_host
from reconciler.core.canonical import digest
from reconciler.core.config import Policy, Runtime, Target
from reconciler.core.identity import REGISTRY
from reconciler.core.names import API_OWNER, SQL_OWNER
from reconciler.core.specs import Place
from reconciler.database.registrations import has_role
from reconciler.errors import (
    ApplyLockError,
    ConfigError,
    DatabaseError,
    InvalidInputError,
    RefusedError,
    StalePlanError,
)
from reconciler.runtime.declared_jobs import DeclaredJobs
from reconciler.runtime.host_lookup import look_up

from .problems import ProblemError

if TYPE_CHECKING:
    from reconciler.core.state import Definition
    from reconciler.database.apply import Planned

    from .callers import Caller
    from .context import Service

_PATIENCE: Final = 5.0
_LOOKUP: Final = 3.0
_OF_FILES: Final = ("overrides", "renamed_from", "targets")
_WRONG_VALUES: Final = errors.DataError
_NEVER: Final = Policy(prune="never")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSpec:
    """A job as somebody sent it.

    Attributes:
        name: Of the job.
        declared: What stands below the name in a spec file.
        faults: What is wrong with it that no file could tell.
    """

    name: str
    declared: dict[str, Any]
    faults: tuple[str, ...] = ()


def read_new_spec(service: Service, name: object, declared: dict[str, Any]) -> NewSpec:
    """Read a job that somebody sent; looks names of hosts up, so call it without a connection.

    Args:
        service: Of the request.
        name: Of the job, as it came.
        declared: What is declared of it.

    Raises:
        InvalidInputError: It has no name.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(["name: the job needs one, a text such as nightly-report"])
    faults = [
        f"{key}: it means something in files alone; leave it out" for key in _OF_FILES if key in declared
    ]
    http = declared.get("http")
    if isinstance(http, dict):
        faults += _find_url_faults(service, http.get("url"))
        if "token" in http:
            faults.append(
                "http.token: what comes through the service sends no secrets; declare the job in a file"
            )
    kept = {key: value for key, value in declared.items() if key not in _OF_FILES}
    if isinstance(http, dict):
        kept["http"] = {key: value for key, value in http.items() if key != "token"}
    return NewSpec(name=name, declared=kept, faults=tuple(faults))


def _find_url_faults(service: Service, url: object) -> Iterator[str]:
    if not isinstance(url, str):
        return
    try:
        called = read_called_host(url, service.allowed_hosts)
        if not called.is_allowed and called.address is None:
            judge_addresses(called.name, look_up(called.name, called.port, timeout=_LOOKUP))
    except ForbiddenUrlError as error:
        yield f"http.url: {error.reason}; {error.remedy}"


class OwnJobs:
    """The jobs of the service on one connection, as one caller changes them."""

    def __init__(self, service: Service, caller: Caller, conn: psycopg.Connection[Any]) -> None:
        """Make it; nothing is sent.

        Args:
            service: Of the request.
            caller: Who asks.
            conn: In autocommit mode.

        Raises:
            ProblemError: 503; the policies of the target are in files that cannot be read.
        """
        self._conn = conn
        self._place = Place(path=f"api/{caller.name}", line=1, column=1)
        self._jobs = DeclaredJobs(
            conn,
            owner=API_OWNER,
            target=_find_target(service),
            actor=f"api/{caller.name}",
            patience=_PATIENCE,
        )

    def put(self, new: NewSpec, *, require: Callable[[Definition | None], None]) -> None:
        """Make or change a job.

        Args:
            new: The job.
            require: Looks at what is declared under its name, before anything is changed.

        Raises:
            ProblemError: Of `require`.
            InvalidInputError: Everything that is wrong with the job.
            RefusedError: The target, another owner or another apply forbids it.
            DatabaseError: It could not be applied.
        """
        with _telling_of_applies():
            observed = self._jobs.observe()
            # Who may not change it is not told first what is wrong with it.
            require(observed.definitions.get(new.name))
            faults = list(new.faults)
            try:
                spec = self._jobs.make_spec_for(new.name, new.declared, self._place, observed.definitions)
            except InvalidInputError as error:
                raise InvalidInputError([*error.problems, *faults]) from None
            if spec.role and not has_role(self._conn, spec.role):
                faults.append(f"role: the server has no role {spec.role}")
            if faults:
                raise InvalidInputError(faults)

            def check(planned: Planned) -> None:
                require(planned.observed.definitions.get(new.name))
                if planned.problems:
                    raise InvalidInputError([problem.message for problem in planned.problems])
                _refuse_blind_adoption(planned, new.name)

            self._jobs.apply(spec, require=check)

    def remove(self, name: str, *, require: Callable[[Definition | None], None]) -> bool:
        """Unschedule and forget a job.

        Args:
            name: Of the job.
            require: Looks at what is declared under its name, before anything is changed.

        Returns:
            False where nobody declared it.

        Raises:
            ProblemError: Of `require`.
            RefusedError: It is protected, others wait for it, or the target forbids it.
            DatabaseError: It could not be removed.
        """
        with _telling_of_applies():
            return self._jobs.remove(name, require=require)


def make_etag(document: str) -> str:
    """Make the ETag of what is declared.

    Args:
        document: Canonical JSON.
    """
    return f'"{digest(document)}"'


def require_owned(definition: Definition) -> None:
    """Make sure that a job is of the service.

    Args:
        definition: What is declared.

    Raises:
        ProblemError: 409, with whose it is and where it is declared.
    """
    if definition.owner == API_OWNER:
        return
    what = f"{definition.kind} {definition.name}"
    if definition.owner == SQL_OWNER:
        raise ProblemError(
            409,
            f"{what} was made in SQL",
            f"change it there: reconciler.create_queue_worker('{definition.name}', …)",
        )
    raise ProblemError(
        409,
        f"{what} is declared in {definition.source or 'an unknown place'} by the owner {definition.owner}",
        "change it there and apply; the service changes what was made through it",
    )


def require_match(definition: Definition, if_match: str | None) -> None:
    """Make sure that a job is still what somebody read.

    Args:
        definition: What is declared.
        if_match: The header of that name; None for none.

    Raises:
        ProblemError: 412; it is declared otherwise.
    """
    if if_match is None or if_match.strip() == "*":
        return
    etag = make_etag(definition.document)
    if etag not in (one.strip() for one in if_match.split(",")):
        raise ProblemError(
            412,
            f"{definition.name} is not what If-Match says",
            "read it again, and change what it is now",
            {"ETag": etag},
        )


def _refuse_blind_adoption(planned: Planned, name: str) -> None:
    """Refuse to write over an entry that nobody declared; one that is declared as it stands is taken over."""
    change = next((change for change in planned.plan.changes if change.name == name), None)
    if change is None or change.obstacle is None or change.before is None or change.reason != "adopted":
        return
    raise ProblemError(
        409,
        change.obstacle.why,
        f"to take it over, send it as GET /api/v1/cron/jobs/{name}/spec has it; else choose another name",
    )


def _find_target(service: Service) -> Target:
    """Find the target with its policies and windows, which hold for the service as for files."""
    if service.files is None:
        return Target(name=REGISTRY, policy=_NEVER, runtime=Runtime())
    try:
        _, target, _ = service.files.load()
    except (InvalidInputError, ConfigError) as error:
        raise ProblemError(
            503,
            "the files of this service cannot be read, and what its target permits stands there",
            "mend them: reconciler validate says what is wrong",
            {"Retry-After": "60"},
        ) from error
    return replace(target, policy=_NEVER)


@contextmanager
def _telling_of_applies() -> Iterator[None]:
    """Tell who comes in the way of another apply to come again."""
    try:
        yield
    except (ApplyLockError, StalePlanError) as error:
        raise ProblemError(
            409, "another apply works on this target", "call again in a moment", {"Retry-After": "5"}
        ) from error
    except RefusedError as error:
        raise ProblemError(409, error.message.removeprefix("nothing was changed: "), error.remedy) from error
    except DatabaseError as error:
        cause = error.__cause__
        if not isinstance(cause, _WRONG_VALUES):
            raise
        # Such as a schedule that this pg_cron does not read.
        raise InvalidInputError([cause.diag.message_primary or "the database refused a value"]) from error
