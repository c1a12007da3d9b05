"""`rollback`: what was applied comes back, as a plan like any other, in one transaction."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from reconciler.core.canonical import render_canonical
from reconciler.core.config import Config, Runtime, Secret
from reconciler.core.policies import Governance, Match, SpecPolicy
from reconciler.core.specs import Place
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.history import find_restored
from reconciler.errors import DatabaseError, RefusedError
from reconciler.loader.past_specs import build_past_specs
from tests.declared import LATER, OWNER, Site, channel, job, once, queue, request, worker
from tests.integration.test_convergence import NAMES, OUTSIDE, declarations, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.specs import Spec
    from reconciler.database.apply import Applied, Planned
    from reconciler.database.statements import Request
    from tests.conftest import Cli, CliResult
    from tests.servers import Database

pytestmark = pytest.mark.one_server


SCHEDULE_OTHERWISE: LiteralString = """
UPDATE reconciler.revisions
   SET changes = replace(changes::text, '"0 22,23 28 2 *"', '"0 22 28 2 *"')::json
"""
LOSE_DOCUMENTS: LiteralString = """
UPDATE reconciler.revisions
   SET changes = replace(changes::text, '"after":{"spec":{', '"after":{"spec":null,"x":{')::json
 WHERE id = 2
"""
WRITE_BESIDE: LiteralString = """
UPDATE reconciler.definitions SET spec = '{}', digest = encode(sha256('{}'), 'hex') WHERE name = 'report'
"""
SECRETS = {name: Secret(name=name, store="env", key="X") for name in (*NAMES, "ops")}
STATE: LiteralString = (
    "SELECT d.name, d.kind, d.spec::text, d.protect, j.schedule, j.command, j.database, j.username, j.active"
    " FROM reconciler.definitions d LEFT JOIN cron.job j USING (jobid) WHERE d.owner = 'shop' ORDER BY 1"
)


def ask(site: Site, number: int, **options: Any) -> Request:
    """Make the request of a rollback; options are those of `request`."""
    wanted = request(**options)
    config = Config(
        path="reconciler.yaml",
        owner=wanted.owner,
        jobs=(),
        targets={"test": wanted.target},
        default_target="test",
        secrets=SECRETS,
    )
    with connect(site.dsn) as conn:
        restored = find_restored(conn, number, owner=wanted.owner)
    return replace(
        wanted, specs=build_past_specs(restored, config, wanted.target), past=restored.past, adopt=()
    )


def plan(site: Site, number: int, **options: Any) -> Planned:
    """Plan a rollback."""
    with connect(site.dsn) as conn:
        return plan_target(conn, ask(site, number, **options))


def roll_back(site: Site, number: int, *, allow_deletes: int | None = None, **options: Any) -> Applied:
    """Roll back."""
    wanted = ask(site, number, **options)
    with connect(site.dsn) as conn:
        return apply_target(conn, wanted, allow_deletes=allow_deletes)


def strip(spec: Spec) -> Spec:
    """Spell a document as the loader does: without what is said once, and with a payload that fits."""
    document = {key: value for key, value in json.loads(spec.document).items() if key != "renamed_from"}
    if "payload" in document:
        document["payload"] = {"n": document["payload"]}
    document.pop("protect", None)
    if document.get("active"):
        del document["active"]
    return replace(spec, document=render_canonical(document), protect=False)


@settings(
    max_examples=8,
    phases=(Phase.explicit, Phase.generate),  # shrinking on a server takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rounds=st.lists(declarations(), min_size=2, max_size=4),
    pick=st.integers(0, 100),
    prune=st.sampled_from(["auto", "never"]),
)
def test_any_revision_comes_back(database: Database, rounds: list[list[Spec]], pick: int, prune: Any) -> None:
    """Whatever was declared, edited, removed and renamed since: definitions and entries are as they were."""
    site = Site(database)
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        site.run("CREATE ROLE alice LOGIN; CREATE ROLE stranger LOGIN")
    prepare(site)
    outside = site.rows(OUTSIDE)
    options: dict[str, Any] = {"role": "postgres", "runtime": Runtime()}
    states: dict[int, list[tuple[Any, ...]]] = {}
    for specs in rounds:
        wanted = [strip(spec) for spec in specs]
        with contextlib.suppress(RefusedError):
            deletions = len(site.plan(*wanted, prune="auto", adopt=NAMES, **options).plan.deletions)
            applied = site.apply(*wanted, prune="auto", adopt=NAMES, allow_deletes=deletions, **options)
            if applied.revision is not None:
                states[applied.revision] = site.rows(STATE)
    if not states:
        return
    number = sorted(states)[pick % len(states)]
    try:
        planned = plan(site, number, prune=prune, **options)
        note(str([(one.action, one.name) for one in planned.plan.changes]))
        roll_back(site, number, allow_deletes=len(planned.plan.deletions), prune=prune, **options)
    except RefusedError as error:
        note(f"refused: {error}")
        # The one thing that random states run into: a name of then that a stranger's entry has.
        if "already holds an entry" not in str(error):
            raise
        return
    kept = set(planned.plan.kept)
    assert prune == "never" or not kept
    assert [row for row in site.rows(STATE) if row[0] not in kept] == states[number]
    assert plan(site, number, prune=prune, **options).plan.changes == ()
    assert site.rows(OUTSIDE) == outside


@pytest.fixture
def lived(site: Site) -> Site:
    """A database with three revisions: all kinds, then edits and a rename, then removals."""
    site.apply(
        job("tidy", "DELETE FROM carts"),
        job("report", "SELECT 1", protect=True),
        queue("mail", max_attempts=3),
        worker("push"),
        channel("ops"),
        once("party"),
        prune="auto",
    )
    site.apply(
        replace(job("sweep", "DELETE FROM carts"), renamed_from="tidy"),
        job("report", "SELECT 2"),
        queue("mail", max_attempts=4),
        worker("push"),
        channel("ops"),
        once("party"),
        prune="auto",
    )
    site.apply(job("sweep", "DELETE FROM baskets"), job("report", "SELECT 2"), prune="auto", allow_deletes=4)
    return site


def test_every_kind_comes_back(lived: Site) -> None:
    """A queue, a worker, a channel, a waiting one-time job and a name of before, with its job id."""
    jobid = lived.entry("sweep")["jobid"]
    applied = roll_back(lived, 1, prune="auto")
    assert [(one.action, one.name, one.reason) for one in applied.plan.changes] == [
        ("create", "ops", "declared"),
        ("create", "mail", "declared"),
        ("create", "party", "declared"),
        ("update", "report", "edited"),
        ("update", "tidy", "renamed"),
        ("create", "push", "declared"),
    ]
    assert lived.entry("tidy")["jobid"] == jobid
    assert lived.rows("SELECT max_attempts FROM reconciler.queues") == [(3,)]
    assert lived.rows("SELECT run_at, status FROM reconciler.jobs WHERE job_name = 'party' AND once") == [
        (LATER, "pending")
    ]
    assert lived.rows("SELECT spec ->> 'sql', protect FROM reconciler.definitions WHERE name = 'report'") == [
        ("SELECT 1", True)
    ]


def test_a_rollback_is_a_revision(lived: Site) -> None:
    """It says of which one, and can be rolled back itself."""
    before = lived.rows(STATE)
    assert roll_back(lived, 2, prune="auto").revision == 4
    assert lived.rows("SELECT summary ->> 'rollback_to' FROM reconciler.revisions ORDER BY id") == [
        *((None,), (None,), (None,), ("2",))
    ]
    roll_back(lived, 3, prune="auto", allow_deletes=4)
    assert lived.rows(STATE) == before


def test_the_files_would_undo_it(lived: Site) -> None:
    """The plan of the rollback says so, and the plan of the files shows it."""
    files = (job("sweep", "DELETE FROM baskets"), job("report", "SELECT 2"))
    notices = {notice.code: notice.message for notice in plan(lived, 2, prune="auto").plan.notices}
    assert "the next apply of them undoes it" in notices["rollback"]
    roll_back(lived, 2, prune="auto")
    assert ("update", "sweep", "edited") in lived.changes(*files, prune="auto")


def test_entries_are_as_then_though_the_server_changed(site: Site) -> None:
    """Schedule, role and activity come from the revision; a note says that today's would be others."""
    site.run("CREATE ROLE clerk LOGIN")
    site.apply(job("call", role="clerk", active=False), job("zoned", timezone="Europe/Oslo"))
    site.run(SCHEDULE_OTHERWISE)
    site.apply(job("call", role="clerk"), job("zoned", "SELECT 2", timezone="Europe/Oslo"))
    notices = {notice.code: notice.names for notice in plan(site, 1).plan.notices}
    assert notices["other_entries"] == ("zoned",)
    roll_back(site, 1)
    call = site.entry("call")
    assert (call["username"], call["active"]) == ("clerk", False)
    assert site.entry("zoned")["schedule"] == "0 22 28 2 *"


def test_limits_consent_and_protections_hold(lived: Site) -> None:
    """A rollback that deletes asks as an apply does, and what is protected stays."""
    roll_back(lived, 1, prune="auto")
    before = lived.everything()
    with pytest.raises(RefusedError, match="this target asks for consent"):
        roll_back(lived, 3, prune="confirm")
    with pytest.raises(RefusedError, match=r"more than limits\.deletes"):
        roll_back(lived, 3, prune="auto", max_deletes=1)
    assert plan(lived, 3).plan.kept == ("mail", "ops", "party", "push")
    assert lived.everything() == before
    lived.apply(job("tidy", "DELETE FROM carts", protect=True), queue("solid", protect=True))
    before = lived.everything()
    with pytest.raises(RefusedError, match="queue solid is protected"):
        roll_back(lived, 2, prune="auto", allow_deletes=1)
    assert lived.everything() == before


def test_policies_hold_for_what_comes_back(lived: Site) -> None:
    """A spec of then that the policies of now refuse is not restored."""
    policy = SpecPolicy(
        name="queues",
        because="Nobody reads mail",
        place=Place(path="reconciler.yaml", line=4, column=5),
        match=Match(names=("mail",)),
        needs=("description",),
    )
    wanted = request(prune="auto")
    target = replace(wanted.target, governance=Governance(specs=(policy,)))
    config = Config(
        path="reconciler.yaml", owner=OWNER, jobs=(), targets={}, default_target="", secrets=SECRETS
    )
    with connect(lived.dsn) as conn:
        restored = find_restored(conn, 1, owner=OWNER)
    with pytest.raises(RefusedError, match=r"queue mail: .*Nobody reads mail"):
        build_past_specs(restored, config, target)


def test_a_job_that_ran_once_does_not_run_again(site: Site) -> None:
    """It ran before its moment, by hand: its declaration went, and nothing makes it wait again."""
    site.apply(once("early"), once("late"), job("tidy"), prune="auto")
    site.run("UPDATE reconciler.jobs SET status = 'completed', completed_at = now() WHERE job_name = 'early'")
    site.apply(job("tidy", "SELECT 2"), prune="auto", allow_deletes=2)
    applied = roll_back(site, 1, prune="auto")
    assert [(one.action, one.name) for one in applied.plan.changes] == [
        ("create", "late"),
        ("update", "tidy"),
    ]
    assert site.rows("SELECT job_name, status FROM reconciler.jobs WHERE once ORDER BY id") == [
        ("early", "completed"),
        ("late", "pending"),
    ]


def test_a_revision_of_another_owner_is_refused(lived: Site) -> None:
    """What others declared is not ours to restore; and there has to be such a revision."""
    lived.apply(queue("stove"), owner="kitchen")
    with pytest.raises(RefusedError, match="revision 4 is of the owner kitchen, and this is shop"):
        plan(lived, 4)
    with pytest.raises(DatabaseError, match="there is no revision 77"):
        plan(lived, 77)
    assert [one.name for one in plan(lived, 2, prune="auto").plan.changes if one.name == "stove"] == []


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("DELETE FROM reconciler.revisions WHERE id = 1", "revisions before 2 were deleted"),
        (LOSE_DOCUMENTS, "revision 2 does not say what became of mail"),
        ("UPDATE reconciler.revisions SET changes = '[{}]' WHERE id = 2", "holds what nobody can read"),
        (WRITE_BESIDE, "the definitions of report are not as the revisions left them"),
    ],
)
def test_what_the_revisions_do_not_tell_is_not_guessed(lived: Site, damage: LiteralString, why: str) -> None:
    """Where something is missing or was written beside them, nothing is changed."""
    lived.run(damage)
    before = lived.everything()
    with pytest.raises(RefusedError, match=why) as refused:
        roll_back(lived, 2)
    assert "revision 2 cannot be restored" in refused.value.message
    assert lived.everything() == before


def write_files(folder: Path, dsn: str, text: str) -> None:
    """Write a configuration with one spec file."""
    (folder / "jobs.d").mkdir(exist_ok=True)
    (folder / "reconciler.yaml").write_text(
        f"owner: shop\ndefault_target: test\ntargets:\n  test: {{dsn: {json.dumps(dsn)}, prune: confirm}}\n"
    )
    (folder / "jobs.d" / "shop.yaml").write_text(text)


def test_people_roll_back(cli: Cli, site: Site) -> None:
    """The plan is shown, consent is asked for, the commit is that of then, and the files do not matter."""

    def run(*args: str, **env: str) -> CliResult:
        return cli(*args, env=env)

    write_files(cli.directory, site.dsn, "jobs:\n  tidy: {schedule: 0 0 29 2 *, sql: SELECT 1}\n")
    assert run("apply", "--yes", GITHUB_ACTOR="anna", GITHUB_SHA="c0ffee").exit_code == 0
    write_files(cli.directory, site.dsn, "jobs:\n  count: {schedule: 0 0 29 2 *, sql: SELECT 2}\n")
    assert run("apply", "--yes", "--allow-deletes", "1").exit_code == 0
    write_files(cli.directory, site.dsn, "jobs: [")

    shown = run("rollback", "1", "--dry-run")
    assert shown.exit_code == 0
    assert "+ job tidy" in shown.stdout
    assert "- job count" in shown.stdout
    assert "Note [rollback]: this restores what was declared after revision 1" in shown.stdout
    assert site.rows("SELECT count(*) FROM reconciler.revisions") == [(2,)]

    refused = run("rollback", "1", "--yes")
    assert refused.exit_code == 4
    assert "asks for consent" in refused.stderr
    assert run("rollback", "1", "--allow-deletes", "1").exit_code == 2

    done = run("rollback", "1", "--yes", "--allow-deletes", "1", GITHUB_ACTOR="bert", GITHUB_SHA="bad")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "Applied as revision 3.")
    assert site.rows("SELECT actor, commit FROM reconciler.revisions WHERE id = 3") == [("bert", "c0ffee")]
    again = run("rollback", "1")
    assert again.exit_code == 0
    assert "Nothing to change" in again.stdout
