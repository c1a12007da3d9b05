"""Plans that hold no longer: what moved since then refuses the apply, what moved elsewhere does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, LiteralString

import pytest

from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.errors import StalePlanError
from tests.declared import Site, job, once, queue, request

if TYPE_CHECKING:
    from reconciler.core.specs import Spec


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = 'a'",
        "SELECT cron.unschedule('a')",
        "SELECT cron.schedule('b', '1 1 1 1 *', 'SELECT 1')",
        "UPDATE reconciler.definitions SET protect = true WHERE name = 'a'",
        "UPDATE reconciler.queues SET max_attempts = 9",
        "UPDATE reconciler.jobs SET status = 'running'",
        """INSERT INTO reconciler.definitions (name, kind, owner, spec, digest, lock_key)
        VALUES ('b', 'queue', 'kitchen', '{}', '', 1)""",
    ],
)
def test_a_plan_that_went_stale_is_refused(site: Site, change: LiteralString) -> None:
    """What moved between plan and apply refuses it and stays; a new plan can be applied or shows why not."""
    site.apply(job("a"), queue("q"), once("o"))
    wanted: list[Spec] = [job("a"), job("b"), queue("q", max_attempts=3), once("o")]
    expected = site.plan(*wanted).fingerprints()
    site.run(change)
    before = site.everything()
    with pytest.raises(StalePlanError, match="test") as caught:
        site.apply(*wanted, expected=expected)
    assert "plan again" in caught.value.remedy
    assert site.everything() == before


def test_changed_files_make_a_plan_stale(site: Site) -> None:
    """A plan holds for the very specs it was made of."""
    expected = site.plan(job("a")).fingerprints()
    with pytest.raises(StalePlanError):
        site.apply(job("a", "SELECT 2"), expected=expected)
    assert site.rows("SELECT count(*) FROM cron.job") == [(0,)]


def test_what_happens_elsewhere_does_not_make_a_plan_stale(site: Site) -> None:
    """Entries and definitions of others, and runs of our jobs, come and go without hindering an apply."""
    site.apply(job("a"), owner="kitchen")
    site.apply(job("b"))
    expected = site.plan(job("b"), job("c")).fingerprints()
    site.run("SELECT cron.schedule('other', '1 1 1 1 *', 'SELECT 1')")
    site.run("CALL reconciler.run_job('b')")
    site.apply(job("a", "SELECT 2"), owner="kitchen")
    site.apply(job("b"), job("c"), expected=expected)
    assert site.changes(job("b"), job("c")) == []


def test_an_expected_plan_that_still_holds_is_applied(site: Site) -> None:
    """The fingerprints of a fresh plan let the apply through; those of another do not."""
    planned = site.plan(job("a"))
    with pytest.raises(StalePlanError):
        site.apply(job("a"), expected=replace(planned.fingerprints(), observed="0" * 64))
    assert site.apply(job("a"), expected=planned.fingerprints()).revision is not None


def test_a_desired_state_of_another_server_is_made_anew(site: Site) -> None:
    """What was shown is used again only where the server reads schedules as it did when it was shown."""
    wanted = request(job("a"))
    with connect(site.dsn) as conn:
        shown = plan_target(conn, wanted)
        facts = replace(shown.observed.facts, database="elsewhere")
        other = replace(
            shown,
            observed=replace(shown.observed, facts=facts),
            desired=replace(shown.desired, resources={}),
        )
        apply_target(conn, wanted, shown=other)
    assert site.rows("SELECT jobname::text FROM cron.job") == [("a",)]
