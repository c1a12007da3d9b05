"""Build specs as the loader makes them, and plan and apply them on a test database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

from reconciler.core.canonical import render_canonical
from reconciler.core.config import Policy, Target
from reconciler.core.durations import parse_duration
from reconciler.core.specs import (
    Body,
    ChannelSpec,
    HandlerBody,
    HttpBody,
    JobSpec,
    Once,
    Place,
    QueueSpec,
    Schedule,
    Spec,
    SqlBody,
    Succeeded,
    WorkerSpec,
    needs_runtime,
)
from reconciler.database.apply import Applied, Planned, apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.statements import Request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from reconciler.core.config import Prune, Runtime
    from reconciler.core.plan import Fingerprints
    from tests.servers import Database

OWNER = "shop"
NEVER = "0 0 29 2 *"
"""A schedule that does not come while a test runs."""
LATER = datetime(2099, 1, 2, 3, 4, tzinfo=UTC)
PLACE = Place(path="jobs.d/shop.yaml", line=3, column=3)


def job(name: str, sql: str = "SELECT 1", *, schedule: str = NEVER, **fields: Any) -> JobSpec:
    """Declare a recurring job; `sql` gives way to a `handler` or `http` among the fields.

    Args:
        name: Of the job.
        sql: Its body.
        schedule: In pg_cron's grammar.
        **fields: As they stand below the job in a spec file.
    """
    declared = {
        "schedule": schedule,
        **({} if fields.keys() & {"handler", "http"} else {"sql": sql}),
        **fields,
    }
    return _job(name, Schedule(text=schedule), declared)


def after(name: str, *others: str, **fields: Any) -> JobSpec:
    """Declare a job whose only trigger is that others have succeeded."""
    declared = {
        **({} if fields.keys() & {"handler", "http"} else {"sql": "SELECT 1"}),
        **fields,
        "after": sorted(others),
    }
    return _job(name, Succeeded(), declared)


def once(name: str, at: datetime = LATER, **fields: Any) -> JobSpec:
    """Declare a one-time job; its handler is `work.do` unless the fields name another body."""
    body = {} if fields.keys() & {"sql", "http"} else {"handler": "work.do"}
    declared = {**body, **fields, "once": at.isoformat().replace("+00:00", "Z")}
    return _job(name, Once(at=at), declared)


def queue(name: str, **fields: Any) -> QueueSpec:
    """Declare a queue."""
    return QueueSpec(
        name=name,
        place=PLACE,
        document=render_canonical(fields),
        protect=fields.get("protect", False),
        renamed_from=fields.get("renamed_from", ""),
    )


def worker(name: str, **fields: Any) -> WorkerSpec:
    """Declare a push worker."""
    declared = {"schedule": NEVER, "url": "https://app.test/run", **fields}
    return WorkerSpec(
        name=name,
        place=PLACE,
        document=render_canonical(declared),
        schedule=declared["schedule"],
        queue=declared.get("queue", "default"),
        timeout=parse_duration(declared.get("timeout", "30s")),
        secret=declared.get("token", {"secret": ""})["secret"],
        role=declared.get("role", ""),
        active=declared.get("active", True),
        protect=declared.get("protect", False),
        renamed_from=declared.get("renamed_from", ""),
    )


def channel(name: str, **fields: Any) -> ChannelSpec:
    """Declare a channel."""
    declared = {"url": {"secret": name}, **fields}
    return ChannelSpec(
        name=name,
        place=PLACE,
        document=render_canonical(declared),
        secret=declared["url"]["secret"],
        deliver=declared.get("deliver", "process"),
    )


def request(
    *specs: Spec,
    owner: str = OWNER,
    prune: Prune = "never",
    adopt: Collection[str] = (),
    role: str = "",
    runtime: Runtime | None = None,
    **policy: Any,
) -> Request:
    """Make a request for a target named `test`; further arguments are the policy's."""
    return Request(
        specs=specs,
        owner=owner,
        target=Target(name="test", role=role, policy=Policy(prune=prune, **policy), runtime=runtime),
        adopt=adopt,
        actor="anna",
        commit="c0ffee",
    )


@dataclass(frozen=True, slots=True)
class Site:
    """A test database as one role sees it; errors come out as ours, as on the command line.

    Attributes:
        database: The test's.
        user: Who connects; None for the superuser.
    """

    database: Database
    user: str | None = None

    @property
    def dsn(self) -> str:
        """Return the connection string of the role."""
        return self.database.dsn if self.user is None else self.database.dsn_for(self.user)

    def plan(self, *specs: Spec, **options: Any) -> Planned:
        """Plan what is declared; options are those of `request`."""
        with connect(self.dsn) as conn:
            return plan_target(conn, request(*specs, **options))

    def apply(
        self,
        *specs: Spec,
        expected: Fingerprints | None = None,
        allow_deletes: int | str | None = None,
        **options: Any,
    ) -> Applied:
        """Apply what is declared; options are those of `request`."""
        with connect(self.dsn) as conn:
            return apply_target(
                conn, request(*specs, **options), expected=expected, allow_deletes=allow_deletes
            )

    def changes(self, *specs: Spec, **options: Any) -> list[tuple[str, str, str]]:
        """Plan, and return action, name and reason of each change."""
        return [
            (change.action, change.name, change.reason)
            for change in self.plan(*specs, **options).plan.changes
        ]

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a query as superuser, whoever this site connects as, and return all rows."""
        with self.database.session() as conn:
            return conn.execute(query, values).fetchall()

    def run(self, statement: LiteralString, *values: object) -> None:
        """Run a statement as superuser, whoever this site connects as."""
        with self.database.server.connect() as conn:
            conn.execute(statement, values or None)

    def entry(self, name: str) -> dict[str, Any]:
        """Return the one row of cron.job of this name, by column."""
        rows = self.rows("SELECT to_jsonb(j) FROM cron.job j WHERE jobname = %s", name)
        assert len(rows) == 1
        found: dict[str, Any] = rows[0][0]
        return found

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of cron.job and of the schema reconciler, to compare before and after."""
        names = self.rows(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' AND"
            " (c.relnamespace = to_regnamespace('reconciler') OR c.oid = 'cron.job'::regclass) ORDER BY 1"
        )
        with self.database.session() as conn:
            return {
                name: conn.execute(
                    f"SELECT t.ctid::text, t.xmin::text, t::text FROM {name} t ORDER BY 1".encode()
                ).fetchall()
                for (name,) in names
            }


def _job(name: str, trigger: Schedule | Once | Succeeded, declared: Mapping[str, Any]) -> JobSpec:
    body: Body
    if "sql" in declared:
        body = SqlBody(text=declared["sql"])
    elif "http" in declared:
        http = declared["http"]
        body = HttpBody(url=http["url"], secret=http.get("token", {"secret": ""})["secret"])
    else:
        body = HandlerBody(handler=declared["handler"], queue=declared.get("queue", "default"))
    return JobSpec(
        name=name,
        place=PLACE,
        document=render_canonical(declared),
        trigger=trigger,
        body=body,
        timezone=declared.get("timezone", ""),
        mode=declared.get("mode", "managed"),
        role=declared.get("role", ""),
        database=declared.get("database", ""),
        active=declared.get("active", True),
        protect=declared.get("protect", False),
        after=tuple(declared.get("after", ())),
        needs_runtime=declared.get("mode") != "direct" and needs_runtime(declared),
        renamed_from=declared.get("renamed_from", ""),
    )
