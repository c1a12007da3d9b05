"""Applying as roles that may do less: what they may is done, what they may not is told and left."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from reconciler.errors import ConnectError, RefusedError, RightsError, StalePlanError
from tests.declared import NEVER, Site, job, once, queue
from tests.integration.test_apply_faults import blocked_apply

if TYPE_CHECKING:
    from reconciler.core.specs import Spec
    from tests.servers import Database

PLAIN: LiteralString = """
CREATE ROLE alice LOGIN;
GRANT USAGE ON SCHEMA cron TO alice;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO alice', current_database()); END $$;
"""
GRANT_ALTER: LiteralString = "GRANT EXECUTE ON FUNCTION cron.alter_job TO alice"
GRANT_SCHEDULE: LiteralString = "GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO alice"


@pytest.fixture
def alice(database: Database) -> Site:
    """An empty database, seen by a role that may use pg_cron and create schemas, and nothing more."""
    site = Site(database, "alice")
    site.run(PLAIN)
    return site


def beyond(site: Site, *specs: Spec, **options: object) -> dict[str, str]:
    """Plan, and return why and what to do for each change beyond the role's rights."""
    return {
        change.name: f"{change.obstacle.why}; {change.obstacle.remedy}"
        for change in site.plan(*specs, **options).plan.beyond_rights
        if change.obstacle
    }


def test_a_plain_role_makes_changes_and_deletes_its_entries(alice: Site) -> None:
    """With cron.schedule alone, active entries of its own are made, rescheduled and unscheduled."""
    alice.apply(job("a"), job("b"), queue("q"), once("o"))
    assert alice.entry("a")["username"] == "alice"
    jobid = alice.entry("a")["jobid"]
    alice.apply(job("a", schedule="1 0 29 2 *"), queue("q"), once("o"), prune="auto")
    assert alice.entry("a")["schedule"] == "1 0 29 2 *"
    assert alice.entry("a")["jobid"] == jobid
    assert alice.rows("SELECT count(*) FROM cron.job") == [(1,)]
    assert alice.changes(job("a", schedule="1 0 29 2 *"), queue("q"), once("o"), prune="auto") == []


def test_what_a_plain_role_may_not_make_is_told_and_the_rest_is_applied(alice: Site) -> None:
    """Inactive entries, other databases and other roles are beyond it and told; all else is done."""
    alice.run("CREATE DATABASE elsewhere")
    alice.run("CREATE ROLE bob LOGIN")
    specs: list[Spec] = [
        job("a"),
        job("elsewhere", mode="direct", database="elsewhere"),
        job("inactive", active=False),
        job("of-bob", role="bob"),
    ]
    applied = alice.apply(*specs)
    assert {change.name for change in applied.plan.beyond_rights} == {"elsewhere", "inactive", "of-bob"}
    assert alice.rows("SELECT jobname::text FROM cron.job") == [("a",)]
    assert alice.rows("SELECT name FROM reconciler.definitions") == [("a",)]
    left = beyond(alice, *specs)
    assert {name for _, name, _ in alice.changes(*specs)} == set(left)
    assert "GRANT EXECUTE ON FUNCTION cron.schedule_in_database" in left["inactive"]
    assert "GRANT EXECUTE ON FUNCTION cron.schedule_in_database" in left["elsewhere"]
    assert "superuser" in left["of-bob"]


def test_the_named_grant_is_enough(alice: Site) -> None:
    """When the grant that the plan names is given, what was beyond the role is applied."""
    alice.run("CREATE DATABASE elsewhere")
    specs = [job("inactive", active=False), job("elsewhere", mode="direct", database="elsewhere")]
    (remedy,) = {
        change.obstacle.remedy for change in alice.plan(*specs).plan.beyond_rights if change.obstacle
    }
    with alice.database.server.connect() as conn:
        conn.execute(remedy.removeprefix("as an administrator: ").encode())
    alice.apply(*specs)
    assert alice.changes(*specs) == []
    assert alice.entry("inactive")["active"] is False


def test_a_plain_role_replaces_what_it_may_not_alter(alice: Site) -> None:
    """Without alter_job, an entry switched off by hand, or renamed, is made anew with a new jobid."""
    alice.apply(job("a"), job("b"))
    jobids = {alice.entry(name)["jobid"] for name in "ab"}
    alice.run("UPDATE cron.job SET active = false WHERE jobname = 'a'")
    specs = [job("a"), job("c", renamed_from="b")]
    alice.apply(*specs)
    assert alice.changes(*specs) == []
    assert alice.rows("SELECT jobname::text, active FROM cron.job ORDER BY 1") == [("a", True), ("c", True)]
    assert not jobids & {alice.entry(name)["jobid"] for name in "ac"}
    assert alice.rows("SELECT count(*) FROM reconciler.definitions d JOIN cron.job j USING (jobid)") == [(2,)]


def test_switching_off_needs_a_grant(alice: Site) -> None:
    """Without alter_job an entry cannot be switched off; with it, it is, and keeps its jobid."""
    alice.apply(job("a"))
    jobid = alice.entry("a")["jobid"]
    assert "a" in beyond(alice, job("a", active=False))
    alice.apply(job("a", active=False))
    assert alice.entry("a")["active"] is True
    alice.run(GRANT_ALTER)
    alice.apply(job("a", active=False))
    assert (alice.entry("a")["active"], alice.entry("a")["jobid"]) == (False, jobid)
    assert alice.changes(job("a", active=False)) == []


def test_with_both_grants_a_role_does_all_for_itself(alice: Site) -> None:
    """alter_job and schedule_in_database are enough for everything but renames in place and other roles."""
    alice.run(GRANT_ALTER)
    alice.run(GRANT_SCHEDULE)
    alice.run("CREATE DATABASE elsewhere")
    alice.apply(job("a", active=False), job("b", mode="direct", database="elsewhere"), job("c"))
    jobid = alice.entry("a")["jobid"]
    specs = [job("a", schedule="1 0 29 2 *"), job("b", "SELECT 2", mode="direct")]
    alice.apply(*specs, prune="auto")
    assert alice.changes(*specs, prune="auto") == []
    assert (alice.entry("a")["active"], alice.entry("a")["jobid"]) == (True, jobid)
    assert alice.rows("SELECT count(*) FROM cron.job") == [(2,)]


def test_a_role_with_alter_job_deletes_nothing_that_changed(alice: Site) -> None:
    """Where rows cannot be locked, altering them finds what changed since the apply looked."""
    alice.run(GRANT_ALTER)
    alice.apply(job("a"), job("b"))
    with blocked_apply(alice, job("a"), lock="LOCK TABLE cron.job IN SHARE MODE") as blocked:
        blocked.blocker.execute("UPDATE cron.job SET command = 'SELECT 2' WHERE jobname = 'b'")
        blocked.blocker.commit()
    assert isinstance(blocked.outcome[0], StalePlanError)
    assert alice.entry("b")["command"] == "SELECT 2"
    alice.apply(job("a"), prune="auto")
    assert alice.rows("SELECT jobname::text, schedule, active FROM cron.job") == [("a", NEVER, True)]


def test_ones_own_role_may_be_named(alice: Site) -> None:
    """pg_cron wants a superuser for any named role, even one's own: that one is left out."""
    alice.run(GRANT_SCHEDULE)
    alice.apply(job("a", role="alice"), role="alice")
    assert alice.entry("a")["username"] == "alice"
    assert alice.changes(job("a", role="alice")) == []


def test_entries_of_others_are_neither_seen_nor_made_again(alice: Site) -> None:
    """What row-level security hides of what a superuser applied is not planned as missing."""
    superuser = Site(alice.database)
    alice.run("CREATE ROLE bob LOGIN")
    specs = [job("a", role="alice"), job("b", role="bob")]
    superuser.apply(*specs)
    alice.run(
        "GRANT ALL ON SCHEMA reconciler TO alice; GRANT ALL ON ALL TABLES IN SCHEMA reconciler TO alice;"
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA reconciler TO alice"
    )
    before = alice.everything()
    assert alice.changes(*specs) == []
    assert alice.apply(*specs).revision is None
    assert alice.everything() == before
    assert "hidden_entries" in {finding.code for finding in alice.plan(*specs).plan.findings}
    changed = [job("a", role="alice", schedule="1 0 29 2 *"), job("b", role="bob", schedule="1 0 29 2 *")]
    assert set(beyond(alice, *changed)) == {"b"}
    alice.apply(*changed)
    assert superuser.changes(*changed) == [("update", "b", "edited")]


def test_a_hidden_entry_of_the_same_name_does_not_hinder(alice: Site) -> None:
    """pg_cron's key is name and role, so a role makes its own entry beside one that it cannot see."""
    alice.run("SELECT cron.schedule('a', '1 1 1 1 *', 'SELECT 1')")
    alice.apply(job("a"))
    assert alice.rows("SELECT username::text FROM cron.job ORDER BY 1") == [("alice",), ("postgres",)]
    assert alice.changes(job("a")) == []


def test_a_role_that_may_only_read_applies_nothing(alice: Site) -> None:
    """A role without rights on our schema is told the grant, and the grant is enough."""
    superuser = Site(alice.database)
    superuser.apply(job("a", role="alice"), queue("q"))
    alice.run(
        "GRANT USAGE ON SCHEMA reconciler TO alice; GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO alice"
    )
    wanted: list[Spec] = [job("a", "SELECT 2", role="alice"), queue("q")]
    before = alice.everything()
    with pytest.raises(RightsError, match="alice") as caught:
        alice.apply(*wanted)
    assert alice.everything() == before
    grant = caught.value.remedy.split("as its owner: ")[-1]
    with alice.database.server.connect() as conn:
        conn.execute(grant.encode())
    alice.apply(*wanted)
    assert alice.changes(*wanted) == []


def test_rights_that_are_older_than_a_table_are_told(alice: Site) -> None:
    """A role that was granted all before a later release made more tables is told the grant, and it helps."""
    superuser = Site(alice.database)
    superuser.apply(job("a", role="alice"))
    alice.run(
        "GRANT ALL ON SCHEMA reconciler TO alice; GRANT ALL ON ALL TABLES IN SCHEMA reconciler TO alice;"
        "REVOKE INSERT, UPDATE ON reconciler.job_states FROM alice"
    )
    wanted = job("a", "SELECT 2", role="alice")
    with pytest.raises(RightsError, match="alice") as caught:
        alice.apply(wanted)
    grant = caught.value.remedy.split("as its owner: ")[-1]
    with alice.database.server.connect() as conn:
        conn.execute(grant.encode())
    alice.apply(wanted)
    assert alice.changes(wanted) == []


def test_a_role_that_may_not_create_our_schema_is_told(database: Database) -> None:
    """The first apply needs CREATE on the database; the grant that is named is enough."""
    site = Site(database, "alice")
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    with pytest.raises(RightsError, match="alice") as caught:
        site.apply(job("a"))
    assert site.rows("SELECT to_regnamespace('reconciler')") == [(None,)]
    grant = caught.value.remedy.removeprefix("as an administrator: ").split(", or ")[0]
    with database.server.connect() as conn:
        conn.execute(grant.encode())
    site.apply(job("a"))
    assert site.changes(job("a")) == []


def test_a_role_without_pg_cron_still_applies_what_needs_none(database: Database) -> None:
    """Without USAGE on the schema cron, queues and one-time jobs are applied, and jobs are told the grant."""
    site = Site(database, "alice")
    site.run(PLAIN)
    site.run("REVOKE USAGE ON SCHEMA cron FROM alice")
    specs: list[Spec] = [job("a"), queue("q"), once("o")]
    applied = site.apply(*specs)
    assert [change.name for change in applied.plan.beyond_rights] == ["a"]
    assert "GRANT USAGE ON SCHEMA cron" in beyond(site, *specs)["a"]
    assert site.rows("SELECT name FROM reconciler.definitions ORDER BY name") == [("o",), ("q",)]
    site.run("GRANT USAGE ON SCHEMA cron TO alice")
    site.apply(*specs)
    assert site.changes(*specs) == []


def test_a_lost_right_does_not_make_entries_seem_lost(alice: Site) -> None:
    """When the role may no longer look into cron.job, its entries are not planned as missing."""
    alice.apply(job("a"))
    alice.run("REVOKE USAGE ON SCHEMA cron FROM alice")
    planned = alice.plan(job("a"))
    assert planned.plan.refused == ()
    assert alice.apply(job("a")).revision is None
    assert alice.rows("SELECT count(*) FROM cron.job") == [(1,)]


def test_a_job_runs_with_its_own_role_after_an_apply_by_a_plain_role(alice: Site) -> None:
    """What a plain role applied runs as that role, and its runs are logged."""
    alice.apply(job("a", "CREATE TABLE public.made AS SELECT current_user::text AS who"))
    alice.run("GRANT CREATE ON SCHEMA public TO alice")
    alice.database.connect("alice").execute("CALL reconciler.run_job('a')")
    assert alice.rows("SELECT who FROM public.made") == [("alice",)]
    assert alice.rows("SELECT status, role FROM reconciler.cron_execution_log") == [("succeeded", "alice")]


def test_settings_that_cannot_be_seen_are_told(alice: Site) -> None:
    """An ordinary role sees no setting of pg_cron: the plan says what is unknown, and the grant helps."""
    codes = {finding.code: finding for finding in alice.plan(job("a")).plan.findings}
    assert {"hidden_settings", "hidden_entries", "missing_rights"} <= codes.keys()
    for code in ("hidden_settings", "missing_rights"):
        with alice.database.server.connect() as conn:
            conn.execute(codes[code].remedy.removeprefix("as an administrator: ").encode())
    left = {finding.code for finding in alice.plan(job("a")).plan.findings}
    assert not left & {"hidden_settings", "missing_rights"}


def test_two_owners_with_two_roles_share_a_target(alice: Site) -> None:
    """What another role declared as another owner is refused, and neither changed nor pruned."""
    superuser = Site(alice.database)
    superuser.apply(job("a"), owner="kitchen")
    alice.run(
        "GRANT ALL ON SCHEMA reconciler TO alice; GRANT ALL ON ALL TABLES IN SCHEMA reconciler TO alice;"
    )
    with pytest.raises(RefusedError, match="kitchen"):
        alice.apply(job("a"))
    alice.apply(job("b"), prune="auto")
    assert superuser.changes(job("a"), owner="kitchen", prune="auto") == []


def test_a_role_that_cannot_log_in_is_told(database: Database) -> None:
    """A role without LOGIN cannot connect, and the message says so."""
    Site(database).run("CREATE ROLE nologin")
    with pytest.raises(ConnectError, match="nologin"):
        Site(database, "nologin").plan(job("a"))
