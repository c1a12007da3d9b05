"""Scheduler jobs over HTTP: both spellings, registering twice, results, and whatever else is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.declared import NEVER, Site, job
from tests.runs import call, hold, running
from tests.served import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response

pytestmark = pytest.mark.one_server

PATH = "/api/v1/scheduler/jobs"


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of an empty database."""
    with serve(site) as made:
        yield made


def told(response: Response) -> tuple[int, str]:
    """Return status and text of a problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    return response.status_code, f"{document['detail']} | {document['remedy']}"


@pytest.mark.parametrize(
    "body",
    [
        {"jobName": "a", "cronExpression": NEVER, "handler": "mail.welcome", "payload": {"n": 1}},
        {"job_name": "a", "cron_expression": NEVER, "handler": "mail.welcome", "payload": {"n": 1}},
        {"name": "a", "schedule": NEVER, "handler": "mail.welcome", "payload": {"n": 1}},
    ],
)
def test_a_job_is_registered_in_each_spelling(site: Site, served: Served, body: dict[str, Any]) -> None:
    """What is declared is the same, and registering it again is registering it once."""
    first = served.post(PATH, json=body)
    assert (first.status_code, first.headers["location"]) == (201, "/api/v1/cron/jobs/a")
    assert first.json()["spec"] == {"handler": "mail.welcome", "payload": {"n": 1}, "schedule": NEVER}
    jobid = site.entry("a")["jobid"]
    again = served.post(PATH, json=body)
    assert (again.status_code, again.json()) == (200, first.json())
    assert site.rows("SELECT count(*) FROM reconciler.revisions WHERE owner = 'api'") == [(1,)]
    changed = served.post(PATH, json={"jobName": "a", "daily": "02:30", "sql": "SELECT 1"})
    assert (changed.status_code, changed.json()["spec"]) == (200, {"daily": "02:30", "sql": "SELECT 1"})
    assert (site.entry("a")["jobid"], site.entry("a")["schedule"]) == (jobid, "30 2 * * *")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"cronExpression": NEVER, "sql": "SELECT 1"}, 400, "name: the job needs one"),
        ({"jobName": None, "cronExpression": NEVER, "sql": "SELECT 1"}, 400, "name: the job needs one"),
        ({"jobName": "a", "name": "a", "sql": "SELECT 1"}, 400, "jobName and name are the same"),
        (
            {"jobName": "a", "cronExpression": NEVER, "schedule": NEVER},
            400,
            "cronExpression and schedule are",
        ),
        ({"jobName": "a", "cronExpression": "* * *", "sql": "SELECT 1"}, 400, "the schedule '* * *'"),
        ({"jobName": "a", "cronExpression": 5, "sql": "SELECT 1"}, 400, "schedule"),
        ({"jobName": "a", "cronExpression": NEVER}, 400, "job a"),
        ({"jobName": "a", "cronExpression": NEVER, "handler": "x y"}, 400, "a handler is a dotted name"),
        ({"jobName": "a", "cronExpression": NEVER, "sql": "SELECT 1", "queue": "q"}, 400, "queue"),
        (
            {"jobName": "'; DROP SCHEMA cron; --", "cronExpression": NEVER, "sql": "SELECT 1"},
            400,
            "is no name",
        ),
        ({"jobName": "a", "cronExpression": NEVER, "http": {"url": "http://[::1]/"}}, 400, "not public"),
        ({"jobName": "theirs", "cronExpression": NEVER, "sql": "SELECT 1"}, 409, "by the owner shop"),
        ([], 400, "the body is no JSON object"),
    ],
)
def test_what_is_wrong_is_refused(
    site: Site, served: Served, body: dict[str, Any], status: int, message: str
) -> None:
    """With the words that files get; nothing is changed."""
    site.apply(job("theirs"))
    found = told(served.post(PATH, json=body))
    assert found[0] == status
    assert message in found[1]
    assert site.rows("SELECT count(*) FROM reconciler.definitions") == [(1,)]


def test_a_result_is_that_of_the_last_run_that_is_over(site: Site, served: Served) -> None:
    """404 while there is none; a run that goes on, or was skipped, is none."""
    site.apply(job("a", hold()), job("direct", mode="direct"))
    assert told(served.get(f"{PATH}/a/last-result")) == (
        404,
        "no run of a is over yet | POST /api/v1/scheduler/jobs/a/trigger runs it now",
    )
    with running(site):
        assert told(served.get(f"{PATH}/a/last-result"))[0] == 404
        call(site)
    result = served.get(f"{PATH}/a/last-result").json()
    ((run_id,),) = site.rows("SELECT id FROM reconciler.cron_execution_log WHERE status = 'succeeded'")
    assert (result["name"], result["run_id"], result["status"]) == ("a", str(run_id), "succeeded")
    assert served.get(f"/api/v1/runs/{result['run_id']}").json()["status"] == "succeeded"
    site.run(
        "INSERT INTO cron.job_run_details"
        " (jobid, runid, status, return_message, start_time, end_time, username)"
        " SELECT jobid, 7, 'failed', 'ERROR: no', now() - interval '2 s', now(), username"
        " FROM cron.job WHERE jobname = 'direct'"
    )
    result = served.get(f"{PATH}/direct/last-result").json()
    assert (result["run_id"], result["status"], result["duration_seconds"]) == ("c7", "failed", 2.0)


def test_names_that_do_not_exist(site: Site, served: Served) -> None:
    """404 with the nearest right name; what nobody declared, and what files declare, is not cancelled."""
    site.apply(job("nightly"))
    site.run("SELECT cron.schedule('by-hand', '0 0 29 2 *', 'SELECT 1')")
    assert told(served.post(f"{PATH}/nihgtly/trigger", scopes=("trigger",))) == (
        404,
        "there is no job nihgtly | did you mean nightly?",
    )
    for name in ("nothing", "%27%20OR%20true--", "9" * 30):
        assert told(served.get(f"{PATH}/{name}/last-result"))[0] == 404
        assert told(served.delete(f"{PATH}/{name}"))[0] == 404
    assert told(served.get(f"{PATH}/%00/last-result"))[0] == 422
    assert told(served.delete(f"{PATH}/by-hand"))[0] == 409
    assert told(served.delete(f"{PATH}/nightly"))[0] == 409
    assert [one["name"] for one in served.get(PATH).json()["items"]] == ["nightly"]
    assert served.get(f"{PATH}?owner=api").json()["items"] == []
    assert told(served.get(f"{PATH}?limit=100000"))[0] == 422
