"""Two applies of what was planned at the same moment, whatever they change: exactly one of them wins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, note, settings
from hypothesis import strategies as st

from reconciler.core.config import Runtime
from reconciler.database.apply import apply_target, plan_target, require_consent
from reconciler.database.connect import connect
from reconciler.errors import ApplyLockError, RefusedError, StalePlanError
from tests.declared import Site, request
from tests.integration.test_convergence import NAMES, OUTSIDE, declarations, prepare
from tests.integration.test_rollback import strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.specs import Spec
    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request
    from tests.servers import Database

pytestmark = pytest.mark.one_server

OPTIONS: dict[str, Any] = {"prune": "auto", "adopt": NAMES, "role": "postgres", "runtime": Runtime()}


def ask(specs: Sequence[Spec]) -> Request:
    """Make a request, in which documents are spelt as the loader spells them."""
    return request(*(strip(spec) for spec in specs), **OPTIONS)


def plan(site: Site, wanted: Request) -> Planned:
    """Plan, and leave it where a limit or an entry of a stranger refuses it."""
    with connect(site.dsn) as conn:
        planned = plan_target(conn, wanted)
    try:
        require_consent(planned.plan, wanted.target.policy, allow_deletes=planned.plan.consent or None)
    except RefusedError:
        assume(condition=False)
    return planned


@settings(
    max_examples=30,
    phases=(Phase.explicit, Phase.generate),  # shrinking on a server takes minutes
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(before=declarations(), sides=st.tuples(declarations(), declarations()))
def test_of_two_applies_exactly_one_wins(
    database: Database, before: list[Spec], sides: tuple[list[Spec], list[Spec]]
) -> None:
    """The state is the winner's to the last row, the loser is told so, and nothing of others moved."""
    site = Site(database)
    database.server.clean()
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE stranger LOGIN")
    prepare(site)
    first = plan(site, ask(before))
    with connect(site.dsn) as conn:
        apply_target(conn, ask(before), allow_deletes=first.plan.consent or None)
    wanted = [ask(specs) for specs in sides]
    planned = [plan(site, one) for one in wanted]
    assume(all(one.plan.changes for one in planned))
    note(str([[(change.action, change.name) for change in one.plan.changes] for one in planned]))
    outside = site.rows(OUTSIDE)
    [(revisions,)] = site.rows("SELECT count(*) FROM reconciler.revisions")
    start = Barrier(2)

    def attempt(side: int) -> str:
        try:
            with connect(site.dsn) as conn:
                start.wait(10)
                apply_target(
                    conn,
                    wanted[side],
                    expected=planned[side].fingerprints(),
                    allow_deletes=planned[side].plan.consent or None,
                )
        except (ApplyLockError, StalePlanError) as error:
            return type(error).__name__
        return "won"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, (0, 1)))
    event(next(outcome for outcome in outcomes if outcome != "won") if "won" in outcomes else "none")
    assert outcomes.count("won") == 1
    with connect(site.dsn) as conn:
        assert plan_target(conn, wanted[outcomes.index("won")]).plan.changes == ()
    assert site.rows("SELECT count(*) FROM reconciler.revisions") == [(revisions + 1,)]
    assert site.rows(OUTSIDE) == outside
