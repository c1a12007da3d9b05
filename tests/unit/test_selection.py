"""Selection by name, label and file: what is planned, what is refused, and what is never deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.canonical import render_canonical
from reconciler.core.config import Policy
from reconciler.core.plan import Plan, make_plan
from reconciler.core.selection import Selection, choose, narrow, read_selection, widen
from reconciler.core.specs import Place
from reconciler.core.state import Notice
from reconciler.errors import ReconcilerError
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_entry,
    make_observed,
    make_resource,
    make_scheduled,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from reconciler.core.state import DesiredResource, DesiredState, ObservedState


def declare(name: str, path: str = "jobs.d/a.yaml", **fields: Any) -> DesiredResource:
    """Declare a job without an entry."""
    document = render_canonical({"schedule": "0 * * * *", "sql": "SELECT 1", **fields})
    return make_resource(name, document=document, place=Place(path=path, line=1, column=1))


NOTHING = "fits nothing that is declared for this target"
SHOP = (
    declare("report", labels={"team": "data", "tier": "1"}),
    declare("report-eu", "jobs.d/eu/reports.yaml", labels={"team": "data"}),
    declare("mail", "jobs.d/eu.yaml", labels={"team": "growth"}),
    declare("tidy", "/srv/more/tidy.yaml"),
)


def pick(**conditions: Any) -> set[str]:
    """Choose of the shop."""
    return set(choose(SHOP, Selection(**conditions)))


def plan_only(
    desired: DesiredState, chosen: Collection[str], observed: ObservedState, policy: Policy | None = None
) -> Plan:
    """Plan a part."""
    return make_plan(narrow(desired, chosen), observed, target="test", policy=policy or Policy(prune="auto"))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"names": ("report",)}, {"report"}),
        ({"names": ("report*",)}, {"report", "report-eu"}),
        ({"names": ("mail", "t*y")}, {"mail", "tidy"}),
        ({"labels": (("team", "data"),)}, {"report", "report-eu"}),
        ({"labels": (("team", "d*"), ("team", "growth"))}, {"report", "report-eu", "mail"}),
        ({"labels": (("tier", "*"),)}, {"report"}),
        ({"paths": ("jobs.d/eu",)}, {"report-eu"}),
        ({"paths": ("jobs.d/eu/",)}, {"report-eu"}),
        ({"paths": ("jobs.d/eu.yaml",)}, {"mail"}),
        ({"paths": ("jobs.d",)}, {"report", "report-eu", "mail"}),
        ({"paths": (".",)}, {"report", "report-eu", "mail"}),
        ({"paths": ("/srv/more",)}, {"tidy"}),
        ({"names": ("report*",), "labels": (("team", "data"),), "paths": ("jobs.d/eu",)}, {"report-eu"}),
    ],
)
def test_conditions_of_one_kind_add_up_and_kinds_narrow_down(
    conditions: dict[str, Any], expected: set[str]
) -> None:
    """Values of one option are or-ed, options are and-ed."""
    assert pick(**conditions) == expected


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"names": ("rport",)},
            f"--only rport {NOTHING}\n  did you mean report?",
        ),
        (
            {"names": ("report", "zzz")},
            f"--only zzz {NOTHING}\n  there are mail, report, report-eu, tidy",
        ),
        (
            {"labels": (("team", "dta"),)},
            f"--label team=dta {NOTHING}\n  did you mean team=data?",
        ),
        (
            {"paths": ("jobs.d/e.yaml",)},
            f"--path jobs.d/e.yaml {NOTHING}\n  did you mean jobs.d/eu.yaml?",
        ),
        (
            {"names": ("tidy",), "labels": (("team", "data"),)},
            "nothing is selected: each of --only, --label and --path fits something, and nothing fits all",
        ),
    ],
)
def test_what_fits_nothing_is_an_error(conditions: dict[str, Any], message: str) -> None:
    """A single value that fits nothing is a typing error, also beside others that fit."""
    with pytest.raises(ReconcilerError) as raised:
        pick(**conditions)
    assert str(raised.value).startswith(message)


def test_many_names_are_counted_in_the_error() -> None:
    """The remedy names a few and counts the rest."""
    with pytest.raises(ReconcilerError, match=r"there are j0, j1, j10, j11, j2, j3, j4, j5 and 4 more"):
        choose([declare(f"j{number}") for number in range(12)], Selection(names=("none",)))
    with pytest.raises(ReconcilerError, match="there are none"):
        choose([make_resource("a", document="")], Selection(labels=(("team", "*"),)))


def test_a_selection_survives_a_saved_plan() -> None:
    """What JSON keeps is read back the same, and nothing is the empty selection."""
    selection = Selection(names=("a*",), labels=(("team", "x=y"),), paths=("jobs.d",))
    assert read_selection(json.loads(json.dumps(selection.to_json()))) == selection
    assert read_selection(None).is_empty
    assert not selection.is_empty


def test_narrowing_keeps_our_own_and_can_be_undone() -> None:
    """The tool's own entries are always planned; notices keep what is about the chosen ones."""
    notices = (
        Notice(code="http", message="m", names=("a", "b")),
        Notice(code="http", message="only b", names=("b",)),
        Notice(code="rollback", message="about no resource"),
    )
    whole = make_desired_state(
        make_resource("a"), make_resource("b"), make_resource("reconciler-tick"), notices=notices
    )
    part = narrow(whole, {"a"})
    assert set(part.resources) == {"a", "reconciler-tick"}
    assert set(part.unselected or ()) == {"b"}
    assert [(notice.message, notice.names) for notice in part.notices] == [
        ("m", ("a",)),
        ("about no resource", ()),
    ]
    assert widen(part).resources == whole.resources
    assert widen(whole) is whole


def test_under_a_selection_nothing_is_deleted() -> None:
    """Whatever prune says; the notice names what stays, and what is only not selected is not among it."""
    observed = make_observed(make_definition("gone"), make_definition("also"), make_definition("b"))
    plan = plan_only(make_desired_state(make_resource("a"), make_resource("b")), {"a"}, observed)
    assert [(change.action, change.name) for change in plan.changes] == [("create", "a")]
    assert (plan.kept, plan.resources) == ((), 1)
    notice = plan.notices[0]
    assert (notice.code, notice.names) == ("selected", ("also", "gone"))
    assert notice.message == (
        "1 of 2 declared resources are selected; under a selection nothing is deleted or retired: 2 that are "
        "no longer declared stay"
    )


def test_the_notice_counts_one_and_none() -> None:
    """One that stays is said in the singular; where none does, there is only the count."""
    desired = make_desired_state(make_resource("a"), make_resource("b"))
    one = plan_only(desired, {"a"}, make_observed(make_definition("gone"))).notices[0]
    assert one.message.endswith("1 that is no longer declared stays")
    none = plan_only(desired, {"a"}, make_observed()).notices[0]
    assert (none.message, none.names) == ("1 of 2 declared resources are selected", ())


def test_an_unselected_rename_keeps_the_old_name_from_being_called_gone() -> None:
    """What goes on under another name is no longer declared, and yet not among what stays."""
    desired = make_desired_state(make_resource("a"), make_resource("new", renamed_from="old"))
    assert plan_only(desired, {"a"}, make_observed(make_definition("old"))).notices[0].names == ()


def test_other_changes_are_left_out() -> None:
    """An unselected job that drifted is not mended."""
    desired = make_desired_state(make_scheduled("a"), make_scheduled("b"))
    entries = (make_entry("a", 1, schedule="1 * * * *"), make_entry("b", 2, schedule="1 * * * *"))
    observed = make_observed(
        make_definition("a", entry=make_entry("a", 1)),
        make_definition("b", entry=make_entry("b", 2)),
        entries=entries,
    )
    assert [change.name for change in plan_only(desired, {"b"}, observed).changes] == ["b"]


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({"after": ["other"]}, make_resource("other")),
        ({"queue": "other", "handler": "x"}, make_resource("other", kind="queue", document="{}")),
        ({"alert": {"channels": ["other"]}}, make_resource("other", kind="channel", document="{}")),
    ],
)
def test_a_reference_to_what_is_neither_selected_nor_there_is_refused(
    fields: dict[str, Any], other: DesiredResource
) -> None:
    """It names what is missing; once that is on the target, or selected too, nothing hinders it."""
    desired = make_desired_state(declare("a", **fields), other)
    plan = plan_only(desired, {"a"}, make_observed())
    assert [change.obstacle.why for change in plan.refused if change.obstacle] == [
        "job a refers to other, which the target does not have"
    ]
    there = make_definition("other", kind=other.kind, document=other.document)
    assert plan_only(desired, {"a"}, make_observed(there)).refused == ()
    until = datetime(2026, 12, 1, tzinfo=UTC)
    assert len(plan_only(desired, {"a"}, make_observed(replace(there, retired_until=until))).refused) == 1
    assert plan_only(desired, {"a", "other"}, make_observed()).refused == ()
    assert len(plan_only(desired, {"a"}, make_observed(make_definition("other", kind="worker"))).refused) == 1


def test_references_to_others_are_not_looked_at() -> None:
    """A built-in queue is declared nowhere, and one that has another obstacle keeps that."""
    assert plan_only(make_desired_state(declare("a", queue="default")), {"a"}, make_observed()).refused == ()
    desired = make_desired_state(declare("a", after=["b"]), declare("b"))
    foreign = make_definition("a", owner="others")
    refused = plan_only(desired, {"a"}, make_observed(foreign)).refused
    assert [change.obstacle.why for change in refused if change.obstacle] == [
        "job a belongs to the owner others (jobs.d/a.yaml:3)"
    ]
