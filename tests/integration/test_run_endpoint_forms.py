"""The forms of the run endpoint: mounted, with a pool, as a plain function, and called by the database."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.routing import Mount

from reconciler.api.app import make_app
from reconciler.core.endpoint_requests import RunRules
from reconciler.errors import ConfigError
from reconciler.runtime.http_messages import Call
from reconciler.runtime.run_endpoint import RunEndpoint, handle_run_request, handle_run_request_async
from tests.calling import TOKEN, Client, Work, put, serve, serve_endpoint
from tests.declared import Site
from tests.queued import look, statuses
from tests.servers import LIBPQ_KINDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server


BEARER = {"Authorization": f"Bearer {TOKEN}"}
ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
"""Where the extension http is installed."""


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema, and no job."""
    site = Site(database)
    site.apply()
    return site


@pytest.fixture
def work() -> Iterator[Work]:
    """Handlers; the gate opens at the end."""
    work = Work()
    yield work
    work.gate.set()


@pytest.mark.parametrize(
    ("mount", "prefix", "below"), [("", "/api", "/api"), ("/app", "/api", "/app/api"), ("/v1", "", "/v1")]
)
def test_it_is_mounted_below_any_prefix(
    site: Site, conn: Connection, work: Work, mount: str, prefix: str, below: str
) -> None:
    """In another application its paths begin with where it is mounted; nothing is served beside them."""
    app = make_app(site.dsn, work.handlers, tokens=TOKEN, prefix=prefix)
    outer = Starlette(routes=[Mount(mount or "/", app=app)])
    job = put(conn, "do")
    with serve(outer) as found:
        client = Client(port=found.port, prefix=below)
        assert client.run().statuses == ["completed"]
        assert client.get(job).document["status"] == "completed"
        assert client.enqueue(name="work.do").status == 201
        assert Client(port=found.port, prefix="/else").run().status == 404
    # An application that is mounted is not told of the end of the outer one.
    asyncio.run(app.state.endpoint.aclose())


def test_an_application_that_serves_no_lifespan_works_too(site: Site, conn: Connection, work: Work) -> None:
    """Nothing has to be opened before the first call."""
    put(conn, "do")
    app = make_app(site.dsn, work.handlers, tokens=TOKEN)
    with serve(app, lifespan="off") as client:
        assert client.run().statuses == ["completed"]
    asyncio.run(app.state.endpoint.aclose())


def test_it_takes_the_pool_of_its_application(site: Site, conn: Connection, work: Work) -> None:
    """A pool of psycopg_pool is used and left open, whether its connections are in autocommit mode or not."""
    jobs = [put(conn, "do", n=n) for n in range(4)]

    async def call() -> list[int]:
        found = []
        for autocommit in (False, True):
            async with AsyncConnectionPool(site.dsn, kwargs={"autocommit": autocommit}, min_size=1) as pool:
                endpoint = RunEndpoint(pool, work.handlers, tokens=TOKEN)
                answer = await endpoint.answer_run(Call(query="limit=2", headers=BEARER))
                await endpoint.aclose()
                found.append(answer.document["counts"]["completed"])
                async with pool.connection() as mine:
                    await mine.execute("SELECT 1")
        return found

    assert asyncio.run(call()) == [2, 2]
    assert {look(conn, job)["status"] for job in jobs} == {"completed"}


def test_a_pool_without_a_server_is_503(work: Work) -> None:
    """A pool that has no connection to give in time is the database being away."""

    async def call() -> int:
        pool = AsyncConnectionPool(
            "host=/nowhere", open=False, min_size=0, max_size=1, timeout=0.3, reconnect_timeout=0.1
        )
        await pool.open()
        try:
            endpoint = RunEndpoint(pool, work.handlers, tokens=TOKEN)
            return (await endpoint.answer_run(Call(headers=BEARER))).status
        finally:
            await pool.close()

    assert asyncio.run(call()) == 503


def test_it_is_a_plain_function(site: Site, conn: Connection, work: Work) -> None:
    """Method, query and headers go in; status, headers and body come out, and nothing is left behind."""
    job = put(conn, "do", n=1)
    put(conn, "do_sync", n=2)
    answer = handle_run_request(
        site.dsn, work.handlers, tokens=TOKEN, method="post", query="limit=2", headers=BEARER
    )
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.document["counts"]["completed"] == 2
    assert look(conn, job)["result"] == {"n": 1}
    others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reconciler worker'"
    wait_until(lambda: site.rows(others) == [(0,)], seconds=5, what="its connections are gone")


def test_the_function_asks_for_token_and_method(site: Site, conn: Connection, work: Work) -> None:
    """It refuses as the application does."""
    put(conn, "do")

    def call(**options: Any) -> int:
        return handle_run_request(site.dsn, work.handlers, tokens=TOKEN, **options).status

    assert call() == 401
    assert call(headers={"authorization": "Bearer wrong"}) == 401
    assert call(headers=BEARER, method="GET") == 405
    assert call(headers=BEARER, query="limit=x") == 400
    assert statuses(site) == {"pending": 1}


def test_the_function_goes_on_nowhere(site: Site, conn: Connection, work: Work) -> None:
    """Where nothing outlives the answer, who does not want to wait waits all the same, and so does a job."""

    async def call() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, work.gate.set)
        answer = await handle_run_request_async(
            site.dsn,
            work.handlers,
            tokens=TOKEN,
            query="wait=false",
            headers=BEARER,
            rules=RunRules(budget=timedelta(seconds=0.2), max_budget=timedelta(seconds=0.2)),
        )
        return answer.status, answer.document["jobs"][0]["status"]

    put(conn, "wait")
    assert asyncio.run(call()) == (200, "completed")


@pytest.mark.parametrize("name", ["wait", "block"])
def test_the_function_gives_back_before_its_platform_ends_it(
    site: Site, conn: Connection, work: Work, name: str
) -> None:
    """Jobs that still run shortly before the deadline are pending again when the answer is out."""
    job = put(conn, name)
    begun = time.monotonic()
    answer = handle_run_request(
        site.dsn, work.handlers, tokens=TOKEN, headers=BEARER, deadline=timedelta(seconds=1)
    )
    assert time.monotonic() - begun < 3
    assert [told["status"] for told in answer.document["jobs"]] == ["pending"]
    found = look(conn, job)
    assert (found["status"], found["attempts"]) == ("pending", 0)


def test_without_a_token_there_is_no_endpoint(site: Site, work: Work) -> None:
    """No form of it starts without a token."""
    with pytest.raises(ConfigError, match="anybody could run jobs"):
        make_app(site.dsn, work.handlers, tokens=[])
    with pytest.raises(ConfigError, match="anybody could run jobs"):
        handle_run_request(site.dsn, work.handlers, tokens="", headers=BEARER)


@ON_17
def test_the_extension_http_calls_it(site: Site, conn: Connection, work: Work) -> None:
    """A statement in the database has a job of that database done, by token alone."""
    conn.execute("CREATE EXTENSION http")
    job = put(conn, "do", "outreach", n=1)
    with serve_endpoint(site.dsn, work.handlers) as client:
        url = f"http://127.0.0.1:{client.port}/api/jobs/run?queue=outreach&status=pending&limit=5"
        call = (
            "SELECT status, content::jsonb #>> '{jobs,0,status}' FROM http(ROW('POST', %s, ARRAY["
            "http_header('Authorization', %s)], 'application/json', '{}')::http_request)"
        )
        assert conn.execute(call, [url, "Bearer wrong"]).fetchone() == (401, None)
        assert look(conn, job)["status"] == "pending"
        assert conn.execute(call, [url, f"Bearer {TOKEN}"]).fetchone() == (200, "completed")
    assert look(conn, job)["status"] == "completed"


def test_many_calls_share_few_connections(site: Site, work: Work) -> None:
    """However many call at once, the server sees five connections at the most, and one for the leases."""
    with serve_endpoint(site.dsn, work.handlers) as client, ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda n: client.get(n).status, range(300)))
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reconciler worker'"
        [(count,)] = site.rows(query)
    assert set(replies) == {404}
    assert 1 <= count <= 5
