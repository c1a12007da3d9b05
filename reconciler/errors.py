"""The whole exception tree; imports nothing of ours.

Every error says what happened and what to do; the command line prints `str(error)` and picks the exit code.

    ReconcilerError                 anything that we raise on purpose                        (exit 1)
    ├── InvalidInputError           problems in files, each with its place
    ├── ConfigError                 no configuration, no such target, an unset variable
    ├── DatabaseError               the target could not be read or written
    │   ├── ConnectError            no server, wrong password, wrong database, connection lost
    │   │   └── BusyError           the server is there, and has no time or no connection for this
    │   ├── PgCronMissingError      the extension is not in this database
    │   ├── RightsError             the role may not do this
    │   └── MigrationError          the schema on the target does not fit this release
    ├── RefusedError                a safety limit or a protection said no                   (exit 4)
    ├── StalePlanError              the target moved since the plan was made                 (exit 5)
    ├── ApplyLockError              another apply holds the lock                             (exit 6)
    └── LocalServerError            the private PostgreSQL could not be made or started
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReconcilerError(Exception):
    """Something that a person can mend.

    Attributes:
        message: What happened, and where.
        remedy: What to do about it; empty where the message says so already.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class InvalidInputError(ReconcilerError):
    """Files hold problems; all of them are reported at once.

    Attributes:
        problems: The rendered problems, each as `path:line:column: message`, in the order of the files.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        count = len(problems)
        super().__init__("\n".join([*problems, f"{count} problem{'' if count == 1 else 's'} found."]))
        self.problems = tuple(problems)


class ConfigError(ReconcilerError):
    """The configuration lacks something that the command needs."""


class DatabaseError(ReconcilerError):
    """The target could not be read or written."""


class ConnectError(DatabaseError):
    """No connection to the target, or it went away."""


class BusyError(ConnectError):
    """The target is there, and has no time or no connection for this now."""


class PgCronMissingError(DatabaseError):
    """The extension pg_cron is not in the target database."""


class RightsError(DatabaseError):
    """The connected role lacks a right."""


class MigrationError(DatabaseError):
    """The reconciler schema on the target does not fit this release."""


class RefusedError(ReconcilerError):
    """A safety limit, a protection or a foreign owner forbids the change."""


class StalePlanError(ReconcilerError):
    """The target moved between the plan and the apply."""


class ApplyLockError(ReconcilerError):
    """Another apply holds the lock of this target."""


class LocalServerError(ReconcilerError):
    """The private PostgreSQL could not be found, made, started or stopped."""
