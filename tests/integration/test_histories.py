"""Whole histories on real databases: files, hands, other owners, rollbacks and graces, in any order.

`script/soak` plays a thousand on each server.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from reconciler.core.config import Config, Runtime
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.history import find_comeback, find_restored
from reconciler.errors import DatabaseError, RefusedError
from reconciler.loader.past_specs import build_past_specs
from tests.declared import OWNER, Site, job, queue, request
from tests.integration.test_convergence import (
    EDITS_DRAWN,
    KITCHEN,
    NAMES,
    OUTSIDE,
    declarations,
    prepare,
)
from tests.integration.test_rollback import SECRETS, STATE, strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.history import Restored
    from reconciler.core.specs import Spec
    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request
    from tests.integration.test_convergence import Edit
    from tests.servers import Database

# A history that fails is long, and is to be shown all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

EXAMPLES = int(os.environ.get("RECONCILER_HISTORIES", "20"))
OURS: LiteralString = "SELECT name, jobid FROM reconciler.definitions WHERE owner = 'shop'"
JOBIDS: LiteralString = "SELECT jobid FROM cron.job"
EDITED: LiteralString = (
    "SELECT name FROM reconciler.definitions"
    " WHERE digest <> encode(sha256(convert_to(spec::text, 'UTF8')), 'hex')"
)
STANDING: LiteralString = (
    "SELECT name FROM reconciler.definitions WHERE owner = 'shop' AND retired_until IS NULL"
)
LAPSE: LiteralString = (
    "UPDATE reconciler.definitions SET retired_until = now() WHERE retired_until > now() AND owner = 'shop'"
)


@dataclass(frozen=True, kw_only=True)
class Act:
    """What happens between two applies, and which apply comes then.

    Attributes:
        drawn: Declarations, of which those of `names` take the place of what was declared.
        names: Which names the files change.
        edits: What is done by hand.
        kitchen: What another owner declares anew; 0 for nothing.
        lapses: Whether all graces are over.
        way: How it is applied: the files, a rollback, or one name restored.
        pick: Which revision or name.
    """

    drawn: list[Spec]
    names: frozenset[str]
    edits: Sequence[Edit]
    kitchen: int
    lapses: bool
    way: str
    pick: int


ACTS = st.builds(
    Act,
    drawn=declarations(),
    names=st.frozensets(st.sampled_from(NAMES), max_size=3),
    edits=EDITS_DRAWN,
    kitchen=st.sampled_from([0, 0, 0, 1, 2]),
    lapses=st.sampled_from([False, False, True]),
    way=st.sampled_from(["files", "files", "files", "rollback", "restore"]),
    pick=st.integers(0, 20),
)


@dataclass(kw_only=True)
class History:
    """A target, what its owner declares, and what was applied.

    Attributes:
        site: The target.
        conn: A superuser's connection to look through.
        options: Of each request.
        files: What is declared, by name.
        states: What the owner had after each of its revisions.
        unsaid: Names whose definitions were deleted or edited by hand, which no revision tells of.
    """

    site: Site
    conn: psycopg.Connection
    options: dict[str, Any]
    files: dict[str, Spec]
    states: dict[int, list[tuple[Any, ...]]]
    unsaid: set[str]

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.conn.execute(query).fetchall()

    def play(self, act: Act) -> None:
        """Let an act happen."""
        declared = {spec.name: strip(spec) for spec in act.drawn}
        for name in act.names:
            self.files.pop(name, None)
            if name in declared:
                self.files[name] = declared[name]
        for edit in act.edits:
            if edit.statement.startswith("DELETE FROM reconciler.definitions"):
                self.unsaid.add(edit.a)
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                self.conn.execute(edit.statement, {"a": edit.a, "b": edit.b})
        if act.kitchen:
            with contextlib.suppress(RefusedError):
                self.site.apply(
                    job("kitchens", f"SELECT {act.kitchen}", role="stranger"),
                    queue("kitchens-too", max_attempts=act.kitchen),
                    owner="kitchen",
                )
        if act.lapses:
            self.site.run(LAPSE)
        wanted = self.ask(act)
        if wanted is not None:
            self.apply(wanted)

    def ask(self, act: Act) -> Request | None:
        """Make the request of an act; None where there is nothing to bring back."""
        if act.way == "rollback" and self.states:
            number = sorted(self.states)[act.pick % len(self.states)]
            with connect(self.site.dsn) as conn:
                return self._bring_back(find_restored(conn, number, owner=OWNER))
        if act.way == "restore":
            names = sorted(set(NAMES) - self.files.keys())
            if not names:
                return None
            with connect(self.site.dsn) as conn, contextlib.suppress(RefusedError, DatabaseError):
                return self._bring_back(find_comeback(conn, names[act.pick % len(names) :][:1], owner=OWNER))
            return None
        return request(*self.files.values(), adopt=NAMES, **self.options)

    def _bring_back(self, restored: Restored) -> Request:
        wanted = request(**self.options)
        config = Config(
            path="reconciler.yaml",
            owner=OWNER,
            jobs=(),
            targets={"test": wanted.target},
            default_target="test",
            secrets=SECRETS,
        )
        return replace(
            wanted, specs=build_past_specs(restored, config, wanted.target), past=restored.past, adopt=()
        )

    def apply(self, wanted: Request) -> bool:
        """Plan, apply what was planned with consent, and check what came of it.

        Returns:
            Whether it was applied.
        """
        site = self.site
        before, outside, kitchen = site.everything(), self.rows(OUTSIDE), self.rows(KITCHEN)
        held, jobids = dict(self.rows(OURS)), {jobid for (jobid,) in self.rows(JOBIDS)}
        with connect(site.dsn) as conn:
            planned = plan_target(conn, wanted)
            try:
                applied = apply_target(
                    conn,
                    wanted,
                    expected=planned.fingerprints(),
                    allow_deletes=len(planned.plan.deletions),
                )
            except RefusedError as error:
                event("refused")
                note(f"refused: {error}")
                assert site.everything() == before
                return False
            assert plan_target(conn, wanted).plan.changes == ()
        assert self.rows(OUTSIDE) == outside
        assert self.rows(KITCHEN) == kitchen
        self.check_deletions(planned, held, jobids)
        if applied.revision is not None:
            event(
                "applied"
                if wanted.past is None
                else f"applied {'a restore' if wanted.past.names else 'a rollback'}"
            )
            standing = {name for (name,) in self.rows(STANDING)}
            # The tool's own entries are not the revision's, but this release's and configuration's.
            state = [
                row for row in self.rows(STATE) if row[0] in standing and not row[0].startswith("reconciler-")
            ]
            if wanted.past is not None and not wanted.past.names:
                kept = {*planned.plan.kept, *planned.observed.settled, *self.unsaid}
                assert wanted.past.revision is not None
                then = self.states[wanted.past.revision]
                assert [row for row in state if row[0] not in kept] == [
                    row for row in then if row[0] not in kept
                ]
            self.unsaid |= {name for (name,) in self.rows(EDITED)}
            self.states[applied.revision] = state
        return True

    def check_deletions(self, planned: Planned, held: dict[str, int | None], jobids: set[int]) -> None:
        """Check that whatever went was in the plan, and that nothing went in its grace."""
        changes = planned.plan.changes
        deleted = {change.name for change in changes if change.action == "delete"}
        gone = held.keys() - dict(self.rows(OURS)).keys()
        assert gone <= deleted | {change.renamed_from for change in changes}
        shown = {change.before.entry.jobid for change in changes if change.before and change.before.entry}
        assert jobids - {jobid for (jobid,) in self.rows(JOBIDS)} <= shown
        for change in changes:
            if change.action == "delete" and change.retired_until is not None:
                assert planned.observed.now is not None
                assert change.retired_until <= planned.observed.now


# The same ones each time; script/soak draws others.
@settings(
    max_examples=EXAMPLES,
    derandomize="RECONCILER_HISTORIES" not in os.environ,
    phases=(Phase.explicit, Phase.generate),  # shrinking on a server takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    acts=st.lists(ACTS, min_size=3, max_size=6),
    prune=st.sampled_from(["auto", "auto", "confirm", "never"]),
    grace=st.sampled_from([timedelta(), timedelta(days=7)]),
)
def test_any_history_converges(database: Database, acts: list[Act], prune: Any, grace: timedelta) -> None:
    """After each apply nothing is left to do, nothing of others moved, and what went was in its plan."""
    site = Site(database)
    database.server.clean()
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE stranger LOGIN")
    prepare(site)
    options = {"role": "postgres", "runtime": Runtime(), "prune": prune, "grace": grace}
    files = {spec.name: strip(spec) for spec in acts[0].drawn}
    history = History(
        site=site, conn=database.connect(), options=options, files=files, states={}, unsaid=set()
    )
    history.apply(request(*files.values(), adopt=NAMES, **options))
    for act in acts:
        history.play(act)
