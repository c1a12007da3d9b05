"""Connections that threads share: none is ever lost, and none is given out that is no good."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from reconciler.errors import (
    BusyError,
    ConfigError,
    ConnectError,
    DatabaseError,
    ReconcilerError,
    RightsError,
)
from reconciler.runtime.thread_connections import ThreadConnections
from tests.pooler import run_pooler, run_shared_pooler
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.declared import Site

pytestmark = pytest.mark.one_server

MOST = 4
COUNT = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'reconciler service' AND backend_type = 'client backend'"
)

CUT = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE application_name = 'reconciler service' ORDER BY pid = pg_backend_pid()"
)


@pytest.fixture
def connections(site: Site) -> Iterator[ThreadConnections]:
    """A few connections, and little patience."""
    made = ThreadConnections(site.dsn, most=MOST, patience=0.1, statement_limit=0.2)
    yield made
    made.close()


def cut(site: Site) -> None:
    """Terminate all of them."""
    site.run(CUT)


def check_places(connections: ThreadConnections) -> None:
    """See that as many as there may be can be had, that each answers, and no more."""
    with ExitStack() as stack:
        for _ in range(MOST):
            conn = stack.enter_context(connections.connection())
            assert conn.execute("SELECT 7").fetchone() == (7,)
        with pytest.raises(BusyError, match=f"all {MOST} connections"), connections.connection():
            pass


def find_pid(connections: ThreadConnections) -> int:
    """Find which connection is given out."""
    with connections.connection() as conn:
        return conn.info.backend_pid


def test_a_connection_is_kept(connections: ThreadConnections, site: Site) -> None:
    """The next thread gets it; there are no more than were needed at once."""
    pids = {find_pid(connections) for _ in range(5)}
    with ThreadPoolExecutor(1) as pool:
        pids.add(pool.submit(find_pid, connections).result())
    assert len(pids) == 1
    assert site.rows(COUNT) == [(1,)]


def break_off(_: psycopg.Connection) -> None:
    """Fail for another reason than the database."""
    raise LookupError


def leave_transaction(conn: psycopg.Connection) -> None:
    """Leave a transaction open."""
    conn.execute("BEGIN")


def fail_in_transaction(conn: psycopg.Connection) -> None:
    """Fail within a transaction that nobody rolls back."""
    conn.execute("BEGIN")
    conn.execute("SELECT 1/0")


def close_it(conn: psycopg.Connection) -> None:
    """Close it, and go on."""
    conn.close()


def use_closed(conn: psycopg.Connection) -> None:
    """Close it, and use it."""
    conn.close()
    conn.execute("SELECT 1")


def terminate(conn: psycopg.Connection) -> None:
    """Be terminated in the middle."""
    conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def hang(conn: psycopg.Connection) -> None:
    """Take too long."""
    conn.execute("SELECT pg_sleep(30)")


def be_interrupted(_: psycopg.Connection) -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


def leave_copy(conn: psycopg.Connection) -> None:
    """Fail in the middle of a copy."""
    with conn.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
        copy.read()
        raise LookupError


def leave_pipeline(conn: psycopg.Connection) -> None:
    """Fail in the middle of a pipeline."""
    with conn.pipeline():
        conn.execute("SELECT 1")
        conn.execute("SELECT 1/0")


def lack_right(conn: psycopg.Connection) -> None:
    """Do what the role may not."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE pg_monitor")
        conn.execute("SELECT * FROM pg_authid")


FAULTS: list[tuple[Callable[[Any], None], type[BaseException] | None]] = [
    (break_off, LookupError),
    (leave_transaction, None),
    (fail_in_transaction, DatabaseError),
    (close_it, None),
    (use_closed, ConnectError),
    (terminate, ConnectError),
    (hang, BusyError),
    (be_interrupted, KeyboardInterrupt),
    (leave_copy, LookupError),
    (leave_pipeline, DatabaseError),
    (lack_right, RightsError),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_no_place_is_lost(
    connections: ThreadConnections, fault: Callable[[Any], None], error: type[BaseException] | None
) -> None:
    """Whatever happens to one, there are as many as before, and all of them are good."""
    check_places(connections)
    for _ in range(MOST + 1):
        if error is None:
            with connections.connection() as conn:
                fault(conn)
        else:
            with pytest.raises(error) as raised, connections.connection() as conn:
                fault(conn)
            assert raised.type is error or not issubclass(error, ReconcilerError)
    check_places(connections)


def test_no_place_is_lost_whatever_comes_together(connections: ThreadConnections, site: Site) -> None:
    """Threads with faults of all kinds in any order, while connections are cut from outside."""
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    faults = [chance.choice(FAULTS)[0] for _ in range(60)]
    faults = [fault for fault in faults if fault is not hang]

    def run(fault: Callable[[Any], None]) -> None:
        # LookupError, KeyboardInterrupt, ours: nothing else may come out.
        with (
            contextlib.suppress(LookupError, KeyboardInterrupt, ReconcilerError),
            connections.connection() as conn,
        ):
            fault(conn)

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(run, fault) for fault in faults]
        for _ in range(3):
            cut(site)
        assert [one.exception(20) for one in done] == [None] * len(done), seed
    check_places(connections)


def test_one_that_was_cut_is_not_given_out(connections: ThreadConnections, site: Site) -> None:
    """Terminated while nobody used them, they are found out before they are used."""
    check_places(connections)
    cut(site)
    check_places(connections)


def test_one_that_waited_for_long_is_asked_first(
    connections: ThreadConnections, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies between may have forgotten it without a word: then nothing comes in, and it is no good."""
    monkeypatch.setattr("reconciler.runtime.thread_connections.has_news", lambda _: False)
    monkeypatch.setattr("reconciler.runtime.thread_connections._TRUST", 0)
    first = find_pid(connections)
    assert find_pid(connections) == first
    check_places(connections)
    cut(site)
    check_places(connections)


def test_after_a_loss_all_others_are_opened_anew(
    connections: ThreadConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was lost in the middle of work means that the others are of before as well."""
    monkeypatch.setattr("reconciler.runtime.thread_connections.has_news", lambda _: False)
    check_places(connections)
    with pytest.raises(ConnectError, match="was lost"), connections.connection() as conn:
        conn.execute(CUT.replace(", 5000", ""))
    check_places(connections)


def test_statements_end_in_time(connections: ThreadConnections, site: Site) -> None:
    """A limit of the role is kept, and one that does not end is told as a server without time."""
    with connections.connection() as conn:
        assert conn.execute("SHOW statement_timeout").fetchone() == ("200ms",)
    began = time.monotonic()
    with pytest.raises(BusyError, match="did not get through"), connections.connection() as conn:
        conn.execute("SELECT pg_sleep(30)")
    assert time.monotonic() - began < 5
    own = ThreadConnections(make_conninfo(site.dsn, options="-c statement_timeout=90s"))
    with own.connection() as conn:
        assert conn.execute("SHOW statement_timeout").fetchone() == ("90s",)
    own.close()


def test_behind_a_pooler_no_setting_is_left(site: Site) -> None:
    """Others get that session next; statements are not prepared either."""
    with run_shared_pooler(site.dsn, size=2) as dsn:
        # The pooler greets with the number of one of its sessions.
        connections = ThreadConnections(dsn, most=1)
        with connections.connection() as conn:
            greeted = conn.info.backend_pid
            found = [
                conn.execute("SELECT pg_backend_pid(), current_setting('statement_timeout')").fetchone()
                for _ in range(8)
            ]
        connections.close()
    assert {timeout for pid, timeout in filter(None, found) if pid != greeted} == {"0"}


def test_who_waits_gets_the_next_one(connections: ThreadConnections) -> None:
    """In time, where one is given back."""
    connections._patience = 10
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(connections.connection())
        timer = threading.Timer(0.1, stack.pop_all().close)
        timer.start()
        assert find_pid(connections)
        timer.join()
    connections._patience = 0.1
    check_places(connections)


def test_a_failure_is_shared_by_those_who_came_before_it(site: Site) -> None:
    """One tries at a time while the server is away; who comes later tries anew."""
    connections = ThreadConnections("host=/nowhere dbname=x", most=20)
    tried = []

    def connect(*_: object, **__: object) -> None:
        tried.append(1)
        time.sleep(0.3)
        raise errors.ConnectionTimeout("connection timeout expired")

    with pytest.raises(ConnectError), connections.connection():
        pass
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(20) as pool:
        patch.setattr("psycopg.connect", connect)
        began = time.monotonic()
        found = [pool.submit(find_pid, connections) for _ in range(20)]
        assert {type(one.exception(5)) for one in found} == {ConnectError}
        assert (len(tried), time.monotonic() - began < 1) == (1, True)
        with pytest.raises(ConnectError, match="timeout expired"), connections.connection():
            pass
        assert len(tried) == 2
    connections.close()
    assert site.rows(COUNT) == [(0,)]


def test_a_server_that_became_a_standby_is_left(connections: ThreadConnections, site: Site) -> None:
    """Connecting again finds the new primary, so that a write that is refused there is an outage."""
    first = find_pid(connections)
    with pytest.raises(ConnectError), connections.connection() as conn:
        conn.execute("BEGIN READ ONLY; CREATE TABLE t (); COMMIT")
    assert find_pid(connections) != first
    check_places(connections)
    assert site.rows("SELECT to_regclass('t')") == [(None,)]


def test_closing_leaves_nothing_behind(connections: ThreadConnections, site: Site) -> None:
    """Also of those that are given back later; whoever needs one afterwards still gets it."""
    with connections.connection() as one, connections.connection():
        connections.close()
        assert not one.closed
    wait_until(lambda: site.rows(COUNT) == [(0,)], seconds=5, what="they are closed")
    check_places(connections)
    wait_until(lambda: site.rows(COUNT) == [(0,)], seconds=5, what="they are closed")


def test_a_text_that_is_no_connection_string_is_said_at_once() -> None:
    """And not repeated, since it may hold a password."""
    with pytest.raises(ConfigError) as raised:
        ThreadConnections("hunter2")
    assert "hunter2" not in str(raised.value)


def test_statements_are_kept_on_the_server_where_that_is_asked_for(
    connections: ThreadConnections, site: Site
) -> None:
    """Only those, and only where a session stays the same: not behind a pooler that takes turns."""
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 7%%'"
    with connections.connection() as conn:
        for _ in range(8):
            conn.execute("SELECT 7 + %s::int", [1])
        assert conn.execute(count).fetchone() == (0,)
        conn.execute("SELECT 7 + %s::int", [1], prepare=True)
        assert conn.execute(count).fetchone() == (1,)
        assert conn.execute("SHOW jit").fetchone() == ("off",)
    with run_shared_pooler(site.dsn, size=2) as dsn:
        pooled = ThreadConnections(dsn, most=1)
        with pooled.connection() as conn:
            for _ in range(8):
                assert conn.execute("SELECT 7 + %s::int", [1], prepare=True).fetchone() == (8,)
        pooled.close()


def test_a_pooler_that_is_not_known_as_one_is_found_out(site: Site) -> None:
    """It tells the number of a session and takes another: one request fails, and none after it."""
    with run_pooler(site.dsn, stay=3) as dsn:
        pooled = ThreadConnections(dsn, most=1)
        with pytest.raises(BusyError, match="pooler"), pooled.connection() as conn:
            _ = [conn.execute("SELECT 7 + %s::int", [1], prepare=True) for _ in range(8)]
        assert not pooled._keeps_statements
        pooled.close()
