"""A queue that becomes blocking, or is no more, while jobs wait, run and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.declared import Site, queue
from tests.queued import (
    Claimed,
    cancel,
    claim,
    claim_one,
    complete,
    connect,
    enqueue,
    fail,
    fill,
    give_back,
    look,
    retry,
    statuses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema."""
    return Site(database)


@pytest.fixture
def conn(site: Site) -> psycopg.Connection:
    """A connection to it, autocommit."""
    site.apply()
    return connect(site)


ENDS: dict[str, Callable[[psycopg.Connection, Claimed], Any]] = {
    "given back": give_back,
    "to be retried": lambda conn, job: fail(conn, job, retry_in=30),
    "dead": lambda conn, job: fail(conn, job, final=True),
}


def test_a_queue_becomes_blocking_while_jobs_wait(site: Site, conn: psycopg.Connection) -> None:
    """Those that wait get in line, whatever their key was; nothing starts before those that run end."""
    site.apply(queue("shop"))
    ids = [enqueue(conn, "shop", ordering_key="k" if n > 4 else None) for n in range(7)]
    running = claim(conn, "shop", 2)
    site.apply(queue("shop", mode="blocking"))
    ids.append(enqueue(conn, "shop"))
    ids = [one for one in ids if one not in {job.id for job in running}]
    while running:
        assert claim(conn, "shop") == []
        complete(conn, [running.pop()])
    order = []
    for _ in ids:
        claimed = claim_one(conn, "shop")
        assert claim(conn, "shop") == []
        order.append(claimed.id)
        complete(conn, [claimed])
    assert order == ids


@pytest.mark.parametrize("end", ["given back", "to be retried", "dead", "enqueued"])
def test_what_comes_late_gets_in_line(site: Site, conn: psycopg.Connection, end: str) -> None:
    """Jobs that ran, had died or were not committed yet when their queue became blocking keep its order."""
    site.apply(queue("shop"))
    ids = [enqueue(conn, "shop") for _ in range(3)]
    running = claim(conn, "shop", 3)
    other = site.database.connect(autocommit=False)
    if end == "enqueued":
        complete(conn, running)
        ids = [enqueue(other, "shop", ordering_key=key) for key in (None, None, "k")]
    site.apply(queue("shop", mode="blocking"))
    other.commit()
    if end != "enqueued":
        for one in running:
            ENDS[end](conn, one)
        conn.execute("UPDATE reconciler.jobs_open SET run_at = now() - interval '1 s'")
    status = "failed" if end == "dead" else "pending"
    order = []
    while batch := claim(conn, "shop", status=status):
        assert len(batch) == 1
        assert claim(conn, "shop", status=status) == []
        order.append(batch[0].id)
        complete(conn, batch)
    assert order == ids


def test_what_is_revived_is_ordered_as_its_queue_is(site: Site, conn: psycopg.Connection) -> None:
    """A dead job that is tried again has the order that its queue has by then."""
    for before, after, key in (("standard", "blocking", ""), ("blocking", "standard", None)):
        site.apply(queue("shop", mode=before))
        job = enqueue(conn, "shop")
        fail(conn, claim_one(conn, "shop"), final=True)
        site.apply(queue("shop", mode=after))
        assert retry(conn, job) == "pending"
        assert look(conn, job)["ordering_key"] == key
        cancel(conn, job)


def test_a_queue_is_blocking_no_more_while_jobs_wait(site: Site, conn: psycopg.Connection) -> None:
    """Those that wait may be done together, and keys that were their own stay."""
    site.apply(queue("shop", mode="blocking"))
    fill(conn, 4, "shop", key="")
    running = claim_one(conn, "shop")
    site.apply(queue("shop"))
    assert len(claim(conn, "shop")) == 3
    complete(conn, [running])
    assert statuses(site, "shop") == {"completed": 1, "running": 3}
