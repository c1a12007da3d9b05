"""Plans say when what they make or change starts together with more jobs than the server runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import process_time
from typing import TYPE_CHECKING

from reconciler.core.config import Policy
from reconciler.core.plan import make_plan
from tests.core_builders import (
    SETTINGS,
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_facts,
    make_observed,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.state import Definition, DesiredResource, Entry, Notice, ObservedState

NOW = datetime(2026, 11, 21, 11, 0, tzinfo=UTC)
DAILY = make_document(daily="00:00", sql="SELECT 1")


def daily(name: str, **changed: object) -> DesiredResource:
    """Declare a job of midnight."""
    return make_scheduled(name, schedule="0 0 * * *", document=DAILY, **changed)


def observe(*definitions: Definition, entries: tuple[Entry, ...] = (), limit: str = "3") -> ObservedState:
    """Observe a server that runs three jobs at once, unless it is said otherwise."""
    settings = {**SETTINGS, **({"max_running_jobs": limit} if limit else {})}
    facts = make_facts(settings=settings)
    return replace(make_observed(*definitions, entries=entries, facts=facts), now=NOW)


def notices(
    *resources: DesiredResource, observed: ObservedState | None = None, policy: Policy | None = None
) -> list[Notice]:
    """Plan, and return the notices of herds."""
    plan = make_plan(
        make_desired_state(*resources),
        observed or observe(),
        target="test",
        policy=policy or Policy(prune="auto"),
    )
    return [notice for notice in plan.notices if notice.code == "herd"]


def test_new_jobs_that_make_a_herd_are_told() -> None:
    """When, how many, how many the server runs, and who."""
    (notice,) = notices(*(daily(name) for name in "abcd"))
    assert notice.names == ("a", "b", "c", "d")
    assert notice.message == (
        "each day at 00:00 (GMT) 4 jobs start in one minute, and the server runs 3 at once: the others wait; "
        "reconciler calendar finds the spread that parts them"
    )


def test_no_herd_no_notice() -> None:
    """As many as the server runs, other times, inactive ones; nor without the database's clock."""
    assert notices(*(daily(name) for name in "abc")) == []
    assert notices(*(daily(name) for name in "abc"), make_scheduled("d", schedule="1 0 * * *")) == []
    assert notices(*(daily(name) for name in "abc"), daily("d", active=False)) == []
    assert notices(*(daily(name) for name in "abcd"), observed=replace(observe(), now=None)) == []


def test_jobs_of_others_and_entries_of_nobody_count() -> None:
    """They start as well; the notice names what the plan changes."""
    theirs = make_definition(
        "b", owner="kitchen", document=DAILY, entry=make_entry("b", jobid=1, schedule="0 0 * * *")
    )
    entries = (
        make_entry("b", jobid=1, schedule="0 0 * * *"),
        make_entry("c", jobid=2, schedule="0 0 * * *"),
        make_entry("d", jobid=3, schedule="0 0 * * *"),
    )
    (notice,) = notices(daily("a"), observed=observe(theirs, entries=entries))
    assert notice.names == ("a",)
    assert notices(daily("a"), observed=observe(theirs, entries=entries[:2])) == []


def test_what_the_plan_takes_away_does_not_count() -> None:
    """A job that is deleted makes room, and one that is renamed counts once."""
    entry = make_entry("old", jobid=1, schedule="0 0 * * *")
    old = make_definition("old", document=DAILY, entry=entry)
    observed = observe(old, entries=(entry,))
    assert notices(*(daily(name) for name in "abc"), observed=observed) == []
    renamed = replace(daily("c"), renamed_from="old")
    assert notices(*(daily(name) for name in "ab"), renamed, observed=observed) == []
    assert len(notices(*(daily(name) for name in "abc"), observed=observed, policy=Policy())) == 1


def test_a_herd_that_is_there_already_is_no_news() -> None:
    """Who is in it and does not change is not told again; who is edited is."""
    entries = tuple(
        make_entry(name, jobid=number, schedule="0 0 * * *") for number, name in enumerate("abcd")
    )
    definitions = [
        make_definition(entry.name, document=DAILY, entry=replace(entry, username="")) for entry in entries
    ]
    plain = observe(*definitions, entries=tuple(replace(entry, username="") for entry in entries))
    assert notices(*(daily(name) for name in "abcd"), observed=plain) == []
    edited = replace(daily("d"), document=make_document(daily="00:00", sql="SELECT 2"))
    (notice,) = notices(*(daily(name) for name in "abc"), edited, observed=plain)
    assert notice.names == ("d",)


def test_the_entries_of_the_tool_are_no_news() -> None:
    """They count, and nobody has to hear that they were made."""
    own = [make_scheduled(f"reconciler-{name}", schedule="5 seconds") for name in ("runner", "tick")]
    made = [daily(name) for name in "ab"]
    (notice,) = notices(*own, *made)
    assert notice.names == ("a", "b")
    assert notices(*own, *made[:1]) == []


def test_a_limit_that_cannot_be_seen_is_said_to_be_so() -> None:
    """32 are taken for it."""
    made = [daily(f"job-{number}") for number in range(33)]
    (notice,) = notices(*made, observed=observe(limit=""))
    assert "the server runs 32 at once, as far as can be seen: the others wait" in notice.message


def test_ten_thousand_new_jobs_are_looked_at_in_no_time() -> None:
    """Each of them once: twice for each other one would take minutes."""
    made = [
        make_scheduled(f"job-{number}", schedule=f"{number % 60} {number % 24} * * *")
        for number in range(10_000)
    ]
    observed = observe()
    start = process_time()
    notices(*made, observed=replace(observed, now=None))
    without = process_time() - start
    start = process_time()
    assert notices(*made, observed=observed)
    assert process_time() - start < without + 10


def test_a_zone_that_only_the_server_knows_stops_no_plan() -> None:
    """Where this machine cannot tell its times, nothing is said of herds."""
    observed = observe()
    elsewhere = replace(
        observed, facts=replace(observed.facts, settings={**observed.facts.settings, "timezone": "Mars/Base"})
    )
    assert notices(*(daily(name) for name in "abcd"), observed=elsewhere) == []


def test_what_does_not_start_or_cannot_be_read_is_in_no_herd() -> None:
    """Inactive jobs, and a schedule of which nobody knows when it comes."""
    idle = daily("idle", active=False)
    odd = make_scheduled("odd", schedule="61 * * * *", document=make_document(schedule="61 * * * *"))
    (notice,) = notices(*(daily(name) for name in "abcd"), idle, odd)
    assert notice.names == ("a", "b", "c", "d")
    assert "4 jobs start in one minute" in notice.message
