"""The service within another application, below a prefix."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from reconciler.api import make_service
from reconciler.errors import ConfigError
from reconciler.runtime.handlers import Handlers
from tests.declared import job
from tests.queued import enqueue
from tests.served import Served
from tests.servers import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have the successor of httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import psycopg
    from starlette.types import ASGIApp

    from tests.declared import Site

pytestmark = pytest.mark.one_server

OPEN = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name IN ('reconciler service', 'reconciler worker')"
)


async def do() -> int:
    """Do a job."""
    return 7


def make_inner(site: Site, **options: Any) -> FastAPI:
    """Make the service with a handler."""
    handlers = Handlers()
    handlers.register(do, "work.do")
    return make_service(site.dsn, handlers=handlers, **options)


def mount(kind: str, inner: FastAPI, path: str) -> ASGIApp:
    """Mount it as its users would, in either framework."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await inner.state.aclose()

    if kind == "starlette":
        return Starlette(routes=[Mount(path, app=inner)], lifespan=lifespan)
    outer = FastAPI(lifespan=lifespan)
    outer.mount(path, inner)

    @outer.get("/")
    def show() -> dict[str, str]:
        return {"is": "mine"}

    return outer


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
def test_it_works_below_a_prefix(site: Site, conn: psycopg.Connection, kind: str) -> None:
    """Routes, OpenAPI, probes, pages and the run endpoint; at its end no connection is left."""
    site.apply(job("orders"))
    bearer = {"Authorization": f"Bearer {Served(site).token('read', 'run')}"}
    job_id = enqueue(conn)
    conn.execute("UPDATE reconciler.jobs SET handler = 'work.do' WHERE id = %s", [job_id])
    inner = make_inner(site)
    with TestClient(mount(kind, inner, "/ops/cron"), base_url="http://testserver/ops/cron") as client:
        for path in ("/health", "/ready", "/api/v1/health", "/api/v1/ready"):
            assert client.get(path).status_code == 200, path
        assert client.get("/api/v1/status").status_code == 401
        assert client.get("/api/v1/status", headers=bearer).json()["target"] == ""
        document = client.get("/api/v1/openapi.json").json()
        assert "/ops/cron" in [server["url"] for server in document["servers"]]
        assert "/api/v1/status" in document["paths"]
        missing = client.get("/api/v1/nothing", headers=bearer)
        assert missing.headers["Content-Type"] == "application/problem+json"
        page = client.get("/login")
        assert (page.status_code, 'href="/ops/cron/static/' in page.text) == (200, True)
        done = client.post("/api/jobs/run", headers=bearer)
        assert [one["result"] for one in done.json()["jobs"]] == [7]
        if kind == "fastapi":
            assert client.get("http://testserver/").json() == {"is": "mine"}
        assert conn.execute(OPEN).fetchone() != (0,)
    wait_until(lambda: conn.execute(OPEN).fetchone() == (0,), seconds=10, what="it is closed")


def test_a_configuration_is_read_where_it_says_the_database_is_or_elsewhere(
    site: Site, tmp_path: Path
) -> None:
    """Its own dsn may need a variable that is not set; where it is used, its change is no other database."""
    site.apply()
    config = tmp_path / "reconciler.yaml"
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text("jobs: {orders: {schedule: '0 1 * * *', sql: SELECT 1}}")
    config.write_text("owner: shop\ntargets: {live: {dsn: '${env:DSN}'}}")
    bearer = {"Authorization": f"Bearer {Served(site).token('read')}"}
    for environment, status in (({}, 200), ({"DSN": site.dsn}, 409)):
        inner = make_service(site.dsn, config=config, environment=environment)
        with TestClient(inner) as client:
            assert client.get("/api/v1/plan", headers=bearer).json()["target"] == "live"
            config.write_text("owner: shop\ntargets: {live: {dsn: host=elsewhere}}")
            client.app.state.service.answers._made.clear()  # type: ignore[attr-defined] # the service's
            reply = client.get("/api/v1/plan", headers=bearer)
            assert (reply.status_code, "changed since" in reply.text) == (status, status == 409)
        config.write_text("owner: shop\ntargets: {live: {dsn: '${env:DSN}'}}")
    with pytest.raises(ConfigError, match="there is no target 'x'"):
        make_service(site.dsn, config=config, target="x")


def test_a_second_prefix_holds_there_as_well(site: Site) -> None:
    """Below where it is mounted, and not beside it."""
    site.apply()
    inner = make_inner(site, prefix="/internal/")
    with TestClient(mount("starlette", inner, "/ops")) as client:
        for path in ("/ops/internal/v1/health", "/ops/api/v1/health"):
            assert client.get(path).status_code == 200, path
        for path in ("/internal/v1/health", "/ops/internalv1/health", "/ops/internal"):
            assert client.get(path).status_code == 404, path
