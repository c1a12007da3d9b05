"""Queued jobs over the API: put, list, retry, cancel, and do them; with whatever people send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.errors import ConfigError, ConnectError
from reconciler.runtime.run_endpoint import RunEndpoint
from tests.calling import Work
from tests.queued import claim_one, complete, connect, enqueue, fail, look
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response
    from psycopg import Connection

    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

JOBS = "/api/jobs"
SQL = "x'; DROP TABLE reconciler.jobs; --"
WAITING: Any = {"name": "work.do", "run_at": "2099-01-01T00:00:00Z"}
WRONG_JOBS = [
    *(b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"{}", b'{"name": 7}', b'{"name": ""}'),
    *(b'{"name": "a\\u0000b"}', b'{"name": "\\ud800"}', b'{"name": "a", "queue": "\\u0000"}'),
    *(b'{"name": "a", "nmae": 1}', b'{"name": "a", "handler": "a"}', b'{"name": "a", "payload": NaN}'),
    *(b'{"name": "a", "payload": "\\u0000"}', b'{"name": "a", "payload": {"\\udfff": 1}}'),
    *(
        b'{"name": "a", "run_at": "soon"}',
        b'{"name": "a", "run_at": 7}',
        b'{"name": "a", "priority": 1.5}',
    ),
    *(b'{"name": "a", "run_at": "0001-01-01T00:00:00+10:00"}', b'{"name": "a", "max_attempts": 0}'),
    *(b'{"name": "a", "priority": 99999999999999999999}', b'{"name": "a", "timeout": "soon"}'),
    json.dumps({"name": "n" * 201}).encode(),
    b'{"name": "a", "payload": ' + b"[" * 5000 + b"]" * 5000 + b"}",
]
WRONG_QUERIES = [
    *("status=done", "status=", "status=Failed", "limit=0", "limit=501", "limit=99999999999999999999"),
    *("limit=ten", "queue=a%00b", "handler=%00", "job_name=%00", "cursor=%00", "cursor=garbage"),
    *("cursor=W10", "cursor=WyJhIl0", "cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDhd", "queue=" + "q" * 201),
]
WRONG_IDS = ["0", "-1", "x", "1%00", "9223372036854775808", "1e3", "9" * 400, SQL]
WRONG_RETRIES = [b"{", b"[]", b'{"run_at": 7}', b'{"run_at": "soon"}', b'{"at": null}']


@pytest.fixture
def conn(served: Served) -> Connection:
    """A connection of a worker."""
    return connect(served.site)


def put(served: Served, **job: Any) -> int:
    """Put a job."""
    answer = served.post(JOBS, json={"name": "work.do", **job})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def refusal(answer: Response) -> tuple[int, str]:
    """Return status and detail of a problem, which has its form."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (document["status"], bool(document["remedy"])) == (answer.status_code, True)
    return answer.status_code, str(document["detail"])


def list_ids(served: Served, **query: Any) -> list[int]:
    """Return the jobs of a list, page by page."""
    found: list[int] = []
    while True:
        answer = served.get(JOBS, params=query)
        assert answer.status_code == 200, answer.text
        found += [item["id"] for item in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return found
        query["cursor"] = answer.json()["next_cursor"]


def die(conn: Connection, **options: Any) -> int:
    """Let a job die, and return its id."""
    job = enqueue(conn, **options)
    fail(conn, claim_one(conn, options.get("queue", "default")), final=True)
    return job


def test_a_job_is_put_as_at_the_run_endpoint(served: Served, conn: Connection) -> None:
    """With all that can be said of it; a second one with its unique key is told of the first."""
    job = {
        "handler": "mail.send",
        "payload": {"to": SQL, "n": [1, None, 2.5]},
        "run_at": "2099-01-01T02:00:00+02:00",
        "queue": "outreach",
        "priority": -3,
        "unique_key": "welcome ann",
        "max_attempts": 7,
        "timeout": "90s",
        "type": "email",
    }
    made, again = served.post(JOBS, json=job), served.post(JOBS, json=job)
    job_id = made.json()["id"]
    assert (made.status_code, made.json()) == (201, {"id": job_id, "created": True})
    assert (again.status_code, again.json()) == (200, {"id": job_id, "created": False})
    shown = served.get(f"{JOBS}/{job_id}").json()
    assert shown["created_at"].endswith("Z")
    assert {name: shown[name] for name in ("name", "payload", "run_at", "queue", "priority", "status")} == {
        "name": "mail.send",
        "payload": job["payload"],
        "run_at": "2099-01-01T00:00:00Z",
        "queue": "outreach",
        "priority": -3,
        "status": "pending",
    }
    assert look(conn, job_id)["timeout"] == "00:01:30"


def test_jobs_are_listed_by_all_that_they_have(served: Served, conn: Connection) -> None:
    """The newest first, in pages; `scheduled` are pending, and not due."""
    done = put(served, queue="mail")
    complete(conn, [claim_one(conn, "mail")])
    dead = die(conn, queue="mail")
    running = put(served, queue="mail")
    claim_one(conn, "mail")
    due, later = put(served), put(served, run_at="2099-01-01T00:00:00Z", name="mail.send")
    gone = put(served)
    assert served.delete(f"{JOBS}/{gone}").status_code == 200
    everything = [gone, later, due, running, dead, done]
    assert list_ids(served) == list_ids(served, limit=1) == list_ids(served, limit=4) == everything
    by_status = {
        "scheduled": [later],
        "pending": [later, due],
        "running": [running],
        "completed": [done],
        "failed": [dead],
        "cancelled": [gone],
    }
    assert {status: list_ids(served, status=status, limit=1) for status in by_status} == by_status
    assert list_ids(served, queue="mail", limit=2) == [running, dead, done]
    assert list_ids(served, queue="mail", status="failed") == [dead]
    assert list_ids(served, handler="mail.send") == [later]
    assert list_ids(served, job_name="nobody") == list_ids(served, queue=SQL) == []


def test_a_page_goes_on_where_it_ended(served: Served) -> None:
    """Jobs that come meanwhile change nothing of the pages behind."""
    jobs = [put(served) for _ in range(5)]
    first = served.get(JOBS, params={"limit": 2}).json()
    put(served)
    second = served.get(JOBS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == jobs[:0:-1]


def test_a_list_leaves_out_what_is_long(served: Served, conn: Connection) -> None:
    """A long payload or result is shown with its job alone, also one that takes little room on disk."""
    long = {"text": "x" * 9000}
    jobs = [put(served, payload=long), put(served, payload="short")]
    complete(conn, sorted([claim_one(conn), claim_one(conn)], key=lambda one: one.id), [None, long])
    short, shown = served.get(JOBS).json()["items"]
    assert (shown["payload"], shown["payload_omitted"], shown["result_omitted"]) == (None, True, False)
    assert (short["payload"], short["payload_omitted"], short["result_omitted"]) == ("short", False, True)
    assert served.get(f"{JOBS}/{jobs[0]}").json()["payload"] == long
    assert served.get(f"{JOBS}/{jobs[1]}").json()["result"] == long


def test_dead_and_cancelled_jobs_begin_anew(served: Served, conn: Connection) -> None:
    """At once, or at a time; any other job is told with its status, and left as it is."""
    dead, waiting = die(conn), put(served, queue="mail")
    assert refusal(served.post(f"{JOBS}/{waiting}/retry")) == (409, f"job {waiting} is pending, and stays so")
    assert served.post(f"{JOBS}/{dead}/retry").json() == {"id": dead, "status": "pending"}
    claim_one(conn)
    assert refusal(served.post(f"{JOBS}/{dead}/retry")) == (409, f"job {dead} is running, and stays so")
    served.delete(f"{JOBS}/{waiting}")
    later = {"run_at": "2099-01-01T00:00:00"}
    assert served.post(f"{JOBS}/{waiting}/retry", json=later).status_code == 200
    assert served.get(f"{JOBS}/{waiting}").json()["run_at"] == "2099-01-01T00:00:00Z"
    held = die(conn, queue="keys", unique_key="one")
    taken = put(served, queue="keys", unique_key="one")
    status, detail = refusal(served.post(f"{JOBS}/{held}/retry"))
    assert (status, f"while job {taken} has the same unique_key" in detail) == (409, True)


def test_jobs_are_cancelled(served: Served, conn: Connection) -> None:
    """Those that wait and dead ones at once, one that runs by its worker, and none that is completed."""
    waiting, dead = put(served, queue="mail"), die(conn)
    for job in (waiting, dead, waiting):
        answer = served.post(f"{JOBS}/{job}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"id": job, "status": "cancelled"})
    running = put(served)
    claimed = claim_one(conn)
    answer = served.delete(f"{JOBS}/{running}")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    complete(conn, [claimed])
    over = refusal(served.delete(f"{JOBS}/{running}"))
    assert over == (409, f"job {running} is completed, and stays so")


def test_writes_are_done_once_for_a_key_and_written_down(served: Served) -> None:
    """The same request again is answered as the first time; the audit has who asked for what."""
    headers = {"Idempotency-Key": "one"}
    first, again = (served.post(JOBS, json=WAITING, headers=headers) for _ in range(2))
    assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
    assert len(list_ids(served)) == 1
    served.delete(f"{JOBS}/{first.json()['id']}")
    served.delete(f"{JOBS}/{first.json()['id'] + 1}")
    calls = served.get("/api/v1/calls").json()["items"]
    assert [(one["action"], one["status"]) for one in calls] == [
        ("queued.cancel", 404),
        ("queued.cancel", 200),
        ("queued.put", 201),
    ]


def test_each_call_needs_its_scope(served: Served) -> None:
    """Who may read looks, who may write changes; no other scope stands for either."""
    looking = (("GET", ""), ("GET", "/1"))
    changing = (("POST", ""), ("POST", "/1/retry"), ("POST", "/1/cancel"), ("DELETE", "/1"))
    for calls, scopes in ((looking, ("write", "trigger", "run")), (changing, ("read", "trigger", "run"))):
        for method, path in calls:
            answer = served.request(method, JOBS + path, scopes=scopes, json=WAITING)
            assert refusal(answer)[0] == 403, (method, path)
            assert refusal(served.request(method, JOBS + path, json=WAITING))[0] == 401, (method, path)
    assert served.site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


def test_a_job_that_cannot_be_put_is_explained(served: Served) -> None:
    """400 with what is wrong; nothing is put."""
    statuses = [refusal(served.post(JOBS, content=body))[0] for body in WRONG_JOBS]
    assert statuses == [400] * len(WRONG_JOBS)
    assert served.site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


def test_a_body_may_have_the_longest_payload_and_no_more(served: Served) -> None:
    """4 MB of payload go; a body of more than 8 MiB is not read."""
    assert put(served, payload="x" * 3_999_000)
    assert refusal(served.post(JOBS, json={"name": "a", "payload": "x" * 5_000_000}))[0] == 400
    assert refusal(served.post(JOBS, content=b"x" * (8 * 2**20 + 1)))[0] == 413


def test_a_wrong_query_is_explained(served: Served) -> None:
    """422: a status that is none, huge pages, NUL, cursors that no page ended with."""
    statuses = {query: refusal(served.get(f"{JOBS}?{query}"))[0] for query in WRONG_QUERIES}
    assert statuses == dict.fromkeys(WRONG_QUERIES, 422)


def test_an_id_that_is_none_is_refused(served: Served) -> None:
    """422 where no job can have it, 404 where none has."""
    for job in WRONG_IDS:
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("POST", "/cancel")):
            answer = served.request(method, f"{JOBS}/{job}{path}", scopes=("read", "write"))
            assert refusal(answer)[0] in {404, 422}, (method, job)
    assert refusal(served.get(f"{JOBS}/9223372036854775807"))[0] == 404


def test_a_retry_that_cannot_be_read_is_refused(served: Served, conn: Connection) -> None:
    """The job stays dead; the database refuses times that it cannot keep."""
    dead = die(conn)
    headers = {"Content-Type": "application/json"}
    for body in WRONG_RETRIES:
        answer = served.post(f"{JOBS}/{dead}/retry", content=body, headers=headers)
        assert refusal(answer)[0] in {400, 422}, body
    at = {"run_at": "9999-12-31T00:00:00Z"}
    assert refusal(served.post(f"{JOBS}/{dead}/retry", json=at))[0] == 400
    assert look(conn, dead)["status"] == "failed"


@pytest.fixture
def work() -> Iterator[Work]:
    """Handlers."""
    work = Work()
    yield work
    work.gate.set()


def test_jobs_are_done_for_tokens_with_the_scope_run(site: Site, work: Work) -> None:
    """And for the endpoint's own; everybody else is refused as the endpoint refuses, and does no job."""
    site.apply()
    endpoint = RunEndpoint(site.dsn, work.handlers, tokens="own-token")
    with serve(site, endpoint=endpoint) as served:
        run = f"{JOBS}/run"
        own = {"Authorization": "Bearer own-token"}
        put(served, name="work.do")
        assert refusal(served.post(run, scopes=()))[0] == 401
        assert refusal(served.post(run, scopes=(), headers={"Authorization": "Bearer other"}))[0] == 401
        assert refusal(served.post(run, scopes=(), headers={"Authorization": "Basic own-token"}))[0] == 401
        answer = served.post(run, scopes=("read", "trigger", "write"))
        assert refusal(answer) == (403, "the token read-trigger-write lacks the scope run")
        assert 'scope="run"' in answer.headers["www-authenticate"]
        assert work.done == []
        assert served.post(run, scopes=("run",)).json()["claimed"] == 1
        assert served.post(run, scopes=(), headers=own).json()["claimed"] == 0
        wrong = served.post(f"{run}?limit=0", scopes=("run",))
        assert refusal(wrong)[0] == 400
        wrong = served.get(run, scopes=("run",))
        assert (refusal(wrong)[0], wrong.headers["allow"]) == (405, "POST")
        # The endpoint's own token opens nothing else.
        assert refusal(served.get(JOBS, scopes=(), headers=own))[0] == 401


def test_an_endpoint_may_have_no_token_of_its_own(site: Site, work: Work) -> None:
    """Where the tokens of the API open it; without anybody to ask it is not made."""
    with pytest.raises(ConfigError):
        RunEndpoint(site.dsn, work.handlers, tokens=[])

    async def ask_in_vain(_: str) -> None:
        raise ConnectError("no server", remedy="")

    endpoint = RunEndpoint(site.dsn, work.handlers, tokens=[], authorize=ask_in_vain)
    with serve(site, endpoint=endpoint) as served:
        answer = served.post(f"{JOBS}/run", scopes=("run",))
        assert (refusal(answer)[0], answer.headers["retry-after"]) == (503, "30")
    endpoint = RunEndpoint(site.dsn, work.handlers, tokens=[], authorize=ask_in_vain)
    endpoint.authorize = None
    with serve(site, endpoint=endpoint) as served:
        assert refusal(served.post(f"{JOBS}/run", scopes=()))[0] == 401
        assert served.post(f"{JOBS}/run", scopes=("read", "run")).status_code == 200


def test_a_service_without_handlers_says_so(served: Served) -> None:
    """Jobs are put and looked at all the same."""
    status, detail = refusal(served.post(f"{JOBS}/run", scopes=("run",)))
    assert (status, detail) == (404, "this service does no jobs: it has no handlers")
    assert refusal(served.post(f"{JOBS}/run", scopes=("read",)))[0] == 403
    assert refusal(served.post(f"{JOBS}/run", scopes=()))[0] == 401
    assert refusal(served.post(f"{JOBS}/run", scopes=(), headers={"Authorization": "Bearer x"}))[0] == 401
    assert put(served)


def test_another_method_is_told_which_ones_there_are(served: Served) -> None:
    """All of the path, whichever route has them."""
    for path, methods in (("", "GET, POST"), ("/1", "GET, DELETE"), ("/1/retry", "POST")):
        answer = served.put(JOBS + path)
        assert (refusal(answer)[0], answer.headers["allow"]) == (405, methods)
