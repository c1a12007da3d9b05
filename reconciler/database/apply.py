"""Apply: one transaction that ends with the target as declared, or as it was.

lock → observe → migrate → refuse if anything moved → execute → observe again → the difference must be gone →
commit.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler.collector import paused_collector
from reconciler.core.change_policies import judge_changes
from reconciler.core.desired import SpecProblem, make_desired
from reconciler.core.history import put_back_entries
from reconciler.core.identity import guard_identity
from reconciler.core.ownership import find_unkept, make_handover_plan, require_owned
from reconciler.core.plan import Fingerprints, Plan, find_refusal, make_fingerprints, make_plan
from reconciler.core.policies import Governance
from reconciler.core.preflight import find_dangers
from reconciler.core.runtime_jobs import find_neighbours
from reconciler.core.secret_needs import find_missing_secrets
from reconciler.core.selection import narrow
from reconciler.core.spec_policies import find_forbidden_roles, find_warnings
from reconciler.core.specs import JobSpec
from reconciler.core.steps import Steps, make_steps
from reconciler.core.times.clocks import make_clock
from reconciler.errors import DatabaseError, RefusedError, RightsError, StalePlanError

from .identity import record_identity
from .migrate import apply_migrations, find_pending, take_apply_lock
from .observe import observe, observe_within, require_pg_cron
from .queries import load_queries
from .secrets import put_secrets
from .statements import Request, list_definition_statements, list_entry_statements, list_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import psycopg

    from reconciler.core.config import Policy
    from reconciler.core.state import DesiredState, ObservedState

    from .migrate import Migration
    from .observe import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and what it was made of.

    Attributes:
        plan: The plan.
        desired: What is declared.
        observed: What the target held.
        problems: Specs that this server cannot take; nothing may be applied while there are any.
    """

    plan: Plan
    desired: DesiredState
    observed: ObservedState
    problems: tuple[SpecProblem, ...]

    @property
    def is_upgraded(self) -> bool:
        """Whether pg_upgrade brought the database where it is, so that an apply records it anew."""
        identity = self.observed.facts.identity
        return identity is not None and identity.state == "upgraded"

    def fingerprints(self) -> Fingerprints:
        """Make the fingerprints that the plan holds for."""
        return make_fingerprints(self.desired, self.observed, unmanaged=self.plan.unmanaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply did.

    Attributes:
        plan: What was applied, but for the changes beyond the role's rights.
        revision: The revision that was written; None when there was nothing to do.
        migrations: Names of the migrations that ran.
        secrets: Names of the secrets that were new to the target, or had changed.
    """

    plan: Plan
    revision: int | None
    migrations: tuple[str, ...]
    secrets: tuple[str, ...] = ()


def plan_target(conn: psycopg.Connection, request: Request) -> Planned:
    """Observe a target and make its plan; changes nothing.

    Args:
        conn: In autocommit mode.
        request: What is declared, and for which target.

    Returns:
        The plan and what it was made of.

    Raises:
        PgCronMissingError: The extension is not in the target database.
        MigrationError: The target does not fit this release.
        RightsError: The role may not read what a plan needs.
    """
    with paused_collector():
        return _plan(observe(conn, _list_zones(request)), request)


def apply_target(
    conn: psycopg.Connection,
    request: Request,
    *,
    expected: Fingerprints | None = None,
    allow_deletes: int | str | None = None,
    shown: Planned | None = None,
    require: Callable[[Planned], None] | None = None,
    phase: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Applied:
    """Make a target as declared, in one transaction.

    Args:
        conn: In autocommit mode.
        request: What is declared, and for which target.
        expected: The fingerprints of the plan that was shown; None applies whatever there is to do.
        allow_deletes: How many deletions the person consented to, or the code of the list.
        shown: The plan that was shown, of the same request; its desired state is used again where the server
            reads schedules as it did then.
        require: Looks at the plan before anything is changed, while no other apply can work; what it raises
            comes out.
        phase: Watches each part of the work: plan, execute, read back.

    Returns:
        What was done.

    Raises:
        ApplyLockError: Another apply is at work.
        StalePlanError: The target moved since the plan was made, or while it was applied.
        RefusedError: A limit, a protection or another owner forbids it.
        RightsError: The role may not write the schema reconciler.
        DatabaseError: A statement failed, or the target was not as declared afterwards; all was rolled back.
    """
    with paused_collector(), conn.transaction():
        with phase("plan"):
            planned, ran = _plan_within(conn, request, shown)
        if expected is not None and planned.fingerprints() != expected:
            raise StalePlanError(
                f"the target {request.target.name} moved since the plan was made",
                remedy="nothing was changed; run plan again and look at what is different",
            )
        if shown is not None and not _list_taken(planned.plan) <= _list_taken(shown.plan):
            raise StalePlanError(
                f"the plan for {request.target.name} holds no longer: what it takes away is not what it was, "
                "since a grace ended or a queue is no longer in use",
                remedy="nothing was changed; run plan again and look at what is different",
            )
        if require is not None:
            require(planned)
        _check(planned, request, allow_deletes)
        _require_open(planned.plan, "migrations", [migration.name for migration in ran])
        steps = make_steps(planned.plan.changes, planned.observed.facts)
        revision = None
        if steps.changes:
            with phase("execute"):
                revision = _execute(conn, planned, steps, request)
            with phase("read back"):
                _verify(conn, planned, request)
        if planned.is_upgraded and planned.observed.facts.rights.write_definitions:
            record_identity(conn, owner=request.owner, target=request.target.name)
        secrets = () if planned.observed.secrets is None else put_secrets(conn, request.secrets)
        _require_open(planned.plan, "new values of secrets", secrets)
        return Applied(
            plan=planned.plan,
            revision=revision,
            migrations=tuple(migration.name for migration in ran),
            secrets=secrets,
        )


def _plan_within(
    conn: psycopg.Connection, request: Request, shown: Planned | None
) -> tuple[Planned, Sequence[Migration]]:
    """Take the lock, migrate and plan, in the transaction that goes on."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    take_apply_lock(conn)
    zones = _list_zones(request)
    observation = observe_within(conn, zones)
    require_pg_cron(observation.state.facts)
    ran = apply_migrations(conn, observation.state.facts)
    if ran:
        observation = observe_within(conn, zones)
    known = shown if shown is not None and _is_same_server(shown, observation) else None
    return _plan(observation, request, known=known), ran


def require_consent(plan: Plan, policy: Policy, *, allow_deletes: int | str | None) -> None:
    """Stop when something forbids to apply a plan as a whole.

    Args:
        plan: As shown to the person.
        policy: The target's.
        allow_deletes: How many deletions the person consented to, or the code of their list; None
            for none named.

    Raises:
        RefusedError: A limit, a protection or another owner forbids it.
    """
    refusal = find_refusal(plan, policy, allow_deletes=allow_deletes)
    if refusal is not None:
        raise RefusedError(f"nothing was changed: {refusal.why}", remedy=refusal.remedy)


def _plan(observation: Observation, request: Request, *, known: Planned | None = None) -> Planned:
    """Plan; the desired state is taken from `known` where there is one: specs and server are the same."""
    observed = observation.state
    require_pg_cron(observed.facts)
    if known is None:
        desired, problems = make_desired(
            request.specs,
            observed.facts,
            owner=request.owner,
            target=request.target,
            neighbours=find_neighbours(observed.definitions, request.owner),
            clocks={zone: make_clock(changes) for zone, changes in observed.clocks.items()},
        )
        if request.past is not None:
            desired = put_back_entries(desired, request.past)
            if request.past.names:
                desired = replace(desired, unselected={})
        if request.selected is not None:
            desired = narrow(desired, request.selected)
            left_out = {spec.place for spec in request.specs}.difference(
                spec.place for spec in request.planned_specs
            )
            problems = tuple(problem for problem in problems if problem.place not in left_out)
        if request.handover is not None:
            require_owned(request.handover, request.owner, observed.definitions)
            problems = ()
    else:
        desired, problems = known.desired, known.problems
    plan = replace(
        _make_plan(desired, observed, request),
        findings=find_dangers(observed.facts, observation.dangers),
        migrations=tuple(migration.name for migration in find_pending(observed.facts.migrations)),
    )
    missing = find_missing_secrets(request.planned_specs, observed.secrets, request.secrets)
    plan = guard_identity(replace(plan, notices=(*plan.notices, *missing)), observed.facts.identity)
    return _judge(Planned(plan=plan, desired=desired, observed=observed, problems=problems), request)


def _make_plan(desired: DesiredState, observed: ObservedState, request: Request) -> Plan:
    target, policy = request.target.name, request.target.policy
    if request.handover is not None:
        return make_handover_plan(request.handover, desired, observed, target=target, policy=policy)
    if request.past is not None and policy.stage == "authoritative":
        policy = replace(policy, stage="declared-only")  # what is restored says nothing of other entries
    plan = make_plan(desired, observed, target=target, policy=policy, adopt=request.adopt)
    if request.past is not None and request.past.names:
        # Who names what comes back selects nothing of what is declared.
        return replace(plan, notices=tuple(one for one in plan.notices if one.code != "selected"))
    return plan


def _judge(planned: Planned, request: Request) -> Planned:
    """Judge by the policies and windows of the target, at the time of the database's clock."""
    plan, observed, governance = planned.plan, planned.observed, request.target.governance
    if governance == Governance():
        return planned
    assert observed.now is not None  # noqa: S101 - each observation asks for it
    verdict = judge_changes(plan.changes, governance, now=observed.now, emergency=request.emergency)
    role = request.target.role or observed.facts.role
    notices = (
        *plan.notices,
        *verdict.notices,
        *find_warnings(request.planned_specs, governance.specs, role=role),
    )
    forbidden = (
        ()
        if request.target.role
        else find_forbidden_roles(request.planned_specs, governance.specs, role=role)
    )
    return replace(
        planned,
        plan=replace(plan, changes=verdict.changes, closed=plan.closed or verdict.closed, notices=notices),
        problems=(
            *planned.problems,
            *(SpecProblem(place=one.spec.place, message=one.message) for one in forbidden),
        ),
    )


def _is_same_server(shown: Planned, observation: Observation) -> bool:
    """Tell whether everything about the server is the same that a desired state is made of."""
    one, other = shown.observed, observation.state
    owner = shown.desired.owner
    return (
        one.facts.same_server(other.facts)
        and one.clocks == other.clocks
        and find_neighbours(one.definitions, owner) == find_neighbours(other.definitions, owner)
    )


def _list_taken(plan: Plan) -> set[tuple[str, str]]:
    """List what a plan takes away: time alone may make it more, and nobody has seen that."""
    return {(change.action, change.name) for change in plan.changes if change.action in {"retire", "delete"}}


def _list_zones(request: Request) -> frozenset[str]:
    return frozenset(spec.timezone for spec in request.specs if isinstance(spec, JobSpec) and spec.timezone)


def _check(planned: Planned, request: Request, allow_deletes: int | str | None) -> None:
    if planned.problems:
        raise RefusedError(
            "\n".join(f"{problem.place}: {problem.message}" for problem in planned.problems),
            remedy="nothing was changed; correct the files",
        )
    require_consent(planned.plan, request.target.policy, allow_deletes=allow_deletes)
    facts = planned.observed.facts
    if planned.plan.changes and not facts.rights.write_definitions:
        raise RightsError(
            f"the role {facts.role} may not write the schema reconciler of {facts.database}",
            remedy=f"apply as its owner, or as its owner: GRANT ALL ON ALL TABLES IN SCHEMA reconciler TO "
            f'"{facts.role}"',
        )


def _require_open(plan: Plan, what: str, names: Sequence[str]) -> None:
    """Take back what is no change of the plan and was brought at a time when nothing may be applied."""
    if names and plan.closed is not None:
        raise RefusedError(
            f"nothing was changed, though there are {what} ({', '.join(names)}): {plan.closed.why}",
            remedy=plan.closed.remedy,
        )


def _execute(conn: psycopg.Connection, planned: Planned, steps: Steps, request: Request) -> int:
    plan, rights = planned.plan, planned.observed.facts.rights
    queries = load_queries("apply")
    if steps.unschedule and (rights.update_entries or rights.alter_job):
        guard = "lock_entries" if rights.update_entries else "touch_entries"
        conn.execute(queries[guard], {"jobids": list(steps.unschedule)})
    for name, arguments in list_entry_statements(steps):
        conn.execute(queries[name], arguments)
    revisions = []
    for values in list_revisions(plan, steps, request):
        row = conn.execute(queries["insert_revision"], values).fetchone()
        assert row is not None  # noqa: S101 - INSERT RETURNING
        revisions.append(int(row[0]))
    zone = planned.observed.facts.known_timezone
    for name, arguments in list_definition_statements(plan.owner, steps):
        # What goes to another owner is of that owner's revision, which is the last one.
        conn.execute(queries[name], {"revision": revisions[-1], "zone": zone, **arguments})
    return revisions[0]


def _verify(conn: psycopg.Connection, planned: Planned, request: Request) -> None:
    """Look again: what was asked for must be there, else all is rolled back."""
    found = _plan(observe_within(conn), request, known=planned)
    left = found.plan.changes
    if request.handover is not None:
        left += find_unkept(planned.plan.changes, found.observed)
    beyond = {change.name for change in planned.plan.beyond_rights}
    unexpected = [change for change in left if change.name not in beyond]
    if unexpected:
        fields = "; ".join(
            f"{change.action} {change.name}"
            + "".join(
                f" ({field.path}: {field.before!r}, not {field.after!r})" for field in change.fields[:3]
            )
            for change in unexpected[:5]
        )
        raise DatabaseError(
            f"the target is not as declared after the changes were made, so they were rolled back: {fields}",
            remedy="another program may be rewriting these entries; please report it if none is",
        )
