"""The workflows, the action and the examples of docs/ci.md: rights, pins, injection, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from reconciler.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
OURS = ("validate", "plan", "apply", "drift")
ACTION_PATH = ROOT / ".github" / "actions" / "reconciler" / "action.yml"
DOCS = (ROOT / "docs" / "ci.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)]
GITHUB_BLOCKS = [block for block in BLOCKS if "jobs" in block]
GITLAB = next(block for block in BLOCKS if "stages" in block)
SAMPLES = {"CONFIG": "reconciler.yaml", "ALLOW_DELETES": "2"}
PIN = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
OWN = re.compile(r"OWNER/reconciler/(\.github/[\w./-]+)@COMMIT")


def load(name: str) -> dict[str, Any]:
    """Load one of our workflows."""
    return dict(yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text()))


ACTION: dict[str, Any] = yaml.safe_load(ACTION_PATH.read_text())
LOADED = {name: load(name) for name in OURS}
ALL = [*LOADED.values(), *GITHUB_BLOCKS]
TEXTS = [*(WORKFLOWS / f"{name}.yml" for name in OURS), ACTION_PATH, ROOT / "docs" / "ci.md"]


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    """What starts a workflow; this reader of YAML takes the key `on` for a boolean."""
    return dict(workflow[True])


def steps() -> Iterator[dict[str, Any]]:
    """Every step of workflows, action and examples."""
    for workflow in ALL:
        for job in workflow["jobs"].values():
            yield from job.get("steps", [])
    yield from ACTION["runs"]["steps"]


def gitlab_jobs() -> dict[str, dict[str, Any]]:
    """The jobs of the example for GitLab."""
    return {name: job for name, job in GITLAB.items() if isinstance(job, dict) and "stage" in job}


def scripts() -> Iterator[str]:
    """Every script, and what the docs tell people to type."""
    for step in steps():
        yield from [step["run"]] if "run" in step else []
    for job in gitlab_jobs().values():
        yield from job["script"]
    for block in re.findall(r"```console\n(.*?)```", DOCS, re.DOTALL):
        yield from (line.removeprefix("$ ") for line in block.splitlines())


def commands(script: str) -> Iterator[list[str]]:
    """Find the calls of reconciler in a script, with variables replaced by samples."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = [SAMPLES.get(word[1:], "x") if word.startswith("$") else word for word in lexer]
        while "reconciler" in words:
            words = words[words.index("reconciler") + 1 :]
            end = next((at for at, word in enumerate(words) if re.fullmatch(r"[<>|&;()]+", word)), len(words))
            yield words[:end]


def parse(name: str, args: list[str]) -> None:
    """Parse a call as the command line does, and run nothing."""
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        raise click.UsageError(f"no command {name}")
    command.make_context(name, list(args)).close()


def test_every_command_exists_with_its_options() -> None:
    """Each call is parsed as the command line parses it: a renamed option breaks here and not in CI."""
    found = [command for script in scripts() for command in commands(script)]
    for name, *args in found:
        parse(name, args)
    assert {name for name, *_ in found} == {"validate", "plan", "comment", "apply", "drift"}
    assert len(found) >= 18


@pytest.mark.parametrize(
    "line", ["reconciler plan --no-such", "x || reconciler aply", "reconciler drift --alert 3 > x"]
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    """The check above can fail."""
    [[name, *args]] = commands(line)
    with pytest.raises(click.UsageError):
        parse(name, args)


def test_no_expression_stands_in_a_script() -> None:
    """What an expression holds becomes part of the script: texts come through the environment."""
    found = list(scripts())
    assert len(found) > 15
    assert [script for script in found if "${{" in script] == []


def test_scripts_quote_what_they_are_given() -> None:
    """A variable outside of quotes is split, and may become an option."""
    for script in scripts():
        assert not re.search(r"\$\w", re.sub(r'"[^"]*"', "", script)), script


def test_every_action_is_pinned() -> None:
    """By the full hash of a commit, with its version beside it; ours are taken from this repository."""
    used = [step["uses"] for step in steps() if "uses" in step]
    used += [job["uses"] for workflow in ALL for job in workflow["jobs"].values() if "uses" in job]
    assert len(used) > 15
    for name in used:
        own = OWN.fullmatch(name)
        path = own[1] if own else name.removeprefix("./.reconciler-tool/") if name.startswith("./") else None
        assert (ROOT / path).exists() if path else PIN.fullmatch(name), name
    for path in TEXTS:
        for line in re.findall(r"uses: *(\S+@[0-9a-f]{40}.*)", path.read_text()):
            assert re.fullmatch(r"\S+ # v\d+\.\d+\.\d+", line), line
    versions = {line for path in TEXTS for line in re.findall(r"uses: (\S+@[0-9a-f]{40})", path.read_text())}
    assert len(versions) == len({line.partition("@")[0] for line in versions}), "one version of each"


def test_rights_are_the_least() -> None:
    """Nothing by default; a job reads the repository, and only those that comment write to pull requests."""
    writers = []
    for workflow in ALL:
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            rights = dict(job["permissions"])
            assert rights.pop("contents") == "read"
            if rights:
                assert rights == {"pull-requests": "write"}
                writers.append(name)
    assert writers == ["comment", "plan"]  # the second is the example that calls the first


def test_the_job_that_comments_sees_no_secret() -> None:
    """Neither a database nor the files of the pull request; and the job that plans cannot comment."""
    jobs = LOADED["plan"]["jobs"]
    assert "secrets" not in str(jobs["comment"])
    assert "DATABASE_URL" not in str(jobs["comment"])
    checkouts = [step["with"] for step in jobs["comment"]["steps"] if "checkout" in step["uses"]]
    assert [one["path"] for one in checkouts] == [".reconciler-tool"]
    assert jobs["plan"]["permissions"] == {"contents": "read"}


def test_secrets_reach_steps_and_not_jobs() -> None:
    """A secret is in the environment of the one step that needs it."""
    for workflow in ALL:
        for job in workflow["jobs"].values():
            assert "env" not in job
            assert "env" not in workflow
            for step in job.get("steps", []):
                rest = {key: value for key, value in step.items() if key != "env"}
                assert "secrets." not in str(rest)


def test_forks_get_no_secrets() -> None:
    """No workflow runs strangers' files with secrets; plans are for branches of the repository alone."""
    for path in TEXTS:
        assert "pull_request_target:" not in path.read_text()
        assert "workflow_run:" not in path.read_text()
        assert "inherit" not in path.read_text()
    jobs = LOADED["plan"]["jobs"]
    assert jobs["plan"]["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert """contains(fromJSON('["success", "failure"]'), needs.plan.result)""" in jobs["comment"]["if"]
    assert "secrets" not in (WORKFLOWS / "validate.yml").read_text().partition("jobs:")[2]


def test_checkouts_leave_no_token_behind() -> None:
    """The token of a checkout is not left in the working copy."""
    checkouts = [step for step in steps() if "actions/checkout" in step.get("uses", "")]
    assert len(checkouts) >= 8
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_tool_is_that_of_the_workflow() -> None:
    """A workflow that is called runs the tool of its own commit, not one that the caller happens to have."""
    for name in OURS:
        for job in LOADED[name]["jobs"].values():
            tool = next(step["with"] for step in job["steps"] if step.get("with", {}).get("path"))
            assert tool["repository"] == "${{ job.workflow_repository }}"
            assert tool["ref"] == "${{ job.workflow_sha }}"


def test_jobs_end_and_do_not_overtake_each_other() -> None:
    """Each has a time limit and a group; only an apply is never cancelled by a later one."""
    for name in OURS:
        for job in LOADED[name]["jobs"].values():
            assert job["timeout-minutes"] <= 20
            assert job["concurrency"]["group"].startswith("reconciler-")
    assert LOADED["apply"]["jobs"]["apply"]["concurrency"]["cancel-in-progress"] is False
    assert LOADED["apply"]["jobs"]["apply"]["environment"] == "${{ inputs.environment }}"
    assert LOADED["plan"]["jobs"]["plan"]["concurrency"]["cancel-in-progress"] is True
    groups = {job["concurrency"]["group"] for name in OURS for job in LOADED[name]["jobs"].values()}
    assert len(groups) == 6


def test_a_reviewed_plan_is_made_of_what_was_merged() -> None:
    """By the same run, with a role that only reads, before the environment asks for an approval."""
    plan, apply = (LOADED["apply"]["jobs"][name] for name in ("plan", "apply"))
    assert "environment" not in plan
    assert "secrets.DATABASE_URL" not in str(plan)
    assert "PLAN_DATABASE_URL" not in str(apply)
    assert (plan["if"], apply["needs"]) == ("${{ inputs.reviewed }}", "plan")
    assert apply["if"] == (
        "${{ !cancelled() && (!inputs.reviewed || "
        "(needs.plan.result == 'success' && needs.plan.outputs.code == '3')) }}"
    )
    names = [
        step["with"]["name"]
        for job in (plan, apply)
        for step in job["steps"]
        if "artifact" in step.get("uses", "")
    ]
    assert len(names) == 2
    assert len(set(names)) == 1
    assert "run-id" not in str(apply)
    assert apply["steps"][-1]["with"]["reviewed"] == "${{ inputs.reviewed }}"


def test_only_validate_runs_by_itself_here() -> None:
    """This repository has no target: the others wait to be called."""
    assert set(triggers(LOADED["validate"])) == {"push", "pull_request", "workflow_call"}
    for name in ("plan", "apply", "drift"):
        assert set(triggers(LOADED[name])) == {"workflow_call"}


def test_inputs_are_those_that_are_declared() -> None:
    """Callers give what is asked for, and nothing else is asked of inputs."""
    for step in steps():
        if "reconciler" in step.get("uses", "") and "actions/reconciler" in step["uses"]:
            assert set(step["with"]) <= set(ACTION["inputs"])
            assert step["with"]["command"] in ACTION["inputs"]["command"]["description"]
    callers = 0
    for block in GITHUB_BLOCKS:
        for job in block["jobs"].values():
            if "uses" not in job:
                continue
            callers += 1
            called = triggers(LOADED[Path(job["uses"].partition("@")[0]).stem])["workflow_call"]
            given = [("inputs", job.get("with", {})), ("secrets", job.get("secrets", {}))]
            for what, values in given:
                declared = called.get(what, {})
                assert set(values) <= set(declared)
                assert {key for key, one in declared.items() if one.get("required")} <= set(values)
    assert callers == 4
    for path, inputs in [
        (ACTION_PATH, ACTION["inputs"]),
        *((WORKFLOWS / f"{name}.yml", triggers(LOADED[name])["workflow_call"]["inputs"]) for name in OURS),
    ]:
        assert set(re.findall(r"inputs\.([\w-]+)", path.read_text())) == set(inputs) - {"python"}


def test_outputs_come_from_steps_that_are_there() -> None:
    """An output of a step without that id is empty, and nobody says so."""
    for workflow in [*ALL, {"jobs": {"action": ACTION["runs"], "outputs": ACTION["outputs"]}}]:
        text = str(workflow)
        for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", text):
            assert f"'id': '{step}'" in text
            assert output in ACTION["outputs"]


def test_what_others_wrote_cannot_command_the_runner() -> None:
    """Apply and drift print texts of files and of the database; commands are switched off around them."""
    named = {step.get("name"): step.get("run", "") for step in ACTION["runs"]["steps"]}
    for name in ("Apply", "Drift"):
        script = named[name]
        before, _, after = script.partition("reconciler ")
        assert 'echo "::stop-commands::$word"' in before
        assert 'echo "::$word::"' in after
        assert "secrets.token_hex(16)" in before
    assert "--annotate github" in named["Plan"]
    assert "--format github" in named["Validate"]


def test_the_example_for_gitlab_hangs_together() -> None:
    """Stages are known, forks get no plan, secrets are bound to environments, applies wait."""
    jobs = gitlab_jobs()
    assert set(jobs) == {"validate", "plan", "comment", "apply", "drift"}
    assert {job["stage"] for job in jobs.values()} == set(GITLAB["stages"])
    for name in ("plan", "comment"):
        assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID" in jobs[name]["rules"][0]["if"]
    places = {name: job.get("environment", {}).get("name") for name, job in jobs.items()}
    assert places == {
        "validate": None,
        "plan": "reconciler/plan",
        "comment": "reconciler/comment",
        "apply": "reconciler/apply",
        "drift": "reconciler/plan",
    }
    assert jobs["apply"]["resource_group"] == "reconciler-apply-$TARGET"
    assert jobs["comment"]["needs"] == [{"job": "plan", "artifacts": True}]
    assert jobs["comment"]["rules"][0]["when"] == "always"
    for text in re.findall(r"`(reconciler/\w+)`", DOCS):
        assert text in places.values()
