"""Which changes are drift, which of their fields, and what is new since the last look."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.changes import FieldChange
from reconciler.core.config import Policy
from reconciler.core.drift import compare_drift, describe_drift, find_drift
from reconciler.core.plan import make_plan
from reconciler.core.state import RowDrift
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_observed,
    make_resource,
    make_scheduled,
)

if TYPE_CHECKING:
    from reconciler.core.changes import Change
    from reconciler.core.state import Definition, DesiredResource, Entry

EDITED = make_document(schedule="5 * * * *", sql="SELECT 2")


def look(
    resource: DesiredResource,
    definition: Definition,
    *entries: Entry,
    rows: tuple[RowDrift, ...] = (),
) -> tuple[Change, ...]:
    """Plan one resource and find its drift."""
    observed = make_observed(definition, entries=entries, rows=rows)
    plan = make_plan(make_desired_state(resource), observed, target="t", policy=Policy())
    return find_drift(plan.changes, observed.definitions)


def paths(changes: tuple[Change, ...]) -> list[str]:
    """Return the fields of the one change."""
    (change,) = changes
    return [field.path for field in change.fields]


def test_an_edit_is_no_drift() -> None:
    """What only the files changed is not found."""
    entry = make_entry(jobid=1)
    resource = make_scheduled(schedule="5 * * * *", document=EDITED)
    assert look(resource, make_definition(entry=entry), entry) == ()


def test_what_was_changed_by_hand_is_found_whole() -> None:
    """Each field that differs from what is declared."""
    entry = make_entry(jobid=1)
    found = look(make_scheduled(), make_definition(entry=entry), replace(entry, active=False, database="x"))
    assert paths(found) == ["entry.active", "entry.database"]
    assert found[0].reason == "drifted"


def test_of_what_was_edited_as_well_only_the_hands_fields_are_drift() -> None:
    """Schedule and SQL were edited in the files; on the target somebody switched it off."""
    entry = make_entry(jobid=1)
    resource = make_scheduled(schedule="5 * * * *", document=EDITED)
    found = look(resource, make_definition(entry=entry), replace(entry, active=False))
    assert found[0].reason == "both"
    assert paths(found) == ["entry.active"]


def test_an_entry_that_is_gone_is_drift_whatever_was_edited() -> None:
    """All of its fields are told; those of the document are not."""
    resource = make_scheduled(schedule="5 * * * *", document=EDITED)
    found = look(resource, make_definition(entry=make_entry(jobid=1)))
    assert {path.partition(".")[0] for path in paths(found)} == {"entry"}


def test_an_entry_that_never_was_is_no_drift() -> None:
    """A definition that had no entry, edited so that it gets one, while somebody edited its row."""
    row = RowDrift(name="a", observed={"limit": 1}, applied={"limit": 2})
    found = look(make_scheduled(document=EDITED), make_definition(), rows=(row,))
    assert paths(found) == ["row.limit"]


def test_a_new_jobid_is_drift_beside_an_edit() -> None:
    """Somebody unscheduled the job and scheduled it anew."""
    resource = make_scheduled(schedule="5 * * * *", document=EDITED)
    found = look(resource, make_definition(entry=make_entry(jobid=1)), make_entry(jobid=2))
    assert paths(found) == ["jobid"]


def test_a_document_that_was_written_by_hand_is_drift() -> None:
    """Its fields are told, since nobody knows what was there before."""
    tampered = make_definition(intact=False, document=make_document(schedule="0 * * * *", sql="SELECT 666"))
    found = look(replace(make_resource(document=EDITED), protect=True), tampered)
    assert found[0].reason == "both"
    assert paths(found) == ["spec.schedule", "spec.sql"]


def test_where_no_field_is_the_hands_all_are_told() -> None:
    """A document that was written by hand to what is declared, beside an edited protection."""
    tampered = make_definition(intact=False)
    found = look(make_resource(protect=True), tampered)
    assert found[0].reason == "both"
    assert paths(found) == ["protect"]


def test_news_are_what_appeared_changed_and_ended() -> None:
    """The same drift again is no news."""
    entry = make_entry(jobid=1)

    def drift(**changed: object) -> tuple[Change, ...]:
        return look(make_scheduled(), make_definition(entry=entry), replace(entry, **changed))  # type: ignore[arg-type] # fields by name

    off, moved = drift(active=False), drift(active=False, database="x")
    assert not compare_drift(off, off)
    appeared = compare_drift((), off)
    assert (appeared.appeared, appeared.changed, appeared.ended) == (off, (), ())
    changed = compare_drift(off, moved)
    assert (changed.appeared, changed.changed, changed.ended) == ((), moved, ())
    ended = compare_drift(moved, ())
    assert (ended.appeared, ended.changed, ended.ended) == ((), (), ("a",))
    assert all((appeared, changed, ended))


def test_an_edit_of_what_drifts_is_no_news() -> None:
    """The files are not what is watched."""
    entry = make_entry(jobid=1)
    off = replace(entry, active=False)
    before = look(make_scheduled(), make_definition(entry=entry), off)
    after = look(make_scheduled(schedule="5 * * * *", document=EDITED), make_definition(entry=entry), off)
    assert (before[0].reason, after[0].reason) == ("drifted", "both")
    assert not compare_drift(before, after)


def test_a_drift_is_described_in_one_line() -> None:
    """Five fields at the most, and none where none differs."""
    entry = make_entry(jobid=1)
    (change,) = look(make_scheduled(), make_definition(entry=entry), replace(entry, active=False))
    assert describe_drift(change) == "a was changed on the target: entry.active is False, declared is True"
    many = tuple(FieldChange(path=f"row.{number}", before=1, after=2) for number in range(9))
    assert describe_drift(replace(change, fields=many)).count("declared") == 5
    assert describe_drift(replace(change, fields=())) == "a was changed on the target"
