"""Several targets at once, on databases side by side: waves, failures, one summary and one exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.fleets import make_databases
from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

if TYPE_CHECKING:
    from tests.conftest import Cli, CliResult

pytestmark = pytest.mark.one_server

TENANTS = ("tenant-1", "tenant-2", "tenant-3")
JOBS = """\
jobs:
  tidy: {schedule: "0 3 * * *", sql: "DELETE FROM things"}
  count: {schedule: "0 4 * * *", sql: "CALL count_things('${var:plan}')"}
"""
CONFIG = """\
owner: shop
target_defaults: {{dsn: "{dsn}", prune: confirm, runtime: false, wave: 1, vars: {{plan: basic}}}}
targets:
  tenant-1: {{wave: 0}}
  tenant-2: {{}}
  tenant-3: {{}}
"""


class Fleet:
    """Three databases, and a folder whose configuration has them as targets."""

    def __init__(self, cli: Cli, database: Database) -> None:
        make_databases(database, TENANTS)
        self.cli = cli
        self.dsn = {name: make_conninfo(database.dsn, dbname=name) for name in TENANTS}
        self.write("jobs.d/shop.yaml", JOBS)
        self.configure()

    def configure(self, more: str = "", **replaced: str) -> None:
        """Write the configuration, with lines of targets replaced or added."""
        dsn = make_conninfo(self.dsn["tenant-1"], dbname="DATABASE").replace("DATABASE", "${target}")
        text = CONFIG.format(dsn=dsn) + more
        for name, line in replaced.items():
            text = "".join(
                f"  {name.replace('_', '-')}: {line}\n"
                if one.startswith(f"  {name.replace('_', '-')}:")
                else one
                for one in text.splitlines(keepends=True)
            )
        self.write("reconciler.yaml", text)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.cli.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(self, command: str, *args: str) -> tuple[dict[str, str], CliResult, dict[str, Any]]:
        """Run a command on all; returns the result of each target, the command's, and its JSON."""
        agreed = ("--yes",) if command == "apply" else ()
        result = self.cli(command, "-t", "tenant-*", "--format", "json", *agreed, *args)
        assert "Traceback" not in result.stderr
        value = json.loads(result.stdout)
        assert value["exit_code"] == result.exit_code
        return {one["target"]: one["result"] for one in value["targets"]}, result, value

    def execute(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Execute statements on a tenant's database."""
        with psycopg.connect(self.dsn[name], autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def entries(self, name: str) -> list[tuple[Any, ...]]:
        """List the entries of a tenant."""
        return self.execute(name, "SELECT jobname::text, schedule, database FROM cron.job ORDER BY 1")


@pytest.fixture
def fleet(cli: Cli, database: Database) -> Fleet:
    """Three databases and their targets."""
    return Fleet(cli, database)


def test_apply_reaches_every_target_once(fleet: Fleet) -> None:
    """Each database gets its own entries by wave, and a second apply has nothing to do anywhere."""
    results, applied, value = fleet.run("apply")
    assert results == dict.fromkeys(TENANTS, "done")
    assert (applied.exit_code, applied.stderr) == (0, "Wave 0: 1 target.\nWave 1: 2 targets.\n")
    assert [(one["wave"], one["revision"], one["changes"]) for one in value["targets"]] == [
        (wave, 1, {"create": 2}) for wave in (0, 1, 1)
    ]
    for name in TENANTS:
        assert fleet.entries(name) == [("count", "0 4 * * *", name), ("tidy", "0 3 * * *", name)]
    results, _, value = fleet.run("apply")
    assert results == dict.fromkeys(TENANTS, "no changes")
    assert {one["revision"] for one in value["targets"]} == {None}


def test_plans_that_are_alike_are_shown_once(fleet: Fleet) -> None:
    """Their own databases do not part targets, and another value of a variable does."""
    fleet.configure(tenant_3="{vars: {plan: gold}}")
    shown = fleet.cli("plan", "-t", "tenant-*")
    assert shown.exit_code == 0, shown.stderr
    assert "Plan on 2 targets, shown as on tenant-1: tenant-1, tenant-2\n" in shown.stdout
    assert "Plan on tenant-3\n" in shown.stdout
    assert shown.stdout.count("+ job tidy") == 2
    assert shown.stdout.endswith("3 targets: 3 changes.\n")
    results, planned, value = fleet.run("plan", "--exit-code")
    assert (planned.exit_code, set(results.values())) == (3, {"changes"})
    assert [group["targets"] for group in value["groups"]] == [["tenant-1", "tenant-2"], ["tenant-3"]]
    assert [one["group"] for one in value["targets"]] == [0, 0, 1]
    names = [change["name"] for change in value["groups"][0]["plan"]["changes"]]
    assert names == ["count", "tidy"]


def test_a_canary_that_fails_keeps_the_others_as_they_are(fleet: Fleet) -> None:
    """No later wave begins, unless the person said so, and the exit code says why."""
    fleet.execute("tenant-1", "SELECT cron.schedule('tidy', '0 5 * * *', 'SELECT 1')")
    results, applied, value = fleet.run("apply")
    assert results == {"tenant-1": "refused", "tenant-2": "not reached", "tenant-3": "not reached"}
    assert applied.exit_code == 4
    assert "tidy" in value["targets"][0]["error"]
    assert fleet.entries("tenant-2") == []
    results, applied, _ = fleet.run("apply", "--keep-going")
    assert results == {"tenant-1": "refused", "tenant-2": "done", "tenant-3": "done"}
    assert applied.exit_code == 4


def test_a_bad_address_does_not_end_the_others(fleet: Fleet) -> None:
    """A plan looks at all targets; its table has one line for the error, and below is the whole."""
    fleet.configure(tenant_1='{dsn: "host=127.0.0.1 port=1 connect_timeout=2"}')
    results, planned, _ = fleet.run("plan")
    assert (planned.exit_code, results) == (
        1,
        {"tenant-1": "failed", "tenant-2": "changes", "tenant-3": "changes"},
    )
    shown = fleet.cli("plan", "-t", "tenant-*").stdout
    row = next(line for line in shown.splitlines() if line.startswith("tenant-1 "))
    assert "cannot connect to" in row
    assert "check host and port of the target's dsn" in shown
    assert shown.endswith("3 targets: 1 failed, 2 changes.\n")


def test_what_is_wrong_for_one_target_is_begun_nowhere(fleet: Fleet) -> None:
    """Files and variables are looked at for all targets before the first is touched."""
    fleet.configure(tenant_3="{role: '${env:NOT_SET_HERE}'}")
    results, applied, value = fleet.run("apply")
    assert results == {"tenant-1": "not reached", "tenant-2": "not reached", "tenant-3": "failed"}
    assert applied.exit_code == 1
    assert "'NOT_SET_HERE' is not set" in value["targets"][2]["error"]
    assert fleet.entries("tenant-1") == []
    results, _, _ = fleet.run("apply", "--keep-going")
    assert results == {"tenant-1": "done", "tenant-2": "done", "tenant-3": "failed"}


def test_another_apply_and_drift_have_their_own_codes(fleet: Fleet) -> None:
    """A lock on one target is told from an error, and drift is found where it is."""
    fleet.configure(tenant_1="{wave: 1}")
    with psycopg.connect(fleet.dsn["tenant-2"]) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7411530208936421)")
        results, applied, _ = fleet.run("apply", "--keep-going", "--parallel", "3")
    assert (results["tenant-2"], applied.exit_code) == ("locked", 6)
    results, applied, _ = fleet.run("apply")
    assert (results["tenant-2"], applied.exit_code) == ("done", 0)
    fleet.execute("tenant-2", "SELECT cron.alter_job(jobid, schedule => '1 1 * * *') FROM cron.job")
    results, drift, value = fleet.run("drift", "--exit-code")
    assert results == {"tenant-1": "no drift", "tenant-2": "drift", "tenant-3": "no drift"}
    assert drift.exit_code == 7
    shown = fleet.cli("drift", "-t", "tenant-*")
    assert shown.exit_code == 0
    assert "Drift on tenant-2\n" in shown.stdout
    assert "Drift on 2 targets" not in shown.stdout
    assert value["targets"][1]["changes"] == {"update": 2}


def test_consent_to_deletions_is_for_each_target(fleet: Fleet) -> None:
    """A number is the deletions of each target by itself, and a target with others is refused."""
    fleet.run("apply")
    fleet.write("jobs.d/shop.yaml", JOBS.splitlines(keepends=True)[0] + JOBS.splitlines(keepends=True)[1])
    assert "To consent to its deletions, on each target by itself: --allow-deletes 1" in (
        fleet.cli("plan", "-t", "tenant-*").stdout
    )
    results, applied, _ = fleet.run("apply")
    assert (results["tenant-1"], applied.exit_code) == ("refused", 4)
    fleet.configure(tenant_2="{prune: never}")
    results, applied, _ = fleet.run("apply", "--allow-deletes", "1")
    assert results == {"tenant-1": "done", "tenant-2": "no changes", "tenant-3": "done"}
    assert [len(fleet.entries(name)) for name in TENANTS] == [1, 2, 1]


def test_what_the_role_may_not_do_is_incomplete(fleet: Fleet) -> None:
    """The rest is done and the names are said, as on one target; it counts as a failure."""
    fleet.execute(
        "tenant-1",
        "DROP SCHEMA reconciler CASCADE; CREATE ROLE deploy LOGIN; GRANT USAGE ON SCHEMA cron TO deploy;"
        'GRANT CREATE ON DATABASE "tenant-1" TO deploy; CREATE ROLE bob LOGIN;'
        "GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO deploy",
    )
    dsn = make_conninfo(fleet.dsn["tenant-1"], user="deploy")
    fleet.configure(tenant_1=f'{{wave: 0, dsn: "{dsn}"}}')
    fleet.write("jobs.d/shop.yaml", JOBS + '  off: {schedule: "0 5 * * *", sql: CALL x(), role: bob}\n')
    results, applied, value = fleet.run("apply")
    assert results == {"tenant-1": "incomplete", "tenant-2": "not reached", "tenant-3": "not reached"}
    assert (applied.exit_code, value["targets"][0]["revision"]) == (1, 1)
    assert value["targets"][0]["error"] == "not done, for lack of rights: off"
    assert len(fleet.entries("tenant-1")) == 2
