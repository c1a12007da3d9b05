"""What is said of where a database is, and which plans that closes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.core.config import Policy
from reconciler.core.identity import (
    Identity,
    Place,
    describe_place,
    explain_home,
    find_home_dangers,
    find_stranger,
    guard_identity,
)
from reconciler.core.plan import Plan, find_refusal

HERE = Place(system_identifier=7, database="app", database_oid=16384, server_major=17)
PLAN = Plan(target="production", owner="shop", changes=())


def make_identity(recorded: Place = HERE, here: Place = HERE, **changed: Any) -> Identity:
    """Make an identity that is at home unless told otherwise."""
    identity = Identity(
        state="home",
        recorded=recorded,
        here=here,
        recorded_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        recorded_by="deploy",
        targets={"shop": "production"},
    )
    return replace(identity, **changed)


def test_a_place_is_described_with_what_tells_it_from_others() -> None:
    """The numbers of database and server are told, as far as they are known."""
    assert describe_place(HERE) == "the database app (oid 16384) of PostgreSQL 17, system 7"
    unknown = replace(HERE, system_identifier=None)
    assert describe_place(unknown) == "the database app (oid 16384) of PostgreSQL 17"


@pytest.mark.parametrize(
    ("state", "recorded", "here", "text"),
    [
        ("home", HERE, HERE, "server and database are those that were recorded"),
        ("home", replace(HERE, database="old"), HERE, "recorded, though it was called old then"),
        ("home", HERE, replace(HERE, system_identifier=None), "the numbers of database and tables are those"),
        ("upgraded", replace(HERE, server_major=15), HERE, "pg_upgrade brought it from PostgreSQL 15"),
        (
            "copy",
            replace(HERE, system_identifier=8),
            HERE,
            "recorded on another server, so it is a restored dump",
        ),
        ("copy", replace(HERE, database_oid=5), HERE, "another database of this server"),
        ("copy", replace(HERE, system_identifier=None), HERE, "are not those that were recorded"),
    ],
)
def test_it_is_said_why_a_database_is_at_home_or_not(
    state: Any, recorded: Place, here: Place, text: str
) -> None:
    """Each way of being at home, or elsewhere, has its own words."""
    assert text in explain_home(make_identity(recorded, here, state=state))


def test_another_name_of_the_target_is_a_danger() -> None:
    """Who applied to production and now says staging is stopped; a first apply and the same name are not."""
    identity = make_identity()
    found = find_stranger(identity, owner="shop", target="staging")
    assert found is not None
    assert (found.code, found.severity) == ("other_target", "error")
    assert "applied here to the target production last, not to staging" in found.message
    assert "reconciler target claim --target staging" in found.remedy
    assert find_stranger(identity, owner="shop", target="production") is None
    assert find_stranger(identity, owner="kitchen", target="staging") is None
    assert find_stranger(identity, owner="shop", target="registry") is None
    assert find_stranger(make_identity(targets={"shop": "registry"}), owner="shop", target="staging") is None


def test_a_copy_is_a_danger_whatever_its_name() -> None:
    """It is told with both places and the way to claim it; the name is asked for only at home."""
    identity = make_identity(replace(HERE, system_identifier=8), state="copy")
    [found] = find_home_dangers(identity, owner="shop", target="staging")
    assert (found.code, found.severity) == ("copied_database", "error")
    for text in ("2026-03-01 12:00:00Z", "system 8", "system 7", "mode direct"):
        assert text in found.message
    assert "reconciler target claim --target staging" in found.remedy


def test_nothing_recorded_and_home_are_no_dangers() -> None:
    """Nothing is found before the first apply, at home, and after pg_upgrade."""
    for identity in (None, make_identity(), make_identity(state="upgraded")):
        assert find_home_dangers(identity, owner="shop", target="production") == ()


@pytest.mark.parametrize("identity", [None, make_identity()])
def test_a_plan_at_home_stays_as_it_is(identity: Identity | None) -> None:
    """Where all is well, nothing is added."""
    assert guard_identity(PLAN, identity) is PLAN


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (make_identity(replace(HERE, database_oid=5), state="copy"), "a copy that nobody has claimed"),
        (make_identity(targets={"shop": "staging"}), "to the target staging last, not to production"),
    ],
)
def test_a_plan_elsewhere_is_closed_even_without_changes(identity: Identity, why: str) -> None:
    """Not even nothing is applied to what is not the target; the plan shows the danger first."""
    plan = guard_identity(PLAN, identity)
    assert plan.is_elsewhere
    assert [finding.severity for finding in plan.findings] == ["error"]
    refusal = find_refusal(plan, Policy(), allow_deletes=None)
    assert refusal is not None
    assert why in refusal.why
    assert find_refusal(replace(plan, is_elsewhere=False), Policy(), allow_deletes=None) is None


def test_pg_upgrade_is_told() -> None:
    """The plan stays open, with a notice that an apply records it anew."""
    plan = guard_identity(PLAN, make_identity(replace(HERE, server_major=15), state="upgraded"))
    assert plan.closed is None
    assert [notice.code for notice in plan.notices] == ["server_upgraded"]
