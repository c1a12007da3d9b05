"""Check the SQL of jobs: `validate`, with or without a server, and a part of `plan`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler.core.specs import JobSpec, SqlBody

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from reconciler.core.body_checks import Remark, Statement
    from reconciler.core.config import Target
    from reconciler.core.specs import Place, Spec
    from reconciler.database.apply import Planned

_MATTERS = frozenset(
    {"spec.sql", "spec.role", "spec.database", "spec.mode", "entry.username", "entry.database"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found in some bodies.

    Attributes:
        found: The remarks with their places.
    """

    found: tuple[tuple[Remark, Place], ...]

    def list_problems(self) -> list[str]:
        """List the errors as `InvalidInputError` takes them."""
        from reconciler.loader.problems import describe_place

        ordered = sorted(self.found, key=lambda pair: (pair[1].path, pair[1].line, pair[1].column))
        return [
            describe_place(place, f"{remark.name}: {remark.message}")
            for remark, place in ordered
            if remark.severity == "error"
        ]

    def list_notes(self) -> list[str]:
        """List all else, what was not checked in one line for many jobs."""
        from reconciler.cli.render_text import list_names
        from reconciler.core.body_checks import make_notices
        from reconciler.loader.problems import describe_place

        warnings = [
            describe_place(place, f"warning: {remark.name}: {remark.message}")
            for remark, place in self.found
            if remark.severity == "warning"
        ]
        unchecked = make_notices([pair for pair in self.found if pair[0].severity == "unchecked"])
        return [*warnings, *(f"{one.message}: {list_names(one.names)}" for one in unchecked)]


def has_bodies(specs: Iterable[Spec]) -> bool:
    """Tell whether there is any SQL to check."""
    return bool(_list_jobs(specs))


def parse_bodies(specs: Iterable[Spec]) -> Checked:
    """Parse all bodies without a server; takes pglast.

    Args:
        specs: Of one target.

    Returns:
        What was found.
    """
    from reconciler.loader.sql_syntax import parse_statement

    jobs = _list_jobs(specs)
    remarks = [parse_statement(statement) for job in jobs for statement in _split(job)]
    return _locate(jobs, [remark for remark in remarks if remark is not None])


def check_specs(conn: psycopg.Connection, specs: Iterable[Spec], target: Target) -> Checked:
    """Let a target's server check all bodies.

    Args:
        conn: To the target.
        specs: Declared for it.
        target: With the role of jobs that name none.

    Returns:
        What was found.
    """
    from reconciler.database.migrate import find_pending
    from reconciler.database.observe import observe_facts

    facts = observe_facts(conn)
    is_complete = not find_pending(facts.migrations)
    return _check(conn, _list_jobs(specs), target, database=facts.database, is_complete=is_complete)


def check_plan(conn: psycopg.Connection, planned: Planned, specs: Iterable[Spec], target: Target) -> Planned:
    """Let a target's server check the bodies that a plan creates or edits.

    Args:
        conn: As it was for the plan.
        planned: The plan.
        specs: That it was made of.
        target: With the role of jobs that name none.

    Returns:
        The plan with the notices `body_error`, `body_warning` and `body_unchecked`.
    """
    from reconciler.core.body_checks import make_notices

    plan = planned.plan
    changed = {
        change.name
        for change in plan.changes
        if change.after is not None
        and (change.action != "update" or not _MATTERS.isdisjoint(field.path for field in change.fields))
    }
    jobs = [job for job in _list_jobs(specs) if job.name in changed]
    if not jobs:
        return planned
    database = planned.observed.facts.database
    checked = _check(conn, jobs, target, database=database, is_complete=not plan.migrations)
    return replace(planned, plan=replace(plan, notices=(*plan.notices, *make_notices(checked.found))))


def _list_jobs(specs: Iterable[Spec]) -> list[JobSpec]:
    return [
        spec
        for spec in specs
        if isinstance(spec, JobSpec) and isinstance(spec.body, SqlBody) and spec.mode == "managed"
    ]


def _split(job: JobSpec) -> tuple[Statement, ...]:
    from reconciler.core.body_checks import place_statements
    from reconciler.loader.sql_texts import split_statements, strip_sql

    assert isinstance(job.body, SqlBody)  # noqa: S101 - _list_jobs chose it
    text = job.body.text
    return place_statements(job.name, text, [(one, strip_sql(one)) for one in split_statements(text)])


def _check(
    conn: psycopg.Connection, jobs: Sequence[JobSpec], target: Target, *, database: str, is_complete: bool
) -> Checked:
    from reconciler.core.body_checks import Remark
    from reconciler.database.body_checks import check_bodies

    remarks: list[Remark] = []
    by_role: dict[str, list[Statement]] = {}
    for job in jobs:
        if job.database not in {"", database}:
            message = f"it runs in the database {job.database}, this connection is to {database}"
            remarks.append(Remark(name=job.name, severity="unchecked", message=message))
            continue
        role = job.role or target.role
        by_role.setdefault("" if role == conn.info.user else role, []).extend(_split(job))
    remarks += check_bodies(conn, by_role, is_complete=is_complete)
    return _locate(jobs, remarks)


def _locate(jobs: Iterable[JobSpec], remarks: Iterable[Remark]) -> Checked:
    from reconciler.loader.body_places import BodyPlaces

    places = BodyPlaces()
    declared = {job.name: (job.place, job.body.text) for job in jobs if isinstance(job.body, SqlBody)}
    return Checked(
        found=tuple((remark, places.find(*declared[remark.name], remark.offset)) for remark in remarks)
    )
