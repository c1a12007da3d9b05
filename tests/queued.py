"""Queue jobs, claim them as programs and workers do, look at what they left, and let time pass for them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - psycopg's class_row looks at the types
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import psycopg

    from tests.declared import Site

ENQUEUE: LiteralString = """
SELECT reconciler.enqueue(
    %(handler)s, payload => %(payload)s, queue => %(queue)s, priority => %(priority)s,
    run_at => clock_timestamp() + make_interval(secs => %(after)s),
    unique_key => %(unique_key)s, ordering_key => %(ordering_key)s,
    max_attempts => %(max_attempts)s, timeout => make_interval(secs => %(timeout)s))
"""
FILL: LiteralString = """
INSERT INTO reconciler.jobs (handler, queue, ordering_key, priority, run_at, payload)
SELECT 'work.do', %(queue)s, %(key)s, n %% %(priorities)s,
       clock_timestamp() + make_interval(secs => %(after)s - n / 1000.0 * (%(key)s::text IS NULL)::int),
       jsonb_build_object('n', n)
  FROM generate_series(1, %(count)s) AS n
"""
PASS_TIME: tuple[LiteralString, ...] = (
    """
UPDATE reconciler.jobs_open
   SET run_at = run_at - %(by)s, created_at = created_at - %(by)s, started_at = started_at - %(by)s,
       lease_until = lease_until - %(by)s
""",
    """
UPDATE reconciler.jobs_finished
   SET run_at = run_at - %(by)s, created_at = created_at - %(by)s, started_at = started_at - %(by)s,
       completed_at = completed_at - %(by)s
""",
    """
UPDATE reconciler.queue_states
   SET started = ARRAY(SELECT one - %(by)s FROM unnest(started) WITH ORDINALITY AS s (one, n) ORDER BY n)
""",
    "UPDATE reconciler.pull_workers SET seen_at = seen_at - %(by)s, started_at = started_at - %(by)s",
)
CLAIM: LiteralString = """
SELECT * FROM reconciler.claim_jobs(
    %(queue)s, %(worker)s, %(max)s, %(priorities)s, %(sinces)s, %(status)s, %(since_ids)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A queued job as a claim hands it out; times are the server's, durations seconds."""

    id: int
    token: int
    handler: str
    payload: Any
    attempt: int
    max_attempts: int
    priority: int
    run_at: datetime
    timeout: float
    lease: float
    type: str
    job_name: str | None
    ordering_key: str | None
    unique_key: str | None
    queue: str
    created_at: datetime


def connect(site: Site) -> psycopg.Connection:
    """Connect as superuser, autocommit; who waits for a lock fails after some seconds."""
    conn = site.database.connect()
    conn.execute("SET lock_timeout = '8s'")
    return conn


def enqueue(
    conn: psycopg.Connection, queue: str = "default", *, payload: object = None, **options: Any
) -> int:
    """Queue one job.

    Args:
        conn: Whose transaction it belongs to.
        queue: Where to.
        payload: What JSON holds; an empty object if it is None.
        **options: Further arguments of reconciler.enqueue, but `after`, in seconds, for `run_at`, and seconds
            for `timeout`.

    Returns:
        Its id.
    """
    values = {
        "handler": "work.do",
        "queue": queue,
        "payload": Jsonb({} if payload is None else payload),
        "after": None,
        "priority": 0,
        "unique_key": None,
        "ordering_key": None,
        "max_attempts": None,
        "timeout": None,
    }
    assert options.keys() <= values.keys()
    row = conn.execute(ENQUEUE, {**values, **options}).fetchone()
    assert row is not None
    return int(row[0])


def fill(
    conn: psycopg.Connection,
    count: int,
    queue: str = "default",
    *,
    key: str | None = None,
    after: float = 0,
    priorities: int = 1,
) -> None:
    """Put many jobs on a queue by one statement; they are due one millisecond apart, the last one first.

    With a key all are due at once.
    """
    conn.execute(FILL, {"count": count, "queue": queue, "key": key, "after": after, "priorities": priorities})


def claim(
    conn: psycopg.Connection,
    queue: str = "default",
    limit: int = 10,
    *,
    worker: str = "w",
    since: dict[int, datetime] | None = None,
    since_id: dict[int, int] | None = None,
    status: str = "pending",
) -> list[Claimed]:
    """Claim jobs, and return them in their order.

    Args:
        conn: The worker's.
        queue: Where from.
        limit: How many at the most.
        worker: Who claims.
        since: For a priority, the run_at before which nothing is looked at.
        since_id: For such a priority, the id before which nothing of that very run_at is looked at.
        status: What to claim.
    """
    marks = since or {}
    with conn.cursor(row_factory=class_row(Claimed)) as cursor:
        cursor.execute(
            CLAIM,
            {
                "queue": queue,
                "worker": worker,
                "max": limit,
                "priorities": list(marks),
                "sinces": list(marks.values()),
                "since_ids": [(since_id or {}).get(priority, 0) for priority in marks],
                "status": status,
            },
        )
        return sorted(cursor.fetchall(), key=lambda one: (-one.priority, one.run_at, one.id))


def claim_one(conn: psycopg.Connection, queue: str = "default", **options: Any) -> Claimed:
    """Claim the next job, which there must be."""
    claimed = claim(conn, queue, 1, **options)
    assert len(claimed) == 1
    return claimed[0]


def complete(
    conn: psycopg.Connection, jobs: Iterable[Claimed], results: Sequence[object] | None = None
) -> list[int]:
    """Complete jobs; return the ids of those that were the caller's still."""
    batch = list(jobs)
    rows = conn.execute(
        "SELECT reconciler.complete_jobs(%s::bigint[], %s::bigint[], %s::jsonb[])",
        [
            [one.id for one in batch],
            [one.token for one in batch],
            None if results is None else [Jsonb(one) for one in results],
        ],
    )
    return sorted(int(row[0]) for row in rows)


def fail(
    conn: psycopg.Connection,
    job: Claimed,
    error: str = "no",
    *,
    retry_in: float | None = None,
    final: bool = False,
) -> str | None:
    """Fail a job; return what it is now, None if it was not the caller's any more."""
    row = conn.execute(
        "SELECT reconciler.fail_job(%s, %s, %s, make_interval(secs => %s), %s)",
        [job.id, job.token, error, retry_in, final],
    ).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def snooze(conn: psycopg.Connection, job: Claimed, delay: float = 60) -> bool:
    """Put a job off by seconds; return whether it was the caller's still."""
    row = conn.execute(
        "SELECT reconciler.snooze_job(%s, %s, make_interval(secs => %s))", [job.id, job.token, delay]
    ).fetchone()
    return row == (True,)


def give_back(conn: psycopg.Connection, *jobs: Claimed) -> list[int]:
    """Give jobs back untouched; return the ids of those that were the caller's still."""
    rows = conn.execute(
        "SELECT reconciler.return_jobs(%s::bigint[], %s::bigint[])",
        [[one.id for one in jobs], [one.token for one in jobs]],
    )
    return sorted(int(row[0]) for row in rows)


def end_cancelled(conn: psycopg.Connection, job: Claimed, reason: str = "asked to") -> bool:
    """End a running job as cancelled; return whether it was the caller's still."""
    row = conn.execute(
        "SELECT reconciler.end_cancelled_job(%s, %s, %s)", [job.id, job.token, reason]
    ).fetchone()
    return row == (True,)


def renew(conn: psycopg.Connection, *jobs: Claimed, worker: str = "w") -> dict[int, str | None]:
    """Renew leases; return the ids that are the worker's still, each with who cancelled it."""
    rows = conn.execute(
        "SELECT id, cancelled_by FROM reconciler.renew_leases(%s, %s::bigint[], %s::bigint[])",
        [worker, [one.id for one in jobs], [one.token for one in jobs]],
    )
    return dict(rows.fetchall())


def rescue(conn: psycopg.Connection, limit: int = 100) -> int:
    """Take back jobs whose lease is over; return how many."""
    row = conn.execute("SELECT reconciler.rescue_jobs(%s)", [limit]).fetchone()
    assert row is not None
    return int(row[0])


def cancel(conn: psycopg.Connection, job: int) -> str | None:
    """Cancel a job by its id."""
    row = conn.execute("SELECT reconciler.cancel_job(%s)", [job]).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def retry(conn: psycopg.Connection, job: int) -> str | None:
    """Try a finished job again, by its id."""
    row = conn.execute("SELECT reconciler.retry_job(%s)", [job]).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def pass_time(conn: psycopg.Connection, seconds: float) -> None:
    """Let time pass for all queued jobs: everything that is noted about them is that much longer ago."""
    row = conn.execute("SELECT make_interval(secs => %s)", [seconds]).fetchone()
    assert row is not None
    with conn.transaction():
        for statement in PASS_TIME:
            conn.execute(statement, {"by": row[0]})


def look(conn: psycopg.Connection, job: int) -> dict[str, Any]:
    """Return the row of a job."""
    row = conn.execute("SELECT to_jsonb(j) FROM reconciler.jobs j WHERE id = %s", [job]).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def statuses(site: Site, queue: str = "default") -> dict[str, int]:
    """Return how many jobs of a queue there are of each status."""
    return dict(
        site.rows("SELECT status, count(*) FROM reconciler.jobs WHERE queue = %s GROUP BY status", queue)
    )


def wait_for_statuses(site: Site, queue: str, *, seconds: float = 20, **expected: int) -> None:
    """Wait until the jobs of a queue have these statuses, and no other ones."""
    give_up_at = time.monotonic() + seconds
    while (found := statuses(site, queue)) != expected:
        assert time.monotonic() < give_up_at, f"queue {queue} has {found} in place of {expected}"
        time.sleep(0.02)


@dataclass
class Gauge:
    """How many are inside at once: at most, by key, and in which order they came in."""

    inside: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    order: dict[str, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, key: str, *ids: int) -> None:
        """Note the beginning of jobs; after their claim is committed."""
        with self.lock:
            self.inside[key] = self.inside.get(key, 0) + len(ids)
            self.most[key] = max(self.most.get(key, 0), self.inside[key])
            self.order.setdefault(key, []).extend(ids)

    def leave(self, key: str, count: int = 1) -> None:
        """Note the end of jobs; before it is written."""
        with self.lock:
            self.inside[key] -= count


def together(site: Site, count: int, work: Callable[[psycopg.Connection, int], None]) -> None:
    """Do something over many connections at once: each in a thread of its own, all from the same moment.

    Args:
        site: Where.
        count: How many connections.
        work: Gets a connection and its number from 0. The first error of any is raised.
    """
    connections = [connect(site) for _ in range(count)]
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(20)
        work(connections[number], number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))
