"""What `reconciler.yaml` says: the owner, the targets with their policies, and where secrets come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from reconciler.core.policies import Governance

if TYPE_CHECKING:
    from collections.abc import Mapping

Prune = Literal["never", "confirm", "auto"]
Stage = Literal["add-only", "declared-only", "authoritative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much an apply may take away from a target.

    Attributes:
        prune: What happens to a resource that is no longer declared. never: it stays, and plan says so.
            confirm: it is deleted when the person names the number of deletions. auto: it is deleted within
            the limits.
        max_deletes: Deletions that need no consent under `auto`.
        max_delete_share: The share of the owner's resources, 0 to 1, whose deletion needs no consent.
        stage: How far it goes. add-only: it creates, and marks as ours what is as declared. declared-only: it
            also changes and takes away what this owner declares or declared. authoritative: it also deletes
            the entries that nobody declared.
        grace: How long what is no longer declared stands still before it is deleted; zero deletes it at once.
    """

    prune: Prune = "never"
    max_deletes: int = 5
    max_delete_share: float = 0.5
    stage: Stage = "declared-only"
    grace: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The entries that the tool declares for itself, so that policies are carried out.

    Attributes:
        every: How often they look for work: less than a minute, or minutes that divide an hour.
        runners: How many runs each role can have at once besides those that entries fire; 1 to 8.
        keep_runs: How long the log of runs and closed alerts are kept.
        keep_details: How long pg_cron's own records of its runs are kept.
    """

    every: timedelta = timedelta(seconds=15)
    runners: int = 1
    keep_runs: timedelta = timedelta(days=30)
    keep_details: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One database that is reconciled.

    Attributes:
        name: How people call it.
        dsn: A libpq connection string, `local` for the private server, or "" where none was given.
        variables: What `${var:…}` stands for.
        role: The role that runs entries which name none; "" is the role that applies.
        pg_cron: The version to check against without a connection; None checks for any version.
        policy: What may be taken away.
        runtime: The tool's own entries; None declares none.
        governance: Policies on specs and changes, and when an apply is allowed.
        wave: When its turn comes in an apply on many targets, 0 to 99: 0 first.
    """

    name: str
    dsn: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    pg_cron: tuple[int, int, int] | None = None
    policy: Policy = field(default_factory=Policy)
    runtime: Runtime | None = None
    governance: Governance = field(default_factory=Governance)
    wave: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret's value is kept; the value itself is never held here.

    Attributes:
        name: How specs refer to it.
        store: The environment, a file, or Supabase Vault in the target.
        key: The variable, the path or the name in the vault.
    """

    name: str
    store: Literal["env", "file", "vault"]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole `reconciler.yaml`.

    Attributes:
        path: The file.
        owner: Whose specs these are: a repository or a team.
        jobs: Folders, files and patterns of spec files, relative to the file's folder.
        targets: By name.
        default_target: The target of commands that name none.
        secrets: By name.
    """

    path: str
    owner: str
    jobs: tuple[str, ...]
    targets: Mapping[str, Target]
    default_target: str
    secrets: Mapping[str, Secret]

    def with_dsn(self, dsn: str) -> Config:
        """Let all targets be where somebody said, whatever the file says.

        To be done before a target is resolved: its own dsn may need a variable that is not set.

        Args:
            dsn: A connection string.
        """
        targets = {name: replace(target, dsn=dsn) for name, target in self.targets.items()}
        return replace(self, targets=targets)
