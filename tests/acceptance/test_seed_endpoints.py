"""The endpoints that the seeds list, each as it is listed there, on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.runs import runner
from tests.served import serve

if TYPE_CHECKING:
    from tests.declared import Site

pytestmark = pytest.mark.one_server


def test_rest_api_v1_cron(site: Site) -> None:
    """REST /api/v1/cron, 6 endpoints: list, get, create, update, delete and trigger a job."""
    with serve(site) as served:
        path = "/api/v1/cron/jobs"
        reminder = {"name": "reminder-daily", "schedule": "0 8 * * *", "sql": "SELECT 1"}

        # POST /api/v1/cron/jobs
        created = served.post(path, json=reminder)
        assert (created.status_code, created.headers["location"]) == (201, f"{path}/reminder-daily")
        assert site.entry("reminder-daily")["schedule"] == "0 8 * * *"

        # GET /api/v1/cron/jobs
        listed = served.get(path).json()
        assert [(job["name"], job["owner"], job["state"]) for job in listed["items"]] == [
            ("reminder-daily", "api", "ok")
        ]

        # GET /api/v1/cron/jobs/:id
        by_name = served.get(f"{path}/reminder-daily")
        by_number = served.get(f"{path}/{site.entry('reminder-daily')['jobid']}")
        assert by_name.json()["spec"] == {"schedule": "0 8 * * *", "sql": "SELECT 1"}
        assert by_name.json() == by_number.json()

        # PUT /api/v1/cron/jobs/:id
        changed = served.put(
            f"{path}/reminder-daily",
            json={"schedule": "30 8 * * *", "sql": "SELECT 2"},
            headers={"If-Match": by_name.headers["etag"]},
        )
        assert (changed.status_code, changed.json()["schedule"]) == (200, "30 8 * * *")
        assert site.entry("reminder-daily")["schedule"] == "30 8 * * *"

        # POST /api/v1/cron/jobs/:id/trigger
        triggered = served.post(f"{path}/reminder-daily/trigger", scopes=("trigger",))
        assert triggered.status_code == 202
        runner(site)
        assert site.rows("SELECT job_name, status, start_id FROM reconciler.cron_execution_log") == [
            ("reminder-daily", "succeeded", triggered.json()["start_id"])
        ]

        # DELETE /api/v1/cron/jobs/:id
        assert served.delete(f"{path}/reminder-daily").status_code == 204
        assert served.get(f"{path}/reminder-daily").status_code == 404
        assert site.rows("SELECT count(*) FROM cron.job WHERE jobname = 'reminder-daily'") == [(0,)]


def test_rest_api_v1_scheduler(site: Site) -> None:
    """REST /api/v1/scheduler, 5 endpoints: list, register, trigger, last result, cancel."""
    with serve(site) as served:
        path = "/api/v1/scheduler/jobs"

        # POST /api/v1/scheduler/jobs: Register a new scheduler job
        check = {
            "jobName": "certification-expiry-checker",
            "cronExpression": "30 2 * * *",
            "handler": "certification.expiry",
            "payload": {"warn_days": 30},
        }
        assert served.post(path, json=check).status_code == 201
        nightly = {"jobName": "nightly", "cronExpression": "0 2 * * *", "sql": "SELECT 1/0"}
        assert served.post(path, json=nightly).status_code == 201

        # GET /api/v1/scheduler/jobs: List all registered scheduler jobs
        assert [job["name"] for job in served.get(path).json()["items"]] == [
            "certification-expiry-checker",
            "nightly",
        ]

        # POST /api/v1/scheduler/jobs/:jobName/trigger: Manually trigger a registered job immediately
        for name in ("nightly", "certification-expiry-checker"):
            assert served.post(f"{path}/{name}/trigger", scopes=("trigger",)).status_code == 202
        runner(site)
        assert site.rows("SELECT handler, payload FROM reconciler.jobs") == [
            ("certification.expiry", {"warn_days": 30})
        ]

        # GET /api/v1/scheduler/jobs/:jobName/last-result: Get the result of the most recent execution
        result = served.get(f"{path}/nightly/last-result").json()
        assert (result["status"], result["error"]) == ("failed", "division by zero")
        assert result["duration_seconds"] >= 0

        # DELETE /api/v1/scheduler/jobs/:jobName: Cancel and deregister a scheduler job
        assert served.delete(f"{path}/nightly").status_code == 204
        assert [job["name"] for job in served.get(path).json()["items"]] == ["certification-expiry-checker"]
