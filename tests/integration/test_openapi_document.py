"""The OpenAPI document: what it tells of every operation, whatever these do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from fastapi.routing import APIRoute

from reconciler.api.health_routes import probes
from reconciler.api.pages import page_routes
from reconciler.api.problems import PROBLEMS
from reconciler.api.service import _ROUTERS, describe_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli

PROBES: Final = {"/health", "/ready", "/api/v1/health", "/api/v1/ready"}
"""What needs no token."""
OPERATIONS: Final = """\
GET    /api/v1/cron/jobs                              cron_list_jobs              read
POST   /api/v1/cron/jobs                              cron_create_job             write
GET    /api/v1/cron/jobs/{id}                         cron_show_job               read
PUT    /api/v1/cron/jobs/{id}                         cron_change_job             write
DELETE /api/v1/cron/jobs/{id}                         cron_delete_job             write
POST   /api/v1/cron/jobs/{id}/trigger                 cron_trigger_job            trigger
GET    /api/v1/cron/jobs/{id}/spec                    cron_export_job             read
POST   /api/v1/cron/jobs/{id}/pause                   cron_pause_job              trigger
POST   /api/v1/cron/jobs/{id}/resume                  cron_resume_job             trigger
GET    /api/v1/scheduler/jobs                         scheduler_list_jobs         read
POST   /api/v1/scheduler/jobs                         scheduler_register_job      write
POST   /api/v1/scheduler/jobs/{jobName}/trigger       scheduler_trigger_job       trigger
GET    /api/v1/scheduler/jobs/{jobName}/last-result   scheduler_show_last_result  read
DELETE /api/v1/scheduler/jobs/{jobName}               scheduler_cancel_job        write
POST   /api/jobs                                      jobs_put_job                write
GET    /api/jobs                                      jobs_list_jobs              read
POST   /api/jobs/run                                  jobs_run_jobs               run
GET    /api/jobs/{id}                                 jobs_show_job               read
DELETE /api/jobs/{id}                                 jobs_delete                 write
POST   /api/jobs/{id}/retry                           jobs_retry                  write
POST   /api/jobs/{id}/cancel                          jobs_cancel                 write
GET    /api/v1/runs                                   runs_list_runs              read
GET    /api/v1/runs/{id}                              runs_show_run               read
POST   /api/v1/runs/{id}/cancel                       runs_cancel                 trigger
GET    /api/v1/queues                                 queues_list_queues          read
GET    /api/v1/queues/{name}                          queues_show_queue           read
GET    /api/v1/revisions                              revisions_list_all          read
GET    /api/v1/revisions/{number}                     revisions_show_revision     read
GET    /api/v1/alerts                                 alerts_list_all             read
GET    /api/v1/plan                                   plans_show_plan             read
GET    /api/v1/drift                                  plans_show_drift            read
GET    /api/v1/calls                                  service_list_calls          read
GET    /api/v1/status                                 health_show_status          read
GET    /api/v1/metrics                                metrics_tell_metrics        read
GET    /api/v1/health                                 health
GET    /api/v1/ready                                  ready
GET    /health                                        health_probe
GET    /ready                                         ready_probe
"""
"""Method, path, id and scope: clients are made of them, so that none of them may change.

Among them are all endpoints that the seeds list: six of cron, five of the scheduler, those of queued jobs.
"""
SEEDS: Final = {
    *("GET /api/v1/cron/jobs", "GET /api/v1/cron/jobs/{}", "POST /api/v1/cron/jobs"),
    *("PUT /api/v1/cron/jobs/{}", "DELETE /api/v1/cron/jobs/{}", "POST /api/v1/cron/jobs/{}/trigger"),
    *("POST /api/v1/scheduler/jobs", "GET /api/v1/scheduler/jobs", "DELETE /api/v1/scheduler/jobs/{}"),
    *("POST /api/v1/scheduler/jobs/{}/trigger", "GET /api/v1/scheduler/jobs/{}/last-result"),
    *("POST /api/jobs", "GET /api/jobs", "GET /api/jobs/{}", "POST /api/jobs/run"),
    *("POST /api/jobs/{}/retry", "POST /api/jobs/{}/cancel"),
}


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    return describe_service()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of each operation."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_operations_are_those_that_clients_know() -> None:
    """Each with its id and the scope that it asks for."""
    told = {
        " ".join([method, path, one["operationId"], *(one.get("security") or [{}])[0].get("HTTPBearer", [])])
        for method, path, one in operations()
    }
    assert told == {" ".join(line.split()) for line in OPERATIONS.splitlines()}
    listed = {re.sub(r"\{\w+\}", "{}", " ".join(line.split()[:2])) for line in OPERATIONS.splitlines()}
    assert listed >= SEEDS


def test_each_operation_is_told_of_in_full() -> None:
    """With a summary of its own, every parameter, each problem by its schema, and what success looks like."""
    for method, path, operation in operations():
        where = f"{method} {path}"
        assert operation["summary"] != operation["operationId"].replace("_", " ").title(), where
        assert operation["summary"], where
        assert operation["description"], where
        assert len(operation["tags"]) == 1, where
        parameters = {one["name"]: one["in"] for one in operation.get("parameters", ())}
        of_path = {name for name, place in parameters.items() if place == "path"}
        assert of_path == set(re.findall(r"\{(\w+)\}", path)), where
        assert ("cursor" in parameters) == ("limit" in parameters and path != "/api/jobs/run"), where
        if method != "GET" and path != "/api/jobs/run":
            assert "idempotency-key" in parameters, where
        needed = {400, 413, 429, 500, 503}
        needed |= set() if path in PROBES else {401, 403}
        needed |= {422} if parameters else set()
        needed |= {404} if of_path else set()
        check_answers(where, {int(status): told for status, told in operation["responses"].items()}, needed)


def check_answers(where: str, answers: dict[int, dict[str, Any]], needed: set[int]) -> None:
    """Make sure that answers are told of as they are."""
    assert answers.keys() >= needed, where
    if where.partition(" ")[2] in PROBES:
        assert not answers.keys() & {401, 403}, where
    assert min(answers) in {200, 201, 202, 204}, where
    for status, told in answers.items():
        assert told["description"], where
        if status >= 400:
            assert told == PROBLEMS[status], where
        elif status != 204:
            assert all(media["schema"] for media in told["content"].values()), where


def test_every_route_is_told_of() -> None:
    """But the metrics where Prometheus looks for them, and what is for browsers."""
    told = {(method, path) for method, path, _ in operations()}
    routers = [router for router in (*_ROUTERS, probes) if router is not page_routes.router]
    routes = {
        (method, re.sub(r":\w+\}", "}", route.path))
        for route in chain.from_iterable(router.routes for router in routers)
        if isinstance(route, APIRoute)
        for method in set(route.methods or ()) - {"HEAD", "OPTIONS", "PATCH"}
    }
    assert routes >= told
    assert routes - told == {
        ("GET", "/metrics"),
        # The endpoint says itself that they are wrong.
        *(("GET", "/api/jobs/run"), ("PUT", "/api/jobs/run"), ("DELETE", "/api/jobs/run")),
    }


def test_its_references_lead_somewhere() -> None:
    """Also those in the schemas that stand within a body."""
    found = set(re.findall(r"'\$ref': '([^']+)'", str(document())))
    assert found
    schemas = document()["components"]["schemas"]
    for one in found:
        assert one.startswith("#/components/schemas/")
        assert one.rpartition("/")[2] in schemas


def test_it_is_printed_without_a_database(cli: Cli) -> None:
    """The same as the service answers; who prints another schema does not load the service for it."""
    result = cli("schema", "openapi")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == document()
    command = [sys.executable, "-X", "importtime", "-m", "reconciler", "schema", "jobs"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "reconciler.loader.specs" in loaded
    assert "fastapi" not in loaded
