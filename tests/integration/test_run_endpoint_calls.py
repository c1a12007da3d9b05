"""Who may call the run endpoint, and how: tokens, wrong calls, and jobs put and looked at over HTTP."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.calling import TOKEN, Client, Work, put, serve_endpoint
from tests.declared import Site
from tests.queued import look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server


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


@pytest.fixture
def client(site: Site, work: Work) -> Iterator[Client]:
    """A served endpoint."""
    with serve_endpoint(site.dsn, work.handlers) as client:
        yield client
        work.gate.set()


@pytest.mark.parametrize(
    ("token", "challenge"),
    [
        (None, 'Bearer realm="reconciler"'),
        ("", 'Bearer realm="reconciler", error="invalid_token"'),
        ("123abc-is-not-to-be-seen", 'Bearer realm="reconciler", error="invalid_token"'),
        (TOKEN + "x", 'Bearer realm="reconciler", error="invalid_token"'),
    ],
)
def test_without_the_right_token_nothing_happens(
    conn: Connection, client: Client, token: str | None, challenge: str
) -> None:
    """No call does anything for who brings no token, or a wrong one; no answer repeats one."""
    job = put(conn, "do")
    stranger = Client(port=client.port, token=token)
    for reply in (stranger.run("nonsense"), stranger.enqueue(name="a"), stranger.get(job)):
        assert (reply.status, reply.headers["www-authenticate"]) == (401, challenge)
        assert reply.headers["content-type"] == "application/problem+json"
        assert b"123" not in reply.body
    assert look(conn, job)["status"] == "pending"


def test_each_of_several_tokens_opens(site: Site, work: Work) -> None:
    """While one token replaces another, both are good."""
    with serve_endpoint(site.dsn, work.handlers, tokens=["old-token", "new-token"]) as client:
        found = [
            Client(port=client.port, token=token).run().status for token in ("old-token", "new-token", TOKEN)
        ]
    assert found == [200, 200, 401]


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("POST", "/jobs/run?limit=0", 400, "limit=0 is no number of jobs from 1 to 1000"),
        ("POST", "/jobs/run?quue=a", 400, "there is no parameter quue"),
        ("GET", "/jobs/run", 405, "this path knows no such method"),
        ("DELETE", "/jobs/1", 405, "this path knows no such method"),
        ("GET", "/jobs", 405, "this path knows no such method"),
        ("GET", "/jobs/", 404, "there is nothing at /api/jobs/"),
        ("POST", "/nowhere", 404, "there is nothing at /api/nowhere"),
        ("GET", "/jobs/77", 404, "there is no job 77"),
        ("GET", "/jobs/x", 404, "there is no job x"),
        ("GET", "/jobs/" + "9" * 5000, 404, "there is no job 999"),
        ("POST", "/jobs", 400, "the body is no JSON"),
    ],
)
def test_a_wrong_call_is_explained(client: Client, method: str, path: str, status: int, told: str) -> None:
    """The problem says what is wrong and what to do, as RFC 9457 wants it."""
    reply = client.call(method, path)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert told in reply.document["detail"]
    assert reply.document["remedy"]
    assert (reply.document["status"], reply.document["type"]) == (status, "about:blank")


def test_allow_names_the_methods(client: Client) -> None:
    """A 405 says which methods there are."""
    assert client.call("GET", "/jobs/run").headers["allow"] == "POST"
    assert client.call("PUT", "/jobs/1").headers["allow"] == "GET, HEAD"


def test_a_body_that_is_too_long_is_refused(site: Site, work: Work) -> None:
    """Whether its head says so or not, it is not read to its end."""
    with serve_endpoint(site.dsn, work.handlers, max_body=1000) as client:
        fits = b'{"name": "a", "payload": "' + b"x" * 900 + b'"}'
        assert client.call("POST", "/jobs", fits).status == 201
        assert client.call("POST", "/jobs", b"x" * 1001).status == 413
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as caller:
            head = f"POST /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            chunk = f"258\r\n{'x' * 600}\r\n"
            caller.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n{chunk * 2}".encode())
            assert caller.recv(100).startswith(b"HTTP/1.1 413 ")  # although the body has not come to its end
        chunks = client.call("POST", "/jobs", iter([b"x" * 600] * 2), Transfer_Encoding="chunked")
        assert chunks.status == 413
        assert client.call("POST", "/jobs/run", b"x" * 1001).status == 413


def test_a_job_is_put_and_looked_at(conn: Connection, client: Client) -> None:
    """The seed's calls: put a job, run it, ask for it."""
    reply = client.enqueue(
        name="work.do", run_at="2020-01-01T08:00:00", payload={"user": "ü"}, queue="outreach"
    )
    assert (reply.status, reply.document["created"]) == (201, True)
    job = reply.document["id"]
    waiting = client.get(job).document
    assert (waiting["status"], waiting["run_at"]) == ("pending", "2020-01-01T08:00:00Z")
    assert (waiting["payload"], waiting["queue"], waiting["name"]) == ({"user": "ü"}, "outreach", "work.do")
    assert client.run("queue=outreach").statuses == ["completed"]
    done = client.get(job).document
    assert (done["status"], done["result"], done["error"]) == ("completed", {"user": "ü"}, None)
    assert done["completed_at"] >= done["started_at"] >= done["created_at"]
    assert look(conn, job)["type"] == "custom"


def test_a_unique_key_that_is_taken_is_a_normal_answer(client: Client) -> None:
    """The second job of a key is 200 with the id of the first one."""
    first = client.enqueue(name="work.do", unique_key="u")
    second = client.enqueue(name="work.do", unique_key="u")
    assert (first.status, second.status) == (201, 200)
    assert second.document == {"id": first.document["id"], "created": False}


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"name": "a", "payload": {"a": "b\0"}}, "NUL"),
        ({"name": "a", "payload": "\ud800"}, "half of a pair"),
        ({"name": "a", "payload": {"n": "x" * 5_000_000}}, "more than the 4 MB"),
        ({"name": "a" * 201}, "name is no text of 1 to 200 characters"),
    ],
)
def test_what_the_database_cannot_keep_is_a_bad_request(
    client: Client, job: dict[str, Any], told: str
) -> None:
    """A payload that PostgreSQL refuses is the caller's fault, and says so."""
    reply = client.enqueue(**job)
    assert reply.status == 400
    assert told in reply.document["detail"]


def test_a_result_that_is_too_long_is_left_out_of_the_answer(conn: Connection, client: Client) -> None:
    """It is kept with the job, and the answer says that it is."""
    job = put(conn, "do", text="x" * 70_000)
    [told] = client.run().document["jobs"]
    assert (told["result"], told["result_omitted"]) == (None, True)
    assert len(client.get(job).document["result"]["text"]) == 70_000
