"""Plans as JSON documents, and their schema without references."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import jsonschema
import pytest

from reconciler.core.changes import Change, FieldChange, Obstacle, Snapshot
from reconciler.core.plan import Fingerprints, Plan
from reconciler.core.plan_documents import make_value, render_change, render_plan
from reconciler.resources import read_resource
from reconciler.runtime.plan_schema import load_plan_schema
from tests.core_builders import make_document, make_entry

PRINTS = Fingerprints(desired="d" * 64, observed="0" * 64)
AFTER = Snapshot(document=make_document(sql="SELECT 1"), entry=make_entry("a", 1))
CHANGE = Change(
    action="update",
    kind="job",
    name="a",
    reason="edited",
    source="jobs.d/a.yaml:3",
    before=AFTER,
    after=AFTER,
    fields=(FieldChange(path="spec.sql", before="ø", after=None),),
    obstacle=Obstacle(kind="refused", why="a protection", remedy="lift it"),
)
PLAN = Plan(target="test", owner="shop", changes=(CHANGE,), held=(CHANGE, CHANGE), kept=("b",))


def test_what_is_held_is_counted() -> None:
    """Beside what is changed and what stays; a plan of which nothing is held does not name it."""
    summary = make_value(PLAN, PRINTS)["summary"]
    assert (summary["update"], summary["kept"], summary["held"]) == (1, 1, 2)
    assert "held" not in make_value(replace(PLAN, held=()), PRINTS)["summary"]


def test_the_end_of_a_grace_is_told_where_there_is_one() -> None:
    """In UTC, to the second."""
    ended = replace(CHANGE, retired_until=datetime(2026, 11, 21, 8, 0, 5, 7, tzinfo=UTC))
    assert render_change(ended, None)["retired_until"] == "2026-11-21T08:00:05Z"
    assert "retired_until" not in render_change(CHANGE, None)


def test_the_same_plan_gives_the_same_text() -> None:
    """Indented, with letters as they are."""
    text = render_plan(PLAN, PRINTS)
    assert text == render_plan(PLAN, PRINTS)
    assert (json.loads(text), "ø" in text, text[-2:]) == (make_value(PLAN, PRINTS), True, "}\n")


@pytest.mark.parametrize(
    "broken", [{}, {"changes": 7}, {"changes": [{**render_change(CHANGE, None), "x": 1}]}]
)
def test_the_schema_without_references_says_the_same(broken: dict[str, object]) -> None:
    """It takes a plan, and refuses what the published one refuses."""
    plain, published = load_plan_schema(), json.loads(read_resource("schemas", "plan.schema.json"))
    assert "$ref" not in json.dumps(plain)
    value = make_value(PLAN, PRINTS)
    for schema in (plain, published):
        jsonschema.validate(value, schema)
        if broken:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**value, **broken}, schema)
    beside = plain["properties"]["changes"]["items"]["properties"]["retired_until"]
    assert (beside["pattern"], beside["description"][:4]) == ("Z$", "When")
