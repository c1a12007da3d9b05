"""Workers made in SQL become a file's: import, plan and apply; until then nobody touches them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler.core.imports.entries import Imported, import_entries
from reconciler.database.connect import connect
from reconciler.database.observe import observe
from reconciler.errors import RefusedError
from tests.canary import CANARY
from tests.declared import Site, job, queue, worker
from tests.faults import statuses
from tests.http_server import HttpServer, run_http_server
from tests.made_workers import URL, create
from tests.pg_net import STAND_IN
from tests.runs import call
from tests.servers import LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec
    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server

ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
"""Where the extension http is installed."""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A run endpoint that records what it is asked."""
    with run_http_server() as server:
        yield server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema reconciler and the stand-in for pg_net, on both servers."""
    site = Site(database)
    site.run(STAND_IN)
    site.apply()
    return site


@pytest.fixture
def sending(database: Database) -> Site:
    """A database with the schema reconciler and the extension http."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    site.apply()
    return site


def read_import(site: Site, role: str = "") -> Imported:
    """Import whatever there is."""
    with connect(site.dsn) as conn:
        return import_entries(observe(conn).state, role=role)


def test_plan_and_apply_of_others_leave_it_alone(site: Site) -> None:
    """What is not declared is neither pruned nor drift, also when it was changed by hand."""
    create(site)
    site.apply(job("a"), prune="auto")
    site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'worker-default-1'")
    site.run("UPDATE reconciler.workers SET url = 'https://other.test'")
    site.run("UPDATE reconciler.policies SET timeout = '1 hour' WHERE name = 'worker-default-1'")
    assert site.changes(job("a"), prune="auto") == []
    site.apply(job("b"), prune="auto", allow_deletes=1)
    assert site.rows("SELECT name, owner FROM reconciler.definitions ORDER BY 1") == [
        ("b", "shop"),
        ("worker-default-1", "sql"),
    ]
    assert site.entry("worker-default-1")["active"] is False


@ON_17
def test_import_then_apply_takes_it_over(sending: Site, server: HttpServer) -> None:
    """The plan after import adopts and changes nothing; jobid, token and log go on under the new owner."""
    sending.run("CREATE ROLE alice LOGIN")
    jobid = create(sending, url=server.url("/run?queue=outreach&status=failed"))
    other = create(
        sending, name="odd", url=server.url("/${x}/ü?a=%41&b='\\"), token=None, schedule="5 4 * * *"
    )
    sending.run("SELECT cron.alter_job(%s, schedule := '6 4 * * *', active := false)", other)
    sending.run("SELECT cron.alter_job(%s, username := 'alice')", other)
    call(sending, "worker-default-1")
    before = sending.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid")
    imported = read_import(sending)
    assert imported.left == ()
    assert imported.workers == {
        "odd": {
            "schedule": "6 4 * * *",
            "url": server.url("/$${x}/ü?a=%41&b='\\"),
            "role": "alice",
            "active": False,
        },
        "worker-default-1": {
            "schedule": "0 0 29 2 *",
            "url": server.url("/run?queue=outreach&status=failed"),
            "token": {"secret": "worker.worker-default-1"},
        },
    }
    assert imported.secrets == ("worker.worker-default-1",)
    declared = {**imported.workers["odd"], "url": server.url("/${x}/ü?a=%41&b='\\")}
    specs = [worker("odd", **declared), worker("worker-default-1", **imported.workers["worker-default-1"])]
    planned = sending.plan(*specs, prune="auto")
    assert planned.plan.is_empty
    assert [(one.action, one.name, one.reason) for one in planned.plan.changes] == [
        ("adopt", "odd", "adopted"),
        ("adopt", "worker-default-1", "adopted"),
    ]
    sending.apply(*specs, prune="auto")
    assert sending.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid") == before
    assert sending.rows("SELECT name, owner, jobid FROM reconciler.definitions ORDER BY 1") == [
        ("odd", "shop", other),
        ("worker-default-1", "shop", jobid),
    ]
    assert sending.changes(*specs, prune="auto") == []
    assert read_import(sending).workers == {}
    assert call(sending, "worker-default-1") is None
    assert [received.headers["authorization"] for received in server.received] == [f"Bearer {CANARY}"] * 2
    assert statuses(sending) == ["succeeded", "succeeded"]
    with pytest.raises(psycopg.errors.DuplicateObject, match="belongs to the owner shop"):
        create(sending)


@ON_17
@pytest.mark.parametrize(
    "different", [{"url": "https://new.test"}, {"schedule": "1 1 1 1 *"}, {"limit": 3}, {"active": False}]
)
def test_one_that_differs_is_taken_over_when_it_is_named(sending: Site, different: dict[str, Any]) -> None:
    """A declaration of another worker under that name is refused until a person says so; the jobid stays."""
    jobid = create(sending)
    same = {"url": URL, "token": {"secret": "worker.worker-default-1"}}
    spec = worker("worker-default-1", **{**same, **different})
    with pytest.raises(RefusedError, match="create_queue_worker made a worker worker-default-1") as caught:
        sending.apply(spec)
    assert "--adopt worker-default-1" in caught.value.remedy
    assert sending.changes(spec, adopt=["worker-default-1"]) == [("update", "worker-default-1", "adopted")]
    sending.apply(spec, adopt=["worker-default-1"])
    assert sending.entry("worker-default-1")["jobid"] == jobid
    assert sending.changes(spec) == []
    assert sending.rows("SELECT owner FROM reconciler.definitions") == [("shop",)]


@pytest.mark.parametrize("other", [job("worker-default-1"), queue("worker-default-1")])
def test_only_a_worker_takes_a_worker_over(site: Site, other: Spec) -> None:
    """A job or a queue of that name is refused, also with --adopt."""
    create(site)
    before = site.everything()
    with pytest.raises(RefusedError, match="worker worker-default-1 belongs to the owner sql"):
        site.apply(other, adopt=["worker-default-1"])
    assert site.everything() == before


def test_what_was_unscheduled_is_not_imported(site: Site) -> None:
    """A worker without its entry is left, with what forgets it; another schedule that nobody can read too."""
    create(site)
    create(site, name="odd")
    site.run("SELECT cron.unschedule('worker-default-1')")
    site.run("UPDATE cron.job SET schedule = '0 0 * * mon#2' WHERE jobname = 'odd'")
    imported = read_import(site)
    assert (imported.jobs, imported.workers) == ({}, {})
    assert [left.entry.name for left in imported.left] == ["worker-default-1", "odd"]
    assert "reconciler.drop_queue_worker('worker-default-1')" in imported.left[0].reason


@ON_17
def test_the_command_writes_them_with_what_to_set(sending: Site, cli: Cli) -> None:
    """It names the secrets that reconciler.yaml lacks; with them the plan is empty and apply adopts."""
    create(sending, url=f"{URL}?queue=outreach")
    sending.run("SELECT cron.schedule('old', '5 4 * * *', 'SELECT 1')")
    config = f'owner: shop\ntargets:\n  test: {{dsn: "{sending.dsn}", runtime: false}}\n'
    (cli.directory / "reconciler.yaml").write_text(config)
    (cli.directory / "jobs.d").mkdir()
    result = cli("import")
    assert result.exit_code == 0, result.stderr
    assert "Imported 1 entry and 1 worker into jobs.d/imported.yaml." in result.stdout
    line = "worker.worker-default-1: {env: WORKER_DEFAULT_1_TOKEN}"
    assert f"\n  {line}\n" in result.stdout
    text = (cli.directory / "jobs.d" / "imported.yaml").read_text()
    assert re.search(rf"^#   {re.escape(line)}$", text, re.MULTILINE)
    assert CANARY not in text
    assert "unknown secret" in cli("plan").stderr
    (cli.directory / "reconciler.yaml").write_text(f"{config}secrets:\n  {line}\n")
    plan = cli("plan", "--exit-code")
    assert plan.exit_code == 0, plan.stdout + plan.stderr
    assert cli("apply", "--yes").exit_code == 0
    assert sending.rows("SELECT owner FROM reconciler.definitions ORDER BY name") == [("shop",), ("shop",)]
    assert sending.rows("SELECT value FROM reconciler.secrets") == [(CANARY,)]
    dry = cli("run", "worker-default-1", "--dry-run")
    assert f"POST {URL}?queue=outreach&status=pending&limit=1" in dry.stdout
    assert "Bearer *** (the secret worker.worker-default-1)" in dry.stdout
    assert (
        dry.stdout.split("\n", 1)[1]
        == cli("run", "worker-default-1", "--dry-run", "--applied").stdout.split("\n", 1)[1]
    )
