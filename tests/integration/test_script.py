"""The rendered script: executed by psql, or by anything else, it does what an apply does."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.database.script import render_script
from tests.declared import Site, channel, job, once, queue, request, worker
from tests.installations import find_test_installation
from tests.integration.test_migrate import leave_old_release

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.specs import Spec

ODD = (
    "SELECT 'it''s \\ \\n \\\\ %s %% %(names)s {} $1 :name :''name'' \"d\" ünïcödé', E'\\t'"
    " -- \n/* $$ */;\n\\q\n{,}NULL"
)
OLD: list[Spec] = [
    job("altered"),
    job("before-rename"),
    job("swap-a"),
    job("deleted"),
    queue("q"),
    worker("w"),
    once("o"),
    once("gone"),
]
NEW: list[Spec] = [
    job("altered", ODD, schedule="1 0 29 2 *", mode="direct", active=False),
    job("renamed", renamed_from="before-rename"),
    job("swap-a", description=ODD),
    job("created", ODD, mode="direct", payload=[None, "NULL", "{}", '"', "\\"]),
    queue("q", max_attempts=1),
    queue("new"),
    worker("w", url="https://app.test/?a=%41&b='\\"),
    once("o", queue="q", payload={"text": ODD}),
    channel("ops"),
]


def run_with_psycopg(site: Site, script: str) -> None:
    """Execute a script in one piece."""
    with site.database.server.connect() as conn:
        conn.execute(script.encode())


def run_with_psql(site: Site, script: str) -> None:
    """Execute a script as people do: psql reads it line by line."""
    installation = find_test_installation(15)
    psql = shutil.which("psql") or (installation and str(installation.bin_dir / "psql"))
    if not psql or not os.access(psql, os.X_OK):
        pytest.skip("no psql here")
    done = subprocess.run(
        [psql, "-X", "-q", "-v", "name=WRONG", site.dsn],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr, done.stderr


def read_all(site: Site) -> list[list[tuple[Any, ...]]]:
    """Read everything that an apply writes, but for numbers and times."""
    queries: list[LiteralString] = [
        "SELECT jobname::text, schedule, command, database, username::text, active FROM cron.job ORDER BY 1",
        """SELECT name, kind, owner, spec::text, digest, protect, source, lock_key, schedule, command,
            database, username, active, revision = (SELECT max(id) FROM reconciler.revisions),
            jobid IS NOT DISTINCT FROM (SELECT jobid FROM cron.job WHERE jobname = name)
        FROM reconciler.definitions ORDER BY 1""",
        "SELECT * FROM reconciler.queues ORDER BY 1",
        "SELECT * FROM reconciler.workers ORDER BY 1",
        """SELECT job_name, once, run_at, active, handler, queue, payload, status
        FROM reconciler.jobs ORDER BY 1""",
        """SELECT owner, target, applied_by, actor, commit, release, summary, changes
        FROM reconciler.revisions ORDER BY id""",
        "SELECT number, name, checksum FROM reconciler.migrations ORDER BY 1",
    ]
    return [site.rows(query) for query in queries]


@pytest.mark.migrates
@pytest.mark.parametrize("run", [run_with_psycopg, run_with_psql])
@pytest.mark.parametrize("before", [[], OLD], ids=["first", "later"])
def test_the_script_does_what_an_apply_does(
    site: Site, run: Callable[[Site, str], None], before: list[Spec]
) -> None:
    """After the script the next plan is empty, and every row is as an apply would have written it."""
    if before:
        site.apply(*before)
    site.apply(*NEW, prune="auto")
    expected = read_all(site)
    site.database.server.clean()
    if before:
        site.apply(*before)
    script = render_script(site.plan(*NEW, prune="auto"), request(*NEW, prune="auto"))
    run(site, script)
    assert read_all(site) == expected
    assert site.changes(*NEW, prune="auto") == []


@pytest.mark.migrates
@pytest.mark.parametrize("body", ["SELECT 1", "SELECT 2"], ids=["migrations-alone", "with-an-edit"])
def test_the_script_upgrades_what_an_earlier_release_applied(site: Site, body: str) -> None:
    """The states of jobs are filled after the migrations, as apply does it."""
    if site.database.server.pg_cron >= (1, 5, 0):
        site.database.server.set_server_settings(cron__timezone="Europe/Oslo")
    leave_old_release(site, job("a", schedule="0 3 * * *"))
    wanted = job("a", body, schedule="0 3 * * *")
    run_with_psycopg(site, render_script(site.plan(wanted), request(wanted)))
    assert site.changes(wanted) == []
    assert site.rows(
        "SELECT s.next_due_at = reconciler.next_fire('0 3 * * *', now(), p.zone),"
        " s.basis = p.zone || ' 0 3 * * *'"
        " FROM reconciler.policies p JOIN reconciler.job_states s USING (name)"
    ) == [(True, True)]


def test_nothing_to_do_is_an_empty_script(site: Site) -> None:
    """Where the target is as declared, the script says so and changes nothing."""
    site.apply(*OLD)
    before = site.everything()
    script = render_script(site.plan(*OLD), request(*OLD))
    assert script == "-- Nothing to do.\n"
    run_with_psycopg(site, script)
    assert site.everything() == before


@pytest.mark.parametrize("run", [run_with_psycopg, run_with_psql])
def test_the_script_stops_while_an_apply_is_at_work(site: Site, run: Callable[[Site, str], None]) -> None:
    """The script takes the lock of applies, and changes nothing when another session has it."""
    script = render_script(site.plan(job("a")), request(job("a")))
    site.database.connect().execute("SELECT pg_advisory_lock(7411530208936421)")
    with pytest.raises(Exception, match="another apply"):
        run(site, script)
    assert site.rows("SELECT to_regnamespace('reconciler'), (SELECT count(*) FROM cron.job)") == [(None, 0)]


def test_the_script_fails_as_a_whole(site: Site) -> None:
    """When one statement fails, psql rolls the whole script back, though it reads on."""
    site.apply(*OLD)
    before = site.everything()
    script = render_script(site.plan(*NEW, prune="auto"), request(*NEW, prune="auto"))
    site.run(
        "SELECT cron.schedule('created', '1 1 1 1 *', 'x'); ALTER TABLE reconciler.revisions RENAME TO r"
    )
    entries = site.rows("SELECT * FROM cron.job ORDER BY 1")
    with pytest.raises(AssertionError, match="revisions"):
        run_with_psql(site, script)
    site.run("ALTER TABLE reconciler.r RENAME TO revisions")
    assert site.rows("SELECT * FROM cron.job ORDER BY 1") == entries
    after = site.everything()
    assert {name: rows for name, rows in after.items() if name != "cron.job"} == {
        name: rows for name, rows in before.items() if name != "cron.job"
    }


def test_each_change_stands_above_with_its_reason(site: Site) -> None:
    """Edits, drift and both are told apart, and no name of a file becomes a statement."""
    specs = [job("edited"), job("drifted"), job("mixed")]
    site.apply(*specs)
    site.run("UPDATE cron.job SET active = false WHERE jobname IN ('drifted', 'mixed')")
    odd = replace(job("mixed", "SELECT 2"), place=replace(specs[2].place, path="a\nDROP TABLE x;\u2028.yaml"))
    edited: list[Spec] = [job("edited", "SELECT 2"), specs[1], odd]
    script = render_script(site.plan(*edited), request(*edited))
    assert script.splitlines()[:3] == [
        "-- update job drifted (drifted, jobs.d/shop.yaml:3)",
        "-- update job edited (edited, jobs.d/shop.yaml:3)",
        "-- update job mixed (both, a?DROP TABLE x;?.yaml:3)",
    ]
