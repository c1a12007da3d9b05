"""Observe a target: one repeatable-read, read-only snapshot, and a fixed number of queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.rows import dict_row

from reconciler.core.facts import Facts, Rights
from reconciler.core.identity import Identity, Place
from reconciler.core.preflight import Danger
from reconciler.core.state import Definition, Entry, ObservedState, Pause, QueueLoad, RowDrift, Running
from reconciler.errors import PgCronMissingError, RightsError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was observed.

    Attributes:
        state: What the target holds.
        dangers: Entries that endanger themselves or all others.
    """

    state: ObservedState
    dangers: tuple[Danger, ...]


def observe(conn: psycopg.Connection, zones: Collection[str] = ()) -> Observation:
    """Observe a target in one read-only snapshot.

    Args:
        conn: In autocommit mode, outside of a transaction.
        zones: Whose clocks are wanted; those of pg_cron's zone always are.

    Returns:
        Everything that a plan is made of.

    Raises:
        RightsError: The schema reconciler is there, but the role may not read it.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return observe_within(conn, zones)


def observe_facts(conn: psycopg.Connection) -> Facts:
    """Observe the server alone: versions, settings and rights, whatever the number of jobs.

    Args:
        conn: To the target.

    Returns:
        The facts, without migrations.

    Raises:
        RightsError: The schema reconciler is there, but the role may not read it.
    """
    row = _fetch_facts(conn)
    _require_readable(row)
    return _make_facts(row)


def observe_within(conn: psycopg.Connection, zones: Collection[str] = ()) -> Observation:
    """Observe a target inside the caller's transaction, so that its own changes are seen.

    Args:
        conn: In a repeatable-read transaction.
        zones: Whose clocks are wanted; those of pg_cron's zone always are.

    Returns:
        Everything that a plan is made of.

    Raises:
        RightsError: The schema reconciler is there, but the role may not read it.
    """
    queries = load_queries("observe")
    row = _fetch_facts(conn)
    facts = _make_facts(row)
    _require_readable(row)
    names = ["ask_zones", "probe_zones", "observe_clocks"]
    if row["has_definitions"]:
        names += [
            "observe_migrations",
            "observe_definitions",
            "observe_drifted_rows",
            "observe_settled_jobs",
        ]
    if row["has_policies"]:  # not yet after an apply of an earlier release
        names += ["observe_drifted_policies", "observe_pauses"]
    if row["has_timings"]:
        names += ["observe_drifted_timings", "observe_queues"]
    if row["has_identity"]:
        names.append("observe_identity")
    if row["sees_runs"]:
        names.append("observe_running")
    if row["sees_secrets"]:
        names.append("observe_secrets")
    if facts.extension and facts.rights.use_cron:
        names += ["observe_entries", "observe_dangers"]
    arguments: dict[str, dict[str, Any]] = {
        "observe_drifted_policies": {"zone": facts.known_timezone},
        "ask_zones": {"zones": sorted({facts.timezone, *zones} - {""})},
    }
    results = _fetch_all(conn, [(name, queries[name], arguments.get(name)) for name in names])
    facts = replace(
        facts,
        migrations=dict(results.get("observe_migrations", ())),
        identity=next(map(make_identity, results.get("observe_identity", ())), None),
    )
    state = ObservedState(
        facts=facts,
        definitions={row[0]: _make_definition(row) for row in results.get("observe_definitions", ())},
        entries={row[0]: _make_entry(row) for row in results.get("observe_entries", ())},
        drifted_rows=_make_drifts(
            row
            for name in ("observe_drifted_rows", "observe_drifted_policies", "observe_drifted_timings")
            for row in results.get(name, ())
        ),
        pauses={
            name: Pause(until=until, reason=reason, paused_by=paused_by)
            for name, until, reason, paused_by in results.get("observe_pauses", ())
        },
        secrets=_make_secrets(row, results),
        settled=frozenset(name for (name,) in results.get("observe_settled_jobs", ())),
        running=_make_running(results.get("observe_running", ())),
        now=row["now"],
        clocks=_make_clocks(results["observe_clocks"]),
        queues={
            name: QueueLoad(waiting=waiting, running=running, failed=failed)
            for name, waiting, running, failed in results.get("observe_queues", ())
        },
    )
    dangers = tuple(
        Danger(code=code, jobid=jobid, name=name, detail=detail)
        for code, jobid, name, detail in results.get("observe_dangers", ())
    )
    return Observation(state=state, dangers=dangers)


def require_pg_cron(facts: Facts) -> None:
    """Refuse a database without pg_cron, and say how to get it.

    Args:
        facts: Of the target.

    Raises:
        PgCronMissingError: The extension is not in this database.
    """
    if facts.extension:
        return
    home = facts.settings.get("database_name")
    if home and home != facts.database:
        remedy = f"the server keeps it in the database {home} (cron.database_name): point the dsn there"
    elif facts.extension_default:
        remedy = (
            "as an administrator: CREATE EXTENSION pg_cron; the server needs pg_cron in "
            "shared_preload_libraries, and cron.database_name must name this database"
        )
    else:
        remedy = (
            f"install the package postgresql-{facts.server_version // 10000}-cron (or switch pg_cron on in "
            "your provider's settings), add it to shared_preload_libraries, restart the server, and "
            "CREATE EXTENSION pg_cron"
        )
    raise PgCronMissingError(f"pg_cron is not in the database {facts.database}", remedy=remedy)


def _fetch_facts(conn: psycopg.Connection) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(load_queries("observe")["observe_facts"]).fetchone()
    assert row is not None  # noqa: S101 - it selects from one row of pg_roles
    return row


def _require_readable(row: dict[str, Any]) -> None:
    if row["has_definitions"] and not row["read_definitions"]:
        raise RightsError(
            f"the role {row['role']} may not read the schema reconciler of {row['database']}",
            remedy="as its owner: GRANT USAGE ON SCHEMA reconciler, and SELECT ON ALL TABLES IN SCHEMA "
            f'reconciler, TO "{row["role"]}"',
        )


def _fetch_all(
    conn: psycopg.Connection, queries: list[tuple[str, LiteralString, dict[str, Any] | None]]
) -> dict[str, list[tuple[Any, ...]]]:
    """Send all queries in one round trip."""
    with conn.pipeline() as pipeline:
        cursors = [(name, conn.execute(query, arguments, binary=True)) for name, query, arguments in queries]
        pipeline.sync()
        return {name: cursor.fetchall() if cursor.description else [] for name, cursor in cursors}


def _make_secrets(row: dict[str, Any], results: dict[str, list[tuple[Any, ...]]]) -> frozenset[str] | None:
    """Name the secrets that the target has; None where the role cannot see that."""
    if row["has_policies"] and not row["sees_secrets"]:
        return None
    return frozenset(name for (name,) in results.get("observe_secrets", ()))


def _make_facts(row: dict[str, Any]) -> Facts:
    return Facts(
        server_version=row["server_version"],
        database=row["database"],
        role=row["role"],
        in_recovery=row["in_recovery"],
        extension=row["extension"],
        extension_default=row["extension_default"],
        extensions=frozenset(row["extensions"]),
        settings=row["settings"],
        launcher_running=row["launcher_running"],
        launcher_age=row["launcher_age"],
        preloaded=row["preloaded"],
        rights=Rights(
            superuser=row["superuser"],
            sees_all=row["sees_all"],
            use_cron=row["use_cron"],
            schedule=row["schedule"],
            schedule_in_database=row["schedule_in_database"],
            alter_job=row["alter_job"],
            update_entries=row["update_entries"],
            create_schema=row["create_schema"],
            write_definitions=row["write_definitions"],
        ),
    )


def make_identity(row: tuple[Any, ...]) -> Identity:
    """Make an identity of a row of the query `observe_identity`."""
    state, targets, recorded_at, recorded_by, *places = row
    columns = ("system_identifier", "database", "database_oid", "server_major")
    recorded, here = (Place(**dict(zip(columns, part, strict=True))) for part in (places[:4], places[4:]))
    return Identity(
        state=state,
        recorded=recorded,
        here=here,
        recorded_at=recorded_at,
        recorded_by=recorded_by,
        targets=targets,
    )


def _make_definition(row: tuple[Any, ...]) -> Definition:
    (
        name,
        kind,
        owner,
        document,
        intact,
        jobid,
        schedule,
        command,
        database,
        username,
        active,
        protect,
        source,
        retired_until,
    ) = row
    entry = None
    if jobid is not None:
        entry = Entry(
            name=name,
            schedule=schedule,
            command=command,
            database=database,
            username=username,
            active=active,
            jobid=jobid,
        )
    return Definition(
        name=name,
        kind=kind,
        owner=owner,
        document=document,
        intact=intact,
        entry=entry,
        protect=protect,
        source=source,
        retired_until=retired_until,
    )


def _make_entry(row: tuple[Any, ...]) -> Entry:
    jobid, name, schedule, command, database, username, active = row
    return Entry(
        name=name or "",
        schedule=schedule,
        command=command,
        database=database,
        username=username,
        active=active,
        jobid=jobid,
    )


def _make_drifts(rows: Iterable[tuple[Any, ...]]) -> dict[str, RowDrift]:
    """Put together what is wrong with the rows of each resource; one may have several."""
    drifts: dict[str, RowDrift] = {}
    for name, observed, applied in rows:
        # A row that nobody declared is to be nothing.
        wanted = dict.fromkeys(observed) if applied is None else applied
        found = None if observed is None else {key: observed[key] for key in wanted}
        other = drifts.get(name)
        if other is not None:
            wanted = {**other.applied, **wanted}
            found = {**(other.observed or {}), **(found or {})}
        drifts[name] = RowDrift(name=name, observed=found, applied=wanted)
    return drifts


def _make_running(rows: Iterable[tuple[Any, ...]]) -> dict[str, tuple[Running, ...]]:
    running: dict[str, tuple[Running, ...]] = {}
    for name, run_id, run_at in rows:
        running[name] = (*running.get(name, ()), Running(run_id=run_id, run_at=run_at))
    return running


def _make_clocks(rows: Iterable[tuple[str, datetime, int]]) -> Mapping[str, tuple[tuple[datetime, int], ...]]:
    clocks: dict[str, list[tuple[datetime, int]]] = {}
    for zone, since, ahead in rows:
        clocks.setdefault(zone, []).append((since.astimezone(UTC), ahead))
    return {zone: tuple(changes) for zone, changes in clocks.items()}
