"""Stages of a target, release and transfer: what an apply takes over, leaves alone, and gives up."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from reconciler.cli.main import main
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.errors import RefusedError
from reconciler.resources import read_resource
from tests.declared import NEVER, OWNER, Site, after, job, once, queue, request, worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.ownership import Handover
    from reconciler.core.specs import Spec
    from reconciler.database.apply import Applied, Planned
    from tests.servers import Database

pytestmark = pytest.mark.one_server

CONFIG = """\
owner: {owner}
targets:
  test: {{dsn: "{dsn}", runtime: false, role: postgres, prune: {prune}, stage: {stage}}}
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

    def configure(self, *, prune: str = "confirm", stage: str = "declared-only", owner: str = OWNER) -> None:
        """Write the configuration."""
        text = CONFIG.format(dsn=self.site.dsn, prune=prune, stage=stage, owner=owner)
        Path("reconciler.yaml").write_text(text)

    def declare(self, **jobs: Mapping[str, Any]) -> None:
        """Write the jobs."""
        Path("jobs.d/shop.yaml").write_text(json.dumps({"jobs": jobs}, indent=1))

    def run(self, *args: str) -> Result:
        """Run a command."""
        with pytest.raises(SystemExit) as ended:
            main(args)
        captured = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(exit_code=ended.value.code, stdout=captured.out, stderr=captured.err)

    def must_run(self, *args: str) -> str:
        """Run a command that has to succeed."""
        result = self.run(*args)
        assert result.exit_code == 0, result.stderr
        return result.stdout


@pytest.fixture
def project(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Project:
    """A project for an empty database."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.d").mkdir()
    made = Project(site=Site(database), capsys=capsys)
    made.configure()
    return made


def tidy(**fields: Any) -> dict[str, Any]:
    """Declare a job for a file."""
    return {"schedule": NEVER, "sql": "SELECT 1", **fields}


def by_hand(site: Site, name: str | None, command: str = "SELECT 7") -> int:
    """Make an entry that nobody declared, perhaps without a name."""
    if name is None:
        return int(site.rows("SELECT cron.schedule(%s, %s)", NEVER, command)[0][0])
    return int(site.rows("SELECT cron.schedule(%s, %s, %s)", name, NEVER, command)[0][0])


def test_add_only_creates_and_adopts_equals_and_leaves_the_rest(site: Site) -> None:
    """Edits, drift and removals are named in one notice; drift shows what was edited by hand all the same."""
    site.apply(job("edited"), job("drifted"), job("gone"))
    by_hand(site, "equal", "SELECT 1")
    by_hand(site, "different")
    site.run("SELECT cron.alter_job(jobid, schedule := '1 1 1 1 *') FROM cron.job WHERE jobname = 'drifted'")
    specs = (
        job("edited", "SELECT 2"),
        job("drifted"),
        job("equal", mode="direct"),
        job("different", mode="direct"),
        job("new"),
    )
    before = site.entry("drifted"), site.entry("different"), site.entry("gone")
    options: dict[str, Any] = {"prune": "auto", "stage": "add-only", "adopt": ("different",)}
    plan = site.plan(*specs, **options).plan
    assert [(change.action, change.name) for change in plan.changes] == [
        ("adopt", "equal"),
        ("create", "new"),
    ]
    notice = next(one for one in plan.notices if one.code == "held_back")
    assert notice.names == ("different", "drifted", "edited", "gone")
    assert "3 to update, 1 to delete" in notice.message
    assert {(change.name, change.reason) for change in plan.held} >= {("drifted", "drifted")}
    site.apply(*specs, **options)
    assert (site.entry("drifted"), site.entry("different"), site.entry("gone")) == before
    assert site.plan(*specs, **options).plan.is_empty


def test_add_only_lets_the_tool_s_own_entries_follow_the_release(site: Site) -> None:
    """An update of an entry that nobody declares is none that a stage could hold back."""
    from reconciler.core.config import Runtime

    site.apply(job("a"), runtime=Runtime())
    site.run("UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = 'reconciler-tick'")
    changes = site.changes(job("a"), runtime=Runtime(), stage="add-only")
    assert changes == [("update", "reconciler-tick", "drifted")]


def test_drift_is_shown_though_the_stage_leaves_it_out(project: Project) -> None:
    """Plan has nothing to do and says what it leaves out; drift tells of it with its exit code."""
    project.declare(tidy=tidy())
    project.must_run("apply", "--yes")
    project.configure(stage="add-only")
    project.site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job")
    planned = project.must_run("plan", "--exit-code")
    assert "Note [held_back]" in planned
    assert planned.endswith("Nothing to change; 1 left out at this stage.\n")
    value = json.loads(project.must_run("plan", "--format", "json"))
    assert (value["empty"], value["summary"]["held"]) == (True, 1)
    assert "1 changes are left out" in project.must_run("plan", "--format", "markdown")
    drift = project.run("drift", "--exit-code")
    assert (drift.exit_code, "entry.active: false → true" in drift.stdout) == (7, True)


def test_authoritative_deletes_what_nobody_declared_with_consent_alone(project: Project) -> None:
    """Under auto, too, and never what another owner declared; the code is for exactly these entries."""
    site = project.site
    project.configure(owner="billing")
    project.declare(theirs=tidy())
    project.must_run("apply", "--yes")
    project.configure(prune="auto", stage="authoritative")
    project.declare(ours=tidy())
    by_hand(site, "stray")
    unnamed = by_hand(site, None)
    by_hand(site, "\x1b[2Jodd")
    refused = project.run("apply", "--yes")
    assert refused.exit_code == 4
    assert "the plan deletes 3, 3 of which nobody declared (stage: authoritative)" in refused.stderr
    assert "take them over: reconciler import" in refused.stderr
    assert "- job stray  (unmanaged, cron.job)" in refused.stdout
    assert (f"- job #{unnamed}  (unmanaged" in refused.stdout, "\x1b[2J" in refused.stdout) == (True, False)
    saved = json.loads(project.must_run("plan", "--format", "json"))
    jsonschema.validate(saved, json.loads(read_resource("schemas", "plan.schema.json")))
    by_hand(site, "later")
    other = project.run("apply", "--yes", "--allow-deletes", saved["consent"])
    assert (other.exit_code, "is for another list" in other.stderr) == (4, True)
    site.run("SELECT cron.unschedule('later')")
    project.must_run("apply", "--yes", "--allow-deletes", saved["consent"])
    assert site.rows("SELECT jobname FROM cron.job ORDER BY 1") == [("ours",), ("theirs",)]
    assert "Nothing to change" in project.must_run("plan", "--exit-code")
    assert "nobody" not in project.must_run("blame", "stray")
    assert "SELECT 7" in project.must_run("history", "show", "2")
    project.must_run("restore", "stray", "--yes")
    assert (site.entry("stray")["command"], site.entry("stray")["username"]) == ("SELECT 7", "postgres")
    assert ("delete", "stray", "removed") in [
        (one["action"], one["name"], one["reason"])
        for one in json.loads(project.must_run("plan", "--format", "json"))["changes"]
    ]


def test_a_number_is_for_the_entries_that_were_shown(site: Site) -> None:
    """An entry that comes and one that goes between plan and apply make it stale."""
    options: dict[str, Any] = {"prune": "auto", "stage": "authoritative"}
    by_hand(site, "one")
    shown = site.plan(job("a"), **options)
    site.run("SELECT cron.unschedule('one')")
    by_hand(site, "two")
    assert site.plan(job("a"), **options).fingerprints() != shown.fingerprints()
    plain = site.plan(job("a"))
    site.run("SELECT cron.unschedule('two')")
    assert site.plan(job("a")).fingerprints() == plain.fingerprints()


def test_neither_a_selection_nor_a_rollback_deletes_what_nobody_declared(project: Project) -> None:
    """Both are about other things; a reviewed plan is consent under confirm."""
    project.declare(a=tidy(), b=tidy())
    project.must_run("apply", "--yes")
    project.declare(a=tidy(sql="SELECT 2"), b=tidy())
    project.must_run("apply", "--yes")
    project.configure(stage="authoritative")
    by_hand(project.site, "stray")
    assert "stray" not in project.must_run("plan", "--only", "a")
    assert "stray" not in project.must_run("rollback", "1", "--dry-run")
    project.must_run("plan", "--out", "plan.json")
    project.must_run("apply", "plan.json")
    assert project.site.rows("SELECT jobname FROM cron.job ORDER BY 1") == [("a",), ("b",)]
    project.must_run("rollback", "1", "--yes")
    assert "SELECT 1" in json.dumps(project.site.rows("SELECT spec FROM reconciler.definitions"))


def test_an_unmanaged_entry_of_our_name_leaves_our_definition(site: Site) -> None:
    """pg_cron knows entries by name and role: the one of another role goes, ours stays and is managed."""
    site.run("CREATE ROLE other LOGIN")
    site.apply(job("a"))
    site.run("UPDATE cron.job SET username = 'other' WHERE jobid = %s", by_hand(site, "x"))
    site.run("UPDATE cron.job SET jobname = 'a' WHERE jobname = 'x'")
    options: dict[str, Any] = {"prune": "auto", "stage": "authoritative"}
    assert site.changes(job("a"), **options) == [("delete", "a@other", "unmanaged")]
    site.apply(job("a"), allow_deletes=1, **options)
    assert site.entry("a")["username"] == "postgres"
    assert site.changes(job("a"), **options) == []


def ask(handover: Handover, *specs: Spec, **options: Any) -> Any:
    """Make the request of a release or a transfer."""
    return replace(request(*specs, **options), handover=handover)


def plan_release(site: Site, *names: str, to: str = "", specs: tuple[Spec, ...] = ()) -> Planned:
    """Plan to give up resources."""
    from reconciler.core.ownership import Handover

    with connect(site.dsn) as conn:
        return plan_target(conn, ask(Handover(names=names, to=to), *specs))


def release(site: Site, *names: str, to: str = "", owner: str = OWNER) -> Applied:
    """Give up resources."""
    from reconciler.core.ownership import Handover

    with connect(site.dsn) as conn:
        return apply_target(conn, ask(Handover(names=names, to=to), owner=owner))


def test_a_released_job_keeps_its_entry(site: Site) -> None:
    """A direct one to the letter; a managed one runs its SQL by itself, under the same jobid."""
    site.apply(job("plain", "SELECT 5", mode="direct"), job("kept", "SELECT 6"), job("stays"))
    plain, kept, stays = site.entry("plain"), site.entry("kept"), site.entry("stays")
    assert release(site, "plain", "kept").revision == 2
    assert site.entry("plain") == plain
    assert site.entry("kept") == kept | {"command": "SELECT 6"}
    assert site.entry("stays") == stays
    assert site.rows("SELECT name FROM reconciler.definitions") == [("stays",)]
    assert site.changes(job("stays"), prune="auto") == []
    adopted = site.changes(job("plain", "SELECT 5", mode="direct"), job("stays"))
    assert adopted == [("adopt", "plain", "adopted")]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hook", "job hook cannot be released: its request is sent by its definition"),
        ("work", "job work cannot be released: its runs are put on a queue by its definition"),
        ("later", "job later cannot be released: it runs once, by its definition and without an entry"),
        ("next", "job next cannot be released: it has no entry that could stay"),
        ("mail", "queue mail cannot be released: it has no entry that could stay"),
        ("push", "worker push cannot be released: its entry works by its definition alone"),
        ("safe", "job safe is protected"),
        ("paused", "job paused is paused, and nothing would keep it from running"),
        ("late", "job late cannot be released: more than the schedule of its entry decides when it runs, so"),
        ("still", "job still is still declared"),
    ],
)
def test_what_would_not_go_on_as_it_is_cannot_be_released(site: Site, name: str, why: str) -> None:
    """Each with the reason, and nothing is changed."""
    specs = (
        job("hook", http={"url": "https://app.test"}),
        job("work", handler="work.do"),
        once("later"),
        after("next", "still"),
        queue("mail"),
        worker("push"),
        job("safe", protect=True),
        job("paused"),
        job("late", start_at="2099-01-01T00:00:00Z"),
        job("still"),
    )
    site.apply(*specs)
    site.run("INSERT INTO reconciler.pauses (job_name) VALUES ('paused')")
    declared = tuple(spec for spec in specs if spec.name == "still")
    refused = plan_release(site, name, specs=declared).plan.refused
    assert next(change.obstacle.why for change in refused if change.obstacle).startswith(why)


def test_only_what_is_ours_is_given_up(project: Project) -> None:
    """Another owner's is refused by that owner's name; what is not there at all gets the nearest word."""
    project.declare(tidy=tidy())
    project.must_run("apply", "--yes")
    unknown = project.run("release", "tdy", "--yes")
    assert (unknown.exit_code, "did you mean 'tidy'?" in unknown.stderr) == (1, True)
    declared = project.run("release", "tidy", "--yes")
    assert declared.exit_code == 4
    assert "job tidy is still declared\n  remove it from jobs.d/shop.yaml:3 first" in declared.stderr
    project.configure(owner="billing")
    project.declare(other=tidy())
    foreign = project.run("release", "tidy", "--yes")
    assert (foreign.exit_code, "belongs to the owner shop" in foreign.stderr) == (4, True)
    for args, words in (
        (("transfer", "tidy", "--to", "Bad Owner"), "is no owner"),
        (("transfer", "tidy", "--to", "billing"), "they are of billing already"),
    ):
        usage = project.run(*args)
        assert (usage.exit_code, words in usage.stderr) == (2, True)


def test_the_last_declared_job_can_be_released(project: Project) -> None:
    """Files that declare nothing stop an apply, which would delete; they stop no release. History tells."""
    project.declare(tidy=tidy())
    project.must_run("apply", "--yes")
    project.declare()
    shown = project.must_run("release", "tidy", "--dry-run")
    assert "> job tidy  (released, jobs.d/shop.yaml:3)" in shown
    assert '"CALL reconciler.run_job(\'tidy\')" → "SELECT 1"' in shown
    assert "Note [released]: pg_cron runs the SQL of these by itself" in shown
    assert project.site.rows("SELECT count(*) FROM reconciler.revisions") == [(1,)]
    assert "Applied as revision 2." in project.must_run("release", "tidy", "--yes")
    assert project.site.entry("tidy")["command"] == "SELECT 1"
    blamed = project.must_run("blame", "tidy")
    assert "tidy belongs to nobody now." in blamed
    assert "  >1  " in project.must_run("history")


def test_a_transfer_changes_the_owner_alone(project: Project) -> None:
    """Two revisions in one transaction; the new owner's plan is empty, and both can blame and roll back."""
    project.declare(tidy=tidy(), more=tidy())
    project.must_run("apply", "--yes")
    before = project.site.entry("tidy")
    project.declare(more=tidy())
    project.must_run("transfer", "tidy", "--to", "billing", "--yes")
    assert project.site.entry("tidy") == before
    rows = project.site.rows(
        "SELECT id, owner, summary ->> 'transferred_to', summary ->> 'transferred_from',"
        " changes #>> '{0,action}' FROM reconciler.revisions WHERE id > 1 ORDER BY 1"
    )
    assert rows == [(2, "shop", "billing", None, "release"), (3, "billing", None, "shop", "adopt")]
    assert project.site.rows("SELECT owner, revision FROM reconciler.definitions WHERE name = 'tidy'") == [
        ("billing", 3)
    ]
    assert "Nothing to change" in project.must_run("plan", "--exit-code")
    refused = project.run("rollback", "1", "--yes")
    assert (refused.exit_code, "belongs to the owner billing" in refused.stderr) == (4, True)
    project.configure(owner="billing")
    project.declare(tidy=tidy())
    assert "Nothing to change" in project.must_run("plan", "--exit-code")
    project.declare(tidy=tidy(sql="SELECT 2"))
    project.must_run("apply", "--yes")
    project.must_run("rollback", "3", "--yes")
    assert (
        "SELECT 1"
        in project.site.rows("SELECT spec::text FROM reconciler.definitions WHERE name = 'tidy'")[0][0]
    )
    blamed = project.must_run("blame", "tidy")
    assert [line.split()[:1] for line in blamed.splitlines() if "transferred" in line] == [["3"], ["2"]]
    shown = project.must_run("history", "show", "2")
    assert ("transfer  to billing" in shown, "> job tidy  (transferred" in shown) == (True, True)


def test_what_cannot_be_shown_to_be_done_is_rolled_back(site: Site) -> None:
    """A trigger that rewrites the entry is found by the second look, and all stays as it was."""
    site.apply(job("a"), job("b"))
    site.run(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.command := 'SELECT 0'; RETURN NEW; END $$"
    )
    site.run("CREATE TRIGGER spoil BEFORE UPDATE ON cron.job FOR EACH ROW EXECUTE FUNCTION spoil()")
    before = site.everything()
    try:
        with pytest.raises(Exception, match=r"not as declared after the changes were made.*release a"):
            release(site, "a")
    finally:
        site.run("DROP TRIGGER spoil ON cron.job")
        site.run("DROP FUNCTION spoil")
    assert site.everything() == before


def test_a_release_and_an_apply_are_one_at_a_time(site: Site) -> None:
    """What moved since the plan was shown makes it stale; a name that is gone is said to be unknown."""
    site.apply(job("a"), job("b"))
    release(site, "a")
    with pytest.raises(Exception, match="has nothing called 'a'"):
        release(site, "a")
    with pytest.raises(RefusedError, match="belongs to the owner shop"):
        release(site, "b", owner="billing")
