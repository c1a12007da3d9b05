"""Saved plans as data: sealed, opened, and compared with the plan that an apply would carry out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from reconciler.core import plan_documents
from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.core.plan import Fingerprints, Plan
from reconciler.core.saved_plans import SavedPlan, find_stale, open_saved, seal
from tests.core_builders import make_document, make_entry

PRINTS = Fingerprints(desired="d" * 64, observed="0" * 64)
MOVED_FILES = replace(PRINTS, desired="e" * 64)
MOVED_TARGET = replace(PRINTS, observed="1" * 64)


def make_change(name: str = "a", **changed: Any) -> Change:
    """Make the creation of a job."""
    after = Snapshot(document=make_document(sql="SELECT 1"), entry=make_entry(name, 1))
    values: dict[str, Any] = {
        "action": "create", "kind": "job", "name": name, "reason": "declared", "before": None, "after": after,
        "source": "jobs.d/a.yaml:3",
    }  # fmt: skip
    return Change(**{**values, **changed})


def make_plan(*changes: Change, **changed: Any) -> Plan:
    """Make a plan of these changes."""
    return Plan(target="test", owner="shop", changes=changes, **changed)


def save(plan: Plan) -> dict[str, Any]:
    """Save a plan and read what a file would hold."""
    made_at = datetime(2026, 11, 21, 13, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    value = seal(
        plan_documents.make_value(plan, PRINTS),
        database="app",
        role="reader",
        made_at=made_at,
        adopt=("z", "a"),
    )
    loaded: dict[str, Any] = json.loads(plan_documents.render_value(value))
    return loaded


def reopen(plan: Plan) -> SavedPlan:
    """Save a plan and open it again."""
    return open_saved(save(plan))


def test_what_is_sealed_can_be_opened() -> None:
    """It says for what, by whom, when and with what the plan was made."""
    saved = reopen(make_plan(make_change(), migrations=("0001_a",)))
    assert (saved.target, saved.owner, saved.database, saved.role) == ("test", "shop", "app", "reader")
    assert (saved.made_at, saved.adopt, saved.fingerprints) == ("2026-11-21T12:00:05Z", ("a", "z"), PRINTS)
    assert (saved.migrations, list(saved.changes)) == (("0001_a",), [("job", "a")])


def test_a_plan_of_an_unknown_time_is_sealed() -> None:
    """Where the clock was not asked, nothing is made up."""
    value = plan_documents.make_value(make_plan(), PRINTS)
    assert open_saved(seal(value, database="app", role="r", made_at=None, adopt=())).made_at == ""


@pytest.mark.parametrize(
    "path",
    [
        ("target",),
        ("owner",),
        ("fingerprints", "observed"),
        ("changes", 0, "name"),
        ("changes", 0, "after", "spec", "sql"),
        ("changes", 0, "source"),
        ("saved", "adopt"),
        ("saved", "role"),
        ("saved", "digest"),
    ],
)
def test_any_edit_is_found(path: tuple[str | int, ...]) -> None:
    """The digest is of everything."""
    value = save(make_plan(make_change()))
    place: Any = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "edited"
    with pytest.raises(ValueError, match="was altered since it was made"):
        open_saved(value)


def test_what_was_left_out_or_added_is_found() -> None:
    """A change fewer, or a key more."""
    value = save(make_plan(make_change(), make_change("b")))
    for edited in ({**value, "changes": value["changes"][:1]}, {**value, "more": 1}):
        with pytest.raises(ValueError, match="was altered"):
            open_saved(edited)


def test_what_was_only_shown_is_not_opened() -> None:
    """The JSON that plan prints holds no seal."""
    with pytest.raises(ValueError, match="plan --out FILE"):
        open_saved(plan_documents.make_value(make_plan(), PRINTS))


def test_the_same_plan_holds() -> None:
    """Order, obstacles, reasons, sources, and migrations that ran meanwhile do not count."""
    saved = reopen(make_plan(make_change(), make_change("b"), migrations=("0001_a", "0002_b")))
    hindered = Obstacle(kind="rights", why="x", remedy="y")
    other = make_change(obstacle=hindered, source="jobs.d/z.yaml:9", reason="edited")
    assert find_stale(saved, make_plan(make_change("b"), other, migrations=("0002_b",)), PRINTS) == ()


def test_what_moved_is_told_apart() -> None:
    """The files, the target, or both; each with the changes that differ."""
    saved = reopen(make_plan(make_change()))
    plan = make_plan(make_change())
    files, target = "what is declared is not what it was", "the target test is not as it was"
    assert find_stale(saved, plan, MOVED_FILES) == (files,)
    assert find_stale(saved, plan, MOVED_TARGET) == (target,)
    both = replace(MOVED_FILES, observed=MOVED_TARGET.observed)
    assert find_stale(saved, plan, both) == (files, target)
    more = make_plan(make_change(), make_change("b"))
    assert find_stale(saved, more, MOVED_FILES) == (files, "create job b: it was not in the reviewed plan")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (make_change(renamed_from="old"), "create job a: not as reviewed in renamed_from"),
        (make_change(action="adopt"), "job a: now it is to adopt, reviewed was to create"),
        (make_change(after=None), "create job a: not as reviewed in after"),
        (
            make_change(after=Snapshot(document=make_document(sql="SELECT 2"), entry=make_entry("a", 1))),
            "create job a: not as reviewed in after.spec.sql",
        ),
    ],
)
def test_other_changes_of_the_same_states_are_found(now: Change, said: str) -> None:
    """As where another prune or another release makes them; values that are equal in Python alone are not."""
    saved = reopen(make_plan(make_change(), make_change("b")))
    first, *rest = find_stale(saved, make_plan(now, make_change("b")), PRINTS)
    assert first.startswith("other changes follow from the same files now")
    assert rest == [said]


def test_values_of_other_types_differ() -> None:
    """1 is not true, and not 1.0."""
    saved = reopen(make_plan(make_change(after=Snapshot(document='{"x":1}', entry=None))))
    for text in ("true", "1.0"):
        now = make_plan(make_change(after=Snapshot(document=f'{{"x":{text}}}', entry=None)))
        assert find_stale(saved, now, PRINTS)[1:] == ("create job a: not as reviewed in after.spec.x",)


def test_the_first_differences_are_named() -> None:
    """Five changes, three places in each, and how many more."""
    saved = reopen(make_plan(*(make_change(name) for name in "abcdefgh")))
    _, *rest = find_stale(saved, make_plan(make_change("a")), MOVED_FILES)
    assert rest == [*(f"create job {name}: it is not to be done any more" for name in "bcdef"), "and 2 more"]
    first = Snapshot(document='{"a":1,"b":1,"c":1,"d":1,"e":1}', entry=None)
    saved = reopen(make_plan(make_change(after=first)))
    now = make_plan(make_change(after=Snapshot(document="{}", entry=None)))
    assert find_stale(saved, now, MOVED_FILES)[1] == (
        "create job a: not as reviewed in after.spec.a, after.spec.b, after.spec.c and 2 more"
    )


def test_migrations_that_nobody_saw_are_found() -> None:
    """A newer release would run them first."""
    saved = reopen(make_plan(make_change(), migrations=("0001_a",)))
    plan = make_plan(make_change(), migrations=("0001_a", "0002_b"))
    assert find_stale(saved, plan, PRINTS) == ("it would run other migrations first: 0002_b",)


def test_a_plan_that_was_applied_is_said_to_be() -> None:
    """Nothing is left to do."""
    saved = reopen(make_plan(make_change()))
    assert find_stale(saved, make_plan(), MOVED_TARGET)[-1] == (
        "nothing is left to change: it may have been applied already"
    )


def test_numbers_that_no_json_has_are_found() -> None:
    """Python reads NaN from a file; nobody could have sealed it."""
    value = save(make_plan(make_change()))
    with pytest.raises(ValueError, match="was altered since it was made"):
        open_saved({**value, "more": float("nan")})
