"""`policies`, `policies check` and what `validate` says of policies: files alone, no database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.cli.main import main
from reconciler.core.change_policies import read_change
from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.loader.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = """\
owner: shop
default_target: test
targets:
  test:
    windows:
      apply: {allow: [{from: "08:00", to: "16:00"}], freeze: [{first: 2026-12-20, because: Christmas}]}
  other: {}
policies:
  - name: teams
    because: Somebody has to be called
    require: {labels: [team], timeout: true}
    match: {kind: job}
  - {name: pace, because: It has to sleep, level: warn, limit: {runs_per_hour: 60}}
  - {name: calm, because: Nobody is there, changes: [delete], forbid: {on: [fri]}, match: {labels: {team: a}}}
"""
JOBS = """\
defaults:
  labels: {tier: "1"}
jobs:
  tidy: {schedule: "*/5 * * * *", sql: SELECT 1, timeout: 5m}
  count: {every: 30s, sql: SELECT 2, timeout: 5m, labels: {team: a}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run commands in this process, in a folder with files and no database; plan.json holds what is given."""
    (tmp_path / "reconciler.yaml").write_text(CONFIG)
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "shop.yaml").write_text(JOBS)
    monkeypatch.chdir(tmp_path)

    def run(*args: str, plan: str = "") -> Result:
        Path("plan.json").write_text(plan)
        with pytest.raises(SystemExit) as ended:
            main(args)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(exit_code=ended.value.code, stdout=captured.out, stderr=captured.err)

    return run


def saved(action: str = "delete", **changed: Any) -> dict[str, Any]:
    """Make the JSON of a plan with one change."""
    snapshot = {"spec": {"schedule": "0 3 * * *", "labels": {"team": "a"}}, "entry": None}
    one = {
        "action": action, "kind": "job", "name": "count", "reason": "removed", "source": "jobs.d/shop.yaml:5",
        "renamed_from": None, "before": snapshot, "after": None, "fields": [], "obstacle": None, **changed,
    }  # fmt: skip
    return {"format_version": "1.1", "target": "test", "changes": [one]}


def test_validate_points_at_what_breaks_a_policy(run: Callable[..., Result]) -> None:
    """A problem has the place of its key, also in the defaults; a warning is said and is no error."""
    refused = run("validate")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[0] == (
        "jobs.d/shop.yaml:2:11: job tidy: the label team is missing: write it below labels; "
        "policy teams (reconciler.yaml:9:5): Somebody has to be called"
    )
    assert refused.stderr.endswith("1 problem found.\n")
    Path("jobs.d/shop.yaml").write_text(JOBS.replace("{tier:", "{team: b, tier:"))
    valid = run("validate", "--all-targets")
    assert (valid.exit_code, valid.stdout) == (0, "other: 2 jobs: valid.\ntest: 2 jobs: valid.\n")
    assert (
        "jobs.d/shop.yaml:5:3: warning: job count: it runs 120 times within an hour, more than 60: "
        "let it run less often; policy pace (reconciler.yaml:13:5): It has to sleep" in valid.stderr
    )


def test_policies_are_listed(run: Callable[..., Result]) -> None:
    """Each with its place, its reason and what it says; the windows below them."""
    listed = run("policies")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert listed.stdout.splitlines() == [
        "calm  reconciler.yaml:14:5",
        "  Nobody is there",
        "  forbid to delete anything labelled team: a on Fridays UTC",
        "pace  reconciler.yaml:13:5  (warns only)",
        "  It has to sleep",
        "  of anything; at most 60 runs in an hour",
        "teams  reconciler.yaml:9:5",
        "  Somebody has to be called",
        "  of jobs; require labels team; require timeout",
        "windows",
        "  apply is open from 08:00 to 16:00 UTC",
        "  apply is frozen from 2026-12-20 on UTC: Christmas",
    ]


@pytest.mark.parametrize(
    ("at", "exit_code", "said"),
    [
        ("2026-11-27T12:00Z", 4, "refused: delete of job count is forbidden: policy calm"),
        ("2026-11-30T12:00Z", 0, "On Mon 2026-11-30 12:00Z nothing is in the way."),
        ("2026-11-30T19:00+01:00", 4, "it opens at Tue 2026-12-01 08:00Z"),
        ("2026-12-24T12:00Z", 4, "frozen from 2026-12-20 on (Christmas)"),
        ("Friday", 2, ""),
    ],
)
def test_a_saved_plan_is_judged_at_any_moment(
    run: Callable[..., Result], at: str, exit_code: int, said: str
) -> None:
    """It exits with 4 where an apply at that moment would be refused, and says why."""
    judged = run("policies", "check", "--plan", "plan.json", "--at", at, plan=json.dumps(saved()))
    assert judged.exit_code == exit_code
    assert said in judged.stdout


@pytest.mark.parametrize(("kind", "exit_code"), [("refused", 4), ("rights", 0)])
def test_a_plan_that_was_refused_is_judged_anew(
    run: Callable[..., Result], kind: str, exit_code: int
) -> None:
    """What hindered a change when the plan was made is forgotten; what the role cannot do is not judged."""
    text = json.dumps(saved(obstacle={"kind": kind, "why": "w", "remedy": "r"}))
    judged = run("policies", "check", "--plan", "plan.json", "--at", "2026-11-27T12:00Z", plan=text)
    assert judged.exit_code == exit_code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "plan.json: this is no plan"),
        ("[]", "plan.json: this is no plan"),
        ('{"format_version": 1}', "plan.json: this is no plan"),
        ('{"format_version": "1.1", "target": "test", "changes": [{"action": "delete"}]}', "this is no plan"),
        ('{"format_version": "2.0"}', "reads plans of format 1, not of 2.0"),
        (json.dumps({**saved(), "target": "gone"}), "there is no target 'gone'"),
    ],
)
def test_what_is_no_plan_is_said_to_be_none(run: Callable[..., Result], text: str, said: str) -> None:
    """Wrong input is an error in words."""
    judged = run("policies", "check", "--plan", "plan.json", plan=text)
    assert judged.exit_code == 1
    assert said in judged.stderr


def test_the_documented_policies_are_sound(tmp_path: Path) -> None:
    """The example in the documentation is a whole configuration, and every policy of it is read."""
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    path = tmp_path / "reconciler.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    rules = load_config(path).targets["production"].governance
    assert len(rules.specs) + len(rules.changes) == text.count("    because:")
    assert rules.windows is not None


def test_a_change_is_read_back_from_a_plan() -> None:
    """Everything that policies look at is there again."""
    obstacle = {"kind": "rights", "why": "w", "remedy": "r"}
    value = saved(renamed_from="old", obstacle=obstacle, before={"spec": None, "entry": None})["changes"][0]
    assert read_change(value) == Change(
        action="delete",
        kind="job",
        name="count",
        reason="removed",
        before=Snapshot(document="", entry=None),
        after=None,
        source="jobs.d/shop.yaml:5",
        renamed_from="old",
        obstacle=Obstacle(kind="rights", why="w", remedy="r"),
    )
