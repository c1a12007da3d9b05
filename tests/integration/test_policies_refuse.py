"""Policies and windows on a real target: refused changes change nothing, and an emergency is written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

if TYPE_CHECKING:
    from tests.conftest import Cli

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
JOBS = """\
jobs:
  tidy: {schedule: "0 3 * * *", sql: SELECT 1, labels: {team: delivery}}
  count: {schedule: "0 4 * * *", sql: SELECT 2, labels: {team: delivery}}
"""
ONE_JOB = JOBS[: JOBS.index("  count")]


class Project:
    """A folder with a configuration for a database."""

    def __init__(self, cli: Cli, database: Database) -> None:
        self.cli = cli
        self.database = database
        (cli.directory / "jobs.d").mkdir()

    def write(self, jobs: str, *, windows: str = "{}", policies: str = "") -> None:
        """Write both files."""
        apply = f", windows: {{apply: {windows}}}" if windows != "{}" else ""
        (self.cli.directory / "reconciler.yaml").write_text(
            "owner: shop\ntargets:\n"
            f'  test: {{dsn: "{self.database.dsn}", prune: auto, runtime: false{apply}}}\n'
            f"policies: [{policies}]\n"
        )
        (self.cli.directory / "jobs.d" / "shop.yaml").write_text(jobs)

    def state(self) -> tuple[object, ...]:
        """Return all of cron.job and of the definitions, with their versions."""
        conn = self.database.connect()
        return (
            conn.execute("SELECT xmin::text, j::text FROM cron.job j ORDER BY jobid").fetchall(),
            conn.execute("SELECT xmin::text, d::text FROM reconciler.definitions d ORDER BY name").fetchall(),
            conn.execute("SELECT id, summary::text FROM reconciler.revisions ORDER BY id").fetchall(),
        )


@pytest.fixture
def project(cli: Cli, database: Database) -> Project:
    """A target with two jobs applied."""
    project = Project(cli, database)
    project.write(JOBS)
    assert cli("apply", "--yes").exit_code == 0
    return project


def around(now: datetime) -> list[str]:
    """Name the day of an instant and its neighbours, so that midnight in between is none of our concern."""
    return [DAYS[(now + timedelta(days=days)).weekday()] for days in (-1, 0, 1)]


def test_a_delete_on_a_forbidden_day_is_refused(project: Project) -> None:
    """It exits with 4, says who forbids it, where and why, and leaves all as it was; other changes pass."""
    days = around(datetime.now(UTC))
    policy = (
        '{name: calm, because: "Nobody is there to mend it", changes: [delete], '
        f"forbid: {{on: [{', '.join(days)}]}}}}"
    )
    project.write(ONE_JOB, policies=policy)
    before = project.state()
    refused = project.cli("apply", "--yes")
    assert refused.exit_code == 4
    assert (
        "nothing was changed: delete of job count is forbidden: policy calm (reconciler.yaml:4:12): "
        "Nobody is there to mend it" in refused.stderr
    )
    assert "--emergency REASON" in refused.stderr
    assert project.state() == before
    planned = project.cli("plan", "--exit-code", "--format", "json")
    assert planned.exit_code == 4
    assert [change["obstacle"]["kind"] for change in json.loads(planned.stdout)["changes"]] == ["refused"]
    other = DAYS[(DAYS.index(days[2]) + 2) % 7]
    project.write(ONE_JOB, policies=policy.replace(", ".join(days), other))
    assert project.cli("apply", "--yes").exit_code == 0
    assert len(project.state()[0]) == 1  # type: ignore[arg-type]


def test_a_saved_plan_is_judged_at_any_time(project: Project) -> None:
    """`policies check` says offline what policies and windows say of a plan at a moment."""
    project.write(
        ONE_JOB,
        policies="{name: calm, because: Nobody is there, changes: [delete], forbid: {on: [fri]}}",
        windows='{allow: [{from: "08:00", to: "16:00"}]}',
    )
    plan = project.cli("plan", "--format", "json").stdout
    (project.cli.directory / "plan.json").write_text(plan)
    check = ("policies", "check", "--plan", "plan.json", "--at")
    friday = project.cli(*check, "2026-11-27T12:00:00Z")
    assert friday.exit_code == 4
    assert "delete of job count is forbidden: policy calm" in friday.stdout
    monday = project.cli(*check, "2026-11-30T12:00:00Z")
    assert (monday.exit_code, monday.stdout) == (0, "On Mon 2026-11-30 12:00Z nothing is in the way.\n")
    night = project.cli(*check, "2026-11-30T18:00:00Z")
    assert night.exit_code == 4
    assert "it opens at Tue 2026-12-01 08:00Z" in night.stdout
    assert project.cli(*check, "Friday").exit_code == 2


def test_a_frozen_target_refuses_an_apply(project: Project) -> None:
    """It exits with 4 and says when it opens; plan says so and exits as ever; nothing to do is no error."""
    today = datetime.now(UTC).date()
    freeze = (
        f"{{freeze: [{{first: {today - timedelta(days=1)}, last: {today + timedelta(days=1)}, "
        "because: Christmas}]}"
    )
    project.write(ONE_JOB, windows=freeze)
    before = project.state()
    refused = project.cli("apply", "--yes")
    assert refused.exit_code == 4
    assert "apply is frozen" in refused.stderr
    assert "(Christmas)" in refused.stderr
    opening = today + timedelta(days=2)
    assert f"it opens at {opening:%a} {opening} 00:00Z" in refused.stderr
    assert project.state() == before
    planned = project.cli("plan", "--exit-code")
    assert planned.exit_code == 3
    assert "Note [closed]" in planned.stdout
    project.write(JOBS, windows=freeze)
    assert project.cli("apply", "--yes").exit_code == 0
    assert project.state() == before


def test_a_secret_waits_for_the_window_too(project: Project) -> None:
    """A new value of a secret alone is not brought to a frozen target."""
    worker = 'workers:\n  w: {schedule: "0 3 29 2 *", url: "http://127.0.0.1:1/", token: {secret: s}}\n'
    freeze = "{freeze: [{first: 2026-01-01}]}"
    path = project.cli.directory / "reconciler.yaml"
    secrets = "secrets: {s: {env: THE_TOKEN}}\n"
    project.write(JOBS + worker)
    path.write_text(path.read_text() + secrets)
    conn = project.database.connect()
    assert project.cli("apply", "--yes", env={"THE_TOKEN": "one"}).exit_code == 0
    before = conn.execute("SELECT xmin::text FROM reconciler.secrets").fetchall()
    project.write(JOBS + worker, windows=freeze)
    path.write_text(path.read_text() + secrets)
    assert project.cli("apply", "--yes", env={"THE_TOKEN": "one"}).exit_code == 0
    refused = project.cli("apply", "--yes", env={"THE_TOKEN": "two"})
    assert refused.exit_code == 4
    assert "the secrets s have new values" in refused.stderr
    assert conn.execute("SELECT xmin::text FROM reconciler.secrets").fetchall() == before


def test_an_emergency_passes_and_is_written_down(project: Project) -> None:
    """--emergency overrides windows and times, the revision keeps the reason; `forbid: true` stays."""
    calm = "{name: calm, because: Nobody is there, changes: [delete], forbid: {first: 2026-01-01}}"
    never = "{name: kept, because: They are the law, changes: [delete], forbid: true, match: {names: tidy}}"
    project.write(ONE_JOB, policies=f"{calm}, {never}", windows="{freeze: [{first: 2026-01-01}]}")
    assert project.cli("apply", "--yes", "--emergency", " \n").exit_code == 2
    applied = project.cli("apply", "--yes", "--emergency", "count locks the shop's tables")
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert "in an emergency (count locks the shop's tables) this does not count" in applied.stdout
    rows = (
        project.database.connect()
        .execute("SELECT summary ->> 'emergency' FROM reconciler.revisions ORDER BY id")
        .fetchall()
    )
    assert rows == [(None,), ("count locks the shop's tables",)]
    other = ONE_JOB.replace("tidy", "other")
    project.write(other, policies=f"{calm}, {never}")
    refused = project.cli("apply", "--yes", "--emergency", "again")
    assert refused.exit_code == 4
    assert "policy kept" in refused.stderr


def test_specs_that_break_a_policy_are_never_applied(project: Project) -> None:
    """validate, plan and apply exit with 1 at the place of the spec; a warning is only said."""
    policy = "{name: teams, because: Somebody has to be called, require: {labels: [team, pager]}LEVEL}"
    project.write(JOBS, policies=policy.replace("LEVEL", ""))
    for command in (("validate",), ("plan",), ("apply", "--yes")):
        refused = project.cli(*command)
        assert refused.exit_code == 1
        assert "jobs.d/shop.yaml:2:" in refused.stderr
        assert (
            "job tidy: the label pager is missing: write it below labels; policy teams "
            "(reconciler.yaml:4:12): Somebody has to be called" in refused.stderr
        )
    project.write(JOBS, policies=policy.replace("LEVEL", ", level: warn"))
    planned = project.cli("plan")
    assert planned.exit_code == 0
    assert "Note [policy]" in planned.stdout
    assert "the label pager is missing" in planned.stdout


def test_the_role_that_applies_is_judged_too(project: Project) -> None:
    """What names no role runs as the role that applies, which is known once that is connected."""
    policy = "{name: plain, because: A superuser is nobody's role, forbid: {role: postgres}}"
    project.write(JOBS, policies=policy)
    assert project.cli("validate").exit_code == 0
    refused = project.cli("plan")
    assert refused.exit_code == 1
    assert "the role postgres, which it has since it names none, is forbidden" in refused.stderr
