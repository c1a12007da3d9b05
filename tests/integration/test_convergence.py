"""From any state to any declaration: apply converges, and what is not ours is untouched."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from tests.declared import LATER, Site, after, channel, job, once, queue, worker

if TYPE_CHECKING:
    from reconciler.core.specs import Spec
    from tests.servers import Database

pytestmark = pytest.mark.one_server

NAMES = ["a", "b", "c", "d"]
SCHEDULES = ["0 0 29 2 *", "1 0 29 2 *", "@monthly"]
ROLES = ["", "postgres", "alice"]
TIMES = [LATER, LATER + timedelta(days=1), LATER + timedelta(days=2)]
TEXT = st.sampled_from(["SELECT 1", "SELECT 2", "SELECT '%s %% \\ '' {}'"])

OUTSIDE: LiteralString = (
    "SELECT ctid::text, xmin::text, j::text FROM cron.job j"
    " WHERE jobname IS NULL OR jobname = 'other' OR username = 'stranger' ORDER BY jobid"
)
KITCHEN: LiteralString = (
    "SELECT xmin::text, d::text FROM reconciler.definitions d WHERE owner = 'kitchen' ORDER BY name"
)

EDITS: list[LiteralString] = [
    "UPDATE cron.job SET schedule = '7 7 29 2 *' WHERE jobname = %(a)s AND username <> 'stranger'",
    "UPDATE cron.job SET command = 'SELECT 666' WHERE jobname = %(a)s AND username <> 'stranger'",
    "UPDATE cron.job SET active = NOT active WHERE jobname = %(a)s AND username <> 'stranger'",
    "UPDATE cron.job SET database = 'template1' WHERE jobname = %(a)s AND username <> 'stranger'",
    "UPDATE cron.job SET username = 'alice' WHERE jobname = %(a)s AND username = 'postgres'",
    "UPDATE cron.job SET username = 'postgres' WHERE jobname = %(a)s AND username = 'alice'",
    "UPDATE cron.job SET jobname = %(b)s WHERE jobname = %(a)s AND username <> 'stranger'",
    "UPDATE cron.job SET jobname = 'Z' WHERE jobname = %(a)s AND username <> 'stranger'",
    "DELETE FROM cron.job WHERE jobname = %(a)s AND username <> 'stranger'",
    "SELECT cron.schedule(%(a)s, '7 7 29 2 *', 'SELECT 7')",
    "SELECT cron.schedule_in_database(%(a)s, '7 7 29 2 *', 'SELECT 7', current_database(), 'alice', false)",
    "UPDATE reconciler.definitions SET spec = '{\"x\":1}' WHERE name = %(a)s AND owner = 'shop'",
    "UPDATE reconciler.definitions SET digest = '' WHERE name = %(a)s AND owner = 'shop'",
    "UPDATE reconciler.definitions SET jobid = 999 WHERE name = %(a)s AND owner = 'shop' AND jobid > 0",
    "UPDATE reconciler.definitions SET schedule = '' WHERE name = %(a)s AND owner = 'shop' AND jobid > 0",
    "DELETE FROM reconciler.definitions WHERE name = %(a)s AND owner = 'shop'",
    "UPDATE reconciler.queues SET max_attempts = 77 WHERE name = %(a)s",
    "DELETE FROM reconciler.queues WHERE name = %(a)s",
    "UPDATE reconciler.workers SET url = '' WHERE name = %(a)s",
    "DELETE FROM reconciler.workers WHERE name = %(a)s",
    "UPDATE reconciler.jobs SET run_at = '2098-01-01Z' WHERE job_name = %(a)s",
    "UPDATE reconciler.jobs SET status = 'running' WHERE job_name = %(a)s",
    "UPDATE reconciler.jobs SET status = 'completed' WHERE job_name = %(a)s",
    "DELETE FROM reconciler.jobs WHERE job_name = %(a)s",
    "UPDATE reconciler.policies SET retries = 77 WHERE name = %(a)s",
    "UPDATE reconciler.policies SET zone = 'Europe/Oslo', timeout = '1 s' WHERE name = %(a)s",
    "DELETE FROM reconciler.policies WHERE name = %(a)s",
    "DELETE FROM reconciler.job_states WHERE name = %(a)s",
    "INSERT INTO reconciler.pauses (job_name) SELECT name FROM reconciler.policies WHERE name = %(a)s",
]


@dataclass(frozen=True)
class Edit:
    """A hand edit of what one or two names stand for."""

    statement: LiteralString
    a: str
    b: str


@st.composite
def declarations(draw: st.DrawFn) -> list[Spec]:
    """Draw specs: any kind under each name, or none; now and then under a name it had before."""
    specs: list[Spec] = []
    for name in NAMES:
        fields: dict[str, Any] = draw(
            st.sampled_from([{}, {}, {"renamed_from": draw(st.sampled_from(NAMES))}, {"protect": True}])
        )
        if fields.get("renamed_from") == name:
            fields = {}
        role = draw(st.sampled_from(ROLES))
        managed: dict[str, Any] = {**fields, **({"role": role} if role else {})}
        if draw(st.booleans()):
            managed["active"] = draw(st.booleans())
        kind = draw(
            st.sampled_from(
                ["none", "job", "job", "job", "direct", "once", "after", "queue", "worker", "channel"]
            )
        )
        if kind == "job":
            specs.append(job(name, draw(TEXT), schedule=draw(st.sampled_from(SCHEDULES)), **managed))
        elif kind == "direct":
            specs.append(
                job(name, draw(TEXT), schedule=draw(st.sampled_from(SCHEDULES)), mode="direct", **managed)
            )
        elif kind == "once":
            specs.append(
                once(name, draw(st.sampled_from(TIMES)), payload=draw(st.sampled_from([1, [None]])), **fields)
            )
        elif kind == "after":
            specs.append(after(name, draw(st.sampled_from(NAMES)), timeout="5m", **fields))
        elif kind == "queue":
            specs.append(queue(name, max_attempts=draw(st.integers(1, 3)), **fields))
        elif kind == "worker":
            specs.append(worker(name, limit=draw(st.integers(1, 3)), **fields))
        elif kind == "channel":
            specs.append(channel(name))
    return specs


EDITS_DRAWN = st.lists(
    st.builds(Edit, st.sampled_from(EDITS), st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=4
)


def prepare(site: Site) -> None:
    """Start from nothing but what others have."""
    site.run(
        "DROP SCHEMA IF EXISTS reconciler CASCADE; DELETE FROM cron.job;"
        "SELECT cron.schedule('0 0 29 2 *', 'SELECT 1'), cron.schedule('other', '0 0 29 2 *', 'SELECT 1'),"
        " cron.schedule_in_database('a', '0 0 29 2 *', 'SELECT 1', current_database(), 'stranger', true)"
    )
    site.apply(job("kitchens", role="stranger"), queue("kitchens-too"), owner="kitchen")


def check_convergence(site: Site, specs: list[Spec]) -> None:
    """Apply, and compare: nothing left to do, nothing of others touched."""
    outside, kitchen = site.rows(OUTSIDE), site.rows(KITCHEN)
    before = site.everything()
    options: dict[str, Any] = {"prune": "auto", "adopt": NAMES, "role": "postgres"}
    try:
        site.apply(*specs, allow_deletes=len(site.plan(*specs, **options).plan.deletions), **options)
    except RefusedError as error:
        note(f"refused: {error}")
        assert site.everything() == before
    else:
        left = site.plan(*specs, **options)
        assert left.plan.changes == ()
        assert site.apply(*specs, **options).revision is None
        entries = {spec.name for spec in specs if spec.kind == "job" and '"schedule"' in spec.document}
        rows = site.rows(
            "SELECT jobname::text, count(*) FROM reconciler.definitions d JOIN cron.job j USING (jobid)"
            " WHERE owner = 'shop' GROUP BY 1"
        )
        assert dict(rows) == dict.fromkeys(entries, 1)
        assert site.rows(
            "SELECT count(*) FROM reconciler.definitions d JOIN cron.job j USING (jobid)"
            " WHERE (j.jobname, j.schedule, j.command, j.database, j.username, j.active)"
            " IS DISTINCT FROM (d.name, d.schedule, d.command, d.database, d.username, d.active)"
        ) == [(0,)]
        waiting = site.rows(
            "SELECT job_name FROM reconciler.jobs j JOIN reconciler.definitions d ON d.name = j.job_name"
            " WHERE once AND status = 'pending'"
        )
        assert {name for (name,) in waiting} <= {spec.name for spec in specs if "once" in spec.document}
    assert site.rows(OUTSIDE) == outside
    assert site.rows(KITCHEN) == kitchen


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=st.lists(st.tuples(declarations(), EDITS_DRAWN), min_size=1, max_size=3), last=declarations())
def test_any_state_converges(
    database: Database, rounds: list[tuple[list[Spec], list[Edit]]], last: list[Spec]
) -> None:
    """Whatever was applied and edited, an apply ends with an empty plan, or refuses and changes nothing."""
    site = Site(database)
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        site.run("CREATE ROLE alice LOGIN; CREATE ROLE stranger LOGIN")
    prepare(site)
    for specs, edits in rounds:
        check_convergence(site, specs)
        for edit in edits:
            with contextlib.suppress(psycopg.errors.UniqueViolation), site.database.server.connect() as conn:
                conn.execute(edit.statement, {"a": edit.a, "b": edit.b})
    check_convergence(site, last)
