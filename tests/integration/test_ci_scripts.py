"""What docs/ci.md and the action tell a database and a shell to do, done for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

if TYPE_CHECKING:
    from tests.conftest import Cli

pytestmark = pytest.mark.one_server


ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / ".github/actions/reconciler/action.yml").read_text())
CONFIG = "owner: shop\ntargets:\n  production: {dsn: '${env:DATABASE_URL}', role: postgres, prune: confirm}\n"
JOBS = "jobs:\n  tidy: {every: 5m, sql: SELECT 1}\n  old: {every: 5m, sql: SELECT 2}\n"


@pytest.fixture
def project(cli: Cli) -> Cli:
    """A project whose target is where DATABASE_URL says, with two jobs."""
    (cli.directory / "reconciler.yaml").write_text(CONFIG)
    (cli.directory / "jobs.d").mkdir()
    write_jobs(cli, JOBS)
    return cli


def write_jobs(project: Cli, text: str) -> None:
    """Declare other jobs."""
    (project.directory / "jobs.d" / "shop.yaml").write_text(text)


def run_step(project: Cli, name: str, dsn: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script of one step of the action as GitHub's runner does."""
    step: dict[str, Any] = next(one for one in ACTION["runs"]["steps"] if one.get("name") == name)
    files = {key: str(project.directory / key) for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    plan = str(project.directory / "plan.json")
    known = {"CONFIG": "reconciler.yaml", "TARGET": "production", "PLAN": plan}
    inputs = {key: value for key, value in known.items() if key in step["env"]}
    assert inputs.keys() | env.keys() == step["env"].keys()
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "GITHUB_", "CI"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=project.directory,
        env={**outside, "PATH": path, "DATABASE_URL": dsn, **files, **inputs, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def apply(project: Cli, dsn: str, *args: str) -> None:
    """Apply what is declared."""
    result = project("apply", "--yes", *args, env={"DATABASE_URL": dsn})
    assert result.exit_code == 0, result.stderr


def read_sql() -> str:
    """Read the SQL of docs/ci.md."""
    found = re.search(r"```sql\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_role_of_the_docs_plans_and_reads_no_secret(project: Cli, database: Database) -> None:
    """It plans what the role that applies plans, changes nothing, and cannot read the secrets."""
    apply(project, database.dsn)
    with psycopg.connect(database.dsn) as conn:
        conn.execute(read_sql().encode())
    reader = psycopg.conninfo.make_conninfo(database.dsn, user="reconciler_plan", password="change-me")
    env = {"DATABASE_URL": reader}
    assert json.loads(project("plan", "--format", "json", env=env).stdout)["empty"] is True
    write_jobs(project, JOBS.replace("SELECT 1", "SELECT 3"))
    planned = json.loads(project("plan", "--format", "json", env=env).stdout)
    assert [(one["action"], one["name"]) for one in planned["changes"]] == [("update", "tidy")]
    assert project("drift", "--exit-code", env=env).exit_code == 0
    with psycopg.connect(reader) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM reconciler.secrets")


def test_the_steps_of_the_action(project: Cli, database: Database) -> None:
    """Plan writes file, summary and outputs; apply wants consent to delete; drift fails where some is."""
    plan = run_step(project, "Plan", database.dsn)
    assert (plan.returncode, plan.stdout, plan.stderr) == (0, "", "")
    assert (project.directory / "GITHUB_OUTPUT").read_text() == "code=3\nplanned=true\n"
    assert "### Plan for `production`" in (project.directory / "GITHUB_STEP_SUMMARY").read_text()
    assert len(json.loads((project.directory / "plan.json").read_text())["changes"]) >= 2
    applied = run_step(project, "Apply", database.dsn, ALLOW_DELETES="", REVIEWED="false")
    assert applied.returncode == 0, applied.stderr
    lines = applied.stdout.splitlines()
    word = lines[0].removeprefix("::stop-commands::")
    assert re.fullmatch("[0-9a-f]{32}", word)
    assert lines[-1] == f"::{word}::"
    write_jobs(project, JOBS.partition("  old")[0])
    assert run_step(project, "Apply", database.dsn, ALLOW_DELETES="", REVIEWED="false").returncode == 4
    assert run_step(project, "Apply", database.dsn, ALLOW_DELETES="1", REVIEWED="false").returncode == 0
    assert run_step(project, "Drift", database.dsn, ALERT="true").returncode == 0
    database.connect().execute("SELECT cron.unschedule('tidy')")
    assert run_step(project, "Drift", database.dsn, ALERT="false").returncode == 7


def test_a_reviewed_plan_is_applied_as_the_steps_do(project: Cli, database: Database) -> None:
    """The role that only reads plans, the other applies that very plan with its deletion, and once only."""
    apply(project, database.dsn)
    with psycopg.connect(database.dsn) as conn:
        conn.execute(read_sql().encode())
    reader = psycopg.conninfo.make_conninfo(database.dsn, user="reconciler_plan", password="change-me")
    write_jobs(project, JOBS.partition("  old")[0].replace("5m", "10m"))
    planned = run_step(project, "Plan", reader)
    assert (planned.returncode, planned.stdout, planned.stderr) == (0, "", "")
    assert (
        "To consent to exactly these: `--allow-deletes 1-"
        in (project.directory / "GITHUB_STEP_SUMMARY").read_text()
    )
    assert run_step(project, "Apply", database.dsn, ALLOW_DELETES="2", REVIEWED="true").returncode == 4
    applied = run_step(project, "Apply", database.dsn, ALLOW_DELETES="", REVIEWED="true")
    assert applied.returncode == 0, applied.stderr
    rows = database.connect().execute(
        "SELECT jobname::text, schedule FROM cron.job WHERE jobname !~ '^reconciler-'"
    )
    assert rows.fetchall() == [("tidy", "*/10 * * * *")]
    assert run_step(project, "Apply", database.dsn, ALLOW_DELETES="", REVIEWED="true").returncode == 5


def test_a_plan_that_fails_leaves_no_file(project: Cli) -> None:
    """Its problems are annotations; the next job finds no plan, and says so in the comment."""
    (project.directory / "plan.json").write_text("an older one")
    write_jobs(project, "jobs:\n  odd: {schedule: '61 * * * *', sql: SELECT 1}\n")
    plan = run_step(project, "Plan", "host=127.0.0.1 port=1")
    assert plan.returncode == 1
    assert plan.stderr.startswith("::error file=jobs.d/shop.yaml,line=2,")
    assert not (project.directory / "plan.json").exists()
    assert (project.directory / "GITHUB_OUTPUT").read_text() == "code=1\n"
    validated = run_step(project, "Validate", "")
    assert (validated.returncode, validated.stdout) == (1, plan.stderr)
