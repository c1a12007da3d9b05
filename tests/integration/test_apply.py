"""Applying: what is declared is there afterwards, and what is not ours is as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.core.changes import ACTIONS
from reconciler.errors import RefusedError
from tests.declared import NEVER, OWNER, Site, channel, job, once, queue, worker

if TYPE_CHECKING:
    from reconciler.core.specs import Spec

MADE: LiteralString = (
    "SELECT jobname::text, schedule, command, database = current_database(), username::text, active"
    " FROM cron.job ORDER BY jobname"
)


@pytest.mark.migrates
def test_a_job_becomes_an_entry(site: Site) -> None:
    """A managed job becomes a short call, a direct one its own SQL, each active as declared."""
    applied = site.apply(
        job("managed", "SELECT 1"),
        job("direct", "SELECT 'it''s %s 100%% \\n'", mode="direct", active=False),
    )
    assert site.rows(MADE) == [
        ("direct", NEVER, "SELECT 'it''s %s 100%% \\n'", True, "postgres", False),
        ("managed", NEVER, "CALL reconciler.run_job('managed')", True, "postgres", True),
    ]
    assert applied.plan.count() == dict.fromkeys(ACTIONS, 0) | {"create": 2}
    assert applied.migrations


def test_applying_twice_is_applying_once(site: Site) -> None:
    """A second apply writes nothing, not even a revision."""
    specs: list[Spec] = [job("a"), queue("q"), worker("w"), channel("c"), once("o")]
    site.apply(*specs)
    before = site.everything()
    applied = site.apply(*specs)
    assert applied.revision is None
    assert applied.plan.is_empty
    assert site.everything() == before


def test_an_update_keeps_the_jobid_and_the_run_history(site: Site) -> None:
    """A new schedule, command, database or state reaches the same entry, with its runs."""
    site.run("CREATE DATABASE elsewhere")
    site.apply(job("a", mode="direct"))
    jobid = site.entry("a")["jobid"]
    site.run("INSERT INTO cron.job_run_details (jobid, runid, status) VALUES (%s, 1, 'succeeded')", jobid)
    changed = job("a", "SELECT 2", schedule="1 0 29 2 *", mode="direct", database="elsewhere", active=False)
    site.apply(changed)
    entry = site.entry("a")
    assert entry["jobid"] == jobid
    assert (entry["schedule"], entry["command"]) == ("1 0 29 2 *", "SELECT 2")
    assert (entry["database"], entry["active"]) == ("elsewhere", False)
    assert site.rows("SELECT jobid FROM cron.job_run_details") == [(jobid,)]
    assert site.changes(changed) == []


def test_only_what_differs_is_altered(site: Site) -> None:
    """A change of the body of a managed job leaves cron.job alone; so does one of its description."""
    site.apply(job("a"), job("b"))
    before = site.rows("SELECT xmin::text, * FROM cron.job ORDER BY jobid")
    site.apply(job("a", "SELECT 2"), job("b", description="the same"))
    assert site.rows("SELECT xmin::text, * FROM cron.job ORDER BY jobid") == before
    assert site.rows("SELECT spec ->> 'sql' FROM reconciler.definitions WHERE name = 'a'") == [("SELECT 2",)]


def test_an_inactive_job_is_switched_off_and_on(site: Site) -> None:
    """`active` is set explicitly each time, since scheduling anew would leave it as it is."""
    jobids = set()
    for active in (True, False, True):
        site.apply(job("a", active=active))
        entry = site.entry("a")
        assert entry["active"] is active
        jobids.add(entry["jobid"])
    assert len(jobids) == 1


def test_a_renamed_job_keeps_its_jobid(site: Site) -> None:
    """`renamed_from` renames the entry and its definition, which keeps its id; the call names the new one."""
    site.apply(job("a"))
    before = site.rows("SELECT id, jobid FROM reconciler.definitions")
    specs: list[Spec] = [job("b", renamed_from="a", schedule="1 0 29 2 *")]
    assert site.changes(*specs) == [("update", "b", "renamed")]
    site.apply(*specs)
    assert site.rows("SELECT id, jobid FROM reconciler.definitions WHERE name = 'b'") == before
    assert site.entry("b")["jobid"] == before[0][1]
    assert site.entry("b")["command"] == "CALL reconciler.run_job('b')"
    assert site.rows("SELECT lock_key = reconciler.make_lock_key('b') FROM reconciler.definitions") == [
        (True,)
    ]
    assert site.changes(*specs) == []


def test_entries_whose_names_were_swapped_by_hand_are_put_back(site: Site) -> None:
    """Two entries that swapped their names get their own ones again, each with its own jobid."""
    specs: list[Spec] = [job("a", schedule="1 0 29 2 *"), job("b")]
    site.apply(*specs)
    before = site.rows("SELECT * FROM cron.job ORDER BY jobid")
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        site.run("UPDATE cron.job SET jobname = %s WHERE jobname = %s", new, old)
    assert {change[2] for change in site.changes(*specs)} == {"drifted"}
    site.apply(*specs)
    assert site.rows("SELECT * FROM cron.job ORDER BY jobid") == before
    assert site.changes(*specs) == []


def test_what_is_no_longer_declared_goes(site: Site) -> None:
    """A removed job loses its entry and its definition; its runs stay in pg_cron's history."""
    site.apply(job("a"), job("b"))
    jobid = site.entry("b")["jobid"]
    site.run("INSERT INTO cron.job_run_details (jobid, runid) VALUES (%s, 1)", jobid)
    applied = site.apply(job("a"), prune="auto")
    assert [change.name for change in applied.plan.deletions] == ["b"]
    assert site.rows("SELECT jobname::text FROM cron.job") == [("a",)]
    assert site.rows("SELECT name FROM reconciler.definitions") == [("a",)]
    assert site.rows("SELECT jobid FROM cron.job_run_details") == [(jobid,)]


def test_an_identical_entry_is_adopted_without_being_touched(site: Site) -> None:
    """An entry just as declared is only marked as ours: its row is not written."""
    site.run("SELECT cron.schedule('a', '0 0 29 2 *', 'SELECT 1')")
    before = site.rows("SELECT xmin::text, ctid::text, * FROM cron.job")
    spec = job("a", mode="direct")
    applied = site.apply(spec)
    assert applied.plan.count()["adopt"] == 1
    assert site.rows("SELECT xmin::text, ctid::text, * FROM cron.job") == before
    assert site.rows("SELECT jobid FROM reconciler.definitions") == [(site.entry("a")["jobid"],)]
    assert site.changes(spec) == []


def test_an_entry_that_nobody_declared_is_not_overwritten(site: Site) -> None:
    """A different entry of the same name refuses the whole apply, until `adopt` names it; the jobid stays."""
    site.run("SELECT cron.schedule('a', '0 0 1 1 *', 'SELECT 42')")
    jobid = site.entry("a")["jobid"]
    with pytest.raises(RefusedError, match="nobody declared") as caught:
        site.apply(job("a"), job("b"))
    assert "--adopt a" in caught.value.remedy
    assert site.rows("SELECT command FROM cron.job") == [("SELECT 42",)]
    assert site.rows("SELECT to_regclass('reconciler.definitions')") == [(None,)]
    site.apply(job("a"), job("b"), adopt=["a"])
    assert site.entry("a")["jobid"] == jobid
    assert site.entry("a")["command"] == "CALL reconciler.run_job('a')"
    assert site.changes(job("a"), job("b")) == []


def test_what_another_owner_declared_is_refused(site: Site) -> None:
    """Two owners share a target; neither takes, changes or prunes what the other declared."""
    site.apply(job("a"), job("b"), owner="kitchen")
    before = site.everything()
    with pytest.raises(RefusedError, match="kitchen"):
        site.apply(job("a", "SELECT 2"))
    assert site.everything() == before
    site.apply(job("c"), prune="auto")
    assert site.changes(job("a"), job("b"), owner="kitchen", prune="auto") == []
    assert site.changes(job("c"), prune="auto") == []


def test_a_protected_job_is_not_pruned(site: Site) -> None:
    """A protected job that vanished from the files refuses the apply, until it is declared unprotected."""
    site.apply(job("a", protect=True), job("b"))
    before = site.everything()
    with pytest.raises(RefusedError, match="protected"):
        site.apply(job("b"), prune="auto", allow_deletes=1)
    assert site.everything() == before
    site.apply(job("a"), job("b"), prune="auto")
    site.apply(job("b"), prune="auto")
    assert site.rows("SELECT name FROM reconciler.definitions") == [("b",)]


def test_prune_never_keeps_what_is_undeclared(site: Site) -> None:
    """Without a prune policy nothing goes, and the plan says what stays."""
    site.apply(job("a"), job("b"))
    assert site.plan(job("a")).plan.kept == ("b",)
    site.apply(job("a"))
    assert site.rows("SELECT count(*) FROM cron.job") == [(2,)]


@pytest.mark.parametrize(
    ("policy", "allowed", "is_done"),
    [
        ({"prune": "confirm"}, None, False),
        ({"prune": "confirm"}, 1, False),
        ({"prune": "confirm"}, 3, False),
        ({"prune": "confirm"}, 2, True),
        ({"prune": "auto"}, None, True),
        ({"prune": "auto", "max_deletes": 1}, None, False),
        ({"prune": "auto", "max_deletes": 1}, 2, True),
        ({"prune": "auto", "max_delete_share": 0.4}, None, False),
        ({"prune": "auto", "max_delete_share": 0.5}, None, True),
    ],
)
def test_deletions_need_consent(
    site: Site, policy: dict[str, Any], allowed: int | None, is_done: bool
) -> None:
    """Two of four jobs go under the limits, or with consent to exactly two; else nothing changes."""
    site.apply(*(job(name) for name in "abcd"))
    before = site.everything()
    if is_done:
        site.apply(job("a"), job("b"), allow_deletes=allowed, **policy)
        assert site.rows("SELECT count(*) FROM cron.job") == [(2,)]
    else:
        with pytest.raises(RefusedError):
            site.apply(job("a"), job("b"), allow_deletes=allowed, **policy)
        assert site.everything() == before


def test_a_revision_says_what_was_done(site: Site) -> None:
    """Each apply that changed something leaves who, what, from which commit, with both sides."""
    site.apply(job("a"), job("b"))
    applied = site.apply(job("a", schedule="1 0 29 2 *"), prune="auto")
    rows = site.rows(
        "SELECT id, owner, target, applied_by, actor, commit, summary, changes"
        " FROM reconciler.revisions ORDER BY id"
    )
    assert len(rows) == 2
    assert rows[1][:6] == (applied.revision, OWNER, "test", "postgres", "anna", "c0ffee")
    assert rows[1][6] == dict.fromkeys(ACTIONS, 0) | {"update": 1, "delete": 1}
    update, delete = rows[1][7]
    assert (update["action"], update["name"], update["reason"]) == ("update", "a", "edited")
    assert update["before"]["entry"]["schedule"] == NEVER
    assert update["after"]["entry"]["schedule"] == "1 0 29 2 *"
    assert (delete["action"], delete["name"], delete["after"]) == ("delete", "b", None)
    assert site.rows("SELECT revision FROM reconciler.definitions") == [(applied.revision,)]


def test_revisions_form_one_chain(site: Site) -> None:
    """Each revision names the one before, so that of two applies that saw the same state one fails."""
    for number in range(3):
        site.apply(job("a", f"SELECT {number}"))
    assert site.rows("SELECT previous FROM reconciler.revisions ORDER BY id") == [(0,), (1,), (2,)]


def test_entries_of_others_are_left_as_they_are(site: Site) -> None:
    """Creating, changing and pruning ours leaves every byte of every other entry, odd ones too."""
    site.run(
        "CREATE ROLE alice LOGIN;"
        "SELECT cron.schedule('0 0 1 1 *', 'SELECT 1'), cron.schedule('0 0 1 1 *', 'SELECT 1'),"
        " cron.schedule('', '0 0 1 1 *', ''), cron.schedule('A', '0 0 1 1 *', 'SELECT 2'),"
        " cron.schedule_in_database('a', '0 0 1 1 *', 'SELECT 3', current_database(), 'alice', false)"
    )
    before = site.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid")
    site.apply(job("a", role="postgres"), job("b"))
    site.apply(job("a", role="postgres", schedule="1 1 1 1 *"), prune="auto")
    ours = {site.rows("SELECT jobid FROM reconciler.definitions WHERE jobid IS NOT NULL")[0][0]}
    after = site.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid")
    assert [row for row in after if row[2] not in ours] == before


def test_a_job_runs_as_its_declared_role(site: Site) -> None:
    """The role of a job, else the target's, else the one that applies; a change of role keeps the jobid."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    site.apply(job("a", role="alice"), job("b"), role="bob")
    assert (site.entry("a")["username"], site.entry("b")["username"]) == ("alice", "bob")
    jobid = site.entry("a")["jobid"]
    site.apply(job("a", role="bob"), job("b"), role="bob")
    assert (site.entry("a")["username"], site.entry("a")["jobid"]) == ("bob", jobid)
    assert site.changes(job("a", role="bob"), job("b"), role="bob") == []


def test_a_document_is_stored_byte_for_byte(site: Site) -> None:
    """Text of any kind comes back as it was declared: quotes, backslashes, percent signs, other scripts."""
    text = "SELECT '%s %% %(x)s \\ \\n {} $1 :a ''q'' \"d\" ünïcödé 日本 \U0001f600', E'\\t'\n-- \t end"
    spec = job("a", text, description="\u2028 \x7f $$ $body$")
    site.apply(spec)
    assert site.rows("SELECT spec::text, spec ->> 'sql' FROM reconciler.definitions") == [
        (spec.document, text)
    ]
    assert json.loads(spec.document)["sql"] == text
    assert site.changes(spec) == []


def test_a_spec_that_the_server_cannot_take_changes_nothing(site: Site) -> None:
    """One bad schedule refuses the whole apply, with the place where it was declared."""
    with pytest.raises(RefusedError, match=r"jobs\.d/shop\.yaml:3:3") as caught:
        site.apply(job("a"), job("b", schedule="61 * * * *"))
    assert "61" in str(caught.value)
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]
