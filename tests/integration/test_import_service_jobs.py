"""Jobs that were made through the service become a file's: import, plan, apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.declared import NEVER, Site, channel, job, queue
from tests.runs import call, statuses
from tests.served import serve

if TYPE_CHECKING:
    from tests.conftest import Cli

pytestmark = pytest.mark.one_server

PATH = "/api/v1/cron/jobs"
BODIES: tuple[dict[str, Any], ...] = (
    {"name": "a", "schedule": NEVER, "sql": "SELECT '${var:x}'", "timeout": "1m", "protect": True},
    {
        "name": "b",
        "after": ["a"],
        "handler": "mail.welcome",
        "queue": "mail",
        "payload": {"text": "${y}: no"},
    },
    {"name": "c", "once": "2099-01-01T00:00:00Z", "sql": "SELECT 1", "active": False},
    {
        "name": "d",
        "daily": "02:30",
        "timezone": "Europe/Oslo",
        "sql": "SELECT 1\n  + 1\n",
        "labels": {"on": "off"},
    },
    {"name": "e", "schedule": "5 4 1 1 *", "sql": "VACUUM", "mode": "direct", "active": False},
    {"name": "f", "every": "90m", "sql": "SELECT 1", "alert": {"channels": ["ops"], "on": ["failed"]}},
)


def test_import_then_apply_takes_them_over(site: Site, cli: Cli) -> None:
    """The plan after import changes nothing; entries, jobids, log and protection stay, the owner is new."""
    site.apply(job("orders"), queue("mail"), channel("ops"))
    with serve(site) as served:
        for body in BODIES:
            response = served.post(PATH, json=body)
            assert response.status_code == 201, response.text
        call(site, "a")
        before = site.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid")
        config = {
            "owner": "shop",
            "jobs": ["jobs.d"],
            "targets": {"test": {"dsn": site.dsn, "prune": "never"}},
            "secrets": {"ops": {"env": "OPS"}},
        }
        declared = {
            "jobs": {"orders": {"schedule": NEVER, "sql": "SELECT 1"}},
            "queues": {"mail": {}},
            "channels": {"ops": {"url": {"secret": "ops"}}},
        }
        (cli.directory / "jobs.d").mkdir()
        (cli.directory / "reconciler.yaml").write_text(json.dumps(config))
        (cli.directory / "jobs.d" / "shop.yaml").write_text(json.dumps(declared))

        plan = cli("plan", "--exit-code")
        assert (plan.exit_code, plan.stderr) == (0, "")
        assert "Note [service_jobs]: 6 jobs of the owner api" in plan.stdout
        imported = cli("import", "--owner", "api")
        assert imported.exit_code == 0, imported.stderr
        assert "Imported 6 jobs into jobs.d/imported.yaml." in imported.stdout
        plan = cli("plan", "--exit-code", "--format", "json")
        value = json.loads(plan.stdout)
        assert [one["action"] for one in value["changes"]] == ["adopt"] * 6, plan.stdout
        assert plan.exit_code == 0
        assert not [one for one in value["notices"] if one["code"] == "service_jobs"]
        applied = cli("apply", "--yes")
        assert applied.exit_code == 0, applied.stdout + applied.stderr

        assert site.rows("SELECT xmin::text, ctid::text, * FROM cron.job ORDER BY jobid") == before
        assert statuses(site, "a") == ["succeeded"]
        owners = "SELECT DISTINCT owner FROM reconciler.definitions WHERE length(name) = 1"
        assert site.rows(owners) == [("shop",)]
        refused = served.delete(f"{PATH}/a")
        assert refused.status_code == 409
        assert "is declared in jobs.d/imported.yaml:" in refused.json()["detail"]
        assert "Nothing to change: 9 resources" in cli("plan").stdout
        assert "Nothing to import" in cli("import", "--owner", "api").stderr
        assert cli("import", "--owner", "api", "--crontab", "-").exit_code == 2


def test_the_plans_of_both_owners_leave_each_other_alone(site: Site) -> None:
    """What the service made is neither pruned nor drift for files, and the other way round."""
    site.apply(job("orders"))
    with serve(site) as served:
        assert served.post(PATH, json=BODIES[0]).status_code == 201
        assert site.changes(job("orders"), prune="auto") == []
        site.apply(job("more"), prune="auto", allow_deletes=1)
        assert served.put(f"{PATH}/a", json={**BODIES[0], "timeout": "2m"}).status_code == 200
    assert site.changes(job("more"), prune="auto") == []
