"""Read jobs a page at a time: searched, filtered and counted by the server, in one query for any number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import class_row, dict_row

from .queries import join_queries, load_queries
from .status import JobStatus, State, refuse_older_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

_ALL: Final = ("list_all", "follow_direct", "judge_jobs", "find_page")
_FEW: Final = ("follow_direct", "fare_page")
_MOST_DIGITS: Final = 18
"""Of a bigint, so that each number of so many digits is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob(JobStatus):
    """A job, a worker, or an entry of cron.job that nobody declared: its kind is `entry`, its owner "".

    Attributes:
        jobid: pg_cron's number of its entry, as last applied; None where it has none.
        source: Where it was declared; "" for what nobody declared.
        description: What it is for.
        labels: As declared.
    """

    jobid: int | None
    source: str
    description: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeclaration:
    """What is declared of a job, and its entry beside what a page tells.

    Attributes:
        document: Canonical JSON of what was declared; None for what nobody declared.
        digest: Of the document as it was applied; None likewise.
        protect: Whether it is safe from deletion.
        mode: managed or direct.
        command: Of the entry; None where there is none, or it cannot be seen.
        database: Where the entry's command is sent.
        username: As whom.
        home: The database in which we are.
        caller: As whom we are there.
    """

    document: str | None
    digest: str | None
    protect: bool
    mode: str
    command: str | None
    database: str | None
    username: str | None
    home: str
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A part of a list of jobs.

    Attributes:
        jobs: Sorted by name, letter by letter as their codes are.
        next: What to give as `after` for the next page; None on the last one.
        total: How many jobs fit the search, on all pages.
        counts: How many jobs there are in each state, whatever is searched for; no state without any.
        is_hiding: Whether row-level security may hide entries of other roles: then the list lacks those that
            nobody declared.
    """

    jobs: tuple[ListedJob, ...]
    next: tuple[str, int] | None
    total: int
    counts: Mapping[State, int]
    is_hiding: bool


def read_job_page(
    conn: psycopg.Connection,
    *,
    zone: str,
    query: str | None = None,
    owner: str | None = None,
    kind: str | None = None,
    state: State | None = None,
    after: tuple[str, int] | None = None,
    limit: int = 50,
    own: bool = False,
) -> JobPage:
    """Read a page of jobs, workers and entries that nobody declared.

    Args:
        conn: To a target with the schema of this release.
        zone: In which pg_cron reads schedules there.
        query: What name, description, owner, or a label as `key=value` has to hold, in any case; None or ""
            for all.
        owner: Whose; "" for what nobody declared, None for all.
        kind: job, worker or entry; None for all.
        state: How they fare, as `JobStatus.state` says; None for all.
        after: `JobPage.next` of the page before; None for the first one.
        limit: Jobs at the most.
        own: Whether the tool's own entries are among them.

    Returns:
        The page; an empty one where nothing fits.

    Raises:
        MigrationError: The schema is of an earlier release, or there is none.
    """
    values = {
        "zone": zone,
        "query": query or None,
        "owner": owner,
        "kind": kind,
        "state": state,
        "after_name": None if after is None else after[0],
        "after_number": None if after is None else after[1],
        "limit": limit + 1,
        "own": own,
    }
    return _make_page(_read(conn, _ALL, values), limit)


def read_named_page(
    conn: psycopg.Connection,
    *,
    zone: str,
    owner: str | None = None,
    kind: str | None = None,
    after: tuple[str, int] | None = None,
    limit: int = 50,
    own: bool = False,
) -> JobPage:
    """Read a page as `read_job_page` does, but without a look at the jobs that are not on it.

    Args:
        conn: As there.
        zone: As there.
        owner: As there.
        kind: As there.
        after: As there.
        limit: As there.
        own: As there.

    Returns:
        The page, whose total and counts are nothing: `count_jobs` knows them.

    Raises:
        MigrationError: As there.
    """
    values = {
        "zone": zone,
        "owner": owner,
        "kind": kind,
        "after_name": None if after is None else after[0],
        "after_number": None if after is None else after[1],
        "limit": limit + 1,
        "own": own,
    }
    return _make_page(_read(conn, ("find_named_page", *_FEW), values), limit)


def count_jobs(
    conn: psycopg.Connection,
    *,
    query: str | None = None,
    owner: str | None = None,
    kind: str | None = None,
    state: State | None = None,
    own: bool = False,
) -> tuple[int, Mapping[State, int]]:
    """Count jobs; every one of them is looked at.

    Args:
        conn: As for `read_job_page`.
        query: As there.
        owner: As there.
        kind: As there.
        state: As there.
        own: As there.

    Returns:
        How many fit, and how many of all are in each state.

    Raises:
        MigrationError: As there.
    """
    values = {
        "query": query or None,
        "owner": owner,
        "kind": kind,
        "state": state,
        "after_name": None,
        "after_number": None,
        "limit": 0,
        "own": own,
    }
    query = join_queries("job_pages", *_ALL, "count_page")
    with refuse_older_schema(), conn.transaction():
        conn.execute(load_queries("job_pages")["disable_jit"])
        row = conn.execute(query, values).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row[0], row[1] or {}


def _make_page(rows: list[_Row], limit: int) -> JobPage:
    # Where nothing fits there is one row without a job.
    jobs = tuple(row.job for row in rows[:limit] if row.job is not None)
    following = (jobs[-1].name, rows[limit - 1].number) if len(rows) > limit else None
    head = rows[0]
    return JobPage(
        jobs=jobs, next=following, total=head.total, counts=head.counts or {}, is_hiding=head.is_hiding
    )


def find_job(conn: psycopg.Connection, name: str, *, zone: str) -> ListedJob | None:
    """Find one job, worker or entry that nobody declared.

    Args:
        conn: To a target with the schema of this release.
        name: Its name, or pg_cron's number of its entry; a name wins, and what is declared over what is not.
        zone: In which pg_cron reads schedules there.

    Returns:
        The job; None where there is none, or where row-level security hides it.

    Raises:
        MigrationError: The schema is of an earlier release, or there is none.
    """
    is_number = name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS
    values = {"name": name, "jobid": int(name) if is_number else None, "zone": zone}
    found = _read(conn, ("find_declared", *_FEW), {"name": name, "zone": zone})[0].job
    return found or _read(conn, ("find_job", *_FEW), values)[0].job


def read_declaration(conn: psycopg.Connection, job: ListedJob) -> JobDeclaration:
    """Read what is declared of a job, and its entry.

    Args:
        conn: To a target with the schema of this release.
        job: As it was found.

    Returns:
        Without a document where nobody declared it.
    """
    values = {"name": None if job.kind == "entry" else job.name, "jobid": job.jobid}
    with conn.cursor(row_factory=class_row(JobDeclaration)) as cursor:
        row = cursor.execute(load_queries("job_pages")["read_declaration"], values, prepare=True).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row


def list_job_names(conn: psycopg.Connection) -> list[str]:
    """List the names of all jobs, workers and entries but the tool's own.

    Args:
        conn: To a target with the schema reconciler.
    """
    return [name for (name,) in conn.execute(load_queries("job_pages")["list_names"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    total: int
    counts: Mapping[State, int] | None
    is_hiding: bool
    number: int
    job: ListedJob | None


def _read(conn: psycopg.Connection, parts: tuple[str, ...], values: Mapping[str, object]) -> list[_Row]:
    """Read jobs by a query whose parts say which; its plan is kept where the connection allows that."""
    query = join_queries("job_pages", *parts, "describe_page", "show_page")
    is_large = parts is _ALL
    with refuse_older_schema(), conn.cursor(row_factory=dict_row, binary=True) as cursor:
        if not is_large:
            return [_make_row(row) for row in cursor.execute(query, values, prepare=True)]
        with conn.transaction():
            conn.execute(load_queries("job_pages")["disable_jit"])
            return [_make_row(row) for row in cursor.execute(query, values)]


def _make_row(row: dict[str, Any]) -> _Row:
    head = {key: row.pop(key) for key in ("total", "counts", "is_hiding", "number")}
    return _Row(**head, job=None if row["name"] is None else ListedJob(**row))
