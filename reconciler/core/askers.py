"""Who asks for a change, and of which commit, as the environment of CI and of people tells; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACTORS: Final = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER")
_COMMITS: Final = ("GITHUB_SHA", "CI_COMMIT_SHA")


def find_actor(environment: Mapping[str, str]) -> str:
    """Find who asks: the person whom CI acts for, else this machine's user.

    Args:
        environment: The environment's variables.

    Returns:
        A name; "" if unknown.
    """
    return _find_first(environment, _ACTORS)


def find_commit(environment: Mapping[str, str]) -> str:
    """Find the commit that CI has checked out.

    Args:
        environment: The environment's variables.

    Returns:
        The commit; "" if unknown.
    """
    return _find_first(environment, _COMMITS)


def _find_first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next(filter(None, (environment.get(name, "") for name in names)), "")
