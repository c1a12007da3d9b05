"""Queued jobs from SQL: by calls, by triggers, by roles with the right and without, and by many at once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site, queue
from tests.queued import claim_one, complete, fail, look, together
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from tests.servers import Database

pytestmark = pytest.mark.one_server

TRIGGER: LiteralString = """
CREATE TABLE public.orders (id int PRIMARY KEY, note text);
GRANT ALL ON public.orders TO alice;
CREATE FUNCTION public.queue_mail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM reconciler.enqueue('mail.order', to_jsonb(NEW), queue => 'mail',
                               unique_key => 'order ' || NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER queue_mail AFTER INSERT OR UPDATE ON public.orders
    FOR EACH ROW EXECUTE FUNCTION public.queue_mail();
"""


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release, and the role alice."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    site.run("CREATE ROLE alice LOGIN")
    return site


def one(conn: Connection, query: LiteralString, *values: object) -> Any:
    """Return the one value that a query gives."""
    row = conn.execute(query, values or None).fetchone()
    assert row is not None
    return row[0]


def put_many(conn: Connection, jobs: Sequence[object]) -> list[tuple[int, int, bool]]:
    """Call enqueue_many."""
    return conn.execute("SELECT * FROM reconciler.enqueue_many(%s)", [json.dumps(jobs)]).fetchall()


def fails(conn: Connection, sqlstate: str, query: LiteralString, *values: object) -> psycopg.Error:
    """Execute what fails with a code, and return the error."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query, values or None)
    assert caught.value.sqlstate == sqlstate
    return caught.value


def test_a_call_puts_a_job(conn: Connection) -> None:
    """With nothing but its handler, or with everything."""
    first = one(conn, "SELECT reconciler.enqueue('a')")
    row = look(conn, first)
    assert (row["handler"], row["payload"], row["queue"], row["status"]) == ("a", {}, "default", "pending")
    assert (row["priority"], row["type"], row["run_at"] == row["created_at"]) == (0, "custom", True)
    second = one(
        conn,
        "SELECT reconciler.enqueue('b', '[1]', 'q', '2099-01-01Z', 5, 'u', 'o', 3, '1 min', 'sms')",
    )
    row = look(conn, second)
    assert (row["payload"], row["queue"], row["priority"], row["unique_key"]) == ([1], "q", 5, "u")
    assert (row["ordering_key"], row["max_attempts"], row["timeout"], row["type"]) == (
        "o",
        3,
        "00:01:00",
        "sms",
    )
    assert row["run_at"].startswith("2099-01-01")
    assert look(conn, one(conn, "SELECT reconciler.enqueue('c', NULL, ordering_key => '')"))["payload"] == {}


def test_jobs_of_a_blocking_queue_have_its_order(site: Site, conn: Connection) -> None:
    """Declared, or by its name."""
    site.apply(queue("invoices", mode="blocking"), queue("free"))
    for name, key, expected in (
        ("invoices", "x", ""),
        ("blocking", None, ""),
        ("free", "x", "x"),
        ("free", "", None),
    ):
        job = one(conn, "SELECT reconciler.enqueue('a', queue => %s, ordering_key => %s)", name, key)
        assert look(conn, job)["ordering_key"] == expected
    jobs = [{"handler": "a", "queue": name, "ordering_key": "x"} for name in ("invoices", "free", "blocking")]
    assert [look(conn, job)["ordering_key"] for _, job, _ in put_many(conn, jobs)] == ["", "x", ""]


@pytest.mark.parametrize(
    ("call", "words", "hint"),
    [
        ("enqueue('')", "a queued job needs a handler", "name under which a worker knows"),
        ("enqueue(NULL)", "a queued job needs a handler", ""),
        ("enqueue('a', queue => '')", "the name of a queue has 1 to 200", "Leave it out for default"),
        ("enqueue('a', unique_key => '')", "a unique_key must not be empty", "Leave it out for none"),
        ("enqueue('a', max_attempts => 0)", "max_attempts has to be 1 or more, not 0", "the queue's"),
        ("enqueue('a', timeout => '-1 s')", "a timeout has to be longer than nothing", "the queue's"),
        (
            "enqueue('a', timeout => '11 years')",
            "a timeout has to be longer than nothing and not longer than ten",
            "the queue's",
        ),
        ("enqueue('a', run_at => 'infinity')", "run_at has to be a moment before the year 9999", "for now"),
        ("enqueue('a', run_at => '-infinity')", "run_at has to be a moment", "for now"),
        ("enqueue('a', type => NULL)", "a type has 1 to 200 characters", "for custom"),
        ("retry_job(1, 'infinity')", "run_at has to be a moment", "for now"),
        ("retry_jobs('q', 0)", "max has to be 1 or more", "Leave them out for all"),
        ("retry_jobs('q', to_queue => '')", "the name of a queue has 1 to 200", "their own"),
        ("enqueue_many('{}')", "enqueue_many takes an array of jobs", "[{"),
        ("enqueue_many(NULL)", "enqueue_many takes an array of jobs", ""),
        ('enqueue_many(\'[{"handler": "a"}, 7]\')', "job 2: this is no object", "arguments"),
        ('enqueue_many(\'[{"handler": "a", "que": 1}]\')', "job 1: there is no argument que", "arguments"),
        ('enqueue_many(\'[{"handler": "a"}, {}]\')', "job 2: a queued job needs a handler", ""),
    ],
)
def test_what_cannot_be_is_refused_with_advice(
    conn: Connection, call: LiteralString, words: str, hint: str
) -> None:
    """Nothing is queued then."""
    error = fails(conn, "22023", "SELECT reconciler." + call)
    assert (error.diag.message_primary or "").startswith(words)
    assert hint in (error.diag.message_hint or "")
    assert one(conn, "SELECT count(*) FROM reconciler.jobs") == 0


def test_a_payload_of_a_megabyte_goes_and_one_too_large_is_refused(conn: Connection) -> None:
    """Four megabytes are the limit, as PostgreSQL keeps them."""
    text: LiteralString = "SELECT reconciler.enqueue('a', jsonb_build_object('text', repeat('x', %s)))"
    job = one(conn, text, 1024 * 1024)
    assert len(look(conn, job)["payload"]["text"]) == 1024 * 1024
    error = fails(conn, "22023", text, 4 * 1024 * 1024)
    assert "the payload takes 4096 kB, more than the 4 MB that a queued job may hold" in str(error)
    assert "put its id or address in the payload" in str(error)


def test_an_open_job_with_the_key_is_the_answer(conn: Connection) -> None:
    """Waiting or running, on the same queue; a finished one is not."""
    put: LiteralString = "SELECT reconciler.enqueue('a', unique_key => 'k')"
    first = one(conn, put)
    assert one(conn, put) == first
    claimed = claim_one(conn)
    assert one(conn, put) == first
    complete(conn, [claimed])
    second = one(conn, put)
    assert second != first
    made = put_many(conn, [{"handler": "a", "unique_key": key} for key in ("k", "l", "l")])
    new = made[1][1]
    assert made == [(1, second, False), (2, new, True), (3, new, False)]
    assert new > second


def test_of_many_at_once_one_makes_the_job(site: Site) -> None:
    """All others get its id, whether they call enqueue or enqueue_many."""
    found: list[tuple[int, int]] = []

    def work(conn: Connection, number: int) -> None:
        for n in range(50):
            if number % 2:
                found.append((n, one(conn, "SELECT reconciler.enqueue('a', unique_key => %s)", f"k{n}")))
            else:
                [(_, job, _)] = put_many(conn, [{"handler": "a", "unique_key": f"k{n}"}])
                found.append((n, job))

    together(site, 8, work)
    assert len(found) == 400
    assert len(set(found)) == 50
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(50,)]


def test_a_key_whose_job_is_finished_all_the_time_always_has_an_answer(site: Site) -> None:
    """Between the conflict and the look for the job that has the key, that one may be gone."""
    answers: list[tuple[int | None, bool]] = []
    made: Counter[int] = Counter()

    def work(conn: Connection, number: int) -> None:
        if number == 0:
            while len(answers) < 900:
                conn.execute(
                    "SELECT reconciler.cancel_job(id) FROM reconciler.jobs_open WHERE unique_key IS NOT NULL"
                )
            return
        for _ in range(300):
            for _, job, created in put_many(conn, [{"handler": "a", "unique_key": "k"}]):
                answers.append((job, created))
                made[job] += created

    together(site, 4, work)
    assert all(job is not None for job, _ in answers)
    assert set(made.values()) <= {0, 1}
    assert sum(made.values()) == site.rows("SELECT count(*) FROM reconciler.jobs")[0][0]


def test_many_jobs_with_the_same_keys_in_another_order_do_not_deadlock(site: Site) -> None:
    """Whoever comes second waits, and gets the ids of the first."""
    keys = [f"k{n}" for n in range(1000)]
    answers: dict[int, dict[str, int]] = {}

    def work(conn: Connection, number: int) -> None:
        mine = keys if number % 2 else keys[::-1]
        put = put_many(conn, [{"handler": "a", "unique_key": key} for key in mine])
        answers[number] = {key: job for key, (_, job, _) in zip(mine, put, strict=True)}

    for _ in range(3):
        together(site, 4, work)
        assert all(answer == answers[0] for answer in answers.values())
        site.run("DELETE FROM reconciler.jobs")


def test_a_role_without_the_right_is_refused(site: Site) -> None:
    """Every function of this kind; the helpers are nobody's."""
    alice = site.database.connect("alice")
    calls: tuple[LiteralString, ...] = (
        "enqueue('a')",
        "enqueue_many('[]')",
        "get_job(1)",
        "list_jobs()",
        "cancel_job(1)",
        "retry_job(1)",
        "retry_jobs('default')",
        "find_blocked('default')",
    )
    helpers: tuple[LiteralString, ...] = (
        "find_order('a', 'b')",
        "allow_enqueue('alice')",
        "refuse_job('a', 'b')",
    )
    for call in (*calls, *helpers):
        fails(alice, "42501", "SELECT reconciler." + call)
    site.run("SELECT reconciler.allow_enqueue('alice')")
    for call in calls:
        alice.execute("SELECT reconciler." + call)
    for call in helpers:
        fails(alice, "42501", "SELECT reconciler." + call)
    fails(alice, "42501", "INSERT INTO reconciler.jobs (handler) VALUES ('a')")
    assert alice.execute("SELECT queue, waiting FROM reconciler.queue_health").fetchall() == [("default", 1)]
    site.run("REVOKE EXECUTE ON FUNCTION reconciler.enqueue FROM alice")
    fails(alice, "42501", "SELECT reconciler.enqueue('a')")


def test_no_path_of_the_caller_leads_elsewhere(site: Site) -> None:
    """Whatever tables and functions it puts before ours."""
    site.run(
        "SELECT reconciler.allow_enqueue('alice'); GRANT CREATE ON SCHEMA public TO alice;"
        "GRANT TEMPORARY ON DATABASE app TO alice"
    )
    alice = site.database.connect("alice")
    alice.execute("CREATE TABLE public.jobs_open (id bigint); CREATE TEMP TABLE jobs (id bigint)")
    alice.execute(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz RETURN '2000-01-01'::timestamptz"
    )
    alice.execute("SET search_path = public, pg_temp, reconciler, pg_catalog")
    job = one(alice, "SELECT reconciler.enqueue('a')")
    assert site.rows("SELECT id, created_at > '2020-01-01' FROM reconciler.jobs") == [(job, True)]


def test_a_trigger_queues_what_its_table_says(site: Site) -> None:
    """As a part of the transaction that changes the table, once for each order that is open."""
    site.run(TRIGGER)
    alice = site.database.connect("alice")
    fails(alice, "42501", "INSERT INTO orders VALUES (1, 'mine')")
    assert site.rows("SELECT count(*) FROM orders") == [(0,)]
    site.run("SELECT reconciler.allow_enqueue('alice')")
    with alice.transaction():
        alice.execute("INSERT INTO orders VALUES (1, 'one'), (2, 'two')")
        alice.execute("UPDATE orders SET note = 'changed' WHERE id = 1")
    with alice.transaction(force_rollback=True):
        alice.execute("INSERT INTO orders VALUES (3, 'gone')")
    assert site.rows("SELECT handler, queue, payload, unique_key FROM reconciler.jobs ORDER BY id") == [
        ("mail.order", "mail", {"id": 1, "note": "one"}, "order 1"),
        ("mail.order", "mail", {"id": 2, "note": "two"}, "order 2"),
    ]


def listen(site: Site) -> Connection:
    """Connect, and listen for work."""
    conn = site.database.connect()
    conn.execute("LISTEN reconciler_jobs")
    return conn


def heard(conn: Connection) -> list[str]:
    """Return the queues that were told of, in order."""
    return [note.payload for note in conn.notifies(timeout=0.3)]


def test_workers_are_told_of_what_is_due(site: Site, conn: Connection) -> None:
    """Once for each queue of a call, at its commit; not of what is due later, or there already."""
    ears = listen(site)
    with conn.transaction():
        one(conn, "SELECT reconciler.enqueue('a', queue => 'mail')")
        assert heard(ears) == []
    assert heard(ears) == ["mail"]
    one(conn, "SELECT reconciler.enqueue('a', run_at => clock_timestamp() + '1 hour')")
    one(conn, "SELECT reconciler.enqueue('a', unique_key => 'k')")
    assert heard(ears) == ["default"]
    one(conn, "SELECT reconciler.enqueue('a', unique_key => 'k')")
    assert heard(ears) == []
    put_many(
        conn,
        [{"handler": "a", "queue": name} for name in ("x", "y", "x")]
        + [{"handler": "a", "queue": "z", "run_at": "2099-01-01Z"}],
    )
    assert sorted(heard(ears)) == ["x", "y"]


def test_workers_are_told_of_what_begins_anew(site: Site, conn: Connection) -> None:
    """By one or by all."""
    jobs = [one(conn, "SELECT reconciler.enqueue('a')") for _ in range(2)]
    for _ in jobs:
        fail(conn, claim_one(conn), final=True)
    ears = listen(site)
    one(conn, "SELECT reconciler.retry_job(%s)", jobs[0])
    assert heard(ears) == ["default"]
    one(conn, "SELECT reconciler.retry_jobs('default', to_queue => 'other')")
    assert heard(ears) == ["other"]


def beside(site: Site, statement: LiteralString, *values: object) -> tuple[threading.Thread, list[Any]]:
    """Execute a statement over a connection of its own; its rows or its error come to the list."""
    found: list[Any] = []
    conn = site.database.connect()

    def work() -> None:
        try:
            found.extend(conn.execute(statement, values).fetchall())
        except psycopg.Error as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def wait_for_waiting(site: Site) -> None:
    """Wait until somebody waits for a row."""
    wait_until(
        lambda: site.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)],
        seconds=10,
        what="it waits",
    )


@pytest.mark.parametrize(
    ("status", "first", "second", "answer"),
    [
        ("failed", "retry_job", "retry_job", "pending"),
        ("pending", "cancel_job", "cancel_job", "cancelled"),
        ("cancelled", "retry_job", "retry_job", "pending"),
    ],
)
def test_who_comes_second_gets_an_answer(
    site: Site, conn: Connection, status: str, first: LiteralString, second: LiteralString, answer: str
) -> None:
    """A row that moved to the other part of the table while somebody waited for it is no error."""
    job = one(conn, "SELECT reconciler.enqueue('a')")
    if status == "failed":
        fail(conn, claim_one(conn), final=True)
    elif status == "cancelled":
        one(conn, "SELECT reconciler.cancel_job(%s)", job)
    with conn.transaction():
        one(conn, "SELECT reconciler." + first + "(%s)", job)
        thread, found = beside(site, "SELECT reconciler." + second + "(%s)", job)
        wait_for_waiting(site)
    thread.join(10)
    assert found == [(answer,)]
    assert look(conn, job)["status"] == answer


def test_a_job_that_fails_while_it_is_cancelled_is_cancelled(site: Site, conn: Connection) -> None:
    """Whoever wanted to cancel it gets what was wanted: dead, it is dismissed."""
    job = one(conn, "SELECT reconciler.enqueue('a')")
    claimed = claim_one(conn)
    with conn.transaction():
        fail(conn, claimed, final=True)
        thread, found = beside(site, "SELECT reconciler.cancel_job(%s)", job)
        wait_for_waiting(site)
    thread.join(10)
    assert found == [("cancelled",)]


def test_a_dead_job_is_dismissed(conn: Connection) -> None:
    """Cancelled, a dead job is taken up by no worker for failed jobs, and still says why it died."""
    job = one(conn, "SELECT reconciler.enqueue('a')")
    fail(conn, claim_one(conn), error="boom", final=True)
    assert one(conn, "SELECT reconciler.cancel_job(%s)", job) == "cancelled"
    assert (
        one(conn, "SELECT count(*) FROM reconciler.claim_jobs('default', 'w', 10, status => 'failed')") == 0
    )
    assert (look(conn, job)["status"], look(conn, job)["last_error"]) == ("cancelled", "boom")


def test_a_finished_job_is_read_with_everything(conn: Connection) -> None:
    """And one that is not there is a row of nulls."""
    job = one(conn, "SELECT reconciler.enqueue('a', '{\"n\": 1}')")
    complete(conn, [claim_one(conn)], [{"sent": True}])
    row = conn.execute(
        "SELECT id, status, payload, result, attempts, completed_at IS NOT NULL FROM reconciler.get_job(%s)",
        [job],
    ).fetchall()
    assert row == [(job, "completed", {"n": 1}, {"sent": True}, 1, True)]
    assert conn.execute("SELECT id, status FROM reconciler.get_job(99)").fetchall() == [(None, None)]


def test_a_cancelled_job_says_who_did_it(site: Site, conn: Connection) -> None:
    """And when; one-time work of a run is for that run's command."""
    site.run("SELECT reconciler.allow_enqueue('alice')")
    job = one(conn, "SELECT reconciler.enqueue('a')")
    alice = site.database.connect("alice")
    assert one(alice, "SELECT reconciler.cancel_job(%s)", job) == "cancelled"
    row = look(conn, job)
    assert row["last_error"] == "cancelled by alice before it began"
    assert row["completed_at"] is not None
    site.run(
        "INSERT INTO reconciler.jobs (id, once, job_name, status, started_at)"
        " VALUES (100, true, 'tidy', 'running', now())"
    )
    error = fails(conn, "55000", "SELECT reconciler.cancel_job(100)")
    assert error.diag.message_hint == (
        "Cancel that run: reconciler runs tidy shows its number, reconciler cancel takes it."
    )
