"""`--only`, `--label` and `--path`: a part of the files is planned, and nothing is deleted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from reconciler.resources import read_resource
from tests.declared import NEVER
from tests.integration.test_ownership import Project, project, tidy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["project"]

pytestmark = pytest.mark.one_server


def declare(**files: Mapping[str, Any]) -> None:
    """Write jobs into several files."""
    for name, jobs in files.items():
        Path(f"jobs.d/{name}.yaml").write_text(json.dumps({"jobs": jobs}))


def test_a_part_is_planned_and_applied(project: Project) -> None:
    """By name, by label and by file; what is left out stays as it is, and what is gone stays too."""
    declare(shop={"a": tidy(), "b": tidy(labels={"team": "data"}), "gone": tidy()}, more={"c": tidy()})
    project.must_run("apply", "--yes")
    declare(
        shop={"a": tidy(sql="SELECT 2"), "b": tidy(sql="SELECT 2", labels={"team": "data"})},
        more={"c": tidy(sql="SELECT 2")},
    )
    project.site.run(
        "SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname IN ('a', 'c')"
    )
    for args, names in (
        (("--only", "a"), ["a"]),
        (("--label", "team=d*"), ["b"]),
        (("--path", "jobs.d/more.yaml"), ["c"]),
        (("--path", "jobs.d", "--only", "[ab]", "--only", "b"), None),
        (("--path", "jobs.d", "--only", "b", "--only", "c"), ["b", "c"]),
    ):
        result = project.run("plan", "--format", "json", *args)
        found = [one["name"] for one in json.loads(result.stdout)["changes"]] if names else None
        assert (found, result.exit_code) == (names, 0 if names else 1)
    drift = project.run("drift", "--exit-code", "--only", "c")
    assert (drift.exit_code, "job c" in drift.stdout, "job a" in drift.stdout) == (7, True, False)
    shown = project.must_run("apply", "--yes", "--only", "a")
    assert (
        "1 of 3 declared resources are selected; under a selection nothing is deleted or retired: 1" in shown
    )
    specs = dict(project.site.rows("SELECT name, spec ->> 'sql' FROM reconciler.definitions"))
    assert specs == {"a": "SELECT 2", "b": "SELECT 1", "c": "SELECT 1", "gone": "SELECT 1"}


def test_a_selection_and_consent_to_deletions_exclude_each_other(project: Project) -> None:
    """It is said as a wrong usage, before anything is connected to; so are labels that are none."""
    declare(shop={"a": tidy()})
    for args, words in (
        (("apply", "--only", "a", "--allow-deletes", "1"), "leave --allow-deletes out"),
        (("plan", "--label", "team"), "'team' is not KEY=VALUE"),
        (("apply", "plan.json", "--only", "a"), "are said when the plan is made"),
    ):
        result = project.run(*args)
        assert (result.exit_code, words in result.stderr) == (2, True)
    wrong = project.run("plan", "--only", "b")
    assert (wrong.exit_code, "--only b fits nothing that is declared" in wrong.stderr) == (1, True)


def test_a_saved_plan_keeps_its_selection(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is applied as it was made, in whatever folder, whatever becomes of what was not selected."""
    declare(shop={"a": tidy(), "b": tidy()}, more={"c": tidy()})
    project.must_run("plan", "--path", "jobs.d/more.yaml", "--only", "*", "--out", "plan.json")
    saved = json.loads(Path("plan.json").read_text())
    jsonschema.validate(saved, json.loads(read_resource("schemas", "plan.schema.json")))
    assert saved["saved"]["selection"] == {"only": ["*"], "label": [], "path": ["jobs.d/more.yaml"]}
    declare(shop={"a": tidy(sql="SELECT 2"), "b": tidy()})
    os.chdir("jobs.d")
    refused = project.run("apply", "../plan.json", "--allow-deletes", "1")
    assert (refused.exit_code, "deletes nothing" in refused.stderr) == (2, True)
    project.must_run("apply", "../plan.json")
    monkeypatch.chdir("..")
    assert project.site.rows("SELECT jobname FROM cron.job") == [("c",)]


def test_what_refers_to_what_is_missing_is_refused(project: Project) -> None:
    """The names of what has to be selected too are said."""
    declare(shop={"a": tidy(), "b": {"sql": "SELECT 1", "after": ["a"]}})
    refused = project.run("apply", "--yes", "--only", "b")
    assert refused.exit_code == 4
    assert "job b refers to a, which the target does not have\n  select these too" in refused.stderr
    project.must_run("apply", "--yes", "--only", "a")
    project.must_run("apply", "--yes", "--only", "b")


def test_only_the_secrets_of_what_is_selected_are_brought(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that another job needs is not read, and its absence is not told."""
    monkeypatch.setenv("ONE", "first")
    with Path("reconciler.yaml").open("a") as file:
        file.write("secrets: {one: {env: ONE}, two: {env: TWO}}\n")
    hook = {"schedule": NEVER, "http": {"url": "https://app.test"}}
    declare(
        shop={
            name: {**hook, "http": {**hook["http"], "token": {"secret": name}}}  # type: ignore[dict-item]
            for name in ("one", "two")
        }
    )
    shown = project.must_run("apply", "--yes", "--only", "one")
    assert "secret two" not in shown
    assert project.site.rows("SELECT name FROM reconciler.secrets") == [("one",)]


def test_problems_of_what_is_not_selected_do_not_matter(project: Project) -> None:
    """A spec that this server cannot take hinders nobody who left it out."""
    declare(shop={"a": tidy(), "b": tidy(database="elsewhere")})
    refused = project.run("plan")
    assert (refused.exit_code, "a managed job runs in the target's own database" in refused.stderr) == (
        1,
        True,
    )
    project.must_run("apply", "--yes", "--only", "a")
