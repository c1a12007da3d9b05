"""The tool's own entries on real servers: applied like all others, shared by owners, and calls that work."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.config import Runtime
from tests.declared import Site, after, job, once

if TYPE_CHECKING:
    from reconciler.core.specs import Spec
    from tests.servers import Database

FULL = Runtime(
    every=timedelta(seconds=59),
    runners=2,
    keep_runs=timedelta(days=1, hours=2),
    keep_details=timedelta(minutes=90),
)


@pytest.fixture
def site(any_mode_database: Database) -> Site:
    """An empty database, seen by its superuser."""
    return Site(any_mode_database)


def entries(site: Site) -> dict[str, str]:
    """Return the role of each entry."""
    return dict(site.rows("SELECT jobname::text, username::text FROM cron.job"))


def test_they_come_with_the_first_managed_job_and_go_with_the_last(site: Site) -> None:
    """Applied with the jobs that they serve, as part of one plan that is empty afterwards."""
    options: dict[str, Any] = {"runtime": Runtime(), "prune": "auto", "max_delete_share": 1.0}
    raw = job("raw", "VACUUM", mode="direct")
    site.apply(raw, **options)
    assert set(entries(site)) == {"raw"}
    site.apply(raw, after("a", "b"), once("b", sql="SELECT 1"), **options)
    assert set(entries(site)) == {"raw", "reconciler-runner", "reconciler-tick"}
    assert site.changes(raw, after("a", "b"), once("b", sql="SELECT 1"), **options) == []
    site.apply(raw, **options)
    assert set(entries(site)) == {"raw"}


@pytest.mark.parametrize("runtime", [Runtime(), FULL])
def test_every_call_is_one_that_the_runtime_takes(site: Site, runtime: Runtime) -> None:
    """The commands that stand in cron.job run as they are."""
    site.apply(job("a"), runtime=runtime)
    calls = site.rows("SELECT jobid, command FROM cron.job WHERE jobname LIKE 'reconciler-%%'")
    assert len(calls) == runtime.runners + 1
    for jobid, command in calls:
        site.run("SELECT cron.alter_job(%s, active := false)", jobid)
        with site.database.server.connect() as conn:
            conn.execute(command.encode())


def test_the_usual_values_are_the_ones_of_the_procedure(site: Site) -> None:
    """What is left out of the call means what reconciler.yaml means by leaving it out."""
    site.apply(job("a"))
    usual = Runtime()
    arguments = site.rows("SELECT pg_get_function_arguments('reconciler.tick'::regproc)")[0][0]
    defaults = site.rows("SELECT '30 days'::interval, '7 days'::interval")[0]
    assert "keep_runs interval DEFAULT '30 days'" in arguments
    assert "keep_details interval DEFAULT '7 days'" in arguments
    assert defaults == (usual.keep_runs, usual.keep_details)


def test_owners_of_one_database_share_them(site: Site) -> None:
    """The second owner adds the runners that it lacks, and the first one's leave takes nothing from it."""
    site.run("CREATE ROLE jobs LOGIN; CREATE ROLE billing LOGIN")
    options: dict[str, Any] = {"runtime": Runtime(), "role": "jobs", "prune": "auto", "max_delete_share": 1.0}
    mine, left = [job("a"), job("raw", mode="direct")], job("raw", mode="direct")
    theirs: list[Spec] = [job("b"), job("c", role="billing")]
    site.apply(*mine, **options)
    site.apply(*theirs, owner="crm", **options)
    shared = {"reconciler-tick": "jobs", "reconciler-runner": "jobs", "reconciler-runner-billing": "billing"}
    assert entries(site) == {"a": "jobs", "raw": "jobs", "b": "jobs", "c": "billing", **shared}
    assert site.changes(*mine, **options) == site.changes(*theirs, owner="crm", **options) == []
    site.apply(left, **options)
    assert entries(site) == {"raw": "jobs", "b": "jobs", "c": "billing", **shared}
    assert site.changes(left, **options) == site.changes(*theirs, owner="crm", **options) == []


def test_a_second_owner_with_another_role_has_its_own_runner(site: Site) -> None:
    """Jobs that name no role run as their own target's role, also where the first runner is another's."""
    site.run("CREATE ROLE jobs LOGIN; CREATE ROLE crm LOGIN")
    site.apply(job("a"), role="jobs", runtime=Runtime())
    options: dict[str, Any] = {"owner": "crm", "role": "crm", "runtime": Runtime()}
    site.apply(job("b"), **options)
    assert entries(site)["reconciler-runner-crm"] == "crm"
    assert site.changes(job("b"), **options) == []
    problems = site.plan(job("b"), after("c", "b"), **options).problems
    assert ["would run as jobs" in problem.message for problem in problems] == [True]
    site.apply(job("b"), after("c", "b", role="crm"), **options)


def test_who_may_only_read_plans_the_same(site: Site) -> None:
    """The role that looks changes nothing in what is desired."""
    options: dict[str, Any] = {"runtime": Runtime()}
    specs: list[Spec] = [job("a"), job("b", role="postgres")]
    site.apply(*specs, **options)
    site.run(
        "CREATE ROLE reader LOGIN BYPASSRLS IN ROLE pg_read_all_settings;"
        " GRANT USAGE ON SCHEMA cron TO reader;"
        " GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader"
    )
    assert Site(site.database, "reader").changes(*specs, **options) == []
