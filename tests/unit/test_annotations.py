"""Problems where reviewers see them: workflow commands of GitHub, a code quality report of GitLab."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.annotating import Annotation, list_annotations, render_github, render_gitlab
from reconciler.core.specs import Place
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.problems import Problem, render_problem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli, CliResult

CONFIG = "owner: shop\ntargets:\n  eu: {dsn: ''}\n  us: {dsn: ''}\ndefault_target: eu\n"
GOOD = "jobs:\n  tidy: {every: 5m, sql: SELECT 1}\n"
BAD = "jobs:\n  tidy: {every: 5m, sql: SELECT 1}\n  odd: {schedule: '61 * * * *', sql: SELECT 1}\n"
UNREACHABLE = "host=127.0.0.1 port=1 connect_timeout=2"


@pytest.fixture
def project(cli: Cli) -> Cli:
    """A folder with a configuration of two targets, and a spec file with one problem."""
    (cli.directory / "reconciler.yaml").write_text(CONFIG)
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d" / "shop.yaml").write_text(BAD)
    return cli


def run(project: Cli, *args: str, top: Path | None = None) -> CliResult:
    """Run a command where no forge is, or in a repository that lies there."""
    env = {"GITHUB_WORKSPACE": "" if top is None else str(top), "CI_PROJECT_DIR": ""}
    return project(*args, env=env)


def annotate(*problems: str) -> list[Annotation]:
    """List the annotations of an error with these problems."""
    return list(list_annotations(InvalidInputError(problems), {}))


def test_a_problem_keeps_its_place_and_loses_its_line() -> None:
    """The offending line and its caret are no part of the message: they may hold anything."""
    place = Place(path="jobs.d/a: b.yaml", line=3, column=7)
    text = render_problem(Problem(place=place, message="one: 1:2: two", line_text="  ::stop-commands::x"))
    assert "::stop-commands" in text
    assert annotate(text) == [
        Annotation(path="jobs.d/a: b.yaml", line=3, column=7, message="one: 1:2: two"),
    ]
    assert annotate(render_problem(Problem(place=place, message="bare")))[0].message == "bare"


def test_other_errors_have_no_place() -> None:
    """What is wrong with no file is said all the same, with its remedy."""
    error = ConfigError("a:1:2: no dsn", remedy="write one")
    found = Annotation(path="", line=1, column=1, message="a:1:2: no dsn\n  write one")
    assert list(list_annotations(error, {})) == [found]
    assert annotate("without a place")[0].path == ""


def test_no_problem_can_write_a_command_of_its_own() -> None:
    """Line breaks, percent signs and separators are written as GitHub reads them back."""
    nasty = Annotation(path="a,b:c\n%.yaml", line=1, column=2, message="50%\r\n::set-output name=x::y\nend")
    text = render_github([nasty, Annotation(path="", line=1, column=1, message="b")])
    assert text == (
        "::error file=a%2Cb%3Ac%0A%25.yaml,line=1,col=2,title=reconciler"
        "::50%25%0D%0A::set-output name=x::y%0Aend\n"
        "::error title=reconciler::b\n"
    )


def test_what_cannot_be_seen_is_written_out() -> None:
    """A message cannot colour the log, hide in it, or break its line by other characters than the usual."""
    message = annotate("a.yaml:1:2: x\x1b[2J\u2028\u202ey")[0].message
    assert message == "x<U+001B>[2J<U+2028><U+202E>y"


def test_the_report_of_gitlab_tells_problems_apart() -> None:
    """Each has a fingerprint of its own, which stays when the problem moves to another line."""
    first = Annotation(path="a.yaml", line=3, column=1, message="é")
    report = json.loads(render_gitlab([first, first, Annotation(path="", line=1, column=1, message="b")]))
    assert report[0] == {
        "description": "é",
        "check_name": "reconciler",
        "fingerprint": report[0]["fingerprint"],
        "severity": "major",
        "location": {"path": "a.yaml", "lines": {"begin": 3}},
    }
    assert len({one["fingerprint"] for one in report}) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", one["fingerprint"]) for one in report)
    assert report[2]["location"]["path"] == "reconciler.yaml"
    moved = json.loads(render_gitlab([Annotation(path="a.yaml", line=9, column=4, message="é")]))
    assert moved[0]["fingerprint"] == report[0]["fingerprint"]
    assert json.loads(render_gitlab([])) == []


def test_validate_annotates_each_problem_once(project: Cli) -> None:
    """Two targets have the same problem at the same place: that is one annotation."""
    result = run(project, "validate", "--all-targets", "--format", "github")
    assert (result.exit_code, result.stderr) == (1, "")
    assert re.fullmatch(
        r"::error file=jobs\.d/shop\.yaml,line=3,col=\d+,title=reconciler::[^\n]*61[^\n]*\n", result.stdout
    )


def test_validate_names_files_from_the_top_of_the_repository(project: Cli) -> None:
    """A configuration in a subfolder: GitHub and GitLab know files by their whole path."""
    top = project.directory.parent
    result = run(project, "validate", "--format", "github", top=top)
    assert f"file={project.directory.name}/jobs.d/shop.yaml,line=3," in result.stdout
    report = json.loads(run(project, "validate", "--format", "gitlab", top=top).stdout)
    assert [one["location"]["path"] for one in report] == [f"{project.directory.name}/jobs.d/shop.yaml"]
    elsewhere = run(project, "validate", "--format", "github", top=top / "other")
    assert "file=jobs.d/shop.yaml," in elsewhere.stdout


def test_validate_finds_nothing_wrong(project: Cli) -> None:
    """GitHub's log says what was valid; GitLab's report is empty, and still a report."""
    (project.directory / "jobs.d" / "shop.yaml").write_text(GOOD)
    github = run(project, "validate", "--all-targets", "--format", "github")
    assert (github.exit_code, github.stdout) == (0, "eu: 1 job: valid.\nus: 1 job: valid.\n")
    gitlab = run(project, "validate", "--format", "gitlab")
    assert (gitlab.exit_code, gitlab.stdout) == (0, "[]\n")


@pytest.mark.parametrize("form", ["github", "gitlab"])
def test_validate_reports_a_broken_configuration(project: Cli, form: str) -> None:
    """What is wrong with reconciler.yaml itself, or with the call, is a problem like others."""
    (project.directory / "reconciler.yaml").write_text(CONFIG + "colour: red\n")
    broken = run(project, "validate", "--format", form)
    assert (broken.exit_code, broken.stderr, "reconciler.yaml" in broken.stdout) == (1, "", True)
    (project.directory / "reconciler.yaml").write_text(CONFIG)
    unknown = run(project, "validate", "--target", "asia", "--format", form)
    assert (unknown.exit_code, unknown.stderr, "asia" in unknown.stdout) == (1, "", True)


def test_validate_still_speaks_to_people(project: Cli) -> None:
    """Text is as ever: on standard error, with the line and what to do."""
    result = run(project, "validate", "--all-targets")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("jobs.d/shop.yaml:3:")
    assert "1 problem found." in result.stderr


def test_plan_annotates_its_problems(project: Cli) -> None:
    """On standard error, since standard output is the plan's; nothing else is printed there."""
    result = run(project, "plan", "--annotate", "github", "--format", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"::error file=jobs\.d/shop\.yaml,line=3,[^\n]*\n", result.stderr)
    plain = run(project, "plan")
    assert plain.stderr.startswith("jobs.d/shop.yaml:3:")


def test_plan_annotates_errors_of_no_file(project: Cli) -> None:
    """A database that is not there has no line, and is an annotation all the same."""
    (project.directory / "jobs.d" / "shop.yaml").write_text(GOOD)
    result = run(project, "plan", "--annotate", "github", "--dsn", UNREACHABLE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"::error title=reconciler::[^\n]*127\.0\.0\.1[^\n]*\n", result.stderr)
