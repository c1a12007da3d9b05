"""The command line against real servers: what people do, from the first plan to the last deletion."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from reconciler.resources import read_resource
from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

if TYPE_CHECKING:
    from tests.conftest import Cli

CONFIG = """\
owner: shop
targets:
  test: {{dsn: "{dsn}", prune: {prune}}}
"""

JOBS = """\
jobs:
  tidy:
    description: Delete what is old
    schedule: "0 3 * * *"
    sql: |
      DELETE FROM things
      WHERE old
  count:
    every: 5m
    sql: SELECT count(*) FROM things
    active: false
  vacuum:
    weekly: {on: [sun], at: "03:00"}
    sql: VACUUM things
    mode: direct
queues:
  mail: {max_attempts: 3}
"""


@pytest.fixture
def project(cli: Cli, database: Database) -> Cli:
    """A folder with a configuration and spec files for the database."""
    write(cli, "reconciler.yaml", CONFIG.format(dsn=database.dsn, prune="auto"))
    write(cli, "jobs.d/shop.yaml", JOBS)
    return cli


def write(cli: Cli, name: str, text: str) -> None:
    """Write a file of the project."""
    path = cli.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_plan_apply_plan(project: Cli, database: Database) -> None:
    """After an apply the plan is empty, and cron.job holds what was declared and the tool's own entries."""
    assert project("plan", "--exit-code").exit_code == 3
    applied = project("apply", "--yes")
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert "Applied as revision 1." in applied.stdout
    again = project("plan", "--exit-code")
    assert again.exit_code == 0
    assert "Nothing to change: 6 resources are as declared." in again.stdout
    rows = database.connect().execute(
        "SELECT jobname::text, schedule, command, active FROM cron.job ORDER BY jobname"
    )
    is_old = database.server.pg_cron < (1, 5, 0)  # without seconds calls stay for most of a minute
    every, stay = ("* * * * *", "stay => '50 seconds'") if is_old else ("15 seconds", "stay => '15 seconds'")
    assert rows.fetchall() == [
        ("count", "*/5 * * * *", "CALL reconciler.run_job('count')", False),
        ("reconciler-runner", every, f"CALL reconciler.runner({stay if is_old else ''})", True),
        ("reconciler-tick", every, f"CALL reconciler.tick({stay})", True),
        ("tidy", "0 3 * * *", "CALL reconciler.run_job('tidy')", True),
        ("vacuum", "0 3 * * 0", "VACUUM things", True),
    ]


def test_apply_twice_equals_apply_once(project: Cli, database: Database) -> None:
    """A second apply has nothing to do and writes no revision."""
    project("apply", "--yes")
    second = project("apply", "--yes")
    assert second.exit_code == 0
    revisions = database.connect().execute("SELECT count(*) FROM reconciler.revisions").fetchone()
    assert revisions == (1,)


def test_plan_touches_nothing(project: Cli, database: Database) -> None:
    """A plan creates neither a schema nor an entry."""
    for form in ("text", "json", "markdown", "sql"):
        assert project("plan", "--format", form).exit_code == 0
    conn = database.connect()
    assert conn.execute("SELECT to_regnamespace('reconciler')").fetchone() == (None,)
    assert conn.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)


def test_json_plan_fits_its_schema(project: Cli, database: Database) -> None:
    """The JSON of a plan with every action is valid by the published schema, and stable to the byte."""
    database.connect().execute("SELECT cron.schedule('vacuum', '0 3 * * 0', 'VACUUM things')")
    schema = json.loads(read_resource("schemas", "plan.schema.json"))
    first, second = (project("plan", "--format", "json").stdout for _ in range(2))
    plan = json.loads(first)
    # Between the two a minute may begin, and the next runs are others.
    assert _strip_times(plan) == _strip_times(json.loads(second))
    jsonschema.validate(plan, schema, cls=jsonschema.Draft202012Validator)
    assert plan["summary"]["adopt"] == 1
    project("apply", "--yes")
    write(
        project,
        "jobs.d/shop.yaml",
        JOBS.replace("0 3 * * *", "0 4 * * *").replace("queues:\n  mail: {max_attempts: 3}\n", ""),
    )
    plan = json.loads(project("plan", "--format", "json").stdout)
    jsonschema.validate(plan, schema, cls=jsonschema.Draft202012Validator)
    assert {change["action"] for change in plan["changes"]} == {"update", "delete"}
    assert plan["changes"][0]["fields"] == [
        {"path": "entry.schedule", "before": "0 3 * * *", "after": "0 4 * * *"},
        {"path": "spec.schedule", "before": "0 3 * * *", "after": "0 4 * * *"},
    ]


def _strip_times(plan: dict[str, Any]) -> str:
    return json.dumps({**plan, "changes": [{**change, "times": None} for change in plan["changes"]]})


def test_sql_plan_does_what_apply_does(project: Cli, database: Database) -> None:
    """Running the printed SQL leaves nothing to change."""
    script = project("plan", "--format", "sql").stdout
    subprocess.run(
        ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", database.dsn],
        input=script, text=True, check=True, capture_output=True,
    )  # fmt: skip
    assert project("plan", "--exit-code").exit_code == 0


def test_drift_is_told_and_healed(project: Cli, database: Database) -> None:
    """What somebody changed by hand is drift with exit code 7, and the next apply puts it right."""
    project("apply", "--yes")
    assert project("drift", "--exit-code").exit_code == 0
    database.connect().execute(
        "SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'tidy'"
    )
    drift = project("drift", "--exit-code")
    assert drift.exit_code == 7
    assert "entry.active: false → true" in drift.stdout
    assert project("apply", "--yes").exit_code == 0
    assert project("drift", "--exit-code").exit_code == 0


def test_an_edit_is_no_drift(project: Cli) -> None:
    """What the files changed is shown by plan, and drift is silent about it."""
    project("apply", "--yes")
    write(project, "jobs.d/shop.yaml", JOBS.replace("0 3 * * *", "0 4 * * *"))
    assert project("drift", "--exit-code").exit_code == 0
    assert "(edited, jobs.d/shop.yaml:2)" in project("plan").stdout


def test_import_then_plan_is_empty(cli: Cli, database: Database) -> None:
    """Entries that people made by hand become files that plan to nothing, before and after the apply."""
    conn = database.connect()
    commands = [
        "SELECT 1",
        "UPDATE a SET b = 'c: #d'\n  WHERE x;\n\n-- end\n",
        "  VACUUM  ",
        "SELECT E'\\t', '${x}', '%'",
    ]
    for number, command in enumerate(commands):
        conn.execute("SELECT cron.schedule(%s, '5 4 * * *', %s)", (f"old-{number}", command))
    conn.execute("SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'old-0'")
    conn.execute("SELECT cron.schedule('5 4 * * *', 'SELECT 2')")
    before = conn.execute("SELECT * FROM cron.job ORDER BY jobid").fetchall()
    write(cli, "reconciler.yaml", CONFIG.format(dsn=database.dsn, prune="auto"))
    (cli.directory / "jobs.d").mkdir()
    imported = cli("import")
    assert imported.exit_code == 0, imported.stderr
    assert "Imported 4 entries into jobs.d/imported.yaml." in imported.stdout
    assert "(no name)" in imported.stderr
    assert cli("plan", "--exit-code").exit_code == 0
    assert cli("apply", "--yes").exit_code == 0
    assert conn.execute("SELECT * FROM cron.job ORDER BY jobid").fetchall() == before
    assert "Nothing to change: 4 resources" in cli("plan", "--exit-code").stdout


def test_status_shows_last_and_next_run(project: Cli, database: Database) -> None:
    """Status tells the outcome of the last run and the time of the next."""
    assert "Nothing was applied" in project("status").stdout
    project("apply", "--yes")
    conn = database.connect()
    conn.execute("CREATE TABLE things (old boolean)")
    conn.execute("CALL reconciler.run_job('tidy')")
    jobs = {job["name"]: job for job in json.loads(project("status", "--json").stdout)}
    assert jobs["tidy"]["last_status"] == "succeeded"
    assert jobs["tidy"]["next_run_at"].endswith("T03:00:00+00:00")
    assert jobs["count"]["next_run_at"] is None
    assert "succeeded" in project("status").stdout


def test_deletions_need_consent(project: Cli, database: Database) -> None:
    """Under prune: confirm an apply exits with 4 until the number of deletions is named."""
    project("apply", "--yes")
    write(project, "reconciler.yaml", CONFIG.format(dsn=database.dsn, prune="confirm"))
    write(project, "jobs.d/shop.yaml", JOBS.replace("queues:\n  mail: {max_attempts: 3}\n", ""))
    refused = project("apply", "--yes")
    assert refused.exit_code == 4
    assert "--allow-deletes 1" in refused.stderr
    assert project("apply", "--yes", "--allow-deletes", "2").exit_code == 4
    assert project("apply", "--yes", "--allow-deletes", "1").exit_code == 0
    assert project("plan", "--exit-code").exit_code == 0


def test_nothing_is_pruned_unless_asked(project: Cli, database: Database) -> None:
    """Without a prune policy what vanished from the files stays, and plan says so."""
    project("apply", "--yes")
    write(project, "reconciler.yaml", CONFIG.format(dsn=database.dsn, prune="never"))
    write(project, "jobs.d/shop.yaml", "jobs:\n  tidy: {schedule: '0 3 * * *', sql: SELECT 1}\n")
    plan = project("plan")
    assert "Kept, though no longer declared (prune: never): count, mail, vacuum" in plan.stdout
    project("apply", "--yes")
    assert database.connect().execute("SELECT count(*) FROM cron.job").fetchone() == (5,)


def test_another_apply_holds_the_lock(project: Cli, database: Database) -> None:
    """While another apply is at work, apply exits with 6 and changes nothing."""
    with database.connect().transaction() as transaction:
        transaction.connection.execute("SELECT pg_advisory_xact_lock(7411530208936421)")
        result = project("apply", "--yes")
    assert result.exit_code == 6
    assert database.connect().execute("SELECT count(*) FROM cron.job").fetchone() == (0,)


def test_apply_asks_before_it_changes(project: Cli) -> None:
    """Without a terminal and without --yes nothing is applied."""
    result = project("apply")
    assert result.exit_code == 2
    assert "--yes" in result.stderr


def test_doctor_finds_what_stops_everything(project: Cli, database: Database) -> None:
    """An entry of a dropped role is an error with its remedy, and the remedy works."""
    assert project("doctor").exit_code == 0
    conn = database.connect()
    conn.execute("CREATE ROLE leaver LOGIN")
    conn.execute(
        "SELECT cron.schedule_in_database("
        "'left-behind', '0 0 1 1 *', 'SELECT 1', current_database(), 'leaver', false)"
    )
    conn.execute("DROP ROLE leaver")
    result = project("doctor")
    assert result.exit_code == 1
    assert "unknown_role" in result.stdout
    remedy = next(line for line in result.stdout.splitlines() if "cron.unschedule(" in line)
    conn.execute(remedy[remedy.index("SELECT cron.unschedule(") :].encode())
    assert "unknown_role" not in project("doctor").stdout


def test_markdown_cannot_be_broken_out_of(project: Cli) -> None:
    """Backticks, tags and mentions of a spec stay inside their block of the Markdown plan."""
    write(
        project,
        "jobs.d/shop.yaml",
        "jobs:\n  evil:\n    schedule: '* * * * *'\n    sql: SELECT '````' -- @everyone </details>\n",
    )
    text = project("plan", "--format", "markdown").stdout
    fence = next(line for line in text.splitlines() if line.startswith("`````"))
    assert fence.strip("`") in {"diff", "sql"}
    inside = text[text.index(fence) : text.rindex("\n`````\n")]
    assert "@everyone </details>" in inside
    assert "@everyone" not in text.replace(inside, "")


def test_init_makes_a_project_that_validates(cli: Cli) -> None:
    """What init writes is valid, and a second init keeps it."""
    assert cli("init", "--owner", "me").exit_code == 0
    assert cli("validate").exit_code == 0
    (cli.directory / "reconciler.yaml").write_text("owner: kept\ntargets: {local: {dsn: local}}\n")
    again = cli("init")
    assert again.exit_code == 0
    assert "owner: kept" in (cli.directory / "reconciler.yaml").read_text()


def test_migrate_alone(project: Cli) -> None:
    """Migrate makes the schema and nothing else; a second one has nothing to do."""
    assert "0001_create_schema" in project("migrate").stdout
    assert project("migrate").stdout == "Nothing to migrate.\n"
    assert "6 to create" in project("plan").stdout
