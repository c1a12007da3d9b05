"""Reviewed plans: exactly what the file says is applied, or nothing and a reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import jsonschema
import pytest

from reconciler.cli.main import main
from reconciler.core.saved_plans import seal
from reconciler.resources import read_resource
from tests.declared import Site
from tests.servers import LIBPQ_KINDS, Database

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.one_server


CONFIG = """\
owner: {owner}
targets:
  test: {{dsn: "{dsn}", runtime: false, role: postgres, prune: {prune}}}
  other: {{dsn: "{dsn}", runtime: false}}
default_target: {default}
"""
ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
TIDY = {"schedule": "0 3 * * *", "sql": "SELECT 1"}
READER: LiteralString = """
CREATE ROLE reader LOGIN BYPASSRLS IN ROLE pg_read_all_settings;
GRANT USAGE ON SCHEMA cron, reconciler TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with files for a real database; commands run there, in this process."""

    site: Site
    capsys: pytest.CaptureFixture[str]

    def configure(
        self, *, prune: str = "never", owner: str = "shop", dsn: str = "", default: str = "test"
    ) -> None:
        """Write the configuration."""
        text = CONFIG.format(dsn=dsn or self.site.dsn, prune=prune, owner=owner, default=default)
        Path("reconciler.yaml").write_text(text)

    def declare(self, **jobs: Mapping[str, Any]) -> None:
        """Write the jobs, each below the one before."""
        Path("jobs.d/shop.yaml").write_text(json.dumps({"jobs": jobs, "queues": {"mail": {}}}, indent=1))

    def run(self, *args: str) -> Result:
        """Run a command."""
        with pytest.raises(SystemExit) as ended:
            main(args)
        captured = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(exit_code=ended.value.code, stdout=captured.out, stderr=captured.err)

    def save(self, *args: str) -> dict[str, Any]:
        """Save a plan, and return what is in its file."""
        result = self.run("plan", "--out", "plan.json", *args)
        assert result.exit_code == 0, result.stderr
        saved: dict[str, Any] = json.loads(Path("plan.json").read_text())
        return saved

    def apply(self, *args: str) -> Result:
        """Apply what was saved."""
        return self.run("apply", "plan.json", *args)

    def must_apply(self, **jobs: Mapping[str, Any]) -> None:
        """Declare and apply, to begin with."""
        self.declare(**jobs)
        result = self.run("apply", "--yes", "--allow-deletes", "1")
        assert result.exit_code == 0, result.stderr


@pytest.fixture
def project(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Project:
    """A project for an empty database."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.d").mkdir()
    made = Project(site=Site(database), capsys=capsys)
    made.configure()
    made.declare(tidy=TIDY)
    return made


def test_a_saved_plan_is_applied_without_a_question(project: Project) -> None:
    """On an empty database; the file fits the schema, and a second apply says that it was done."""
    saved = project.save()
    schema = json.loads(read_resource("schemas", "plan.schema.json"))
    jsonschema.validate(saved, schema, cls=jsonschema.Draft202012Validator)
    assert (saved["saved"]["role"], saved["saved"]["adopt"], saved["consent"]) == ("postgres", [], None)
    applied = project.apply()
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert "Applied as revision 1." in applied.stdout
    again = project.apply()
    assert again.exit_code == 5
    assert (
        "the target test is not as it was\n  nothing is left to change: it may have been applied already"
        in (again.stderr)
    )
    project.save()
    nothing = project.apply()
    assert (nothing.exit_code, "Nothing to change" in nothing.stdout) == (0, True)


@ON_17
def test_other_files_make_it_stale(project: Project) -> None:
    """What is declared differs: it says so and how, and changes nothing; lines that moved do not count."""
    project.must_apply(tidy=TIDY)
    project.declare(tidy={**TIDY, "schedule": "0 4 * * *"})
    project.save()
    before = project.site.everything()
    project.declare(tidy={**TIDY, "schedule": "0 5 * * *"}, more={"every": "5m", "sql": "SELECT 2"})
    stale = project.apply("--yes")
    assert stale.exit_code == 5
    assert "what is declared is not what it was\n" in stale.stderr
    assert "create job more: it was not in the reviewed plan\n" in stale.stderr
    assert "update job tidy: not as reviewed in after.entry.schedule, after.spec.schedule\n" in stale.stderr
    assert "the target test" not in stale.stderr
    assert "make a new plan" in stale.stderr
    assert project.site.everything() == before
    text = json.dumps({"queues": {"mail": {}}, "jobs": {"tidy": {**TIDY, "schedule": "0 4 * * *"}}}, indent=3)
    Path("jobs.d/shop.yaml").write_text(text)
    assert project.apply().exit_code == 0
    assert project.site.entry("tidy")["schedule"] == "0 4 * * *"


@ON_17
def test_a_target_that_moved_makes_it_stale(project: Project) -> None:
    """The observed side differs, and nothing is changed on top of it."""
    project.must_apply(tidy=TIDY)
    project.declare(tidy={**TIDY, "schedule": "0 4 * * *"}, more={"schedule": "1 1 1 1 *", "sql": "SELECT 1"})
    project.save()
    statements: list[tuple[LiteralString, str]] = [
        (
            "UPDATE cron.job SET schedule = '9 9 9 9 *' WHERE jobname = 'tidy'",
            "update job tidy: not as reviewed in before.entry.schedule\n",
        ),
        ("SELECT cron.unschedule('tidy')", "update job tidy: not as reviewed in before.entry\n"),
        (
            "SELECT cron.schedule('more', '1 1 1 1 *', 'SELECT 1')",
            "job more: now it is to update, reviewed was to create",
        ),
    ]
    for statement, said in statements:
        project.site.run(statement)
        before = project.site.everything()
        stale = project.apply()
        assert (stale.exit_code, "the target test is not as it was\n" in stale.stderr) == (5, True)
        assert "what is declared" not in stale.stderr
        assert said in stale.stderr
        assert project.site.everything() == before


def test_the_deletions_of_the_file_are_consented_to(project: Project) -> None:
    """Under prune: confirm the file is enough, and only for its own list."""
    project.configure(prune="confirm")
    project.must_apply(tidy=TIDY, a=TIDY, b=TIDY, c=TIDY)
    project.declare(tidy=TIDY, c=TIDY)
    saved = project.save()
    assert saved["consent"].startswith("2-")
    project.declare(tidy=TIDY)
    stale = project.apply()
    assert stale.exit_code == 5
    assert "delete job c: it was not in the reviewed plan" in stale.stderr
    project.declare(tidy=TIDY, c=TIDY)
    assert project.apply().exit_code == 0
    assert project.site.rows("SELECT jobname::text FROM cron.job ORDER BY 1") == [("c",), ("tidy",)]


@ON_17
def test_limits_go_on_to_hold(project: Project) -> None:
    """Under prune: auto nobody is expected to look: too many deletions need the code of the list."""
    project.configure(prune="auto")
    project.must_apply(tidy=TIDY, a=TIDY, b=TIDY)
    project.declare()
    saved = project.save()
    refused = project.apply()
    assert (refused.exit_code, f"--allow-deletes {saved['consent']}" in refused.stderr) == (4, True)
    assert project.apply("--allow-deletes", "3-000000").exit_code == 4
    assert project.apply("--allow-deletes", saved["consent"]).exit_code == 0
    assert project.site.rows("SELECT count(*) FROM cron.job") == [(0,)]


@ON_17
def test_the_code_is_for_the_list_at_a_terminal_too(project: Project) -> None:
    """As many other deletions are not what was consented to; plan shows the code, and plain numbers go on."""
    project.configure(prune="confirm")
    project.must_apply(a=TIDY, b=TIDY, c=TIDY)
    project.declare(b=TIDY, c=TIDY)
    planned = project.run("plan").stdout
    code = planned.rpartition("--allow-deletes ")[2].strip()
    project.declare(a=TIDY, c=TIDY)
    refused = project.run("apply", "--yes", "--allow-deletes", code)
    assert refused.exit_code == 4
    assert f"the consent {code} is for another list of deletions" in refused.stderr
    project.declare(b=TIDY, c=TIDY)
    assert project.run("apply", "--yes", "--allow-deletes", code).exit_code == 0
    project.declare(c=TIDY)
    assert project.run("apply", "--yes", "--allow-deletes", "1").exit_code == 0
    for odd in ("0", "1-", "1-XYZXYZ", "-1", "x", "²"):
        assert project.run("apply", "--yes", f"--allow-deletes={odd}").exit_code == 2


@ON_17
def test_a_policy_that_changed_since_makes_it_stale(project: Project) -> None:
    """The same files and the same target, and other changes: what the target's prune says counts too."""
    project.must_apply(tidy=TIDY, a=TIDY)
    project.declare(tidy=TIDY)
    project.save()
    project.configure(prune="auto")
    stale = project.apply()
    assert stale.exit_code == 5
    assert "prune of the target, or the release, differs\n  delete job a: it was not" in stale.stderr


@ON_17
def test_a_plan_of_elsewhere_is_refused(project: Project) -> None:
    """Another target, owner or database."""
    project.save()
    assert "for the target 'test', not for 'other'" in project.apply("--target", "other").stderr
    project.configure(owner="kitchen")
    assert "for the owner 'shop', not for 'kitchen'" in project.apply().stderr
    project.configure()
    saved = json.loads(Path("plan.json").read_text())
    kept = saved.pop("saved")
    value = seal(saved, database="elsewhere", role="postgres", made_at=None, adopt=())
    Path("plan.json").write_text(json.dumps(value))
    result = project.apply()
    assert (result.exit_code, "for the database 'elsewhere', and this one is" in result.stderr) == (1, True)
    assert project.site.rows("SELECT count(*) FROM cron.job") == [(0,)]
    Path("plan.json").write_text(json.dumps({**saved, "saved": kept}))
    project.configure(default="other")
    assert project.apply().exit_code == 0  # the target is the plan's


@ON_17
def test_adoptions_are_the_plans(project: Project) -> None:
    """What the file takes over is taken over, and nobody adds to it."""
    project.site.run("SELECT cron.schedule('tidy', '9 9 9 9 *', 'SELECT 9')")
    project.save("--adopt", "tidy")
    assert project.apply("--adopt", "tidy").exit_code == 2
    assert project.apply().exit_code == 0
    assert project.site.entry("tidy")["schedule"] == "0 3 * * *"


@ON_17
def test_a_file_that_is_no_such_plan_is_said_to_be_none(project: Project) -> None:
    """Missing, damaged, edited, of the wrong make: where, what and what to do, and nothing is changed."""
    saved = project.save()
    edited = json.loads(json.dumps(saved))
    edited["changes"][0]["after"]["spec"] = {"sql": "DROP TABLE shop"}
    bare = project.run("plan", "--format", "json").stdout
    path = Path("plan.json")
    for text, said in (
        (path.read_text()[:-20], "plan.json: is no JSON: write it with plan --out FILE"),
        ("", "plan.json: is no JSON"),
        (json.dumps(edited), "plan.json: was altered since it was made: make it anew with plan --out FILE"),
        (bare, "plan.json: was not made to be applied: make it with plan --out FILE"),
        (json.dumps({**saved, "format_version": "2.0"}), "(at format_version)"),
        (json.dumps({**saved, "new": float("nan")}), "plan.json: was altered"),
        (json.dumps({**saved, "owner": "\ud800"}), "plan.json: "),
        ("[]", "is no plan that this release reads"),
    ):
        path.write_text(text)
        result = project.apply()
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
    path.unlink()
    missing = project.apply()
    assert (missing.exit_code, "plan.json: cannot be read: No such file" in missing.stderr) == (1, True)
    unwritten = project.run("plan", "--out", "none/plan.json")
    assert (unwritten.exit_code, "none/plan.json: cannot be written" in unwritten.stderr) == (1, True)
    assert project.site.rows("SELECT count(*) FROM cron.job") == [(0,)]


@ON_17
def test_too_large_a_file_is_not_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that large is none."""
    project.save()
    monkeypatch.setattr("reconciler.cli.plan_files.PLAN_LIMIT", 100)
    result = project.apply()
    assert (result.exit_code, "plan.json: is too large for a plan" in result.stderr) == (1, True)


def test_who_may_only_read_makes_the_plan(project: Project) -> None:
    """What a role that may write nothing saved is applied by another; applying it itself changes nothing."""
    project.must_apply(tidy=TIDY)
    project.site.run(READER)
    project.declare(tidy={**TIDY, "schedule": "0 4 * * *"}, more=TIDY)
    reader = project.site.database.dsn_for("reader")
    saved = project.save("--dsn", reader)
    assert (saved["saved"]["role"], len(saved["changes"])) == ("reader", 2)
    before = project.site.everything()
    itself = project.apply("--dsn", reader)
    assert (itself.exit_code, "nothing was changed: the role reader cannot make" in itself.stderr) == (
        1,
        True,
    )
    assert project.site.everything() == before
    applied = project.apply()
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert project.site.entry("more")["username"] == "postgres"
    assert project.run("plan", "--exit-code", "--dsn", reader).exit_code == 0


@ON_17
def test_two_roles_that_see_different_entries_are_told(project: Project) -> None:
    """Who plans without a sight of all entries is told what both roles need."""
    project.must_apply(tidy=TIDY)
    project.site.run(READER)
    project.site.run("ALTER ROLE reader NOBYPASSRLS")
    project.save("--dsn", project.site.database.dsn_for("reader"))
    stale = project.apply()
    assert stale.exit_code == 5
    assert "the role reader made it and postgres is to apply it" in stale.stderr
