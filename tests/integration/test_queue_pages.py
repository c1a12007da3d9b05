"""The pages of queues: what is on them, what became of it, and who may change that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from reconciler.api.context import Limits
from tests.declared import queue
from tests.pages import Browser
from tests.queued import cancel, claim_one, complete, connect, enqueue, fail
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from tests.declared import Site
    from tests.pages import Node
    from tests.served import Served

pytestmark = pytest.mark.one_server

HOSTILE = "<script>alert('1')</script>\u202e\"&"
CALLS = "SELECT action, subject, caller, status FROM reconciler.api_calls ORDER BY id"


@pytest.fixture
def conn(served: Served) -> Connection:
    """A connection of a worker."""
    return connect(served.site)


def rows(page: Node) -> dict[str, Node]:
    """Return the rows of the list of a page, by their names."""
    return {
        row.find(class_="name").text: row
        for row in page.find("table", class_="list").find_all("tr", data_item="")
    }


def cells(row: Node) -> dict[str, str]:
    """Return the texts of a row by their labels."""
    return {cell.attributes.get("data-label", ""): cell.text for cell in row.find_all("td")}


def actions(page: Node) -> Sequence[str]:
    """Return where the forms of a page lead, but for that which signs out."""
    found = [form.attributes["action"] for form in page.find_all("form", method="post")]
    return [one for one in found if one != "/logout"]


def test_queues_are_listed_with_how_they_fare(served: Served, conn: Connection) -> None:
    """Declared or not; what is dead leads to it, and what holds others up is said."""
    served.site.apply(queue("mail", concurrency=1), queue("invoices", mode="blocking"))
    for name in ("mail", "mail", "invoices", "Über / alles?", HOSTILE):
        enqueue(conn, name)
    enqueue(conn, "mail", after=3600)
    claim_one(conn, "mail")
    fail(conn, claim_one(conn, "Über / alles?"), final=True)
    reader = Browser(served, "read")
    page = reader.look("/queues")
    found = rows(page)
    assert found.keys() == {"mail", "invoices", "Über / alles?", HOSTILE.replace("\u202e", "<U+202E>")}
    told = cells(found["mail"])
    assert {name: told[name] for name in ("Later", "Running", "Dead", "Last hour", "Held up by")} == {
        "Later": "1",
        "Running": "1 of 1",
        "Dead": "0",
        "Last hour": "0",
        "Held up by": "as many run as may at once",
    }
    assert "blocking" in found["invoices"].find("td").text
    assert "not declared" in found["Über / alles?"].find("td").text
    dead = reader.look(found["Über / alles?"].find("a", class_="state").attributes["href"])
    assert [cells(row)[""] for row in rows(dead).values()] == ["failed"]


def test_a_queue_is_shown_with_its_jobs_and_what_holds_them_up(served: Served, conn: Connection) -> None:
    """How many were finished, its limits, which job is in front, and the jobs with their errors."""
    served.site.apply(queue("invoices", mode="blocking", max_attempts=9, rate="100/1m"))
    jobs = [enqueue(conn, "invoices") for _ in range(3)]
    complete(conn, [claim_one(conn, "invoices")])
    fail(conn, claim_one(conn, "invoices"), HOSTILE, retry_in=600)
    page = Browser(served, "read").look("/queues/invoices")
    assert f"1 job waits: job {jobs[1]} (retry)." in page.text
    assert [chart.attributes["aria-label"] for chart in page.find_all("svg", class_="chart")] == [
        "Jobs by minute, the last 60: 1 finished, 0 failed; at most 1 in one",
        "Jobs by hour, the last 24: 1 finished, 0 failed; at most 1 in one",
    ]
    assert f"Job {jobs[1]} waits for its next try" in page.find(id="held").text
    assert "100 in 1m" in page.text
    found = rows(page)
    assert [*found] == [str(job) for job in reversed(jobs)]
    assert cells(found[str(jobs[1])])["Said"].startswith("<script>alert('1')</script><U+202E>")
    assert (cells(found[str(jobs[1])])[""], cells(found[str(jobs[1])])["Tries"]) == ("scheduled", "1")
    assert "no worker" not in page.text


def test_jobs_of_a_queue_are_filtered_and_paged(site: Site) -> None:
    """The address says which; what is no status shows all, and a cursor of elsewhere is refused."""
    with serve(site, limits=Limits(page=2)) as served:
        conn = connect(site)
        jobs = [str(enqueue(conn, "q")) for _ in range(5)]
        enqueue(conn, "other")
        complete(conn, [claim_one(conn, "q")])
        reader = Browser(served, "read")
        page = reader.look("/queues/q?status=pending")
        assert [*rows(page)] == [jobs[4], jobs[3]]
        assert page.find(id="filter-pending").attributes["aria-current"] == "true"
        page = reader.look(page.find("a", rel="next").attributes["href"])
        assert [*rows(page)] == [jobs[2], jobs[1]]
        assert page.find("a", rel="first").attributes["href"] == "/queues/q?status=pending"
        assert [*rows(reader.look("/queues/q?status=completed"))] == [jobs[0]]
        assert [*rows(reader.look("/queues/q?status=nonsense"))] == [jobs[4], jobs[3]]
        assert "No job is running." in reader.look("/queues/q?status=running").text
        reader.look("/queues/q?cursor=nonsense", 422)
        first = reader.look("/queues?cursor=WyJwIl0")
        assert [*rows(first)] == ["q"]
        for number in range(3):
            enqueue(conn, f"more{number}")
        following = reader.look("/queues").find("a", rel="next").attributes["href"]
        assert [*rows(reader.look(following))] == ["more2", "other"]


def test_a_queued_job_is_shown_in_full(served: Served, conn: Connection) -> None:
    """Its payload, result and error, whatever they hold; only what it has is told."""
    job = enqueue(conn, "q", payload={"text": HOSTILE, "n": [1, None]}, unique_key=HOSTILE)
    reader = Browser(served, "read")
    page = reader.look(f"/queued/{job}")
    assert (
        '"text": "<script>alert(\'1\')</script><U+202E>\\"&"' in page.find("pre", aria_label="Payload").text
    )
    assert "Ordering key" not in page.text
    complete(conn, [claim_one(conn, "q")], [{"done": HOSTILE}])
    assert "<script>" in reader.look(f"/queued/{job}").find("pre", aria_label="Result").text
    failed = enqueue(conn, "q")
    fail(conn, claim_one(conn, "q"), HOSTILE, final=True)
    page = reader.look(f"/queued/{failed}")
    assert page.find(class_="said").text.startswith("<script>")
    assert page.find(class_="lead").text == "dead"


def test_a_dead_job_begins_anew(served: Served, conn: Connection) -> None:
    """It is written down with the token's name, as a call of the API is."""
    job = enqueue(conn, "q")
    fail(conn, claim_one(conn, "q"), final=True)
    writer = Browser(served, "read", "write")
    page = writer.press(writer.look(f"/queued/{job}"), f"/queued/{job}/retry")
    assert page.find(id="told").text == "It begins anew."
    assert claim_one(conn, "q").id == job
    assert served.site.rows(CALLS) == [("queued.retry", str(job), "read-write", 200)]


def test_a_job_is_cancelled_in_each_state_that_can_be(served: Served, conn: Connection) -> None:
    """One that waits or is dead at once; of one that runs the worker is told."""
    waiting, running, dead = (enqueue(conn, name) for name in ("a", "b", "c"))
    claim_one(conn, "b")
    fail(conn, claim_one(conn, "c"), final=True)
    writer = Browser(served, "read", "write")
    told = {}
    for job in (waiting, running, dead):
        told[job] = writer.press(writer.look(f"/queued/{job}"), f"/queued/{job}/cancel").find(id="told").text
    assert told == {waiting: "Cancelled.", running: "Its worker is told to end it.", dead: "Cancelled."}


def test_what_is_over_stays_as_it_is(served: Served, conn: Connection) -> None:
    """A form that comes too late is told so, and a job that has its unique key stands in the way."""
    done, first = enqueue(conn, "q"), enqueue(conn, "other", unique_key="k")
    cancel(conn, first)
    enqueue(conn, "other", unique_key="k")
    writer = Browser(served, "read", "write")
    page = writer.look(f"/queued/{done}")
    key = page.find("input", name="csrf").attributes["value"]
    complete(conn, [claim_one(conn, "q")])
    assert actions(writer.look(f"/queued/{done}")) == []
    for path, said in (
        (f"/queued/{done}/cancel", f"job {done} is completed, and stays so"),
        (f"/queued/{done}/retry", f"job {done} is completed, and stays so"),
        (f"/queued/{first}/retry", "that one is finished, or cancel it"),
    ):
        answer = writer.send(path, {"csrf": key})
        assert answer.status_code == 409
        assert said in answer.text


def test_who_may_not_write_sees_no_buttons(served: Served, conn: Connection) -> None:
    """And is told which scope is missing; a form without the session's key does nothing either."""
    job = enqueue(conn, "q")
    reader = Browser(served, "read", "trigger")
    page = reader.look(f"/queued/{job}")
    assert actions(page) == []
    key = page.find("input", name="csrf").attributes["value"]
    for path in (f"/queued/{job}/cancel", f"/queued/{job}/retry"):
        answer = reader.send(path, {"csrf": key})
        assert answer.status_code == 403
        assert "lacks the scope write" in answer.text
    writer = Browser(served, "read", "write")
    for values in ({}, {"csrf": key}):
        assert writer.send(f"/queued/{job}/cancel", values).status_code == 403
    assert served.site.rows("SELECT status FROM reconciler.jobs") == [("pending",)]


@pytest.mark.parametrize(
    "path",
    [
        *("/queues/nobody", "/queues/a%00b", "/queues/", "/queues/%ED%A0%80", "/queues/x'; DROP TABLE jobs"),
        *("/queued/1", "/queued/x", "/queued/0", "/queued/-1", "/queued/1.5", "/queued/99999999999999999999"),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(served: Served, path: str) -> None:
    """For looking and for changing alike."""
    writer = Browser(served, "read", "write")
    assert writer.look(path, 404).find("h1").text == "Not Found"
    if path.startswith("/queued/"):
        key = writer.look("/").find("input", name="csrf").attributes["value"]
        for action in ("retry", "cancel"):
            assert writer.send(f"{path}/{action}", {"csrf": key}).status_code == 404


def test_news_of_a_queue_come_when_there_are_some(served: Served, conn: Connection) -> None:
    """A queue on which nothing happens answers 304 to who has its page."""
    job = enqueue(conn, "q", payload={"n": 1})
    reader = Browser(served, "read")
    etag = reader.get(f"/queued/{job}").headers["etag"]
    values: dict[str, Any] = {"HX_Request": "true", "If_None_Match": etag}
    assert reader.get(f"/queued/{job}", 304, **values).text == ""
    conn.execute("UPDATE reconciler.jobs_open SET payload = %s", [Jsonb({"n": 2})])
    assert '"n": 2' in reader.get(f"/queued/{job}", **values).text.replace("&#34;", '"')
