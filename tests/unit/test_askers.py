"""Who asks, and of which commit."""

from __future__ import annotations

import pytest

from reconciler.core.askers import find_actor, find_commit


@pytest.mark.parametrize(
    ("environment", "actor", "commit"),
    [
        ({}, "", ""),
        ({"USER": "anna"}, "anna", ""),
        ({"GITHUB_ACTOR": "bert", "USER": "runner", "GITHUB_SHA": "c0ffee"}, "bert", "c0ffee"),
        ({"GITLAB_USER_LOGIN": "cleo", "USER": "root", "CI_COMMIT_SHA": "beef"}, "cleo", "beef"),
        ({"GITHUB_ACTOR": "", "USER": "anna", "GITHUB_SHA": "", "CI_COMMIT_SHA": "beef"}, "anna", "beef"),
    ],
)
def test_the_person_behind_ci_comes_first(environment: dict[str, str], actor: str, commit: str) -> None:
    """CI's words win over those of the machine, an empty one is none, and nothing known is an empty text."""
    assert (find_actor(environment), find_commit(environment)) == (actor, commit)
