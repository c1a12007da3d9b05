"""Which secrets the database itself needs, because it sends requests; values are never seen here."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from reconciler.core.specs import ChannelSpec, HttpBody, JobSpec, WorkerSpec
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from reconciler.core.specs import Spec


def list_needed_secrets(specs: Sequence[Spec]) -> dict[str, tuple[str, ...]]:
    """List the secrets that requests sent from the database need.

    Args:
        specs: Everything declared for the target.

    Returns:
        For each secret's name the resources that use it: jobs and workers with a token, and channels that the
        database serves. Both sorted.
    """
    users: defaultdict[str, list[str]] = defaultdict(list)
    for spec in specs:
        match spec:
            case JobSpec(body=HttpBody(secret=secret)) if secret:
                users[secret].append(spec.name)
            case WorkerSpec(secret=secret) | ChannelSpec(secret=secret, deliver="database") if secret:
                users[secret].append(spec.name)
            case _:
                pass
    return {name: tuple(sorted(users[name])) for name in sorted(users)}


def find_missing_secrets(
    specs: Sequence[Spec], stored: Collection[str] | None, given: Collection[str]
) -> tuple[Notice, ...]:
    """Find the secrets without which requests will fail.

    Args:
        specs: Everything declared for the target.
        stored: Names of the secrets that the target has; None where the role cannot see them.
        given: Names of those that an apply would bring.

    Returns:
        One notice for each that is neither stored nor given, or one that this role cannot bring any.
    """
    needed = list_needed_secrets(specs)
    if stored is None:
        users = sorted({user for names in needed.values() for user in names})
        message = "only the owner of the schema reconciler can bring secrets to the target; these need some"
        return (Notice(code="secret", message=message, names=tuple(users)),) if users else ()
    return tuple(
        Notice(
            code="secret",
            message=f"the secret {name} is not on the target, and has no value here to bring: until it has, "
            "these fail; set it where reconciler.yaml says, and apply",
            names=users,
        )
        for name, users in needed.items()
        if name not in stored and name not in given
    )
