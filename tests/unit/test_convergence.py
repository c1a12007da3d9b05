"""Execute steps on a small model of pg_cron: whatever was there, an apply ends where it should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler.core.config import Policy, Prune
from reconciler.core.diff import diff
from reconciler.core.matching import entry_key
from reconciler.core.plan import Plan, find_refusal, make_fingerprints, make_plan
from reconciler.core.state import DesiredState, Entry, RowDrift
from reconciler.core.steps import ScheduleEntry, make_steps
from tests.core_builders import (
    ALL_RIGHTS,
    OWNER,
    ROLE,
    SUPERUSER,
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_facts,
    make_resource,
    make_scheduled,
)
from tests.cron_model import Model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from reconciler.core.facts import Rights
    from reconciler.core.specs import Kind
    from reconciler.core.state import DesiredResource

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")
_NAMES = "abcd"
_ROLES = (ROLE, ROLE, "bob")


_SCHEDULES = st.sampled_from(["0 * * * *", "5 * * * *"])
_DOCUMENTS = st.sampled_from(["1", "2"]).map(lambda text: make_document(sql=text))
_FLAGS = st.sampled_from([True, True, False])


@st.composite
def _rights(draw: st.DrawFn) -> Rights:
    if draw(st.booleans()):
        return SUPERUSER
    flags = [draw(st.booleans()) for _ in range(4)]
    rights = replace(
        ALL_RIGHTS,
        sees_all=flags[0],
        schedule_in_database=flags[1],
        alter_job=flags[2],
        update_entries=flags[3],
    )
    return replace(rights, use_cron=draw(st.sampled_from([True] * 9 + [False])))


@st.composite
def _entries(draw: st.DrawFn, name: str) -> Entry:
    return make_entry(
        name,
        schedule=draw(_SCHEDULES),
        command=draw(st.sampled_from([f"CALL reconciler.run_job('{name}')", "VACUUM"])),
        database=draw(st.sampled_from(["app", "app", "other"])),
        username=draw(st.sampled_from(_ROLES)),
        active=draw(_FLAGS),
    )


@st.composite
def _resources(draw: st.DrawFn, name: str) -> DesiredResource:
    kind = draw(
        st.sampled_from(["job", "job", "job", "scheduled", "scheduled", "scheduled", "once", "queue"])
    )
    document = draw(_DOCUMENTS)
    if kind == "queue":
        resource = replace(make_resource(name, document=document), kind="queue")
    elif kind == "scheduled":
        entry = replace(draw(_entries(name)), username=draw(st.sampled_from(["", "", "", ROLE, "bob"])))
        resource = make_resource(name, document=document, entry=entry)
    else:
        resource = make_resource(name, document=document, once=kind == "once")
    old = draw(st.sampled_from(["", "", *_NAMES]))
    return replace(resource, renamed_from="" if old == name else old, protect=draw(st.integers(0, 5)) == 0)


@st.composite
def _models(draw: st.DrawFn, protect: bool) -> Model:
    model = Model(facts=make_facts(draw(_rights())))
    for name in draw(st.lists(st.sampled_from(_NAMES), unique=True, min_size=2)):
        _add_definition(draw, model, name, protect=protect)
    for name in draw(st.lists(st.sampled_from(_NAMES), max_size=4)):
        entry = draw(_entries(name))
        if not model.holds(entry.name, entry.username):
            keys = {
                (definition.entry.name, definition.entry.username)
                for definition in model.definitions.values()
                if definition.entry is not None
                and definition.entry.jobid not in model.entries.keys() - model.free
            }
            if (entry.name, entry.username) not in keys:
                model.free.add(model.add(entry))
    model.settled = frozenset(draw(st.lists(st.sampled_from(_NAMES), max_size=2)))
    return model


def _add_definition(draw: st.DrawFn, model: Model, name: str, *, protect: bool) -> None:
    kind: Kind = draw(st.sampled_from(["job", "job", "job", "queue"]))
    definition = make_definition(
        name,
        kind=kind,
        owner=draw(st.sampled_from([OWNER] * 6 + ["crm"])),
        document=draw(_DOCUMENTS),
        intact=draw(_FLAGS),
        protect=protect and draw(st.integers(0, 9)) == 0,
    )
    if kind == "job" and draw(_FLAGS):
        definition = replace(definition, entry=_add_entry(draw, model, name))
    elif draw(st.booleans()):
        model.rows[name] = RowDrift(name=name, observed=None, applied={"limit": 1})
    model.definitions[name] = definition


def _add_entry(draw: st.DrawFn, model: Model, name: str) -> Entry:
    """Add the entry of a definition as it became after it was applied, and return it as it was applied."""
    applied = draw(_entries(name))
    fate = draw(
        st.sampled_from(["kept", "kept", "edited", "renamed", "renamed", "role", "gone", "again", "reused"])
    )
    edited = {
        "edited": replace(applied, schedule="9 * * * *", active=not applied.active, command="SELECT 9"),
        "renamed": replace(applied, name=draw(st.sampled_from(_NAMES))),
        "role": replace(applied, username=draw(st.sampled_from(_ROLES))),
        "reused": replace(applied, name=f"s-{name}", command="SELECT 'stranger'"),
    }.get(fate, applied)
    if model.holds(edited.name, edited.username):
        fate = "gone"
    if fate in {"gone", "again"}:
        model.last += 1
        if fate == "again" and not model.holds(name, applied.username):
            lost = model.last
            model.add(applied)
            return replace(applied, jobid=lost)
        return replace(applied, jobid=model.last)
    jobid = model.add(edited)
    if fate == "reused":
        model.free.add(jobid)
    return replace(applied, jobid=jobid)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[DesiredState, Model, Prune, frozenset[str]]:
    calm = draw(st.booleans())  # half of the cases are spared what refuses the whole plan
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True, min_size=2))
    model = draw(_models(not calm))
    if calm:
        names = [name for name in names if model.definitions.get(name, make_definition()).owner == OWNER]
    adopt = frozenset(_NAMES) if calm else frozenset(draw(st.lists(st.sampled_from(_NAMES))))
    desired = make_desired_state(*(draw(_resources(name)) for name in names))
    prune: Prune = draw(st.sampled_from(["never", "confirm", "auto"]))
    return desired, model, prune, adopt


def _plan(desired: DesiredState, model: Model, prune: Prune, adopt: frozenset[str]) -> Plan:
    return make_plan(desired, model.observe(), target="t", policy=Policy(prune=prune), adopt=adopt)


def check_untouched(model: Model, before: Model, adopt: frozenset[str], *, owner: str = OWNER) -> None:
    """Check that what is not the owner's is as it was, but for what the person named."""
    foreign = {name: value for name, value in before.definitions.items() if value.owner != owner}
    assert {name: value for name, value in model.definitions.items() if value.owner != owner} == foreign
    visible = before.observe().entries
    # An entry that stands where ours stood, while ours cannot be seen, is ours made anew by hand: the role
    # cannot tell that row-level security hides the old one.
    remade = {
        entry_key(definition.entry)
        for definition in before.definitions.values()
        if definition.owner == owner and definition.entry and definition.entry.jobid not in visible
    }
    for jobid in before.free:
        entry = before.entries[jobid]
        if entry.name not in adopt and entry_key(entry) not in remade:
            assert model.entries.get(jobid) == entry
    for definition in foreign.values():
        jobid = (definition.entry.jobid if definition.entry else None) or 0
        if jobid in before.entries and jobid not in before.free:
            assert model.entries.get(jobid) == before.entries[jobid]


def check_gone(model: Model, before: Model, plan: Plan, prune: Prune) -> None:
    """Check that whatever went was in the plan."""
    made = [change for change in plan.changes if change.obstacle is None]
    deleted = {change.name for change in made if change.action == "delete"}
    assert before.definitions.keys() - model.definitions.keys() <= deleted | {
        change.renamed_from for change in made
    }
    shown = {change.before.entry.jobid for change in made if change.before and change.before.entry}
    assert before.entries.keys() - model.entries.keys() <= shown
    if prune == "never":
        assert not deleted


def check_reached(model: Model, desired: DesiredState, plan: Plan) -> None:
    """Check that every entry that is declared, and that nothing hinders, stands in cron.job as declared."""
    hindered = {change.name for change in plan.changes if change.obstacle is not None}
    for name in desired.resources.keys() - hindered:
        resource, definition = desired.resources[name], model.definitions.get(name)
        if definition is None:
            assert resource.once
            assert name in model.settled
            continue
        assert (definition.owner, definition.kind) == (OWNER, resource.kind)
        assert definition.protect == resource.protect
        assert definition.document == resource.document or (resource.once and name in model.settled)
        assert (definition.entry is None) == (resource.entry is None)
        if definition.entry is not None and resource.entry is not None:
            username = resource.entry.username or definition.entry.username
            assert definition.entry.same(replace(resource.entry, username=username))
            if definition.entry.username == ROLE and model.facts.rights.use_cron:
                assert model.entries[definition.entry.jobid or 0] == definition.entry


@settings(max_examples=500, deadline=None)
@given(_cases())
def test_an_apply_ends_as_declared_and_touches_nothing_else(
    case: tuple[DesiredState, Model, Prune, frozenset[str]],
) -> None:
    """Plan after apply is empty but for what was hindered, and nothing that is not ours moved."""
    desired, model, prune, adopt = case
    before = model.copy()
    plan = _plan(desired, model, prune, adopt)
    assert plan == _plan(desired, model, prune, adopt)
    refusal = find_refusal(plan, Policy(prune=prune), allow_deletes=len(plan.deletions))
    assert (refusal is not None) == bool(plan.refused)
    event("refused" if refusal else f"applied, {'hindered' if plan.beyond_rights else 'whole'}")
    if refusal is not None:
        return
    model.execute(make_steps(plan.changes, model.facts))
    hindered = {change.name for change in plan.beyond_rights}
    again = _plan(desired, model, prune, adopt)
    assert {change.name for change in again.changes} <= hindered
    assert all(change.obstacle is not None for change in again.changes)
    check_untouched(model, before, adopt)
    check_gone(model, before, plan, prune)
    check_reached(model, desired, plan)


def _shuffle(rows: Mapping[_Key, _Row], random: Random) -> dict[_Key, _Row]:
    items = list(rows.items())
    random.shuffle(items)
    return dict(items)


@settings(max_examples=100, deadline=None)
@given(_cases(), st.randoms(use_true_random=False))
def test_the_order_of_what_was_read_does_not_show(
    case: tuple[DesiredState, Model, Prune, frozenset[str]], random: Random
) -> None:
    """Changes and fingerprints are the same in whatever order files and rows come."""
    desired, model, prune, adopt = case
    observed = model.observe()
    other = replace(
        observed,
        definitions=_shuffle(observed.definitions, random),
        entries=_shuffle(observed.entries, random),
        drifted_rows=_shuffle(observed.drifted_rows, random),
    )
    mixed = replace(desired, resources=_shuffle(desired.resources, random))
    assert diff(mixed, other, prune=prune, adopt=adopt) == diff(desired, observed, prune=prune, adopt=adopt)
    assert make_fingerprints(mixed, other) == make_fingerprints(desired, observed)


def test_the_model_keeps_pg_crons_rules() -> None:
    """`schedule` keeps active and the jobid, and a rename to a key that is taken fails."""
    model = Model(facts=make_facts())
    model.add(make_entry("a", active=False))
    model.add(make_entry("b"))
    step = ScheduleEntry(entry=make_entry("a", schedule="1 * * * *"), username=None, plain=True)
    model._schedule(step)
    assert model.entries[1] == make_entry("a", 1, schedule="1 * * * *", active=False)
    with pytest.raises(AssertionError, match="duplicate key"):
        model._put(replace(model.entries[1], name="b"))
    assert make_scheduled("a").entry == make_entry("a", username="")
